"""What works without the calls that Windows, or macOS, lacks. Run on Linux, in processes that have lost those calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from effort import some
from forks import forget, said_in_fork

import robozarr as rz

ROOT = Path(__file__).parents[2]
WINDOWS = """
import contextlib, io, json, os, shutil, sys, zlib
import numpy, zarr, h5py, msgspec, numcodecs, zstandard, lz4.block, google_crc32c, dask, distributed, typer, rich.console
import rich.table, jinja2, matplotlib.pyplot, pandas, PIL.Image, xarray, blosc2, packaging.requirements, numba, torch
usage = shutil.disk_usage("/")
shutil.disk_usage = lambda path: usage  # Windows has a call of its own for it
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("pread", "preadv", "preadv2", "pwrite", "pwritev", "writev", "readv", "posix_fadvise", "memfd_create", "statvfs",
             "fork", "register_at_fork", "sched_getaffinity", "geteuid", "getuid", "mkfifo", "RWF_NOWAIT", "ST_RDONLY",
             "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY"):
    if hasattr(os, name):
        delattr(os, name)
import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.cli import run
store_path, source, folder = sys.argv[1:]

def said(function):
    try:
        return repr(function())
    except (rz.RoboZarrError, ImportError) as exc:
        return f"{type(exc).__name__}: {exc}"

def command(*words):
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            run(list(words))
    except SystemExit as exc:
        return exc.code
if not draw:
    import robozarr.view.report
    robozarr.view.report._chart = lambda chart: ""
store = rz.open_store(store_path)
print(json.dumps({
    "values": {
        name: zlib.crc32(numpy.ascontiguousarray(store.array(name)[:])) for name, key in store.keys.items() if not key.ragged
    },
    "episodes": store.episodes.length.tolist(),
    "text": store.model_file(0)[:40],
    "verify": said(lambda: verify(store_path, sources=source, workers=0).violations),
    "commands": [command("info", store_path), command("verify", store_path, "--source", source, "-w", "0"),
                 command("report", store_path, "-o", folder + "/a.html"),
                 command("coverage", store_path, "-o", folder + "/a.png"), command("doctor", folder)],
    "convert": said(lambda: convert(source, folder + "/b.zarr", workers=0)),
    "left": os.listdir(folder),
    "loader": said(lambda: rz.WindowLoader),
    "cache": said(lambda: rz.open_store(store_path, cache_dir=folder + "/cache")),
}))
"""


def in_a_process(code: str, *arguments: object, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=900, env=os.environ | environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def here(sample_store: Path) -> dict[str, object]:
    """The same facts, asked of this process."""
    import zlib

    import numpy as np

    store = rz.open_store(sample_store)
    values = {
        name: zlib.crc32(np.asarray(store.array(name)[:]).tobytes()) for name, key in store.keys.items() if not key.ragged
    }
    return {"values": values, "episodes": store.episodes.length.tolist(), "text": store.model_file(0)[:40]}


@pytest.mark.slow(reason="starts new Pythons, each of which imports everything")
def test_without_what_windows_lacks(sample: Path, sample_store: Path, here: dict[str, object], tmp_path: Path) -> None:
    def lose_them() -> None:
        forget(["robozarr"])
        sys.argv = ["-c", *map(str, (sample_store, sample, tmp_path))]
        exec(WINDOWS, {"__name__": "__main__", "draw": some(1, 0)})  # else only what coverage draws

    said = said_in_fork(lose_them, limit_s=300)
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert {name: found[name] for name in here} == here
    assert found["verify"] == "()"
    assert found["commands"] == [0, 0, 0, 0, 0]
    assert (tmp_path / "a.html").stat().st_size > 10_000
    assert found["convert"].startswith("StoreError: ")
    assert "converting needs flock, which this system lacks → use Linux, WSL or the container" in found["convert"]
    assert sorted(found["left"]) == ["a.html", "a.png"]
    assert found["loader"] == (
        "ImportError: robozarr.WindowLoader needs calls of Linux (resource) that this system lacks → read with "
        "open_store(…).array(key), or use Linux, WSL or the container"
    )
    assert "cache" in found["cache"]


MACOS = """
import os, sys
for name in ("posix_fadvise", "POSIX_FADV_WILLNEED", "POSIX_FADV_DONTNEED", "memfd_create", "RWF_NOWAIT", "sched_getaffinity"):
    delattr(os, name)
import robozarr as rz
import numpy as np
store = rz.open_store(sys.argv[1])
loader = rz.WindowLoader(rz.WindowDataset(store, {"agentview_rgb": [-1, 0], "actions": range(4)}), 16, shuffle=False)
pictures, n = store.array("agentview_rgb")[:], 0
for batch in loader:
    for episode, step, got in zip(batch["episode"].tolist(), batch["step"].tolist(), batch["agentview_rgb"].numpy()):
        row = int(store.episodes.start[episode]) + step
        assert np.array_equal(got, pictures[[max(row - 1, int(store.episodes.start[episode])), row]]), row
        n += 1
print(n)
"""


@pytest.mark.slow(reason="compiles the reader without those calls")
def test_windows_are_read_without_what_macos_lacks(sample_store: Path, tmp_path: Path) -> None:
    n = rz.open_store(sample_store).n_steps
    assert in_a_process(MACOS, sample_store, NUMBA_CACHE_DIR=str(tmp_path)).split()[-1] == str(n)


@pytest.fixture
def unlinked(tmp_path: Path) -> Path:
    """What git makes of the links where it may not make any: text files that hold their targets."""
    (tmp_path / "robozarr").mkdir()
    for path in (ROOT / "robozarr").iterdir():
        if path.is_symlink():
            (tmp_path / "robozarr" / path.name).write_text(os.readlink(path))  # noqa: PTH115
        elif path.is_file():
            (tmp_path / "robozarr" / path.name).write_bytes(path.read_bytes())
    shutil.copytree(ROOT / "robozarr" / "cli", tmp_path / "robozarr" / "cli")
    return tmp_path


@pytest.mark.parametrize("arguments", [["-c", "import robozarr as rz; rz.open_store"], ["-m", "robozarr", "info", "a.zarr"]])
def test_a_checkout_without_links_says_so(unlinked: Path, arguments: list[str]) -> None:
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=100, cwd=unlinked)
    assert ran.returncode != 0
    last = ran.stderr.splitlines()[-1]
    assert "is a file, but must be a symbolic link: this checkout was made without them → git config core.symlinks true" in last
    assert str(unlinked / "robozarr") in last

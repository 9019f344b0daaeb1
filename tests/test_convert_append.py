"""Appending: several appends equal one conversion, what is there stays, and a kill leaves the old store or the new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import robozarr as rz
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import IncompleteStoreError

LENGTHS = (60, 45, 30)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four files of three demos."""
    folder = tmp_path_factory.mktemp("sources")
    return [
        synthetic.write_libero(folder / "suite" / f"task{number}_demo.hdf5", lengths=LENGTHS, size=96, seed=number)
        for number in range(4)
    ]


def files_of(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run makes of the sources."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    convert(sources, path, workers=0)
    return files_of(path)


def assert_nothing_left(store: Path) -> None:
    assert not list(store.rglob(".*robozarr-tmp"))
    assert [path.name for path in store.parent.iterdir() if path != store] == []


def start(sources: list[Path], store: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "robozarr", "convert", *map(str, sources), "--store", str(store), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_appends_equal_a_store_made_at_once(sources: list[Path], whole: dict[str, bytes], tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    convert(sources[:1], store, workers=0)
    before = files_of(store)
    for n in (2, 4):
        report = convert(sources[:n], store, workers=0, append=True)
        assert report.n_appended == n - max(1, n // 2)
    after = files_of(store)
    assert {name: data for name, data in after.items() if name != "zarr.json"} == {
        name: data for name, data in whole.items() if name != "zarr.json"
    }
    assert verify(store, sources=sources, workers=0).ok
    shards = [name for name in before if name.startswith("steps/") and "/c/" in name]
    last: dict[str, int] = {}
    for name in shards:
        array, _, shard = name.partition("/c/")
        last[array] = max(last.get(array, 0), int(shard.split("/")[0]))
    unchanged = [name for name in shards if int(name.split("/")[3]) < last[name.split("/c/")[0]]]
    assert all(after[name] == before[name] for name in unchanged)


@pytest.mark.parametrize("moment", range(6))
def test_a_killed_append_resumes_or_leaves_the_old_store_readable(
    moment: int, sources: list[Path], whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    convert(sources[:2], store, workers=0)
    old = files_of(store)
    process = start(sources, store, "--append", "-w", "0")
    began = time.monotonic()
    while files_of_names(store) == set(old) and process.poll() is None and time.monotonic() - began < 30:
        time.sleep(0.005)
    time.sleep(0.12 * moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    try:
        n_steps = rz.open_store(store).n_steps
    except IncompleteStoreError:  # killed while the new files were put into place: the same command goes on
        n_steps = 0
    assert n_steps in (0, 2 * sum(LENGTHS), 4 * sum(LENGTHS))
    if n_steps == 2 * sum(LENGTHS):
        assert {name: data for name, data in files_of(store).items() if name in old} == old
    convert(sources, store, workers=0, append=True)
    assert {name: data for name, data in files_of(store).items() if name != "zarr.json"} == {
        name: data for name, data in whole.items() if name != "zarr.json"
    }
    assert_nothing_left(store)


def files_of_names(store: Path) -> set[str]:
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}

"""Compiling ahead: ``python -m robozarr.loader.warm`` compiles all that a dataset needs, and keeps it in the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robozarr.convert import convert
from robozarr.loader import warm
from robozarr.loader.frames import code_cache
from robozarr.loader.frames.rows import group_rows

FIRST_BATCH = """
import sys
from robozarr.loader.frames.compiling import CarefulCache

found, load = [], CarefulCache.load_overload
def noting(self, *arguments):
    code = load(self, *arguments)
    found.append((self._cache._name, code is not None))
    return code
CarefulCache.load_overload = noting

import robozarr as rz
for path in sys.argv[1:]:
    dataset = rz.WindowDataset(path, {"agentview_rgb": [-1, 0], "actions": range(4), "joint_states": [0]})
    found.clear()
    print(len(next(iter(rz.WindowLoader(dataset, 8)))["actions"]), "asked for:", *found)
"""


@pytest.mark.slow(reason="compiles the reader again, 20 s")
def test_nothing_is_left_to_compile(sample: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_CACHE_DIR", None)
    made = subprocess.run(
        [sys.executable, "-m", "robozarr.loader.warm"], capture_output=True, text=True, check=True, env=environment, timeout=600
    )
    (folder,) = (tmp_path / "cache" / "robozarr").iterdir()
    assert made.stdout.endswith(f"kept in {folder}\n")
    n_kept = len(list(folder.glob("*.nbc")))
    assert n_kept > 10
    for profile in ("raw", "fast"):
        convert(sample, tmp_path / f"{profile}.zarr", profile=profile, workers=0)
    stores = [str(tmp_path / "raw.zarr"), str(tmp_path / "fast.zarr")]
    read = subprocess.run(
        [sys.executable, "-c", FIRST_BATCH, *stores], capture_output=True, text=True, check=True, env=environment, timeout=300
    )
    assert read.stdout == "8 asked for:\n" * 2
    assert len(list(folder.glob("*.nbc"))) == n_kept
    assert "compiling" not in read.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def test_the_folder_is_named_by_what_is_compiled(home: Path) -> None:
    folder = code_cache.cache_folder()
    assert folder == home / "robozarr" / f"compiled-{code_cache.content_digest()}"
    assert folder.is_dir()
    assert code_cache.cache_folder() == folder


def test_folders_that_nobody_uses_are_removed_and_nothing_else(home: Path) -> None:
    old, new, notes = (home / "robozarr" / name for name in ("compiled-" + "0" * 16, "compiled-" + "1" * 16, "notes"))
    for folder in (old, new, notes):
        folder.mkdir(parents=True)
    link = home / "robozarr" / ("compiled-" + "2" * 16)
    link.symlink_to(notes)
    long_ago = time.time() - 100 * 86400
    for folder in (old, notes):
        os.utime(folder, (long_ago, long_ago))
    code_cache.cache_folder()
    assert not old.exists()
    assert all(path.exists() for path in (new, notes, link))


def test_no_place_for_code_is_no_error(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "robozarr").write_text("a file where the folder would be")
    assert code_cache.cache_folder() is None
    monkeypatch.setattr(warm, "compile_reader", lambda: 0.5)
    assert warm.main() == 1
    assert "not kept: no folder can be written to; set NUMBA_CACHE_DIR to one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"HOME": "/h"}, "/h/.cache"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "relative"}, "/h/.cache"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches"),
        ("win32", {"HOME": "/h", "LOCALAPPDATA": "/local"}, "/local"),
        ("win32", {"HOME": "/h"}, "/h/AppData/Local"),
    ],
)
def test_each_system_has_its_folder(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert code_cache.user_cache() == Path(expected)


def test_functions_of_other_projects_are_kept_elsewhere() -> None:
    assert code_cache._UserLocator.from_function(test_each_system_has_its_folder, __file__) is None
    locator = code_cache._UserLocator.from_function(group_rows.py_func, group_rows.py_func.__code__.co_filename)  # type: ignore[attr-defined]
    assert locator is not None
    assert locator.get_source_stamp() == code_cache.content_digest()

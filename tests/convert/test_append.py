"""Appending: several appends equal one conversion, what is there stays, and a kill leaves the old store or the new one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from few_keys import BUT_CAMERAS
from forks import said_in_fork
from killing import fork_and_kill, same_bytes
from mortal import write_source

import robozarr as rz
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas import layout
from robozarr.schemas.errors import IncompleteStoreError
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place

LENGTHS = (60, 45, 30)


def write(folder: Path, number: int, size: int) -> Path:
    """A file of three demos and two cameras."""
    path = folder / f"task{number}_demo.hdf5"
    return synthetic.write_libero(path, lengths=LENGTHS, size=size, seed=number, drop_keys=BUT_CAMERAS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four files of three demos."""
    folder = tmp_path_factory.mktemp("sources")
    return [write(folder / "suite", number, size=32) for number in range(4)]


def files_of(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run makes of the sources."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    convert(sources, path, workers=0)
    return files_of(path)


@pytest.fixture(scope="module")
def half(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two sources, converted. Copy it."""
    path = tmp_path_factory.mktemp("half") / "a.zarr"
    convert(sources[:2], path, workers=0)
    return path


def assert_nothing_left(store: Path) -> None:
    assert not list(store.rglob(".*robozarr-tmp"))
    assert [path.name for path in store.parent.iterdir() if path != store] == []


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


@pytest.mark.parametrize(
    "moment", [0, 2, 4, *(pytest.param(n, marks=pytest.mark.slow(reason="between the others")) for n in (1, 3, 5))]
)
def test_a_killed_append_resumes_or_leaves_the_old_store_readable(
    moment: int, sources: list[Path], half: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(half, store)
    old = files_of(store)
    append = partial(convert, sources, store, workers=0, append=True)
    fork_and_kill(append, 0.12 * moment, lambda: files_of_names(store) != set(old))
    try:
        n_steps = rz.open_store(store).n_steps
    except IncompleteStoreError:  # killed while the new files were put into place: the same command goes on
        n_steps = 0
    assert n_steps in (0, 2 * sum(LENGTHS), 4 * sum(LENGTHS))
    if n_steps == 2 * sum(LENGTHS):
        assert {name: data for name, data in files_of(store).items() if name in old} == old
    append()
    assert {name: data for name, data in files_of(store).items() if name != "zarr.json"} == {
        name: data for name, data in whole.items() if name != "zarr.json"
    }
    assert_nothing_left(store)


def files_of_names(store: Path) -> set[str]:
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}


def test_no_shard_but_the_last_of_an_array_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 128 steps, 135 steps and then 270: the store keeps a camera's first shard as it is, and replaces the second."""
    monkeypatch.setattr(layout, "FRAME_SHARD_BYTES", 128 * 16 * 16 * 3)  # as of 256x256 pictures, which take seconds
    files = [write(tmp_path / "s", number, size=16) for number in range(2)]
    convert(files[:1], tmp_path / "a.zarr", workers=0, profile="raw")

    def shards() -> dict[str, tuple[int, int]]:
        paths = (tmp_path / "a.zarr/steps").glob("*_rgb/c/*/0/0/0")
        return {"/".join(path.parts[-6:-3]): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}

    before = shards()
    convert(files, tmp_path / "a.zarr", workers=0, append=True)
    after = shards()
    cameras = ("agentview_rgb", "eye_in_hand_rgb")
    assert set(before) == {f"{camera}/c/{shard}" for camera in cameras for shard in range(2)}
    assert set(after) == {f"{camera}/c/{shard}" for camera in cameras for shard in range(3)}
    assert {name for name in before if before[name] == after[name]} == {f"{camera}/c/0" for camera in cameras}
    convert(files, tmp_path / "b.zarr", workers=0, profile="raw")
    assert same_bytes(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_an_append_killed_between_any_two_renames_is_replayed(tmp_path: Path) -> None:
    files = [write_source(tmp_path / "s" / f"task{number}_demo.hdf5", number) for number in range(2)]
    convert(files, tmp_path / "whole.zarr", workers=0)
    convert(files[:1], tmp_path / "half.zarr", workers=0)

    def append(store: Path, last: int) -> subprocess.CompletedProcess[str]:
        shutil.copytree(tmp_path / "half.zarr", store)
        n_moved, move = 0, FolderPlace.move

        def move_or_die(self: FolderPlace, path: str, to: Place) -> None:
            nonlocal n_moved
            if n_moved == last:
                os.kill(os.getpid(), signal.SIGKILL)
            move(self, path, to)
            n_moved += 1

        def killed_commit() -> None:
            FolderPlace.move = move_or_die  # type: ignore[method-assign]
            convert(files, store, workers=0, append=True)
            print(n_moved)

        return said_in_fork(killed_commit)

    undisturbed = append(tmp_path / "undisturbed.zarr", -1)
    assert undisturbed.returncode == 0, undisturbed.stderr
    n_moves = int(undisturbed.stdout)
    assert n_moves > 20
    for last in (0, 1, n_moves // 2, n_moves - 1):
        store = tmp_path / f"{last}.zarr"
        assert append(store, last).returncode == -signal.SIGKILL
        with pytest.raises(IncompleteStoreError):
            rz.open_store(store)
        convert(files, store, workers=0, append=True)
        assert same_bytes(store, tmp_path / "whole.zarr")
        assert not list(store.rglob(".*robozarr-tmp"))

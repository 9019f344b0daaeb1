"""A cache_dir owns its folder: it touches only what it made, follows no links, refuses a folder with others' files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError
from robozarr.store.cache_dir import DIGEST_BYTES, IDLE_S, CachedArray, CacheDir
from robozarr.store.cache_files import COUNT, MARKER

SIZE, TAIL = 3 * 4096, np.arange(64, dtype=np.uint8)
PIECE = np.full(100, 7, np.uint8)
LONG_AGO = (time.time() - 100 * IDLE_S,) * 2


def array_of(folder: Path, name: str = "a", n_bytes: int = 10**9) -> CachedArray:
    sums: NDArray[np.uint32] = np.zeros(3, np.uint32)
    return CacheDir(folder, n_bytes).array(name, (name,), sums)


def path_of(array: CachedArray, shard: int) -> Path:
    return Path(f"{array.prefix}{shard}{array.suffix}")


def use(array: CachedArray, shard: int = 0) -> None:
    """All that a reader does with a shard."""
    if (fd := array.open(shard)) is not None:
        os.close(fd)
    array.make(shard, SIZE, TAIL)
    array.write(shard, [PIECE], [10])
    array.touch([shard])


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_shard_is_kept(tmp_path: Path) -> None:
    array = array_of(tmp_path / "cache")
    assert array.open(0) is None
    use(array)
    fd = array.open(0)
    assert fd is not None
    data = os.pread(fd, SIZE, 0)
    os.close(fd)
    assert (len(data), data[10:110], data[-64:]) == (SIZE, PIECE.tobytes(), TAIL.tobytes())
    assert path_of(array, 0).read_bytes()[:-DIGEST_BYTES] == data
    again = array_of(tmp_path / "cache")
    assert path_of(again, 0).read_bytes()[:-DIGEST_BYTES] == data
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {MARKER, COUNT, path_of(array, 0).parent.name}


@pytest.mark.parametrize("name", ["photos/0.jpg", "thesis.tex", "bytes", "count", ".hidden", "a-" + "0" * 24 + "/0.shard"])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"precious" * 1000)
    os.utime(file, LONG_AGO)
    before = snapshot(tmp_path)
    with pytest.raises(
        StoreError, match=r"mine: a cache_dir must be a separate folder; this one holds other files \(.* → name a new"
    ):
        CacheDir(tmp_path / "mine", 10)
    assert snapshot(tmp_path) == before


def test_files_that_came_later_are_left_alone(tmp_path: Path) -> None:
    """Beside its own, in its own folders, behind links: all old, and far past the bound."""
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    array = array_of(cache)
    use(array)
    for number, folder in enumerate((cache, cache / "photos", path_of(array, 0).parent, outside)):
        folder.mkdir(exist_ok=True)
        for name in ("thesis.tex", "only_copy.hdf5", "12"):
            (folder / name).write_bytes(bytes([number]) * 100_000)
            os.utime(folder / name, LONG_AGO)
    (cache / "link").symlink_to(outside)
    (cache / ("b-" + "1" * 24)).symlink_to(outside)
    (outside / "5.shard").write_bytes(b"x" * 100_000)
    os.utime(outside / "5.shard", LONG_AGO)
    before = {path: data for path, data in snapshot(tmp_path).items() if not path.endswith("0.shard") and COUNT not in path}
    other = array_of(cache, "other", 1000)
    use(other)
    os.utime(path_of(array, 0), LONG_AGO)
    (cache / COUNT).unlink()
    use(array_of(cache, "third", 5 * 4096))
    after = snapshot(tmp_path)
    assert {path: after[path] for path in before} == before
    assert not path_of(array, 0).exists() or path_of(array, 0).stat().st_size  # only its own may go


Plant = Callable[[Path, Path], None]


def soft_link(file: Path, victim: Path) -> None:
    file.symlink_to(victim)


def hard_link(file: Path, victim: Path) -> None:
    file.hardlink_to(victim)


def dangling_link(file: Path, victim: Path) -> None:
    file.symlink_to(victim.with_name("made_by_link"))


def pipe(file: Path, victim: Path) -> None:
    os.mkfifo(file)


def folder(file: Path, victim: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("plant", [soft_link, hard_link, dangling_link, pipe])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_planted_is_not_written_through(tmp_path: Path, plant: Plant, moment: str) -> None:
    """In the place of a shard's file: the victim stays as it is, nothing waits, and the shard is kept all the same."""
    victim = tmp_path / "victim.txt"
    victim.write_bytes(b"precious " * 2000)
    array = array_of(tmp_path / "cache")
    use(array)
    path_of(array, 0).unlink()
    plant(path_of(array, 0), victim)
    ended = threading.Event()

    def work() -> None:
        if moment == "after":
            array.write(0, [PIECE], [10])
            array.touch([0])
            assert array.open(0) is None
        use(array)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert ended.wait(20)
    assert victim.read_bytes() == b"precious " * 2000
    assert not (tmp_path / "made_by_link").exists()
    assert path_of(array, 0).read_bytes()[10:110] == PIECE.tobytes()


@pytest.mark.filterwarnings("ignore:.*this cache_dir takes nothing more:UserWarning")
def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    array = array_of(tmp_path / "cache")
    use(array)
    path_of(array, 0).unlink()
    path_of(array, 0).mkdir()
    (path_of(array, 0) / "thesis.tex").write_text("mine")
    use(array)
    assert (path_of(array, 0) / "thesis.tex").read_text() == "mine"


@pytest.mark.filterwarnings("ignore:.*this cache_dir takes nothing more:UserWarning")
def test_a_link_in_the_place_of_a_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    array = array_of(tmp_path / "cache")
    path_of(array, 0).parent.symlink_to(outside)
    use(array)
    assert list(outside.iterdir()) == []


def test_a_link_in_the_place_of_the_count(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_bytes(b"precious " * 2000)
    use(array_of(tmp_path / "cache"))
    (tmp_path / "cache" / COUNT).unlink()
    (tmp_path / "cache" / COUNT).symlink_to(victim)
    use(array_of(tmp_path / "cache"))
    assert victim.read_bytes() == b"precious " * 2000


@pytest.mark.parametrize("count", [b"\xff" * 8, bytes(8), b"x", b""])
def test_a_count_that_was_damaged(tmp_path: Path, count: bytes) -> None:
    use(array_of(tmp_path / "cache"))
    (tmp_path / "cache" / COUNT).write_bytes(count)
    array = array_of(tmp_path / "cache", "b")
    use(array)
    assert path_of(array, 0).read_bytes()[10:110] == PIECE.tobytes()


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """Which its user made: scratch disks are named so."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "scratch").symlink_to(tmp_path / "disk")
    array = array_of(tmp_path / "scratch")
    use(array)
    assert path_of(array, 0).is_file()

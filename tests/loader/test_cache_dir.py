"""A cache_dir: what is served is what the bucket holds, whatever becomes of its files; its bound; its owner."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_stores import (
    HAND,
    assert_same,
    cut,
    empty,
    epoch,
    files_of,
    flip,
    flip_index,
    gather,
    make_dataset,
    n_bytes_of,
    n_frames,
    remove,
)
from faulty import Proxy
from remote import environment

import robozarr as rz
from robozarr.schemas.errors import StoreError
from robozarr.store.cache_dir import DIGEST_BYTES, IDLE_S, CachedArray, CacheDir

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork


def test_a_cache_dir_is_filled_once(hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path) -> None:
    cache, expected = tmp_path / "cache", epoch(rz.open_store(hand))
    for number in range(3):
        proxy.reset()
        assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache)), expected)
        assert (n_frames(proxy) > 0) == (number == 0)
    shards = [file for name in HAND for file in hand.glob(f"steps/{name}/c/**/*") if file.is_file() and "agentview" in name]
    assert sorted(file.read_bytes()[:-DIGEST_BYTES] for file in files_of(cache)) == sorted(file.read_bytes() for file in shards)


def test_a_damaged_cache_is_healed(hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path) -> None:
    cache, expected = tmp_path / "cache", epoch(rz.open_store(hand))
    epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache))
    good = {file: file.read_bytes() for file in files_of(cache)}
    assert len(good) == 10
    damages: tuple[Callable[[Path], object], ...] = (
        remove, cut, empty, flip, flip_index, lambda file: file.write_bytes(b"x" * 9), lambda file: file.chmod(0),
    )  # fmt: skip
    for file, damage in zip(good, damages, strict=False):
        damage(file)
    proxy.reset()
    assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache)), expected)
    assert n_frames(proxy) > 0
    assert {file: file.read_bytes() for file in files_of(cache)} == good
    proxy.reset()
    assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache)), expected)
    assert n_frames(proxy) == 0


def test_files_of_a_cache_that_changed_places(hand: Path, hand_url: str, s3: str, tmp_path: Path) -> None:
    """Each is whole, with a good index: another shard's."""
    expected = epoch(rz.open_store(hand))
    assert_same(epoch(rz.open_store(hand_url, s3, cache_dir=tmp_path)), expected)
    good = {file: file.read_bytes() for file in files_of(tmp_path)}
    by_folder = [[file for file in good if file.parent == folder] for folder in {file.parent for file in good}]
    assert any(len(files) > 1 for files in by_folder)
    for files in by_folder:
        for file, other in zip(files, [*files[1:], files[0]], strict=True):
            file.write_bytes(good[other])
    assert_same(epoch(rz.open_store(hand_url, s3, cache_dir=tmp_path)), expected)
    assert {file: file.read_bytes() for file in files_of(tmp_path)} == good


def test_a_cache_dir_keeps_its_bound(hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path) -> None:
    """What fits is served from it; the rest comes from the bucket, each epoch anew. A shard takes a block of 4 KiB."""
    expected, counts = epoch(rz.open_store(hand)), []
    for number, bound in enumerate((0, 4 * 4096, 2**20)):
        cache = tmp_path / str(number)
        for _ in range(2):
            proxy.reset()
            assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache, cache_dir_bytes=bound)), expected)
            assert n_bytes_of(cache) <= bound
        counts.append(n_frames(proxy))
    assert counts[0] > counts[1] > counts[2] == 0


def test_room_is_made_of_what_nobody_uses(tmp_path: Path) -> None:
    def fill(cache: CacheDir, name: str, n: int) -> list[Path]:
        array = cache.array(name, (name,), np.zeros(3, np.uint32))
        size, tail = 10 * 4096 - DIGEST_BYTES, np.ones(4096 - DIGEST_BYTES, np.uint8)
        made = [number for number in range(n) if array.make(number, size, tail)]
        return [Path(f"{array.prefix}{number}{array.suffix}") for number in made]

    old = fill(CacheDir(tmp_path, 8 * 4096), "old", 5)
    assert len(old) == 5
    for number, path in enumerate(old):
        os.utime(path, (1, time.time() - IDLE_S - 100 * (2 if number == 3 else 1)))
    in_use = old.pop(1)
    CacheDir(tmp_path).array("old", ("old",), np.zeros(3, np.uint32)).touch([1])
    new = fill(CacheDir(tmp_path, 8 * 4096), "new", 5)
    assert len(new) == 5
    assert not old[2].exists()  # the longest unused first, and no more than needed
    assert sum(path.exists() for path in old) == 2
    assert in_use.exists()
    assert n_bytes_of(tmp_path) == 8 * 4096
    cache = CacheDir(tmp_path, 8 * 4096)
    for path in filter(Path.exists, old):
        os.utime(path, (1, 1))
    assert len(fill(cache, "more", 9)) == 2  # what is in use stays, this process's own too
    assert cache.full
    assert all(path.exists() for path in new)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_takes_nothing(
    hand: Path, hand_url: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Training goes on. A full disk is what a cache expects; anything else is worth a warning."""

    def refuse(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    store = rz.open_store(hand_url, s3, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(os, "pwrite", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_same(epoch(store), epoch(rz.open_store(hand)))
    said = {str(warning.message) for warning in caught if "cache_dir" in str(warning.message)}
    assert len(said) == (code == errno.EIO)


def test_a_cache_dir_that_cannot_be(hand: Path, hand_url: str, s3: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="a cache_dir must be writable; found Not a directory → name a folder"):
        rz.open_store(hand_url, s3, cache_dir=tmp_path / "file" / "cache")
    with pytest.raises(StoreError, match="cache_dir= is for a store in a bucket; this one lies in a folder"):
        rz.open_store(hand, cache_dir=tmp_path)


IN_A_PROCESS = """
import sys, hashlib
import robozarr as rz
url, endpoint, cache, bound = sys.argv[1:]
store = rz.open_store(url, endpoint, cache_dir=cache, cache_dir_bytes=int(bound))
dataset = rz.WindowDataset(store, rz.WindowSpec({"agentview_rgb": [-1, 0], "agentview_depth": [0], "actions": range(3)}))
digest = hashlib.sha256()
print("ready", flush=True)
sys.stdin.readline()
for epoch in range(4):
    for batch in rz.WindowLoader(dataset, 3, seed=epoch, locality=False):
        digest.update(b"".join(batch[name].numpy().tobytes() for name in ("agentview_rgb", "agentview_depth", "step")))
print(digest.hexdigest(), flush=True)
"""


@pytest.mark.slow(reason="starts several processes with torch")
def test_processes_share_a_cache_dir(hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path) -> None:
    """Two at once, begun with nothing there; what they serve is what the local store serves."""
    spec: dict[str, Sequence[int]] = {name: HAND[name] for name in ("agentview_rgb", "agentview_depth", "actions")}
    dataset, digest = make_dataset(rz.open_store(hand), spec), hashlib.sha256()
    for number in range(4):
        for batch in rz.WindowLoader(dataset, 3, seed=number):
            digest.update(b"".join(batch[name].numpy().tobytes() for name in ("agentview_rgb", "agentview_depth", "step")))
    cache, bound, processes = tmp_path / "cache", 16 * 4096, []
    for _ in range(2):
        command = [sys.executable, "-c", IN_A_PROCESS, hand_url, proxy.url, str(cache), str(bound)]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()))
    assert [process.stdout and process.stdout.readline() for process in processes] == ["ready\n"] * 2
    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(lambda process: process.communicate("\n", timeout=60)[0].strip(), processes))
    assert said == [digest.hexdigest()] * 2
    assert len(files_of(cache)) == 10
    assert n_bytes_of(cache) <= bound
    proxy.reset()
    epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache))
    assert n_frames(proxy) == 0


def test_files_that_were_removed_are_made_again(
    hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the store open goes on without them, and keeps what it fetches from then on."""
    monkeypatch.setattr("robozarr.loader.frames.remote.KEPT_BYTES", 0)
    expected = epoch(rz.open_store(hand))
    store = rz.open_store(hand_url, proxy.url, cache_dir=tmp_path)
    make_dataset(store).read(range(5))
    n = len(files_of(tmp_path))
    assert n
    for file in files_of(tmp_path):
        file.unlink()
    for _ in range(3):
        proxy.reset()
        assert_same(epoch(store), expected)
    assert n_frames(proxy) == 0
    assert len(files_of(tmp_path)) >= n
    proxy.reset()
    assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=tmp_path)), expected)
    assert n_frames(proxy) == 0


def test_files_that_are_gone_as_soon_as_they_were_made_again(
    hand: Path, hand_url: str, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reader had open of them is closed once: the number may be somebody else's file by then."""
    expected, closed, close = epoch(rz.open_store(hand)), list[int](), os.close
    dataset = make_dataset(rz.open_store(hand_url, s3, cache_dir=tmp_path))
    dataset.read(range(5))
    assert files_of(tmp_path)
    for file in files_of(tmp_path):
        file.unlink()
    with monkeypatch.context() as without:
        without.setattr(CachedArray, "open", lambda *_: None)
        assert_same(gather(rz.WindowLoader(dataset, 4, seed=3, locality=False)), expected)

    def close_and_note(fd: int) -> None:
        closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "close", close_and_note)
    del dataset
    gc.collect()
    assert closed
    assert len(closed) == len(set(closed))


def test_a_cache_that_changes_while_it_is_read(hand: Path, hand_url: str, s3: str, tmp_path: Path) -> None:
    """Somebody cuts, empties, removes, mixes up its files all the time; what is served is what was written."""
    expected, stop, rng = epoch(rz.open_store(hand)), threading.Event(), random.Random(1)
    damages, done = (cut, empty, remove, flip, flip_index, None), list[Path]()

    def damage() -> None:
        while not stop.is_set():
            time.sleep(0.002)
            if files := files_of(tmp_path):
                file, kind = rng.choice(files), rng.choice(damages)
                with suppress(OSError, IndexError):  # gone already, or too short
                    _ = file.write_bytes(rng.choice(files).read_bytes()) if kind is None else kind(file)
                    done.append(file)

    thread = threading.Thread(target=damage)
    thread.start()
    try:
        for number in range(400):  # few, unless others keep the machine busy
            if number % 3 == 0:  # one that knows no index yet: datasets of one open store share what they know
                dataset = make_dataset(rz.open_store(hand_url, s3, cache_dir=tmp_path))
            assert_same(gather(rz.WindowLoader(dataset, 4, seed=3, locality=False)), expected)
            if len(done) > 100:
                break
    finally:
        stop.set()
        thread.join()
    assert len(done) > 100

"""Loading from a bucket over HTTP: what is served is what the local store serves, or an error that names the object.

The service is moto's, in a process of its own; between it and the loader stands a proxy that counts requests and breaks answers.
"""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import format_writer
import pytest
import torch
from faulty import Fault, Kind, Proxy, Request
from remote import environment, new_place

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.bucket import MOST_BYTES
from robozarr.loader.cache_dir import IDLE_S, CacheDir
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.schedule import REMOTE_LOCALITY
from robozarr.schemas import bucket
from robozarr.schemas.errors import CorruptChunkError, StoreError
from robozarr.schemas.layout import Profile
from robozarr.schemas.place import place_of

PROFILES: tuple[Profile, ...] = ("raw", "fast", "compact")
HAND: dict[str, Sequence[int]] = {
    "agentview_rgb": [-1, 0], "agentview_depth": [0], "actions": range(3), "joint_states": [0], "dones": [0],
}  # fmt: skip
LIBERO: dict[str, Sequence[int]] = {
    "agentview_rgb": [-1, 0], "eye_in_hand_rgb": [-1, 0], "joint_states": [0], "actions": range(16),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork


def upload(folder: Path, url: str) -> str:
    """Put a store into a bucket of the service; returns its URL."""
    local, place = place_of(folder), new_place(url)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: place.write(name, [local.read(name)]), local.names()))
    return place.url


@pytest.fixture(scope="module")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 steps in 3 episodes; 5 shards a camera."""
    path = tmp_path_factory.mktemp("hand") / "hand.zarr"
    format_writer.write_by_hand(path, "fast")
    return path


@pytest.fixture(scope="module")
def hand_url(hand: Path, s3: str) -> str:
    return upload(hand, s3)


def make_dataset(store: rz.Store, spec: dict[str, Sequence[int]] = HAND) -> WindowDataset:
    return WindowDataset(store, rz.WindowSpec(spec))


def gather(batches: Iterable[Sample]) -> list[Sample]:
    return [{name: copy.deepcopy(value) for name, value in batch.items()} for batch in batches]


def assert_same(got: list[Sample], expected: list[Sample]) -> None:
    assert len(got) == len(expected)
    for mine, other in zip(got, expected, strict=True):
        assert mine.keys() == other.keys()
        for name, values in other.items():
            if name == "instruction":
                assert mine[name] == values
            else:
                assert mine[name].dtype == values.dtype
                assert torch.equal(mine[name], values), name


def epoch(store: rz.Store, spec: dict[str, Sequence[int]] = HAND, batch: int = 4, **options: Any) -> list[Sample]:
    """An epoch in one order, whatever the store lies on."""
    return gather(rz.WindowLoader(make_dataset(store, spec), batch, **{"seed": 3, "locality": False, **options}))


def of_frames(request: Request) -> bool:
    return request.method == "GET" and "/steps/agentview_" in request.path and "/c/" in request.path


def n_frames(proxy: Proxy) -> int:
    return sum(map(of_frames, proxy.requests))


@pytest.mark.parametrize("profile", PROFILES)
def test_an_epoch_is_the_local_one(sample: Path, tmp_path: Path, proxy: Proxy, s3: str, profile: Profile) -> None:
    convert(sample, tmp_path / "a.zarr", profile=profile, workers=0)
    url, local = upload(tmp_path / "a.zarr", s3), rz.open_store(tmp_path / "a.zarr")
    for locality in (False, (4, 3), REMOTE_LOCALITY):
        store = rz.open_store(url, proxy.url)
        got = epoch(store, LIBERO, 8, locality=locality)
        assert_same(got, epoch(local, LIBERO, 8, locality=locality))
    proxy.reset()
    assert_same(epoch(rz.open_store(url, proxy.url), LIBERO, 8, locality=None), got)
    # of the camera one shard of 44 frames: its index, then all that the epoch wants of it in requests of some megabytes
    n_bytes = sum(file.stat().st_size for file in tmp_path.glob("a.zarr/steps/agentview_rgb/c/**/*") if file.is_file())
    assert n_frames(proxy) <= 1 + 2 * -(-n_bytes // MOST_BYTES)


def test_real_data(real_data: Path, tmp_path: Path, s3: str) -> None:
    convert(real_data, tmp_path / "a.zarr", workers=0)
    url, local = upload(tmp_path / "a.zarr", s3), rz.open_store(tmp_path / "a.zarr")
    store = rz.open_store(url, s3, cache_dir=tmp_path / "cache")
    options: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({"locality": None}, {"locality": REMOTE_LOCALITY}),
        ({"batch": 48}, {"batch": 48}),
        ({"cache": "host"}, {}),
    )
    for here, there in options:
        assert_same(epoch(store, LIBERO, **{"batch": 64, **here}), epoch(local, LIBERO, **{"batch": 64, **there}))


def test_every_batch_at_every_depth(hand: Path, hand_url: str, s3: str) -> None:
    local = rz.open_store(hand)
    for size, prefetch, threads in ((1, 1, 1), (3, 2, 1), (4, 16, 2), (19, 1, 3), (64, 8, 8)):
        got = epoch(rz.open_store(hand_url, s3), batch=size, prefetch=prefetch, threads=threads)
        assert_same(got, epoch(local, batch=size))
    dataset, here = make_dataset(rz.open_store(hand_url, s3)), make_dataset(local)
    assert_same([dataset.read([5, 5, 0, 18])], [here.read([5, 5, 0, 18])])
    mixed = rz.WindowLoader([dataset, here], 4, seed=1, locality=False)
    assert_same(gather(mixed), gather(rz.WindowLoader([here, here], 4, seed=1)))


def test_requests_are_on_their_way_together(hand_url: str, proxy: Proxy) -> None:
    proxy.latency_s = 0.05
    store = rz.open_store(hand_url, proxy.url)
    dataset = make_dataset(store)
    assert proxy.n_at_once >= 8  # tables, low-dim keys
    proxy.reset()
    proxy.latency_s = 0.05
    dataset.read(range(len(dataset)))
    # indexes of 2 cameras, 5 shards each; then the ranges of both
    frames = [request for request in proxy.requests if of_frames(request)]
    assert len(frames) == 20
    assert proxy.n_at_once >= 10
    assert len({request.range for request in frames[:10]}) == 1  # the last bytes, of whatever length the shard is
    proxy.reset()
    dataset.read(range(len(dataset)))  # and now they are here
    assert n_frames(proxy) == 0


def test_faults_are_survived(hand: Path, hand_url: str, proxy: Proxy) -> None:
    """Whatever is asked for the first time fails. Of frames, also by an answer that looks whole and is not what was asked for."""
    expected = epoch(rz.open_store(hand))
    plain: tuple[Kind, ...] = ("503", "reset", "lost answer", "slow", "truncated")
    sly: tuple[Kind, ...] = ("flipped", "cut")
    made: set[Kind] = set()
    for kinds, which in ((plain, lambda request: True), (sly, of_frames)):
        turns, seen = cycle(kinds), set[tuple[str, str]]()

        def fault(
            request: Request,
            which: Callable[[Request], bool] = which,
            turns: Iterator[Kind] = turns,
            seen: set[tuple[str, str]] = seen,
        ) -> Fault | None:
            if not which(request) or (request.path, request.range) in seen:
                return None
            seen.add((request.path, request.range))
            kind = next(turns)
            made.add(kind)
            return Fault(kind, pause_s=0.005)

        proxy.fault = fault
        assert_same(epoch(rz.open_store(hand_url, proxy.url)), expected)
        assert len(seen) >= 20
    assert made == {*plain, *sly}


@pytest.mark.parametrize("kind", ["503", "reset", "truncated", "cut", "flipped"])
def test_a_fault_that_stays_is_an_error(hand: Path, s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setitem(bucket.RETRY, "max_retries", 2)
    url = upload(hand, s3)  # a place that is not open yet, so that the number of retries holds
    path = "steps/agentview_rgb/c/2/0/0/0"
    proxy.fault = lambda request: Fault(kind) if request.path.endswith(path) else None
    store = rz.open_store(url, proxy.url)
    with pytest.raises(StoreError) as caught:
        epoch(store)
    said = str(caught.value)
    assert f"steps/agentview_rgb · shard 2 ({path})" in said
    assert "episode " in said
    if kind != "flipped":
        assert f"{url}/{path}" in said
    proxy.reset()
    assert_same(epoch(store), epoch(rz.open_store(hand)))  # the same store, once the service is well again


def remove(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def flip(file: Path, at: int = 100) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def flip_index(file: Path) -> None:
    flip(file, -20)


def swap(file: Path) -> None:
    other = file.parents[3] / "3/0/0/0"
    data = file.read_bytes()
    file.write_bytes(other.read_bytes())
    other.write_bytes(data)


@pytest.mark.parametrize("damage", [remove, cut, empty, flip, flip_index, swap])
def test_damaged_objects_are_named(hand: Path, tmp_path: Path, s3: str, damage: Callable[[Path], None]) -> None:
    shutil.copytree(hand, tmp_path / "a.zarr")
    damage(tmp_path / "a.zarr/steps/agentview_rgb/c/1/0/0/0")
    url, said = upload(tmp_path / "a.zarr", s3), []
    for store in (rz.open_store(tmp_path / "a.zarr"), rz.open_store(url, s3), rz.open_store(url, s3, cache_dir=tmp_path / "c")):
        dataset = make_dataset(store)
        with pytest.raises(CorruptChunkError) as caught:
            dataset.read([5])
        said.append(str(caught.value))
        assert caught.value.rule
        others = dataset.read([0, 1])
        assert torch.equal(others["agentview_rgb"], make_dataset(rz.open_store(hand)).read([0, 1])["agentview_rgb"])
    assert "steps/agentview_rgb · shard 1 (steps/agentview_rgb/c/1/0/0/0)" in said[0]
    if damage is not remove:  # of which the service has words of its own
        assert said[1] == said[0]
    assert said[2] == said[1]


def files_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.parent != cache)


def n_bytes_of(cache: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in files_of(cache))


def test_a_cache_dir_is_filled_once(hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path) -> None:
    cache, expected = tmp_path / "cache", epoch(rz.open_store(hand))
    for number in range(3):
        proxy.reset()
        assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache)), expected)
        assert (n_frames(proxy) > 0) == (number == 0)
    shards = [file for name in HAND for file in hand.glob(f"steps/{name}/c/**/*") if file.is_file() and "agentview" in name]
    assert sorted(file.read_bytes() for file in files_of(cache)) == sorted(file.read_bytes() for file in shards)


@pytest.mark.parametrize("damage", [remove, cut, empty, flip, flip_index, lambda file: file.write_bytes(b"x" * 9)])
def test_a_damaged_cache_is_healed(
    hand: Path, hand_url: str, proxy: Proxy, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache, expected = tmp_path / "cache", epoch(rz.open_store(hand))
    epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache))
    good = {file: file.read_bytes() for file in files_of(cache)}
    assert len(good) == 10
    for file in list(good)[::2]:
        damage(file)
    proxy.reset()
    assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache)), expected)
    assert n_frames(proxy) > 0
    assert {file: file.read_bytes() for file in files_of(cache)} == good
    proxy.reset()
    assert_same(epoch(rz.open_store(hand_url, proxy.url, cache_dir=cache)), expected)
    assert n_frames(proxy) == 0

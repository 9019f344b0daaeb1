"""Loading from a bucket over HTTP: what is served is what the local store serves, or an error that names the object.

The service is moto's, in a process of its own; between it and the loader stands a proxy that counts requests and breaks
answers.
"""

from __future__ import annotations

import copy
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch
from bucket_stores import (
    LIBERO,
    assert_same,
    cut,
    empty,
    epoch,
    files_of,
    flip,
    flip_index,
    gather,
    make_dataset,
    n_frames,
    of_frames,
    remove,
    swap,
    upload,
)
from faulty import Fault, Kind, Proxy, Request
from remote import environment

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.dataset import WindowDataset
from robozarr.loader.frames.remote import MOST_BYTES
from robozarr.loader.schedule import REMOTE_LOCALITY, remote_locality
from robozarr.schemas.errors import CorruptChunkError, StoreError, WindowError
from robozarr.schemas.layout import Profile
from robozarr.store import bucket
from robozarr.store.locate import place_of

ONE_MORE = pytest.mark.slow(reason="converts and uploads once more for another codec")
PROFILES = ("fast", *(pytest.param(profile, marks=ONE_MORE) for profile in ("raw", "lean", "compact")))
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork


@pytest.mark.parametrize("profile", PROFILES)
def test_an_epoch_is_the_local_one(sample: Path, tmp_path: Path, proxy: Proxy, s3: str, profile: Profile) -> None:
    convert(sample, tmp_path / "a.zarr", profile=profile, workers=0)
    url, local = upload(tmp_path / "a.zarr", s3), rz.open_store(tmp_path / "a.zarr")
    assert_same(epoch(rz.open_store(url, proxy.url), LIBERO, 8), epoch(local, LIBERO, 8))
    proxy.reset()
    got = epoch(rz.open_store(url, proxy.url), LIBERO, 8, locality=None)
    assert_same(got, epoch(local, LIBERO, 8, locality=REMOTE_LOCALITY))
    # of the camera one shard of 44 frames: its index, then all that the epoch wants of it in requests of some megabytes
    n_bytes = sum(file.stat().st_size for file in tmp_path.glob("a.zarr/steps/agentview_rgb/c/**/*") if file.is_file())
    assert n_frames(proxy) <= 1 + 2 * -(-n_bytes // MOST_BYTES)


@pytest.mark.slow(reason="converts and uploads a whole file")
def test_real_data(real_data: Path, tmp_path: Path, s3: str) -> None:
    convert(sorted(real_data.rglob("*.hdf5"))[1], tmp_path / "a.zarr", workers=0)
    url, local = upload(tmp_path / "a.zarr", s3), rz.open_store(tmp_path / "a.zarr")
    store = rz.open_store(url, s3, cache_dir=tmp_path / "cache")
    options: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({"locality": None}, {"locality": REMOTE_LOCALITY}),
        ({"batch": 48}, {"batch": 48}),
        ({"cache": "host"}, {}),
    )
    for here, there in options:
        assert_same(epoch(store, LIBERO, **{"batch": 64, **here}), epoch(local, LIBERO, **{"batch": 64, **there}))


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
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
    """What is asked for the first time fails. Of frames, also by an answer that looks whole and is not what was written."""
    expected = epoch(rz.open_store(hand))
    plain: tuple[Kind, ...] = ("503", "reset", "lost answer", "slow", "truncated")
    sly: tuple[Kind, ...] = ("flipped",)
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


@pytest.mark.parametrize(
    "kind",
    [
        "503",
        *(
            pytest.param(kind, marks=pytest.mark.slow(reason="waits between attempts"))
            for kind in ("reset", "truncated", "cut")
        ),
        "flipped",
    ],
)
def test_a_fault_that_stays_is_an_error(
    hand: Path, hand_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setitem(bucket.RETRY, "max_retries", 2)  # of a place that is not open yet: each proxy has an address of its own
    path = "steps/agentview_rgb/c/2/0/0/0"
    proxy.fault = lambda request: Fault(kind) if request.path.endswith(path) else None
    store = rz.open_store(hand_url, proxy.url)
    with pytest.raises(StoreError) as caught:
        epoch(store)
    said = str(caught.value)
    assert f"steps/agentview_rgb · shard 2 ({path})" in said
    assert "episode " in said
    if kind != "flipped":
        assert f"{hand_url}/{path}" in said
    proxy.reset()
    assert_same(epoch(store), epoch(rz.open_store(hand)))  # the same store, once the service is well again


@pytest.fixture
def damaged(hand: Path, hand_url: str, tmp_path: Path, s3: str, damage: Callable[[Path], None]) -> Iterator[Path]:
    """A copy of the store with a damaged shard, and the same objects in the bucket, which are whole again after the test."""
    folder, place = Path(shutil.copytree(hand, tmp_path / "a.zarr")), place_of(hand_url, s3)

    def put(store: Path) -> None:
        for name in ("steps/agentview_rgb/c/1/0/0/0", "steps/agentview_rgb/c/3/0/0/0"):
            if (store / name).exists():
                place.write(name, [(store / name).read_bytes()])
            else:
                place.remove([name])

    damage(folder / "steps/agentview_rgb/c/1/0/0/0")
    put(folder)
    yield folder
    put(hand)


@pytest.mark.parametrize(
    "damage",
    [
        remove,
        flip,
        *(
            pytest.param(damage, marks=pytest.mark.slow(reason="uploads the store twice"))
            for damage in (cut, empty, flip_index, swap)
        ),
    ],
)
def test_damaged_objects_are_named(
    hand: Path, hand_url: str, tmp_path: Path, s3: str, damaged: Path, damage: Callable[[Path], None]
) -> None:
    said, there = [], partial(rz.open_store, hand_url, s3)
    for store in (rz.open_store(damaged), there(), there(cache_dir=tmp_path / "c")):
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


@pytest.mark.parametrize(
    "method", [pytest.param("spawn", marks=pytest.mark.slow(reason="imports torch in a new process")), "forkserver"]
)
def test_workers_that_are_started_anew(hand: Path, hand_url: str, s3: str, tmp_path: Path, method: str) -> None:
    # a fork server that another test started has the environment of then, without credentials
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    store = rz.open_store(hand_url, s3, cache_dir=tmp_path)
    options: dict[str, Any] = {"order": {"seed": 1, "locality": False}, "num_workers": 1}
    loader = rz.WindowDataLoader(make_dataset(store), 4, multiprocessing_context=method, **options)
    assert_same(gather(loader), gather(rz.WindowDataLoader(make_dataset(rz.open_store(hand)), 4, **options)))
    assert len(files_of(tmp_path)) == 10  # the workers' work: the cache came along


def test_forked_workers_say_what_to_do(hand_url: str, s3: str) -> None:
    dataset = make_dataset(rz.open_store(hand_url, s3))
    loader = rz.WindowDataLoader(dataset, 4, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(StoreError, match='a fork of it → pass multiprocessing_context="forkserver" or "spawn"'):
        list(loader)
    low = WindowDataset(rz.open_store(hand_url, s3), rz.WindowSpec({"actions": range(3), "joint_states": [0]}))
    low.windows.instructions_of(low.windows.plan([0]))  # of a bucket as well, and read by now
    assert len(list(rz.WindowDataLoader(low, 4, num_workers=1, multiprocessing_context="fork"))) == 5  # all in memory


@pytest.mark.parametrize("locality", [None, False])
def test_resume_in_the_middle(hand: Path, hand_url: str, s3: str, locality: Any) -> None:
    loader = rz.WindowLoader(make_dataset(rz.open_store(hand_url, s3)), 2, seed=5, locality=locality)
    batches, state = [], loader.state_dict()
    for batch in loader:
        batches.append(gather([batch])[0])
        if len(batches) == 4:
            state = loader.state_dict()
            break
    there = make_dataset(rz.open_store(hand if locality is False else hand_url, None if locality is False else s3))
    resumed = rz.WindowLoader(there, 3, seed=5, locality=locality)
    resumed.load_state_dict(state)
    batches += gather(resumed)
    anchors = torch.cat([100 * batch["episode"] + batch["step"] for batch in batches]).sort().values
    whole = there.read(range(len(there)))
    assert torch.equal(anchors, (100 * whole["episode"] + whole["step"]).sort().values)
    assert len(resumed) == 7


def test_the_order_of_a_bucket(hand: Path, hand_url: str, s3: str) -> None:
    remote, local = make_dataset(rz.open_store(hand_url, s3)), make_dataset(rz.open_store(hand))

    def blocks(dataset: WindowDataset, **options: Any) -> tuple[int | None, int | None]:
        order: Any = rz.WindowLoader(dataset, 4, **options).schedule.order
        return order.block, order.group

    assert blocks(remote) == REMOTE_LOCALITY
    assert blocks(local) == blocks(remote, locality=False) == blocks(remote, shuffle=False) == (None, None)
    assert blocks(remote, locality=(8, 2)) == blocks(local, locality=(8, 2)) == (8, 2)
    pictures = [replace(key, shape=(256, 256, 3)) if key.dtype == "uint8" else key for key in remote.store.metadata.keys]
    large = copy.copy(remote.store)
    large.metadata = replace(remote.store.metadata, keys=tuple(pictures))
    assert remote_locality(large) == (32, 32)
    loader = rz.WindowLoader(remote, 4)
    with pytest.raises(WindowError, match="block: saved None, now 32"):
        loader.load_state_dict(rz.WindowLoader(local, 4).state_dict())


def test_ending_early_and_again(hand: Path, hand_url: str, proxy: Proxy) -> None:
    """A loop that is left while requests are on their way, and an epoch after it; a pickled store opens again."""
    proxy.latency_s = 0.02
    store = pickle.loads(pickle.dumps(rz.open_store(hand_url, proxy.url)))
    loader = rz.WindowLoader(make_dataset(store), 2, seed=3, locality=False)
    for _ in range(3):
        for _ in loader:
            break
    loader.set_epoch(1)
    loader.set_epoch(0)
    assert_same(gather(loader), epoch(rz.open_store(hand), batch=2))


INTERRUPTED = """
import sys
import threading
import robozarr as rz
store = rz.open_store(*sys.argv[1:])
dataset = rz.WindowDataset(store, rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(3)}))
print("ready", flush=True)
sys.stdin.readline()
for batch in rz.WindowLoader(dataset, 3):
    pass
"""


@pytest.mark.slow(reason="starts a program of its own")
def test_ctrl_c_while_a_bucket_is_gone(hand_url: str, proxy: Proxy) -> None:
    """A program that waits for answers which do not come ends in seconds, not when the last request is given up."""
    command = [sys.executable, "-c", INTERRUPTED, hand_url, proxy.url]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    proxy.fault = lambda request: Fault("503") if of_frames(request) else None
    proxy.requests.clear()
    process.stdin.write("\n")
    process.stdin.flush()
    while n_frames(proxy) < 10:
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 20  # a request is given up after two minutes
    assert process.returncode in (1, -signal.SIGINT)
    assert "KeyboardInterrupt" in said
    assert "fatal" not in said

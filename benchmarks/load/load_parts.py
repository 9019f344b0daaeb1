"""Answers two questions for ``bench_load``: Python's share of a loader's CPU time, and speeds with a cold page cache."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from load_contenders import STANDARD
from load_task import CAMERAS, Contender, Demos, Task

from robozarr.loader.dataset import WindowDataset
from robozarr.loader.frames import read as loader_read
from robozarr.loader.frames.read import Reader
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.order import Order
from robozarr.schemas.layout import FRAMES_PER_CHUNK, Profile
from robozarr.schemas.shard import read_index
from robozarr.store.opened import open_store
from scale_store import window

__all__ = ["Single", "cold_ways", "python_share", "single_frames"]

COMPILED: Final = ("group_rows", "part_of_rows", "prepare_shards", "read_chunks", "read_frames", "copy_rows")
"""The kernel functions that ``loader.frames.read`` calls for a batch."""
COLD_BATCHES: Final = 6
SINGLE_BATCH: Final = 64
SINGLE_TIMES: Final = 5
Ways = dict[str, tuple[Callable[[], int], Sequence[Path]]]


@contextmanager
def _counted(spent: dict[str, int], calls: dict[str, list[tuple[Any, ...]]]) -> Iterator[None]:
    """Add up the CPU time of compiled calls by function, and keep one call's arguments of each."""

    def wrap(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            began = time.thread_time_ns()
            value = function(*arguments)
            spent[name] = spent.get(name, 0) + time.thread_time_ns() - began
            calls.setdefault(name, []).append(arguments)
            return value

        return counted

    replaced: dict[str, Any] = {name: wrap(name, getattr(loader_read, name)) for name in COMPILED}
    with mock.patch.multiple(loader_read, **replaced):
        yield


def _without_work(name: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments for no rows, so that only the call from Python into compiled code remains."""
    if name == "part_of_rows":
        return (arguments[0], 0, *arguments[2:])
    if name in ("read_chunks", "read_frames"):
        return (*arguments[:2], 0, 0, *arguments[4:])
    if name == "prepare_shards":
        return (arguments[0], arguments[1][:0], *arguments[2:])
    if name == "copy_rows":
        return (arguments[0], arguments[1][:0], arguments[2][:0], arguments[3])
    return (arguments[0][:0], arguments[1][:0], arguments[2])


def python_share(store: Path, batch_size: int, epochs: int) -> float:
    """Share of a WindowLoader's CPU time that is spent outside compiled calls; 1 thread, warm.

    The way into compiled code counts as Python's: it is measured by the same calls without rows. So does what the clock
    takes, which makes the share a little too large.
    """
    loader = WindowLoader(WindowDataset(open_store(store), window()), batch_size, threads=1)
    for _ in loader:
        pass
    spent: dict[str, int] = {}
    calls: dict[str, list[tuple[Any, ...]]] = {}
    with _counted(spent, calls):
        began = time.process_time_ns()
        for _ in range(epochs):
            for _ in loader:
                pass
        total = time.process_time_ns() - began
    entering = 0
    for name, every in calls.items():
        function, empty = getattr(loader_read, name), _without_work(name, every[0])
        began = time.thread_time_ns()
        for _ in every:
            function(*empty)
        entering += time.thread_time_ns() - began
    return 1 - (sum(spent.values()) - entering) / total


# single frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """Reading single frames of one store: of each camera one frame a window, none of which shares a keyframe with another."""

    name: str
    cpu_us: float
    """Median, CPU-µs a frame; 1 thread, warm."""
    to_fast: float
    """Median of each round's ratio to profile fast."""


def single_frames(stores: Mapping[str, Path], rounds: int) -> list[Single]:
    """Time every store once a round, with rows of as many chunks of 16 as there are, in random order."""
    readers = {name: Reader(open_store(path), list(CAMERAS)) for name, path in stores.items()}
    n_steps = next(iter(readers.values())).store.n_steps
    taken: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(-1, rounds):  # the first is for compiling, and memory that is touched first
        rng = np.random.default_rng(number + 1)
        chunks = rng.permutation(-(-n_steps // FRAMES_PER_CHUNK))[:SINGLE_BATCH]
        rows = np.minimum(chunks * FRAMES_PER_CHUNK + rng.integers(0, FRAMES_PER_CHUNK, len(chunks)), n_steps - 1)[:, None]
        for name in random.Random(number).sample(list(readers), len(readers)):
            sizes = {key: int(np.prod(readers[name].store.keys[key].shape)) for key in CAMERAS}
            out = {key: np.zeros((len(rows), 1, n_bytes), np.uint8) for key, n_bytes in sizes.items()}
            began = time.thread_time_ns()
            for _ in range(SINGLE_TIMES):
                for key in CAMERAS:
                    readers[name].read(key, rows, np.arange(len(rows)), out[key])
            if number >= 0:
                taken[name].append((time.thread_time_ns() - began) / 1e3 / SINGLE_TIMES / len(CAMERAS) / len(rows))
    return [
        Single(
            name=name, cpu_us=statistics.median(mine),
            to_fast=statistics.median(a / b for a, b in zip(mine, taken["fast"], strict=True)),
        )
        for name, mine in taken.items()
    ]  # fmt: skip


# a cold page cache


def cold_ways(
    contenders: Sequence[Contender], demos: Demos, stores: Mapping[Profile, Path], sources: Sequence[Path], batch_size: int
) -> Ways:
    """Read the same windows one request at a time, by h5py, and by WindowLoader with 1 and 2 threads; files begin closed."""
    n_windows = int(demos.stop[-1])
    windows = Order(n_windows=n_windows).windows(range(n_windows), 0)[: COLD_BATCHES * batch_size]
    batches = [windows[at : at + batch_size] for at in range(0, len(windows), batch_size)]
    by_name = {contender.name: contender for contender in contenders}
    ways: Ways = {}
    for name in ("h5py low-level into the batch", "memmap of contiguous HDF5"):
        ways[name] = partial(_read_all, by_name[name], Task(epoch=0, batches=batches)), sources
    for profile in stores:
        frames = [file for name in ("agentview_rgb", "eye_in_hand_rgb") for file in _shards(stores[profile], name)]
        if profile in STANDARD:
            ways[f"one pread at a time, {profile}"] = _one_at_a_time(stores[profile], batches), frames
        for threads in (1, 2):
            several = f"{threads} thread{'s' * (threads > 1)}"
            ways[f"WindowLoader {profile}, {several}"] = _loaded(stores[profile], batch_size, threads), frames
    return ways


def _shards(store: Path, name: str) -> list[Path]:
    layout = open_store(store).layout(f"steps/{name}")
    return [store / layout.shard_path(shard) for shard in range(layout.n_shards)]


def _read_all(contender: Contender, task: Task) -> int:
    return sum(len(batch["actions"]) for batch in contender.read(task))


def _loaded(store: Path, batch_size: int, threads: int) -> Callable[[], int]:
    dataset = WindowDataset(open_store(store), window())

    def read() -> int:
        loader, n = WindowLoader(dataset, batch_size, threads=threads), 0
        for batch in loader:
            n += len(batch["actions"])
            if n >= COLD_BATCHES * batch_size:
                break
        return n

    return read


def _one_at_a_time(store: Path, batches: Sequence[np.ndarray[Any, np.dtype[np.int64]]]) -> Callable[[], int]:
    """Read the frames' bytes with one request per window and camera, each after the last has ended; no checks, no decoding."""
    opened = open_store(store)
    dataset = WindowDataset(opened, window())
    requests: list[tuple[Path, int, int]] = []
    for windows in batches:
        planned = dataset.windows.plan(windows)
        for name in ("agentview_rgb", "eye_in_hand_rgb"):
            layout = opened.layout(f"steps/{name}")
            paths = _shards(store, name)
            indexes = [read_index(path.read_bytes(), layout, shard) for shard, path in enumerate(paths)]
            for row in np.unique(planned.rows[name]).tolist():
                shard, chunk = divmod(row, layout.shard_rows)
                offset, length = indexes[shard][chunk].tolist()
                last = requests[-1] if requests else None
                if last and last[0] == paths[shard] and sum(last[1:]) == offset:
                    requests[-1] = (paths[shard], last[1], last[2] + length)
                else:
                    requests.append((paths[shard], offset, length))
    n = sum(map(len, batches))

    def read() -> int:
        files = {path: os.open(path, os.O_RDONLY) for path, _, _ in requests}
        for descriptor in files.values():
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # as random to the kernel as it is: no reading ahead
        for path, offset, length in requests:
            if len(os.pread(files[path], length, offset)) != length:
                raise RuntimeError(f"{path.name} ends early")
        for descriptor in files.values():
            os.close(descriptor)
        return n

    return read

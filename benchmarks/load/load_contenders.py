"""The contenders that ``bench_load`` times, each a way from window numbers to batches: other tools, robozarr, the limit.

Every contender gets the same windows in the same order and yields the same batches, as arrays by field; what is prepared once
(opening files, small keys in memory, buffers, workers) is not timed. Nothing here measures time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
import tensorstore
import torch
import zarr
from load_task import CAMERAS, I64, OFFSETS, Arrays, Buffers, Contender, Demos, Task
from torch.utils.data import DataLoader

from robozarr.loader.dataset import WindowDataset
from robozarr.loader.stream import WindowLoader
from robozarr.schemas.layout import PROFILES, Profile
from robozarr.store.opened import open_store
from scale_store import window

__all__ = ["BEFORE", "MEMMAP", "STANDARD", "OpenFiles", "contenders", "naive"]

STANDARD: Final[tuple[Profile, ...]] = ("raw", "fast")
"""Profiles of standard codecs, which other libraries read too."""
MEMMAP: Final = "memmap of contiguous HDF5"
BEFORE: Final = "Blosc-zstd, a frame a chunk"
"""What compact was before it had keyframes."""

# workers that are forked from a process without threads, which has imported torch already
multiprocessing.set_forkserver_preload(["robozarr.loader.dataset"])


# the seed's way, and h5py item by item


def _item(datasets: Mapping[str, Any], first: int, rows: Mapping[str, I64], i: int) -> Arrays:
    """Read one window: one padded slice per key."""
    item = {}
    for name in OFFSETS:
        at = rows[name][i] - first
        low = int(at[0])
        item[name] = np.asarray(datasets[name][low : int(at[-1]) + 1])[at - low]
    return item


def _stack(items: Sequence[Arrays], masks: Arrays) -> Arrays:
    return {name: np.stack([item[name] for item in items]) for name in OFFSETS} | masks


def _seed(demos: Demos, task: Task) -> Iterator[Arrays]:
    for windows in task.batches:
        episode, rows, masks = demos.plan(windows)
        items = []
        for i, number in enumerate(episode.tolist()):
            path, name = demos.paths[number]
            with h5py.File(path) as file:
                list(file["data"])  # of which the seed draws one
                demo = file[name]
                datasets = {key: demo[source] for key, source in demos.sources.items()}
                items.append(_item(datasets, int(demos.start[number]), rows, i))
        yield _stack(items, masks)


class OpenFiles:
    """Every dataset of every demo, kept open."""

    def __init__(self, demos: Demos) -> None:
        self.demos = demos
        self.files = {path: h5py.File(path) for path, _ in demos.paths}
        self.datasets = [
            {name: self.files[path][demo][source] for name, source in demos.sources.items()} for path, demo in demos.paths
        ]
        self.picture: tuple[int, ...] = self.datasets[0][CAMERAS[0]].shape[1:]

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def items(self, task: Task) -> Iterator[Arrays]:
        """Read window by window, through h5py's slices."""
        yield from map(self.batch, task.batches)

    def batch(self, windows: I64) -> Arrays:
        """One batch of such windows."""
        episode, rows, masks = self.demos.plan(windows)
        numbers = enumerate(episode.tolist())
        return _stack([_item(self.datasets[n], int(self.demos.start[n]), rows, i) for i, n in numbers], masks)

    def batched(self, task: Task) -> Iterator[Arrays]:
        """Read straight into a ready batch with HDF5's low-level calls and reused selections; small keys are in memory."""
        buffers = Buffers(self.demos, self.picture)
        spaces = [{name: each[name].id.get_space() for name in CAMERAS} for each in self.datasets]
        memory = {n: h5py.h5s.create_simple((n, *self.picture)) for n in (1, 2)}
        rest = (0,) * len(self.picture)
        for windows in task.batches:
            episode, rows, masks = self.demos.plan(windows)
            out = buffers.of(len(windows))
            for name in CAMERAS:
                target, at = out[name], (rows[name] - self.demos.start[episode][:, None]).tolist()
                for i, number in enumerate(episode.tolist()):
                    low, n = at[i][0], at[i][1] - at[i][0] + 1
                    space = spaces[number][name]
                    space.select_hyperslab((low, *rest), (n, *self.picture))
                    self.datasets[number][name].id.read(memory[n], space, target[i, :n])
                    if n == 1:
                        target[i, 1] = target[i, 0]
            buffers.small(rows, out)
            yield out | masks

    def mapped(self, task: Task) -> Iterator[Arrays]:
        """Map the contiguous datasets into memory at their offsets; small keys are in memory."""
        buffers = Buffers(self.demos, self.picture)
        maps = [
            {
                name: np.memmap(path, np.uint8, "r", each[name].id.get_offset(), each[name].shape)
                for name in CAMERAS
                if each[name].id.get_offset() is not None
            }
            for (path, _), each in zip(self.demos.paths, self.datasets, strict=True)
        ]
        as_arrays = [{name: np.asarray(mapped) for name, mapped in each.items()} for each in maps]
        for windows in task.batches:
            episode, rows, masks = self.demos.plan(windows)
            out = buffers.of(len(windows))
            for name in CAMERAS:
                target, at = out[name], (rows[name] - self.demos.start[episode][:, None]).tolist()
                for i, number in enumerate(episode.tolist()):
                    low, high = at[i]
                    target[i] = as_arrays[number][name][low : high + 1]  # one row is spread over both offsets
            buffers.small(rows, out)
            yield out | masks


# zarr-python and TensorStore over the store's frames; small keys in memory


def _zarr_slices(demos: Demos, store: Path, task: Task) -> Iterator[Arrays]:
    group = zarr.open_group(store, mode="r")
    cameras: dict[str, Any] = {name: group[f"steps/{name}"] for name in CAMERAS}
    buffers = Buffers(demos, cameras[CAMERAS[0]].shape[1:])
    for windows in task.batches:
        _, rows, masks = demos.plan(windows)
        out = buffers.of(len(windows))
        for name, array in cameras.items():
            for i, (low, high) in enumerate(rows[name].tolist()):
                out[name][i] = array[low : high + 1]
        buffers.small(rows, out)
        yield out | masks


class TensorStores:
    """Cameras opened once by TensorStore."""

    def __init__(self, demos: Demos, store: Path) -> None:
        kvstore = {"driver": "file", "path": ""}
        self.demos = demos
        self.cameras = {
            name: tensorstore.open(
                {"driver": "zarr3", "kvstore": kvstore | {"path": str(store / "steps" / name)}}, read=True
            ).result()
            for name in CAMERAS
        }

    def read(self, task: Task) -> Iterator[Arrays]:
        """One index-array read per camera and batch."""
        buffers = Buffers(self.demos, tuple(self.cameras[CAMERAS[0]].shape[1:]))
        for windows in task.batches:
            _, rows, masks = self.demos.plan(windows)
            out = buffers.of(len(windows))
            pending = [self.cameras[name][rows[name]].read() for name in CAMERAS]
            buffers.small(rows, out)
            yield out | masks | {name: read.result() for name, read in zip(CAMERAS, pending, strict=True)}


# torch's DataLoader and robozarr


class Loaded:
    """robozarr's dataset of one store, opened once, for torch's DataLoader or for WindowLoader."""

    def __init__(self, store: Path, batch_size: int) -> None:
        self.dataset = WindowDataset(open_store(store), window())
        self.batch_size = batch_size
        self.batches: list[list[int]] = []
        self._loaders: dict[int, DataLoader[Any]] = {}

    def data_loader(self, workers: int, task: Task) -> Iterable[Mapping[str, Any]]:
        """Make a DataLoader with persistent workers."""
        if workers not in self._loaders:
            self._loaders[workers] = DataLoader(
                self.dataset, batch_sampler=self.batches, num_workers=workers, collate_fn=self.dataset.collate,
                persistent_workers=workers > 0, multiprocessing_context="forkserver" if workers else None,
            )  # fmt: skip
        self.batches[:] = [windows.tolist() for windows in task.batches]
        return self._loaders[workers]

    def window_loader(
        self, threads: int, cache: Literal["host"] | None = None
    ) -> Callable[[Task], Iterable[Mapping[str, Any]]]:
        """Make a function that reads batches by a WindowLoader."""
        loader = WindowLoader(self.dataset, self.batch_size, threads=threads, cache=cache)

        def read(task: Task) -> Iterable[Mapping[str, Any]]:
            loader.set_epoch(task.epoch)
            return loader

        return read

    def close(self) -> None:
        self._loaders.clear()  # which ends the workers


class Ram:
    """The limit: everything in memory, gathered into a ready batch."""

    def __init__(self, demos: Demos, store: Path) -> None:
        opened = open_store(store)
        self.demos = demos
        self.columns = {name: torch.from_numpy(np.asarray(opened.array(name)[...])) for name in OFFSETS}
        self.out: dict[str, torch.Tensor] = {}
        self.pool = ThreadPoolExecutor(2)  # torch's own second thread spins where cores are few: 100 times slower here

    def read(self, threads: int, task: Task) -> Iterator[Mapping[str, Any]]:
        """One index_select per key, thread and batch."""
        torch.set_num_threads(1)
        for windows in task.batches:
            _, rows, masks = self.demos.plan(windows)
            batch: dict[str, Any] = dict(masks)
            work = []
            for name, column in self.columns.items():
                n, n_offsets = rows[name].shape
                shape = (n, n_offsets, *column.shape[1:])
                if len(self.out.get(name, ())) < n:
                    self.out[name] = torch.empty(shape, dtype=column.dtype)
                batch[name] = self.out[name][:n]
                parts = threads if name in CAMERAS else 1
                for part in range(parts):
                    at = slice(n * part // parts, n * (part + 1) // parts)
                    out = batch[name][at].view(-1, *column.shape[1:])
                    work.append(partial(torch.index_select, column, 0, torch.from_numpy(rows[name][at].reshape(-1)), out=out))
            if threads == 1:
                for each in work:
                    each()
            else:
                list(self.pool.map(lambda each: each(), work))
            yield batch

    def close(self) -> None:
        self.pool.shutdown()


def contenders(demos: Demos, stores: Mapping[Profile, Path], before: Path, batch_size: int) -> Iterator[Contender]:
    """Every row, peers first; `before` is the store of `BEFORE`."""
    files = OpenFiles(demos)
    yield Contender(name="file opened per sample (the seed's way)", role="seed", read=partial(_seed, demos), slow=True)
    yield Contender(name="h5py kept open, item by item", role="h5py", read=files.items)
    yield Contender(name="h5py low-level into the batch", role="h5py", read=files.batched)
    yield Contender(name=MEMMAP, role="h5py", read=files.mapped, close=files.close)
    for profile in STANDARD:
        yield Contender(
            name=f"zarr-python slices {profile}", role="zarr-python", profile=profile, slow=True,
            read=partial(_zarr_slices, demos, stores[profile]),
        )  # fmt: skip
    for profile in STANDARD:
        read = TensorStores(demos, stores[profile]).read
        yield Contender(name=f"TensorStore batch {profile}", role="TensorStore", profile=profile, read=read)
    loaded = {profile: Loaded(stores[profile], batch_size) for profile in PROFILES}
    for profile in PROFILES:
        for workers in (0, 2):
            yield Contender(
                name=f"DataLoader, {workers} workers, {profile}", role="DataLoader", profile=profile, threads=workers or None,
                read=partial(loaded[profile].data_loader, workers), close=loaded[profile].close,
            )  # fmt: skip
    old = Loaded(before, batch_size)
    for threads in (1, 2):
        several = f"{threads} thread{'s' * (threads > 1)}"
        for profile in PROFILES:
            yield Contender(
                name=f"WindowLoader {profile}, {several}", role="robozarr", profile=profile, threads=threads,
                read=loaded[profile].window_loader(threads),
            )  # fmt: skip
        yield Contender(
            name=f"WindowLoader {BEFORE}, {several}", role="robozarr", threads=threads, read=old.window_loader(threads)
        )  # fmt: skip
        yield Contender(
            name=f"WindowLoader cache=host, {several}", role="robozarr", threads=threads,
            read=loaded["raw"].window_loader(threads, "host"),
        )  # fmt: skip
    ram = Ram(demos, stores["raw"])
    for threads in (1, 2):
        yield Contender(
            name=f"index_select from RAM, {threads} thread{'s' * (threads > 1)}", role="limit", threads=threads,
            read=partial(ram.read, threads), close=ram.close,
        )  # fmt: skip


def naive(demos: Demos, windows: I64) -> Arrays:
    """Read the same batch from HDF5 one step at a time, by the rule of design.md: clamp rows, and mask the clamped ones."""
    items: dict[str, list[Any]] = {}
    for row in windows.tolist():
        number = int(np.searchsorted(demos.stop, row, side="right"))
        path, demo = demos.paths[number]
        first, n = int(demos.start[number]), int(demos.stop[number] - demos.start[number])
        with h5py.File(path) as file:
            for name, offsets in OFFSETS.items():
                steps = [row - first + int(offset) for offset in offsets]
                dataset = file[demo][demos.sources[name]]
                values = dataset[max(0, steps[0]) : min(n - 1, steps[-1]) + 1]
                low = max(0, steps[0])
                items.setdefault(name, []).append([values[min(max(step, 0), n - 1) - low] for step in steps])
                items.setdefault(f"{name}_is_pad", []).append([not 0 <= step < n for step in steps])
    return {name: np.array(item) for name, item in items.items()}

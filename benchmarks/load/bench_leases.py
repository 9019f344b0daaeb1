"""Measure the cost of batches that never change while held: WindowLoader beside the same loader with a plain ring of slots.

    python benchmarks/load/bench_leases.py [SOURCE] [--rounds 31] [--epochs 1] [--batch-size 64] [--profile raw]

The ring is what WindowLoader had before: slots in turn, each overwritten two batches later, whoever holds it. "copies" is the
ring with a clone of each batch, which is what keeping batches took. Rows are timed in every round, in another order each, warm,
one thread that reads; CPU time is the process's, all threads. "held": the last 8 batches are kept. After the timing every batch
of an epoch that was kept whole is compared with one that was read for itself.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from common import default_source

from robozarr.convert import convert
from robozarr.loader.batch import Batch, Field
from robozarr.loader.dataset import WindowDataset
from robozarr.loader.device.batch_slots import BatchSlots
from robozarr.loader.stream import WindowLoader
from robozarr.schemas.layout import Profile
from robozarr.store.opened import open_store
from scale_store import window

HELD: Final = 8
AIM: Final = 0.05
"""Largest allowed extra CPU time per window over the ring, when batches are not held."""


class RingSlot:
    """One block of memory whose fields are views made once."""

    def __init__(self, fields: tuple[Field, ...], batch_size: int, copy: bool) -> None:
        sizes = [batch_size * field.window_bytes for field in fields]
        starts = np.cumsum([0, *(-(-size // 128) * 128 for size in sizes)]).tolist()
        self._block, self._copy = torch.empty(starts[-1], dtype=torch.uint8), copy
        self._batch_size = self.n = batch_size
        arrays, self._tensors = {}, {}
        for field, start, size in zip(fields, starts, sizes, strict=False):
            shape = (batch_size, *field.shape)
            arrays[field.name] = self._block.numpy()[start : start + size].view(field.dtype).reshape(shape)
            self._tensors[field.name] = torch.from_numpy(arrays[field.name])
        self.batch = Batch(fields, batch_size, arrays)

    def wait_until_free(self) -> None: ...

    def send(self) -> None: ...

    def give_back(self) -> None: ...

    def receive(self) -> dict[str, torch.Tensor]:
        found = dict(self._tensors)
        if self.n < self._batch_size:
            found = {name: tensor[: self.n] for name, tensor in found.items()}
        return {name: tensor.clone() for name, tensor in found.items()} if self._copy else found


class Ring:
    """A ring with one slot more than the number of batches read ahead."""

    def __init__(self, loader: WindowLoader, copy: bool) -> None:
        self._slots = [RingSlot(loader._fields, loader.batch_size, copy) for _ in range(loader._ahead + 1)]
        self._at = 0

    def take(self, n: int) -> RingSlot:
        self._at += 1
        slot = self._slots[self._at % len(self._slots)]
        slot.n = n
        return slot


class Row(NamedTuple):
    """Medians over the rounds."""

    cpu_us: float
    to_ring: float


def make_loaders(dataset: WindowDataset, batch_size: int) -> dict[str, WindowLoader]:
    """Make the loader as it is, one with a ring, and one with a ring and copies."""
    loaders = {name: WindowLoader(dataset, batch_size, threads=1) for name in ("ring", "leases", "copies")}
    for name in ("ring", "copies"):
        loaders[name]._slots = cast(BatchSlots, Ring(loaders[name], name == "copies"))
    return loaders


def measure(loader: WindowLoader, epochs: int, n_held: int) -> float:
    """CPU-µs per window."""
    kept: deque[Any] = deque(maxlen=n_held)
    n, began = 0, time.process_time()
    for _ in range(epochs):
        for batch in loader:
            kept.append(batch)
            n += len(batch["step"])
    return (time.process_time() - began) / n * 1e6


def check(loader: WindowLoader, dataset: WindowDataset) -> None:
    """Keep all batches of an epoch and compare them with windows read separately."""
    anchors = dataset.table.anchors(np.arange(len(dataset)))
    number = {at: window for window, at in enumerate(zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True))}
    kept = list(loader)
    for batch in kept:
        places = zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)
        wanted = dataset.read([number[place] for place in places])
        for name, value in wanted.items():
            same = value == batch[name] if isinstance(value, list) else torch.equal(value, batch[name])
            if not same:
                raise AssertionError(f"a kept batch has changed: {name}")


def run(source: Path, profile: Profile, rounds: int, epochs: int, batch_size: int) -> dict[str, Row]:
    """Row → CPU-µs per window and its ratio to the ring, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        convert(source, Path(folder) / "bench.zarr", workers=0, profile=profile)
        dataset = WindowDataset(open_store(Path(folder) / "bench.zarr"), window())
        loaders = make_loaders(dataset, batch_size)
        ways: dict[str, Callable[[], float]] = {}
        for name, n_held in (("ring", 0), ("leases", 0), ("leases", HELD), ("copies", 0), ("copies", HELD)):
            title = f"{name}, {n_held} held" if n_held else name
            ways[title] = lambda name=name, n_held=n_held: measure(loaders[name], epochs, n_held)  # type: ignore[misc]
        order, times = list(ways), {title: list[float]() for title in ways}
        for way in ways.values():  # threads, compiled code, page cache
            way()
        for number in range(rounds):
            random.Random(number).shuffle(order)
            for title in order:
                times[title].append(ways[title]())
        check(loaders["leases"], dataset)
    ring = times["ring"]
    return {
        title: Row(statistics.median(own), statistics.median(a / b for a, b in zip(own, ring, strict=True)))
        for title, own in times.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table; returns 1 if the default costs more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=None)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--profile", default="raw")
    options = parser.parse_args(arguments)
    rows = run(options.source or default_source(), options.profile, options.rounds, options.epochs, options.batch_size)
    for title, row in rows.items():
        print(f"{title:<20}{row.cpu_us:>8.1f} CPU-µs a window{row.to_ring:>8.3f} of the ring's")
    return int(rows["leases"].to_ring > 1 + AIM)


if __name__ == "__main__":
    sys.exit(main())

"""Pictures augmented a batch at a time, beside the same steps a sample at a time in worker processes; and what choosing costs.

    python benchmarks/load/bench_augment.py [SOURCE] [--rounds 3] [--batches 8] [--batch-size 32] [--workers 2] [--device cpu]

Rows are timed in every round, in turn, warm, after one batch each that is not timed. "sample/s" is wall time, "CPU-µs" of all
processes together, workers included. Both ways make the same pictures, which is checked to the last bit but for the rounding of
float32 after the timing. With --device cuda the batch goes to the GPU before it is changed; workers stay on the CPU.
The second table is of the loader without pictures, where choosing and weighing windows would show most.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import default_source
from torch.utils.data import DataLoader, Dataset

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.device.augmenting.draws import keys_of_windows

CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")


class SampleBySample(Dataset[Any]):
    """One window at a time, changed in the worker, as transforms of datasets are written."""

    def __init__(self, dataset: rz.WindowDataset, augment: rz.Augment | None) -> None:
        self.dataset, self.augment = dataset, augment

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, window: int) -> Any:
        sample = self.dataset[window]
        key = keys_of_windows(0, 0, 0, np.array([int(sample["episode"])]), np.array([int(sample["step"])]))
        for name in CAMERAS:
            x = sample[name].flip(1).movedim(-1, -3).float().mul_(1 / 255)[None]  # LIBERO's rows begin at the bottom
            sample[name] = x[0] if self.augment is None else self.augment.changed(x, name, key)[0]
        return sample


def cpu_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(batches: Callable[[], Iterator[Any]], n_batches: int, device: str) -> tuple[float, float]:
    """(samples per second, CPU-µs a sample) of some batches; the first is not timed."""
    iterator = batches()
    next(iterator)
    cpu, begin, n = cpu_s(), time.perf_counter(), 0
    for batch in islice(iterator, n_batches):
        n += len(batch["step"])
    if device == "cuda":
        torch.cuda.synchronize()
    wall = time.perf_counter() - begin
    del iterator  # workers end, and their time is counted
    return n / wall, (cpu_s() - cpu) / n * 1e6


def report(rows: dict[str, Callable[[], Iterator[Any]]], rounds: int, n_batches: int, device: str) -> None:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, batches in rows.items():
            found[name].append(timed(batches, n_batches, device))
    base = statistics.median(value[1] for value in next(iter(found.values())))
    for name, values in found.items():
        speed, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:58s} {speed:9.0f} samples/s {cpu:9.0f} CPU-µs {cpu / base:7.2f}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--presets", nargs="*", default=["robomimic", "openvla"])
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        convert(given.source or default_source(), f"{folder}/a.zarr", workers=0)
        store = rz.open_store(f"{folder}/a.zarr")
        dataset = rz.WindowDataset(store, {name: [0] for name in CAMERAS} | {"actions": range(16)})
        print(
            f"{os.cpu_count()} cores, torch {torch.__version__}, {given.device}; 2 pictures of {store.keys[CAMERAS[0]].shape}"
        )
        for preset in given.presets:
            augment = getattr(rz.Augment, preset)(
                **({"crop": (116, 116)} if preset in ("robomimic", "diffusion_policy") else {})
            )
            check(dataset, augment)
            print(f"\n{preset}")
            report(ways(dataset, augment, given), given.rounds, given.batches, given.device)
        print("\nchoosing, without pictures")
        report(choosing(store), given.rounds, 40, "cpu")
    return 0


def ways(dataset: rz.WindowDataset, augment: rz.Augment, given: argparse.Namespace) -> dict[str, Callable[[], Iterator[Any]]]:
    def batched(of: rz.Augment | None) -> Callable[[], Iterator[Any]]:
        loader = rz.WindowLoader(dataset, given.batch_size, images=rz.Images(), augment=of, device=given.device)
        return lambda: iter(loader)

    def in_workers(of: rz.Augment | None) -> Callable[[], Iterator[Any]]:
        options: dict[str, Any] = {"num_workers": given.workers, "batch_size": given.batch_size, "shuffle": True}
        return lambda: iter(DataLoader(SampleBySample(dataset, of), collate_fn=dataset.collate, **options))

    return {
        "WindowLoader, pictures as they are": batched(None),
        "WindowLoader, a batch at a time": batched(augment),
        f"DataLoader, {given.workers} workers, pictures as they are": in_workers(None),
        f"DataLoader, {given.workers} workers, a sample at a time": in_workers(augment),
    }


def check(dataset: rz.WindowDataset, augment: rz.Augment) -> None:
    """Both ways make the same pictures."""
    batch = next(iter(rz.WindowLoader(dataset, 8, shuffle=False, images=rz.Images(), augment=augment)))
    samples = SampleBySample(dataset, augment)
    for name in CAMERAS:
        assert all((batch[name][i] - samples[i][name]).abs().max() < 1e-5 for i in range(8)), name


def choosing(store: rz.Store) -> dict[str, Callable[[], Iterator[Any]]]:
    spec = {"joint_states": [0], "actions": range(16)}
    whole = rz.WindowDataset(store, spec)
    train, _ = whole.split(0.75)
    parts = [rz.WindowDataset(store, spec, episodes=[e], stride=s) for e in range(store.n_episodes) for s in (1, 2)]

    def endless(dataset: Any, **options: Any) -> Callable[[], Iterator[Any]]:
        loader = rz.WindowLoader(dataset, 64, **options).forever()
        return lambda: iter(loader)

    return {
        "every window": endless(whole),
        "stride=2": endless(rz.WindowDataset(store, spec, stride=2)),
        "three quarters of the episodes": endless(train),
        'balance="task"': endless(whole, balance="task"),
        "a number per window": endless(whole, weights=np.random.default_rng(0).random(len(whole)) + 0.1),
        f"a list of {len(parts)} datasets": endless(parts),
        f"a list of {len(parts)} datasets, by shares": endless(parts, mixture=[1.5] * len(parts)),
    }


if __name__ == "__main__":
    raise SystemExit(main())

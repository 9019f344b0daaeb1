"""Compare each adapter's windows/s with WindowLoader's on the same window, interleaved in one run; every batch is counted.

Seconds are the processors', of all threads, so that a busy machine counts for nothing; with `--device` they are the clock's.

`make bench-adapters ARGS="--source FOLDER"`. The page cache is warm. "bare" hands out pictures as stored, "turned" turns them
upright. An adapter is held against the loader that does to pictures what it does: of those that turn them, "turned".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robozarr.convert import convert
from robozarr.loader.adapters.openpi import OpenPIDataset
from robozarr.loader.adapters.openvla import OpenVLADataset
from robozarr.loader.adapters.rdt.dataset import RDTDataset
from robozarr.loader.adapters.rdt.vector import RDTConfig
from robozarr.loader.adapters.robomimic import SequenceDataset
from robozarr.loader.dataset import WindowDataset
from robozarr.loader.device.transform import Images
from robozarr.loader.stream import WindowLoader

TURNED = Images(upright=True, dtype=None, scale=False, channels_first=False)
AS_STORED = ("RDT, as stored", "robomimic")
"""Adapters that return pictures as stored."""
LIMIT = 0.9
"""Smallest allowed share of WindowLoader's throughput on the same window."""


def contenders(store: Path, batch_size: int, device: str | None) -> dict[str, tuple[WindowDataset, WindowLoader]]:
    """Adapter → the dataset of its window, and its loader."""
    rdt, delta = RDTDataset(store), RDTDataset(store, config=RDTConfig(profile="delta"))
    stored = RDTDataset(store, config=RDTConfig(upright=False))
    robomimic = SequenceDataset(
        store, ["agentview_rgb", "eye_in_hand_rgb", "joint_states", "gripper_states"], ["actions"], seq_length=10,
        get_pad_mask=True, load_next_obs=False,
    )  # fmt: skip
    openvla, openpi = OpenVLADataset(store, chunk=8), OpenPIDataset(store)
    options: dict[str, Any] = {} if device is None else {"device": device}
    return {
        "RDT future_state": (rdt.windows, rdt.loader(batch_size, **options)),
        "RDT delta": (delta.windows, delta.loader(batch_size, **options)),
        "RDT, as stored": (stored.windows, stored.loader(batch_size, **options)),
        "robomimic": (robomimic.windows, robomimic.loader(batch_size, **options)),
        "OpenVLA": (openvla.windows.dataset, openvla.loader(batch_size, **options)),
        "openpi": (openpi.windows.dataset, openpi.loader(batch_size, **options)),
    }


def measure(batches: Iterable[Any], seconds: float, clock: Callable[[], float]) -> float:
    """Windows/s over whole epochs that together take at least the given time."""
    began, n = clock(), 0
    while n == 0 or clock() - began < seconds:
        n += sum(len(batch["actions" if "actions" in batch else "action"]) for batch in batches)
    return n / (clock() - began)


def run(store: Path, batch_size: int, seconds: float, rounds: int, device: str | None) -> dict[str, tuple[float, float, float]]:
    """Adapter → median windows/s: bare, turned, adapter; the three take turns."""
    import torch

    def clock() -> float:
        if device is None:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    results = {}
    for name, (dataset, adapter) in contenders(store, batch_size, device).items():
        options: dict[str, Any] = {} if device is None else {"device": device}
        loaders = [
            WindowLoader(dataset, batch_size, **options),
            WindowLoader(dataset, batch_size, images=TURNED, **options),
            adapter,
        ]
        for loader in loaders:  # threads, compiled code, page cache
            measure(loader, 0.0, clock)
        times = [[measure(loader, seconds, clock) for loader in loaders] for _ in range(rounds)]
        bare, turned, own = (statistics.median(column) for column in zip(*times, strict=True))
        results[name] = (bare, turned, own)
    return results


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table; 1 if an adapter is below the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[2] / "sample", help="HDF5 files to convert first")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default=None, help="such as cuda")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "bench.zarr"
        convert(options.source, store, workers=0)
        results = run(store, options.batch_size, options.seconds, options.rounds, options.device)
    seconds = "s" if options.device else "s of CPU time"
    head = f"{'adapter':<18}{'bare':>9}{'turned':>9}{'adapter':>9}  of bare  of turned"
    print(f"{head}   (windows/{seconds}, medians of {options.rounds})")
    low = False
    for name, (bare, turned, own) in results.items():
        print(f"{name:<18}{bare:>9.0f}{turned:>9.0f}{own:>9.0f}{own / bare:>9.2f}{own / turned:>11.2f}")
        low |= own < LIMIT * (bare if name in AS_STORED else turned)
    if low:
        print(f"an adapter is below {LIMIT:.0%} of the loader", file=sys.stderr)
    return int(low)


if __name__ == "__main__":
    sys.exit(main())

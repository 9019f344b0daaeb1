"""Measure loading onto a CUDA device against its limits, by profile: decoding, the copy, a training step beside it, the cache.

    python benchmarks/gpu/bench_gpu.py [SOURCE] [--rounds 5] [--seconds 2] [--batch-size 64] [--step-ms 20] [--json FILE]

All rows of a profile are timed in every round, in another order each, warm; medians over the rounds, and ratios of each round.

- decode: WindowLoader on the CPU, the same threads: what there is to be sent.
- pinned copy: one block of pinned memory of a batch's size to the device, over and over: what the bus takes.
- loader: WindowLoader(device="cuda"). Aim: 90% of the smaller of both.
- overlap: matrix products of --step-ms a batch, queued on a batch that is there already, and on each batch that the loader
  hands out. Aim: at most 2% slower. It needs a decode rate above a batch in a step, which is printed.
- cache: WindowLoader(device="cuda", cache="device") against a copy inside the device's memory; both read and write each byte.
- h5py DataLoader: the same windows of the source, files kept open, in as many workers of torch's DataLoader as the loader has
  threads, pinned, sent to the device; once, beside the profiles; and the same step on its batches.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from common import align, default_source, figure, machine, machine_lines, write_json
from load_contenders import OpenFiles
from load_task import Demos
from torch.utils.data import DataLoader, Dataset

from robozarr.convert import convert
from robozarr.convert.sources.hdf5 import find_sources
from robozarr.loader.dataset import WindowDataset
from robozarr.loader.stream import WindowLoader, default_threads
from robozarr.schemas.layout import PROFILES
from robozarr.store.opened import open_store
from scale_store import window

PACKAGES: Final = ("robozarr", "numpy", "torch", "numba", "blosc2")
AIM_OF_LIMIT: Final = 0.90
AIM_SLOWER: Final = 0.02
WARM_BATCHES: Final = 8

H5PY: Final = "h5py DataLoader"
Rate = Callable[[], float]
"""Runs for a while; returns bytes per second, or seconds per step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of a run."""

    source: Path
    rounds: int = 5
    seconds: float = 2.0
    batch_size: int = 64
    step_ms: float = 20.0
    scratch: Path | None = None


def batches(loader: WindowLoader, seconds: float) -> tuple[int, float]:
    """Windows and seconds of a run over endless epochs; all device work is finished when the clock stops."""
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for batch in loader:
            n += len(batch["step"])
            if time.perf_counter() - began >= seconds:
                break
    _finish(loader.device)
    return n, time.perf_counter() - began


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate_of_loader(loader: WindowLoader, window_bytes: int, seconds: float) -> float:
    """Bytes of windows per second."""
    batches(loader, min(0.5, seconds))  # compiled, indexes read, cache filled
    n, took = batches(loader, seconds)
    return n * window_bytes / took


def rate_of_pinned_copy(n_bytes: int, device: torch.device, seconds: float) -> float:
    """Bytes per second from pinned memory to the device, in blocks as large as a batch."""
    host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
    return _rate(lambda there: there.copy_(host, non_blocking=True), n_bytes, device, seconds)


def rate_of_device_memory(n_bytes: int, device: torch.device, seconds: float) -> float:
    """Bytes per second from one place on the device to another."""
    here = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    return _rate(lambda there: there.copy_(here), n_bytes, device, seconds)


def _rate(copy: Callable[[torch.Tensor], object], n_bytes: int, device: torch.device, seconds: float) -> float:
    there = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    copy(there)
    _finish(device)
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(8):
            copy(there)
        _finish(device)
        n += 8
    return n * n_bytes / (time.perf_counter() - began)


class Step:
    """A step like training: matrix products that take about so many seconds and use a batch's pictures."""

    def __init__(self, device: torch.device, size: int, seconds: float) -> None:
        self.device = device
        kind = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.a = torch.randn(size, size, device=device, dtype=kind) / size**0.5
        self.b, self.n = torch.empty_like(self.a), 1
        self._products(3)
        _finish(device)
        began = time.perf_counter()
        self._products(20)
        _finish(device)
        self.n = max(1, round(seconds / ((time.perf_counter() - began) / 20)))

    def _products(self, n: int) -> None:
        for _ in range(n):
            torch.mm(self.a, self.a, out=self.b)

    def __call__(self, batch: Mapping[str, Any]) -> None:
        self.b[0, 0] = batch["agentview_rgb"].view(-1)[::4096].sum()
        self._products(self.n)


class DemoWindows(Dataset[dict[str, Any]]):
    """Windows of HDF5 files, item by item, as people write it; every process opens the files once."""

    def __init__(self, demos: Demos) -> None:
        self.demos = demos
        self.files: OpenFiles | None = None

    def __len__(self) -> int:
        return int(self.demos.stop[-1])

    def __getitem__(self, window: int) -> dict[str, Any]:
        if self.files is None:
            self.files = OpenFiles(self.demos)
        return {name: value[0] for name, value in self.files.batch(np.array([window])).items()}


Workers = DataLoader[dict[str, Any]]


def endless(source: WindowLoader | Workers | Mapping[str, Any], device: torch.device) -> Generator[Mapping[str, Any]]:
    """Batches on the device, epoch after epoch; of one batch, it again and again."""
    while True:
        if isinstance(source, WindowLoader):
            yield from source
        elif isinstance(source, DataLoader):
            for batch in source:
                yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        else:
            yield source


def rate_of_workers(workers: Workers, window_bytes: int, device: torch.device, seconds: float) -> float:
    """Bytes of windows per second of torch's DataLoader, on the device."""
    n, began = 0, 0.0
    for number, batch in enumerate(batches := endless(workers, device)):
        if number == WARM_BATCHES:
            _finish(device)
            began = time.perf_counter()
        elif number > WARM_BATCHES:
            n += len(batch["actions"])
            if time.perf_counter() - began >= seconds:
                break
    batches.close()
    _finish(device)
    return n * window_bytes / (time.perf_counter() - began)


def seconds_a_step(step: Step, source: WindowLoader | Workers | Mapping[str, Any], seconds: float) -> float:
    """Seconds per step, on each batch of a loader or on the same batch again and again."""
    n, began = 0, 0.0
    for number, batch in enumerate(batches := endless(source, step.device)):
        if number == WARM_BATCHES:
            _finish(step.device)
            began = time.perf_counter()
        step(batch)
        n = number + 1 - WARM_BATCHES
        if n > 0 and n % 4 == 0:
            _finish(step.device)  # a training looks at its loss now and then
            if time.perf_counter() - began >= seconds:
                break
    batches.close()
    return (time.perf_counter() - began) / n


def ways_of(
    store: Path, workers: Workers | None, device: torch.device, options: Options, size: int
) -> tuple[dict[str, Rate], int]:
    """All timed ways for one store, the usual one of its source where it is given, and the bytes of a window."""
    dataset = WindowDataset(open_store(store), window())
    loader = partial(WindowLoader, dataset, min(options.batch_size, len(dataset)), drop_last=True)
    fields = dataset.windows.fields
    window_bytes = sum(field.window_bytes for field in fields)
    batch_bytes = window_bytes * min(options.batch_size, len(dataset))
    on_device, cached, step = (
        loader(device=device),
        loader(device=device, cache="device"),
        Step(device, size, options.step_ms / 1000),
    )
    one = {name: value.clone() for name, value in next(iter(on_device)).items() if isinstance(value, torch.Tensor)}
    seconds = options.seconds
    usual: dict[str, Rate] = {}
    if workers is not None:
        usual[H5PY] = partial(rate_of_workers, workers, window_bytes, device, seconds)
        usual[f"step with {H5PY}"] = partial(seconds_a_step, step, workers, seconds)
    return usual | {
        "decode": partial(rate_of_loader, loader(), window_bytes, seconds),
        "pinned copy": partial(rate_of_pinned_copy, batch_bytes, device, seconds),
        "loader": partial(rate_of_loader, on_device, window_bytes, seconds),
        "device memory": partial(rate_of_device_memory, batch_bytes, device, seconds),
        "cache": partial(rate_of_loader, cached, window_bytes, seconds),
        "step alone": partial(seconds_a_step, step, one, seconds),
        "step with loader": partial(seconds_a_step, step, on_device, seconds),
    }, window_bytes


def measure(ways: Mapping[str, Rate], rounds: int) -> dict[str, list[float]]:
    """Run every way once per round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in random.Random(number).sample(list(ways), len(ways)):
            found[name].append(ways[name]())
    return found


def summarise(found: Mapping[str, list[float]], window_bytes: int, batch_size: int) -> dict[str, float]:
    """Medians, and medians of each round's ratios."""
    rounds = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    result = {name: statistics.median(values) for name, values in found.items()}
    result["of limit"] = statistics.median(one["loader"] / min(one["decode"], one["pinned copy"]) for one in rounds)
    result["cache of memory"] = statistics.median(one["cache"] / one["device memory"] for one in rounds)
    result["slower"] = statistics.median(one["step with loader"] / one["step alone"] - 1 for one in rounds)
    if H5PY in found:
        result["to h5py"] = statistics.median(one["loader"] / one[H5PY] for one in rounds)
    result["batches a step"] = statistics.median(
        one["decode"] / (window_bytes * batch_size) * one["step alone"] for one in rounds
    )
    return result


def run(options: Options, device: torch.device, size: int = 8192) -> dict[str, Any]:
    """Run the whole benchmark."""
    results, n_windows = {}, 0
    with tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=options.scratch) as folder:
        for profile in PROFILES:
            store = Path(folder) / f"{profile}.zarr"
            convert(options.source, store, profile=profile, workers=0)
            n_windows = open_store(store).n_steps
            demos = Demos.of(open_store(store), find_sources([options.source]))
            workers = DataLoader(
                DemoWindows(demos), min(options.batch_size, n_windows), shuffle=True, drop_last=True,
                num_workers=default_threads(), persistent_workers=True, pin_memory=device.type == "cuda",
                multiprocessing_context="forkserver",
            ) if profile == "fast" else None  # fmt: skip
            ways, window_bytes = ways_of(store, workers, device, options, size)
            found = measure(ways, options.rounds)
            results[profile] = summarise(found, window_bytes, min(options.batch_size, n_windows))
            del ways
            print(f"{profile} done", file=sys.stderr, flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU: what follows says nothing"
    header = {
        "device": name,
        "n_windows": n_windows,
        "window_bytes": window_bytes,
        "threads": default_threads(),
        "rounds": options.rounds,
        "batch_size": min(options.batch_size, n_windows),
    }
    return {"header": header | machine(PACKAGES), "profiles": results}


def format_result(result: Mapping[str, Any]) -> str:
    """Header, table and targets."""
    header = result["header"]
    top = [
        f"{header['n_windows']:,} windows, batches of {header['batch_size']}; {header['rounds']} round(s), interleaved, warm",
        *machine_lines(header, header["device"]),
    ]
    titles = ("", "decode GB/s", "pinned copy", "loader", "÷ limit", "cache GB/s", "÷ device memory", "step ms", "with loader")
    lines: list[tuple[str, ...]] = [titles]
    for profile, one in result["profiles"].items():
        rates = [figure(one[name] / 1e9, 2) for name in ("decode", "pinned copy", "loader")]
        cache = [figure(one["cache"] / 1e9, 1), figure(one["cache of memory"], 3)]
        steps = [figure(1e3 * one[name], 2) for name in ("step alone", "step with loader")]
        lines.append((profile, *rates, figure(one["of limit"], 3), *cache, *steps))
    n_bytes = header["window_bytes"]
    notes = [
        f"{profile}: {one['loader'] / n_bytes:,.0f} windows/s on the device; a DataLoader of {header['threads']} workers over "
        f"h5py, files kept open, pinned: {one[H5PY] / n_bytes:,.0f}, {one['to h5py']:.1f} times fewer, "
        f"and a step of {1e3 * one['step alone']:.1f} ms takes {1e3 * one[f'step with {H5PY}']:.1f} ms with it"
        for profile, one in result["profiles"].items()
        if H5PY in one
    ]
    notes += [
        f"{profile}: {one['of limit']:.1%} of the smaller of decoding and copying (aim: {AIM_OF_LIMIT:.0%}); a step is "
        f"{one['slower']:+.1%} slower with the loader (aim: {AIM_SLOWER:.0%}), which decodes "
        f"{one['batches a step']:.1f} batches in one"
        for profile, one in result["profiles"].items()
    ]
    return "\n\n".join(["\n".join(top), align(lines), "\n".join(notes)])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", default=default_source(), help="folder of HDF5 files")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--batch-size", type=int, default=64, help="windows in a batch")
    parser.add_argument("--step-ms", type=float, default=20.0, help="milliseconds of the matrix products after each batch")
    parser.add_argument("--scratch", type=Path, help="folder for the stores (default: the system's for temporary files)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--on-cpu", action="store_true", help="run every part without a GPU, to see that it runs")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.on_cpu:
        parser.exit(1, f"torch {torch.__version__} sees no CUDA device: install a build with CUDA, look at nvidia-smi\n")
    options = Options(
        source=arguments.source, rounds=arguments.rounds, seconds=arguments.seconds, batch_size=arguments.batch_size,
        step_ms=arguments.step_ms, scratch=arguments.scratch,
    )  # fmt: skip
    on_cpu = arguments.on_cpu
    result = run(options, torch.device("cpu" if on_cpu else f"cuda:{torch.cuda.current_device()}"), 256 if on_cpu else 8192)
    print(format_result(result))
    write_json(result, arguments.json)


if __name__ == "__main__":
    main()

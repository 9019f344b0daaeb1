"""Measure loading from a bucket that answers after 20 ms: one request at a time, and 1 to 16 batches in flight.

    python benchmarks/remote/bench_remote.py [--steps 100000] [--latency-ms 20] [--rounds 3] [--json FILE]

The bucket is a folder behind `bucket_server`, a process of its own on the same machine, so that both share its cores. The store
is made up (`scale_store`, profile raw, pictures that are noise): 2 frames of 2 cameras, 3 state keys, 64 actions a window, in
batches of 64. Rows are timed in turn, once a round, each with a store that was opened anew, from the first request on; numbers
are medians. Each row's first batches are compared with the local store's, after the timing of the first round.

"One request at a time" is the same loader, allowed one request for one range. "Random" is the order of a local store,
"default" that of a bucket (`locality`). Its indexes are there before the clock starts; the other rows fetch them on the way.
Below the table: whole epochs by way of a ``cache_dir``, and of the local store in the same order, in turn: the first ones of a
run, which opens everything, and the next ones.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import torch
from common import align, figure, file_system, machine, machine_lines, write_json

from robozarr.loader.dataset import WindowDataset
from robozarr.loader.frames import read
from robozarr.loader.frames.remote import BucketReader
from robozarr.loader.frames.requests import Requests
from robozarr.loader.schedule import REMOTE_LOCALITY
from robozarr.loader.stream import WindowLoader
from robozarr.store.opened import Store, open_store
from scale_store import window, write_scale_store

PACKAGES: Final = ("robozarr", "numpy", "torch", "numba", "obstore", "zarr")
BATCH: Final = 64
IN_FLIGHT: Final = (1, 2, 4, 8, 16)
CHECKED: Final = 3
"""Number of batches that are compared in each row."""
AIM: Final = 20.0
ONE: Final = "one request at a time"
LOCAL: Final = "local store"
INTO: Final = "into cache_dir"
OUT_OF: Final = "out of cache_dir"

Timing = dict[str, float]


class Bucket:
    """A folder served as a bucket, with a delay."""

    def __init__(self, folder: Path, latency_ms: float) -> None:
        command = [
            sys.executable,
            str(Path(__file__).with_name("bucket_server.py")),
            str(folder),
            "--latency-ms",
            str(latency_ms),
        ]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def open(self, name: str, cache_dir: Path | None = None) -> Store:
        """Open the folder's store over HTTP."""
        return open_store(f"s3://bucket/{name}", self.endpoint, cache_dir=cache_dir)

    @property
    def n_requests(self) -> int:
        """Number of object requests so far."""
        with urllib.request.urlopen(f"{self.endpoint}/_requests") as answer:
            return int(answer.read())

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def load(loader: WindowLoader, n_batches: int | None, bucket: Bucket) -> Timing:
    """Time the first batches of an epoch."""
    gc.collect()
    asked, n, first, began, cpu = bucket.n_requests, 0, 0.0, time.perf_counter(), time.process_time()
    batches = iter(loader)
    for number, batch in enumerate(batches, 1):
        n += len(batch["step"])
        first = first or time.perf_counter() - began
        if number == n_batches:
            break
    result = {
        "windows_per_s": n / (time.perf_counter() - began),
        "first_batch_s": first,
        "cpu_us": 1e6 * (time.process_time() - cpu) / n,
        "requests_per_window": (bucket.n_requests - asked) / n,
    }
    batches.close()  # type: ignore[attr-defined]
    return result


def check(loader: WindowLoader, expected: WindowLoader, name: str) -> None:
    """Compare the first batches with those of the local store; raises an error if anything differs."""
    for number, batch, other in zip(range(CHECKED), loader, expected, strict=False):
        for field, values in other.items():
            same = torch.equal(batch[field], values) if isinstance(values, torch.Tensor) else batch[field] == values
            if not same:
                raise RuntimeError(f"{name}: {field} of batch {number} has other values than the local store's")


def make_loader(store: Store, **options: Any) -> WindowLoader:
    """Make a loader of the benchmark's window."""
    return WindowLoader(WindowDataset(store, window()), BATCH, seed=1, **options)


def with_indexes(loader: WindowLoader) -> None:
    """Load the index of every shard, many at a time."""
    for reader in loader._readers[0].reader._readers.values():
        if isinstance(reader, BucketReader):
            list(ThreadPoolExecutor(32).map(reader._load_index, range(len(reader._shards.loaded))))


def rows_of(bucket: Bucket, name: str, local: Path) -> dict[str, tuple[Callable[[], WindowLoader], int]]:
    """By name: a function that makes a loader, and how many times slower than the others it may be."""
    rows: dict[str, tuple[Callable[[], WindowLoader], int]] = {}

    def one() -> WindowLoader:
        with patch.object(read, "Requests", partial(Requests, n_calls=1, ranges_per_call=1)):
            loader = make_loader(bucket.open(name), locality=False, prefetch=1, threads=1)
        with_indexes(loader)
        return loader

    rows[ONE] = one, 32
    for order, locality in (("random", False), ("default", REMOTE_LOCALITY)):
        for n in IN_FLIGHT:
            made = partial(lambda n, locality: make_loader(bucket.open(name), locality=locality, prefetch=n), n, locality)
            rows[f"{n} in flight, {order}"] = made, 1
        rows[f"{LOCAL}, {order}"] = partial(lambda locality: make_loader(open_store(local), locality=locality), locality), 1
    return rows


def measure(bucket: Bucket, local: Path, rounds: int, n_batches: int) -> dict[str, list[Timing]]:
    """Time every row once per round."""
    rows = rows_of(bucket, local.name, local)
    timings: dict[str, list[Timing]] = {name: [] for name in rows}
    for number in range(rounds):
        for name, (made, slower) in rows.items():
            timings[name].append(load(made(), max(1, n_batches // slower), bucket))
            if number == 0:
                order = REMOTE_LOCALITY if name.endswith("default") else False
                check(made(), make_loader(open_store(local), locality=order), name)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return timings


def measure_cache(bucket: Bucket, local: Path, cache: Path, rounds: int) -> dict[str, list[Timing]]:
    """Whole epochs in one order: filling the cache, from the cache, and from the local store."""
    timings: dict[str, list[Timing]] = {INTO: [load(make_loader(bucket.open(local.name, cache)), None, bucket)]}
    ways: dict[str, Callable[[], WindowLoader]] = {
        OUT_OF: lambda: make_loader(bucket.open(local.name, cache)),
        LOCAL: lambda: make_loader(open_store(local), locality=REMOTE_LOCALITY),
    }
    load(ways[LOCAL](), None, bucket)  # into the page cache
    for _ in range(rounds):
        loaders = {name: made() for name, made in ways.items()}
        for which in ("first of a run", "second", "third"):
            for name, loader in loaders.items():
                key = f"{name}, {'first of a run' if which == 'first of a run' else 'next ones'}"
                timings.setdefault(key, []).append(load(loader, None, bucket))
    check(ways[OUT_OF](), ways[LOCAL](), OUT_OF)
    return timings


def summarised(timings: Mapping[str, list[Timing]]) -> dict[str, Timing]:
    """Medians, and the range of the rates."""
    result: dict[str, Timing] = {}
    for name, runs in timings.items():
        result[name] = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
        rates = [run["windows_per_s"] for run in runs]
        result[name] |= {"windows_per_s_min": min(rates), "windows_per_s_max": max(rates)}
    return result


def run(
    steps: int, cached_steps: int, *, latency_ms: float, rounds: int, n_batches: int, scratch: Path | None
) -> dict[str, Any]:
    """Run the whole benchmark."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory(prefix="bench-remote-", dir=scratch) as text:
        folder = Path(text)
        for name, n in (("large.zarr", steps), ("small.zarr", cached_steps)):
            write_scale_store(folder / "bucket" / name, n)
        bucket = Bucket(folder / "bucket", latency_ms)
        try:
            timings = measure(bucket, folder / "bucket" / "large.zarr", rounds, n_batches)
            cached = measure_cache(bucket, folder / "bucket" / "small.zarr", folder / "cache", rounds)
        finally:
            bucket.close()
        header = {"latency_ms": latency_ms, "steps": steps, "cached_steps": cached_steps, "file_system": file_system(folder)}
    rows = summarised(timings)
    for row in rows.values():
        row["to_one"] = row["windows_per_s"] / rows[ONE]["windows_per_s"]
    return {"header": {**header, **machine(PACKAGES)}, "rows": rows, "cache": summarised(cached)}


def table(rows: Mapping[str, Timing], more: Sequence[tuple[str, str, int]] = ()) -> str:
    """Format rows as text."""
    columns = [("windows/s", "windows_per_s", 0), ("min", "windows_per_s_min", 0), ("max", "windows_per_s_max", 0), *more]
    columns += [
        ("first batch s", "first_batch_s", 2),
        ("CPU-µs/window", "cpu_us", 0),
        ("requests/window", "requests_per_window", 3),
    ]
    lines = [("", *(title for title, _, _ in columns))]
    lines += [(name, *(figure(row[what], digits) for _, what, digits in columns)) for name, row in rows.items()]
    return align(lines)


def format_result(result: Mapping[str, Any]) -> str:
    """Header, tables, and a summary."""
    header, rows, cache = result["header"], result["rows"], result["cache"]
    eight = {order: rows[f"8 in flight, {order}"]["to_one"] for order in ("random", "default")}
    rates = [cache[f"{way}, next ones"]["windows_per_s"] for way in (OUT_OF, LOCAL)]
    said = (
        f"a bucket on loopback, {header['latency_ms']:g} ms late; files on {header['file_system'] or 'an unknown file system'}"
    )
    return "\n\n".join(
        [
            "\n".join([f"{header['steps']:,} steps, batches of {BATCH}", *machine_lines(header, said)]),
            table(rows, [("× one at a time", "to_one", 1)]),
            f"8 in flight, {eight['random']:.0f}× (random) and {eight['default']:.0f}× (default) one request at a time; "
            f"the aim is {AIM:g}×",
            f"whole epochs of {header['cached_steps']:,} windows, default order:",
            table(cache),
            f"second and third epochs out of cache_dir: {100 * rates[0] / rates[1]:.0f}% of the local store's windows/s",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000, help="of the store that is not cached")
    parser.add_argument("--cached-steps", type=int, default=16_384, help="of the store that is; each takes 98 KB of the disk")
    parser.add_argument("--latency-ms", type=float, default=20.0, help="from a request to its answer")
    parser.add_argument("--batches", type=int, default=128, help="that each row reads in a round")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is timed")
    parser.add_argument("--scratch", type=Path, help="folder for stores and cache (default: the system's for temporary files)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    if min(options.steps, options.cached_steps, options.batches, options.rounds) < 1:
        parser.error("--steps, --cached-steps, --batches and --rounds are 1 or more")
    result = run(
        options.steps,
        options.cached_steps,
        latency_ms=options.latency_ms,
        rounds=options.rounds,
        n_batches=options.batches,
        scratch=options.scratch,
    )
    print(format_result(result))
    write_json(result, options.json)


if __name__ == "__main__":
    main()

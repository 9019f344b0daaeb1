"""Measure how loading scales from 10^3 to 10^7 windows: opening, memory, time per window.

    python benchmarks/load/bench_scale.py [--windows 1000 10000 ...] [--picture 128 128 3] [--profile raw] [--json FILE]

Stores are made up (`scale_store`): whole shards are links to one, so they take little room and their frames are always in
memory. Each size is opened by two processes, one after the other; the second one's numbers are printed. Its imports are
timed apart. "First touch" is the opening of every shard, once; time a window is measured behind it, in batches of 64 at
random, by one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from common import align, figure, file_system, machine, machine_lines, write_json

PACKAGES: Final = ("robozarr", "numpy", "torch", "numba", "blosc2", "zarr")
BATCH: Final = 64
WINDOWS: Final = (10**3, 10**4, 10**5, 10**6, 10**7)


def rss_mb() -> dict[str, float]:
    """Memory of this process in MB: its own, and shared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {"own": int(found["RssAnon"].split()[0]) / 1e3, "shared": int(found["RssShmem"].split()[0]) / 1e3}


def child(store: str, seconds: float) -> dict[str, float]:
    """Open one store and read from it; times in seconds, memory in MB."""
    began = time.perf_counter()
    import numpy as np

    from robozarr.loader.dataset import WindowDataset
    from robozarr.loader.stream import WindowLoader
    from robozarr.store.opened import open_store
    from scale_store import window

    result = {"imports_s": time.perf_counter() - began}
    before = rss_mb()
    began = time.perf_counter()
    opened = open_store(store)
    result["open_s"] = time.perf_counter() - began
    dataset = WindowDataset(opened, window())
    result["dataset_s"] = time.perf_counter() - began
    loader = WindowLoader(dataset, BATCH, threads=1)
    next(iter(loader))
    result["first_batch_s"] = time.perf_counter() - began
    after = rss_mb()
    result |= {f"{name}_mb": after[name] - before[name] for name in after}

    rows = np.unique(np.concatenate([np.arange(0, len(dataset), 512), [len(dataset) - 1]]))
    began = time.perf_counter()
    for at in range(0, len(rows), 4 * BATCH):
        dataset.read(rows[at : at + 4 * BATCH])
    result["first_touch_s"] = time.perf_counter() - began

    loader.set_epoch(1)
    n, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        for batch in loader:
            n += len(batch["step"])
            if time.perf_counter() - wall >= seconds:
                break
    result["window_us"] = 1e6 * (time.perf_counter() - wall) / n
    result["window_cpu_us"] = 1e6 * (time.process_time() - cpu) / n
    everything = rss_mb()
    return result | {f"all_{name}_mb": everything[name] - before[name] for name in after}


def measure(store: Path, seconds: float) -> dict[str, float]:
    """Run two processes and return the result of the second."""
    for _ in range(2):
        command = [sys.executable, __file__, "--child", str(store), "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def run(
    windows: Sequence[int], *, picture: tuple[int, int, int], profile: Any, seconds: float, scratch: Path | None
) -> dict[str, Any]:
    """Run the whole benchmark."""
    from scale_store import write_scale_store

    results: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-scale-", dir=scratch) as folder:
        for n in windows:
            store = Path(folder) / f"{n}.zarr"
            write_scale_store(store, n, picture=picture, profile=profile)
            results[n] = measure(store, seconds)
            print(f"{n:,} windows done", file=sys.stderr, flush=True)
        where = file_system(Path(folder))
    header = {"picture": list(picture), "profile": profile, "file_system": where, **machine(PACKAGES)}
    return {"header": header, "sizes": results}


def format_result(result: Mapping[str, Any]) -> str:
    """Header, table, and the cost of one step."""
    header, sizes = result["header"], result["sizes"]
    titles = ("windows", "open ms", "+ dataset ms", "+ first batch ms", "own MB", "shared MB", "first touch s")
    lines: list[tuple[str, ...]] = [(*titles, "µs/window", "CPU-µs/window")]
    for n, one in sizes.items():
        times = [figure(1e3 * one[name], 0) for name in ("open_s", "dataset_s", "first_batch_s")]
        memory = [figure(one[name], 0) for name in ("all_own_mb", "all_shared_mb")]
        rates = [figure(one[name], 1) for name in ("window_us", "window_cpu_us")]
        lines.append((f"{n:,}", *times, *memory, figure(one["first_touch_s"], 2), *rates))
    small, large = min(sizes), max(sizes)
    growth = {
        name: 1e6 * (sizes[large][name] - sizes[small][name]) / (large - small) for name in ("all_own_mb", "all_shared_mb")
    }
    cpu = [one["window_cpu_us"] for one in sizes.values()]
    return "\n\n".join(
        [
            "\n".join(
                [
                    f"pictures {header['picture']}, profile {header['profile']}, in batches of {BATCH}",
                    *machine_lines(header, f"stores on {header['file_system'] or 'an unknown file system'}"),
                ]
            ),
            align(lines),
            f"a step takes {growth['all_own_mb']:.0f} bytes of a process's own memory and {growth['all_shared_mb']:.0f} shared "
            f"(of which 176 are the values of the window's low-dim keys); from {small:,} to {large:,} windows the CPU "
            f"time of one lies between {min(cpu):.1f} and {max(cpu):.1f} µs",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, nargs="+", default=list(WINDOWS), help="sizes of the stores")
    parser.add_argument("--picture", type=int, nargs=3, default=[128, 128, 3], help="shape of a picture")
    parser.add_argument("--profile", choices=("raw", "fast", "compact"), default="raw", help="codec of the pictures")
    parser.add_argument("--seconds", type=float, default=3.0, help="of reading, for each size")
    parser.add_argument("--scratch", type=Path, help="folder for the stores (default: the system's for temporary files)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.seconds)))
        return
    if min(options.windows) < 1:
        parser.error("--windows are 1 or more")
    result = run(
        options.windows,
        picture=tuple(options.picture),
        profile=options.profile,
        seconds=options.seconds,
        scratch=options.scratch,
    )
    print(format_result(result))
    write_json(result, options.json)


if __name__ == "__main__":
    main()

"""Compare loading speed in one run: HDF5 readers, zarr-python, TensorStore, DataLoader, robozarr, and the limit.

    python benchmarks/load/bench_load.py [SOURCE] [--rounds 5] [--epochs 4] [--json FILE]

The same windows in the same order for every row: 2 frames of 2 cameras, 3 state keys, 64 actions, masks, in batches of 64.
All rows are timed in every round, in another order each, with every file in the page cache; numbers are medians over the
rounds, ratios are medians of each round's ratio. CPU time is that of the process, all its threads, and its workers. Every
batch of an epoch is compared with a naive reading of the HDF5, values and masks, after the timing of the first round.

Below the table: what of a WindowLoader's CPU time is Python's; what keyframes save and cost, beside the aims; and the same
windows with a cold page cache.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from common import (
    align,
    default_source,
    drop_from_cache,
    figure,
    file_system,
    machine,
    machine_lines,
    read_once,
    write_json,
)

if TYPE_CHECKING:
    from load_task import Contender, Demos, Task

    from robozarr.schemas.layout import Profile

PACKAGES: Final = ("robozarr", "numpy", "torch", "numba", "blosc2", "google-crc32c", "h5py", "zarr", "tensorstore")
BATCH: Final = 64
SLOW_BATCHES: Final = 3
"""Batches per round for a slow row."""
AIMS: Final = {"raw": 50.0, "fast": 125.0, "lean": 125.0, "compact": 300.0}
"""CPU-µs of a window, with checksums checked."""
AIMS_TO: Final = (("raw", "MEMMAP", 1.6), ("lean", "fast", 1.0), ("compact", "BEFORE", 1.0))
"""CPU time of a profile, as a multiple of another row's, at most."""
AIMS_SIZE: Final = {"lean": 2.3, "compact": 4.2}
"""How many times smaller a store's cameras are than its source's."""
AIM_SINGLE: Final = 1.25
AIM_TO_ZARR: Final = 20.0
AIM_PYTHON: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One run of one contender."""

    n_windows: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the result; None where a number would be meaningless."""

    name: str
    role: str
    profile: str | None
    threads: int | None
    cpu_us: float
    """Median CPU-µs per window."""
    cpu_us_min: float
    cpu_us_max: float
    windows_per_s: float
    """Median."""
    windows_per_s_min: float
    windows_per_s_max: float
    zarr_to_this: float
    """CPU time of zarr-python's slices (same profile, or fast without one) divided by this row's CPU time."""
    to_limit: float
    """CPU time divided by that of the limit with as many threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold:
    """One way to read frames that are in no page cache."""

    name: str
    windows_per_s: float
    windows_per_s_min: float
    windows_per_s_max: float


def cpu_seconds() -> float:
    """CPU time so far of this process and its live workers, all threads."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        for thread in Path(f"/proc/{child.pid}/task").glob("*/schedstat"):
            total += int(thread.read_text().split()[0]) / 1e9
    return total


def time_once(contender: Contender, tasks: Sequence[Task]) -> Timing:
    """Read all batches of some tasks and discard them."""
    gc.collect()
    cpu, wall, n = cpu_seconds(), time.perf_counter(), 0
    for task in tasks:
        for batch in contender.read(task):
            n += len(batch["actions"])
    return Timing(n_windows=n, wall_s=time.perf_counter() - wall, cpu_s=cpu_seconds() - cpu)


def tasks_of(contender: Contender, n_windows: int, first: int, epochs: int) -> list[Task]:
    """The tasks that a row reads in a round: epochs from the first on; a slow row a few batches, another tool one epoch."""
    from load_task import Task

    from robozarr.loader.windows.order import Order

    order, tasks = Order(n_windows=n_windows), []
    for epoch in range(first, first + (epochs if contender.role in ("robozarr", "limit") else 1)):
        windows = order.windows(range(n_windows), epoch)
        batches = [windows[at : at + BATCH] for at in range(0, n_windows, BATCH)]
        tasks.append(Task(epoch=epoch, batches=batches[:SLOW_BATCHES] if contender.slow else batches))
    return tasks


def check(contender: Contender, demos: Demos, task: Task) -> None:
    """Compare every batch of a task with a naive read of the HDF5 files; raises an error if anything differs."""
    import numpy as np
    from load_contenders import naive

    n = 0
    for windows, batch in zip(task.batches, contender.read(task), strict=True):
        for name, values in naive(demos, windows).items():
            got = np.asarray(batch[name])
            if got.dtype != values.dtype or got.shape != values.shape or got.tobytes() != values.tobytes():
                raise RuntimeError(f"{contender.name}: {name} of batch {n} has other values than the source")
        n += 1


def measure(rows: Sequence[Contender], demos: Demos, files: Sequence[Path], options: Options) -> dict[str, list[Timing]]:
    """Time every row once per round."""
    n_windows = int(demos.stop[-1])
    timings: dict[str, list[Timing]] = {row.name: [] for row in rows}
    for row in rows:  # compiled, opened, workers up, buffers there
        time_once(row, tasks_of(row, n_windows, 0, 1))
    for number in range(options.rounds):
        read_once(files)
        for row in random.Random(number).sample(rows, len(rows)):
            tasks = tasks_of(row, n_windows, number * options.epochs, options.epochs)
            timings[row.name].append(time_once(row, tasks))
            if number == 0:
                check(row, demos, tasks[0])
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    return timings


def make_rows(contenders: Sequence[Contender], timings: Mapping[str, Sequence[Timing]]) -> list[Row]:
    """Reduce the timings to rows."""
    cpu = {name: [1e6 * run.cpu_s / run.n_windows for run in runs] for name, runs in timings.items()}
    rate = {name: [run.n_windows / run.wall_s for run in runs] for name, runs in timings.items()}

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(cpu[one], cpu[other], strict=True))

    rows = []
    for contender in contenders:
        name, threads = contender.name, contender.threads
        limit = next(row.name for row in contenders if row.role == "limit" and row.threads == (threads or 1))
        rows.append(
            Row(
                name=name, role=contender.role, profile=contender.profile, threads=threads,
                cpu_us=statistics.median(cpu[name]), cpu_us_min=min(cpu[name]), cpu_us_max=max(cpu[name]),
                windows_per_s=statistics.median(rate[name]), windows_per_s_min=min(rate[name]),
                windows_per_s_max=max(rate[name]),
                zarr_to_this=ratio(f"zarr-python slices {'raw' if contender.profile == 'raw' else 'fast'}", name),
                to_limit=ratio(name, limit),
            )
        )  # fmt: skip
    return rows


def time_cold(ways: Mapping[str, tuple[Callable[[], int], Sequence[Path]]], rounds: int, *, drop: bool = True) -> list[Cold]:
    """Time several ways to read with their files out of the page cache, interleaved over the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in random.Random(number).sample(list(ways), len(ways)):
            read, files = ways[name]
            if drop:
                drop_from_cache(files)
            wall = time.perf_counter()
            n = read()
            rates[name].append(n / (time.perf_counter() - wall))
    return [
        Cold(name=name, windows_per_s=statistics.median(rate), windows_per_s_min=min(rate), windows_per_s_max=max(rate))
        for name, rate in rates.items()
    ]


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines: list[tuple[str, ...]] = [("", "CPU-µs/window", "min–max", "windows/s", "min–max", "zarr ÷ this", "÷ limit")]
    lines += [
        (
            row.name, figure(row.cpu_us, 0), f"{row.cpu_us_min:,.0f}–{row.cpu_us_max:,.0f}", figure(row.windows_per_s, 0),
            f"{row.windows_per_s_min:,.0f}–{row.windows_per_s_max:,.0f}", figure(row.zarr_to_this, 1), figure(row.to_limit, 2),
        )
        for row in rows
    ]  # fmt: skip
    return align(lines)


def ratios(timings: Mapping[str, Sequence[Timing]]) -> dict[str, float]:
    """CPU time of profiles as a multiple of what `AIMS_TO` names, 1 thread: medians of each round's ratio."""
    import load_contenders

    def name_of(which: str) -> str:
        if which == "MEMMAP":
            return load_contenders.MEMMAP
        return f"WindowLoader {load_contenders.BEFORE if which == 'BEFORE' else which}, 1 thread"

    found = {}
    for one, other, _ in AIMS_TO:
        runs = zip(timings[name_of(one)], timings[name_of(other)], strict=True)
        found[one] = statistics.median(a.cpu_s / a.n_windows / (b.cpu_s / b.n_windows) for a, b in runs)
    return found


def format_keyframes(result: Mapping[str, Any]) -> str:
    """What keyframes save and cost, beside the aims."""
    sizes, lines = result["header"]["camera_bytes"], []
    for profile, aim in AIMS_SIZE.items():
        lines.append(f"{profile}: cameras {sizes['source'] / sizes[profile]:.2f} times smaller than in the source (aim: {aim})")
    words = {"MEMMAP": "memmapped HDF5", "fast": "fast", "BEFORE": "what compact was (Blosc-zstd, a frame a chunk)"}
    for profile, other, most in AIMS_TO:
        lines.append(f"{profile}: {result['ratios'][profile]:.2f} times the CPU time of {words[other]} (aim: at most {most})")
    for row in result["single"]:
        aim_of = f" (aim: at most {AIM_SINGLE})" if row.name == "lean" else ""
        lines.append(f"single frames, {row.name}: {row.cpu_us:.1f} CPU-µs a frame, {row.to_fast:.2f} times fast{aim_of}")
    return "\n".join(lines)


def format_notes(rows: Sequence[Row], python: Mapping[str, float]) -> str:
    """The targets, and the cases where HDF5 is faster."""
    own = {row.profile: row for row in rows if row.role == "robozarr" and row.threads == 1 and row.profile}
    lines = [
        f"{profile}: {own[profile].cpu_us:.0f} CPU-µs a window (aim: at most {aim:.0f}), {own[profile].zarr_to_this:.0f} times "
        f"cheaper than zarr-python (aim: {AIM_TO_ZARR:.0f}), Python's share {python[profile]:.1%} (aim: below {AIM_PYTHON:.0%})"
        for profile, aim in AIMS.items()
    ]
    peers = [row for row in rows if row.role in ("seed", "h5py")]
    for profile, row in own.items():
        better = [peer for peer in peers if peer.cpu_us < row.cpu_us]
        said = ", ".join(f"{peer.name} ({row.cpu_us / peer.cpu_us:.1f} times less CPU)" for peer in better)
        lines.append(f"HDF5 against {profile}, 1 thread: {'wins by ' + said if said else 'no reader of HDF5 is cheaper'}")
    return "\n".join(lines)


def format_cold(cold: Sequence[Cold]) -> str:
    """The cold rows as aligned text."""
    lines: list[tuple[str, ...]] = [("cold page cache", "windows/s", "min–max")]
    lines += [
        (row.name, figure(row.windows_per_s, 0), f"{row.windows_per_s_min:,.0f}–{row.windows_per_s_max:,.0f}") for row in cold
    ]
    return align(lines)


def format_header(header: Mapping[str, Any]) -> str:
    """The lines above the table."""
    stores = ", ".join(f"{profile} {n / 1e6:.0f} MB" for profile, n in header["store_bytes"].items())
    return "\n".join(
        [
            f"source: {header['source']}, {header['source_files']} files, {header['source_bytes'] / 1e6:.0f} MB",
            f"stores: {stores}",
            f"{header['n_windows']:,} windows, batches of {BATCH}; {header['rounds']} round(s) of {header['epochs']} epoch(s), "
            f"interleaved; page cache {header['page_cache']}",
            *machine_lines(header, f"files on {header['file_system'] or 'an unknown file system'}"),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of a run."""

    source: Path
    rounds: int = 5
    epochs: int = 4
    scratch: Path | None = None


def files_below(folder: Path) -> list[Path]:
    """Every file of a store."""
    return [path for path in folder.rglob("*") if path.is_file()]


def run(options: Options) -> dict[str, Any]:
    """Run the whole benchmark; returns header, rows, Python's shares and cold rows."""
    from load_contenders import BEFORE, contenders
    from load_parts import cold_ways, python_share, single_frames
    from load_task import Demos

    from robozarr.convert import convert
    from robozarr.convert.sources.hdf5 import find_sources
    from robozarr.schemas.layout import FRAME_CODECS, PROFILES
    from robozarr.store.opened import open_store

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-load-", dir=options.scratch)))
        sources = find_sources([options.source])
        stores = {profile: folder / f"{profile}.zarr" for profile in PROFILES}
        for profile, store in stores.items():
            convert(sources, store, profile=profile, workers=0)
        before = folder / "before.zarr"
        with mock.patch.dict(FRAME_CODECS, clear=True):  # as compact was before it had keyframes
            convert(sources, before, profile="compact", workers=0)
        demos = Demos.of(open_store(stores["raw"]), sources)
        competing = list(contenders(demos, stores, before, BATCH))
        for contender in competing:
            stack.callback(contender.close)
        of_stores = {profile: files_below(store) for profile, store in stores.items()}
        warm = [*sources, *files_below(before), *(file for files in of_stores.values() for file in files)]
        timings = measure(competing, demos, warm, options)
        python = {profile: python_share(store, BATCH, options.epochs) for profile, store in stores.items()}
        single = single_frames({**{str(name): path for name, path in stores.items()}, BEFORE: before}, options.rounds)
        cold = time_cold(cold_ways(competing, demos, stores, sources, BATCH), options.rounds)
        header = {
            "source": options.source.resolve().name,
            "source_files": len(sources),
            "source_bytes": sum(file.stat().st_size for file in sources),
            "store_bytes": {profile: sum(file.stat().st_size for file in files) for profile, files in of_stores.items()},
            "camera_bytes": camera_bytes(stores),
            "n_windows": int(demos.stop[-1]),
            "rounds": options.rounds,
            "epochs": options.epochs,
            "page_cache": "warm: every file is read before every round",
            "file_system": file_system(folder),
            **machine(PACKAGES),
        }
    return {
        "header": header, "rows": make_rows(competing, timings), "python_share": python, "cold": cold, "single": single,
        "ratios": ratios(timings),
    }  # fmt: skip


def camera_bytes(stores: Mapping[Profile, Path]) -> dict[str, int]:
    """Bytes of the cameras' frames: in the source, and in each store."""
    from load_task import CAMERAS

    from robozarr.store.opened import open_store

    keys = open_store(stores["raw"]).keys
    n_steps = open_store(stores["raw"]).n_steps
    found = {"source": sum(n_steps * prod(keys[name].shape) for name in CAMERAS)}
    for profile, store in stores.items():
        found[profile] = sum(file.stat().st_size for name in CAMERAS for file in files_below(store / "steps" / name))
    return found


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "source", type=Path, nargs="?", default=default_source(),
        help="folder of HDF5 files (default: ../shared/data, or sample)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="times that every row is measured")
    parser.add_argument("--epochs", type=int, default=4, help="epochs that robozarr and the limit read in a round; peers: 1")
    parser.add_argument("--scratch", type=Path, help="folder for the stores (default: the system's for temporary files)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.epochs < 1:
        parser.error("--rounds and --epochs are 1 or more")
    options = Options(source=arguments.source, rounds=arguments.rounds, epochs=arguments.epochs, scratch=arguments.scratch)
    result = run(options)
    print(
        format_header(result["header"]), format_table(result["rows"]), format_notes(result["rows"], result["python_share"]),
        format_keyframes(result), format_cold(result["cold"]), sep="\n\n",
    )  # fmt: skip
    rows = {name: [asdict(row) for row in result[name]] for name in ("rows", "cold", "single")}
    write_json(result | rows, arguments.json)


if __name__ == "__main__":
    main()

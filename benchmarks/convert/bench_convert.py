"""Compare conversion speed in one run: cp, h5py, zarr-python, robozarr by profile and workers, and the bare encoding loop.

    python benchmarks/convert/bench_convert.py [SOURCE] [--rounds 3] [--size-mb N] [--json FILE]

All rows are timed in every round, in another order each, with the source in the page cache; numbers are medians over the
rounds, ratios are medians of each round's ratio. What a row wrote in the first round is checked after its timing.
"Net of start-up" is the same run from the moment the workers are up to the last statistics; it still holds the workers'
import of robozarr. The bare loop is the limit: frames already in memory, encoded and written, nothing else.

Dask's workers import this file when they start, so it imports nothing but the standard library at its top.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common import align, default_source, figure, file_system, machine, machine_lines, read_once, write_json

if TYPE_CHECKING:
    from contenders import Contender

PACKAGES: Final = ("robozarr", "numpy", "h5py", "numcodecs", "google-crc32c", "zarr", "dask", "distributed")
NET: Final = ", net of start-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One run of one contender."""

    wall_s: float
    cpu_s: float
    """User and system time of this process and of the child processes that ended with the run."""
    work_s: float | None
    """Seconds from the first scan task (workers already running) to the last statistics; None for all but robozarr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the result; None where a number would be meaningless."""

    name: str
    role: str
    profile: str | None
    workers: int | None
    mb_per_s: float
    """Median, in MB (10^6 bytes) of source; of frames for the bare loops."""
    mb_per_s_min: float
    mb_per_s_max: float
    to_cp: float
    """Its speed divided by cp's."""
    to_cp_fsync: float
    to_bare: float | None
    """Its speed divided by the speed of its profile's bare loop, without fsync."""
    """None for rows without a profile."""
    cpu_s_per_mb: float | None
    """None for rows without start-up time: the CPU time of workers is only known when they end."""


def cpu_seconds() -> float:
    """User and system time used so far by this process and its ended children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def time_once(contender: Contender, scratch: Path, check: bool) -> Timing:
    """Run a contender in a fresh folder, check the result if asked to, and remove it."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    try:
        gc.collect()
        os.sync()  # what others wrote before is not written back at this row's cost
        cpu, wall = cpu_seconds(), time.perf_counter()
        work_s = contender.run(out)
        wall_s, cpu_s = time.perf_counter() - wall, cpu_seconds() - cpu
        if check:
            contender.check(out)
    finally:
        shutil.rmtree(out)
    return Timing(wall_s=wall_s, cpu_s=cpu_s, work_s=work_s)


def measure(rows: Sequence[Contender], files: Sequence[Path], scratch: Path, rounds: int) -> dict[str, list[Timing]]:
    """Time every row once per round."""
    next(row for row in rows if row.role == "start-up").run(scratch)  # this process imports Dask once, outside timing
    timings: dict[str, list[Timing]] = {row.name: [] for row in rows}
    for number in range(rounds):
        read_once(files)
        for row in random.Random(number).sample(rows, len(rows)):
            timings[row.name].append(time_once(row, scratch, check=number == 0))
        print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return timings


def make_rows(contenders: Sequence[Contender], timings: Mapping[str, Sequence[Timing]]) -> list[Row]:
    """Reduce the timings to rows; robozarr with workers gets a second row without the workers' start and end."""
    timed = [contender for contender in contenders if contender.role != "start-up"]
    speeds = {contender.name: [contender.n_bytes / 1e6 / run.wall_s for run in timings[contender.name]] for contender in timed}

    def row(contender: Contender, name: str, cpu_s: float | None) -> Row:
        def ratio(other: str) -> float:
            return statistics.median(a / b for a, b in zip(speeds[name], speeds[other], strict=True))

        return Row(
            name=name,
            role=contender.role,
            profile=contender.profile,
            workers=contender.workers,
            mb_per_s=statistics.median(speeds[name]),
            mb_per_s_min=min(speeds[name]),
            mb_per_s_max=max(speeds[name]),
            to_cp=ratio("cp"),
            to_cp_fsync=ratio("cp + fsync"),
            to_bare=ratio(f"bare loop {contender.profile}") if contender.profile else None,
            cpu_s_per_mb=None if cpu_s is None else cpu_s / (contender.n_bytes / 1e6),
        )

    rows = []
    for contender in timed:
        runs = timings[contender.name]
        rows.append(row(contender, contender.name, statistics.median(run.cpu_s for run in runs)))
        if contender.workers:
            name = contender.name + NET
            speeds[name] = [contender.n_bytes / 1e6 / run.work_s for run in runs if run.work_s]
            rows.append(row(contender, name, None))
    return rows


def describe(files: Sequence[Path], source: str, rounds: int, scratch: Path) -> dict[str, Any]:
    """Facts that a reader needs to judge the numbers; no host names, no paths."""
    return {
        "source": source,
        "source_files": len(files),
        "source_bytes": sum(file.stat().st_size for file in files),
        "rounds": rounds,
        "page_cache": "warm: the source is read before every round",
        "output_file_system": file_system(scratch),
        **machine(PACKAGES),
    }


def format_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""

    lines: list[tuple[str, ...]] = [("", "MB/s", "min–max", "÷ cp", "÷ cp + fsync", "÷ bare loop", "CPU ms/MB")]
    for row in rows:
        spread = f"{row.mb_per_s_min:.0f}–{row.mb_per_s_max:.0f}"
        ratios = [figure(value, 2) for value in (row.to_cp, row.to_cp_fsync, row.to_bare)]
        cpu = None if row.cpu_s_per_mb is None else 1000 * row.cpu_s_per_mb
        lines.append((row.name, figure(row.mb_per_s, 0), spread, *ratios, figure(cpu, 2)))
    return align(lines)


def verdicts(rows: Sequence[Row]) -> list[str]:
    """The targets of robozarr and whether it reaches them: without start-up time, ratios of medians."""
    speed = {row.name: row.mb_per_s for row in rows}
    profiles = [row.profile for row in rows if row.name.startswith("bare loop") and row.name.endswith("fsync")]

    def line(aim: str, least: float, over: str, under: str) -> str:
        found = []
        for profile in profiles:
            a, b = over.format(profile), under.format(profile)
            if a in speed and b in speed:
                ratio = speed[a] / speed[b]
                found.append(f"{profile} {ratio:.2f}{'' if ratio >= least else ' (missed)'}")
        return f"{aim}, {least} or more: {', '.join(found) or 'not measured'}"

    def aim(words: str, least: float, found: float | None) -> str:
        missed = " (missed)" if found is not None and found < least else ""
        return f"{words}, {least} or more: {'not measured' if found is None else f'{found:.2f}{missed}'}"

    one, two = f"robozarr {{}}, 1 worker{NET}", f"robozarr {{}}, 2 workers{NET}"
    lean, fast = speed.get(one.format("lean")), speed.get(one.format("fast"))
    return [
        line("one worker to the bare loop", 0.85, one, "bare loop {}"),
        line("one worker to the bare loop with fsync, which it does too", 0.85, one, "bare loop {} + fsync"),
        line("two workers to one", 1.7, two, one),
        line("one worker to zarr-python", 4.0, one, "zarr-python {}, 1 thread"),
        line("two workers to zarr-python", 4.0, two, "zarr-python {}, 1 thread"),
        aim("one worker in lean to one in fast", 1.0, None if lean is None or fast is None else lean / fast),
        aim("one worker in compact, MB/s", 100.0, speed.get(one.format("compact"))),
    ]


def format_header(header: Mapping[str, Any], start_ups: Mapping[str, Mapping[str, float]]) -> str:
    """The lines above the table."""
    lines = [
        f"source: {header['source']}, {header['source_files']} files, {header['source_bytes'] / 1e6:.0f} MB; "
        f"{header['rounds']} round(s), interleaved; page cache {header['page_cache']}",
        *machine_lines(
            header, f"output on {header['output_file_system'] or 'an unknown file system'}, removed after every run"
        ),
    ]
    lines += [f"{name}: {s['median']:.2f} s ({s['min']:.2f}–{s['max']:.2f})" for name, s in start_ups.items()]
    return "\n".join(lines)


def run(source: Path, *, rounds: int, size_mb: float | None, workers: Sequence[int], scratch: Path | None) -> dict[str, Any]:
    """Run the whole benchmark; returns header, start-ups in seconds, rows."""
    from contenders import contenders
    from recut import recut

    from robozarr.convert.sources.hdf5 import find_sources

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-convert-", dir=scratch)))
        files, label = find_sources([source]), source.resolve().name
        if size_mb is not None:
            files = [path.resolve() for path in recut(files, folder / "source", round(size_mb * 1e6))]
            label = f"cut anew from {label}"
        header = describe(files, label, rounds, folder)
        competing = list(contenders(files, workers))
        timings = measure(competing, files, folder, rounds)
    start_ups = {}
    for contender in competing:
        if contender.role == "start-up":
            walls = [timing.wall_s for timing in timings[contender.name]]
            start_ups[contender.name] = {"median": statistics.median(walls), "min": min(walls), "max": max(walls)}
    return {"header": header, "start_up_s": start_ups, "rows": make_rows(competing, timings)}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        default=default_source(),
        help="folder of HDF5 files (default: ../shared/data, or sample)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="times that every row is measured")
    parser.add_argument("--size-mb", type=float, help="cut new files of this size in total from the source's, and take those")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of Dask workers")
    parser.add_argument(
        "--scratch", type=Path, help="folder for all that is written (default: the system's for temporary files)"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "1"  # zarrs makes its threads when it is first used
    if options.rounds < 1 or min(options.workers) < 1:
        parser.error("--rounds and --workers are 1 or more")
    result = run(
        options.source, rounds=options.rounds, size_mb=options.size_mb, workers=options.workers, scratch=options.scratch
    )
    print(
        format_header(result["header"], result["start_up_s"]),
        format_table(result["rows"]),
        "\n".join(verdicts(result["rows"])),
        sep="\n\n",
    )
    write_json(result | {"rows": [asdict(row) for row in result["rows"]]}, options.json)


if __name__ == "__main__":
    main()

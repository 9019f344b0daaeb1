"""Measure how conversion scales: MB/s, CPU time per MB and peak memory from 0.3 to 10 GB, and for one long demo.

    python benchmarks/convert/bench_convert_scale.py [--sizes-mb 300 1000 3000 10000] [--one-demo-mb 3200] [--profile fast]

Sources are cut anew from real demonstrations (`recut`): frames with their entropy, no two demos alike. Each is converted by a
process of its own, as often as ``--rounds`` says, with the source in the page cache as far as memory holds it. Peak memory is
the largest resident set of any one process of the conversion, over all rounds: the converter's, or a worker's.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from common import align, default_source, figure, file_system, machine, machine_lines, read_once, write_json

if TYPE_CHECKING:
    from robozarr.schemas.layout import Profile

PACKAGES: Final = ("robozarr", "numpy", "h5py", "numcodecs", "dask", "distributed")
LIMIT_MB: Final = 600
"""Memory limit for every process of a conversion, however large the source."""


def child(source: str, store: str, profile: Profile, workers: int) -> dict[str, float]:
    """Convert once in this process; times in seconds, memory in MB (10^6 bytes)."""
    from contenders import WorkTime

    from robozarr.convert import convert

    work = WorkTime()
    report = convert(source, store, profile=profile, workers=workers, progress=work)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "source_mb": report.source_bytes / 1e6,
        "n_demos": report.n_episodes,
        "n_partitions": report.n_partitions,
        "seconds": report.seconds,
        "work_s": work.seconds,
        "cpu_s": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "peak_mb": max(usage.ru_maxrss for usage in usages) * 1024 / 1e6,
    }


def measure(files: Sequence[Path], source: Path, store: Path, options: argparse.Namespace) -> dict[str, float]:
    """One row: medians over the rounds, and the highest peak."""
    runs = []
    for number in range(options.rounds):
        read_once(files)
        out = store.with_name(f"{store.name}-{number}")
        arguments: list[str | Path] = ["--child", source, out, "--profile", options.profile, "--workers", str(options.workers)]
        done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"a conversion failed:\n{done.stderr}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(out)
    row = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**row, "peak_mb": max(run["peak_mb"] for run in runs)}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Make each source, convert it and remove it."""
    from recut import recut

    real = sorted(options.source.rglob("*.hdf5"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-convert-scale-", dir=options.scratch) as name:
        folder = Path(name)
        for size_mb, one_demo in [
            *((size, False) for size in options.sizes_mb),
            *((size, True) for size in options.one_demo_mb),
        ]:
            source = folder / "source"
            files = recut(real, source, round(size_mb * 1e6), one_demo=one_demo)
            rows.append({"one_demo": one_demo, **measure(files, source, folder / "store", options)})
            shutil.rmtree(source)
            print(f"{size_mb:g} MB{' in one demo' * one_demo} done", file=sys.stderr, flush=True)
        header = {"profile": options.profile, "workers": options.workers, "rounds": options.rounds, **machine(PACKAGES)}
        return {"header": {**header, "file_system": file_system(folder)}, "rows": rows}


def format_result(result: dict[str, Any]) -> str:
    """The rows as text, and whether the targets are met."""
    header, rows = result["header"], result["rows"]
    lines: list[tuple[str, ...]] = [
        ("source", "demos", "partitions", "MB/s", "net of start-up", "net ms/MB", "CPU ms/MB", "peak RSS, MB")
    ]
    for row in rows:
        mb = row["source_mb"]
        numbers = (mb / row["seconds"], mb / row["work_s"], 1000 * row["work_s"] / mb, 1000 * row["cpu_s"] / mb)
        figures = [figure(number, digits) for number, digits in zip(numbers, (0, 0, 2, 2), strict=True)]
        name = f"{mb:,.0f} MB" + ", one demo" * row["one_demo"]
        counts = (figure(row["n_demos"], 0), figure(row["n_partitions"], 0))
        lines.append((name, *counts, *figures, figure(row["peak_mb"], 0)))
    peak = max(row["peak_mb"] for row in rows)
    first, last = (
        1000 * row["work_s"] / row["source_mb"] for row in (rows[0], [row for row in rows if not row["one_demo"]][-1])
    )
    return "\n".join(
        [
            f"profile {header['profile']}, {header['workers']} worker(s), medians of {header['rounds']} round(s)",
            *machine_lines(header, f"output on {header['file_system'] or 'an unknown file system'}"),
            "",
            align(lines),
            "",
            f"peak of any process {peak:.0f} MB, limit {LIMIT_MB}: {'kept' if peak < LIMIT_MB else 'BROKEN'}",
            f"net time a MB of the largest to the smallest source: {last / first:.2f}×",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", default=default_source(), help="folder of HDF5 files to cut from")
    parser.add_argument("--sizes-mb", type=float, nargs="+", default=[300, 1000, 3000, 10000], help="sizes of many demos")
    parser.add_argument("--one-demo-mb", type=float, nargs="*", default=[3200], help="sizes of a single demo")
    parser.add_argument("--profile", default="fast", choices=["raw", "fast", "lean", "compact"])
    parser.add_argument("--workers", type=int, default=2, help="Dask workers; 0 is inline")
    parser.add_argument("--rounds", type=int, default=1, help="times that every size is converted")
    parser.add_argument(
        "--scratch", type=Path, help="folder for sources and stores (default: the system's for temporary files)"
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], options.child[1], options.profile, options.workers)))
        return
    result = run(options)
    print(format_result(result))
    write_json(result, options.json)
    if max(row["peak_mb"] for row in result["rows"]) >= LIMIT_MB:
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Measure the costs of a large data set other than its pixels: planning, tasks, the scheduler, the journal.

    python benchmarks/convert/bench_plan.py [--files 130 1300 13000] [--tasks 20000] [--json FILE]

Files are made up from the scan of a real one: 50 demos of 150 steps, two cameras of 128×128 (130 such files are a data set like
LIBERO-130's 96 GB, 13,000 are 10 TB). The plan, its partitions and what a task's message holds are real. So are scheduler and
workers; the tasks do nothing, so that what is timed is Dask's share. Each size is planned by a process of its own.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from common import ROOT, align, figure, machine, machine_lines, write_json

PACKAGES: Final = ("robozarr", "numpy", "dask", "distributed")
N_DEMOS, N_STEPS = 50, 150
SIZE: Final = 128


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def plan_of(n_files: int) -> Any:
    """Make the plan for made-up files."""
    import numpy as np

    from robozarr.convert.planning.plan import make_plan
    from robozarr.convert.sources.scan import scan_file
    from robozarr.schemas.index import FlagRules

    real = scan_file(str(next((ROOT / "sample").rglob("*.hdf5"))), FlagRules())
    first = real.demos[0]
    datasets = tuple(
        replace(info, shape=(N_STEPS, *((SIZE, SIZE, 3) if len(info.shape) == 4 else info.shape[1:])))
        for info in first.datasets
    )
    flags = np.zeros(N_STEPS, np.uint8)
    files = []
    for number in range(n_files):
        demos = tuple(replace(first, name=f"demo_{i}", length=N_STEPS, datasets=datasets, flags=flags) for i in range(N_DEMOS))
        path = f"/data/suite_{number % 4}/task_{number}_demo.hdf5"
        files.append(replace(real, path=path, suite=f"suite_{number % 4}", task=f"task_{number}", demos=demos))
    return make_plan(files, profile="fast", rules=FlagRules())


def child(n_files: int) -> dict[str, float]:
    """Plan once; times in seconds, sizes in MB (10^6 bytes) or as named."""
    before = peak_mb()
    began = time.perf_counter()
    plan = plan_of(n_files)
    planned = time.perf_counter()
    from robozarr.convert.records import FinishedPartition
    from robozarr.convert.resuming.journal import digest
    from robozarr.convert.writing.write import WriteTask

    n, line, message = 0, 0, 0
    for partition in plan.partitions():
        n += 1
        if n % 97 == 1:  # a sample of what each costs in words
            done = FinishedPartition(
                path=partition.layout.path, shard=partition.shard, size=2**25, crc32c=2**31, digest=digest(partition)
            )
            line = max(line, len(json.dumps(asdict(done))) + 1)
            message = max(message, len(pickle.dumps(WriteTask(partition=partition, finished=None))))
    cut = time.perf_counter()
    tables = sum(values.nbytes for values in plan.tables.values())
    index = sum(values.nbytes for path, values in plan.tables.items() if path.startswith("index/"))
    return {
        "n_steps": plan.metadata.n_steps,
        "n_episodes": plan.metadata.n_episodes,
        "decoded_gb": plan.n_bytes / 1e9,
        "n_partitions": n,
        "n_files": n + sum(layout.n_shards for path, layout in plan.layouts.items() if path in plan.tables) + len(plan.layouts),
        "index_bytes_a_step": index / plan.metadata.n_steps,
        "tables_mb": tables / 1e6,
        "plan_s": planned - began,
        "partitions_s": cut - planned,
        "message_bytes": message,
        "journal_mb": line * n / 1e6,
        "peak_mb": peak_mb() - before,
    }


def nothing(task: Any) -> int:
    """A task that does nothing."""
    shard: int = task.partition.shard
    return shard


def tasks(n_tasks: int) -> dict[str, float]:
    """Send real messages to two real workers that do nothing with them."""
    from itertools import cycle

    from robozarr.convert.workers.cluster import local_executor
    from robozarr.convert.writing.write import WriteTask

    partitions = list(islice(plan_of(130).partitions(), 4000))
    work = (WriteTask(partition=partition, finished=None) for partition in islice(cycle(partitions), n_tasks))
    with local_executor(2) as executor:
        results = executor.run(nothing, work)
        for _ in islice(results, n_tasks // 20):  # workers have imported, memory has grown
            pass
        before, began = peak_mb(), time.perf_counter()
        n = sum(1 for _ in results)
        seconds = time.perf_counter() - began
    return {"n_tasks": n, "ms_a_task": 1000 * seconds / n, "grown_mb": peak_mb() - before, "peak_mb": peak_mb()}


def run(files: list[int], n_tasks: int) -> dict[str, Any]:
    """Run all sizes, then the tasks."""
    rows = []
    for n_files in files:
        done = subprocess.run([sys.executable, __file__, "--child", str(n_files)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        rows.append({"source_files": n_files, **json.loads(done.stdout)})
        print(f"{n_files} files planned", file=sys.stderr, flush=True)
    return {"header": machine(PACKAGES), "rows": rows, "tasks": tasks(n_tasks)}


def format_result(result: dict[str, Any]) -> str:
    """The numbers as text: one column per size."""
    names = (
        ("n_steps", "steps", 0),
        ("n_episodes", "episodes", 0),
        ("decoded_gb", "decoded, GB", 0),
        ("n_partitions", "partitions", 0),
        ("n_files", "files or objects", 0),
        ("index_bytes_a_step", "index, bytes a step", 1),
        ("tables_mb", "tables of the plan, MB", 1),
        ("plan_s", "planning, s", 2),
        ("partitions_s", "all partitions made, s", 2),
        ("message_bytes", "a task's message, bytes at most", 0),
        ("journal_mb", "journal when all is done, MB", 1),
        ("peak_mb", "memory of the plan, MB", 0),
    )
    lines = [("source files", *(figure(row["source_files"], 0) for row in result["rows"]))]
    lines += [(text, *(figure(row[name], digits) for row in result["rows"])) for name, text, digits in names]
    found = result["tasks"]
    return "\n".join(
        [
            *machine_lines(result["header"], "nothing is written"),
            "",
            align(lines),
            "",
            f"{found['n_tasks']:,} tasks that do nothing, 2 workers: {found['ms_a_task']:.2f} ms a task; scheduler and client "
            f"grew by {found['grown_mb']:.1f} MB to {found['peak_mb']:.0f} MB",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, nargs="+", default=[130, 1300, 13000], help="numbers of source files")
    parser.add_argument("--tasks", type=int, default=20000, help="tasks that are sent to workers")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child)))
        return
    result = run(options.files, options.tasks)
    print(format_result(result))
    write_json(result, options.json)


if __name__ == "__main__":
    main()

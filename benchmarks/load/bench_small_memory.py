"""Measure loading a store that is larger than the memory for it: epochs by profile, in a control group with a memory limit.

    python benchmarks/load/bench_small_memory.py [SOURCE] [--copies 12] [--rounds 2] [--scratch FOLDER]

The source's files are converted several times over (`--copies`). The memory, of the process and its page cache together, is
half of what the store takes in profile raw. Each profile is read in a process of its own, by a WindowLoader of two threads, in
random order. Where no control group can be made (version 1 or 2, with rights to it), the files are dropped from the page cache
before every epoch instead, which is said: then every frame comes from the disk once an epoch.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from common import align, default_source, drop_from_cache

GROUPS: Final = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
LEAST_BYTES: Final = 700 * 2**20
"""What the process takes for itself (torch, numba, batches), and something to spare."""
CHILD: Final = """
import sys, time
import robozarr as rz
from common import drop_from_cache
from pathlib import Path
from scale_store import window
group, store, rounds = sys.argv[1:]
if group:
    (Path(group) / "cgroup.procs").write_text("0")
def from_disk():
    return int(Path("/proc/self/io").read_text().split("\\nread_bytes: ")[1].split()[0])
dataset = rz.WindowDataset(rz.open_store(store), window())
loader = rz.WindowLoader(dataset, 64, threads=2)
for number in range(int(rounds) + 1):
    if not group or number == 0:
        drop_from_cache([file for file in Path(store).rglob("*") if file.is_file()])
    wall, cpu, read = time.perf_counter(), time.process_time(), from_disk()
    n = sum(len(batch["step"]) for batch in loader)
    if number:  # the first fills the page cache
        print(n / (time.perf_counter() - wall), 1e6 * (time.process_time() - cpu) / n, from_disk() - read, flush=True)
"""


@contextmanager
def limited_group(n_bytes: int) -> Iterator[Path | None]:
    """A control group in which a process and its page cache may take so much; None where none can be made."""
    made = None
    for root, limit in GROUPS:
        group = root / f"robozarr-bench-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(n_bytes))
            made = group
            break
        except OSError:
            if group.is_dir():
                group.rmdir()
    try:
        yield made
    finally:
        if made is not None:
            made.rmdir()


def copies_of(source: Path, folder: Path, n: int) -> list[Path]:
    """The source's files, n times under other names."""
    from robozarr.convert.sources.hdf5 import find_sources

    paths = []
    for number in range(n):
        for file in find_sources([source]):
            path = folder / f"copy{number}" / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, path)
            paths.append(path)
    return paths


def files_below(folder: Path) -> list[Path]:
    """Every file of a store."""
    return [path for path in folder.rglob("*") if path.is_file()]


def measure(store: Path, group: Path | None, rounds: int) -> list[tuple[float, float, float]]:
    """Windows/s, CPU-µs a window, and bytes from the disk, of each epoch, by a process of its own."""
    command = [sys.executable, "-c", CHILD, "" if group is None else str(group), str(store), str(rounds)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [(float(a), float(b), float(c)) for a, b, c in (line.split() for line in done.stdout.splitlines())]


def run(source: Path, copies: int, rounds: int, scratch: Path | None) -> list[tuple[str, ...]]:
    """One line a profile."""
    from robozarr.convert import convert
    from robozarr.schemas.layout import PROFILES

    with tempfile.TemporaryDirectory(prefix="bench-memory-", dir=scratch) as folder:
        files = copies_of(source, Path(folder), copies)
        stores = {profile: Path(folder) / f"{profile}.zarr" for profile in PROFILES}
        for profile, store in stores.items():
            convert(files, store, profile=profile, workers=0)
        sizes = {
            name: sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) for name, store in stores.items()
        }
        limit = sizes["raw"] // 2
        if limit < LEAST_BYTES:
            raise SystemExit(f"a store of {sizes['raw'] / 1e6:,.0f} MB is too small for this → more --copies")
        with limited_group(limit) as group:
            said = (
                f"memory limit {limit / 1e6:,.0f} MB" if group else "no limit can be set: page cache dropped before every epoch"
            )
            lines: list[tuple[str, ...]] = [(said, "MB", "MB from disk/epoch", "windows/s", "CPU-µs/window")]
            for name, store in stores.items():
                drop_from_cache([file for other in stores.values() for file in files_below(other)])
                epochs = measure(store, group, rounds)
                best = max(epochs)
                lines.append((name, f"{sizes[name] / 1e6:,.0f}", f"{best[2] / 1e6:,.0f}", f"{best[0]:,.0f}", f"{best[1]:,.0f}"))
        return lines


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", default=default_source(), help="folder of HDF5 files")
    parser.add_argument("--copies", type=int, default=12, help="times that the source is converted")
    parser.add_argument("--rounds", type=int, default=2, help="epochs that are timed, after one that is not")
    parser.add_argument("--scratch", type=Path, help="folder for the stores")
    arguments = parser.parse_args()
    print(align(run(arguments.source, arguments.copies, arguments.rounds, arguments.scratch)))


if __name__ == "__main__":
    main()

"""Show where a conversion's CPU time goes, by profile: scan, reading, statistics, codec, writing.

    python benchmarks/convert/profile_convert.py [SOURCE] [--size-mb 1500] [--profile raw fast lean compact]

One process converts, with its three threads; the time of each thread in each part is added up. The parts overlap, so that the
wall time is less than their sum.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from unittest import mock

from common import align, default_source, figure, machine, machine_lines, read_once

PACKAGES: Final = ("robozarr", "numpy", "h5py", "numcodecs", "lz4", "zstandard")
PROFILES: Final = ("raw", "fast", "lean", "compact")
PARTS: Final = {
    "scan": "robozarr.convert.stages.scan_source",
    "reading": "robozarr.convert.writing.write.read_partition",
    "statistics of frames": "robozarr.convert.writing.write.reduce_rows",
    "codec and checksums": "robozarr.convert.writing.write.encode_chunks",
    "samples for other profiles": "robozarr.convert.writing.write.sample_frames",
    "writing, fsync, renaming": "robozarr.store.folder.FolderPlace.write",
}
"""Functions grouped by what they do; none calls another."""


def timed(function: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    """Wrap a function so that its thread's CPU time is added to `spent`."""

    def wrapper(*arguments: Any, **options: Any) -> Any:
        began = time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            spent[part] += time.thread_time() - began

    return wrapper


def profile(files: Sequence[Path], name: str, scratch: Path) -> dict[str, float]:
    """CPU seconds of each part and of the whole, and the wall time."""
    import pkgutil

    from robozarr.convert import convert

    spent: dict[str, float] = defaultdict(float)
    read_once(files)
    with ExitStack() as stack:
        for part, path in PARTS.items():
            stack.enter_context(mock.patch(path, timed(pkgutil.resolve_name(path), spent, part)))
        cpu, wall = time.process_time(), time.perf_counter()
        convert(files, scratch / f"{name}.zarr", profile=name, workers=0)  # type: ignore[arg-type] # checked by argparse
        return {**{part: spent[part] for part in PARTS}, "all": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", default=default_source(), help="folder of HDF5 files to cut from")
    parser.add_argument("--size-mb", type=float, default=1500, help="size of the files that are cut from it")
    parser.add_argument("--profile", nargs="+", default=list(PROFILES), choices=PROFILES)
    options = parser.parse_args()
    from recut import recut

    with tempfile.TemporaryDirectory(prefix="profile-convert-") as folder:
        files = recut(sorted(options.source.rglob("*.hdf5")), Path(folder) / "source", round(options.size_mb * 1e6))
        found = [profile(files, name, Path(folder)) for name in options.profile]
        n_bytes = sum(file.stat().st_size for file in files)
    lines = [("CPU-seconds", *options.profile)]
    lines += [(part, *(figure(row[part], 2) for row in found)) for part in found[0]]
    print(*machine_lines(machine(PACKAGES), f"{n_bytes / 1e6:,.0f} MB of source, in the page cache"), "", sep="\n")
    print(align(lines))


if __name__ == "__main__":
    main()

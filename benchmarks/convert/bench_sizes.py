"""Print the size of a data set in every profile: ratios to the source files, camera by camera, and what encoding costs.

    python benchmarks/convert/bench_sizes.py [SOURCE] [--frames 96]

The source is converted in every profile and measured on disk. Encoding is timed on frames in memory, the profiles in turn, one
thread: CPU time, so that other programs disturb it less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from common import align, default_source, figure, machine, machine_lines
from numpy.typing import NDArray

from robozarr.convert import convert
from robozarr.convert.sources.hdf5 import find_sources
from robozarr.convert.writing.shard import encode_chunks
from robozarr.schemas.layout import PROFILES, Profile, layout_of_values
from robozarr.store.opened import open_store
from robozarr.store.summary import summarise

PACKAGES: Final = ("robozarr", "numpy", "numcodecs", "lz4", "zstandard")
LIBERO_130_STEPS: Final = 975_000
"""As docs/scaling.md counts: 130 files of 50 demos of 150 steps."""


def measure_sizes(files: Sequence[Path], folder: Path) -> dict[Profile, dict[str, tuple[int, int]]]:
    """Bytes of each picture key, decoded and stored, and of the whole store, by profile."""
    found: dict[Profile, dict[str, tuple[int, int]]] = {}
    for profile in PROFILES:
        convert(files, folder / f"{profile}.zarr", profile=profile, workers=0)
        summary = summarise(open_store(folder / f"{profile}.zarr"))
        sizes = {key.name: (key.decoded_bytes, key.stored_bytes) for key in summary.keys if key.role == "image"}
        together = tuple(sum(column) for column in zip(*sizes.values(), strict=True))
        n_store = sum(path.stat().st_size for path in (folder / f"{profile}.zarr").rglob("*") if path.is_file())
        found[profile] = {**sizes, "cameras": (together[0], together[1]), "store": (summary.decoded_bytes, n_store)}
    return found


def encoding_speeds(store: Path, n_frames: int, rounds: int = 3) -> dict[Profile, float]:
    """MB of frames a CPU-second, median of the rounds; both cameras, `n_frames` from each of some places."""
    opened = open_store(store)
    names = [key.name for key in opened.metadata.keys if key.role == "image"]
    frames: list[NDArray[Any]] = []
    starts = np.linspace(0, max(0, opened.n_steps - n_frames), 6).astype(int).tolist()
    for name in names:
        array = opened.array(name)
        frames += [np.asarray(array[start : start + n_frames]) for start in starts]
    n_bytes = sum(rows.nbytes for rows in frames)
    speeds: dict[Profile, list[float]] = {profile: [] for profile in PROFILES}
    for _ in range(rounds):
        for profile in PROFILES:
            began = time.process_time()
            for rows in frames:
                dims = tuple(f"d{axis}" for axis in range(rows.ndim))
                encode_chunks(rows, layout_of_values("steps/a", rows.shape, rows.dtype.name, dims, profile))
            speeds[profile].append(n_bytes / 1e6 / (time.process_time() - began))
    return {profile: statistics.median(found) for profile, found in speeds.items()}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, nargs="?", default=default_source(), help="folder of HDF5 files")
    parser.add_argument("--frames", type=int, default=96, help="frames of each place that encoding is timed on")
    options = parser.parse_args()
    files = find_sources([options.source])
    n_source = sum(path.stat().st_size for path in files)
    with tempfile.TemporaryDirectory(prefix="bench-sizes-") as folder:
        sizes = measure_sizes(files, Path(folder))
        speeds = encoding_speeds(Path(folder) / "fast.zarr", options.frames)
        n_steps = open_store(Path(folder) / "fast.zarr").n_steps
    rows = [name for name in sizes["raw"] if name != "store"]
    lines: list[tuple[str, ...]] = [("ratio to the pixels", *sizes)]
    lines += [(name, *(figure(of[name][0] / of[name][1], 2) for of in sizes.values())) for name in rows]
    lines.append(("HDF5 ÷ store", *(figure(n_source / of["store"][1], 2) for of in sizes.values())))
    lines.append(
        ("fast's cameras ÷ cameras", *(figure(sizes["fast"]["cameras"][1] / of["cameras"][1], 2) for of in sizes.values()))
    )
    lines.append(("MB on disk", *(figure(of["store"][1] / 1e6, 1) for of in sizes.values())))
    lines.append(("encoding, MB a CPU-second", *(figure(speeds[profile], 0) for profile in sizes)))
    of_130 = LIBERO_130_STEPS / n_steps / 1e9
    lines.append(("LIBERO-130, GB", *(figure(of["store"][1] * of_130, 1) for of in sizes.values())))
    print(*machine_lines(machine(PACKAGES), f"{len(files)} files, {n_source / 1e6:,.0f} MB of source"), "", sep="\n")
    print(align(lines))


if __name__ == "__main__":
    main()

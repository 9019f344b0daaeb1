"""Make LIBERO files of any size from real ones: new demos cut from the same steps, no two of them alike.

Uses h5py and numpy only, never robozarr: what is measured must not make its own input. As a command:
``python benchmarks/convert/recut.py SOURCE OUT --size-mb N``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

__all__ = ["recut"]

BLOCK_STEPS: Final = 64
"""Steps held in memory at once: 3 MB of one camera's frames."""
FILE_BYTES: Final = 500 * 10**6
"""Largest generated file; LIBERO's 50 demos of one task are about this large."""
MAX_SHIFT: Final = 16
"""Most pixels by which a demo's frames are shifted along each axis; pixels that leave on one side enter on the other."""
MIN_STEPS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Steps ``[start, stop)`` of a source demo, with frames shifted by (rows, columns)."""

    demo: str
    start: int
    stop: int
    shift: tuple[int, int]


def recut(sources: Sequence[Path], out: Path, n_bytes: int, seed: int = 0, *, one_demo: bool = False) -> list[Path]:
    """Write files of about `n_bytes` in total below `out`; returns their paths.

    Every file takes its tree, attributes and steps from one source. The same input gives the same files. With `one_demo` it is
    one file with one demo, as long as that takes.
    """
    if not sources:
        raise ValueError("recut takes one source file or more, got none")
    n_files = 1 if one_demo else max(len(sources), -(-n_bytes // FILE_BYTES))
    made = []
    for number in range(n_files):
        source = sources[number % len(sources)]
        part = number // len(sources)
        # a folder of its own: files of one folder's and file's name that differ are refused
        path = out / (source.parent.name + f"_{part}" * (part > 0)) / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_file(source, path, n_bytes // n_files, np.random.default_rng([seed, number]), one_demo)
        made.append(path)
    return made


def _write_file(source_path: Path, path: Path, n_bytes: int, rng: np.random.Generator, one_demo: bool) -> None:
    with h5py.File(source_path, "r") as source, h5py.File(path, "w") as target:
        data = target.create_group("data")
        cuts = _cuts(source["data"], n_bytes, rng)
        n_demos = n_steps = 0
        for number, parts in enumerate([list(cuts)] if one_demo else ([cut] for cut in cuts)):
            _write_demo(source["data"], data.create_group(f"demo_{number}"), parts)
            n_demos, n_steps = number + 1, n_steps + sum(cut.stop - cut.start for cut in parts)
        _copy_attributes(source["data"], data, {"num_demos": n_demos, "total": n_steps})


def _cuts(data: h5py.Group, n_bytes: int, rng: np.random.Generator) -> Iterator[Cut]:
    """Take cuts of the demos in turn until they hold `n_bytes`, at least one."""
    names = sorted(data)
    step_bytes = {name: _step_bytes(data[name]) for name in names}
    used: set[Cut] = set()
    left = n_bytes
    for number in count():
        name = names[number % len(names)]
        length = len(data[name]["actions"])
        least = min(MIN_STEPS, length)
        n_steps = int(rng.integers(max(least, length * 3 // 5), length + 1))
        n_steps = min(n_steps, max(least, round(left / step_bytes[name])))
        start = int(rng.integers(0, length - n_steps + 1))
        dy, dx = rng.integers(-MAX_SHIFT, MAX_SHIFT + 1, 2).tolist()
        cut = Cut(demo=name, start=start, stop=start + n_steps, shift=(dy, dx))
        if cut in used:
            continue
        used.add(cut)
        yield cut
        left -= n_steps * step_bytes[name]
        if left < least * step_bytes[name]:
            return


def _datasets(demo: h5py.Group) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[path] = item

    demo.visititems(visit)
    return found


def _step_bytes(demo: h5py.Group) -> int:
    return sum(item.nbytes // len(item) for item in _datasets(demo).values())


def _write_demo(data: h5py.Group, target: h5py.Group, cuts: Sequence[Cut]) -> None:
    n_steps = sum(cut.stop - cut.start for cut in cuts)
    source = data[cuts[0].demo]
    for path, item in _datasets(source).items():
        # No chunks and no filters, as in LIBERO; modification times would make the bytes differ between runs.
        made = target.create_dataset(path, shape=(n_steps, *item.shape[1:]), dtype=item.dtype, track_times=False)
        at = 0
        for cut in cuts:
            for start in range(cut.start, cut.stop, BLOCK_STEPS):
                values = data[cut.demo][path][start : min(cut.stop, start + BLOCK_STEPS)]
                if values.ndim == 4:
                    values = np.roll(values, cut.shift, axis=(1, 2))
                made[at : at + len(values)] = values
                at += len(values)
        if path in ("dones", "rewards"):  # LIBERO's script marks the last step, whether or not the task succeeded
            made[...] = np.arange(1, n_steps + 1) == n_steps
    replace: dict[str, Any] = {"num_samples": n_steps}
    if "states" in source:
        replace["init_state"] = source["states"][cuts[0].start]
    _copy_attributes(source, target, replace)


def _copy_attributes(source: h5py.Group, target: h5py.Group, replace: Mapping[str, Any]) -> None:
    for name in source.attrs:
        target.attrs.create(name, replace.get(name, source.attrs[name]), dtype=source.attrs.get_id(name).dtype)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, help="folder with LIBERO files (searched for *.hdf5)")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--size-mb", type=float, required=True, help="size of all files together, MB")
    parser.add_argument("--one-demo", action="store_true", help="one file with one demo of that size")
    options = parser.parse_args()
    sources = sorted(options.source.rglob("*.hdf5"))
    made = recut(sources, options.out, round(options.size_mb * 1e6), one_demo=options.one_demo)
    print(f"{len(made)} files, {sum(path.stat().st_size for path in made):,} bytes")


if __name__ == "__main__":
    main()

"""Cut the embedded sample out of full LIBERO files: a few steps around gripper commands, in the same format.

Uses h5py and numpy only, never robozarr: the sample is what robozarr is tested against.

Run ``python sample/cut.py SOURCE_DIR``, where SOURCE_DIR holds ``libero_spatial/``, ``libero_goal/`` and so on.
The same input gives the same bytes on every run (with the same HDF5 library).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

MAX_SAMPLE_BYTES = 4_900_000
"""Largest total size of the cut files, so that the repository stays small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One contiguous range of one source demo."""

    demo: str
    """Name of the demo in the source file."""
    change: int
    """Number of the gripper command's change to cut around, counted from 0."""
    before: int
    """Steps kept before the change: enough to start while the arm still moves, since it stops to grasp and release."""
    n_steps: int
    """Length of the cut, in steps."""


# One cut closes the gripper and one opens it in each file; four lengths, no two equal. A step is 98 KB of frames and
# each demo carries up to 93 KB of XML, so 44 steps are about what the limit admits.
CUTS: Mapping[str, tuple[Cut, ...]] = {
    "libero_spatial/pick_up_the_black_bowl_on_the_cookie_box_and_place_it_on_the_plate_demo.hdf5": (
        Cut(demo="demo_0", change=0, before=6, n_steps=10),
        Cut(demo="demo_1", change=1, before=6, n_steps=13),
    ),
    "libero_goal/put_the_bowl_on_the_stove_demo.hdf5": (
        Cut(demo="demo_0", change=0, before=7, n_steps=9),
        Cut(demo="demo_1", change=1, before=9, n_steps=12),
    ),
}


def find_range(actions: np.ndarray, cut: Cut) -> slice:
    """Find the half-open range of steps around the given gripper change.

    Parameters
    ----------
    actions : float64 [step, 7]
        Commands of the whole demo; the last column is the gripper's, -1 opens and +1 closes.
    cut : Cut
        Which change, and how many steps.

    Returns
    -------
    slice
        ``n_steps`` long, inside the demo.

    Raises
    ------
    ValueError
        If the demo has no such change, or not enough steps around it.
    """
    closing = actions[:, -1] > 0
    changes = np.flatnonzero(closing[1:] != closing[:-1]) + 1
    if cut.change >= len(changes):
        raise ValueError(f"{cut.demo}: has {len(changes)} gripper changes, none numbered {cut.change}; edit CUTS")
    start = int(changes[cut.change]) - cut.before
    stop = start + cut.n_steps
    if start < 0 or stop > len(actions):
        raise ValueError(f"{cut.demo}: steps {start} to {stop} are not inside its {len(actions)} steps; edit CUTS")
    return slice(start, stop)


def copy_attributes(source: h5py.Group, target: h5py.Group, replace: Mapping[str, object]) -> None:
    """Copy all attributes with their stored types; `replace` gives new values for some of them."""
    for name in source.attrs:
        value = replace.get(name, source.attrs[name])
        target.attrs.create(name, value, dtype=source.attrs.get_id(name).dtype)


def cut_demo(source: h5py.Group, target: h5py.Group, steps: slice) -> None:
    """Copy one demo, cutting every dataset to the same steps, so that its rows stay aligned."""

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        data = item[steps]
        if name in ("dones", "rewards"):
            # LIBERO's own script marks the last step, whether or not the task succeeded.
            data[:] = 0
            data[-1] = 1
        # No chunks and no filters, as in LIBERO; modification times would make the bytes differ between runs.
        target.create_dataset(name, data=data, dtype=item.dtype, track_times=False)

    source.visititems(copy)
    first_state = source["states"][steps.start]
    copy_attributes(source, target, {"num_samples": steps.stop - steps.start, "init_state": first_state})


def cut_file(source_path: Path, target_path: Path, cuts: tuple[Cut, ...]) -> None:
    """Write one sample file with the demos `cuts`, renumbered from 0."""
    target_path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(source_path) as source, h5py.File(target_path, "w") as target:
        data = target.create_group("data")
        total = sum(cut.n_steps for cut in cuts)
        copy_attributes(source["data"], data, {"num_demos": len(cuts), "total": total})
        for number, cut in enumerate(cuts):
            demo = source["data"][cut.demo]
            cut_demo(demo, data.create_group(f"demo_{number}"), find_range(demo["actions"][()], cut))


def main() -> None:
    """Cut every file of `CUTS` and check the total size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source_dir", type=Path, help="folder with libero_spatial/, libero_goal/, ...")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: here)")
    options = parser.parse_args()
    n_bytes = 0
    for name, cuts in CUTS.items():
        cut_file(options.source_dir / name, options.out / name, cuts)
        n_bytes += (options.out / name).stat().st_size
    print(f"{len(CUTS)} files, {n_bytes:,} bytes")
    if n_bytes >= MAX_SAMPLE_BYTES:
        raise SystemExit(f"the sample must stay below {MAX_SAMPLE_BYTES:,} bytes: cut fewer steps")


if __name__ == "__main__":
    main()

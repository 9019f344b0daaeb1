"""A demo that is said to have another number of steps than it has is converted, and spoken of."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

import synthetic
from robozarr.convert import convert


def stated(path: Path, *said: object) -> Path:
    """A file of LIBERO's whose demos state these numbers of samples; None: none."""
    synthetic.write_libero(path, lengths=(7,) * len(said))
    with h5py.File(path, "r+") as file:
        for number, value in enumerate(said):
            attributes = file[f"data/demo_{number}"].attrs
            attributes.pop("num_samples", None)
            if value is not None:
                attributes["num_samples"] = value
    return path


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((9, 7), "demo_0: num_samples says 9, the actions have 7 steps, which are converted"),
        ((7, 6, 6), "demo_1 and 1 more: num_samples says 6, the actions have 7 steps"),
        (([7.0], 7, None, "7"), None),
        ((float("nan"), float("inf"), [7, 8]), None),
    ],
    ids=["more", "fewer", "the same, none, text", "no whole number"],
)
def test_numbers_of_samples_are_compared(tmp_path: Path, said: tuple[object, ...], words: str | None) -> None:
    report = convert(stated(tmp_path / "a.hdf5", *said), tmp_path / "a.zarr", workers=0, dry_run=True)
    assert report.n_steps == 7 * len(said)
    assert len(report.length_remarks) == (words is not None)
    assert words is None or words in report.length_remarks[0]

"""Sources that are rare and right: each was once converted wrongly, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.detect import detect_alignment
from robozarr.schemas.index import Alignment


def write(path: Path, demos: list[dict[str, NDArray[Any]]]) -> Path:
    with h5py.File(path, "w") as file:
        for number, datasets in enumerate(demos):
            for name, values in datasets.items():
                file[f"data/demo_{number}/{name}"] = values
    return path


def actions(n: int) -> NDArray[np.float64]:
    return np.linspace(-1, 1, 3 * n).reshape(n, 3)


def test_states_below_obs_are_ragged_too(tmp_path: Path) -> None:
    source = write(tmp_path / "a.hdf5", [{"actions": actions(4), "obs/states": np.arange(12.0).reshape(4, 3)}])
    convert(source, tmp_path / "a.zarr", workers=0)
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).ok
    assert robozarr.open_store(tmp_path / "a.zarr").ragged("states")[2].tolist() == [6, 7, 8]


def test_next_obs_of_single_steps_is_stored_because_nothing_repeats_it(tmp_path: Path) -> None:
    demo = {"actions": actions(1), "obs/a": np.zeros((1, 2)), "next_obs/a": np.ones((1, 2))}
    source = write(tmp_path / "a.hdf5", [demo, demo])
    convert(source, tmp_path / "a.zarr", workers=0)
    assert list(robozarr.open_store(tmp_path / "a.zarr").keys) == ["a", "actions", "next_obs.a"]


def test_next_obs_that_is_asked_for_is_stored_though_it_repeats_obs(tmp_path: Path) -> None:
    source = synthetic.write_robomimic(tmp_path / "a.hdf5", size=12)
    for wanted in ("next_obs.object", "next_obs/object"):
        convert(source, tmp_path / "a.zarr", workers=0, keys=[wanted, "object"], overwrite=True)
        assert list(robozarr.open_store(tmp_path / "a.zarr").keys) == ["actions", "next_obs.object", "object"]
        assert verify(tmp_path / "a.zarr", sources=source, workers=0).ok


@pytest.mark.parametrize("dtype", ["u1", "?", "f2", ">f8"])
def test_joints_and_states_of_other_types_are_compared_as_numbers(dtype: str) -> None:
    states = (np.arange(54).reshape(6, 9) + 40).astype(dtype)
    joints = np.arange(42).reshape(6, 7).astype(dtype)
    alignment, errors = detect_alignment(joints, states)
    wide = detect_alignment(joints.astype("f8"), states.astype("f8"))
    assert (alignment, errors) == wide
    assert detect_alignment(states[:, 1:8], states)[0] in (Alignment.BEFORE, Alignment.UNKNOWN)


def test_flags_and_alignment_do_not_need_the_keys_they_rest_on(tmp_path: Path) -> None:
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(12, 14))
    convert(source, tmp_path / "all.zarr", workers=0)
    convert(source, tmp_path / "few.zarr", workers=0, keys=["agentview_rgb"])
    whole, few = (robozarr.open_store(tmp_path / name) for name in ("all.zarr", "few.zarr"))
    assert np.array_equal(whole.index.flags, few.index.flags)
    assert few.episodes.alignment.tolist() == [Alignment.AFTER] * 2
    assert verify(tmp_path / "few.zarr", sources=source, workers=0).ok


def test_a_renamed_folder_of_sources_is_found_by_name_and_size(tmp_path: Path) -> None:
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5")
    convert(source, tmp_path / "a.zarr", workers=0)
    (tmp_path / "s").rename(tmp_path / "t")
    report = verify(tmp_path / "a.zarr", sources=tmp_path / "t", workers=0)
    assert [violation.text for violation in report.violations] == ["tasks/suite/bytes: not what the sources say"]

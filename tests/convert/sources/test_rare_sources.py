"""Sources that are rare and right: each was once converted wrongly, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.sources.detect import detect_alignment
from robozarr.schemas.errors import IncompleteStoreError, SourceError
from robozarr.schemas.index import Alignment, StepFlag


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
    source = synthetic.write_robomimic(tmp_path / "a.hdf5", lengths=(3, 2), size=8)
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
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(12, 14), drop_keys=few_keys.OF_LIBERO)
    convert(source, tmp_path / "all.zarr", workers=0)
    convert(source, tmp_path / "few.zarr", workers=0, keys=["agentview_rgb"])
    whole, few = (robozarr.open_store(tmp_path / name) for name in ("all.zarr", "few.zarr"))
    assert np.array_equal(whole.index.flags, few.index.flags)
    assert few.episodes.alignment.tolist() == [Alignment.AFTER] * 2
    assert verify(tmp_path / "few.zarr", sources=source, workers=0).ok


def test_a_renamed_folder_of_sources_is_found_by_name_and_size(tmp_path: Path) -> None:
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", drop_keys=few_keys.OF_LIBERO)
    convert(source, tmp_path / "a.zarr", workers=0)
    (tmp_path / "s").rename(tmp_path / "t")
    report = verify(tmp_path / "a.zarr", sources=tmp_path / "t", workers=0)
    assert [violation.text for violation in report.violations] == ["tasks/suite/bytes: not what the sources say"]


def test_demos_without_a_joint_key_in_common_have_no_still_steps(tmp_path: Path) -> None:
    synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(12,), size=8, drop_keys=few_keys.OF_LIBERO)
    synthetic.write_libero(
        tmp_path / "s" / "b_demo.hdf5", lengths=(12,), size=8, drop_keys=(*few_keys.OF_LIBERO, "obs/joint_states")
    )
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0, keys=["agentview_rgb"])
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert store.metadata.joint_key is None
    assert not (store.index.flags & StepFlag.STILL).any()
    assert verify(tmp_path / "a.zarr", sources=tmp_path / "s", workers=0).ok


@pytest.mark.parametrize("rewards", [np.float64(1), np.zeros((4, 0)), np.ones(3)])
def test_evidence_is_taken_from_steps_only(tmp_path: Path, rewards: NDArray[Any]) -> None:
    demo = {"actions": actions(4), "obs/joint_states": np.zeros((4, 0)), "states": np.zeros((4, 0)), "rewards": rewards}
    source = write(tmp_path / "a.hdf5", [demo])
    convert(source, tmp_path / "a.zarr", workers=0, keys=["actions"])
    assert robozarr.open_store(tmp_path / "a.zarr").episodes.success.tolist() == [-1]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow(reason="starts workers"))])
def test_a_broken_gzip_chunk_stops_the_run_names_the_demo_and_leaves_no_temporary(tmp_path: Path, workers: int) -> None:
    source = synthetic.write_robomimic(tmp_path / "a.hdf5", size=20, next_obs=False, drop_keys=few_keys.OF_ROBOMIMIC)
    with h5py.File(source) as file:
        chunk = file["data/demo_1/obs/agentview_image"].id.get_chunk_info(0)
    with source.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * min(16, chunk.size))
    store = tmp_path / "a.zarr"
    with pytest.raises(SourceError, match=r"a\.hdf5 · demo_1 · obs/agentview_image: steps 0 to \d+ cannot be read"):
        convert(source, store, workers=workers)
    assert [path.name for path in store.rglob(".*robozarr-tmp")] == [".convert.robozarr-tmp"]  # the journal, to go on with
    with pytest.raises(IncompleteStoreError, match="has not finished"):
        robozarr.open_store(store)

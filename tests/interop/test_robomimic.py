"""Every sample of the robomimic adapter equals what the real package from PyPI reads of the same demos; `make test-interop`."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from robomimic.utils.dataset import SequenceDataset as Upstream

import synthetic
from robozarr.convert import convert
from robozarr.loader.adapters.robomimic import SequenceDataset

REAL = Path(__file__).parents[3] / "shared" / "data" / "libero"
SAMPLE = Path(__file__).parents[2] / "sample"
ROBOMIMIC_OBS = ["agentview_image", "robot0_eye_in_hand_image", "robot0_joint_pos", "robot0_eef_quat", "object"]
LIBERO_OBS = ["agentview_rgb", "eye_in_hand_rgb", "joint_states", "gripper_states", "ee_pos"]
PADDING = list(product((1, 2, 3), (1, 4), (True, False), (True, False)))


def assert_equal(ours: Any, theirs: Any, where: str) -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for name in theirs:
            assert_equal(ours[name], theirs[name], f"{where}.{name}")
        return
    assert ours.dtype == theirs.dtype, (where, ours.dtype, theirs.dtype)
    np.testing.assert_array_equal(ours, theirs, err_msg=where, strict=True)


def compare(store: Path, file: Path, obs: list[str], **options: Any) -> int:
    keys = ["actions", "rewards", "dones"]
    theirs = Upstream(str(file), obs, keys, **options)
    own: dict[str, Any] = {"repeat_last_obs": True} if options.get("load_next_obs") and "robomimic" not in file.name else {}
    ours = SequenceDataset(store, obs, keys, **options, **own)
    assert len(ours) == len(theirs) > 0
    for index in range(len(theirs)):
        assert_equal(ours[index], theirs[index], f"{options} · {index}")
    n = 0
    for batch in ours.loader(7, shuffle=False):  # the fast path has the same samples in the same order
        for row in range(len(batch["actions"])):
            assert_equal(_row(batch, row), theirs[n], f"{options} · batch {n}")
            n += 1
    assert n == len(theirs)
    return n


def _row(batch: Any, row: int) -> Any:
    return {name: _row(value, row) if isinstance(value, dict) else value[row].numpy() for name, value in batch.items()}


@pytest.fixture(scope="module")
def robomimic_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("robomimic")
    # next_obs_equal=False: one key's next_obs differs from obs one step later, and so the store holds it
    file = synthetic.write_robomimic(folder / "robomimic.hdf5", lengths=(9, 7, 8), size=24, next_obs_equal=False)
    convert(file, folder / "r.zarr", workers=0)
    return file, folder / "r.zarr"


@pytest.mark.parametrize(("frame_stack", "seq_length", "pad_stack", "pad_seq"), PADDING)
@pytest.mark.parametrize("split", [None, "train", "valid"])
def test_a_robomimic_file(
    robomimic_file: tuple[Path, Path], frame_stack: int, seq_length: int, pad_stack: bool, pad_seq: bool, split: str | None
) -> None:
    file, store = robomimic_file
    compare(
        store, file, ROBOMIMIC_OBS, frame_stack=frame_stack, seq_length=seq_length, pad_frame_stack=pad_stack,
        pad_seq_length=pad_seq, get_pad_mask=True, filter_by_attribute=split, load_next_obs=False,
    )  # fmt: skip


@pytest.mark.parametrize("cache", [None, "low_dim"])
@pytest.mark.parametrize("mask", [True, False])
def test_cache_mode_decides_the_dtype(robomimic_file: tuple[Path, Path], cache: Any, mask: bool) -> None:
    import robomimic.utils.obs_utils as obs_utils

    obs_utils.initialize_obs_utils_with_obs_specs(
        {"obs": {"low_dim": ["robot0_joint_pos", "robot0_eef_quat", "object"],
                 "rgb": ["agentview_image", "robot0_eye_in_hand_image"]}}
    )  # fmt: skip
    file, store = robomimic_file
    compare(
        store, file, ROBOMIMIC_OBS, frame_stack=2, seq_length=3, get_pad_mask=mask, hdf5_cache_mode=cache, load_next_obs=False
    )


@pytest.mark.parametrize(("frame_stack", "seq_length", "pad_stack", "pad_seq"), PADDING)
@pytest.mark.parametrize("goal_mode", [None, "last"])
def test_next_obs_that_the_store_holds(
    robomimic_file: tuple[Path, Path], frame_stack: int, seq_length: int, pad_stack: bool, pad_seq: bool, goal_mode: Any
) -> None:
    file, store = robomimic_file
    compare(
        store, file, ["robot0_eef_pos"], frame_stack=frame_stack, seq_length=seq_length, pad_frame_stack=pad_stack,
        pad_seq_length=pad_seq, get_pad_mask=True, load_next_obs=True, goal_mode=goal_mode,
    )  # fmt: skip


@pytest.mark.parametrize(("frame_stack", "seq_length"), [(1, 1), (2, 3), (3, 4)])
def test_next_obs_that_the_store_does_not_hold(robomimic_file: tuple[Path, Path], frame_stack: int, seq_length: int) -> None:
    """All are upstream's but the one of an episode's last step, which the store says that it lost."""
    file, store = robomimic_file
    options: dict[str, Any] = {"frame_stack": frame_stack, "seq_length": seq_length, "load_next_obs": True}
    theirs = Upstream(str(file), ["robot0_joint_pos"], ["actions"], **options)
    ours = SequenceDataset(store, ["robot0_joint_pos"], ["actions"], repeat_last_obs=True, **options)
    compared = 0
    lengths = theirs._demo_id_to_demo_length
    for index in range(len(theirs)):
        demo = theirs._index_to_demo_id[index]
        step = index - theirs._demo_id_to_start_indices[demo]
        steps = np.clip(step + np.arange(1 - frame_stack, seq_length), 0, lengths[demo] - 1)
        known = steps < lengths[demo] - 1
        mine, real = ours[index]["next_obs"]["robot0_joint_pos"], theirs[index]["next_obs"]["robot0_joint_pos"]
        np.testing.assert_array_equal(mine[known], real[known], err_msg=str(index))
        np.testing.assert_array_equal(mine[~known], np.repeat(ours[index]["obs"]["robot0_joint_pos"][-1:], (~known).sum(), 0))
        compared += int(known.sum())
    assert compared > 0


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_a_libero_file(frame_stack: int, tmp_path: Path) -> None:
    files = sorted(REAL.glob("libero_goal/*.hdf5")) or sorted(SAMPLE.glob("libero_goal/*.hdf5"))
    convert(files[0], tmp_path / "l.zarr", workers=0)
    n = compare(
        tmp_path / "l.zarr", files[0], LIBERO_OBS, frame_stack=frame_stack, seq_length=10, get_pad_mask=True,
        load_next_obs=False,
    )  # fmt: skip
    print(f"{n} samples of {files[0].name}")

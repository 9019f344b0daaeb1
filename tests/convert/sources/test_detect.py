"""Flags against the loops of the scripts they come from; alignment on demos that were recorded either way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from robozarr.convert.sources.detect import detect_alignment, detect_flags, detect_image_convention, detect_success, json_object
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence, StepFlag

Floats = NDArray[np.float64]
RULES = FlagRules()

# Around the threshold of 1e-4 and on it, and mostly nothing, so that runs of no-ops appear.
arm = st.sampled_from([0.0, 0.0, 0.0, 3e-5, -9e-5, 1e-4, 1.1e-4, 0.5])
gripper = st.sampled_from([-1.0, 1.0, 0.0])
actions = st.lists(st.tuples(arm, arm, gripper), min_size=1, max_size=40).map(lambda rows: np.array(rows))
joint_paths = st.lists(st.tuples(*[st.sampled_from([0.0, 0.0, 0.0, 0.009, 0.01, -0.011, 0.5])] * 2), min_size=1, max_size=30)


def steps(flags: NDArray[np.uint8], flag: StepFlag) -> list[bool]:
    return [bool(x & flag) for x in flags]


# --- no-ops: the loop of OpenVLA's regenerate_libero_dataset.py, word for word what it decides ---


def openvla_is_noop(action: Floats, prev_action: Floats | None, threshold: float = 1e-4) -> bool:
    if prev_action is None:
        return bool(np.linalg.norm(action[:-1]) < threshold)
    return bool(np.linalg.norm(action[:-1]) < threshold and action[-1] == prev_action[-1])


def openvla_skips(orig_actions: Floats) -> Iterator[bool]:
    kept: list[Floats] = []
    for action in orig_actions:
        prev_action = kept[-1] if len(kept) > 0 else None
        noop = openvla_is_noop(action, prev_action)
        if not noop:
            kept.append(action)
        yield noop


@given(actions=actions)
def test_noops_are_those_that_openvla_skips(actions: Floats) -> None:
    flags = detect_flags(actions, None, RULES)
    assert steps(flags, StepFlag.NOOP) == list(openvla_skips(actions))


def test_a_still_gripper_change_is_kept_and_what_follows_is_judged_by_it() -> None:
    closing = np.array([[0, -1], [1, -1], [0, -1], [0, 1], [0, 1], [0, -1]], np.float64)
    flags = detect_flags(closing, None, RULES)
    assert steps(flags, StepFlag.NOOP) == [True, False, True, False, True, False]


# --- still starts: RDT's hdf5_vla_dataset.py begins an episode at first_idx - 1 ---


def rdt_begins_at(qpos: Floats) -> int | None:
    moved = [t for t in range(len(qpos)) if any(abs(qpos[t, j] - qpos[0, j]) > 1e-2 for j in range(qpos.shape[1]))]
    return moved[0] - 1 if moved else None


@given(rows=joint_paths)
def test_still_steps_are_those_before_rdt_begins(rows: list[tuple[float, ...]]) -> None:
    qpos = np.array(rows) + 0.25
    flags = detect_flags(np.ones((len(qpos), 7)), qpos, RULES)
    begin = rdt_begins_at(qpos)
    assert steps(flags, StepFlag.STILL) == [begin is None or t < begin for t in range(len(qpos))]


def test_without_joints_no_step_is_still() -> None:
    assert not (detect_flags(np.zeros((5, 7)), None, RULES) & StepFlag.STILL).any()


# --- key moments ---


@given(actions=actions, k=st.integers(0, 6))
def test_key_moments_lie_around_gripper_changes(actions: Floats, k: int) -> None:
    flags = detect_flags(actions, None, FlagRules(key_moment_steps=k))
    sign = [(x > 0) - (x < 0) for x in actions[:, -1].tolist()]
    changes = [c for c in range(1, len(sign)) if sign[c] != sign[c - 1]]
    assert steps(flags, StepFlag.KEY_MOMENT) == [any(abs(t - c) <= k for c in changes) for t in range(len(actions))]


@given(actions=actions, rows=joint_paths)
def test_flags_do_not_see_each_other(actions: Floats, rows: list[tuple[float, ...]]) -> None:
    n = min(len(actions), len(rows))
    flags = detect_flags(actions[:n], np.array(rows)[:n], RULES)
    assert flags.dtype == np.uint8
    assert flags.shape == (n,)
    still_arm, moving = np.zeros((n, 2)), np.ones((n, 7))
    assert steps(flags, StepFlag.NOOP) == steps(detect_flags(actions[:n], still_arm, RULES), StepFlag.NOOP)
    assert steps(flags, StepFlag.STILL) == steps(detect_flags(moving, np.array(rows)[:n], RULES), StepFlag.STILL)


def test_thresholds_are_those_that_are_given() -> None:
    rules = FlagRules(noop_threshold=2.0, still_threshold=3.0, key_moment_steps=0)
    walk = np.arange(6.0)[:, None]
    flags = detect_flags(np.hstack([walk, np.ones((6, 1))]), walk, rules)
    assert steps(flags, StepFlag.NOOP) == [True, True, False, False, False, False]
    assert steps(flags, StepFlag.STILL) == [True, True, True, False, False, False]  # moves at 4, begins at 3


def test_infinite_joints_are_no_alarm() -> None:
    joints = np.zeros((3, 2))
    joints[0, 0] = np.inf
    assert detect_flags(np.ones((3, 7)), joints, RULES).shape == (3,)


# --- alignment ---

demos = st.tuples(st.integers(0, 2**32), st.integers(4, 40), st.integers(1, 9), st.integers(0, 20))


def simulate(seed: int, n: int, n_joints: int, n_objects: int) -> tuple[Floats, Floats]:
    """Joint positions [n + 1, joint] of an arm that always moves, and simulator states [n + 1, …] around them."""
    rng = np.random.default_rng(seed)
    joints = np.cumsum(rng.choice([-1, 1], (n + 1, n_joints)) * rng.uniform(0.01, 0.05, (n + 1, n_joints)), axis=0)
    time = 0.25 + 0.05 * np.arange(n + 1)[:, None]
    return joints, np.hstack([time, joints, rng.normal(size=(n + 1, n_objects)), np.gradient(joints, axis=0)])


@given(demo=demos, noise=st.sampled_from([0.0, 1e-6, 3e-4]))
def test_alignment_is_found_either_way(demo: tuple[int, int, int, int], noise: float) -> None:
    joints, states = simulate(*demo)
    rng = np.random.default_rng(1)
    seen = joints + rng.uniform(-noise, noise, joints.shape)
    alignment, (before, after) = detect_alignment(seen[1:], states[:-1])
    assert alignment is Alignment.AFTER
    assert after <= noise < before
    alignment, (before, after) = detect_alignment(seen[:-1], states[:-1])
    assert alignment is Alignment.BEFORE
    assert before <= noise < after


@given(demo=demos)
def test_the_first_state_does_not_count(demo: tuple[int, int, int, int]) -> None:
    """OpenVLA's script writes states[0] from before its ten settling steps."""
    joints, states = simulate(*demo)
    states[0] += 1
    assert detect_alignment(joints[:-1], states[:-1])[0] is Alignment.BEFORE


@given(demo=demos)
def test_an_arm_that_rests_fits_both(demo: tuple[int, int, int, int]) -> None:
    joints, states = simulate(*demo)
    joints[:], states[:] = joints[0], states[0]
    assert detect_alignment(joints[1:], states[:-1]) == (Alignment.UNKNOWN, (0.0, 0.0))


@given(demo=demos)
def test_states_of_something_else_fit_nothing(demo: tuple[int, int, int, int]) -> None:
    joints, states = simulate(*demo)
    alignment, errors = detect_alignment(joints[1:], states[:-1] + 10)
    assert alignment is Alignment.UNKNOWN
    assert min(errors) > 1


JOINTS, STATES = simulate(0, 9, 3, 4)


@pytest.mark.parametrize(
    ("joints", "states"),
    [
        (None, STATES),
        (JOINTS, None),
        (JOINTS[:2], STATES[:2]),  # too short: step 0 is left out, and the last has no next state
        (JOINTS, STATES[:, :2]),  # fewer numbers than joints
        (np.where(JOINTS == JOINTS[4], np.nan, JOINTS), STATES),
        (JOINTS, np.where(STATES == STATES[4], np.inf, STATES)),
        (JOINTS[:, 0], STATES),
        (JOINTS, STATES[:, :, None]),
    ],
)
def test_what_cannot_be_compared_is_unknown(joints: Floats | None, states: Floats | None) -> None:
    alignment, errors = detect_alignment(joints, states)
    assert alignment is Alignment.UNKNOWN
    assert np.isnan(errors).all()


def test_huge_joints_are_no_alarm() -> None:
    joints = JOINTS.copy()
    joints[4, 1] = 1e200
    assert detect_alignment(joints, STATES)[0] is Alignment.UNKNOWN


def test_real_demos_were_recorded_after(sample: Any) -> None:
    for path in sample.rglob("*.hdf5"):
        with h5py.File(path) as file:
            for demo in file["data"].values():
                joints, states = demo["obs/joint_states"][...], demo["states"][...]
                alignment, (before, after) = detect_alignment(joints, states)
                assert alignment is Alignment.AFTER
                assert after == 0 < before


# --- pictures, success, JSON ---


@pytest.mark.parametrize(
    ("convention", "env_args", "datasets", "expected"),
    [
        ("opengl", {"type": 1}, ["obs/a_image"], (ImageConvention.OPENGL, ImageEvidence.ATTRIBUTE)),
        ("opencv", {}, ["obs/agentview_rgb"], (ImageConvention.OPENCV, ImageEvidence.ATTRIBUTE)),
        ("vulkan", {}, ["obs/agentview_rgb"], (ImageConvention.OPENGL, ImageEvidence.KEY_NAMES)),
        (None, {"type": 1}, ["obs/agentview_image"], (ImageConvention.OPENCV, ImageEvidence.ROBOMIMIC)),
        (None, {"type": 1}, ["obs/agentview_rgb"], (ImageConvention.OPENGL, ImageEvidence.KEY_NAMES)),
        (None, {}, ["obs/agentview_image"], (ImageConvention.UNKNOWN, ImageEvidence.NONE)),
        (None, {}, ["obs/eye_in_hand_rgb"], (ImageConvention.OPENGL, ImageEvidence.KEY_NAMES)),
        (None, {}, ["agentview_rgb", "obs/front_rgb"], (ImageConvention.UNKNOWN, ImageEvidence.NONE)),
        (None, {}, [], (ImageConvention.UNKNOWN, ImageEvidence.NONE)),
    ],
)
def test_image_conventions(
    convention: str | None, env_args: dict[str, Any], datasets: list[str], expected: tuple[ImageConvention, ImageEvidence]
) -> None:
    assert detect_image_convention(convention, env_args, iter(datasets)) == expected


@given(rewards=hnp.arrays(np.float64, st.integers(1, 20), elements=st.sampled_from([0.0, 1.0])))
def test_only_robomimics_rewards_tell_success(rewards: Floats) -> None:
    assert detect_success(True, rewards) == int(1.0 in rewards.tolist())
    assert detect_success(False, rewards) == -1


@pytest.mark.parametrize("rewards", [None, np.array([0, 0.5, 1]), np.array([-1, 0]), np.array([np.nan, 1])])
def test_dense_rewards_do_not_tell_success(rewards: Floats | None) -> None:
    assert detect_success(True, rewards) == -1


@pytest.mark.parametrize("text", [None, 3, b"{}", "", "{", "[1]", "null", '"text"', "1" * 5000])
def test_what_is_no_json_object_is_empty(text: object) -> None:
    assert json_object(text) == {}


def test_a_json_object_is_itself() -> None:
    assert json_object('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}

"""Infer facts about a demo from its numbers and names: alignment, image convention, flags, success. Pure.

Every rule is somebody's, and cited; every conclusion is recorded with its evidence, never baked into the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence, StepFlag

__all__ = [
    "control_frequency",
    "detect_alignment",
    "detect_flags",
    "detect_image_convention",
    "detect_success",
    "first_not_finite",
    "json_object",
    "success_of",
]

ALIGNMENT_TOLERANCE_RAD: Final = 1e-3
"""Largest rms distance at which joint positions belong to a simulator state: LIBERO's agree exactly, replayed ones to
rounding, and one step of a moving arm is some hundredths of a radian."""

BLOCK_STEPS: Final = 1024
"""Steps that are compared with all columns at once: some MB."""

Floats = NDArray[np.float64]


def detect_alignment(joints: NDArray[Any] | None, states: NDArray[Any] | None) -> tuple[Alignment, tuple[float, float]]:
    """Whether a demo's observations were recorded before or after the action of the same step.

    Parameters
    ----------
    joints : float64 [step, joint]
        Observed joint positions, rad.
    states : float64 [step, n]
        Simulator states recorded before the action: time, qpos, qvel.

    Returns
    -------
    alignment : Alignment
        The recording that fits within 1e-3 rad (rms) and twice better than the other, else UNKNOWN (an arm that never
        moves fits both).
    errors : (float, float)
        rms of joints[t] - states[t] and of joints[t] - states[t + 1] at the columns that fit best, rad; NaN where not
        to be had. Step 0 is left out: OpenVLA's script writes its state from ten settling steps earlier.

    Examples
    --------
    >>> path = np.linspace(0, 1, 9)[:, None]
    >>> detect_alignment(path[1:], np.hstack([path[:-1], path[:-1]]))[0]
    <Alignment.AFTER: 1>
    """
    nowhere = (float("nan"), float("nan"))
    if joints is None or states is None:
        return Alignment.UNKNOWN, nowhere
    joints, states = np.asarray(joints, np.float64), np.asarray(states, np.float64)
    if states.ndim != 2 or joints.ndim != 2 or len(joints) < 3:
        return Alignment.UNKNOWN, nowhere
    n_joints, n_columns = joints.shape[1], states.shape[1]
    if n_columns < n_joints or not (np.isfinite(joints).all() and np.isfinite(states).all()):
        return Alignment.UNKNOWN, nowhere
    before, after = _best_rms(joints[1:-1], states[1:-1]), _best_rms(joints[1:-1], states[2:])
    best = min(before, after)
    if best > ALIGNMENT_TOLERANCE_RAD or max(before, after) <= 2 * best:
        return Alignment.UNKNOWN, (before, after)
    return (Alignment.AFTER if after < before else Alignment.BEFORE), (before, after)


def _best_rms(joints: Floats, states: Floats) -> float:
    """Smallest rms distance of joints [step, joint] to as many neighbouring columns of states [step, n]."""
    n_joints = joints.shape[1]
    squares = np.zeros(states.shape[1] - n_joints + 1)
    for start in range(0, len(joints), BLOCK_STEPS):
        block = slice(start, start + BLOCK_STEPS)
        columns = np.lib.stride_tricks.sliding_window_view(states[block], n_joints, axis=1)
        with np.errstate(over="ignore"):  # joints beyond all measure fit nowhere
            squares += np.square(joints[block, None] - columns).sum(axis=(0, 2))
    return float(np.sqrt(squares.min() / joints.size))


def detect_image_convention(
    convention: str | None, env_args: Mapping[str, Any], datasets: Iterable[str]
) -> tuple[ImageConvention, ImageEvidence]:
    """Which way up a file's pictures are, and the evidence for that.

    >>> detect_image_convention("opengl", {}, [])
    (<ImageConvention.OPENGL: 0>, <ImageEvidence.ATTRIBUTE: 1>)
    """
    names = list(datasets)
    if convention in ("opengl", "opencv"):
        return ImageConvention[convention.upper()], ImageEvidence.ATTRIBUTE
    if env_args.get("type") == 1 and any(name.endswith("_image") for name in names):
        return ImageConvention.OPENCV, ImageEvidence.ROBOMIMIC
    if any(name in ("obs/agentview_rgb", "obs/eye_in_hand_rgb") for name in names):
        return ImageConvention.OPENGL, ImageEvidence.KEY_NAMES
    return ImageConvention.UNKNOWN, ImageEvidence.NONE


def detect_flags(actions: NDArray[Any], joints: NDArray[Any] | None, rules: FlagRules) -> NDArray[np.uint8]:
    """Flags of each step of a demo, by the rules of ``FlagRules.to_json``.

    Parameters
    ----------
    actions : float [step, n]
        Commands; ``rules.gripper`` says which one is the gripper's.
    joints : float [step, joint] or None
        Observed joint positions, rad; without them no step is called still.
    rules : FlagRules
        Thresholds.

    Returns
    -------
    flags : uint8 [step]
        Bits of ``StepFlag``.
    """
    n = len(actions)
    flags = np.zeros(n, np.uint8)
    if joints is not None:
        with np.errstate(invalid="ignore"):  # infinite joints are never nearer than the threshold
            distance = np.abs(np.subtract(joints, joints[:1], dtype=np.float64))
        moved = np.flatnonzero((distance > rules.still_threshold).reshape(n, -1).any(axis=1))
        flags[: max(0, int(moved[0]) - 1) if len(moved) else n] |= np.uint8(StepFlag.STILL)
    if isinstance(rules.gripper, int):
        gripper = np.asarray(actions[:, rules.gripper], np.float64)
        arm = np.asarray(np.delete(actions, [rules.gripper, *rules.switches], axis=1), np.float64)
        flags[_noops(np.linalg.norm(arm, axis=1) < rules.noop_threshold, gripper)] |= np.uint8(StepFlag.NOOP)
        for change in np.flatnonzero(np.diff(np.sign(gripper))) + 1:
            k = rules.key_moment_steps
            flags[max(0, change - k) : change + k + 1] |= np.uint8(StepFlag.KEY_MOMENT)
    return flags


def _noops(still: NDArray[np.bool_], gripper: Floats) -> NDArray[np.bool_]:
    """Flag no-ops. OpenVLA's rule compares the gripper with the last action *kept*, so a run of no-ops has one reference."""
    noop = np.zeros(len(still), np.bool_)
    kept: int | None = None
    for t in range(len(still)):
        noop[t] = still[t] and (kept is None or gripper[t] == gripper[kept])
        if not noop[t]:
            kept = t
    return noop


def detect_success(robomimic: bool, rewards: NDArray[Any] | None) -> int:
    """1, 0, or -1 for unknown.

    LIBERO's script ends every demo with done = reward = 1, and OpenVLA's does the same, so neither can tell. robomimic's
    sparse rewards (0 or 1) are 1 wherever the task is solved.
    """
    if not robomimic or rewards is None or not np.isin(rewards, (0, 1)).all():
        return -1
    return int((rewards == 1).any())


def success_of(value: object, rule: str) -> int:
    """Success as 1, 0, or -1 for unknown, from recorded bools or 0 and 1, for the episode or for each step.

    >>> success_of(np.bool_(True), "last"), success_of(np.array([True, False]), "any"), success_of("yes", "last")
    (1, 1, -1)
    """
    if isinstance(value, bytes | str) or value is None:
        return -1
    values = np.asarray(value).reshape(-1)
    if values.dtype.kind not in "biuf" or not len(values) or not np.isin(values, (0, 1)).all():
        return -1
    return int(values.any() if rule == "any" else values[-1])


def control_frequency(env_args: Mapping[str, Any]) -> float | None:
    """Steps per second as ``env_args`` states it; None if it states no valid value.

    >>> control_frequency({"env_kwargs": {"control_freq": 20}}), control_frequency({"env_kwargs": None})
    (20.0, None)
    """
    arguments = env_args.get("env_kwargs")
    value = arguments.get("control_freq") if isinstance(arguments, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        return None
    return float(value)


def json_object(text: object) -> dict[str, Any]:
    """The object in a JSON attribute; {} if there is none. Attributes are evidence here, not data."""
    if not isinstance(text, str):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # also numbers and nesting beyond all measure
        return {}
    return value if isinstance(value, dict) else {}


def first_not_finite(actions: NDArray[Any]) -> str:
    """The first value of [steps, n] that is not finite, in words; "" if all are finite.

    >>> first_not_finite(np.array([[0.0, 1.0], [np.inf, 2.0]]))
    'inf at step 1, column 0'
    """
    at = np.argwhere(~np.isfinite(actions))
    return f"{actions[tuple(at[0])]} at step {at[0][0]}, column {at[0][1]}" if len(at) else ""

"""Demonstrations: recorded from the scripted demonstrator, written as LIBERO writes its files, without cameras.

As in LIBERO's files, observations are those *after* the action of their step and states those before it; robozarr finds that
out by itself when it converts the file. This module needs h5py to write, and a simulator to record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from tail.expert import Expert, Phase, rotation_of
from tail.observation import OBS

if TYPE_CHECKING:
    from tail.stepper import Simulator

__all__ = ["MAX_STEPS", "Demo", "record", "write_hdf5"]

F64 = NDArray[np.float64]

MAX_STEPS: Final = 320
INSTRUCTION: Final = "put the bowl on the plate"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demo:
    """One demonstration of T steps."""

    seed: int
    obs: F64
    """float64 [T + 1, 30]: before each action, and after the last one."""
    actions: F64
    """float64 [T, 7]"""
    states: F64
    """float64 [T, 1 + nq + nv]: before each action."""


def record(simulator: Simulator, seed: int, *, rim: float, depth: float) -> Demo | None:
    """Record one demonstration; None where it did not succeed: the bowl on the plate, let go, for some steps."""
    obs = simulator.reset(seed)
    expert = Expert(np.random.default_rng(seed), obs, rim=rim, depth=depth)
    observed, actions, states = [obs], list[F64](), list[F64]()
    n_rested = 0
    while len(actions) < MAX_STEPS and n_rested < expert.rest:
        action = expert.act(obs)
        states.append(simulator.state())
        simulator.step(action)
        obs = simulator.obs()
        actions.append(action)
        observed.append(obs)
        if expert.phase is Phase.RETREAT and simulator.on_plate() and not simulator.touching():
            n_rested += 1
    if n_rested < expert.rest:
        return None
    return Demo(seed=seed, obs=np.array(observed), actions=np.array(actions), states=np.array(states))


def write_hdf5(demos: Sequence[Demo], path: Path) -> None:
    """Write demonstrations as a file of LIBERO."""
    text = h5py.string_dtype()
    robot = {"control_freq": 20, "controller": "OSC_POSE", "robots": ["Panda"]}
    env_name = "Libero_Tabletop_Manipulation"
    problem = {"problem_name": env_name.lower(), "domain_name": "robosuite", "language_instruction": INSTRUCTION}
    attributes = {
        "bddl_file_name": f"{INSTRUCTION.replace(' ', '_')}.bddl",
        "bddl_file_content": "",
        "env_name": env_name,
        "macros_image_convention": "opengl",
        "tag": "libero-v1",
        "env_args": json.dumps({"type": 1, "env_name": env_name, "env_kwargs": robot}),
        "problem_info": json.dumps(problem),
    }
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, value in attributes.items():
            data.attrs.create(name, value, dtype=text)
        data.attrs["num_demos"] = len(demos)
        data.attrs["total"] = sum(len(demo.actions) for demo in demos)
        for number, demo in enumerate(demos):
            group = data.create_group(f"demo_{number}")
            group.attrs["num_samples"] = len(demo.actions)
            group.attrs["init_state"] = demo.states[0]
            group.attrs.create("model_file", "", dtype=text)
            for key, values in _datasets(demo).items():
                group[key] = values


def _datasets(demo: Demo) -> dict[str, NDArray[np.generic]]:
    before, after = demo.obs[:-1], demo.obs[1:]
    last = np.zeros(len(demo.actions), np.uint8)
    last[-1] = 1
    turned = np.array([_axis_angle(rotation_of(row[OBS["ee_rot"]])) for row in after])
    quaternions = np.array([_quaternion(rotation_of(row[OBS["ee_rot"]])) for row in before])
    return {
        "actions": demo.actions,
        "states": demo.states,
        "robot_states": np.concatenate([before[:, OBS["gripper"]], before[:, OBS["ee_pos"]], quaternions], 1),
        "rewards": last,
        "dones": last,
        "obs/ee_pos": after[:, OBS["ee_pos"]],
        "obs/ee_ori": turned,
        "obs/ee_states": np.concatenate([after[:, OBS["ee_pos"]], turned], 1),
        "obs/gripper_states": after[:, OBS["gripper"]],
        "obs/joint_states": after[:, OBS["joints"]],
        "obs/ee_rot": after[:, OBS["ee_rot"]],
        "obs/bowl_pos": after[:, OBS["bowl_pos"]],
        "obs/bowl_rot": after[:, OBS["bowl_rot"]],
        "obs/plate_pos": after[:, OBS["plate_pos"]],
    }


def _quaternion(R: F64) -> F64:
    """x, y, z, w of a rotation matrix."""
    # the eigenvector of the largest eigenvalue is the quaternion, whatever the angle (Bar-Itzhack, 2000)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = R
    K = np.array(
        [
            [xx - yy - zz, 0, 0, 0],
            [yx + xy, yy - xx - zz, 0, 0],
            [zx + xz, zy + yz, zz - xx - yy, 0],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    _, vectors = np.linalg.eigh(K / 3)  # of the lower triangle
    q: F64 = vectors[:, -1]
    return q if q[3] >= 0 else -q


def _axis_angle(R: F64) -> F64:
    """A rotation vector, rad: LIBERO's ``ee_ori``."""
    q = _quaternion(R)
    sine = float(np.linalg.norm(q[:3]))
    return q[:3] * (2 * np.arctan2(sine, q[3]) / sine if sine else 2.0)

"""Steps a scene of robosuite by robosuite's own control law, seven times as fast as robosuite does.

In each of the 25 substeps of a control step robosuite 1.4.1 calls ``mj_forward`` twice and ``mj_step`` once, and updates all
observables. Here the same torques are computed between ``mj_step1`` and ``mj_step2``, and all substeps are one compiled call
(``kernel.py``). Where MuJoCo's library cannot be found the same is done in Python, at half the speed. ``tests/experiments``
compares both with robosuite's ``step``.
"""

from __future__ import annotations

from typing import Any, Final

import mujoco
import numpy as np
import robosuite.utils.transform_utils as T
from numpy.typing import NDArray

from tail.kernel import compile_substeps, osc

__all__ = ["Simulator"]

F64 = NDArray[np.float64]

SETTLE_STEPS: Final = 8
"""Control steps after a reset, hand open, in which objects come to rest."""


class Simulator:
    """A scene that is stepped by actions in [-1, 1]: move [3], turn [3], gripper (-1 opens, +1 closes).

    Parameters
    ----------
    scene : environment of robosuite
        With one Panda under OSC_POSE; ``obj_body_id`` holds the bodies of its objects by name.
    bowl, plate : str
        Their names there.
    compiled : bool
        False: in Python, which is the fallback.
    """

    def __init__(self, scene: Any, bowl: str, plate: str, *, compiled: bool = True) -> None:
        self.scene = scene
        sim, robot = scene.sim, scene.robots[0]
        self.m, self.d = sim.model._model, sim.data._data
        self.site = int(sim.model.site_name2id(robot.controller.eef_name))
        self.arm = np.array(robot._ref_joint_actuator_indexes)
        self.fingers = np.array([sim.model.actuator_name2id(name) for name in robot.gripper.actuators])
        self.finger_qpos = np.array(robot._ref_gripper_joint_pos_indexes)
        for indexes in (robot._ref_joint_vel_indexes, robot._ref_joint_pos_indexes):
            assert list(indexes) == list(range(7)), "the arm's joints come first in the model"
        self.low, self.high = (np.array(limit, float) for limit in robot.torque_limits)
        span = self.m.actuator_ctrlrange[self.fingers]
        self.grip_mid, self.grip_half = 0.5 * (span[:, 1] + span[:, 0]), 0.5 * (span[:, 1] - span[:, 0])
        self.bowl, self.plate = int(scene.obj_body_id[bowl]), int(scene.obj_body_id[plate])
        self.jp, self.jr = np.zeros((3, self.m.nv)), np.zeros((3, self.m.nv))
        self.M, self.tau = np.zeros((self.m.nv, self.m.nv)), np.zeros(7)
        self.n_substeps = round(scene.control_timestep / scene.model_timestep)
        self._is_finger = np.zeros(self.m.ngeom, np.bool_)
        for part in ("left_finger", "right_finger"):
            for name in robot.gripper.important_geoms[part]:
                self._is_finger[sim.model.geom_name2id(name)] = True
        root = self.m.body_rootid
        self._is_bowl = root[self.m.geom_bodyid] == root[self.bowl]
        self._compiled = compile_substeps() if compiled else None
        self.adopt()

    def reset(self, seed: int) -> F64:
        """Begin anew: objects and joints by the seed; returns the first observation."""
        np.random.seed(seed)  # noqa: NPY002 - robosuite and LIBERO draw from it
        self.scene.reset()
        self.adopt()
        for _ in range(SETTLE_STEPS):
            self.step(np.array([0.0, 0, 0, 0, 0, 0, -1]))
        return self.obs()

    def adopt(self) -> None:
        """Take the controller's state over from robosuite."""
        controller = self.scene.robots[0].controller
        self.q0 = np.array(controller.initial_joint)
        self.goal_R, self.goal_pos = np.array(controller.goal_ori), np.array(controller.goal_pos)
        self.grip = np.array(self.scene.robots[0].gripper.current_action, float) * np.ones(2)

    def step(self, action: NDArray[np.floating[Any]]) -> None:
        """One control step: 25 substeps of 2 ms."""
        a = np.clip(np.asarray(action, np.float64), -1, 1)
        set_R = bool(np.any(a[3:6] != 0))
        turn = np.asarray(T.quat2mat(T.axisangle2quat(0.5 * a[3:6])), np.float64) if set_R else np.eye(3)
        if self._compiled is None:
            return self._step_in_python(a, turn, set_R)
        m, d = self.m, self.d
        self._compiled(
            self.n_substeps, m._address, d._address, d.qM.ctypes.data, self.site, a, turn, set_R, self.q0, self.goal_pos,
            self.goal_R, d.site_xpos, d.site_xmat, d.qpos, d.qvel, d.qfrc_bias, d.ctrl, self.arm, self.fingers, self.low,
            self.high, self.grip, self.grip_mid, self.grip_half, self.jp, self.jr, self.M, self.tau,
        )  # fmt: skip
        return None

    def _step_in_python(self, a: F64, turn: F64, set_R: bool) -> None:
        m, d = self.m, self.d
        for k in range(self.n_substeps):
            mujoco.mj_step1(m, d)
            pos, R = d.site_xpos[self.site].copy(), d.site_xmat[self.site].reshape(3, 3).copy()
            if k == 0:
                self.goal_pos = pos + 0.05 * a[:3]
                self.goal_R = turn @ R if set_R else self.goal_R
            mujoco.mj_jacSite(m, d, self.jp, self.jr, self.site)
            mujoco.mj_fullM(m, self.M, d.qM)
            jac = np.concatenate([self.jp[:, :7], self.jr[:, :7]])
            osc(
                np.ascontiguousarray(self.M[:7, :7]), jac, d.qvel[:7].copy(), d.qpos[:7].copy(), self.q0, pos, R, self.goal_pos,
                self.goal_R, d.qfrc_bias[:7].copy(), self.tau,
            )  # fmt: skip
            d.ctrl[self.arm] = np.clip(self.tau, self.low, self.high)
            s = 0.01 * np.sign(a[6])
            self.grip = np.clip(self.grip + np.array([-s, s]), -1, 1)
            d.ctrl[self.fingers] = self.grip_mid + self.grip_half * self.grip
            mujoco.mj_step2(m, d)

    def obs(self) -> F64:
        """Where everything is now: float64 [30], see ``observation.OBS``."""
        mujoco.mj_kinematics(self.m, self.d)
        d = self.d
        hand, bowl = d.site_xmat[self.site].reshape(3, 3), d.xmat[self.bowl].reshape(3, 3)
        return np.concatenate(
            [d.site_xpos[self.site], hand[:, 0], hand[:, 1], d.qpos[self.finger_qpos], d.xpos[self.bowl], bowl[:, 0],
             bowl[:, 2], d.xpos[self.plate], d.qpos[:7]]
        )  # fmt: skip

    def on_plate(self) -> bool:
        """LIBERO's criterion, by the scene's own predicate. It holds for a bowl that the hand still holds."""
        return bool(self.scene._check_success())

    def touching(self) -> bool:
        """Whether a finger touches the bowl."""
        pairs = self.d.contact.geom
        finger, bowl = self._is_finger[pairs], self._is_bowl[pairs]
        return bool((finger & bowl[:, ::-1]).any())

    def state(self) -> F64:
        """The simulator's state as LIBERO records it: time, qpos, qvel."""
        return np.concatenate([[self.d.time], self.d.qpos, self.d.qvel])

"""The control law, and the substeps of a control step as one compiled call on MuJoCo's C functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import mujoco
import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["compile_substeps", "osc"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def osc(M: F64, jac: F64, qd: F64, q: F64, q0: F64, pos: F64, R: F64, goal_pos: F64, goal_R: F64, bias: F64, out: F64) -> None:
    """Torques [7] of robosuite's OSC_POSE: kp 150, damping ratio 1, position and rotation apart, posture in the null space."""
    v = jac @ qd
    kp, kd = 150.0, 2.0 * np.sqrt(150.0)
    err = np.zeros(3)
    for c in range(3):
        err += 0.5 * np.cross(np.ascontiguousarray(R[:, c]), np.ascontiguousarray(goal_R[:, c]))
    force = kp * (goal_pos - pos) - kd * v[:3]
    torque = kp * err - kd * v[3:]
    MiJt = np.linalg.solve(M, np.ascontiguousarray(jac.T))
    inverse = jac @ MiJt
    wrench = np.empty(6)
    wrench[:3] = np.linalg.solve(np.ascontiguousarray(inverse[:3, :3]), force)
    wrench[3:] = np.linalg.solve(np.ascontiguousarray(inverse[3:, 3:]), torque)
    pose = M @ (10.0 * (q0 - q) - 2.0 * np.sqrt(10.0) * qd)
    null = pose - jac.T @ np.linalg.solve(inverse, np.ascontiguousarray(MiJt.T) @ pose)
    out[:] = jac.T @ wrench + bias + null


def compile_substeps() -> Callable[..., None] | None:
    """The substeps of one control step as one compiled call, its arguments as ``Simulator.step`` passes them.

    None where MuJoCo's library is not found.
    """
    folder = Path(mujoco.__file__).parent
    found = sorted([*folder.glob("libmujoco*.so*"), *folder.glob("libmujoco*.dylib"), *folder.glob("mujoco*.dll")])
    if not found:
        return None
    library, p = ctypes.CDLL(str(found[0])), ctypes.c_void_p
    mj_step1, mj_step2, mj_fullM, mj_jacSite = library.mj_step1, library.mj_step2, library.mj_fullM, library.mj_jacSite
    for function, arguments in (
        (mj_step1, (p, p)), (mj_step2, (p, p)), (mj_fullM, (p, p, p)), (mj_jacSite, (p, p, p, p, ctypes.c_int)),
    ):  # fmt: skip
        function.argtypes, function.restype = arguments, None

    @numba.njit  # type: ignore[untyped-decorator]
    def substeps(
        n: int, m: int, d: int, qM: int, site: int, a: F64, turn: F64, set_R: bool, q0: F64, goal_pos: F64, goal_R: F64,
        xpos: F64, xmat: F64, qpos: F64, qvel: F64, bias: F64, ctrl: F64, arm: I64, fingers: I64, low: F64, high: F64,
        grip: F64, grip_mid: F64, grip_half: F64, jp: F64, jr: F64, M: F64, tau: F64,
    ) -> None:  # fmt: skip
        jac = np.empty((6, 7))
        R = np.empty((3, 3))
        pos = np.empty(3)
        for k in range(n):
            mj_step1(m, d)
            pos[:] = xpos[site]
            for i in range(3):
                for j in range(3):
                    R[i, j] = xmat[site, 3 * i + j]
            if k == 0:
                goal_pos[:] = pos + 0.05 * a[:3]
                if set_R:
                    goal_R[:] = turn @ R
            mj_jacSite(m, d, jp.ctypes.data, jr.ctypes.data, site)
            mj_fullM(m, M.ctypes.data, qM)
            jac[:3] = jp[:, :7]
            jac[3:] = jr[:, :7]
            osc(
                np.ascontiguousarray(M[:7, :7]), jac, qvel[:7].copy(), qpos[:7].copy(), q0, pos, R, goal_pos, goal_R,
                bias[:7].copy(), tau,
            )  # fmt: skip
            for i in range(7):
                ctrl[arm[i]] = min(max(tau[i], low[i]), high[i])
            s = 0.01 * np.sign(a[6])
            grip[0] = min(max(grip[0] - s, -1.0), 1.0)
            grip[1] = min(max(grip[1] + s, -1.0), 1.0)
            for i in range(2):
                ctrl[fingers[i]] = grip_mid[i] + grip_half[i] * grip[i]
            mj_step2(m, d)

    compiled: Callable[..., None] = substeps
    return compiled

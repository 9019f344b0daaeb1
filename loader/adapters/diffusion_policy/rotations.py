"""Rotations as diffusion policy's actions have them: the first two rows of the matrix. Pure numpy.

real-stanford/diffusion_policy, diffusion_policy/dataset/robomimic_replay_image_dataset.py: _convert_actions, with pytorch3d's
matrix_to_rotation_6d (Zhou et al., On the Continuity of Rotation Representations, 2019).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError

__all__ = ["absolute_actions", "rotation_6d"]


def rotation_6d(axis_angle: NDArray[Any]) -> NDArray[np.float64]:
    """Rotations [..., 3], axis times angle in rad, as [..., 6].

    >>> rotation_6d(np.array([0, 0, np.pi / 2])).round(6).tolist()
    [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]
    """
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1)
    half = angle / 2
    # sin(angle / 2) / angle, which is 1/2 at 0; sinc(x) is sin(πx)/(πx)
    x, y, z = np.moveaxis(vector * (np.sinc(half / np.pi) / 2)[..., None], -1, 0)
    w = np.cos(half)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
    ]  # fmt: skip
    return np.stack(rows, axis=-1)


def absolute_actions(actions: NDArray[Any]) -> NDArray[np.float32]:
    """Absolute actions of one arm [n, 7] or two [n, 14] as [n, 10] or [n, 20]: position, rotation, gripper, per arm.

    Raises
    ------
    WindowError
        If they have another width.
    """
    width = actions.shape[-1]
    if width not in (7, 14):
        raise WindowError(f"diffusion policy · abs_action: 7 actions, or 14 of two arms; got {width} → pass abs_action=False")
    arms = actions.reshape(len(actions), -1, 7).astype(np.float64)
    parts = [arms[..., :3], rotation_6d(arms[..., 3:6]), arms[..., 6:]]
    return np.concatenate(parts, axis=-1).astype(np.float32).reshape(len(actions), -1)

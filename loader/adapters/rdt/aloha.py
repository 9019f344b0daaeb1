"""RDT's unified vector for two arms: ALOHA's 14 joint positions in their slots. Pure numpy.

Slots and scales are those of thu-ml/RoboticsDiffusionTransformer at deb71d8, data/hdf5_vla_dataset.py: fill_in_state and
"Rescale gripper to [0, 1]"; configs/state_vec.py says what the slots are.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError

__all__ = ["ALOHA_SLOTS", "aloha_vectors"]

ALOHA_SLOTS: Final = (*range(50, 56), 60, *range(6), 10)
"""Left arm's joints 0-5, left gripper, right arm's joints 0-5, right gripper: the order of ALOHA's qpos and action."""
GRIPPERS: Final = (6, 13)
"""Elements of qpos and action that hold the left and the right gripper."""


def aloha_vectors(
    qpos: NDArray[Any], actions: NDArray[Any], qpos_grippers: tuple[float, float], action_grippers: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """States and actions float64 [n_steps, 14] in the order of ALOHA_SLOTS: rad, and gripper openings divided by their scales.

    Raises
    ------
    WindowError
        If either is not of 14 elements.
    """
    for name, values in (("qpos", qpos), ("actions", actions)):
        if values.shape[1:] != (len(ALOHA_SLOTS),):
            raise WindowError(
                f'rdt · profile "aloha": {name} of 14 elements, 6 joints and a gripper for each arm; got '
                f"{list(values.shape[1:])} → name other keys in RDTKeys"
            )
    scaled = []
    for values, grippers in ((qpos, qpos_grippers), (actions, action_grippers)):
        scale = np.ones(len(ALOHA_SLOTS))
        scale[list(GRIPPERS)] = grippers
        scaled.append(values / scale)
    return scaled[0], scaled[1]

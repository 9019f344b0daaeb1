"""Convert RDT's unified vector back: from a policy's predictions to commands for the robot. Pure numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robozarr.loader.adapters.rdt.aloha import ALOHA_SLOTS, GRIPPERS
from robozarr.loader.adapters.rdt.vector import DELTA_SLOTS, STATE_DIM, RDTConfig
from robozarr.schemas.errors import WindowError

__all__ = ["commands_of"]


def commands_of(prediction: ArrayLike, config: RDTConfig) -> NDArray[np.float64]:
    """Convert predicted actions back to the commands that they encode.

    Parameters
    ----------
    prediction : float [..., 128]
        As ``RDTRunner.predict_action`` gives them (bfloat16 has to be made float first).
    config : RDTConfig
        That of the data set which the policy was trained on.

    Returns
    -------
    float64 [..., 7]
        Profile "delta": LIBERO's commands in [-1, 1], for ``env.step`` (OSC_POSE with deltas); -1 opens the gripper, +1
        closes it.
    float64 [..., 14]
        Profile "aloha": target positions of the joints in rad, and of the grippers, in ALOHA's order.

    Raises
    ------
    WindowError
        For "future_state": a state is no command, and the arm does not reach it by one. Or if the vectors have another length.

    Examples
    --------
    >>> vector = np.zeros(128)
    >>> vector[[39, 10]] = 0.025, 1.0
    >>> commands_of(vector, RDTConfig(profile="delta")).tolist()
    [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    """
    values = np.asarray(prediction, np.float64)
    if values.shape[-1:] != (STATE_DIM,):
        raise WindowError(f"rdt · prediction: [..., {STATE_DIM}]; got {list(values.shape)} → pass RDT's unified vectors")
    if config.profile == "future_state":
        raise WindowError(
            'rdt · profile: predictions of "future_state" are states, not commands → train RDTConfig(profile="delta") for '
            "rollouts in LIBERO, or follow the states with a controller of your own"
        )
    if config.profile == "aloha":
        targets: NDArray[Any] = values[..., ALOHA_SLOTS]
        targets[..., list(GRIPPERS)] *= config.action_grippers
        return targets
    deltas = values[..., DELTA_SLOTS]
    scale = np.repeat([config.position_scale, config.rotation_scale], 3)
    commands: NDArray[np.float64] = np.clip(np.concatenate([deltas[..., :6] / scale, 1 - 2 * deltas[..., 6:]], axis=-1), -1, 1)
    return commands

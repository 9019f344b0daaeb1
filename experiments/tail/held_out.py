"""Where in an episode a policy errs: its error on demonstrations that it was not trained on, by steps left until the end."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from robozarr.loader.dataset import WindowDataset
from tail.policy import Policy, observed

__all__ = ["BIN", "JUDGED", "N_BINS", "errors_by_steps_left"]

BIN: Final = 8
"""Steps that are averaged over."""
N_BINS: Final = 20
JUDGED: Final = 16
"""Actions of a chunk that are judged: those that are executed."""


@torch.no_grad()
def errors_by_steps_left(policy: Policy, dataset: WindowDataset) -> dict[str, list[float | None]]:
    """Errors of the first 16 actions of a chunk, by how many windows its anchor lies from the end of its episode.

    Returns
    -------
    dict
        ``error``: mean absolute error of the actions, normalised. ``gripper``: share of gripper commands of the wrong sign.
        Each [20]: 0 to 7 windows left after the anchor, 8 to 15, …; None where there is no window. Padding does not count.
    """
    batch: dict[str, Any] = dataset.read(np.arange(len(dataset)))
    wanted = (batch["actions"].float() - policy.scale.action_mean) / policy.scale.action_std
    got = policy(observed(batch))
    judged = ~batch["actions_is_pad"][:, :JUDGED]
    error = (got - wanted).abs().mean(-1)[:, :JUDGED]
    wrong = ((got[..., 6] > 0) != (wanted[..., 6] > 0))[:, :JUDGED].float()
    left = (_length(batch)[batch["episode"]] - 1 - batch["step"]) // BIN
    out: dict[str, list[float | None]] = {"error": [], "gripper": []}
    for number in range(N_BINS):
        chosen = judged & (left == number)[:, None]
        for name, values in (("error", error), ("gripper", wrong)):
            out[name].append(round(float(values[chosen].mean()), 5) if chosen.any() else None)
    return out


def _length(batch: dict[str, Any]) -> torch.Tensor:
    """Windows of each episode: int64 [n_episodes]."""
    length = torch.zeros(int(batch["episode"].max()) + 1, dtype=torch.int64)
    return length.scatter_reduce(0, batch["episode"], batch["step"] + 1, "amax")

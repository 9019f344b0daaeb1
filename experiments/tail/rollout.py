"""Closed loop: a policy acts from an initial state, some actions of a chunk at a time; two criteria say how it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tail.observation import HELD_FREE, N_SEEN, OBS
from tail.policy import HISTORY, Policy

if TYPE_CHECKING:
    from tail.stepper import Simulator

__all__ = ["Outcome", "roll_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one rollout went."""

    released: bool
    """The bowl was placed and let go: on the plate, touched by no finger, for half a second."""
    on_plate: bool
    """LIBERO's own criterion held at some step: the bowl may still have been held."""
    lifted: bool
    """The bowl was lifted by 5 cm."""
    nearest: float | None
    """How near the bowl's middle came to the plate's, m, seen from above, once lifted; None: it never was."""
    n_steps: int


def roll_out(simulator: Simulator, policy: Policy, *, seed: int, executed: int, max_steps: int) -> Outcome:
    """Let a policy act from the initial state of a seed.

    Parameters
    ----------
    executed : int
        Actions of a chunk that are executed before the policy is asked again.
    """
    obs = simulator.reset(seed)
    seen = [obs[:N_SEEN]] * HISTORY
    height = obs[OBS["bowl_pos"]][2]
    highest, nearest, on_plate, n_free, n_steps = 0.0, np.inf, False, 0, 0
    while n_steps < max_steps and n_free < HELD_FREE:
        for action in policy.act(np.stack(seen))[: min(executed, max_steps - n_steps)]:
            simulator.step(action)
            n_steps += 1
            obs = simulator.obs()
            seen = [*seen[1:], obs[:N_SEEN]]
            bowl, plate = obs[OBS["bowl_pos"]], obs[OBS["plate_pos"]]
            highest = max(highest, float(bowl[2] - height))
            if highest > 0.05:
                nearest = min(nearest, float(np.hypot(*(bowl[:2] - plate[:2]))))
            there = simulator.on_plate()
            on_plate |= there
            n_free = n_free + 1 if there and not simulator.touching() else 0
            if n_free >= HELD_FREE:
                break
    return Outcome(
        released=n_free >= HELD_FREE,
        on_plate=on_plate,
        lifted=highest > 0.05,
        nearest=round(nearest, 4) if highest > 0.05 else None,
        n_steps=n_steps,
    )

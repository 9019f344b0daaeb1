"""A scripted demonstrator with noise and pauses: reach, descend, grasp, lift, carry, lower, release, retreat. Needs numpy only.

Its demonstrations differ in speed, height and rests, and hold still steps (LIBERO's no-ops) as people's do. The release comes
some ten to forty steps before the end.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tail.observation import OBS

__all__ = ["Expert", "Phase", "rotation_of"]

F64 = NDArray[np.float64]

LIFT: Final = 0.14
"""How high the bowl is lifted, m."""


class Phase(IntEnum):
    """What the demonstrator is at."""

    REACH = 0
    DESCEND = 1
    GRASP = 2
    LIFT = 3
    CARRY = 4
    LOWER = 5
    RELEASE = 6
    RETREAT = 7


class Expert:
    """One demonstration's demonstrator.

    Parameters
    ----------
    rng : numpy Generator
        Decides speed, heights, rests, pauses and noise.
    obs : float64 [30]
        The first observation.
    rim, depth : float
        Where the hand grasps, m: this far in y from the bowl's middle, and this far above it.
    """

    def __init__(self, rng: np.random.Generator, obs: F64, *, rim: float, depth: float) -> None:
        self.rng, self.rim, self.depth = rng, rim, depth
        self.phase = Phase.REACH
        self.speed = rng.uniform(0.4, 1.0)
        self.lift = LIFT + rng.uniform(-0.02, 0.03)
        self.above = 0.10 + rng.uniform(-0.02, 0.02)
        self.wait, self.rest = int(rng.integers(0, 6)), int(rng.integers(4, 14))
        """Steps that it stands still now; steps that it stays after the release."""
        self.upright, self.table = rotation_of(obs[OBS["ee_rot"]]), float(obs[OBS["bowl_pos"]][2])
        self.drift, self.count = np.zeros(6), 0
        self.held, self.offset = np.zeros(3), np.zeros(3)

    def act(self, obs: F64) -> F64:
        """The next action: float64 [7] in [-1, 1]."""
        self.drift = 0.7 * self.drift + self.rng.normal(0, 0.12, 6) * [1, 1, 1, 0.3, 0.3, 0.3]
        action = np.zeros(7)
        if self.wait > 0:
            self.wait -= 1
            action[6] = 1.0 if Phase.GRASP < self.phase <= Phase.RELEASE else -1.0
            return action
        action[6] = 1.0 if Phase.GRASP <= self.phase < Phase.RELEASE else -1.0
        target, tolerance, fastest = self._target(obs)
        if target is None:
            self._close_or_open(obs)
        else:
            action[:6] = self._move(obs, target, tolerance, fastest)
        return np.clip(action, -1, 1)

    def _target(self, obs: F64) -> tuple[F64 | None, float, float]:
        """Where the hand goes, how near is near enough (m), and how fast it may be (share of the most)."""
        bowl, plate = obs[OBS["bowl_pos"]], obs[OBS["plate_pos"]]
        carried = self.table + self.lift
        match self.phase:
            case Phase.REACH:
                return bowl + np.array([0, self.rim, self.above]), 0.02, self.speed
            case Phase.DESCEND:
                return bowl + np.array([0, self.rim, self.depth]), 0.007, 0.8 * self.speed
            case Phase.LIFT:
                return np.array([*self.held[:2], carried]), 0.02, self.speed
            case Phase.CARRY:
                return np.array([*(plate[:2] + self.offset[:2]), carried]), 0.012, self.speed
            case Phase.LOWER:
                return self._on_plate(plate), 0.009, 0.6 * self.speed
            case Phase.RETREAT:
                return np.array([*self.held[:2], self.table + 0.16]), 0.02, self.speed
        return None, 0.0, 0.0

    def _on_plate(self, plate: F64) -> F64:
        """Where the hand lets go: the bowl as high over the plate as it stood over the table, and 12 mm."""
        return plate + self.offset + [0, 0, 0.012]

    def _move(self, obs: F64, target: F64, tolerance: float, fastest: float) -> F64:
        away = target - obs[OBS["ee_pos"]]
        move = 24.0 * away
        if (n := np.abs(move).max()) > fastest:
            move *= fastest / n
        hand = rotation_of(obs[OBS["ee_rot"]])
        tilt = 0.5 * np.cross(hand.T, self.upright.T).sum(0)
        action = np.concatenate([move, np.clip(2 * tilt, -0.3, 0.3)]) + self.drift * (0.5 if tolerance < 0.01 else 1)
        if np.abs(away).max() < tolerance or (np.linalg.norm(away) < 2 * tolerance and self.count > 60):
            self.held = obs[OBS["ee_pos"]].copy()
            self._next()
        self.count += 1
        return action

    def _close_or_open(self, obs: F64) -> None:
        """Wait until the fingers have moved."""
        self.count += 1
        if self.count >= 11 + 2 * (self.rng.random() < 0.5):
            if self.phase is Phase.GRASP:
                self.offset = obs[OBS["ee_pos"]] - obs[OBS["bowl_pos"]]
            self.held = obs[OBS["ee_pos"]].copy()
            self._next()

    def _next(self) -> None:
        self.phase = Phase(min(self.phase + 1, Phase.RETREAT))
        self.count = 0
        if self.rng.random() < 0.5:
            self.wait = int(self.rng.integers(2, 10))


def rotation_of(columns: F64) -> F64:
    """The matrix [3, 3] whose first two columns are given: [6]."""
    x, y = columns[:3], columns[3:]
    return np.stack([x, y, np.cross(x, y)], 1)

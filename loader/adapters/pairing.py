"""Serve steps to data sets that have rows but no pairing: step t is an observation and the action that follows it.

As recorded, step t is row t of every key. In a causal window (``schemas.window``) an episode that was recorded AFTER, as
LIBERO's are, has action t + 1 beside observation t: its last observation has no action, its first action no observation, and
neither is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.batch import Batch, PlannedWindows
from robozarr.loader.dataset import Sample, WindowDataset

__all__ = ["Pairing"]

I64: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pairing:
    """The steps that are served, and the rows of each key at them."""

    windows: WindowDataset
    length: I64
    """int64 [n_episodes]: steps served of each episode; 0 of one that has a single step and no action after it."""

    @classmethod
    def of(cls, windows: WindowDataset) -> Self:
        """Make the pairing, from whether the windows are causal and from each episode's alignment."""
        return cls(windows, windows.store.episodes.length.astype(np.int64) - windows.table.shift)

    @property
    def start(self) -> I64:
        """int64 [n_episodes]: number of each episode's first step among all that are served."""
        return np.cumsum(self.length) - self.length

    @property
    def n_steps(self) -> int:
        """Number of steps served."""
        return int(self.length.sum())

    def first_row(self, key: str) -> I64:
        """int64 [n_episodes]: the row of the store that a key has at each episode's first step."""
        start: I64 = self.windows.store.episodes.start.astype(np.int64)
        shifted = key in self.windows.spec.shifted_keys(self.windows.store.metadata)
        return start + self.windows.table.shift if shifted else start

    def rows(self, key: str) -> I64:
        """int64 [n_steps]: the row of the store that a key has at each step."""
        return np.repeat(self.first_row(key) - self.start, self.length) + np.arange(self.n_steps)

    def column(self, key: str) -> NDArray[Any]:
        """A key's values at all steps: [n_steps, …]."""
        values = self.windows.windows.reader.column(key)
        return values if self.n_steps == len(values) else values[self.rows(key)]

    def read(self, episode: I64, steps: Mapping[str, I64]) -> Sample:
        """Read keys at some steps; steps outside the episode repeat its first or last one.

        Parameters
        ----------
        episode : int64 [b]
        steps : key → int64 [b, n_offsets]
            Each key of the windows, as many as its offsets.

        Returns
        -------
        dict
            Per key ``key [b, n_offsets, …]`` as in the store, ``key_is_pad`` bool [b, n_offsets].
        """
        last = self.length[episode][:, None] - 1
        inside = {key: np.clip(at, 0, last) for key, at in steps.items()}
        planned = PlannedWindows(
            episode=episode,
            step=np.zeros_like(episode),  # of an anchor, and there is none
            rows={key: self.first_row(key)[episode][:, None] + at for key, at in inside.items()},
            is_pad={key: at != steps[key] for key, at in inside.items()},
        )
        batch = Batch(self.windows.windows.fields, len(episode))
        self.windows.windows.fill(batch, planned)
        return {name: torch.from_numpy(batch[name]) for key in steps for name in (key, f"{key}_is_pad")}

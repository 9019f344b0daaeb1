"""Which sequences of steps diffusion policy draws, and how it pads them. Pure numpy.

real-stanford/diffusion_policy, diffusion_policy/common/sampler.py (5ba07ac6661db573af695b419a7947ecb704690f): create_indices,
get_val_mask, downsample_mask, SequenceSampler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sequences", "train_mask", "validation_mask"]

I64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Every sequence of `horizon` steps that the sampler would draw, in its order: int64 [n] each."""

    horizon: int
    episode: I64
    first: I64
    """Step of the episode at which the sequence begins; negative where it is padded before."""

    @classmethod
    def of(cls, length: I64, episodes: Bool, horizon: int, pad_before: int, pad_after: int) -> Sequences:
        """The sequences of some episodes.

        Parameters
        ----------
        length : int64 [n_episodes]
        episodes : bool [n_episodes]
        horizon : int
            Steps of a sequence.
        pad_before, pad_after : int
            Most steps that a sequence may begin before its episode, or end after it; at most ``horizon - 1``.

        Examples
        --------
        >>> Sequences.of(np.array([4, 1]), np.array([True, True]), 3, 1, 1).first.tolist()
        [-1, 0, 1, 2, -1]
        """
        before, after = (min(max(pad, 0), horizon - 1) for pad in (pad_before, pad_after))
        counts = np.where(episodes, np.maximum(length - horizon + after + before + 1, 0), 0)
        episode = np.repeat(np.arange(len(length), dtype=np.int64), counts)
        starts = np.cumsum(counts) - counts
        return cls(horizon=horizon, episode=episode, first=np.arange(len(episode), dtype=np.int64) - starts[episode] - before)

    def __len__(self) -> int:
        return len(self.episode)

    def steps(self, numbers: I64) -> I64:
        """Steps of sequences, int64 [b, horizon]: those outside of the episode are padding."""
        return self.first[numbers][:, None] + np.arange(self.horizon)


def validation_mask(n_episodes: int, val_ratio: float, seed: int) -> Bool:
    """Episodes for validation: bool [n_episodes], the same as upstream's of this seed.

    >>> np.flatnonzero(validation_mask(10, 0.2, 42)).tolist()
    [0, 7]
    """
    mask = np.zeros(n_episodes, bool)
    if val_ratio > 0:
        n_val = min(max(1, round(n_episodes * val_ratio)), n_episodes - 1)
        mask[np.random.default_rng(seed=seed).choice(n_episodes, size=n_val, replace=False)] = True
    return mask


def train_mask(validation: Bool, max_train_episodes: int | None, seed: int) -> Bool:
    """Episodes for training: those that are not for validation, or `max_train_episodes` of them."""
    mask = ~validation
    if max_train_episodes is not None and mask.sum() > max_train_episodes:
        rest = np.flatnonzero(mask)
        chosen = rest[np.random.default_rng(seed=seed).choice(len(rest), size=int(max_train_episodes), replace=False)]
        mask = np.zeros_like(mask)
        mask[chosen] = True
    return mask

"""The four ways to choose training windows, all served by ``WindowLoader`` from one dataset.

An episode has L windows with an action to learn. C is the length of the action chunk.

A  an episode at random, then t at random in [0, L − C): what the usual fine-tuning loader does; with replacement
B  every t in [0, L − C), each once an epoch
C  every t in [0, L), each once an epoch; the chunk is padded at the end, and a mask says where: robozarr's
D  an episode at random, then t at random in [0, L), padded and masked as C

B is the loader on a part of the dataset. A and D are other orders of the same loader: an order maps a position to a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from robozarr.loader.dataset import WindowDataset
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.order import Order
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store

__all__ = ["KEYS", "RandomDraws", "Scheme", "make_dataset", "make_loader"]

I64 = npt.NDArray[np.int64]

Scheme = Literal["A", "B", "C", "D"]

KEYS: Final = ("ee_pos", "ee_rot", "gripper_states", "bowl_pos", "bowl_rot", "plate_pos")
"""What the policy sees, in this order, now and one step before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomDraws(Order):
    """As many draws an epoch as there are windows: an episode that has any, then one of its first `count` windows."""

    first: I64 = field(repr=False, compare=False)
    """int64 [n_episodes]: the first window of each."""
    count: I64 = field(repr=False, compare=False)
    """int64 [n_episodes]: how many of its windows may be drawn; 0: the episode is never drawn."""

    def windows(self, positions: npt.ArrayLike, epoch: int | npt.NDArray[Any] = 0) -> I64:
        """Windows at positions of an epoch: int64 [m]."""
        rng = np.random.default_rng([self.seed, int(np.max(epoch))])
        drawable = np.flatnonzero(self.count > 0)
        episode = drawable[rng.integers(0, len(drawable), self.n_windows)]
        drawn: I64 = self.first[episode] + (rng.random(self.n_windows) * self.count[episode]).astype(np.int64)
        return drawn[np.asarray(positions, np.int64)]

    def fingerprint(self) -> dict[str, Any]:
        """What decides the order, as JSON values."""
        return Order.fingerprint(self) | {"draws": self.count.tolist()}


def make_dataset(
    store: Store, *, chunk: int, episodes: range, causal: bool = True, exclude_noops: bool = False
) -> WindowDataset:
    """Windows of the policy: two steps of what it sees, and the chunk of actions that follow.

    Parameters
    ----------
    causal : bool
        True: the actions begin with the one that was chosen after the observation. False: as LIBERO's files pair them, where
        an observation stands beside the action that led to it.
    """
    offsets = {name: [-1, 0] for name in KEYS} | {"actions": list(range(chunk))}
    flags = StepFlag.NOOP if exclude_noops else StepFlag(0)
    return WindowDataset(store, WindowSpec(offsets, causal=causal), episodes=episodes, exclude_flags=flags)


def make_loader(
    dataset: WindowDataset, scheme: Scheme, *, chunk: int, seed: int, batch_size: int, repeat: int = 1
) -> WindowLoader:
    """The loader that serves windows by a scheme.

    Parameters
    ----------
    dataset : WindowDataset
        As ``make_dataset`` makes it.
    repeat : int
        How often an epoch serves key moments.

    Raises
    ------
    WindowError
        If no episode is longer than the chunk, and the scheme needs one.
    """
    anchors = dataset.table.anchors(np.arange(len(dataset)))
    n_episodes = int(anchors.episode.max()) + 1
    count = np.bincount(anchors.episode, minlength=n_episodes)
    first = np.cumsum(count) - count
    length = _last_step(anchors.episode, anchors.step, n_episodes) + 1
    if scheme == "B":
        dataset = dataset.only(np.flatnonzero(anchors.step < length[anchors.episode] - chunk), "before the last chunk")
    often: Mapping[StepFlag, int] | None = {StepFlag.KEY_MOMENT: repeat} if repeat > 1 else None
    loader = WindowLoader(dataset, batch_size, seed=seed, repeat=often, threads=1)
    if scheme in ("A", "D"):
        if scheme == "A":
            before = anchors.step < length[anchors.episode] - chunk
            count = np.bincount(anchors.episode[before], minlength=n_episodes)
        if not count.any():
            raise WindowError(
                f"scheme A: an episode longer than {chunk} steps; the longest has {length.max()} → a smaller chunk"
            )
        loader.schedule.order = RandomDraws(n_windows=len(dataset), seed=seed, first=first, count=count)
    return loader


def _last_step(episode: I64, step: I64, n_episodes: int) -> I64:
    last = np.full(n_episodes, -1, np.int64)
    np.maximum.at(last, episode, step)
    return last

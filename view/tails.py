"""How far the last key moment is from an episode's end, and what a loader that drops tails never starts from. Pure numpy.

Loaders that take t in [0, T − C), at random or one after the other, never begin a window in the last C steps. A policy that is
trained so does not learn to begin a chunk near what happens there, which most often is the release (docs/experiments/tail.md:
success falls from most of the rollouts to none). So this comes first; how many windows a loader has seen comes second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError
from robozarr.store.opened import Store
from robozarr.view.rows import read_rows
from robozarr.view.words import share_words

__all__ = ["CHUNKS", "Tails", "measure_tails", "steps_left"]

I64 = NDArray[np.int64]

CHUNKS: Final = (8, 16, 32, 64)
"""Lengths of action chunks that are looked at beside the one that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """How many steps are left after the last change of the gripper's command, by episode."""

    chunk: int
    """C, steps."""
    n_episodes: int
    known: bool
    """Whether the store says which element of the actions is the gripper's command."""
    release: bool
    """Whether the change is known to be a release: the command opens, in every episode that has a change."""
    left: tuple[int, ...]
    """Steps left after the step whose action is the first with the new command; an entry for each episode with a change."""

    @property
    def moment(self) -> str:
        """What the change is called."""
        return "release" if self.release else "last change of the gripper's command"

    def never(self, chunk: int | None = None) -> float:
        """Share of the episodes with a change whose change no loader of t in [0, T − C) starts from; NaN where none has one."""
        if not self.left:
            return float("nan")
        return float(np.mean(np.array(self.left) < (self.chunk if chunk is None else chunk)))

    @property
    def by_chunk(self) -> dict[int, float]:
        """`never` for chunks of several lengths."""
        return {chunk: self.never(chunk) for chunk in sorted({*CHUNKS, self.chunk})}

    @property
    def warning(self) -> str | None:
        """What to know before training on windows of t in [0, T − C); None where nothing is lost.

        >>> Tails(chunk=64, n_episodes=2, known=True, release=True, left=(14, 20)).warning
        'with chunk 64, the release of 100% of episodes never begins a window'
        """
        share = self.never()
        if not share > 0:
            return None
        of = "episodes" if len(self.left) == self.n_episodes else f"the {len(self.left):,} episodes that have one"
        return f"with chunk {self.chunk}, the {self.moment} of {share_words(share)} of {of} never begins a window"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; null where there is nothing to see."""
        by_chunk = {str(chunk): None if np.isnan(share) else share for chunk, share in self.by_chunk.items()}
        return {
            "chunk": self.chunk,
            "moment": self.moment,
            "gripper_known": self.known,
            "episodes": self.n_episodes,
            "episodes_with_a_change": len(self.left),
            "steps_left": list(self.left),
            "never_an_anchor": by_chunk,
            "warning": self.warning,
        }


def measure_tails(store: Store, *, chunk: int = 64) -> Tails:
    """Find the last change of the gripper's command in every episode; reads all actions.

    Parameters
    ----------
    store : Store
    chunk : int
        C, steps of the action chunk.

    Raises
    ------
    WindowError
        If the chunk is shorter than a step.
    CorruptChunkError
        If the actions cannot be read exactly.
    """
    if chunk < 1:
        raise WindowError(f"coverage: a chunk of at least 1 step; got {chunk} → pass the length of the action chunk")
    element, n_episodes = store.metadata.flag_rules.gripper, len(store.episodes.length)
    if not isinstance(element, int) or "actions" not in store.keys:
        return Tails(chunk=chunk, n_episodes=n_episodes, known=False, release=False, left=())
    command = np.sign(np.asarray(read_rows(store, "actions", range(store.n_steps))[:, element], np.float64))
    left = steps_left(command, store.episodes.start, store.episodes.length)
    changed = np.flatnonzero(left >= 0)
    at = (store.episodes.start + store.episodes.length - 1 - left)[changed]
    opens = "-1 opens" in (store.keys["actions"].unit or "").replace("−", "-")
    release = bool(opens and changed.size and (command[at] < 0).all())
    return Tails(chunk=chunk, n_episodes=n_episodes, known=True, release=release, left=tuple(int(n) for n in left[changed]))


def steps_left(command: NDArray[np.floating[Any]], start: I64, length: I64) -> I64:
    """Steps after the last change of a command, by episode.

    Parameters
    ----------
    command : float [n_steps]
        Its sign is the command.
    start, length : int64 [n_episodes]

    Returns
    -------
    int64 [n_episodes]
        T − 1 − t, with t the first step of the last command; −1 where the command never changes.

    >>> steps_left(np.array([-1, 1, 1, -1, -1, 1.0, 1]), np.array([0, 5]), np.array([5, 2])).tolist()
    [1, -1]
    """
    changes = np.zeros(len(command), np.bool_)
    changes[1:] = np.diff(np.sign(command)) != 0
    changes[start[length > 0]] = False  # not against the episode before
    last = np.full(len(start), -1, np.int64)
    rows = np.flatnonzero(changes)
    np.maximum.at(last, np.searchsorted(start, rows, side="right") - 1, rows)
    return np.where(last >= 0, start + length - 1 - last, -1)

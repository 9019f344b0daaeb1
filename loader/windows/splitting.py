"""Choose the episodes for training and for validation. Pure numpy; imports no zarr, no torch.

A window never lies in two episodes, so that parts of whole episodes are disjoint by construction: no frame of the one is a
frame of the other. Windows of one episode are near-copies of each other; parts cut through episodes would test a model on what
it has seen.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.windows.permutation import hash_key
from robozarr.schemas.errors import WindowError

__all__ = ["SplitBy", "in_second_part"]

I64: TypeAlias = NDArray[np.int64]
SplitBy = Literal["episode", "task"]


def in_second_part(episodes: I64, task: I64, share: float, by: SplitBy, seed: int) -> NDArray[np.bool_]:
    """Which episodes go into the second part: bool [n].

    Parameters
    ----------
    episodes : int64 [n]
        Rows of the episode table, each once.
    task : int64 [n]
        The task of each.
    share : float, between 0 and 1
        Of the first part.
    by : "episode" or "task"
        "episode": the second part has ``round((1 - share) · n)`` of n episodes, at least one and not all; of each task its
        share, but for less than one episode. "task": whole tasks, counted in the same way, for models that are to do new tasks.
    seed : int
        The parts are a pure function of it, the episodes and their tasks.

    Raises
    ------
    WindowError
        If there are fewer than two episodes or tasks to share out, or an option is none.

    >>> episodes, task = np.arange(8), np.repeat([0, 1], 4)
    >>> second = in_second_part(episodes, task, 0.75, "episode", seed=1)
    >>> np.bincount(task[second]).tolist()
    [1, 1]
    """
    if by not in get_args(SplitBy):
        raise WindowError(
            f"dataset · split · by: 'episode' or 'task'; got {by!r} → windows of one episode are near-copies of each other, so "
            "that an episode goes into one part as a whole"
        )
    _check(share, seed)
    groups = np.unique(task) if by == "task" else episodes
    if len(groups) < 2:
        raise WindowError(
            f"dataset · split: at least two {by}s to share out; the dataset has windows of {len(groups)} → "
            + ("split by='episode'" if by == "task" else "take more episodes")
        )
    n = len(groups)
    n_second = min(max(1, round((1 - share) * n)), n - 1)
    # episodes of a task stand together, in an order by hash; every (n / n_second)-th of the whole line goes into the second
    kind = groups if by == "task" else task
    line = np.lexsort((hash_key(seed, 1, groups), np.zeros_like(groups) if by == "task" else kind))
    first = int(hash_key(seed, 2)[0]) % n
    counted = (np.arange(n + 1) * n_second + first) // n
    second = np.zeros(n, bool)
    second[line] = np.diff(counted) > 0
    return np.isin(task, groups[second]) if by == "task" else second


def _check(share: Any, seed: Any) -> None:
    number = isinstance(share, int | float | np.integer | np.floating) and not isinstance(share, bool)
    if not number or not 0 < float(share) < 1:
        raise WindowError(
            f"dataset · split: the first part's share of the episodes, between 0 and 1; got {share!r} → pass, for "
            "example, dataset.split(0.9); for three parts split the second one again"
        )
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 1 << 64:
        raise WindowError(f"dataset · split · seed: a whole number, 0 or more; got {seed!r} → pass one")

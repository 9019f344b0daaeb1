"""Walk through epochs for callers that ask for "a sample" without saying which, in any number of processes."""

from __future__ import annotations

import multiprocessing
from multiprocessing import context
from typing import Any

from robozarr.loader.ranks import Ranks
from robozarr.loader.windows.order import Order

__all__ = ["Walk"]


class Walk:
    """Windows in the epoch's order, one per call: each once per epoch, over all workers of a rank and all ranks.

    The place is a counter that the processes of a rank share: workers that are forked, or started anew by multiprocessing, take
    turns, and workers of the next epoch go on where the last ones ended.

    >>> walk = Walk(4, seed=1)
    >>> sorted(walk.take() for _ in range(4))
    [0, 1, 2, 3]
    """

    def __init__(self, n_windows: int, *, seed: int = 0, rank: int | None = None, world_size: int | None = None) -> None:
        self.order = Order(n_windows=n_windows, seed=seed)
        self._ranks = Ranks(rank, world_size)
        self._taken = multiprocessing.Value("q", 0)

    def take(self) -> int:
        """Take the next window."""
        rank, world_size = self._ranks.here()  # of this moment: a process group may come after this was made
        with self._taken.get_lock():
            taken = self._taken.value
            self._taken.value = taken + 1
        epoch, position = divmod(taken * world_size + rank, self.order.n_positions)
        return int(self.order.windows([position], epoch)[0])

    @property
    def taken(self) -> int:
        """Number of samples that this rank has taken; may be set to resume."""
        return int(self._taken.value)

    @taken.setter
    def taken(self, n: int) -> None:
        self._taken.value = n

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if context.get_spawning_popen() is None:  # saved, not handed to a process of this program
            state["_taken"] = self.taken
        else:  # a worker is no rank of its own
            state["_ranks"] = Ranks(*self._ranks.here())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._taken, int):
            self._taken = multiprocessing.Value("q", self._taken)

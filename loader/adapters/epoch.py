"""Walk through epochs for callers that ask for "a sample" without saying which, in any number of processes."""

from __future__ import annotations

import multiprocessing
import secrets
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing import context
from typing import Any

from robozarr.loader.ranks import Ranks
from robozarr.loader.windows.order import Order
from robozarr.schemas.errors import WindowError

__all__ = ["Walk"]


class Walk:
    """Windows in the epoch's order, one per call: each once per epoch, over all workers of a rank and all ranks.

    Place and seed are shared by the processes of a rank: workers that are forked, or started anew by multiprocessing, take
    turns, workers of the next epoch go on where the last ones ended, and a loaded place holds for those that run already.

    Parameters
    ----------
    n_windows : int
    seed : int, optional
        Default: drawn anew, and rank 0's for all ranks. Runs that are started again and again, and do not load their place,
        would train on the first windows of the same order each time.
    rank, world_size : int, optional
        As for ``WindowLoader``.

    >>> walk = Walk(4, seed=1)
    >>> sorted(walk.take() for _ in range(4))
    [0, 1, 2, 3]
    """

    def __init__(
        self, n_windows: int, *, seed: int | None = None, rank: int | None = None, world_size: int | None = None
    ) -> None:
        self._ranks = Ranks(rank, world_size)
        self._drawn_alone = False
        """Whether the seed was drawn where no other rank could be told."""
        if seed is None:
            seed, self._drawn_alone = _drawn_seed()
        self._order = Order(n_windows=n_windows, seed=seed)
        self._shared = _shared([0, seed])
        """Number of samples that this rank has taken; seed."""

    @property
    def order(self) -> Order:
        """The order for the current seed."""
        if self._order.seed != self._shared[1]:
            self._order = replace(self._order, seed=self._shared[1])
        return self._order

    def take(self) -> int:
        """Take the next window."""
        rank, world_size = self._ranks.here()  # of this moment: a process group may come after this was made
        if world_size > 1 and self._drawn_alone:
            raise WindowError(
                f"order · seed: the same on {world_size} ranks; it was drawn before torch.distributed was in use → pass "
                "seed=, or make the dataset after init_process_group (Accelerator() calls it)"
            )
        with self._shared.get_lock():
            taken, order = self._shared[0], self.order
            self._shared[0] = taken + 1
        epoch, position = divmod(taken * world_size + rank, order.n_positions)
        return int(order.windows([position], epoch)[0])

    @property
    def taken(self) -> int:
        """Number of samples that this rank has taken; may be set to resume."""
        return int(self._shared[0])

    @taken.setter
    def taken(self, n: int) -> None:
        self._shared[0] = n

    def state_dict(self) -> dict[str, int]:
        """The position: number of windows in an epoch, seed, samples taken by all ranks."""
        _, world_size = self._ranks.here()
        return {"n_windows": self.order.n_windows, "seed": self.order.seed, "position": self.taken * world_size}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a saved position, on any number of ranks.

        Raises
        ------
        WindowError
            If it is a position in another number of windows.
        """
        if state["n_windows"] != self.order.n_windows:
            raise WindowError(
                f"order · state: of {self.order.n_windows} windows, as the dataset has; the state is of {state['n_windows']} → "
                "open the store, and filter it, as in the run that saved it"
            )
        self._shared[:], self._drawn_alone = [state["position"] // self._ranks.here()[1], state["seed"]], False

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if context.get_spawning_popen() is None:  # saved, not handed to a process of this program
            state["_shared"] = list(self._shared)
        else:  # a worker is no rank of its own
            state["_ranks"] = Ranks(*self._ranks.here())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._shared, list):
            self._shared = _shared(self._shared)


def _shared(values: list[int]) -> Any:
    """Numbers with a lock; those of the default context could not be handed to workers of another one."""
    return multiprocessing.get_context("spawn").Array("Q", values)


def _drawn_seed() -> tuple[int, bool]:
    """A new seed, and whether only this process knows it."""
    import torch.distributed as distributed

    drawn: list[Any] = [secrets.randbits(32)]
    if not (distributed.is_available() and distributed.is_initialized()):
        return drawn[0], True
    distributed.broadcast_object_list(drawn, src=0)
    return drawn[0], False

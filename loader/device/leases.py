"""Lend host memory to whoever holds a batch, and reuse it when nobody does.

An array is lent as a fresh numpy view, and a torch tensor is made of that view. Whatever is made of the tensor (slices, numpy
arrays, what autograd saves, dlpack capsules, memoryviews, closures) keeps the tensor's storage, the storage keeps the view, and
a weak reference to the view says when the last of them is gone. A view of the view would not do: numpy lets it refer to the
array itself. An address alone (``data_ptr()``) holds nothing. Imports nothing of the device.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from robozarr.loader.device.holders import holders_of
from robozarr.schemas.errors import WindowError
from robozarr.store.limits import free_memory

__all__ = ["Leases", "Pool"]

OF_THE_LOOP: Final = 2
"""Arrays that any loop holds: its variable holds the last batch, and a loss may hold the one before."""
IDLE: Final = 4
"""Free arrays of one kind that are kept while nobody iterates."""
LOOK_BACK: Final = 64
"""Arrays that were not needed for this many batches are freed."""


class Leases:
    """The lent memory of one loader, over all kinds of arrays, and its limit.

    Parameters
    ----------
    hold_bytes : int, optional
        What consumers may hold at a time. Default: half of what is free when they first hold more than a loop does.
    """

    def __init__(self, hold_bytes: int | None = None) -> None:
        self._hold_bytes = self._allowed = hold_bytes
        self._pools: dict[Any, Pool] = {}
        self._iterations: dict[int, object] = {}

    def pool(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Pool:
        """The arrays of one kind; made on first use."""
        kind = (name, shape, np.dtype(dtype))
        if (pool := self._pools.get(kind)) is None:
            pool = self._pools.setdefault(kind, Pool(self, name, shape, np.dtype(dtype)))
        return pool

    def begin(self, iteration: object) -> None:
        """Begin an iteration: memory that comes back is now kept for its next batches."""
        self._iterations[id(iteration)] = iteration

    def end(self, iteration: object) -> None:
        """End an iteration; after the last one little memory is kept."""
        self._iterations.pop(id(iteration), None)
        if self.idle:
            for pool in list(self._pools.values()):
                pool.shrink()

    def reset(self) -> None:
        """Forget iterations that do not continue in a fork."""
        self._iterations = {}

    @property
    def idle(self) -> bool:
        """Whether nobody iterates."""
        return not self._iterations

    @property
    def held_bytes(self) -> int:
        """Bytes of all arrays that somebody holds."""
        return sum(pool.held_bytes for pool in list(self._pools.values()))

    def check(self) -> None:
        """Refuse to lend more than the limit; raises WindowError that names the holders."""
        held = self.held_bytes
        if self._allowed is None:
            self._allowed = (free_memory() + held) // 2
        if held <= self._allowed:
            return
        pools = [pool for pool in self._pools.values() if pool.n_held]
        of_keys = ", ".join(f"{pool.n_held} of {pool.name}" for pool in sorted(pools, key=lambda pool: -pool.held_bytes)[:4])
        by = holders_of([array for pool in pools for array in pool.held()])
        raise WindowError(
            f"loader · hold_bytes: batches that the program keeps must fit into {self._allowed / 1e9:.3g} GB; it keeps "
            f"{held / 1e9:.3g} GB, {of_keys}{f': {by}' if by else ''} → keep clones of the fields that you need "
            '(batch["actions"].clone()), let go of the rest, or pass hold_bytes= if there is more memory'
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"_hold_bytes": self._hold_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_hold_bytes"])  # type: ignore[misc]


class Pool:
    """Arrays of one shape and dtype: free, taken for filling, or lent."""

    def __init__(self, leases: Leases, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.name, self._shape, self._dtype = name, shape, dtype
        self._leases = weakref.ref(leases)
        self._free: deque[NDArray[Any]] = deque()
        self._lent: dict[int, tuple[weakref.ref[NDArray[Any]], NDArray[Any]]] = {}
        self._come_back = _come_back(weakref.ref(self))
        self._least, self._taken = 0, 0

    def take(self) -> NDArray[Any]:
        """An array that nobody holds, for writing; its content is arbitrary.

        Raises
        ------
        WindowError
            If all are held, and more may not be.
        """
        self._taken += 1
        if self._taken % LOOK_BACK == 0:
            self.shrink(self._least)
            self._least = len(self._free)
        try:
            array = self._free.pop()
        except IndexError:
            leases = self._leases()
            if leases is not None and self.n_held > OF_THE_LOOP:
                leases.check()
            array = np.empty(self._shape, self._dtype)
        self._least = min(self._least, len(self._free))
        return array

    def lend(self, array: NDArray[Any], n: int) -> torch.Tensor:
        """A tensor of the first n rows of a taken array. The array comes back when nobody holds any part of the tensor."""
        view = array[:n]
        lease = weakref.ref(view, self._come_back)
        self._lent[id(lease)] = (lease, array)
        return torch.from_numpy(view)

    def give_back(self, array: NDArray[Any]) -> None:
        """Return an array that was taken and not lent, or that nobody holds any longer."""
        leases = self._leases()
        if len(self._free) < IDLE or (leases is not None and not leases.idle):
            self._free.append(array)

    def shrink(self, n: int | None = None) -> None:
        """Free n arrays; by default all but those that are kept while nobody iterates."""
        try:
            for _ in range(max(0, len(self._free) - IDLE) if n is None else n):
                self._free.popleft()
        except IndexError:
            pass  # another thread took it

    @property
    def n_held(self) -> int:
        """Number of arrays that somebody holds."""
        return len(self._lent)

    @property
    def held_bytes(self) -> int:
        """Bytes of the held arrays."""
        return len(self._lent) * int(np.prod(self._shape, dtype=np.int64)) * self._dtype.itemsize

    def held(self) -> list[NDArray[Any]]:
        """The held arrays, the oldest first."""
        return [array for _, array in list(self._lent.values())]


def _come_back(of: weakref.ref[Pool]) -> Callable[[weakref.ref[NDArray[Any]]], None]:
    """Make the callback for the moment when nobody holds a lent array, in any thread. It does not keep the pool alive."""
    ends = sys.is_finalizing  # at the program's end batches go after the modules that they come from

    def come_back(lease: weakref.ref[NDArray[Any]]) -> None:
        pool = None if ends() else of()
        if pool is not None and (lent := pool._lent.pop(id(lease), None)) is not None:
            pool.give_back(lent[1])

    return come_back

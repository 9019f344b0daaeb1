"""Divide the positions of an epoch among ranks and batches. Pure arithmetic; imports neither torch nor zarr.

``loader.windows.order`` says which window a position is. The rules for the tail of an epoch are stated at `Share`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from robozarr.schemas.errors import WindowError

__all__ = ["Share", "check_integer"]

I64: TypeAlias = npt.NDArray[np.int64]


def check_integer(name: str, value: int, low: int, high: int) -> None:
    """Refuse a value that is not an integer in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise WindowError(f"order · {name}: an integer in [{low}, {high}]; got {value!r} → pass one in this range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The positions of an epoch that one rank takes, and their batches.

    Counted from `start`, global batch g is the positions [g·W·B, (g+1)·W·B), W = world_size, B = batch_size; rank r
    takes those congruent to r modulo W. The rule for the tail:

    - ``drop_last=True``: the last (n - start) mod (W·B) positions are left out of this epoch (other windows each epoch,
      as the shuffle differs). All ranks have equally many batches, all full.
    - ``drop_last=False``: every position is taken exactly once; nothing is padded or taken twice. The last global batch
      may be short: ranks then get parts of it that differ by at most one window, and a rank whose part is empty has
      one batch fewer. Rank 0 never has fewer batches than another, so states are saved there.
    - ``even=True`` besides: every position exactly once, and all ranks have equally many batches, none empty. Where the
      last global batch has fewer positions than there are ranks, the last two are cut anew: the last one is the last
      W·⌊B/2⌋ positions, the one before it what is left. `ends_evenly` tells where that cannot be done.

    >>> [Share(rank=r, world_size=2, batch_size=2).positions(7).tolist() for r in (0, 1)]
    [[0, 2, 4, 6], [1, 3, 5]]
    >>> [Share(rank=r, world_size=2, batch_size=4, even=True).sizes(9).tolist() for r in (0, 1)]
    [[3, 2], [2, 2]]
    """

    batch_size: int
    """Windows per batch of one rank."""
    rank: int = 0
    """In [0, world_size)."""
    world_size: int = 1
    drop_last: bool = False
    """Leave out an incomplete last batch; False: a run misses nothing."""
    even: bool = False
    """Give all ranks equally many batches, as distributed training (DDP) requires."""

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, 1, 1 << 30)
        check_integer("world_size", self.world_size, 1, 1 << 30)
        check_integer("rank", self.rank, 0, self.world_size - 1)

    @property
    def _per_batch(self) -> int:
        return self.world_size * self.batch_size

    def _n_taken(self, n_positions: int, start: int) -> int:
        """Number of positions from `start` on that this rank takes."""
        n = max(0, n_positions - start)
        if self.drop_last:
            return n // self._per_batch * self.batch_size
        return max(0, -(-(n - self.rank) // self.world_size))

    def _is_thin(self, n_positions: int, start: int) -> bool:
        """Whether the last global batch has fewer positions than there are ranks."""
        tail = max(0, n_positions - start) % self._per_batch
        return self.even and not self.drop_last and 0 < tail < self.world_size

    def ends_evenly(self, n_positions: int, start: int = 0) -> bool:
        """Whether all ranks can have equally many batches from `start` on, none of them empty.

        Not where fewer windows are left than there are ranks, nor where a tail would have to be shared among batches of one.

        >>> Share(world_size=4, batch_size=1, even=True).ends_evenly(9)
        False
        """
        split = self.batch_size > 1 and n_positions - start > self._per_batch
        return split or not self._is_thin(n_positions, start)

    def n_batches(self, n_positions: int, start: int = 0) -> int:
        """Count this rank's batches from position `start` to the end of the epoch.

        >>> [Share(rank=r, world_size=2, batch_size=2).n_batches(5) for r in (0, 1)]
        [2, 1]
        """
        if self._is_thin(n_positions, start):
            return -(-(n_positions - start) // self._per_batch)
        return -(-self._n_taken(n_positions, start) // self.batch_size)

    def _begins(self, n_positions: int, start: int, batches: I64) -> I64:
        """Where batches begin in the rank's positions; after the last one, the number of positions."""
        n = self._n_taken(n_positions, start)
        begins: I64 = np.minimum(batches * self.batch_size, n)
        if self._is_thin(n_positions, start):
            last = self.n_batches(n_positions, start) - 1
            begins[batches == last] = n - self.batch_size // 2
            begins[batches > last] = n
        return begins

    def sizes(self, n_positions: int, *, start: int = 0, batch: int = 0, n_batches: int | None = None) -> I64:
        """Number of windows in each of this rank's batches; as in `positions`. All but the last are full, unless `even`."""
        last = self.n_batches(n_positions, start)
        stop = last if n_batches is None else min(batch + n_batches, last)
        return np.diff(self._begins(n_positions, start, np.arange(min(batch, stop), stop + 1)))

    def positions(self, n_positions: int, *, start: int = 0, batch: int = 0, n_batches: int | None = None) -> I64:
        """The positions of this rank of `n_batches` batches from `batch` on, one after the other; `sizes` gives the cuts.

        Parameters
        ----------
        n_positions : positions of the epoch
        start : positions consumed before the batches are counted: 0, or `OrderState.consumed` after a resume
        batch : the first batch, counted from start
        n_batches : None for all that remain; an array of 8 bytes a position is returned

        Returns
        -------
        int64 [m], ascending; empty past the end.

        >>> Share(batch_size=3).positions(8, batch=2, n_batches=1).tolist()
        [6, 7]
        """
        last = self.n_batches(n_positions, start)
        stop = last if n_batches is None else min(batch + n_batches, last)
        first, end = self._begins(n_positions, start, np.array([min(batch, stop), stop])).tolist()
        return np.arange(first, end, dtype=np.int64) * self.world_size + (start + self.rank)

    def consumed(self, n_positions: int, start: int, n_batches: int) -> int:
        """Positions that all ranks together have consumed after `n_batches` batches each, from `start` on.

        >>> Share(world_size=2, batch_size=4, even=True).consumed(9, 0, 1)
        5
        """
        if self._is_thin(n_positions, start) and n_batches == self.n_batches(n_positions, start) - 1:
            return n_positions - self.world_size * (self.batch_size // 2)
        return min(start + n_batches * self._per_batch, n_positions)

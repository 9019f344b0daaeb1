"""Take turns between several stores: in cycles, by weights that are whole numbers or fractions. Pure numpy.

``loader.windows.order.Mixture`` shuffles each cycle, and says which window a draw is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, gcd, isfinite
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.windows.share import check_integer
from robozarr.schemas.errors import WindowError

__all__ = ["Cycles"]

I64: TypeAlias = NDArray[np.int64]

LEAST_SHARE: Final = 1e-6
"""Of a store with a weight with fractions: a cycle has two draws of it, and has to end."""


@dataclass(frozen=True, slots=True)
class Cycles:
    """How many draws of each store there are in a cycle.

    Whole weights are the draws of each cycle. Of weights with fractions each cycle has what the shares come to so far, rounded,
    so that after any cycle each store has had its share of all draws, to less than one draw.

    >>> cycles = Cycles.by((0.75, 0.25))
    >>> cycles.length, cycles.before(np.array([0, 1, 2]))[:, 0].tolist()
    (8, [0, 6, 12])
    """

    length: int
    """Draws in a cycle."""
    weights: tuple[int, ...] | tuple[float, ...]
    """Whole ones without common factors; or shares that add up to 1."""

    @classmethod
    def by(cls, weights: Sequence[Any]) -> Self:
        """Make the cycles of weights; raises WindowError if one of them is not a weight."""
        if all(isinstance(weight, int | np.integer) and not isinstance(weight, bool) for weight in weights):
            for weight in weights:
                check_integer("mixture weight", weight, 1, 1 << 40)
            whole = tuple(int(weight) // gcd(*map(int, weights)) for weight in weights)
            return cls(sum(whole), whole)
        for weight in weights:
            number = isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool)
            if not number or not isfinite(weight) or weight <= 0:
                raise WindowError(
                    f"order · mixture weight: an integer of at least 1, or a finite number above 0; got {weight!r} → leave "
                    "stores out of the list, never by weight"
                )
        total = float(sum(map(float, weights)))
        shares = tuple(float(weight) / total for weight in weights)
        if min(shares) < LEAST_SHARE:
            raise WindowError(
                f"order · mixture weight: each at least {LEAST_SHARE:g} of all together; got {min(shares):g} → leave that "
                "store out, or raise its weight"
            )
        return cls(ceil(2 / min(shares)), shares)

    def before(self, cycle: I64) -> I64:
        """Draws of each store before cycles: int64 [m, n_stores]."""
        if isinstance(self.weights[0], int):
            return cycle[:, None] * np.array(self.weights, np.int64)
        edges = np.floor((cycle * self.length)[:, None] * np.cumsum(self.weights)).astype(np.int64)
        edges[:, -1] = cycle * self.length
        draws: I64 = np.diff(edges, axis=1, prepend=0)
        return draws

    def n_to_cover(self, sizes: Sequence[int]) -> int:
        """Cycles until each store has had as many draws as it has positions."""
        if isinstance(self.weights[0], int):
            return max(-(-size // int(weight)) for size, weight in zip(sizes, self.weights, strict=True))
        n = max(ceil(size / (self.length * share)) for size, share in zip(sizes, self.weights, strict=True))
        n = max(1, n - 2)
        while (self.before(np.array([n]))[0] < np.asarray(sizes)).any():
            n += 1
        return n

"""Exact quantiles of values that occur several times. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["quantiles_of_counted"]

F64: TypeAlias = NDArray[np.float64]


def quantiles_of_counted(values: F64, counts: NDArray[np.int64], wanted: Sequence[float]) -> F64:
    """Quantiles of values [n] that occur `counts` times each, as ``np.quantile(np.repeat(values, counts), wanted)`` has them.

    >>> quantiles_of_counted(np.array([3.0, 1.0]), np.array([1, 3]), [0.5, 0.9]).tolist()
    [1.0, 2.4000000000000004]
    """
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    place = np.asarray(wanted, np.float64) * float(ends[-1] - 1)
    below = np.floor(place).astype(np.int64)
    low, high = (values[order[np.searchsorted(ends, at, side="right")]] for at in (below, np.minimum(below + 1, ends[-1] - 1)))
    part, step = place - below, high - low
    between: F64 = np.where(part >= 0.5, high - step * (1 - part), low + step * part)  # numpy's own way to interpolate
    return between

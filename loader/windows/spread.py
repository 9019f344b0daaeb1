"""Find constant elements, so that nothing is divided by a spread that is only rounding. Pure numpy."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["is_constant", "spread_or_one"]

F64: TypeAlias = NDArray[np.float64]

RELATIVE: Final = 1e-10
"""A smaller spread, relative to the largest magnitude of float64 values, is rounding or a simulator's noise. For comparison,
a clock in Unix time spreads 3e-10 of its value in two seconds."""
ULPS: Final = 4
"""A smaller spread, in units in the last place of narrower floats, is rounding."""


def is_constant(spread: ArrayLike, low: ArrayLike, high: ArrayLike, dtype: DTypeLike = np.float64) -> NDArray[np.bool_]:
    """Which elements are constant: minimum and maximum are equal, or the spread is within rounding of the magnitude.

    Parameters
    ----------
    spread : float
        A standard deviation, or a range.
    low, high : float, of the same shape
        The least and the largest value.
    dtype : dtype
        As the values are stored. Integers are exact.
    """
    given, least, most = (np.asarray(value, np.float64) for value in (spread, low, high))
    kind = np.dtype(dtype)
    relative = 0.0
    if kind.kind == "f":
        relative = RELATIVE if kind.itemsize >= 8 else ULPS * float(np.finfo(kind).eps)
    constant: NDArray[np.bool_] = ~(given > relative * np.maximum(np.abs(least), np.abs(most))) | (least == most)
    return constant


def spread_or_one(spread: ArrayLike, low: ArrayLike, high: ArrayLike, dtype: DTypeLike = np.float64) -> F64:
    """The divisor of each element: its spread, or 1 if it is constant; parameters as in `is_constant`.

    >>> spread_or_one([0.5, 2e-17, 1e-11, 0.0], [-1, 0.1, 1e6, 3], [1, 0.1, 1e6 + 2e-11, 3]).tolist()
    [0.5, 1.0, 1.0, 1.0]
    """
    return np.where(is_constant(spread, low, high, dtype), 1.0, np.asarray(spread, np.float64))

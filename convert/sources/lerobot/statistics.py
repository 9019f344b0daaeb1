"""Compare the statistics that a data set states with its numbers. Pure numpy.

LeRobot 0.4.4 squares in the type of the data (lerobot/datasets/compute_stats.py: RunningQuantileStats.update), 0.6.0 in float32
at least. So 0.4.4 states wrong standard deviations of pictures and of small integers, which is no fault of the data. Those of
pictures are not compared otherwise, because LeRobot samples pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SQUARED_SMALL", "differs", "no_deviation", "squares_overflow"]

EXACT: Final = 1e-5
"""Largest difference of a minimum or maximum, relative to the largest magnitude: they went through float32 and text."""
SUMMED: Final = 1e-4
"""Of a mean, which is a sum in float32."""
VARIANCE: Final = 4e-6
"""Of a variance, relative to the square of that: the mean of squares less the square of the mean, in float32."""
SQUARED_SMALL: Final = (
    "no deviation is stated of values that differ, as LeRobot 0.4.4 does, which squares integers in their own type; it is "
    "computed anew"
)


def squares_overflow(values: NDArray[Any]) -> bool:
    """Whether integers have squares that their type cannot hold.

    >>> squares_overflow(np.array([15, 0], np.uint8)), squares_overflow(np.array([16, 0], np.uint8))
    (False, True)
    """
    return values.dtype.kind in "iu" and max(-int(values.min()), int(values.max())) ** 2 > np.iinfo(values.dtype).max


def no_deviation(stated: Mapping[str, Any]) -> bool:
    """Whether statistics state no deviation of values that differ.

    >>> no_deviation({"min": [[0.0]], "max": [[1.0]], "std": [[0.0]]}), no_deviation({"min": [1.0], "max": [1.0], "std": [0.0]})
    (True, False)
    """
    least, greatest, std = (np.asarray(stated.get(name, []), np.float64).reshape(-1) for name in ("min", "max", "std"))
    return least.shape == greatest.shape == std.shape and bool(((least < greatest) & (std == 0)).any())


def differs(values: NDArray[Any], stated: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What is wrong with an episode's statistics; "" if nothing is.

    Parameters
    ----------
    values : [n, …]
        Of one episode.
    stated : statistic → values
        Of this episode.
    whole : statistic → values
        Of the whole data set: what is least and most there bounds every episode.

    Examples
    --------
    >>> differs(np.array([1.0, 3.0]), {"min": [1.0], "max": [3.5]}, {})
    'max 3.5, where the data has 3'
    """
    rows = values.reshape(len(values), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        return ""
    size = max(float(np.abs(rows).max()), 1e-8)
    found = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
    for name, value in found.items():
        if stated.get(name) is None or (name == "std" and squares_overflow(values)):
            continue
        theirs = np.asarray(stated[name], np.float64).reshape(-1)
        if theirs.shape != value.shape:
            return f"{name} of {theirs.size} elements, where the data has {value.size}"
        if name == "std":
            far = np.abs(theirs**2 - value**2) > VARIANCE * size**2
        else:
            far = np.abs(theirs - value) > (SUMMED if name == "mean" else EXACT) * size
        if far.any():
            at = int(np.flatnonzero(far)[0])
            return f"{name} {theirs[at]:g}, where the data has {value[at]:g}" + (f", in element {at}" if value.size > 1 else "")
    if stated.get("count") is not None and int(np.asarray(stated["count"]).reshape(-1)[0]) != len(rows):
        return f"count {np.asarray(stated['count']).reshape(-1)[0]}, where the data has {len(rows)} steps"
    for name, beyond in (("min", np.less), ("max", np.greater)):
        if whole.get(name) is None:
            continue
        bound = np.asarray(whole[name], np.float64).reshape(-1)
        slack = EXACT * size * (-1 if name == "min" else 1)
        if bound.shape != found[name].shape or beyond(found[name], bound + slack).any():
            return f"values beyond the {name} of the whole data set"
    return ""

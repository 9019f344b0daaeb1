"""Check the statistics that a data set states of its numbers against the numbers. Pure numpy.

Those of pictures are not checked: LeRobot samples pictures, and 0.4.4 squares uint8 in uint8, so that the standard deviations
of its recordings are wrong (lerobot/datasets/compute_stats.py: RunningQuantileStats.update).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["differs"]

EXACT: Final = 1e-5
"""Largest difference of a minimum or maximum, relative to the largest magnitude: they went through float32 and text."""
SUMMED: Final = 1e-4
"""Of a mean or deviation, which are sums in float32."""


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
        if stated.get(name) is None:
            continue
        theirs = np.asarray(stated[name], np.float64).reshape(-1)
        if theirs.shape != value.shape:
            return f"{name} of {theirs.size} elements, where the data has {value.size}"
        far = np.abs(theirs - value) > (EXACT if name in ("min", "max") else SUMMED) * size
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

"""Normalise actions as robomimic 0.5 does: scale and offset of each action key. Imports no robomimic.

ARISE-Initiative/robomimic at d309eae (0.5.0), robomimic/utils/dataset.py: get_action_stats,
action_stats_to_normalization_stats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError

__all__ = ["action_stats", "scales_and_offsets"]

Stats: TypeAlias = dict[str, Any]
"""``n``, and ``mean``, ``sqdiff`` (sum of squared differences from the mean), ``min``, ``max``: float32 [1, d]."""

NARROW: Final = 1e-4
"""An element whose values differ by less is not stretched by "min_max"."""
STILL: Final = 1e-6
"""An element whose deviation is less is not divided by it."""
END: Final = 0.999999
""""min_max" scales to [-END, END]."""


def action_stats(episodes: Iterable[NDArray[Any]]) -> Stats:
    """Statistics of episodes [n, d], merged one after the other in float32, so that they are upstream's to the last bit."""
    return reduce(_merged, (_of_one(values.astype(np.float32)) for values in episodes))


def _of_one(values: NDArray[np.float32]) -> Stats:
    mean = values.mean(axis=0, keepdims=True)
    return {
        "n": len(values),
        "mean": mean,
        "sqdiff": ((values - mean) ** 2).sum(axis=0, keepdims=True),
        "min": values.min(axis=0, keepdims=True),
        "max": values.max(axis=0, keepdims=True),
    }


def _merged(a: Stats, b: Stats) -> Stats:
    """Chan's parallel variance, in upstream's order of operations."""
    n, delta = a["n"] + b["n"], b["mean"] - a["mean"]
    return {
        "n": n,
        "mean": (a["n"] * a["mean"] + b["n"] * b["mean"]) / n,
        "sqdiff": a["sqdiff"] + b["sqdiff"] + delta**2 * (a["n"] * b["n"]) / n,
        "min": np.minimum(a["min"], b["min"]),
        "max": np.maximum(a["max"], b["max"]),
    }


def scales_and_offsets(stats: Mapping[str, Stats], action_config: Mapping[str, Any]) -> dict[str, dict[str, NDArray[Any]]]:
    """``scale`` and ``offset`` float32 [1, d] of each action key: what is trained on is (action - offset) / scale.

    Raises
    ------
    WindowError
        If a key has no entry in `action_config`, or a normalisation is none of robomimic's.
    """
    found = {}
    for key, of_key in stats.items():
        if key not in action_config:
            raise WindowError(
                f"robomimic · action_config: an entry for each action key; none for {key!r} → add it to train.action_config"
            )
        method = action_config[key].get("normalization", None)
        mean = of_key["mean"]
        if method is None:
            scale, offset = np.ones_like(mean, np.float32), np.zeros_like(mean, np.float32)
        elif method == "min_max":
            low, high = of_key["min"].astype(np.float32), of_key["max"].astype(np.float32)
            span = high - low
            narrow = span < NARROW
            span[narrow] = 2 * END
            scale = span / (2 * END)
            offset = low + scale * END
            offset[narrow] = low[narrow]
        elif method == "gaussian":
            offset, scale = mean.astype(np.float32), np.sqrt(of_key["sqdiff"] / of_key["n"]).astype(np.float32)
            scale[scale < STILL] = 1
        else:
            raise WindowError(
                f'robomimic · action_config · {key}: normalization null, "min_max" or "gaussian"; got {method!r} → '
                "pass one of these"
            )
        found[key] = {"scale": scale, "offset": offset}
    return found

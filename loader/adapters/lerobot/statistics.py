"""Statistics in the form of LeRobot's ``stats.json``, exact where LeRobot samples. Imports no torch.

huggingface/lerobot 0.4.4, lerobot/datasets/compute_stats.py: min, max, mean, std (population), count and five quantiles; of
pictures per channel, [3, 1, 1], in [0, 1]. LeRobot takes pictures at some steps, and quantiles from histograms of 5,000 bins;
here all pixels count, and quantiles are those of the values.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "Statistics", "counts_of", "of_counts", "of_values"]

Statistics: TypeAlias = dict[str, NDArray[Any]]

QUANTILES: Final = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
"""compute_stats.py: DEFAULT_QUANTILES."""


def of_values(values: NDArray[Any]) -> Statistics:
    """Statistics of numbers.

    Parameters
    ----------
    values : [n, dim], n ≥ 1

    Returns
    -------
    dict
        float64 [dim] each, ``count`` int64 [1].

    Examples
    --------
    >>> of_values(np.array([[1.0], [3.0]]))["mean"], of_values(np.array([[1.0], [3.0]]))["std"]
    (array([2.]), array([1.]))
    """
    numbers = values.astype(np.float64)
    quantiles = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return {
        "min": numbers.min(axis=0),
        "max": numbers.max(axis=0),
        "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0),
        "count": np.array([len(values)], np.int64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def counts_of(frame: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts of a picture's values per channel: int64 [c, 256] of uint8 [y, x, c]."""
    n_channels = frame.shape[2]
    # one bincount for all channels: 256 bins for each, one after the other
    codes = frame.reshape(-1, n_channels).astype(np.intp) + 256 * np.arange(n_channels)
    return np.bincount(codes.ravel(), minlength=256 * n_channels).reshape(n_channels, 256)


def of_counts(counts: NDArray[np.int64], n_frames: int) -> Statistics:
    """Statistics of pictures.

    Parameters
    ----------
    counts : int64 [c, 256]
        How often each value of uint8 occurs, per channel.
    n_frames : int
        ``count``: LeRobot counts pictures, not pixels.

    Returns
    -------
    dict
        float64 [c, 1, 1] in [0, 1] each; a quantile q is the least value that ⌈q · n⌉ pixels do not exceed (FORMAT.md, M19).
    """
    levels = np.arange(256, dtype=np.float64)
    n = counts.sum(axis=1)
    mean = counts @ levels / n
    variance = (counts * (levels - mean[:, None]) ** 2).sum(axis=1) / n
    running = np.cumsum(counts, axis=1)
    found = {
        "min": np.array([np.flatnonzero(channel)[0] for channel in counts]),
        "max": np.array([np.flatnonzero(channel)[-1] for channel in counts]),
        "mean": mean,
        "std": np.sqrt(variance),
        **{
            name: np.array([np.searchsorted(part, np.ceil(q * total)) for part, total in zip(running, n, strict=True)])
            for name, q in QUANTILES.items()
        },
    }
    scaled = {name: (values / 255.0).reshape(-1, 1, 1) for name, values in found.items()}
    return {**scaled, "count": np.array([n_frames], np.int64)}

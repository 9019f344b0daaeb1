"""Compute statistics of episodes and of a whole store. Pure numpy; imports no I/O.

Pictures of uint8 are counted in exact integers; everything else is reduced step by step and episode by episode, in order.
So the results depend neither on how the work was cut into partitions nor on how often a store was appended to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.metadata import Key

__all__ = [
    "FrameMoments",
    "MomentsOfKey",
    "episode_statistics",
    "fingerprints_of",
    "frame_moments",
    "quantiles_of_histogram",
    "store_statistics",
]

Floats = NDArray[np.float64]
QUANTILES: Final = (0.01, 0.99)
BLOCK_BYTES: Final = 4 * 2**20
"""Bytes of frames counted at the same time: bincount turns uint16 pairs into 8-byte integers, and its tables take 512 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameMoments:
    """The contribution of a run of frames to the statistics of its key."""

    episode: NDArray[np.int64]
    """Episode of each unit [unit]; a unit is a run of frames of one episode (uint8), or one frame (floats)."""
    moments: NDArray[Any]
    """Per unit and channel [unit, 4, …channel]: int64 sum, sum of squares, min, max (uint8), or float64 mean, sum of squared
    deviations, min, max (floats)."""
    histogram: NDArray[np.int64]
    """Counts over all frames [channel, bin]."""


def frame_moments(frames: NDArray[Any], runs: Sequence[tuple[int, int, int]], key: Key) -> FrameMoments:
    """Reduce `frames` [n, y, x, …channel]; `runs` cuts them into (episode, start, stop)."""
    n_channels = math.prod(key.channel_shape)
    units: list[NDArray[Any]] = []
    episodes: list[int] = []
    histogram = np.zeros((n_channels, key.histogram_bins), np.int64)
    for episode, start, stop in runs:
        part = _channels_last(frames[start:stop], key)
        if frames.dtype == np.uint8:
            counts = _count_uint8(part, n_channels)
            histogram += counts
            units.append(_moments_of_counts(counts))
            episodes.append(episode)
            continue
        for frame in part:
            values = frame.reshape(-1, n_channels)
            histogram += _count_floats(values)
            units.append(_moments_of_floats(values.astype(np.float64)))
            episodes.append(episode)
    moments = np.stack(units).reshape(len(units), 4, *key.channel_shape)
    return FrameMoments(episode=np.array(episodes, np.int64), moments=moments, histogram=histogram)


def fingerprints_of(frames: NDArray[Any]) -> NDArray[np.uint32]:
    """The crc32c of each frame's values, little-endian and in C order: uint32 [n]; equal frames have equal ones."""
    little = np.ascontiguousarray(frames, frames.dtype.newbyteorder("<"))
    data = little.reshape(len(frames), -1).view(np.uint8)
    return np.array([google_crc32c.value(row) for row in data], np.uint32)


def _channels_last(frames: NDArray[Any], key: Key) -> NDArray[Any]:
    """Frames with the axes of separate statistics at the end, as pictures [y, x, c] already have them."""
    if not key.axes:
        return frames
    n = len(key.channels)
    moved = np.moveaxis(frames, [axis + 1 for axis in key.channels], range(frames.ndim - n, frames.ndim))
    return np.ascontiguousarray(moved)


def _count_uint8(frames: NDArray[np.uint8], n_channels: int) -> NDArray[np.int64]:
    """Histogram of each channel [channel, 256]. Counting pairs of bytes is twice as fast as counting bytes."""
    period = math.lcm(2, n_channels) // 2  # uint16 columns until the channels repeat
    if frames[:1].nbytes % (2 * period):
        return np.stack([np.bincount(frames.reshape(-1, n_channels)[:, c], minlength=256) for c in range(n_channels)])
    counts = np.zeros((n_channels, 256), np.int64)
    pairs = np.zeros((period, 65536), np.int64)
    block = max(1, BLOCK_BYTES // frames[:1].nbytes)
    for start in range(0, len(frames), block):
        columns = frames[start : start + block].reshape(-1).view("<u2").reshape(-1, period)
        for column in range(period):
            pairs[column] += np.bincount(columns[:, column], minlength=65536)
    for column in range(period):
        table = pairs[column].reshape(256, 256)  # [second byte, first byte]
        counts[2 * column % n_channels] += table.sum(axis=0)
        counts[(2 * column + 1) % n_channels] += table.sum(axis=1)
    return counts


def _moments_of_counts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    values = np.arange(counts.shape[1], dtype=np.int64)
    there = counts > 0
    highest = counts.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    return np.stack([counts @ values, counts @ values**2, there.argmax(axis=1), highest])


def _moments_of_floats(values: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):  # as in _of_floats
        mean = values.mean(axis=0)
        deviation = np.square(values - mean).sum(axis=0)
    return np.stack([mean, deviation, values.min(axis=0), values.max(axis=0)])


def _count_floats(values: NDArray[Any]) -> NDArray[np.int64]:
    """Histogram of the upper 16 bits of float32's order-preserving code: sign, exponent and 7 bits of the mantissa."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32's range lies its infinity
        bits = np.ascontiguousarray(values.T, np.float32).view(np.uint32)
    code = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> np.uint32(16)
    return np.stack([np.bincount(row, minlength=1 << 16) for row in code.astype(np.int64)])


def _value_of_bin(number: NDArray[np.int64]) -> Floats:
    """Lower edge of a bin of ``_count_floats``."""
    code = number.astype(np.uint32) << np.uint32(16)
    bits = np.where(code >> 31, code & np.uint32((1 << 31) - 1), ~code)
    with np.errstate(invalid="ignore"):  # bins of NaN
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)


class MomentsOfKey:
    """Combines the partitions of a frame key, in any order, into its statistics.

    Histograms are added up as they come; what is kept of a partition is some numbers per episode.
    """

    def __init__(self, key: Key, *, first_episode: int = 0) -> None:
        self._key = key
        self._first_episode = first_episode  # of an append: those before are not looked at
        self._units: dict[int, tuple[NDArray[np.int64], NDArray[Any]]] = {}
        self._histogram = np.zeros((math.prod(key.channel_shape), key.histogram_bins), np.int64)

    def add(self, shard: int, part: FrameMoments) -> None:
        """Add the moments of one shard."""
        self._units[shard] = part.episode, part.moments
        self._histogram += part.histogram

    def combine(self, lengths: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
        """Statistics of each episode, and the histogram, after every shard was added.

        Parameters
        ----------
        lengths : int64 [episode]
            Steps of each episode, from the first that is looked at on.

        Returns
        -------
        table : float64 [episode, 5, …channel]
            ``EPISODE_STATISTICS``.
        histogram : int64 [channel, bin]
            Counts over the whole store.
        """
        units = [self._units[shard] for shard in sorted(self._units)]
        episode = np.concatenate([number for number, _ in units])
        moments = np.concatenate([values for _, values in units])
        bounds = np.searchsorted(episode, self._first_episode + np.arange(len(lengths) + 1))
        pixels = self._key.n_pooled
        exact = self._key.dtype == "uint8"
        table = np.empty((len(lengths), 5, *self._key.channel_shape))
        for number, length in enumerate(lengths.tolist()):
            part = moments[bounds[number] : bounds[number + 1]]
            table[number] = _of_integers(part, length * pixels) if exact else _of_floats(part, pixels)
        return table, self._histogram


def _of_integers(units: NDArray[np.int64], n: int) -> Floats:
    """Exact statistics of integers: sums are Python integers, so the order of addition does not matter."""
    low, high = units[:, 2].min(axis=0), units[:, 3].max(axis=0)
    result = np.empty((5, *units.shape[2:]))
    for channel in np.ndindex(*units.shape[2:]):
        total, squares = (sum(int(x) for x in units[(slice(None), row, *channel)]) for row in (0, 1))
        result[(slice(None), *channel)] = (*_mean_std_rms(total, squares, n), float(low[channel]), float(high[channel]))
    return result


def _mean_std_rms(total: int, squares: int, n: int) -> tuple[float, float, float]:
    return total / n, math.sqrt((n * squares - total * total) / (n * n)), math.sqrt(squares / n)


def _of_floats(units: Floats, n_each: int) -> Floats:
    """Statistics of an episode from its steps' mean, sum of squared deviations, min and max (Chan's update)."""
    with np.errstate(invalid="ignore", over="ignore"):  # a NaN or infinity in a source is its statistic, not an alarm
        mean = units[:, 0].mean(axis=0)
        deviation = units[:, 1].sum(axis=0) + n_each * np.square(units[:, 0] - mean).sum(axis=0)
        variance = deviation / (n_each * len(units))
        return np.stack(
            [
                mean,
                np.sqrt(variance),
                np.sqrt(variance + np.square(mean)),
                units[:, 2].min(axis=0),
                units[:, 3].max(axis=0),
            ]
        )


def episode_statistics(values: NDArray[Any], lengths: NDArray[np.int64]) -> Floats:
    """Statistics of a low-dim key per episode [episode, 5, …] from its `values` [step, …].

    >>> episode_statistics(np.array([1.0, 3.0, 7.0]), np.array([2, 1]))[0].round(3).tolist()
    [2.0, 1.0, 2.236, 1.0, 3.0]
    """
    stops = np.cumsum(lengths)
    table = np.empty((len(lengths), 5, *values.shape[1:]))
    for number, (length, stop) in enumerate(zip(lengths.tolist(), stops.tolist(), strict=True)):
        steps = values[stop - length : stop].astype(np.float64)
        units = np.stack([steps, np.zeros_like(steps), steps, steps], axis=1)
        table[number] = _of_floats(units, 1)
    return table


def store_statistics(
    key: Key,
    table: Floats,
    lengths: NDArray[np.int64],
    *,
    histogram: NDArray[np.int64] | None,
    quantiles: Floats | None,
) -> Floats:
    """``STORE_STATISTICS`` of a key [7, …channel], from its per-episode table.

    Of uint8 pictures from the exact `histogram`; else by combining the episodes in order, with `quantiles` [2, …] as they
    are given (low-dim: exact) or the lower edges of the bins that hold them.
    """
    per_step = key.n_pooled if key.frame else 1
    if histogram is not None:
        flat = quantiles_of_histogram(histogram, exact=key.dtype == "uint8")
        quantiles = flat.reshape(2, *key.channel_shape)
    assert quantiles is not None
    n = int(lengths.sum()) * per_step
    count = np.full((1, *key.channel_shape), float(n))
    if histogram is not None and key.dtype == "uint8":
        moments = _moments_of_counts(histogram).reshape(1, 4, *key.channel_shape)
        mean, std, _, low, high = _of_integers(moments, n)
        return np.concatenate([count, np.stack([mean, std, low, high]), quantiles])
    weights = (lengths * per_step).astype(np.float64).reshape(-1, *(1 for _ in key.channel_shape))
    with np.errstate(invalid="ignore", over="ignore"):
        mean = (table[:, 0] * weights).sum(axis=0) / n
        variance = ((np.square(table[:, 1]) + np.square(table[:, 0] - mean)) * weights).sum(axis=0) / n
    low, high = table[:, 3].min(axis=0), table[:, 4].max(axis=0)
    return np.concatenate([count, np.stack([mean, np.sqrt(variance), low, high]), quantiles])


def quantiles_of_histogram(histogram: NDArray[np.int64], *, exact: bool) -> Floats:
    """The q01 and q99 of each channel [2, channel]: the smallest value with at least that share at or below it.

    >>> quantiles_of_histogram(np.bincount([3] * 50 + [9] * 50, minlength=256)[None], exact=True).tolist()
    [[3.0], [9.0]]
    """
    cumulative = np.cumsum(histogram, axis=1)
    rows = []
    for q in QUANTILES:
        numbers = np.array([np.searchsorted(row, math.ceil(q * int(row[-1])), "left") for row in cumulative], np.int64)
        rows.append(numbers.astype(np.float64) if exact else _value_of_bin(numbers))
    return np.stack(rows)

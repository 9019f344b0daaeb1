"""Estimate the size of a store in the profiles with keyframes, from samples of a conversion's frames. Imports no Dask.

A sample is some chunks of a shard, encoded once more in memory; there are so few that they take less than a second of a
worker's time, whatever the size of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.plan import Plan
from robozarr.convert.records import Partition
from robozarr.schemas.layout import FRAMES_PER_CHUNK, Effort
from robozarr.store.frames.encode import encode_frames

__all__ = ["Sample", "estimated_sizes", "sample_frames", "sampled_shards"]

SAMPLES: Final = 16
"""Chunks of a key, at most."""
SAMPLE_BYTES: Final = 32 * 2**20
"""Of a key's frames, at most; a key whose chunks are larger is not sampled."""
EFFORTS: Final[tuple[Effort, ...]] = ("lean", "compact")


class Sample(NamedTuple):
    """Sizes of some frames, bytes; samples add up."""

    decoded: int
    lean: int
    compact: int

    def plus(self, other: Sample) -> Sample:
        """Both together."""
        return Sample(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def sampled_shards(plan: Plan) -> dict[tuple[str, int], int]:
    """The number of chunks to sample by array and shard: evenly among the shards of each frame key that are written."""
    found: dict[tuple[str, int], int] = {}
    for column in plan.columns:
        if column.key is not None and column.key.frame:
            shards = np.arange(column.first_shard, column.layout.n_shards)
            most = min(SAMPLES, SAMPLE_BYTES // (FRAMES_PER_CHUNK * column.layout.row_bytes))
            n = min(len(shards), most)
            at = np.linspace(0, len(shards), n, endpoint=False).astype(np.int64)
            found |= {(column.layout.path, shard): most // n for shard in shards[at].tolist()}
    return found


def sample_frames(rows: NDArray[Any], partition: Partition, n: int) -> Sample:
    """Encode `n` chunks of a partition, or those that it has, in each way that has keyframes."""
    starts = np.arange(0, max(1, len(rows) - FRAMES_PER_CHUNK + 1), FRAMES_PER_CHUNK)  # whole ones, if there is one
    chosen = starts[((np.arange(min(n, len(starts))) + 0.5) * len(starts) / min(n, len(starts))).astype(np.int64)]
    total = Sample(0, 0, 0)
    for start in chosen.tolist():
        frames = rows[start : start + FRAMES_PER_CHUNK]
        begins = [start + row in partition.begins for row in range(len(frames))]
        sizes = [len(encode_frames(frames, FRAMES_PER_CHUNK, effort, begins=begins)) for effort in EFFORTS]
        total = total.plus(Sample(frames.nbytes, *sizes))
    return total


def estimated_sizes(plan: Plan, samples: Mapping[str, Sample], stored: Mapping[str, int]) -> dict[str, int]:
    """What each profile with keyframes would have taken, bytes; nothing where there are no samples.

    Parameters
    ----------
    plan : Plan
    samples : mapping
        Path of a frame key's array → the sum of its samples.
    stored : mapping
        Path of every column's array → the bytes of its shards as they were written.
    """
    if not samples:
        return {}
    sizes = {path: layout.shape[0] * layout.row_bytes for path, layout in plan.layouts.items() if path in samples}
    others = sum(n for path, n in stored.items() if path not in samples)
    return {
        effort: others + sum(round(n * getattr(samples[path], effort) / samples[path].decoded) for path, n in sizes.items())
        for effort in EFFORTS
    }

"""Compare ``next_obs`` of a demo with ``obs`` one step later: what is equal need not be stored twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from robozarr.convert.records import DatasetInfo
from robozarr.convert.sources.hdf5 import SourceFile

__all__ = ["repeats_obs"]

COMPARE_BYTES: Final = 16 * 2**20
"""Bytes of a dataset held in memory while ``next_obs`` is compared with ``obs``."""


def repeats_obs(source: SourceFile, demo: str, info: DatasetInfo, datasets: Mapping[str, DatasetInfo]) -> bool:
    """Whether a dataset in ``next_obs`` equals the one in ``obs`` one step later, at every step but the last."""
    if not info.path.startswith("next_obs/"):
        return False
    obs = datasets.get(info.path.removeprefix("next_"))
    if obs is None or (obs.shape, obs.dtype) != (info.shape, info.dtype):
        return False
    row_bytes = max(1, int(np.prod(info.shape[1:], dtype=np.int64)) * np.dtype(info.dtype).itemsize)
    rows, last = max(1, COMPARE_BYTES // row_bytes), info.shape[0] - 1
    for start in range(0, last, rows):
        stop = min(last, start + rows)
        after, before = (np.empty((stop - start, *info.shape[1:]), info.dtype) for _ in range(2))
        source.read_frames(demo, info.path, start, stop, after)
        source.read_frames(demo, obs.path, start + 1, stop + 1, before)
        if after.tobytes() != before.tobytes():
            return False
    return True

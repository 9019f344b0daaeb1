"""Read back a whole low-dim key: in blocks of its elements, and episode by episode. Imports no Zarr library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.layout import ArrayLayout
from robozarr.store.place import Place
from robozarr.store.reading import read_shard

__all__ = ["column_blocks", "episode_checksums"]

COLUMN_BLOCK_BYTES = 128 * 2**20
"""Bytes of a low-dim key held in memory at the same time."""


def column_blocks(store: Place, layout: ArrayLayout, *, below: Place | None = None) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks of a low-dim key's elements over all rows: (slice of elements, values [step, element])."""
    n_elements = max(1, layout.row_bytes // np.dtype(layout.dtype).itemsize)
    width = max(1, COLUMN_BLOCK_BYTES // max(1, layout.shape[0] * np.dtype(layout.dtype).itemsize))
    for start in range(0, n_elements, width):
        block = slice(start, min(n_elements, start + width))
        shards = (read_shard(store, layout, shard, below=below) for shard in range(layout.n_shards))
        yield block, np.concatenate([shard.reshape(len(shard), -1)[:, block] for shard in shards])


def episode_checksums(
    store: Place, layout: ArrayLayout, lengths: NDArray[np.int64], *, below: Place | None = None
) -> NDArray[np.uint32]:
    """The crc32c of each episode's rows, little-endian and in C order: uint32 [n_episodes]."""
    ends, episode, done = np.cumsum(lengths), 0, 0
    sums = np.zeros(len(lengths), np.uint32)
    for shard in range(layout.n_shards):
        rows = read_shard(store, layout, shard, below=below)
        start, stop = layout.rows_of_shard(shard)
        while done < stop:
            end = min(stop, int(ends[episode]))
            part = np.ascontiguousarray(rows[done - start : end - start]).reshape(-1).view(np.uint8)
            sums[episode] = google_crc32c.extend(int(sums[episode]), part)
            done, episode = end, episode + (end == ends[episode])
    return sums

"""Read back a whole low-dim key: in blocks of its elements, and episode by episode. Imports no Zarr library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.convert.records import Stored
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import corrupt_chunk, decode_rows, read_index, shard_sum, step_checksums
from robozarr.store.place import Place
from robozarr.store.reading import memory_for, read_array, read_layout, read_shard, read_shard_bytes

__all__ = ["column_blocks", "episode_checksums", "read_stored"]

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


def read_stored(store: Place, stored: Stored, start: int, stop: int) -> NDArray[Any]:
    """Read rows [start, stop) of an array of a store [n, …]; only the chunks that hold them are decoded.

    Raises
    ------
    CorruptChunkError
        If they are not what was written for this store: the shard is not the one that its root binds; in a store of version 1,
        frames are not those that ``checksums/`` describes.
    """
    layout = stored.layout
    out = np.empty((stop - start, *layout.shape[1:]), layout.dtype)
    for number, bound in enumerate(stored.sums, stored.first_shard):
        with memory_for(layout.shard_path(number)):
            data = read_shard_bytes(store, layout, number)
            if bound is None and stored.frames:
                _compare_steps(store, data, layout, number)
            elif bound is not None and (found := shard_sum(data, layout, number)) != bound:
                rule, value = f"the store's root binds it to {bound:08x}", f"{found:08x}"
                raise corrupt_chunk("M23", layout, number, None, rule, value)
            index = read_index(data, layout, number)
            first = number * layout.shard_rows
            for chunk in range(len(index)):
                at = first + chunk * layout.chunk_rows
                low, high = max(at, start), min(at + layout.chunk_rows, stop, layout.shape[0])
                if low < high:
                    wanted = range(low - at, high - at)
                    out[low - start : high - start] = decode_rows(data, index, layout, number, chunk, wanted)
    return out


def _compare_steps(store: Place, data: bytes, layout: ArrayLayout, shard: int) -> None:
    """M21 of a shard of frames, for a store that binds no files."""
    table = read_layout(store, layout.path.replace("steps", "checksums", 1))
    start, stop = layout.rows_of_shard(shard)
    different = np.flatnonzero(read_array(store, table)[start:stop] != step_checksums(data, layout, shard))
    if different.size:
        rule = "the frame must have the checksum that checksums/ states for its step"
        raise corrupt_chunk("M21", layout, shard, int(different[0]), rule, "another frame")

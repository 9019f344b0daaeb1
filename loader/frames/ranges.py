"""Choose the byte ranges that a batch asks a bucket for: compiled, pure, and no I/O. Imports neither zarr nor torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled, compiled_inside, compiled_making_arrays
from robozarr.loader.frames.keyframes import entry_of
from robozarr.loader.frames.shards import FRAMES, Number, Shards, begin_of, chunk_of, end_of, rows_of_chunk

__all__ = ["Held", "byte_ranges", "claim_rows", "note_rows", "whole_chunks"]


class Held(NamedTuple):
    """The encoded rows of one key that are in memory, or requested."""

    owner: NDArray[np.int32]
    """int32 [n_rows]: number of the range that a row belongs to; -1 means none."""
    soon: NDArray[np.int32]
    """int32 [n_rows]: the last announcement that included a row."""
    gap: int
    """Largest gap in bytes between two rows that one request bridges."""
    most: int
    """About the largest size in bytes of a range with more than one row."""


@compiled_inside
def row_begin(shards: Shards, row: Number) -> Number:
    """The first byte in its shard that a row itself needs; the chunk's, in a chunk of frames without a known table."""
    begin = begin_of(shards, chunk_of(shards, row))
    if shards.codec == FRAMES and shards.known[chunk_of(shards, row)]:
        return begin + entry_of(shards, row)[0]
    return begin


@compiled_inside
def row_end(shards: Shards, row: Number) -> Number:
    """The end of the bytes that ``row_begin`` begins."""
    if shards.codec == FRAMES and shards.known[chunk_of(shards, row)]:
        entry = entry_of(shards, row)
        return begin_of(shards, chunk_of(shards, row)) + entry[0] + entry[1]
    return end_of(shards, chunk_of(shards, row))


@compiled_making_arrays
def whole_chunks(
    shards: Shards, held: Held, chunks: NDArray[np.int64], rows: NDArray[np.int64], following: int, most: int
) -> NDArray[np.bool_]:
    """Which chunks of frames are fetched whole instead of table first: small ones, and ones of which much is needed soon.

    Parameters
    ----------
    shards : Shards
    held : Held, written
    chunks : int64 [n]
    rows : int64 [m]
        That are wanted now.
    following : int
        Rows are wanted soon if ``held.soon`` of them is this or more.
    most : int
        Bytes of a small one.
    """
    for row in rows:
        held.soon[row] = max(held.soon[row], following)
    out = np.zeros(len(chunks), np.bool_)
    for i in range(len(chunks)):
        chunk, n_soon = chunks[i], 0
        first, n = chunk * shards.chunk_rows, rows_of_chunk(shards, chunk)
        for row in range(first, first + n):
            n_soon += held.soon[row] >= following
        out[i] = end_of(shards, chunk) - begin_of(shards, chunk) <= most or 2 * n_soon >= n
    return out


@compiled
def claim_rows(
    shards: Shards,
    held: Held,
    rows: NDArray[np.int64],
    following: int,
    number: int,
    ranges: NDArray[np.int64],
    which: NDArray[np.int64],
) -> int:
    """Divide rows into those of existing or requested ranges, and new ranges that the caller must request.

    A new range takes along neighbours, in its shard and up to ``held.most`` bytes, that nobody has asked for yet: those that
    are going to be wanted soon, and what lies in a gap of ``held.gap`` bytes between two such. Chunks of frames whose table is
    not known are taken whole.

    Parameters
    ----------
    shards : Shards
        All that the rows lie in are loaded.
    held : Held, written
    rows : int64 [n], ascending, distinct
    following : int
        Rows are wanted soon if ``held.soon`` of them is this or more.
    number : int
        Of the first new range; later ones count on.
    ranges : int64 [n, 2], written
        Rows of the new ranges, half-open.
    which : int64 [n], written
        Number of each row's range.

    Returns
    -------
    int
        How many ranges are new.
    """
    n_new = 0
    for row in rows:
        held.soon[row] = max(held.soon[row], following)
    for i in range(len(rows)):
        row = rows[i]
        if held.owner[row] < 0:
            shard = row // shards.shard_rows
            low, high = shard * shards.shard_rows, min((shard + 1) * shards.shard_rows, shards.n_rows)
            first, k = row, row - 1
            while k >= low and held.owner[k] < 0 and row_end(shards, row) - row_begin(shards, k) <= held.most:
                if held.soon[k] >= following:
                    first = k
                elif row_begin(shards, first) - row_begin(shards, k) > held.gap:
                    break
                k -= 1
            last, k = row, row + 1
            while k < high and held.owner[k] < 0 and row_end(shards, k) - row_begin(shards, first) <= held.most:
                if held.soon[k] >= following:
                    last = k
                elif row_end(shards, k) - row_end(shards, last) > held.gap:
                    break
                k += 1
            if shards.codec == FRAMES and not shards.known[chunk_of(shards, first)]:
                first = chunk_of(shards, first) * shards.chunk_rows
            if shards.codec == FRAMES and not shards.known[chunk_of(shards, last)]:
                last = chunk_of(shards, last) * shards.chunk_rows + rows_of_chunk(shards, chunk_of(shards, last)) - 1
            held.owner[first : last + 1] = number + n_new
            ranges[n_new, 0], ranges[n_new, 1] = first, last + 1
            n_new += 1
        which[i] = held.owner[row]
    return n_new


@compiled
def note_rows(held: Held, rows: NDArray[np.int64], flight: int) -> None:
    """Note rows that will be needed soon; -1 is ignored."""
    for row in rows.flat:
        if 0 <= row < len(held.soon):
            held.soon[row] = flight


@compiled_making_arrays
def byte_ranges(shards: Shards, ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Byte ranges of row ranges, int64 [n, 2], each inside one shard: int64 [n, 2]."""
    out = np.empty_like(ranges)
    for i in range(len(ranges)):
        out[i, 0], out[i, 1] = row_begin(shards, ranges[i, 0]), row_end(shards, ranges[i, 1] - 1)
    return out

"""Compiled: load what is needed before frames can be read: indexes of shards, tables of chunks of frames; with every check.

Serial functions that hold no GIL. Imports neither zarr nor torch, and raises nothing: what cannot be read exactly is a code and
a row, from which ``loader.frames.faults`` makes an error.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled, compiled_inside, compiled_making_arrays
from robozarr.loader.frames.native import address, memcpy, posix_close, posix_fadvise, posix_preadv2
from robozarr.loader.frames.shards import (
    ENTRY_BYTES,
    FOREIGN,
    FRAMES,
    MISSING,
    NO_FILE,
    NOWAIT,
    OK,
    OUTSIDE,
    READ,
    TABLE,
    WAITS,
    WILLNEED,
    Flag,
    Number,
    Shards,
    begin_of,
    chunk_of,
    close_file,
    end_of,
    file_of,
    load_index,
    open_shard,
    read_bytes,
    rows_of_chunk,
    u32,
)
from robozarr.schemas import frame_chunk

__all__ = ["load_table", "prepare_shards", "take_table", "try_tables"]

_STORED, _, _ZSTD = (int(coding) for coding in frame_chunk.Coding)
_FILTERED: Final = frame_chunk.FILTERED
_NO_ROW: Final = frame_chunk.ABSENT
_STRIP_BYTES: Final = frame_chunk.STRIP_BYTES


@compiled
def prepare_shards(shards: Shards, rows: NDArray[np.int64], free_fds: NDArray[np.int64], fault: NDArray[np.int64]) -> int:
    """Load the index of every shard that rows lie in, and the table of every chunk of frames, once. For one caller at a time.

    Shards stay open while there are `free_fds`, which are counted down; past that, each use opens and closes them.

    Parameters
    ----------
    shards : Shards, written
    rows : int64 [m], ascending
        -1 is passed over.
    free_fds, fault : int64 [1], written

    Returns
    -------
    int
        A code; ``fault[0]`` is the row that failed.
    """
    for j in range(len(rows)):
        if rows[j] < 0:
            continue
        fault[0] = rows[j]
        if rows[j] >= shards.n_rows:
            return OUTSIDE
        shard = rows[j] // shards.shard_rows
        if shards.loaded[shard]:
            continue
        fd = open_shard(shards, shard)
        if fd < 0:
            return MISSING
        code = load_index(shards, shard, fd)
        if code == OK and free_fds[0] > 0:
            free_fds[0] -= 1
            shards.fds[shard] = fd
        else:
            posix_close(fd)
        if code != OK:
            return code
        shards.loaded[shard] = 1
    return _load_tables(shards, rows, fault) if shards.codec == FRAMES else OK


@compiled_inside
def _load_tables(shards: Shards, rows: NDArray[np.int64], fault: NDArray[np.int64]) -> int:
    """Load the table of every chunk that rows lie in, once; as `prepare_shards`, whose shards are loaded."""
    waits = np.bool_(True)
    advised: Flag = not waits
    held, code = NO_FILE, OK
    j = np.int64(0)
    while j < len(rows) and code == OK:
        if rows[j] < 0 or shards.known[chunk_of(shards, rows[j])]:
            j += 1
            continue
        fault[0] = rows[j]
        chunk, shard = chunk_of(shards, rows[j]), rows[j] // shards.shard_rows
        fd, held = file_of(shards, shard, held)
        if fd < 0:
            code = MISSING
            break
        code = load_table(shards, chunk, fd, advised, fault)
        if code == WAITS:
            _advise_tables(shards, rows, j)
            advised, code = waits, OK
    close_file(held)
    return code


@compiled_inside
def _advise_tables(shards: Shards, rows: NDArray[np.int64], j: Number) -> None:
    """Ask for all tables that are still to be read at once: a disk serves many requests together."""
    last: Number = -1
    while j < len(rows):
        chunk = chunk_of(shards, rows[j])
        if rows[j] >= 0 and chunk != last and not shards.known[chunk]:
            last, fd = chunk, shards.fds[rows[j] // shards.shard_rows]
            if fd >= 0:
                posix_fadvise(fd, begin_of(shards, chunk), ENTRY_BYTES * shards.chunk_rows, WILLNEED)
        j += 1


@compiled
def try_tables(shards: Shards, rows: NDArray[np.int64], fault: NDArray[np.int64]) -> None:
    """Load the tables of the chunks that rows lie in, from files that may have holes, if complete. For one caller at a time."""
    held = NO_FILE
    tried: Number = -1
    for j in range(len(rows)):
        chunk, shard = chunk_of(shards, rows[j]), rows[j] // shards.shard_rows
        if chunk == tried or shards.known[chunk]:
            continue
        tried = chunk
        fd, held = file_of(shards, shard, held)
        if fd >= 0:
            load_table(shards, chunk, fd, np.bool_(True), fault)
    close_file(held)


@compiled_making_arrays
def load_table(shards: Shards, chunk: Number, fd: Number, may_wait: Flag, fault: NDArray[np.int64]) -> int:
    """Read the table of a chunk of frames from its shard's file; WAITS if that would have to wait; else as `take_table`."""
    table = np.empty(ENTRY_BYTES * shards.chunk_rows, np.uint8)
    begin, done = begin_of(shards, chunk), False
    if NOWAIT and not may_wait:
        vector = np.empty(2, np.int64)
        vector[0], vector[1] = table.ctypes.data, len(table)
        got = posix_preadv2(fd, address(vector.ctypes.data), 1, begin, NOWAIT)
        if got != vector[1]:  # of the vector, not the table: numba frees an array behind the last line that names it
            return WAITS
        done = True
    if not done and not read_bytes(fd, table.ctypes.data, len(table), begin):
        return READ
    return take_table(shards, chunk, table, fault)


@compiled
def take_table(shards: Shards, chunk: Number, table: NDArray[np.uint8], fault: NDArray[np.int64]) -> int:
    """Check the table of a chunk of frames as FORMAT.md says, all of it, and keep it. For one caller at a time.

    Parameters
    ----------
    shards : Shards, written
    chunk : int
    table : uint8 [16 * chunk_rows]
        The first bytes of the chunk.
    fault : int64 [1], written where a row's checksum is not the one that it must have: that row

    Returns
    -------
    int
        OK; TABLE; or FOREIGN: an entry states another checksum than its row must have.
    """
    n, begin = rows_of_chunk(shards, chunk), ENTRY_BYTES * shards.chunk_rows
    n_strips = -(-shards.row_bytes // _STRIP_BYTES)
    at: Number = begin
    n_bytes = end_of(shards, chunk) - begin_of(shards, chunk)
    for row in range(shards.chunk_rows):
        entry = row * ENTRY_BYTES
        offset, length, crc = u32(table, entry), u32(table, entry + 4), u32(table, entry + 12)
        mode, keyframe = np.int64(table[entry + 8]), np.int64(table[entry + 9])
        if table[entry + 10] or table[entry + 11]:
            return TABLE
        if row >= n:
            if keyframe != _NO_ROW or offset or length or mode or crc:
                return TABLE
            continue
        if keyframe > row or offset != at or length == 0 or length > shards.row_bytes + 4 * n_strips:
            return TABLE
        if mode & ~_FILTERED > _ZSTD or (mode & _FILTERED and not shards.filters):
            return TABLE
        if keyframe != row:
            other = keyframe * ENTRY_BYTES
            if np.int64(table[other + 9]) != keyframe or mode & 3 == _STORED:
                return TABLE
            if mode & ~np.int64(table[other + 8]) & _FILTERED:
                return TABLE
        at += length
    if at != n_bytes:
        return TABLE
    first = chunk * shards.chunk_rows
    if len(shards.sums):
        for row in range(n):
            if u32(table, row * ENTRY_BYTES + 12) != np.int64(shards.sums[first + row]):
                fault[0] = first + row
                return FOREIGN
    memcpy(address(shards.tables[chunk].ctypes.data), address(table.ctypes.data), begin)
    shards.known[chunk] = 1
    return OK

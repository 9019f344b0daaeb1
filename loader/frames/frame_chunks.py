"""Compiled: read frames of chunks with keyframes, from files or from memory, and put them where a batch wants them.

Of a chunk the frames that are wanted are read, and their keyframes, neighbours by one system call; the chunk's table is known
before (``loader.frames.prepare``). Serial functions that hold no GIL; threads are the caller's. Imports neither zarr nor torch,
and raises nothing: what cannot be read exactly is a code and a row, from which ``loader.frames.faults`` makes an error.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.buffers import RUN_BYTES, Buffers, read_vectors
from robozarr.loader.frames.compiling import compiled, compiled_inside
from robozarr.loader.frames.keyframes import NOTHING, FrameMemory, decode_frame, entry_of, find_key
from robozarr.loader.frames.native import address, memset, posix_fadvise
from robozarr.loader.frames.rows import BatchRows, spread_row
from robozarr.loader.frames.shards import (
    MISSING,
    NEEDS_KEY,
    NO_FILE,
    NOWAIT,
    OK,
    OUTSIDE,
    READ,
    WAITS,
    WILLNEED,
    Flag,
    Number,
    Shards,
    begin_of,
    chunk_of,
    close_file,
    file_of,
    rows_of_chunk,
)

__all__ = ["decode_frames", "frames_needed", "read_frames"]

GAP_BYTES: Final = 8 * 2**10
"""Between two frames that are read by one call: what is copied in the time that a system call takes."""
WANTED, KEYFRAME = 1, 2
"""Roles of a row: the batch wants it; another row needs it as its keyframe."""


@compiled
def read_frames(
    shards: Shards,
    batch_rows: BatchRows,
    start: Number,
    stop: Number,
    out: NDArray[np.uint8],
    buffers: Buffers,
    memory: FrameMemory,
    missed: NDArray[np.int64],
) -> int:
    """Read the distinct rows ``batch_rows.row[start:stop]`` from files, as ``kernel.read_chunks`` does where chunks are rows.

    Parameters
    ----------
    shards : Shards
        All that the rows lie in are loaded, and the tables of their chunks known; if `missed` is not empty, need not be known.
    batch_rows : BatchRows
    out : uint8 [positions, row_bytes], written
    buffers, memory : Buffers and FrameMemory, written
    missed : int64 [0], or [stop - start + 1], written
        Empty: every row must be there. Else rows that are not there as they should be are passed over, without a word:
        ``missed[0]`` is how many, and behind it which of `batch_rows` they are.

    Returns
    -------
    int
        A code; ``buffers.fault[0]`` is the row that failed.
    """
    rows, held, code, j = batch_rows.row, NO_FILE, OK, start
    waits = np.bool_(True)
    advised: Flag = not waits
    strict = len(missed) == 0
    if not strict:
        missed[0] = 0
    while j < stop and code == OK:
        if rows[j] < 0:
            for i in range(batch_rows.first[j], batch_rows.first[j + 1]):
                memset(address(out.ctypes.data + batch_rows.place[i] * shards.row_bytes), 0, shards.row_bytes)
            j += 1
            continue
        buffers.fault[0] = rows[j]
        if rows[j] >= shards.n_rows:
            code = OUTSIDE
            break
        chunk, shard, k = chunk_of(shards, rows[j]), rows[j] // shards.shard_rows, j + 1
        while k < stop and chunk_of(shards, rows[k]) == chunk:
            k += 1
        fd, held = file_of(shards, shard, held)
        _assign_roles(shards, rows, j, k, memory)
        code = MISSING if fd < 0 else OK if shards.known[chunk] else READ
        for _ in range(2 if code == OK else 0):  # called at one place: each call is compiled for itself, with all that it calls
            code = _read_chunk(shards, batch_rows, chunk, fd, advised, out, buffers, memory, strict)
            if code != WAITS:
                break
            _advise(shards, rows, j, stop)  # nothing of the chunk is done
            advised = waits
        if not strict:
            code = OK
            for i in range(j, k):
                if memory.role[rows[i] - chunk * shards.chunk_rows] & WANTED:  # what was read has none any more
                    missed[0] += 1
                    missed[missed[0]] = i
        memory.role[: shards.chunk_rows] = 0
        j = k
    close_file(held)
    return code


@compiled_inside
def _assign_roles(shards: Shards, rows: NDArray[np.int64], j: Number, k: Number, memory: FrameMemory) -> None:
    """Note what the rows ``rows[j:k]`` of a chunk need: themselves, and their keyframes, unless these are kept."""
    chunk = chunk_of(shards, rows[j])
    first = chunk * shards.chunk_rows
    memory.role[: shards.chunk_rows] = 0
    for i in range(j, k):
        row = rows[i] - first
        memory.role[row] |= WANTED
        memory.place[row] = i
        if shards.known[chunk]:
            keyframe = entry_of(shards, rows[i])[3]
            if keyframe != row and find_key(shards, first + keyframe, memory) == NOTHING:
                memory.role[keyframe] |= KEYFRAME


@compiled_inside
def _read_chunk(
    shards: Shards, batch_rows: BatchRows, chunk: Number, fd: Number, may_wait: Flag, out: NDArray[np.uint8], buffers: Buffers,
    memory: FrameMemory, strict: bool,
) -> int:  # fmt: skip
    """Read all that has a role in one chunk. Without `strict`, rows that fail are skipped, and keep their roles.

    Returns WAITS if the first bytes are not in memory, and may not be waited for.
    """
    first, n, begin = chunk * shards.chunk_rows, rows_of_chunk(shards, chunk), begin_of(shards, chunk)
    row, waits = np.int64(0), may_wait
    while row < n:
        if memory.role[row] == 0:
            row += 1
            continue
        buffers.fault[0] = first + row
        last, offset, end = _end_of_run(shards, first, row, n, memory)
        buffers.vectors[0], buffers.vectors[1] = buffers.buffer.ctypes.data, end - offset
        done = read_vectors(fd, buffers, np.int64(1), begin + offset, end - offset, waits | np.bool_(NOWAIT == 0))
        if done == 0:
            return WAITS
        waits = np.bool_(True)  # a chunk that was begun is ended
        code = OK if done == 1 else READ
        if code != OK and strict:
            return code
        while row <= last:
            if memory.role[row] and code == OK:
                source = np.int64(buffers.buffer.ctypes.data) + entry_of(shards, first + row)[0] - offset
                got = _use(shards, batch_rows, first + row, source, fd, out, buffers, memory)
                if got == OK:
                    memory.role[row] = 0
                elif strict:
                    return got
            row += 1
    return OK


@compiled_inside
def _end_of_run(shards: Shards, first: Number, row: Number, n: Number, memory: FrameMemory) -> tuple[Number, Number, Number]:
    """The last row that one call reads, from `row` on; and which bytes of the chunk it reads, half-open."""
    entry = entry_of(shards, first + row)
    offset, end, last = entry[0], entry[0] + entry[1], row
    for other in range(row + 1, n):
        if memory.role[other]:
            entry = entry_of(shards, first + other)
            if entry[0] - end > GAP_BYTES or entry[0] + entry[1] - offset > RUN_BYTES:
                break
            end, last = entry[0] + entry[1], other
    return last, offset, end


@compiled_inside
def _use(
    shards: Shards, batch_rows: BatchRows, row: Number, source: Number, fd: Number, out: NDArray[np.uint8], buffers: Buffers,
    memory: FrameMemory,
) -> int:  # fmt: skip
    """Decode a row to every place that its roles name; a keyframe that is no longer kept is read again."""
    role = memory.role[row % shards.chunk_rows]
    j, target = memory.place[row % shards.chunk_rows], np.int64(0)
    if role & WANTED:
        target = out.ctypes.data + batch_rows.place[batch_rows.first[j]] * shards.row_bytes
    at: Number = np.int64(row)
    place, keep, to, code = np.int64(source), role & KEYFRAME != 0, target, OK
    for _ in range(3):  # the row; else, of many keyframes in one chunk, its keyframe, and then the row
        buffers.fault[0] = at
        code = decode_frame(shards, at, place, keep, to, memory)
        if code == NEEDS_KEY:
            at = row - row % shards.chunk_rows + entry_of(shards, row)[3]
            place, keep, to = np.int64(memory.key_payload.ctypes.data), True, np.int64(0)
            buffers.fault[0] = at
            entry = entry_of(shards, at)
            buffers.vectors[0], buffers.vectors[1] = place, entry[1]
            begin = begin_of(shards, chunk_of(shards, row)) + entry[0]
            if read_vectors(fd, buffers, np.int64(1), begin, entry[1], np.bool_(True)) != 1:
                return READ
        elif code != OK or at == row:
            break
        else:
            at, place, keep, to = np.int64(row), np.int64(source), role & KEYFRAME != 0, target
    if code == OK and role & WANTED:
        spread_row(shards, batch_rows, j, out)
    return code


@compiled_inside
def _advise(shards: Shards, rows: NDArray[np.int64], j: Number, stop: Number) -> None:
    """Ask for all that is still to be read at once: a disk serves many requests together, and later ones find it in memory."""
    held = NO_FILE
    keyframe: Number = -1
    chunk: Number = -1
    for i in range(j, stop):
        if rows[i] < 0 or rows[i] >= shards.n_rows or not shards.known[chunk_of(shards, rows[i])]:
            continue
        shard = rows[i] // shards.shard_rows
        fd, held = file_of(shards, shard, held)
        if fd < 0:
            continue
        if chunk_of(shards, rows[i]) != chunk:
            chunk, keyframe = chunk_of(shards, rows[i]), -1
        entry, begin = entry_of(shards, rows[i]), begin_of(shards, chunk)
        if entry[3] != keyframe and entry[3] != rows[i] - chunk * shards.chunk_rows:
            keyframe = entry[3]
            of_key = entry_of(shards, chunk * shards.chunk_rows + keyframe)
            posix_fadvise(fd, begin + of_key[0], of_key[1], WILLNEED)
        posix_fadvise(fd, begin + entry[0], entry[1], WILLNEED)
    close_file(held)


@compiled
def frames_needed(shards: Shards, rows: NDArray[np.int64], needed: NDArray[np.int64], of_row: NDArray[np.int64]) -> int:
    """Rows, and the keyframes that they are decoded with.

    Parameters
    ----------
    shards : Shards
        The tables of the rows' chunks are known.
    rows : int64 [n], ascending, distinct
    needed : int64 [2 * n], written
        The same rows and their keyframes, ascending, each once.
    of_row : int64 [2 * n], written
        Which of `rows` each is; -1: none, but the keyframe of some.

    Returns
    -------
    int
        How many are needed.
    """
    n, j = 0, 0
    while j < len(rows):
        chunk, k = chunk_of(shards, rows[j]), j + 1
        while k < len(rows) and chunk_of(shards, rows[k]) == chunk:
            k += 1
        first = chunk * shards.chunk_rows
        for row in range(first, rows[k - 1] + 1):
            if j < k and rows[j] == row:
                needed[n], of_row[n] = row, j
                n, j = n + 1, j + 1
                continue
            for i in range(j, k):
                if first + entry_of(shards, rows[i])[3] == row:
                    needed[n], of_row[n] = row, -1
                    n += 1
                    break
        j = k
    return n


@compiled
def decode_frames(
    shards: Shards, batch_rows: BatchRows, todo: NDArray[np.int64], needed: NDArray[np.int64], of_todo: NDArray[np.int64],
    which: NDArray[np.int64], spans: NDArray[np.int64], out: NDArray[np.uint8], buffers: Buffers, memory: FrameMemory,
) -> int:  # fmt: skip
    """Take distinct rows ``batch_rows.row[todo]`` from memory, and put each wherever the batch wants it, as `read_frames` does.

    Parameters
    ----------
    shards : Shards
        The tables of the rows' chunks are known.
    batch_rows : BatchRows
    todo : int64 [n]
    needed, of_todo : int64 [m]
        What `frames_needed` said of these rows.
    which : int64 [m]
        Where in `spans` each needed row's bytes are.
    spans : int64 [k, 3]
        Address, first byte inside the shard, and end inside the shard, of bytes that are there.
    out : uint8 [positions, row_bytes], written
    buffers, memory : Buffers and FrameMemory, written

    Returns
    -------
    int
        A code; ``buffers.fault[0]`` is the row that failed.
    """
    for i in range(len(needed)):
        row, j, target = needed[i], np.int64(-1), np.int64(0)
        if of_todo[i] >= 0:
            j = todo[of_todo[i]]
            target = out.ctypes.data + batch_rows.place[batch_rows.first[j]] * shards.row_bytes
        elif find_key(shards, row, memory) != NOTHING:
            continue
        code = _decode_from(shards, row, _is_key(shards, needed, i), which[i], spans, target, buffers, memory)
        if code == NEEDS_KEY:  # of many keyframes in one chunk
            keyframe = row - row % shards.chunk_rows + entry_of(shards, row)[3]
            at = np.searchsorted(needed, keyframe)
            code = _decode_from(shards, keyframe, np.bool_(True), which[at], spans, np.int64(0), buffers, memory)
            if code == OK:
                code = _decode_from(shards, row, np.bool_(False), which[i], spans, target, buffers, memory)
        if code != OK:
            return code
        if j >= 0:
            spread_row(shards, batch_rows, j, out)
    return OK


@compiled_inside
def _decode_from(
    shards: Shards, row: Number, keep: Flag, which: Number, spans: NDArray[np.int64], target: Number, buffers: Buffers,
    memory: FrameMemory,
) -> int:  # fmt: skip
    """Decode a row whose bytes are in a span of memory; READ if they are not."""
    buffers.fault[0] = row
    entry, begin, span = entry_of(shards, row), begin_of(shards, chunk_of(shards, row)), spans[which]
    if begin + entry[0] < span[1] or begin + entry[0] + entry[1] > span[2]:
        return READ
    return decode_frame(shards, row, span[0] + begin + entry[0] - span[1], keep, target, memory)


@compiled_inside
def _is_key(shards: Shards, needed: NDArray[np.int64], i: int) -> bool:
    """Whether a needed row is the keyframe of a later one."""
    first, k = needed[i] - needed[i] % shards.chunk_rows, i + 1
    while k < len(needed) and needed[k] < first + shards.chunk_rows:
        if first + entry_of(shards, needed[k])[3] == needed[i]:
            return True
        k += 1
    return False

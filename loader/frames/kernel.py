"""Compiled: read chunks that are rows, check and decode them, and put them where a batch wants them.

Serial functions that hold no GIL; threads are the caller's. Imports neither zarr nor torch, and raises nothing: what cannot be
read exactly is a code and a row, from which ``loader.frames.faults`` makes an error. Numba's own parallel layers are not used:
OpenMP's aborts after a fork, workqueue's on concurrent calls. Chunks of frames with keyframes: ``loader.frames.frame_chunks``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.buffers import RUN_BYTES, RUN_CHUNKS, Buffers, ThreadBuffers, read_vectors
from robozarr.loader.frames.compiling import compiled, compiled_inside
from robozarr.loader.frames.native import (
    address,
    blosc_decode,
    blosc_fault,
    bytes_at,
    crc32c,
    memcpy,
    memset,
    posix_fadvise,
)
from robozarr.loader.frames.prepare import prepare_shards
from robozarr.loader.frames.rows import BatchRows, copy_rows, first_other, group_rows, put_row, spread_row
from robozarr.loader.frames.shards import (
    ABSENT,
    CHECKSUM,
    CLOSED,
    CRC_BYTES,
    DECODED,
    FOREIGN,
    INDEX,
    MISSING,
    NO_FILE,
    NOWAIT,
    OK,
    OUTSIDE,
    RAW,
    READ,
    SIZE,
    WILLNEED,
    Shards,
    begin_of,
    close_file,
    close_shards,
    encoded_bytes_max,
    end_of,
    file_of,
    index_bytes,
    load_index,
    shards_of,
    take_index,
)

__all__ = [
    "ABSENT",
    "CHECKSUM",
    "CLOSED",
    "DECODED",
    "FOREIGN",
    "INDEX",
    "MISSING",
    "OK",
    "OUTSIDE",
    "READ",
    "SIZE",
    "BatchRows",
    "Buffers",
    "Shards",
    "ThreadBuffers",
    "begin_of",
    "close_shards",
    "copy_rows",
    "decode_rows",
    "end_of",
    "first_other",
    "group_rows",
    "index_bytes",
    "load_index",
    "prepare_shards",
    "read_chunks",
    "shards_of",
    "take_index",
]


@compiled_inside
def _end_of_run(shards: Shards, rows: NDArray[np.int64], j: int, stop: int) -> int:
    """End of the neighbouring chunks of one shard that are read together from ``rows[j]`` on."""
    shard = rows[j] // shards.shard_rows
    begin, k = begin_of(shards, rows[j]), j + 1
    while k < stop and k - j < RUN_CHUNKS and rows[k] == rows[k - 1] + 1 and rows[k] // shards.shard_rows == shard:
        if end_of(shards, rows[k]) - begin > RUN_BYTES:
            break
        k += 1
    return k


@compiled_inside
def _advise(shards: Shards, rows: NDArray[np.int64], j: int, stop: int) -> None:
    """Ask for all that is still to be read at once: a disk serves many requests together, and later ones find it in memory."""
    held = NO_FILE
    while j < stop:
        k, shard = _end_of_run(shards, rows, j, stop), rows[j] // shards.shard_rows
        fd, held = file_of(shards, shard, held)
        if fd >= 0:
            begin = begin_of(shards, rows[j])
            posix_fadvise(fd, begin, end_of(shards, rows[k - 1]) - begin, WILLNEED)
        j = k
    close_file(held)


@compiled_inside
def _aim(shards: Shards, batch_rows: BatchRows, j: int, k: int, out: NDArray[np.uint8], buffers: Buffers) -> int:
    """Say where the bytes of a run go: rows that are as the batch wants them straight into it, others into the buffer."""
    if shards.codec != RAW or len(shards.over):
        buffers.vectors[0] = buffers.buffer.ctypes.data
        buffers.vectors[1] = end_of(shards, batch_rows.row[k - 1]) - begin_of(shards, batch_rows.row[j])
        return 1
    for c in range(k - j):
        buffers.vectors[4 * c] = out.ctypes.data + batch_rows.place[batch_rows.first[j + c]] * shards.row_bytes
        buffers.vectors[4 * c + 1] = shards.row_bytes
        buffers.vectors[4 * c + 2] = buffers.checksums.ctypes.data + CRC_BYTES * c
        buffers.vectors[4 * c + 3] = CRC_BYTES
    return 2 * (k - j)


@compiled_inside
def _decode(
    shards: Shards, batch_rows: BatchRows, j: int, source: int, stored: int, out: NDArray[np.uint8], buffers: Buffers
) -> int:
    """Check a chunk and decode it to wherever the batch wants it.

    The chunk's bytes without its checksum begin at the address `source`, the checksum at the address `stored`. A row without a
    codec may lie where it is batch_rows already.
    """
    target = out.ctypes.data + batch_rows.place[batch_rows.first[j]] * shards.row_bytes
    size = end_of(shards, batch_rows.row[j]) - begin_of(shards, batch_rows.row[j]) - CRC_BYTES
    memcpy(address(buffers.last.ctypes.data), address(stored), CRC_BYTES)
    crc = crc32c(address(source), size)
    if crc != buffers.last[0]:
        return CHECKSUM
    row = batch_rows.row[j]
    if shards.codec != RAW:
        # libblosc2 takes chunks of other forms for something else than other decoders do
        if blosc_fault(bytes_at(address(source), size), shards.row_bytes, shards.itemsize, shards.flags):
            return DECODED
        over = len(shards.over) > 0 and shards.over[row] != 0
        pixels = np.int64(buffers.pixels.ctypes.data) if over else np.int64(target)
        if blosc_decode(address(buffers.context), address(source), size, address(pixels), shards.row_bytes) != shards.row_bytes:
            return DECODED
        if over:
            put_row(shards, row, pixels, target)
    elif source != target:
        put_row(shards, row, source, target)
    if len(shards.sums) and crc != shards.sums[row]:
        return FOREIGN
    spread_row(shards, batch_rows, j, out)
    return OK


@compiled_inside
def _check_sizes(shards: Shards, rows: NDArray[np.int64], buffers: Buffers) -> int:
    """Whether each chunk of a run has a size that a row can have."""
    for row in rows:
        size = end_of(shards, row) - begin_of(shards, row) - CRC_BYTES
        if size > encoded_bytes_max(shards.row_bytes) or (shards.codec == RAW and size != shards.row_bytes):
            buffers.fault[0] = row
            return SIZE
    return OK


@compiled
def read_chunks(
    shards: Shards,
    batch_rows: BatchRows,
    start: int,
    stop: int,
    out: NDArray[np.uint8],
    buffers: Buffers,
    missed: NDArray[np.int64],
) -> int:
    """Read the distinct rows ``batch_rows.row[start:stop]`` from files and put each wherever the batch wants it.

    Neighbouring chunks of a shard are one read. Every range lies inside its shard, as `prepare_shards` has checked; every
    chunk's checksum and decoded size is checked here.

    Parameters
    ----------
    shards : Shards
        All that the rows lie in are loaded.
    batch_rows : BatchRows
    out : uint8 [positions, row_bytes], written
    buffers : Buffers, written
    missed : int64 [0], or [stop - start + 1], written
        Empty: every row must be there. Else rows that are not there as they should be are passed over, without a word:
        ``missed[0]`` is how many, and behind it which of `batch_rows` they are.

    Returns
    -------
    int
        A code; ``buffers.fault[0]`` is the row that failed.
    """
    rows, held, advised, code, j = batch_rows.row, NO_FILE, False, OK, start
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
        shard, k, begin = rows[j] // shards.shard_rows, _end_of_run(shards, rows, j, stop), begin_of(shards, rows[j])
        fd, held = file_of(shards, shard, held)
        if fd < 0 and strict:
            return MISSING
        n_bytes = end_of(shards, rows[k - 1]) - begin
        code = _check_sizes(shards, rows[j:k], buffers) if fd >= 0 else MISSING
        if code == OK:
            done = read_vectors(
                fd, buffers, _aim(shards, batch_rows, j, k, out, buffers), begin, n_bytes, np.bool_(NOWAIT == 0)
            )
            if done == 0:
                if not advised:
                    _advise(shards, rows, j, stop)
                    advised = True
                done = read_vectors(fd, buffers, _aim(shards, batch_rows, j, k, out, buffers), begin, n_bytes, np.bool_(True))
            code = OK if done == 1 else READ
        of_run = code
        for c in range(k - j):
            code = of_run
            if code == OK:
                buffers.fault[0] = rows[j + c]
                source, stored = _read_to(shards, batch_rows, j + c, begin_of(shards, rows[j + c]) - begin, c, out, buffers)
                code = _decode(shards, batch_rows, j + c, source, stored, out, buffers)
            if code != OK:
                if strict:
                    break
                missed[0], code = missed[0] + 1, OK
                missed[missed[0]] = j + c
        j = k
    close_file(held)
    return code


@compiled_inside
def _read_to(
    shards: Shards, batch_rows: BatchRows, j: int, at: int, c: int, out: NDArray[np.uint8], buffers: Buffers
) -> tuple[int, int]:
    """Addresses of chunk `c` of a run and of its checksum, read as `_aim` said, `at` bytes after the run's beginning."""
    if shards.codec == RAW and len(shards.over) == 0:
        target = out.ctypes.data + batch_rows.place[batch_rows.first[j]] * shards.row_bytes
        return target, buffers.checksums.ctypes.data + CRC_BYTES * c
    source = buffers.buffer.ctypes.data + at
    return source, source + end_of(shards, batch_rows.row[j]) - begin_of(shards, batch_rows.row[j]) - CRC_BYTES


@compiled
def decode_rows(
    shards: Shards, batch_rows: BatchRows, todo: NDArray[np.int64], which: NDArray[np.int64], spans: NDArray[np.int64],
    out: NDArray[np.uint8], buffers: Buffers,
) -> int:  # fmt: skip
    """Take distinct rows ``batch_rows.row[todo]`` from memory, and put each wherever the batch wants it, as `read_chunks` does.

    Parameters
    ----------
    shards : Shards
    batch_rows : BatchRows
    todo : int64 [n]
    which : int64 [n]
        Where in `spans` each row's bytes are.
    spans : int64 [m, 3]
        Address, first byte inside the shard, and end inside the shard, of bytes that are there.
    out : uint8 [positions, row_bytes], written
    buffers : Buffers, written

    Returns
    -------
    int
        A code; ``buffers.fault[0]`` is the row that failed.
    """
    for i in range(len(todo)):
        j = todo[i]
        row = batch_rows.row[j]
        buffers.fault[0] = row
        if row < 0 or row >= shards.n_rows:
            return OUTSIDE
        begin, end, span = begin_of(shards, row), end_of(shards, row), spans[which[i]]
        if begin < span[1] or end > span[2]:
            return READ
        code = _check_sizes(shards, batch_rows.row[j : j + 1], buffers)
        if code == OK:
            source = span[0] + begin - span[1]
            code = _decode(shards, batch_rows, j, source, source + end - begin - CRC_BYTES, out, buffers)
        if code != OK:
            return code
    return OK

"""Compiled: decode frames of chunks with keyframes (codec robozarr.frames), each straight to where a batch wants it.

The last keyframes that a thread decoded are kept: all windows that want one have it decoded once, those of the next batch too.
Serial functions that hold no GIL. Nothing is believed: a frame's checksum and decoded size are checked here, its table before
(``loader.frames.prepare.take_table``). Imports neither zarr nor torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled_inside
from robozarr.loader.frames.native import (
    address,
    bytes_at,
    crc32c_extend,
    free_zstd_context,
    lz4_decode,
    make_zstd_context,
    memcpy,
    zstd_decode,
)
from robozarr.loader.frames.rows import put_row
from robozarr.loader.frames.shards import (
    CHECKSUM,
    DECODED,
    ENTRY_BYTES,
    FOREIGN,
    NEEDS_KEY,
    OK,
    TABLE,
    Flag,
    Number,
    Shards,
    begin_of,
    chunk_of,
    encoded_bytes_max,
    end_of,
    u32,
)
from robozarr.schemas import frame_chunk

__all__ = ["Entry", "FrameBuffers", "FrameMemory", "decode_frame", "entry_of", "find_key"]

STRIP_BYTES: Final = frame_chunk.STRIP_BYTES
STORED, LZ4, ZSTD = (int(coding) for coding in frame_chunk.Coding)
FILTERED: Final = frame_chunk.FILTERED
ROWS: Final = frame_chunk.ABSENT
"""More rows than a chunk has."""
KEPT: Final = 4
"""Keyframes that a thread keeps of a key: of the chunk at hand, and of neighbours, where batches follow the store's order."""
NOTHING: Final = -1
Entry: TypeAlias = tuple[Number, Number, Number, Number]
"""Offset inside the chunk, length, mode, keyframe."""


class FrameMemory(NamedTuple):
    """A thread's memory for frames of one key."""

    context: int
    """A context of zstd."""
    coded: NDArray[np.uint8]
    """uint8 [row_bytes]: what the strips of the frame at hand decode to, if it is filtered."""
    pixels: NDArray[np.uint8]
    """uint8 [row_bytes]: the frame at hand, if it is going to be turned over."""
    key_coded: NDArray[np.uint8]
    """uint8 [KEPT, row_bytes]: what the strips of keyframes decode to, if they are filtered,"""
    key_pixels: NDArray[np.uint8]
    """uint8 [KEPT, row_bytes]: and their pixels."""
    key_row: NDArray[np.int64]
    """int64 [KEPT]: which rows they are; NOTHING: none."""
    key_sum: NDArray[np.int64]
    """int64 [KEPT]: and the checksums that their entries stated."""
    key_next: NDArray[np.int64]
    """int64 [1]: which one is replaced next."""
    key_payload: NDArray[np.uint8]
    """Bytes of a keyframe that is read for itself."""
    line: NDArray[np.uint8]
    """uint8 [3, x]: the line above, by plane."""
    role: NDArray[np.uint8]
    """uint8 [ROWS]: what rows of the chunk at hand are needed for."""
    place: NDArray[np.int64]
    """int64 [ROWS]: which of the batch's distinct rows they are."""


class FrameBuffers:
    """A thread's memory for frames of one key, and a context of zstd."""

    def __init__(self, row_bytes: int, height: Number, filters: bool) -> None:
        self._context = make_zstd_context()
        n, filtered = row_bytes, row_bytes if filters else 0
        width = max(n // max(3 * height, 1), 1)
        self.memory = FrameMemory(
            context=self._context,
            coded=np.empty(filtered, np.uint8),
            pixels=np.empty(n, np.uint8),
            key_coded=np.empty((KEPT, filtered), np.uint8),
            key_pixels=np.empty((KEPT, n), np.uint8),
            key_row=np.full(KEPT, NOTHING),
            key_sum=np.zeros(KEPT, np.int64),
            key_next=np.zeros(1, np.int64),
            key_payload=np.empty(encoded_bytes_max(n), np.uint8),
            line=np.empty((3, width), np.uint8),
            role=np.zeros(ROWS, np.uint8),
            place=np.zeros(ROWS, np.int64),
        )

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends() and (context := getattr(self, "_context", 0)):  # then modules are taken apart already
            free_zstd_context(context)


@compiled_inside
def entry_of(shards: Shards, row: Number) -> Entry:
    """Table entry of a row of the array: offset, length, mode, keyframe; length 0 if it is out of bounds."""
    chunk = chunk_of(shards, row)
    table, at = shards.tables[chunk], (row - chunk * shards.chunk_rows) * ENTRY_BYTES
    offset, length = u32(table, at), u32(table, at + 4)
    n_bytes = end_of(shards, chunk) - begin_of(shards, chunk)
    keyframe = np.int64(table[at + 9])
    if (
        offset > n_bytes
        or length > n_bytes - offset
        or keyframe * ENTRY_BYTES > at
        or length > encoded_bytes_max(shards.row_bytes)
    ):
        return 0, 0, 0, 0
    return offset, length, np.int64(table[at + 8]), keyframe


@compiled_inside
def find_key(shards: Shards, row: Number, memory: FrameMemory) -> int:
    """Index of a row among the kept keyframes, NOTHING if it is not kept; its table is known."""
    chunk = chunk_of(shards, row)
    crc = u32(shards.tables[chunk], (row - chunk * shards.chunk_rows) * ENTRY_BYTES + 12)
    for i in range(KEPT):
        if memory.key_row[i] == row and memory.key_sum[i] == crc:
            return i
    return NOTHING


@compiled_inside
def decode_frame(shards: Shards, row: Number, source: Number, keep: Flag, target: Number, memory: FrameMemory) -> int:
    """Check a frame and decode it.

    Parameters
    ----------
    shards : Shards
        Of which the row's table is known.
    row : int
        Of the array.
    source : int
        Address of its payload, all of it.
    keep : bool
        Whether it is a keyframe, to be kept for others.
    target : int
        Address of row_bytes, written: where the batch wants it, turned over if ``shards.over`` says so; 0: nowhere.
    memory : FrameMemory, written

    Returns
    -------
    int
        A code; NEEDS_KEY if its keyframe is not kept.
    """
    chunk = chunk_of(shards, row)
    first = chunk * shards.chunk_rows
    entry = entry_of(shards, row)
    length, mode, keyframe = entry[1], entry[2], entry[3]
    if length == 0:
        return TABLE
    stated = u32(shards.tables[chunk], (row - first) * ENTRY_BYTES + 12)
    if _checksum(row - first, entry, source, memory) != stated:
        return CHECKSUM
    if len(shards.sums) and stated != np.int64(shards.sums[row]):
        return FOREIGN
    below = np.int64(0)
    if keyframe != row - first:
        slot = find_key(shards, first + keyframe, memory)
        if slot == NOTHING:
            return NEEDS_KEY
        below = np.int64(memory.key_coded[slot].ctypes.data if mode & FILTERED else memory.key_pixels[slot].ctypes.data)
    turned = target != 0 and len(shards.over) > 0 and shards.over[row] != 0
    aside = turned and mode & FILTERED == 0  # decoded here, then turned
    coded, place, kept = memory.coded, np.int64(target), np.int64(0)
    if keep:
        kept = memory.key_next[0]
        memory.key_next[0] = (kept + 1) % KEPT
        memory.key_row[kept] = NOTHING  # until it is whole
        coded, place = memory.key_coded[kept], np.int64(memory.key_pixels[kept].ctypes.data)
    elif aside:
        place = np.int64(memory.pixels.ctypes.data)
    # called at one place: each call is compiled for itself, with all that it calls
    if not _decode(shards, mode, length, source, below, place, coded, turned and not keep, memory):
        return DECODED
    if keep:
        memory.key_row[kept], memory.key_sum[kept] = row, stated
    if target != 0 and target != place:
        put_row(shards, row, place, target)
    return OK


@compiled_inside
def _checksum(row: Number, entry: Entry, source: Number, memory: FrameMemory) -> Number:
    """The checksum of a frame: of its row inside the chunk, mode and keyframe, and its payload."""
    head = memory.line.reshape(-1)  # three bytes of memory that nothing else uses now
    head[0], head[1], head[2] = np.uint8(row), np.uint8(entry[2]), np.uint8(entry[3])
    crc = crc32c_extend(np.uint32(0), address(head.ctypes.data), 3)
    return np.int64(crc32c_extend(crc, address(source), entry[1]))


@compiled_inside
def _decode(
    shards: Shards, mode: Number, length: Number, source: Number, below: Number, target: Number, coded: NDArray[np.uint8],
    turned: Flag, memory: FrameMemory,
) -> bool:  # fmt: skip
    """Decode a payload to the address `target`; False if it is none. `below` is the address of its dictionary, 0 for none.

    A filtered one goes through `coded`, and is turned over if `turned`; any other never is.
    """
    filtered = mode & FILTERED != 0
    to = np.int64(coded.ctypes.data) if filtered else np.int64(target)
    if not _decode_strips(shards, source, length, mode & 3, below, to, memory.context):
        return False
    if not filtered:
        return True
    width = memory.line.shape[1]
    _undo_filter(coded, memory.line, shards.height, width, turned, bytes_at(address(target), shards.row_bytes))
    return True


@compiled_inside
def _decode_strips(
    shards: Shards, source: Number, length: Number, coding: Number, below: Number, target: Number, context: int
) -> bool:
    """Decode the strips of one frame, each by itself, to the address `target`."""
    n_bytes = shards.row_bytes
    n_strips = -(-n_bytes // STRIP_BYTES)
    data = bytes_at(address(source), length)
    body: Number = 0 if n_strips == 1 else 4 * n_strips
    if length < body:
        return False
    for i in range(n_strips):
        start = i * STRIP_BYTES
        n = min(STRIP_BYTES, n_bytes - start)
        m = length if n_strips == 1 else u32(data, 4 * i)
        if m == 0 or m > length - body:
            return False
        dictionary = np.int64(0) if below == 0 else below + start
        used = 0 if below == 0 else n
        if coding == STORED:
            if m != n:
                return False
            memcpy(address(target + start), address(source + body), n)
        elif coding == LZ4:
            if lz4_decode(address(source + body), address(target + start), m, n, address(dictionary), used) != n:
                return False
        else:
            if not _zstd_header(data, body, m, n):
                return False
            got = zstd_decode(
                address(context), address(target + start), n, address(source + body), m, address(dictionary), used
            )
            if got != n:
                return False
        body += m
    return bool(body == length)


@compiled_inside
def _zstd_header(data: NDArray[np.uint8], at: Number, size: Number, decoded: Number) -> bool:
    """Whether a frame of zstd begins as FORMAT.md fixes: one segment, the size, neither checksum nor dictionary."""
    if size < 6 or u32(data, at) != 0xFD2FB528 or data[at + 4] & 0x3F != 0x20:
        return False
    width = 1 << np.int64(data[at + 4] >> 6)
    if size < 5 + width:
        return False
    stated = np.int64(0)
    for i in range(width):
        stated |= np.int64(data[at + 5 + i]) << (8 * i)
    if width == 2:
        stated += 256
    return bool(stated == decoded)


@compiled_inside
def _undo_filter(
    planes: NDArray[np.uint8], line: NDArray[np.uint8], height: Number, width: Number, turned: Flag, out: NDArray[np.uint8]
) -> None:
    """Planes [3, y, x] of G, R - G, B - G, each line minus the line above → uint8 [y, x, 3]; all modulo 256.

    `turned`: the last line first.
    """
    g, r, b = line[0], line[1], line[2]
    n = height * width
    above_g = above_r = above_b = np.uint8(0)
    for x in range(width):
        above_g = np.uint8(above_g + planes[x])
        above_r = np.uint8(above_r + planes[n + x])
        above_b = np.uint8(above_b + planes[2 * n + x])
        g[x], r[x], b[x] = above_g, above_r, above_b
    for y in range(height):
        if y:
            base = y * width
            for x in range(width):  # rows vectorise
                g[x] += planes[base + x]
                r[x] += planes[n + base + x]
                b[x] += planes[2 * n + base + x]
        to = (height - 1 - y if turned else y) * width * 3
        for x in range(width):
            out[to + 3 * x] = np.uint8(r[x] + g[x])
            out[to + 3 * x + 1] = g[x]
            out[to + 3 * x + 2] = np.uint8(b[x] + g[x])

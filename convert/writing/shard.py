"""Encode a shard: rows → bytes, in the form that ``schemas.shard`` reads. No I/O, no Zarr library.

The same rows, layout and beginnings of episodes always give the same bytes: one thread, one order, one codec call.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.frame_chunk import ENTRY, entries_of
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import ABSENT
from robozarr.store.frames.encode import encode_parts

__all__ = ["checksums_of", "encode_chunks", "encode_shard", "sum_of"]

# Without this, Blosc in a main thread uses its global pool, whose blocks land in whatever order the threads finish.
numcodecs.blosc.use_threads = False


def encode_shard(rows: NDArray[Any], layout: ArrayLayout, begins: Sequence[int] = ()) -> bytes:
    """The bytes of a shard (``encode_chunks``) in one piece."""
    return b"".join(encode_chunks(rows, layout, begins))


def encode_chunks(rows: NDArray[Any], layout: ArrayLayout, begins: Sequence[int] = ()) -> list[Any]:
    """The bytes of a shard that holds `rows` [n, …], 1 ≤ n ≤ ``layout.shard_rows``, as consecutive parts.

    Rows that the last chunk has left over are zeros, or with keyframes marked absent; chunks behind it are absent from the
    index. `begins` are the rows, counted in the shard, with which episodes begin: what keyframes depend on, and nothing else.

    >>> from robozarr.schemas.layout import layout_of_table
    >>> from robozarr.schemas.shard import decode_shard
    >>> layout = layout_of_table("index/step", (3,), "int32", ("step",))
    >>> decode_shard(encode_shard(np.arange(3, dtype=np.int32), layout), layout, 0).tolist()
    [0, 1, 2]
    """
    n, chunk_rows = len(rows), layout.chunk_rows
    if not 1 <= n <= layout.shard_rows or rows.shape[1:] != layout.shape[1:] or rows.dtype != np.dtype(layout.dtype):
        raise ValueError(f"{layout.path}: {rows.dtype} {rows.shape} is no shard of {layout.dtype} {layout.shape}")
    rows = np.ascontiguousarray(rows, np.dtype(layout.dtype).newbyteorder("<"))
    index = np.full((layout.chunks_per_shard, 2), ABSENT, "<u8")
    begin = np.zeros(n, np.bool_)
    begin[list(begins)] = True
    parts: list[Any] = []  # views need not be copied
    at = 0
    for number, start in enumerate(range(0, n, chunk_rows)):
        stop = min(start + chunk_rows, n)
        encoded = _encode_chunk(rows[start:stop], layout, begin[start:stop])
        parts += encoded
        length = sum(len(part) for part in encoded)
        index[number] = at, length
        at += length
    tail = index.tobytes()
    return [*parts, tail, _crc(tail)]


def _encode_chunk(chunk: NDArray[Any], layout: ArrayLayout, begins: NDArray[np.bool_]) -> list[Any]:
    """A chunk as its parts: its bytes and their checksum; for frames, its table and their payloads."""
    if layout.effort is not None:
        return encode_parts(chunk, layout.chunk_rows, layout.effort, begins=begins.tolist())
    if len(chunk) < layout.chunk_rows:
        chunk = np.concatenate([chunk, np.zeros((layout.chunk_rows - len(chunk), *chunk.shape[1:]), chunk.dtype)])
    encoded = _compress(chunk, layout)
    return [encoded, _crc(encoded)]


def _chunk_sums(parts: Sequence[Any], layout: ArrayLayout) -> bytes:
    """What distinguishes chunks, one after the other: their final checksums; for frames, their tables."""
    if layout.effort is None:
        return b"".join(parts[1:-2:2])
    tables, at = [], 0
    while at < len(parts) - 2:
        tables.append(parts[at])
        at += 1 + int(np.count_nonzero(entries_of(parts[at], layout.chunk_rows)["length"]))
    return b"".join(tables)


def checksums_of(parts: Sequence[Any], layout: ArrayLayout) -> NDArray[np.uint32]:
    """The entries of ``checksums/`` for each step of a shard from `encode_chunks` (``schemas.shard.step_checksums``)."""
    sums = _chunk_sums(parts, layout)
    if layout.effort is None:
        return np.frombuffer(sums, "<u4")
    entries = entries_of(sums, len(sums) // ENTRY.itemsize)
    return entries["crc32c"][entries["length"] > 0]


def sum_of(parts: Sequence[Any], layout: ArrayLayout) -> int:
    """The checksum that binds a shard from `encode_chunks`, equal to ``schemas.shard.shard_sum``."""
    return int(google_crc32c.value(b"".join([_chunk_sums(parts, layout), parts[-2]])))


def _crc(data: bytes | NDArray[np.uint8]) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def _compress(chunk: NDArray[Any], layout: ArrayLayout) -> bytes | NDArray[np.uint8]:
    if layout.codec == "none":
        return chunk.reshape(-1).view(np.uint8)
    if layout.codec == "zstd":
        return bytes(numcodecs.zstd.compress(chunk, layout.level))
    shuffle = numcodecs.blosc.SHUFFLE if layout.shuffle == "shuffle" else numcodecs.blosc.NOSHUFFLE
    name = layout.codec.removeprefix("blosc-").encode()
    encoded: bytes = numcodecs.blosc.compress(chunk, name, layout.level, shuffle, numcodecs.blosc.AUTOBLOCKS)
    return encoded

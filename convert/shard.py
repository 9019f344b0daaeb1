"""Owns the bytes of a shard: rows → shard, and back with every check. No I/O, no Zarr library.

A shard is its chunks in order, each compressed and followed by its crc32c, then an index of (offset, length) as little-endian
uint64, then the index's crc32c. The same rows and layout always give the same bytes: one thread, one order, one codec call.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.layout import ArrayLayout

__all__ = ["CRC_BYTES", "decode_shard", "encode_chunks", "encode_shard"]

CRC_BYTES: Final = 4
ABSENT: Final = 2**64 - 1
"""Offset and length of a chunk that lies wholly behind the array's last row."""

# Without this, Blosc in a main thread uses its global pool, whose blocks land in whatever order the threads finish.
numcodecs.blosc.use_threads = False


def encode_shard(rows: NDArray[Any], layout: ArrayLayout) -> bytes:
    """The bytes of a shard (``encode_chunks``) in one piece."""
    return b"".join(encode_chunks(rows, layout))


def encode_chunks(rows: NDArray[Any], layout: ArrayLayout) -> list[Any]:
    """The bytes of a shard that holds `rows` [n, …], 1 ≤ n ≤ ``layout.shard_rows``, as parts that stand end to end.

    Rows that the last chunk has left over are zeros; chunks behind it are absent from the index.

    >>> from robozarr.schemas.layout import layout_of_table
    >>> layout = layout_of_table("index/step", (3,), "int32", ("step",))
    >>> decode_shard(encode_shard(np.arange(3, dtype=np.int32), layout), layout, 0).tolist()
    [0, 1, 2]
    """
    n, chunk_rows = len(rows), layout.chunk_rows
    if not 1 <= n <= layout.shard_rows or rows.shape[1:] != layout.shape[1:] or rows.dtype != np.dtype(layout.dtype):
        raise ValueError(f"{layout.path}: {rows.dtype} {rows.shape} is no shard of {layout.dtype} {layout.shape}")
    rows = np.ascontiguousarray(rows, np.dtype(layout.dtype).newbyteorder("<"))
    index = np.full((layout.chunks_per_shard, 2), ABSENT, "<u8")
    parts: list[Any] = []  # views need not be copied
    at = 0
    for number, start in enumerate(range(0, n, chunk_rows)):
        chunk = rows[start : start + chunk_rows]
        if len(chunk) < chunk_rows:
            chunk = np.concatenate([chunk, np.zeros((chunk_rows - len(chunk), *chunk.shape[1:]), chunk.dtype)])
        encoded = _compress(chunk, layout)
        parts += [encoded, _crc(encoded)]
        index[number] = at, len(encoded) + CRC_BYTES
        at += len(encoded) + CRC_BYTES
    tail = index.tobytes()
    return [*parts, tail, _crc(tail)]


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


def decode_shard(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> NDArray[Any]:
    """The rows [n, …] of a shard, after every check that FORMAT.md allows on its bytes.

    Raises
    ------
    CorruptChunkError
        If anything is not as it was written: sizes, order, checksums, padding. The text names array, shard and chunk.
    """
    start, stop = layout.rows_of_shard(shard)
    n_chunks = -(-(stop - start) // layout.chunk_rows)
    index = _read_index(data, layout, shard, n_chunks)
    n_rows = n_chunks * layout.chunk_rows
    out = np.empty((n_rows, *layout.shape[1:]), np.dtype(layout.dtype).newbyteorder("<"))
    buffer = np.frombuffer(data, np.uint8)
    at = 0
    for chunk in range(n_chunks):
        offset, length = int(index[chunk, 0]), int(index[chunk, 1])
        if offset != at or length <= CRC_BYTES or offset + length > len(data) - index.nbytes - CRC_BYTES:
            raise _corrupt(
                "M8", layout, shard, chunk, "the index's ranges follow each other from byte 0", f"{offset} + {length}"
            )
        encoded = buffer[offset : offset + length - CRC_BYTES]
        stored = struct.unpack_from("<I", data, offset + length - CRC_BYTES)[0]
        if stored != google_crc32c.value(encoded):
            raise _corrupt("M9", layout, shard, chunk, "the chunk agrees with its crc32c", "other bytes than were written")
        rows = out[chunk * layout.chunk_rows : (chunk + 1) * layout.chunk_rows]
        try:
            _decompress(encoded, rows, layout)
        except (RuntimeError, ValueError, MemoryError) as exc:  # MemoryError: a frame that states any size it likes
            raise _corrupt("M10", layout, shard, chunk, f"the chunk decodes to {rows.nbytes} bytes", str(exc)) from exc
        at = offset + length
    if at + index.nbytes + CRC_BYTES != len(data):
        raise _corrupt(
            "M8", layout, shard, n_chunks - 1, "nothing lies between the last chunk and the index", f"{len(data)} bytes"
        )
    if out[stop - start :].any():
        raise _corrupt("M10", layout, shard, n_chunks - 1, "rows behind the last are zero", "other values")
    return out[: stop - start]


def _read_index(data: bytes | memoryview, layout: ArrayLayout, shard: int, n_chunks: int) -> NDArray[np.uint64]:
    n_bytes = layout.chunks_per_shard * 16
    if len(data) < n_bytes + CRC_BYTES:
        raise _corrupt(
            "M8", layout, shard, None, f"a shard holds an index of {n_bytes + CRC_BYTES} bytes", f"{len(data)} bytes"
        )
    tail = data[-n_bytes - CRC_BYTES : -CRC_BYTES]
    if struct.unpack("<I", data[-CRC_BYTES:])[0] != google_crc32c.value(np.frombuffer(tail, np.uint8)):
        raise _corrupt("M9", layout, shard, None, "the index agrees with its crc32c", "other bytes than were written")
    index = np.frombuffer(tail, "<u8").reshape(-1, 2)
    if (index[n_chunks:] != ABSENT).any():
        raise _corrupt("M8", layout, shard, n_chunks, "chunks behind the last row are absent", "a byte range")
    return index


def _decompress(encoded: NDArray[np.uint8], rows: NDArray[Any], layout: ArrayLayout) -> None:
    if layout.codec == "none":
        if len(encoded) != rows.nbytes:
            raise ValueError(f"{len(encoded)} bytes")
        rows.reshape(-1).view(np.uint8)[:] = encoded
        return
    if layout.codec == "zstd":
        decoded = numcodecs.zstd.decompress(encoded)
    else:
        if len(encoded) < 16 or struct.unpack("<I", encoded[12:16].tobytes())[0] != len(encoded):
            raise ValueError("a Blosc header that states another length")
        decoded = numcodecs.blosc.decompress(encoded)
    if len(decoded) != rows.nbytes:
        raise ValueError(f"{len(decoded)} bytes")
    rows.reshape(-1).view(np.uint8)[:] = np.frombuffer(decoded, np.uint8)


def _corrupt(number: str, layout: ArrayLayout, shard: int, chunk: int | None, rule: str, value: str) -> CorruptChunkError:
    where = f"{layout.path} · shard {shard} ({layout.shard_path(shard)})"
    if chunk is not None:
        first = shard * layout.shard_rows + chunk * layout.chunk_rows
        where += f" · chunk {chunk} (rows {first} to {min(first + layout.chunk_rows, layout.shape[0])})"
    message = f"{where}: {rule}; found {value} → restore the shard from a copy, or convert again"
    return CorruptChunkError(message, number)

"""Owns what the bytes of a shard mean: bytes → rows, with every check that FORMAT.md allows. No I/O, no Zarr library.

A shard is its chunks in order, each compressed and followed by its crc32c, then an index of (offset, length) as little-endian
uint64, then the index's crc32c. Written by ``convert.writing.shard``; slow and suspicious on purpose, which is right for tables
and for ``verify``: frames are read for training by ``loader.frames.read``.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.compressed import check_compressed, decoded_bytes_max
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.layout import ArrayLayout

__all__ = [
    "ABSENT",
    "CRC_BYTES",
    "chunk_checksums",
    "corrupt_chunk",
    "decode_chunk",
    "decode_shard",
    "index_of",
    "read_index",
    "shard_sum",
]

CRC_BYTES: Final = 4
INDEX_ENTRY_BYTES: Final = 16
ABSENT: Final = 2**64 - 1
"""Offset and length of a chunk that lies wholly behind the array's last row."""


def decode_shard(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> NDArray[Any]:
    """The rows [n, …] of a shard, after every check that FORMAT.md allows on its bytes.

    Raises
    ------
    CorruptChunkError
        If anything is not as it was written: sizes, order, checksums, padding. The text names array, shard and chunk.
    """
    start, stop = layout.rows_of_shard(shard)
    index = read_index(data, layout, shard)
    n_bytes = len(index) * layout.chunk_rows * layout.row_bytes
    if n_bytes > decoded_bytes_max(layout.codec, len(data)):
        rule = f"a shard of {len(data)} bytes decodes to at most {decoded_bytes_max(layout.codec, len(data))}"
        raise corrupt_chunk("M10", layout, shard, None, rule, f"{n_bytes} claimed by zarr.json")
    out = np.empty((len(index) * layout.chunk_rows, *layout.shape[1:]), np.dtype(layout.dtype).newbyteorder("<"))
    for chunk in range(len(index)):
        decode_chunk(data, index, layout, shard, chunk, out[chunk * layout.chunk_rows : (chunk + 1) * layout.chunk_rows])
    if out[stop - start :].any():
        raise corrupt_chunk("M10", layout, shard, len(index) - 1, "rows behind the last are zero", "other values")
    return out[: stop - start]


def read_index(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> NDArray[np.uint64]:
    """Where the chunks of a shard lie: uint64 [n_chunks, 2], offset and length, checksum included.

    Raises
    ------
    CorruptChunkError
        If the index is damaged, or the chunks do not stand end to end from byte 0 to the index.
    """
    n_bytes = layout.chunks_per_shard * INDEX_ENTRY_BYTES + CRC_BYTES
    return index_of(data[-n_bytes:], len(data), layout, shard)


def index_of(tail: Any, size: int, layout: ArrayLayout, shard: int) -> NDArray[np.uint64]:
    """The same, from the last bytes of a shard of `size` bytes; raises as `read_index` does."""
    start, stop = layout.rows_of_shard(shard)
    n_chunks, n_bytes = -(-(stop - start) // layout.chunk_rows), layout.chunks_per_shard * INDEX_ENTRY_BYTES
    if len(tail) < n_bytes + CRC_BYTES:
        raise corrupt_chunk(
            "M8", layout, shard, None, f"a shard holds an index of {n_bytes + CRC_BYTES} bytes", f"{size} bytes"
        )
    entries = tail[-n_bytes - CRC_BYTES : -CRC_BYTES]
    if struct.unpack("<I", tail[-CRC_BYTES:])[0] != google_crc32c.value(np.frombuffer(entries, np.uint8)):
        raise corrupt_chunk("M9", layout, shard, None, "the index agrees with its crc32c", "other bytes than were written")
    index = np.frombuffer(entries, "<u8").reshape(-1, 2)
    if (index[n_chunks:] != ABSENT).any():
        raise corrupt_chunk("M8", layout, shard, n_chunks, "chunks behind the last row are absent", "a byte range")
    at, end = 0, size - n_bytes - CRC_BYTES
    for chunk, (offset, length) in enumerate(index[:n_chunks].tolist()):
        if offset != at or length <= CRC_BYTES or offset + length > end:
            rule = "the index's ranges follow each other from byte 0"
            raise corrupt_chunk("M8", layout, shard, chunk, rule, f"{offset} + {length}")
        at = offset + length
    if at != end:
        rule = "nothing lies between the last chunk and the index"
        raise corrupt_chunk("M8", layout, shard, n_chunks - 1, rule, f"{size} bytes")
    return index[:n_chunks]


def chunk_checksums(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> NDArray[np.uint32]:
    """What each chunk of a shard ends in: uint32 [n_chunks]; raises as `read_index` does."""
    ends = read_index(data, layout, shard).sum(axis=1).astype(np.int64)
    tails = np.frombuffer(data, np.uint8)[ends[:, None] + np.arange(-CRC_BYTES, 0)]
    sums: NDArray[np.uint32] = tails.view("<u4").astype(np.uint32).reshape(-1)
    return sums


def shard_sum(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> int:
    """What binds a shard (M23): the crc32c of its chunks' checksums and, behind them, its index; raises as `read_index` does.

    Not of all its bytes: what ends in its own crc32c has always the same crc32c.
    """
    tail = len(data) - layout.chunks_per_shard * INDEX_ENTRY_BYTES - CRC_BYTES
    sums = chunk_checksums(data, layout, shard).astype("<u4").tobytes()
    return int(google_crc32c.value(sums + bytes(data[tail:-CRC_BYTES])))


def decode_chunk(
    data: bytes | memoryview,
    index: NDArray[np.uint64],
    layout: ArrayLayout,
    shard: int,
    chunk: int,
    rows: NDArray[Any],
    *,
    within: str = "",
) -> None:
    """Decode one chunk of a shard into `rows` [chunk_rows, …]; `within` as in `corrupt_chunk`.

    Raises
    ------
    CorruptChunkError
        If its checksum or its size is another.
    """
    offset, length = index[chunk].tolist()
    encoded = np.frombuffer(data, np.uint8, length - CRC_BYTES, offset)
    if struct.unpack_from("<I", data, offset + length - CRC_BYTES)[0] != google_crc32c.value(encoded):
        rule = "the chunk agrees with its crc32c"
        raise corrupt_chunk("M9", layout, shard, chunk, rule, "other bytes than were written", within=within)
    try:
        _decompress(encoded, rows, layout)
    except (RuntimeError, ValueError, MemoryError) as exc:  # MemoryError: a frame that states any size it likes
        rule = f"the chunk decodes to {rows.nbytes} bytes"
        raise corrupt_chunk("M10", layout, shard, chunk, rule, str(exc), within=within) from exc


def _decompress(encoded: NDArray[np.uint8], rows: NDArray[Any], layout: ArrayLayout) -> None:
    data = encoded.tobytes()
    check_compressed(data, layout, rows.nbytes)  # before any library sees it, or takes memory for what it claims
    if layout.codec != "none":
        data = (numcodecs.zstd if layout.codec == "zstd" else numcodecs.blosc).decompress(data)
    if len(data) != rows.nbytes:
        raise ValueError(f"{len(data)} bytes")
    if rows.dtype == bool and data.strip(b"\0\1"):
        raise ValueError("bools that are neither 0 nor 1")
    rows.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)


def corrupt_chunk(
    number: str, layout: ArrayLayout, shard: int, chunk: int | None, rule: str, value: str, *, within: str = ""
) -> CorruptChunkError:
    """The error for bytes that are not what was written: rule `number` of FORMAT.md, broken in a shard (and a chunk).

    `within` adds to the place what only the caller knows, such as the episode.
    """
    where = f"{layout.path} · shard {shard} ({layout.shard_path(shard)})"
    if chunk is not None:
        first = shard * layout.shard_rows + chunk * layout.chunk_rows
        where += f" · chunk {chunk} (rows {first} to {min(first + layout.chunk_rows, layout.shape[0])})"
    where += f" · {within}" if within else ""
    message = f"{where}: {rule}; found {value} → restore the shard from a copy, or convert again"
    return CorruptChunkError(message, number)

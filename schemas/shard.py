"""Decode a shard: bytes → rows, with every check that FORMAT.md allows. No I/O, no Zarr library.

A shard is its chunks in order, each compressed and followed by its crc32c, then an index of (offset, length) as little-endian
uint64, then the index's crc32c. A chunk of frames with keyframes has its checksums inside (``schemas.frame_chunk``). Written by
``convert.writing.shard``; slow and suspicious on purpose, which is right for tables and for ``verify``: frames are read for
training by ``loader.frames.read``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.compressed import check_compressed, decoded_bytes_max
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.frame_chunk import ENTRY, FrameChunkError, entries_of
from robozarr.schemas.frames.decode import FrameDecoder
from robozarr.schemas.layout import ArrayLayout

__all__ = [
    "ABSENT",
    "CRC_BYTES",
    "Within",
    "corrupt_chunk",
    "decode_chunk",
    "decode_rows",
    "decode_shard",
    "read_index",
    "shard_sum",
    "step_checksums",
]

Within = str | Callable[[int], str]
"""What only the caller knows of a place, such as the episode; or a function that returns it for a row of the array."""
CRC_BYTES: Final = 4
INDEX_ENTRY_BYTES: Final = 16
ABSENT: Final = 2**64 - 1
"""Offset and length of a chunk that lies completely after the array's last row."""


def decode_shard(data: bytes | memoryview, layout: ArrayLayout, shard: int, *, within: Within = "") -> NDArray[Any]:
    """The rows [n, …] of a shard, after every check that FORMAT.md allows on its bytes.

    Raises
    ------
    CorruptChunkError
        If anything is not as it was written: sizes, order, checksums, padding. The text names array, shard and chunk, and of a
        chunk of frames the frame.
    """
    start, stop = layout.rows_of_shard(shard)
    index = read_index(data, layout, shard)
    n_rows = stop - start if layout.effort is not None else len(index) * layout.chunk_rows
    n_bytes = n_rows * layout.row_bytes
    if n_bytes > decoded_bytes_max(layout.codec, len(data)):
        rule = f"a shard of {len(data)} bytes decodes to at most {decoded_bytes_max(layout.codec, len(data))}"
        raise corrupt_chunk("M10", layout, shard, None, rule, f"{n_bytes} claimed by zarr.json")
    out = np.empty((n_rows, *layout.shape[1:]), np.dtype(layout.dtype).newbyteorder("<"))
    for chunk in range(len(index)):
        rows = out[chunk * layout.chunk_rows : (chunk + 1) * layout.chunk_rows]
        decode_chunk(data, index, layout, shard, chunk, rows, within=within)
    if out[stop - start :].any():
        raise corrupt_chunk("M10", layout, shard, len(index) - 1, "rows behind the last must be zero", "other values")
    return out[: stop - start]


def read_index(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> NDArray[np.uint64]:
    """Byte range of each chunk of a shard, checksum included: uint64 [n_chunks, 2], offset and length.

    Raises
    ------
    CorruptChunkError
        If the index is damaged, or the chunks do not stand end to end from byte 0 to the index.
    """
    n_bytes = layout.chunks_per_shard * INDEX_ENTRY_BYTES + CRC_BYTES
    return parse_index(data[-n_bytes:], len(data), layout, shard)


def parse_index(tail: bytes | memoryview, n_bytes: int, layout: ArrayLayout, shard: int) -> NDArray[np.uint64]:
    """Like `read_index`, from the end of a shard of `n_bytes` bytes: the index and its checksum."""
    start, stop = layout.rows_of_shard(shard)
    n_chunks, least = -(-(stop - start) // layout.chunk_rows), least_chunk_bytes(layout)
    n_tail = layout.chunks_per_shard * INDEX_ENTRY_BYTES + CRC_BYTES
    if len(tail) != n_tail:
        raise corrupt_chunk("M8", layout, shard, None, f"a shard must hold an index of {n_tail} bytes", f"{n_bytes} bytes")
    entries = np.frombuffer(tail, np.uint8, n_tail - CRC_BYTES)
    if struct.unpack("<I", tail[-CRC_BYTES:])[0] != google_crc32c.value(entries):
        raise corrupt_chunk("M9", layout, shard, None, "the index must agree with its crc32c", "other bytes than were written")
    index = entries.view("<u8").reshape(-1, 2)
    if (index[n_chunks:] != ABSENT).any():
        raise corrupt_chunk("M8", layout, shard, n_chunks, "chunks behind the last row must be absent", "a byte range")
    at, end = 0, n_bytes - n_tail
    for chunk, (offset, length) in enumerate(index[:n_chunks].tolist()):
        if offset != at or length < least or offset + length > end:
            rule = "the index's ranges must follow each other from byte 0"
            raise corrupt_chunk("M8", layout, shard, chunk, rule, f"{offset} + {length}")
        at = offset + length
    if at != end:
        rule = "nothing may lie between the last chunk and the index"
        raise corrupt_chunk("M8", layout, shard, n_chunks - 1, rule, f"{n_bytes} bytes")
    return index[:n_chunks]


def least_chunk_bytes(layout: ArrayLayout) -> int:
    """Size of the smallest possible chunk: a byte and its checksum; for frames, the table and a byte."""
    return 1 + (CRC_BYTES if layout.effort is None else layout.chunk_rows * ENTRY.itemsize)


def step_checksums(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> NDArray[np.uint32]:
    """The entries of ``checksums/`` for each step of a frame key (M21): uint32 [n_rows]; raises as `read_index` does.

    It is what the step's chunk ends in; with keyframes, what the chunk's table says of the step's frame.
    """
    start, stop = layout.rows_of_shard(shard)
    sums = b"".join(_chunk_sums(data, layout, shard))
    if layout.effort is None:
        return np.frombuffer(sums, "<u4").astype(np.uint32)
    return entries_of(sums, len(sums) // ENTRY.itemsize)["crc32c"][: stop - start].astype(np.uint32)


def _chunk_sums(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> list[bytes]:
    """The part of each chunk that distinguishes it: its final checksum; with keyframes, its table."""
    n_table = layout.chunk_rows * ENTRY.itemsize
    return [
        bytes(data[offset + length - CRC_BYTES : offset + length] if layout.effort is None else data[offset : offset + n_table])
        for offset, length in read_index(data, layout, shard).tolist()
    ]


def shard_sum(data: bytes | memoryview, layout: ArrayLayout, shard: int) -> int:
    """The checksum that binds a shard (M23): the crc32c of its chunks' checksums and its index; raises as `read_index` does.

    Not of all its bytes: what ends in its own crc32c has always the same crc32c. With keyframes, of its chunks' tables.
    """
    tail = len(data) - layout.chunks_per_shard * INDEX_ENTRY_BYTES - CRC_BYTES
    return int(google_crc32c.value(b"".join([*_chunk_sums(data, layout, shard), bytes(data[tail:-CRC_BYTES])])))


def decode_chunk(
    data: bytes | memoryview,
    index: NDArray[np.uint64],
    layout: ArrayLayout,
    shard: int,
    chunk: int,
    rows: NDArray[Any],
    *,
    within: Within = "",
) -> None:
    """Decode one chunk of a shard into `rows` [chunk_rows, …]; of frames in the last chunk, only the existing rows.

    Raises
    ------
    CorruptChunkError
        If its checksum or its size is another; `within` as in `corrupt_chunk`.
    """
    if layout.effort is not None:
        n_rows = _n_rows(layout, shard, chunk)
        rows[:n_rows] = decode_rows(data, index, layout, shard, chunk, range(n_rows), within=within)
        return
    offset, length = index[chunk].tolist()
    encoded = np.frombuffer(data, np.uint8, length - CRC_BYTES, offset)
    if struct.unpack_from("<I", data, offset + length - CRC_BYTES)[0] != google_crc32c.value(encoded):
        rule = "the chunk must agree with its crc32c"
        raise corrupt_chunk("M9", layout, shard, chunk, rule, "other bytes than were written", within=within)
    try:
        _decompress(encoded, rows, layout)
    except (RuntimeError, ValueError, MemoryError) as exc:  # MemoryError: a frame that states any size it likes
        rule = f"the chunk must decode to {rows.nbytes} bytes"
        raise corrupt_chunk("M10", layout, shard, chunk, rule, str(exc), within=within) from exc


def decode_rows(
    data: bytes | memoryview,
    index: NDArray[np.uint64],
    layout: ArrayLayout,
    shard: int,
    chunk: int,
    wanted: Sequence[int],
    *,
    within: Within = "",
) -> NDArray[Any]:
    """Decode rows of one chunk of a shard, counted from its first: [n, …]. With keyframes only these are decoded.

    Raises
    ------
    CorruptChunkError
        As `decode_chunk` does.
    """
    if layout.effort is None:
        rows = np.empty((layout.chunk_rows, *layout.shape[1:]), np.dtype(layout.dtype).newbyteorder("<"))
        decode_chunk(data, index, layout, shard, chunk, rows, within=within)
        return rows[list(wanted)]
    offset, length = index[chunk].tolist()
    n_rows = _n_rows(layout, shard, chunk)
    try:
        decoder = FrameDecoder(
            bytes(data[offset : offset + length]), layout.chunk_rows, layout.shape[1:], np.dtype(layout.dtype)
        )
        if decoder.n_present != n_rows:
            rule, row = f"the array has {n_rows} rows of the chunk", min(decoder.n_present, n_rows)
            raise FrameChunkError(rule, f"{decoder.n_present} that are not absent", row=row)
        return decoder.rows(wanted)
    except FrameChunkError as exc:
        first = layout.rows_of_shard(shard)[0] + chunk * layout.chunk_rows
        of_array = None if exc.row is None else first + exc.row
        raise corrupt_chunk(exc.number, layout, shard, chunk, exc.rule, exc.value, row=of_array, within=within) from exc


def _n_rows(layout: ArrayLayout, shard: int, chunk: int) -> int:
    """Number of rows of a chunk that the array has."""
    start, stop = layout.rows_of_shard(shard)
    return min(layout.chunk_rows, stop - start - chunk * layout.chunk_rows)


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
    number: str,
    layout: ArrayLayout,
    shard: int,
    chunk: int | None,
    rule: str,
    value: str,
    *,
    row: int | None = None,
    within: Within = "",
) -> CorruptChunkError:
    """The error for bytes that break rule `number` of FORMAT.md in a shard (and a chunk).

    Parameters
    ----------
    row : int, optional
        Row of the array whose frame is broken, where a chunk holds several.
    within : str, or function of a row
        What only the caller knows of the place, such as the episode. A function is asked where there is a `row`.
    """
    where = f"{layout.path} · shard {shard} ({layout.shard_path(shard)})"
    if chunk is not None:
        first = shard * layout.shard_rows + chunk * layout.chunk_rows
        where += f" · chunk {chunk} (rows {first} to {min(first + layout.chunk_rows, layout.shape[0])})"
        if row is not None:
            where += f" · frame {row - first} (row {row})"
    if not isinstance(within, str):
        within = "" if row is None else within(min(row, layout.shape[0] - 1))  # what is wrong may lie behind the last row
    where += f" · {within}" if within else ""
    message = f"{where}: {rule}; found {value} → restore the shard from a copy, or convert again"
    return CorruptChunkError(message, number)

"""Decode frames a second time with the loader's library (c-blosc2), if it is installed.

``schemas.compressed`` and ``schemas.frame_chunk`` let only chunks through that all decoders read the same; here that is tried,
so that what ``verify`` calls good is what the loader serves. c-blosc2 exports the LZ4 and zstd that frames with keyframes need.
Imports neither blosc2, which is slow to import, nor the loader.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.frame_chunk import FILTERED, Coding, FrameTable, strips
from robozarr.schemas.frames.filtering import undo_filter
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import CRC_BYTES, corrupt_chunk, read_index

__all__ = ["check_second_decoder"]


class _Parameters(ctypes.Structure):
    """blosc2_dparams of c-blosc2."""

    _fields_ = (
        ("nthreads", ctypes.c_int), ("schunk", ctypes.c_void_p), ("postfilter", ctypes.c_void_p),
        ("postparams", ctypes.c_void_p), ("typesize", ctypes.c_int32),
    )  # fmt: skip


def check_second_decoder(data: bytes, layout: ArrayLayout, shard: int, rows: NDArray[Any]) -> None:
    """Decode a shard of frames with c-blosc2, and compare with `rows` [n, …] from another library.

    Without c-blosc2, or of frames that no codec encodes, there is nothing to compare.

    Raises
    ------
    CorruptChunkError
        If the libraries disagree; the text names array, shard and chunk.
    """
    library = _library() if layout.codec != "none" else None
    if library is None:
        return
    if layout.effort is not None:
        _check_frames(library, data, layout, shard, rows)
        return
    context = library.blosc2_create_dctx(_Parameters(1, None, None, None, 1))
    out = np.empty(layout.row_bytes, np.uint8)
    try:
        for chunk, (offset, length) in enumerate(read_index(data, layout, shard).tolist()):
            encoded = data[offset : offset + length - CRC_BYTES]
            n = library.blosc2_decompress_ctx(context, encoded, len(encoded), out.ctypes.data, out.nbytes)
            if n != out.nbytes or out.tobytes() != rows[chunk].tobytes():
                rule = "c-blosc and c-blosc2 must decode a chunk to the same bytes"
                raise corrupt_chunk("M10", layout, shard, chunk, rule, f"{n} of {out.nbytes} bytes" if n < 0 else "others")
    finally:
        library.blosc2_free_ctx(context)


def _check_frames(library: Any, data: bytes, layout: ArrayLayout, shard: int, rows: NDArray[Any]) -> None:
    """Compare chunks of frames with keyframes likewise."""
    context = library.ZSTD_createDCtx()
    first = layout.rows_of_shard(shard)[0]
    try:
        for chunk, (offset, length) in enumerate(read_index(data, layout, shard).tolist()):
            at = chunk * layout.chunk_rows
            found = _decode_frames(library, context, np.frombuffer(data, np.uint8, length, offset), layout)
            for row, (mine, theirs) in enumerate(zip(found, rows[at : at + layout.chunk_rows], strict=True)):
                if mine is None or mine.tobytes() != theirs.tobytes():
                    rule = "numcodecs and c-blosc2 must decode a frame to the same bytes"
                    value = "nothing" if mine is None else "others"
                    raise corrupt_chunk("M10", layout, shard, chunk, rule, value, row=first + at + row)
    finally:
        library.ZSTD_freeDCtx(context)


def _decode_frames(library: Any, context: int, chunk: NDArray[np.uint8], layout: ArrayLayout) -> list[NDArray[np.uint8] | None]:
    """The bytes of each frame of a chunk; None where c-blosc2 cannot decode it."""
    found: list[NDArray[np.uint8] | None] = []
    coded: list[NDArray[np.uint8] | None] = []
    table = FrameTable.of(chunk, layout.chunk_rows, layout.row_bytes)
    for row, entry in enumerate(table.entries[: table.n_present]):
        mode, keyframe = int(entry["mode"]), int(entry["keyframe"])
        payload = chunk[int(entry["offset"]) : int(entry["offset"]) + int(entry["length"])]
        below = None if keyframe == row else (coded if mode & FILTERED else found)[keyframe]
        mine = _decode_payload(library, context, payload, Coding(mode & 3), below, layout.row_bytes)
        coded.append(mine)
        if mine is not None and mode & FILTERED:
            mine = undo_filter(mine.reshape(1, 3, *layout.shape[1:3])).reshape(-1)
        found.append(mine)
    return found


def _decode_payload(
    library: Any, context: int, payload: NDArray[np.uint8], coding: Coding, below: NDArray[np.uint8] | None, n_bytes: int
) -> NDArray[np.uint8] | None:
    """Decode the strips of a frame, with the keyframe `below`."""
    ranges = strips(n_bytes)
    out = np.empty(n_bytes, np.uint8)
    sizes = [len(payload)] if len(ranges) == 1 else payload[: 4 * len(ranges)].view("<u4").tolist()
    at = 0 if len(ranges) == 1 else 4 * len(ranges)
    for (start, stop), size in zip(ranges, sizes, strict=True):
        source, target, n = payload.ctypes.data + at, out.ctypes.data + start, stop - start
        key, n_key = (None, 0) if below is None else (below.ctypes.data + start, n)
        if coding == Coding.STORED:
            out[start:stop] = payload[at : at + size]
        elif coding == Coding.LZ4:
            if library.LZ4_decompress_safe_usingDict(source, target, size, n, key, n_key) != n:
                return None
        elif library.ZSTD_decompress_usingDict(context, target, n, source, size, key, n_key) != n:
            return None
        at += size
    return out


@cache
def _library() -> Any:
    """The c-blosc2 library from the loader's wheel; None if it is not installed."""
    spec = find_spec("blosc2")
    found = [] if spec is None or spec.origin is None else sorted((Path(spec.origin).parent / "lib").glob("libblosc2.so*"))
    if not found:
        return None
    library = ctypes.CDLL(str(found[0]))
    library.blosc2_init()
    library.blosc2_create_dctx.restype, library.blosc2_create_dctx.argtypes = ctypes.c_void_p, [_Parameters]
    library.blosc2_free_ctx.restype, library.blosc2_free_ctx.argtypes = None, [ctypes.c_void_p]
    library.blosc2_decompress_ctx.restype = ctypes.c_int
    library.blosc2_decompress_ctx.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32,
    ]  # fmt: skip
    pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    library.LZ4_decompress_safe_usingDict.restype = number
    library.LZ4_decompress_safe_usingDict.argtypes = [pointer, pointer, number, number, pointer, number]
    library.ZSTD_createDCtx.restype, library.ZSTD_createDCtx.argtypes = pointer, []
    library.ZSTD_freeDCtx.restype, library.ZSTD_freeDCtx.argtypes = size, [pointer]
    library.ZSTD_decompress_usingDict.restype = size
    library.ZSTD_decompress_usingDict.argtypes = [pointer, pointer, size, pointer, size, pointer, size]
    return library

"""Decode frames a second time with the loader's library (c-blosc2), if it is installed.

``schemas.compressed`` lets only chunks through that every decoder reads the same; here that is tried, so that what ``verify``
calls good is what the loader serves. Imports neither blosc2, which is slow to import, nor the loader.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """Decode a shard whose chunks are single rows with c-blosc2, and compare with `rows` [n, …] from another library.

    Without c-blosc2, or without Blosc, there is nothing to compare.

    Raises
    ------
    CorruptChunkError
        If the libraries disagree; the text names array, shard and chunk.
    """
    library = _library() if layout.codec.startswith("blosc") else None
    if library is None:
        return
    context = library.blosc2_create_dctx(_Parameters(1, None, None, None, 1))
    out = np.empty(layout.row_bytes, np.uint8)
    try:
        for chunk, (offset, length) in enumerate(read_index(data, layout, shard).tolist()):
            encoded = data[offset : offset + length - CRC_BYTES]
            n = library.blosc2_decompress_ctx(context, encoded, len(encoded), out.ctypes.data, out.nbytes)
            if n != out.nbytes or out.tobytes() != rows[chunk].tobytes():
                rule = "c-blosc and c-blosc2 decode a chunk to the same bytes"
                raise corrupt_chunk("M10", layout, shard, chunk, rule, f"{n} of {out.nbytes} bytes" if n < 0 else "others")
    finally:
        library.blosc2_free_ctx(context)


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
    return library

"""Decode chunks of frames (codec ``robozarr.frames``): bytes → rows, by numcodecs. Slow, with every check.

Frames are read for training by compiled code; this is for ``verify``, for looking, and for zarr-python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.frame_chunk import FILTERED, Coding, FrameChunkError, FrameTable, frame_checksum, strips
from robozarr.schemas.frames.filtering import can_filter, undo_filter
from robozarr.schemas.frames.splice import decode_lz4, decode_zstd

__all__ = ["FrameDecoder"]

DECODERS: Final = {Coding.LZ4: decode_lz4, Coding.ZSTD: decode_zstd}


class FrameDecoder:
    """The rows of one chunk, each decoded with its keyframe alone.

    Parameters
    ----------
    chunk : bytes
    n_rows : int
        Rows of a chunk of the array.
    shape : tuple of int
        Shape of one frame.
    dtype : numpy dtype

    Raises
    ------
    FrameChunkError
        If the chunk's table, a checksum, or a decoded size is not as it was written; the text names the row.
    """

    def __init__(self, chunk: bytes, n_rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._data = np.frombuffer(chunk, np.uint8)
        self._shape, self._dtype = shape, dtype.newbyteorder("<")
        self._frame_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        self._table = FrameTable.of(self._data, n_rows, self._frame_bytes)
        self._ranges = strips(self._frame_bytes)
        self._keyframes: dict[int, tuple[bytes, bytes]] = {}

    @property
    def n_present(self) -> int:
        """Rows that the array has; the other rows lie after its end."""
        return self._table.n_present

    def rows(self, wanted: Sequence[int]) -> NDArray[Any]:
        """Frames [n, …] of the rows `wanted` of the chunk; each must be present."""
        out = np.empty((len(wanted), *self._shape), self._dtype)
        for at, row in enumerate(wanted):
            out[at] = self._frame(row)
        return out

    def _frame(self, row: int) -> NDArray[Any]:
        pixels = self._decoded(row)[1]
        if self._dtype == np.bool_ and pixels.strip(b"\0\1"):
            raise FrameChunkError("a bool must be 0 or 1", "others", row=row)
        return np.frombuffer(pixels, self._dtype).reshape(self._shape)

    def _decoded(self, row: int) -> tuple[bytes, bytes]:
        """What the strips of a row decode to, and its pixels: the same unless it is filtered."""
        if (found := self._keyframes.get(row)) is not None:
            return found
        entry = self._table.entries[row]
        begin, mode, keyframe = int(entry["offset"]), int(entry["mode"]), int(entry["keyframe"])
        payload = self._data[begin : begin + int(entry["length"])].tobytes()
        if frame_checksum(row, mode, keyframe, payload) != entry["crc32c"]:
            raise FrameChunkError("the frame must agree with its crc32c", "other bytes than were written", row=row, number="M9")
        filtered = bool(mode & FILTERED)
        if filtered and not can_filter(self._shape, self._dtype):
            raise FrameChunkError(f"frames of {self._dtype} {self._shape} have no filter", "a filtered one", row=row)
        dictionary = b"" if keyframe == row else self._decoded(keyframe)[0 if filtered else 1]
        coded = self._strips(row, Coding(mode & 3), payload, dictionary)
        pixels = coded
        if filtered:
            planes = np.frombuffer(coded, np.uint8).reshape(1, 3, *self._shape[:2])
            pixels = undo_filter(planes).tobytes()
        if keyframe == row:
            self._keyframes[row] = coded, pixels  # others of its chunk are going to ask for it
        return coded, pixels

    def _strips(self, row: int, coding: Coding, payload: bytes, dictionary: bytes) -> bytes:
        decoded = []
        for (start, stop), part in zip(self._ranges, self._split(row, payload, len(self._ranges)), strict=True):
            try:
                mine = part if coding == Coding.STORED else DECODERS[coding](part, stop - start, dictionary[start:stop])
            except (RuntimeError, ValueError, MemoryError) as exc:
                raise FrameChunkError(f"bytes {start} to {stop} of the frame decode", str(exc), row=row) from exc
            if len(mine) != stop - start:
                raise FrameChunkError(f"bytes {start} to {stop} of the frame", f"{len(mine)} bytes", row=row)
            decoded.append(mine)
        return b"".join(decoded)

    @staticmethod
    def _split(row: int, payload: bytes, n: int) -> list[bytes]:
        """Cut a payload into its strips: sizes of all first, if there are several."""
        if n == 1:
            return [payload]
        sizes = np.frombuffer(payload[: 4 * n], "<u4").astype(np.int64)
        if len(sizes) != n or 4 * n + int(sizes.sum()) != len(payload):
            raise FrameChunkError(f"{n} strips have {len(payload) - 4 * n} bytes together", f"sizes {sizes.tolist()}", row=row)
        ends = 4 * n + np.cumsum(sizes)
        return [payload[end - size : end] for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]

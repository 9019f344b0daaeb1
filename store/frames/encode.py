"""Encode chunks of frames (codec ``robozarr.frames``): rows → bytes; chooses a mode for each frame.

The mode is chosen for each frame by what it costs: a camera that stands still is coded against its keyframe, a moving one
alone. What is tried depends on the chunk alone, so the same chunk always gives the same bytes. Needs lz4 and zstandard:
numcodecs takes no dictionary.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lz4.block
import numpy as np
import zstandard
from numpy.typing import NDArray

from robozarr.schemas.frame_chunk import ABSENT, ENTRY, FILTERED, Coding, frame_checksum, strips
from robozarr.schemas.frames.filtering import apply_filter, can_filter
from robozarr.schemas.layout import Effort

__all__ = ["Effort", "encode_frames", "encode_parts"]

ALIKE: Final = 0.5
"""Of its bytes the frame behind a keyframe must share at least, to be tried with it: LZ4 finds four equal ones in a row, or
nothing. LIBERO's agent views share 84% or more; its wrist views, which are never worth a keyframe, 33% (median)."""
STRIDE: Final = 2
"""LZ4's acceleration where there is a keyframe: a sixth faster, and 4% larger, than 1. An odd one finds a third fewer of the
keyframe's bytes, of which LZ4 notes each third."""
SURE: Final = 0.75
"""Of the size at which a keyframe is worth it: a frame that is so small with it need not be tried alone."""
WORTH: Final = 0.85
"""Of its size alone a frame must have at most, to be coded with a keyframe, which has to be decoded first."""
KEY_WORTH: Final = 0.6
"""Of its size a keyframe that others are decoded with must have at most, to be compressed in lean: it is decoded for each frame
that is read alone. Stored, a single frame of LIBERO's agent view takes 18 µs where it takes 34, and a window of both cameras 73
where it takes 85; the store is 2% larger."""
HC_LEVEL: Final = 6
"""Of LZ4's high compression. Of frames that stand still 9 takes 1% off, and may take three times as long over others."""
ZSTD_LEVEL: Final = 1

Strips = list[memoryview]


@dataclass(frozen=True, slots=True)
class _Coded:
    """A frame as it is going to be stored."""

    mode: int
    payload: bytes


def encode_frames(frames: NDArray[Any], n_rows: int, effort: Effort, *, begins: Sequence[bool] | None = None) -> bytes:
    """The bytes of a chunk (``encode_parts``) in one piece."""
    return b"".join(encode_parts(frames, n_rows, effort, begins=begins))


def encode_parts(frames: NDArray[Any], n_rows: int, effort: Effort, *, begins: Sequence[bool] | None = None) -> list[bytes]:
    """Encode a chunk: its table, and the payload of each frame. To copy them into one piece takes a twentieth of the time.

    Parameters
    ----------
    frames : [n, …], n of 1 to `n_rows`
        The rows of the chunk that the array has.
    n_rows : int
        Rows of a chunk.
    effort : "lean" or "compact"
    begins : sequence of bool [n], optional
        Whether a row is the first of an episode: an episode reads no other's keyframe.

    Raises
    ------
    ValueError
        If there are no frames, or more than a chunk's rows.
    """
    if not 1 <= len(frames) <= n_rows < ABSENT:
        raise ValueError(f"chunks of 1 to {n_rows} frames; got {len(frames)}")
    first = [row for row in range(len(frames)) if row == 0 or (begins is not None and begins[row])]
    chunk = _Chunk(np.ascontiguousarray(frames, frames.dtype.newbyteorder("<")))
    entries = np.zeros(n_rows, ENTRY)
    entries["keyframe"][len(frames) :] = ABSENT
    payloads: list[bytes] = []
    at = entries.nbytes
    for start, stop in zip(first, [*first[1:], len(frames)], strict=True):
        for row, (coded, keyframe) in enumerate(_encode_episode(chunk, start, stop, _CODERS[effort]), start):
            checksum = frame_checksum(row, coded.mode, keyframe, coded.payload)
            entries[row] = (at, len(coded.payload), coded.mode, keyframe, 0, checksum)
            at += len(coded.payload)
            payloads.append(coded.payload)
    return [entries.tobytes(), *payloads]


class _Chunk:
    """The frames of a chunk, by strips."""

    def __init__(self, frames: NDArray[Any]) -> None:
        self._frames = frames
        self._ranges = strips(frames[0].nbytes)
        self._bytes = frames.reshape(len(frames), -1).view(np.uint8)
        self._rows = [self._cut(row) for row in self._bytes]
        self.filters = can_filter(frames.shape[1:], frames.dtype)
        self.tried: dict[int, _Coded] = {}
        """Frames that were coded alone to see whether a keyframe is worth while."""

    def strips(self, row: int) -> Strips:
        """A frame."""
        return self._rows[row]

    def alike(self, row: int, other: int) -> bool:
        """Whether so many bytes of two frames are equal that it is worth trying to code one with the other."""
        return bool(np.count_nonzero(self._bytes[row] == self._bytes[other]) >= ALIKE * self._bytes.shape[1])

    def filtered(self, row: int) -> Strips:
        """A frame, filtered."""
        return self._cut(apply_filter(self._frames[row : row + 1]).reshape(-1))

    def _cut(self, data: NDArray[np.uint8]) -> Strips:
        view: memoryview = data.data
        return [view[start:stop] for start, stop in self._ranges]


def _encode_episode(chunk: _Chunk, start: int, stop: int, coder: _Lean) -> Iterator[tuple[_Coded, int]]:
    """Encode the rows [start, stop) of one episode: each with the number of its keyframe.

    Where the first frame behind a keyframe is not like it, the camera moves: nothing more is tried with that keyframe. Where a
    later one is not, the scene was cut: it is the next keyframe.
    """
    row = start
    while row < stop:
        keyframe, coded = row, coder.alone(chunk, row)
        row += 1
        found, size = None, len(coded.payload)
        if row < stop and chunk.alike(keyframe, row):
            found, size = coder.with_keyframe(chunk, row, keyframe, size)
        yield coder.as_keyframe(chunk, keyframe, coded) if found else coded, keyframe
        if not found:
            for moving in range(row, stop):
                yield chunk.tried.get(moving) or coder.alone(chunk, moving), moving
            return
        while found:
            yield found, keyframe
            row += 1
            found, size = coder.with_keyframe(chunk, row, keyframe, size) if row < stop else (None, 0)


class _Lean:
    """LZ4, with the keyframe or alone."""

    def alone(self, chunk: _Chunk, row: int) -> _Coded:
        """A frame without a keyframe."""
        mine = chunk.strips(row)
        return _smaller(Coding.LZ4, [_lz4(part) for part in mine], mine)

    def as_keyframe(self, chunk: _Chunk, row: int, coded: _Coded) -> _Coded:
        """A frame that others are coded with; `coded` is how it is coded alone."""
        mine = chunk.strips(row)
        return coded if len(coded.payload) <= KEY_WORTH * sum(map(len, mine)) else _Coded(Coding.STORED, _join(mine))

    def with_keyframe(self, chunk: _Chunk, row: int, keyframe: int, alone: int) -> tuple[_Coded | None, int]:
        """A frame with its keyframe, None if it is not worth that; and the size of such frames alone, about `alone` so far."""
        payload = _join([_lz4(part, key) for part, key in zip(chunk.strips(row), chunk.strips(keyframe), strict=True)])
        return self._if_worth(chunk, row, payload, alone, WORTH)

    def _if_worth(self, chunk: _Chunk, row: int, payload: bytes, alone: int, share: float) -> tuple[_Coded | None, int]:
        if len(payload) > SURE * share * alone:
            chunk.tried[row] = self.alone(chunk, row)
            alone = len(chunk.tried[row].payload)
        return (_Coded(Coding.LZ4, payload) if len(payload) <= share * alone else None), alone


class _Compact(_Lean):
    """LZ4's high compression for a frame that stands still, and for its keyframe; else zstd of what the filter makes of it.

    A keyframe is decoded for every frame that is coded with it, so it has to be cheap to decode.
    """

    def alone(self, chunk: _Chunk, row: int) -> _Coded:
        mine = chunk.strips(row)
        mode, parts = (Coding.ZSTD | FILTERED, chunk.filtered(row)) if chunk.filters else (int(Coding.ZSTD), mine)
        return _smaller(mode, [_zstd(part) for part in parts], mine)

    def as_keyframe(self, chunk: _Chunk, row: int, coded: _Coded) -> _Coded:
        mine = chunk.strips(row)
        return _smaller(Coding.LZ4, [_lz4_high(part) for part in mine], mine)

    def with_keyframe(self, chunk: _Chunk, row: int, keyframe: int, alone: int) -> tuple[_Coded | None, int]:
        parts = zip(chunk.strips(row), chunk.strips(keyframe), strict=True)
        payload = _join([_lz4_high(part, key) for part, key in parts])
        return self._if_worth(chunk, row, payload, alone, 1.0)


_CODERS: Final[dict[Effort, _Lean]] = {"lean": _Lean(), "compact": _Compact()}


def _smaller(mode: int, parts: Sequence[bytes], mine: Strips) -> _Coded:
    """A frame as it was coded; as it is, if that is smaller."""
    if sum(map(len, parts)) < sum(map(len, mine)):
        return _Coded(mode, _join(parts))
    return _Coded(Coding.STORED, _join(mine))


def _join(parts: Sequence[bytes | memoryview]) -> bytes:
    """A payload: the strips, behind their sizes if there are several."""
    if len(parts) == 1:
        return bytes(parts[0])
    return b"".join([struct.pack(f"<{len(parts)}I", *map(len, parts)), *parts])


def _lz4(data: memoryview, dictionary: memoryview | None = None) -> bytes:
    if dictionary is None:
        return bytes(lz4.block.compress(data, store_size=False))
    return bytes(lz4.block.compress(data, mode="fast", acceleration=STRIDE, store_size=False, dict=dictionary))


def _lz4_high(data: memoryview, dictionary: memoryview | None = None) -> bytes:
    options = {} if dictionary is None else {"dict": dictionary}
    return bytes(lz4.block.compress(data, mode="high_compression", compression=HC_LEVEL, store_size=False, **options))


def _zstd(data: memoryview) -> bytes:
    if (compressor := getattr(_OF_THREAD, "compressor", None)) is None:
        compressor = _OF_THREAD.compressor = zstandard.ZstdCompressor(
            level=ZSTD_LEVEL, write_content_size=True, write_checksum=False, write_dict_id=False
        )
    return bytes(compressor.compress(data))


_OF_THREAD = threading.local()
"""A thread's compressor: one of zstd takes one frame at a time."""

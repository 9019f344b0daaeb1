"""Owns encoding chunks of frames (codec ``robozarr.frames``): rows → bytes, and which mode each frame gets.

The mode is chosen for each frame by what it costs: a camera that stands still is coded against its keyframe, a moving one
alone. Needs lz4 and zstandard: numcodecs takes no dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import lz4.block
import numpy as np
import zstandard
from numpy.typing import NDArray

from robozarr.schemas.frame_chunk import ABSENT, ENTRY, FILTERED, Coding, frame_checksum, strips
from robozarr.schemas.frames.filtering import apply_filter, can_filter
from robozarr.schemas.layout import Effort

__all__ = ["Effort", "encode_frames"]

WORTH: Final = 0.9
"""LZ4 with the keyframe has to be this much smaller than alone: reading such a frame alone decodes its keyframe too."""
KEY_WORTH: Final = 0.6
"""A keyframe that others are decoded with is stored as it is, unless LZ4 makes it this much smaller."""
STILL: Final = 0.6
"""A frame stands still if LZ4 makes it this much smaller with its keyframe than alone."""
HC_LEVEL: Final = 4
ZSTD_LEVEL: Final = 1


Strips = list[bytes]


@dataclass(frozen=True, slots=True)
class _Coded:
    """A frame as it is going to be stored."""

    mode: int
    payload: bytes
    alone: bool


def encode_frames(frames: NDArray[Any], n_rows: int, effort: Effort, *, begins: Sequence[bool] | None = None) -> bytes:
    """Encode a chunk.

    Parameters
    ----------
    frames : [n, …], n of 1 to `n_rows`
        The rows of the chunk that the array has.
    n_rows : int
        Rows of a chunk.
    effort : "lean" or "compact"
    begins : sequence of bool [n], optional
        Whether a row is the first of an episode: an episode reads no other's keyframe. The chunk's first row always is one.

    Raises
    ------
    ValueError
        If there are no frames, or more than a chunk's rows.
    """
    if not 1 <= len(frames) <= n_rows < ABSENT:
        raise ValueError(f"chunks of 1 to {n_rows} frames; got {len(frames)}")
    little = np.ascontiguousarray(frames, frames.dtype.newbyteorder("<"))
    pixels = little.reshape(len(frames), -1).view(np.uint8)
    filters = effort == "compact" and can_filter(frames.shape[1:], frames.dtype)
    planes = apply_filter(little).reshape(pixels.shape) if filters else None
    ranges = strips(pixels.shape[1])
    code = _code_lean if effort == "lean" else _code_compact
    entries = np.zeros(n_rows, ENTRY)
    entries["keyframe"][len(frames) :] = ABSENT
    payloads: list[bytes] = []
    at, keyframe = entries.nbytes, 0
    for row in range(len(frames)):
        if row == 0 or (begins is not None and begins[row]):
            keyframe = row
        key = None if keyframe == row else _cut(pixels[keyframe], ranges)
        follows = row + 1 < len(frames) and not (begins is not None and begins[row + 1])
        ahead = _cut(pixels[row + 1], ranges) if key is None and follows else None
        coded = code(_cut(pixels[row], ranges), key, None if planes is None else _cut(planes[row], ranges), ahead)
        mine = row if coded.alone else keyframe
        checksum = frame_checksum(row, coded.mode, mine, coded.payload)
        entries[row] = (at, len(coded.payload), coded.mode, mine, 0, checksum)
        at += len(coded.payload)
        payloads.append(coded.payload)
    return b"".join([entries.tobytes(), *payloads])


def _cut(data: NDArray[np.uint8], ranges: Sequence[tuple[int, int]]) -> Strips:
    return [data[start:stop].tobytes() for start, stop in ranges]


def _code_lean(mine: Strips, key: Strips | None, filtered: Strips | None, ahead: Strips | None) -> _Coded:
    """LZ4, with the keyframe where that is much smaller, else alone."""
    alone = _Coded(Coding.LZ4, _join([_lz4(part) for part in mine]), True)
    if key is not None:
        together = _Coded(Coding.LZ4, _join([_lz4(part, below) for part, below in zip(mine, key, strict=True)]), False)
        if len(together.payload) < WORTH * len(alone.payload):
            return together
    elif ahead is not None and len(alone.payload) > KEY_WORTH * sum(map(len, mine)) and _is_still(ahead, mine):
        return _Coded(Coding.STORED, _join(mine), True)  # read with each frame that needs it, and decoded at no cost
    return _smallest([alone, _Coded(Coding.STORED, _join(mine), True)])


def _code_compact(mine: Strips, key: Strips | None, filtered: Strips | None, ahead: Strips | None) -> _Coded:
    """LZ4's high compression for a frame that stands still, and for its keyframe; else zstd of what the filter makes of it.

    A keyframe is decoded for every frame that is coded with it, so it has to be cheap to decode.
    """
    if key is not None and _is_still(mine, key):
        return _high(mine, key)
    if ahead is not None and _is_still(ahead, mine):
        return _high(mine, None)
    mode = Coding.ZSTD if filtered is None else Coding.ZSTD | FILTERED
    zstd = _Coded(mode, _join([_zstd(part) for part in (mine if filtered is None else filtered)]), True)
    return _smallest([zstd, _Coded(Coding.STORED, _join(mine), True)])


def _is_still(mine: Strips, key: Strips) -> bool:
    together = sum(len(_lz4(part, below)) for part, below in zip(mine, key, strict=True))
    return together < STILL * sum(len(_lz4(part)) for part in mine)


def _high(mine: Strips, key: Strips | None) -> _Coded:
    parts = [_lz4_high(part, below) for part, below in zip(mine, key or [b""] * len(mine), strict=True)]
    return _smallest([_Coded(Coding.LZ4, _join(parts), key is None), _Coded(Coding.STORED, _join(mine), True)])


def _smallest(found: Sequence[_Coded]) -> _Coded:
    return min(found, key=lambda coded: len(coded.payload))


def _join(parts: Strips) -> bytes:
    """A payload: the strips, behind their sizes if there are several."""
    return parts[0] if len(parts) == 1 else b"".join([np.array([len(part) for part in parts], "<u4").tobytes(), *parts])


def _lz4(data: bytes, dictionary: bytes | None = None) -> bytes:
    return bytes(lz4.block.compress(data, store_size=False, **({} if dictionary is None else {"dict": dictionary})))


def _lz4_high(data: bytes, dictionary: bytes) -> bytes:
    return bytes(lz4.block.compress(data, mode="high_compression", compression=HC_LEVEL, store_size=False, dict=dictionary))


def _zstd(data: bytes) -> bytes:
    return _zstd_compressor().compress(data)


@lru_cache(maxsize=1)
def _zstd_compressor() -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True, write_checksum=False, write_dict_id=False)

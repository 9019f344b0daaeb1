"""Check and read a chunk of frames (codec ``robozarr.frames``, FORMAT.md): its table and its modes. Pure.

A chunk holds 16 rows of a key of pictures, or of anything else that is read step by step. A table at its start says for each
row where its bytes lie, how they are coded, and which row of the same chunk is its keyframe. A row is decoded with its keyframe
alone: random access costs two frames, not all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ABSENT",
    "ENTRY",
    "FILTERED",
    "STRIP_BYTES",
    "Coding",
    "FrameChunkError",
    "FrameTable",
    "entries_of",
    "frame_checksum",
    "strips",
]

ENTRY: Final = np.dtype(
    [("offset", "<u4"), ("length", "<u4"), ("mode", "u1"), ("keyframe", "u1"), ("zero", "<u2"), ("crc32c", "<u4")]
)
"""One row of the table, 16 bytes."""
ABSENT: Final = 255
"""`keyframe` of a row after the end of the array; all its other fields are 0."""
STRIP_BYTES: Final = 48 * 1024
"""Bytes of a strip, the unit of coding: LZ4 reaches back 65,535 bytes, and the keyframe's strip comes first."""
FILTERED: Final = 4
"""Bit of a mode: the strips belong to the filtered frame and the filtered keyframe."""


class Coding(IntEnum):
    """Lower two bits of a mode: the coding of a frame's strips."""

    STORED = 0
    LZ4 = 1
    ZSTD = 2


class FrameChunkError(ValueError):
    """A chunk breaks FORMAT.md.

    Parameters
    ----------
    rule, value : str
        What must be, and what was found.
    row : int, optional
        Row of the chunk that it is about; None: the chunk as a whole.
    number : str
        Of the rule in FORMAT.md.
    """

    def __init__(self, rule: str, value: str, *, row: int | None = None, number: str = "M10") -> None:
        super().__init__(rule, value, row, number)
        self.rule, self.value, self.row, self.number = rule, value, row, number

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}: "
        return f"{where}{self.rule}; found {self.value}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _error, (self.rule, self.value, self.row, self.number)


def _error(rule: str, value: str, row: int | None, number: str) -> FrameChunkError:
    return FrameChunkError(rule, value, row=row, number=number)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The checked table of a chunk: every field is within its bounds, and every keyframe is coded alone."""

    entries: NDArray[np.void]
    """Structured array [n_rows] of `ENTRY`."""

    @classmethod
    def of(cls, chunk: NDArray[np.uint8], n_rows: int, frame_bytes: int) -> FrameTable:
        """Read and check the table at the start of a chunk.

        Parameters
        ----------
        chunk : uint8 [n]
        n_rows : int
            Rows that a chunk of the array has.
        frame_bytes : int
            Bytes of one decoded frame.

        Raises
        ------
        FrameChunkError
            If a field is out of bounds, payloads do not follow each other, or a keyframe is not coded alone; it names the first
            row that is wrong.
        """
        begin = n_rows * ENTRY.itemsize
        if len(chunk) < begin:
            raise FrameChunkError(
                f"a chunk of frames must begin with a table of {begin} bytes", f"{len(chunk)} bytes", number="M8"
            )
        entries = chunk[:begin].view(ENTRY)
        absent = entries["keyframe"] == ABSENT
        n_present = int(np.argmax(absent)) if absent.any() else n_rows
        _refuse(~absent & (np.arange(n_rows) >= n_present), "absent rows must stand behind all others", entries)
        if n_present == 0:
            raise FrameChunkError("a chunk must have a row that is not absent", "none", row=0)
        fields = [entries[name] != 0 for name in ("offset", "length", "mode", "zero", "crc32c")]
        _refuse(absent & np.logical_or.reduce(fields), "all fields of an absent row but its keyframe must be 0", entries)
        mine = entries[:n_present]
        offsets, lengths = mine["offset"].astype(np.int64), mine["length"].astype(np.int64)
        n_strips = len(strips(frame_bytes))
        most = frame_bytes + (4 * n_strips if n_strips > 1 else 0)
        _refuse((lengths == 0) | (lengths > most), f"a frame's payload must have 1 to {most} bytes", mine, "M8")
        expected = begin + np.concatenate([[0], np.cumsum(lengths)])
        _refuse(offsets != expected[:-1], "payloads must follow each other, from the table on", mine, "M8")
        if expected[-1] != len(chunk):
            rule = "the last payload must end where the chunk ends"
            raise FrameChunkError(rule, f"{expected[-1]} of {len(chunk)} bytes", row=n_present - 1, number="M8")
        _check_coding(mine)
        return cls(entries)

    @property
    def n_present(self) -> int:
        """Rows that the array has; the rest of the chunk lies after its end."""
        return int((self.entries["keyframe"] != ABSENT).sum())


def _check_coding(entries: NDArray[np.void]) -> None:
    """Check modes and keyframes of the present rows."""
    modes, keyframes = entries["mode"].astype(np.int64), entries["keyframe"].astype(np.int64)
    rows = np.arange(len(entries))
    _refuse((modes & ~FILTERED) > Coding.ZSTD, "a mode must be one of the closed set", entries)
    _refuse(entries["zero"] != 0, "bytes 10 and 11 of an entry must be 0", entries)
    _refuse(keyframes > rows, "a keyframe must be the row itself, or one before it", entries)
    _refuse(keyframes[keyframes] != keyframes, "a keyframe must be coded alone", entries)
    other = keyframes != rows
    _refuse(other & ((modes & 3) == Coding.STORED), "a frame that is stored must have no keyframe", entries)
    unlike = other & ((modes & ~modes[keyframes] & FILTERED) != 0)
    _refuse(unlike, "a filtered frame must have a filtered keyframe", entries)


def _refuse(wrong: NDArray[np.bool_], rule: str, entries: NDArray[np.void], number: str = "M10") -> None:
    """Raise FrameChunkError for the first wrong row, if there is one."""
    if wrong.any():
        row = int(np.argmax(wrong))
        value = ", ".join(f"{name} {entries[name][row]}" for name in ENTRY.names or () if name != "crc32c")
        raise FrameChunkError(rule, value, row=row, number=number)


def entries_of(chunk: bytes | memoryview, n_rows: int) -> NDArray[np.void]:
    """The table of a chunk as it is, unchecked: structured array [n_rows] of `ENTRY`."""
    return np.frombuffer(chunk, ENTRY, n_rows)


def frame_checksum(row: int, mode: int, keyframe: int, payload: bytes) -> int:
    """The required `crc32c` of an entry: over the row's number, mode, keyframe (a byte each) and the payload.

    The row's number is in it, so that entries that changed places are noticed. The offset is not: it decides nothing.
    """
    return int(google_crc32c.extend(google_crc32c.value(bytes((row, mode, keyframe))), payload))


def strips(frame_bytes: int) -> list[tuple[int, int]]:
    """Half-open byte ranges of a frame that are coded separately.

    >>> strips(100_000)
    [(0, 49152), (49152, 98304), (98304, 100000)]
    """
    return [(start, min(start + STRIP_BYTES, frame_bytes)) for start in range(0, frame_bytes, STRIP_BYTES)]

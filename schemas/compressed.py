"""Check that compressed chunks have the one form that the format allows, so that every decoder reads the same bytes.

c-blosc, c-blosc2 and their versions disagree about chunks that no encoder writes: the same bytes are a picture to one of them
and zeros to the other. So whatever decodes a chunk asks here first, and what is not exactly of the form in FORMAT.md (M10) is
refused. Pure, no I/O. ``loader.frames.native`` compiles `blosc_fault`, so it keeps to what numba understands.
"""

from __future__ import annotations

from typing import Any, Final

from robozarr.schemas.layout import ArrayLayout

__all__ = ["BLOSC_FAULTS", "blosc_fault", "blosc_flags", "check_compressed", "decoded_bytes_max"]

HEADER_BYTES: Final = 16
SHUFFLE: Final = 0x01
STORED: Final = 0x02
WHOLE_BLOCKS: Final = 0x10
"""Blosc flags: bytes are shuffled; the data follows the header uncompressed; the bytes of an element stay together."""
FORMATS: Final = {"blosc-lz4": 0x20, "blosc-zstd": 0x80}
SPLIT_BYTES: Final = 128
"""Smallest part into which c-blosc divides a block; c-blosc2 would divide further."""

BLOSC_FAULTS: Final = (
    "",
    "a Blosc header that is cut off",
    "a Blosc header of another version than 2, 1",
    "Blosc flags that are not those of the array's zarr.json",
    "a Blosc header that states another typesize",
    "a Blosc header that states another size",
    "a Blosc header that states another length",
    "a Blosc header that states blocks of no possible size",
    "Blosc data that is stored as it is, of another length",
    "a Blosc block outside the chunk",
    "a part of a Blosc block that is longer than what it decodes to, or empty",
)
"""The meaning of the numbers that `blosc_fault` returns."""

MOST_RATIO: Final = {
    "none": 1, "blosc-lz4": 256, "blosc-zstd": 1 << 15, "zstd": 1 << 15, "frames-lean": 1 << 15, "frames-compact": 1 << 15,
}  # fmt: skip
"""Most decoded bytes per encoded byte: LZ4 codes a run in bytes of 255, Zstandard 128 KiB in a block of 4 bytes."""


def decoded_bytes_max(codec: str, n_bytes: int) -> int:
    """Upper bound on what `n_bytes` of chunks decode to; no more memory is taken, whatever a document claims."""
    return MOST_RATIO[codec] * n_bytes


def blosc_flags(layout: ArrayLayout) -> int:
    """Flags of every Blosc chunk of an array; `STORED` and `WHOLE_BLOCKS` may be added."""
    return FORMATS[layout.codec] | (SHUFFLE if layout.shuffle == "shuffle" else 0)


def u32(chunk: Any, at: int) -> int:
    """Read four bytes as a little-endian number."""
    return chunk[at] + chunk[at + 1] * 0x100 + chunk[at + 2] * 0x10000 + chunk[at + 3] * 0x1000000  # type: ignore[no-any-return]


def blosc_fault(chunk: Any, n_bytes: int, itemsize: int, flags: int) -> int:
    """Why bytes are not a Blosc chunk of the format; 0 if they are.

    Parameters
    ----------
    chunk : bytes; compiled, uint8 [n]
    n_bytes : int
        What it must decode to.
    itemsize : int
        Bytes of an element.
    flags : int
        `blosc_flags` of the array.

    Returns
    -------
    int
        The number of one of `BLOSC_FAULTS`.

    Examples
    --------
    >>> stored = bytes([2, 1, 0x22, 1, 3, 0, 0, 0, 3, 0, 0, 0, 19, 0, 0, 0]) + b"abc"
    >>> blosc_fault(stored, 3, 1, 0x20), BLOSC_FAULTS[blosc_fault(stored, 4, 1, 0x20)]
    (0, 'a Blosc header that states another size')
    """
    n = len(chunk)
    if n < HEADER_BYTES:
        return 1
    if chunk[0] != 2 or chunk[1] != 1:
        return 2
    found = chunk[2] + 0  # to numba: no uint8 any more
    if found | STORED | WHOLE_BLOCKS != flags | STORED | WHOLE_BLOCKS:
        return 3
    if chunk[3] != itemsize:
        return 4
    block_bytes = u32(chunk, 8)
    if u32(chunk, 4) != n_bytes:
        return 5
    if u32(chunk, 12) != n:
        return 6
    if block_bytes < 1 or block_bytes > n_bytes or block_bytes % itemsize:
        return 7
    if found & STORED:
        return 0 if n == HEADER_BYTES + n_bytes else 8
    split = not found & WHOLE_BLOCKS and itemsize > 1
    if split and block_bytes // itemsize < SPLIT_BYTES:
        return 7
    n_blocks = -(-n_bytes // block_bytes)
    table_end = HEADER_BYTES + 4 * n_blocks
    if table_end > n:
        return 9
    for block in range(n_blocks):
        at = u32(chunk, HEADER_BYTES + 4 * block)
        size = min(block_bytes, n_bytes - block * block_bytes)
        n_parts = itemsize if split and size == block_bytes else 1
        if at < table_end:
            return 9
        for _ in range(n_parts):
            if at + 4 > n:
                return 9
            length = u32(chunk, at)
            at += 4
            if length < 1 or length > size // n_parts:
                return 10
            if at + length > n:
                return 9
            at += length
    return 0


def check_compressed(chunk: bytes, layout: ArrayLayout, n_bytes: int) -> None:
    """Raise ValueError unless a chunk, without its crc32c, has the form that the array's codec gives to `n_bytes`."""
    if layout.codec == "none":
        if len(chunk) != n_bytes:
            raise ValueError(f"{len(chunk)} bytes")
    elif layout.codec == "zstd":
        if (stated := zstd_bytes(chunk)) != n_bytes:
            raise ValueError("no Zstandard frame that states its size" if stated is None else f"{stated} bytes")
    elif fault := blosc_fault(chunk, n_bytes, layout.itemsize, blosc_flags(layout)):
        found = f"{u32(chunk, 4)} bytes, {BLOSC_FAULTS[fault]}" if fault == 5 else BLOSC_FAULTS[fault]
        raise ValueError(found)


def zstd_bytes(frame: bytes) -> int | None:
    """Decoded size that a Zstandard frame states; None if it states none, or is not a frame.

    >>> zstd_bytes(bytes.fromhex("28b52ffd2003190000616263"))
    3
    """
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        return None
    descriptor = frame[4]
    single, width = descriptor >> 5 & 1, (1, 2, 4, 8)[descriptor >> 6]
    if width == 1 and not single:
        return None
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if len(frame) < at + width:
        return None
    return int.from_bytes(frame[at : at + width], "little") + (256 if width == 2 else 0)

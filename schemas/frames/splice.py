"""Decode a block that was coded with a dictionary, with a library that knows no dictionaries.

numcodecs decodes LZ4 and zstd, but takes no dictionary. A block with a dictionary becomes a plain one when the dictionary is
put in front of it as bytes that are copied as they are: what reached back into the dictionary now reaches back into the block
itself. The plain block decodes to the dictionary and then the frame.
"""

from __future__ import annotations

import struct
from typing import Final

import numcodecs.lz4
import numcodecs.zstd

__all__ = ["decode_lz4", "decode_zstd"]

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
RAW_BLOCK_BYTES: Final = 1 << 17
"""zstd's largest block."""


def decode_lz4(block: bytes, size: int, dictionary: bytes = b"") -> bytes:
    """Decode a block of LZ4 to exactly `size` bytes; ValueError or RuntimeError if it does not decode to that.

    A block begins with a token; its upper half, and bytes that follow it, count the literals that stand behind them. The
    dictionary is put before these literals, and counted with them.
    """
    total = size + len(dictionary)
    plain = _lz4_with_literals(block, dictionary) if dictionary else block
    decoded = numcodecs.lz4.decompress(struct.pack("<i", total) + plain)
    if len(decoded) != total or decoded[: len(dictionary)] != dictionary:
        raise ValueError(f"a block that decodes to {len(decoded) - len(dictionary)} bytes")
    return bytes(decoded[len(dictionary) :])


def _lz4_with_literals(block: bytes, dictionary: bytes) -> bytes:
    if not block:
        raise ValueError("a block of no bytes")
    literals, at = block[0] >> 4, 1
    if literals == 15:
        more = 255
        while more == 255:
            if at == len(block):
                raise ValueError("a block that ends within its first length")
            more = block[at]
            literals, at = literals + more, at + 1
    n = literals + len(dictionary)
    token = bytes([min(n, 15) << 4 | block[0] & 15])
    rest = n - 15
    counted = b"" if rest < 0 else b"\xff" * (rest // 255) + bytes([rest % 255])
    return b"".join([token, counted, dictionary, block[at:]])


def decode_zstd(frame: bytes, size: int, dictionary: bytes = b"") -> bytes:
    """Decode a frame of zstd to exactly `size` bytes; ValueError or RuntimeError if it does not decode to that.

    A frame is a header and blocks. The header is replaced by one that states the size of both, and the dictionary follows it as
    blocks that are copied.
    """
    begin = _zstd_header(frame, size)
    total = size + len(dictionary)
    # one segment, a content size of 4 bytes, no checksum, no dictionary
    parts = [ZSTD_MAGIC, b"\xa0", struct.pack("<I", total)]
    for start in range(0, len(dictionary), RAW_BLOCK_BYTES):
        part = dictionary[start : start + RAW_BLOCK_BYTES]
        parts += [struct.pack("<I", len(part) << 3)[:3], part]
    decoded = numcodecs.zstd.decompress(b"".join([*parts, frame[begin:]]))
    if len(decoded) != total or decoded[: len(dictionary)] != dictionary:
        raise ValueError(f"a frame that decodes to {len(decoded) - len(dictionary)} bytes")
    return bytes(decoded[len(dictionary) :])


def _zstd_header(frame: bytes, size: int) -> int:
    """Length of the header, which must be FORMAT.md's: one segment, the size, neither checksum nor dictionary."""
    if frame[:4] != ZSTD_MAGIC or len(frame) < 6:
        raise ValueError("no frame of zstd")
    descriptor = frame[4]
    if descriptor & 0b0011_1111 != 0b0010_0000:
        raise ValueError(f"a frame header {descriptor:#04x}")
    width = (1, 2, 4, 8)[descriptor >> 6]
    stated = int.from_bytes(frame[5 : 5 + width], "little") + (256 if width == 2 else 0)
    if stated != size:
        raise ValueError(f"a frame that states {stated} bytes")
    return 5 + width

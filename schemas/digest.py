"""The sampled digest of a source's content, as FORMAT.md defines it. Pure: a function for reading is passed in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final

__all__ = ["ALGORITHM", "sample_ranges", "sampled_digest"]

ALGORITHM: Final = "sampled-blake2b"
"""Prefix of a digest; another way of sampling would have another prefix."""
EDGE_BYTES: Final = 2**20
"""Bytes read at the beginning and at the end, where HDF5 keeps most of its structure."""
BLOCK_BYTES: Final = 2**14
N_BLOCKS: Final = 128
"""Blocks in between, evenly spread; with both ends, 4 MiB of any file, however large."""


def sample_ranges(size: int) -> Iterator[tuple[int, int]]:
    """Byte ranges [start, stop), in order, that the digest of a file of `size` bytes covers.

    >>> list(sample_ranges(5)), sum(stop - start for start, stop in sample_ranges(10**12)) == 2**22
    ([(0, 5)], True)
    """
    if size <= 2 * EDGE_BYTES + N_BLOCKS * BLOCK_BYTES:
        yield 0, size
        return
    yield 0, EDGE_BYTES
    room = size - 2 * EDGE_BYTES - BLOCK_BYTES  # of the first byte of a block
    for i in range(N_BLOCKS):
        start = EDGE_BYTES + i * room // (N_BLOCKS - 1)
        yield start, start + BLOCK_BYTES
    yield size - EDGE_BYTES, size


def sampled_digest(size: int, read: Callable[[int, int], bytes]) -> str:
    """The digest of a file of `size` bytes; `read(start, n)` returns n of them.

    >>> sampled_digest(3, lambda start, n: b"abc"[start : start + n])
    'sampled-blake2b:10366aba46518e2b9d040dde242bbc5a'
    """
    found = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    for start, stop in sample_ranges(size):
        found.update(read(start, stop - start))
    return f"{ALGORITHM}:{found.hexdigest()}"

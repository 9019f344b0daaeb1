"""Memory that a thread reads and decodes with, and reading into it. Imports neither zarr nor torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled_inside
from robozarr.loader.frames.keyframes import FrameBuffers, FrameMemory
from robozarr.loader.frames.native import address, free_context, make_context, posix_preadv, posix_preadv2
from robozarr.loader.frames.shards import INTERRUPTS, NOWAIT, Flag, Number, Shards, encoded_bytes_max, interrupted

__all__ = ["RUN_BYTES", "RUN_CHUNKS", "Buffers", "ThreadBuffers", "read_vectors"]

RUN_BYTES: Final = 256 * 2**10
"""Encoded bytes read by one system call, about: neighbouring chunks are one range, and stay in a core's cache until decoded."""
RUN_CHUNKS: Final = 32


class Buffers(NamedTuple):
    """Buffers of one thread."""

    context: int
    """A Blosc context."""
    buffer: NDArray[np.uint8]
    vectors: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    last: NDArray[np.uint32]
    """uint32 [1]: the checksum that the chunk ends in."""
    fault: NDArray[np.int64]
    """int64 [1]: the row that could not be read."""
    pixels: NDArray[np.uint8]
    """uint8 [row_bytes]: a row that is going to be turned over."""


class ThreadBuffers:
    """A thread's buffers, and a Blosc context that starts no threads."""

    def __init__(self) -> None:
        self._context = make_context()
        self._buffers = self._make(0)
        self._frames: dict[int, FrameBuffers] = {}

    def of(self, row_bytes: int) -> Buffers:
        """Buffers for a run of at least one chunk of a row of `row_bytes`."""
        if self._buffers.pixels.size < row_bytes:
            self._buffers = self._make(row_bytes)
        return self._buffers

    def frames(self, reader: object, shards: Shards) -> FrameMemory:
        """Memory for a reader's frames, the same at each call: it holds keyframes. Readers live longer than buffers."""
        found = self._frames.get(id(reader))
        if found is None:
            found = self._frames[id(reader)] = FrameBuffers(shards.row_bytes, shards.height, shards.filters)
        return found.memory

    def forget(self) -> None:
        """Forget all keyframes."""
        self._frames.clear()

    def _make(self, row_bytes: int) -> Buffers:
        return Buffers(
            context=self._context,
            buffer=np.empty(RUN_BYTES + encoded_bytes_max(row_bytes), np.uint8),
            vectors=np.empty(4 * RUN_CHUNKS, np.int64),
            checksums=np.empty(RUN_CHUNKS, np.uint32),
            last=np.empty(1, np.uint32),
            fault=np.empty(1, np.int64),
            pixels=np.empty(row_bytes, np.uint8),
        )

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends() and (context := getattr(self, "_context", 0)):  # then modules are taken apart already
            free_context(context)


@compiled_inside
def read_vectors(fd: Number, buffers: Buffers, n: Number, offset: Number, n_bytes: Number, may_wait: Flag) -> int:
    """Read `n_bytes` into n buffers, (address, size) each. Returns 1: done, 0: would have to wait, -1: failed."""
    vectors, done, at, tries = buffers.vectors, 0, 0, 0
    while done < n_bytes:
        if may_wait:
            got = posix_preadv(fd, address(vectors.ctypes.data + 16 * at), n - at, offset + done)
        else:
            got = posix_preadv2(fd, address(vectors.ctypes.data + 16 * at), n - at, offset + done, NOWAIT)
            if got < 0:  # not in memory, or a file system that cannot tell
                return 0
        if got < 0 and tries < INTERRUPTS and interrupted():
            tries += 1
            continue
        if got <= 0:
            return -1
        done, tries = done + got, 0
        while at < n and got >= vectors[2 * at + 1]:
            got -= vectors[2 * at + 1]
            at += 1
        if got > 0:
            vectors[2 * at] += got
            vectors[2 * at + 1] -= got
    return 1

"""Compiled: open a key's shards on disk, and read where their chunks lie.

Serial functions that hold no GIL. Imports neither zarr nor torch, and raises nothing: what cannot be read exactly is a code and
a row, from which ``loader.frames.faults`` makes an error.
"""

from __future__ import annotations

import errno
import math
import os
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled, compiled_inside, compiled_making_arrays
from robozarr.loader.frames.native import (
    address,
    bytes_at,
    crc32c,
    errno_location,
    posix_close,
    posix_lseek,
    posix_open,
    posix_pread,
    posix_readlink,
)
from robozarr.schemas import frame_chunk
from robozarr.schemas.compressed import blosc_flags
from robozarr.schemas.layout import ArrayLayout

__all__ = [
    "ABSENT",
    "BLOSC",
    "CHECKSUM",
    "CLOSED",
    "CRC_BYTES",
    "DECODED",
    "ENTRY_BYTES",
    "FOREIGN",
    "FRAMES",
    "INDEX",
    "INTERRUPTS",
    "MISSING",
    "NEEDS_KEY",
    "NOWAIT",
    "NO_FILE",
    "OK",
    "OUTSIDE",
    "RAW",
    "READ",
    "SIZE",
    "TABLE",
    "WAITS",
    "WILLNEED",
    "Flag",
    "Number",
    "OpenFile",
    "Shards",
    "begin_of",
    "chunk_of",
    "close_file",
    "close_shards",
    "encoded_bytes_max",
    "end_of",
    "file_of",
    "index_bytes",
    "interrupted",
    "load_index",
    "open_shard",
    "read_bytes",
    "rows_of_chunk",
    "shard_chunks",
    "shards_of",
    "take_index",
    "u32",
]

OK, MISSING, INDEX, READ, SIZE, CHECKSUM, DECODED, FOREIGN, OUTSIDE, TABLE = range(10)
"""Codes: nothing is wrong; a shard cannot be opened; its index is not what was written; it ends before a chunk does; a chunk
has a size that a row cannot have; its bytes have another checksum; they do not decode to a row; it is a whole chunk, but not
this row's; there is no such row; the table of a chunk of frames says what may not be."""

WAITS, NEEDS_KEY = 10, 11
"""Only inside: what is to be read is not in memory yet; a frame's keyframe is not."""
CLOSED, ABSENT = -1, -2

CRC_BYTES: Final = 4
ENTRY_BYTES: Final = frame_chunk.ENTRY.itemsize
RAW, BLOSC, FRAMES = 0, 1, 2
"""Codecs: rows as they are; one row per chunk by Blosc; chunks of frames with keyframes."""
INTERRUPTS: Final = 1000
"""A call that a signal interrupted is made again, so often."""
NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)
WILLNEED: Final = getattr(os, "POSIX_FADV_WILLNEED", 3)
_RDONLY: Final = (
    os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
)  # links are no shards, and a FIFO would be waited for
_EINTR: Final = errno.EINTR
_SLASH: Final = 47
_SEEK_END: Final = 2
_NO_CHUNK: Final = np.uint64(2**64 - 1)
Number: TypeAlias = int | np.signedinteger
"""What numba has for an int."""
Flag: TypeAlias = bool | np.bool_
"""What numba has for a bool: constants are passed as ``np.bool_`` and ``np.int64``, of which it makes no variant of its own."""


OpenFile: TypeAlias = tuple[Number, Number]
"""A file that is open for one use, and the number of its shard."""
NO_FILE: Final[OpenFile] = (-1, -1)


class Shards(NamedTuple):
    """One key's shards."""

    n_rows: int
    shard_rows: int
    chunk_rows: int
    row_bytes: int
    codec: int
    """RAW, BLOSC or FRAMES."""
    itemsize: int
    flags: int
    """Of Blosc, ``schemas.compressed.blosc_flags``."""
    height: int
    """Lines of a picture: a row is so many equal parts."""
    filters: bool
    """Whether frames may be filtered: uint8 [y, x, 3]."""
    root: int
    """Bytes of `prefix` that are the store's own path: below it no folder is a link."""
    prefix: NDArray[np.uint8]
    """A shard's path is this, its number,"""
    suffix: NDArray[np.uint8]
    """and this, which ends in a zero byte."""
    edges: NDArray[np.int64]
    """int64 [n_shards * (chunks a shard + 1)]: byte at which each chunk begins, and the last one ends; valid where `loaded`."""
    loaded: NDArray[np.uint8]
    """uint8 [n_shards]: whether the shard's index was read and checked."""
    fds: NDArray[np.int32]
    """int32 [n_shards]: open file, or CLOSED: to be opened for each use, or ABSENT: there is none."""
    sums: NDArray[np.uint32]
    """uint32 [n_rows]: the checksum that each row's chunk must have; empty: whatever the chunk ends in."""
    tables: NDArray[np.uint8]
    """uint8 [n_chunks, 16 * chunk_rows]: of FRAMES, the tables at the chunks' beginnings; valid where `known`."""
    known: NDArray[np.uint8]
    """uint8 [n_chunks]: whether the chunk's table was read and checked."""
    over: NDArray[np.uint8]
    """uint8 [n_rows]: whether the row's picture is to be turned over, its last line first; empty: no row's is."""


def shards_of(
    layout: ArrayLayout,
    sums: NDArray[np.uint32],
    prefix: str,
    suffix: str,
    fd: int,
    root: str | None = None,
    over: NDArray[np.uint8] | None = None,
) -> Shards:
    """A key's shards, with nothing loaded; each one's `fd` is CLOSED or ABSENT. Their paths are prefix, number, suffix.

    `root` is the part of the prefix below which no folder may be a link; by default all of it is trusted. `over` says which
    rows' pictures are turned over; by default none.
    """
    codec = FRAMES if layout.effort is not None else RAW if layout.codec == "none" else BLOSC
    n_chunks = -(-layout.shape[0] // layout.chunk_rows) if codec == FRAMES else 0
    return Shards(
        n_rows=layout.shape[0],
        shard_rows=layout.shard_rows,
        chunk_rows=layout.chunk_rows,
        row_bytes=layout.row_bytes,
        codec=codec,
        itemsize=layout.itemsize,
        flags=blosc_flags(layout) if codec == BLOSC else 0,
        height=math.prod(layout.shape[1:2]),
        filters=layout.dtype == "uint8" and len(layout.shape) == 4 and layout.shape[3] == 3,
        root=len(os.fsencode(prefix if root is None else root)),
        prefix=np.frombuffer(os.fsencode(prefix), np.uint8),
        suffix=np.frombuffer(os.fsencode(f"{suffix}\0"), np.uint8),
        # virtual memory: pages of shards that are never used are never touched
        edges=np.empty(layout.n_shards * (layout.chunks_per_shard + 1), np.int64),
        loaded=np.zeros(layout.n_shards, np.uint8),
        fds=np.full(layout.n_shards, fd, np.int32),
        sums=sums,
        tables=np.empty((n_chunks, ENTRY_BYTES * layout.chunk_rows), np.uint8),
        known=np.zeros(n_chunks, np.uint8),
        over=np.empty(0, np.uint8) if over is None else over,
    )


def close_shards(shards: Shards, free_fds: NDArray[np.int64]) -> None:
    """Close what is open of a key's shards, and count it back."""
    for fd in shards.fds[shards.fds >= 0].tolist():
        os.close(fd)
        free_fds[0] += 1


@compiled
def encoded_bytes_max(row_bytes: int) -> int:
    """The largest accepted size of an encoded chunk of one row: compressors add little to what does not compress."""
    return row_bytes + row_bytes // 64 + 1024


@compiled_inside
def shard_chunks(shards: Shards) -> int:
    """Chunks of a shard."""
    return shards.shard_rows // shards.chunk_rows


@compiled_inside
def chunk_of(shards: Shards, row: Number) -> Number:
    """Number of a row's chunk, over all shards."""
    return row // shards.chunk_rows


@compiled_inside
def rows_of_chunk(shards: Shards, chunk: Number) -> Number:
    """How many rows of the array a chunk has."""
    return min(shards.chunk_rows, shards.n_rows - chunk * shards.chunk_rows)


@compiled
def begin_of(shards: Shards, chunk: Number) -> int:
    """The first byte of a chunk in its shard; where chunks are rows, a chunk's number is its row's."""
    return int(shards.edges[chunk + chunk // shard_chunks(shards)])


@compiled
def end_of(shards: Shards, chunk: Number) -> int:
    """The end of a chunk, with its checksum, in its shard."""
    return int(shards.edges[chunk + chunk // shard_chunks(shards) + 1])


@compiled_making_arrays
def open_shard(shards: Shards, shard: Number) -> int:
    """Open a shard; -1 if that fails."""
    prefix, suffix = shards.prefix, shards.suffix
    path = np.empty(len(prefix) + 20 + len(suffix), np.uint8)
    path[: len(prefix)] = prefix
    n_digits, rest = 1, shard
    while rest >= 10:
        n_digits, rest = n_digits + 1, rest // 10
    rest = shard
    for i in range(n_digits):
        path[len(prefix) + n_digits - 1 - i] = 48 + rest % 10
        rest //= 10
    path[len(prefix) + n_digits : len(prefix) + n_digits + len(suffix)] = suffix
    for i in range(shards.root + 1, len(prefix) + n_digits + len(suffix) - 1):
        if path[i] == _SLASH and _is_link(path, i):
            return -1
    fd, tries = int(posix_open(address(path.ctypes.data), _RDONLY)), 0
    while fd < 0 and tries < INTERRUPTS and interrupted():
        fd, tries = int(posix_open(address(path.ctypes.data), _RDONLY)), tries + 1
    return fd


@compiled_inside
def file_of(shards: Shards, shard: Number, held: OpenFile) -> tuple[Number, OpenFile]:
    """The file of a shard: the one that stays open, or one that is opened for now; `held` is what was opened so before.

    Returns
    -------
    fd : int
        -1: there is none.
    held : OpenFile
        To be given to the next call, and to `close_file` at the end.
    """
    fd = np.int64(shards.fds[shard])
    if fd != CLOSED:
        return fd, held
    if held[1] != shard:
        close_file(held)
        held = np.int64(open_shard(shards, shard)), np.int64(shard)
    return held[0], held


@compiled_inside
def close_file(held: OpenFile) -> None:
    """Close a file that was opened for one use."""
    if held[0] >= 0:
        posix_close(held[0])


@compiled_making_arrays
def _is_link(path: NDArray[np.uint8], n: int) -> bool:
    """Whether the first n bytes of a path name a symbolic link."""
    target = np.empty(1, np.uint8)
    path[n] = 0
    got = posix_readlink(address(path.ctypes.data), address(target.ctypes.data), 1)
    path[n] = _SLASH
    return bool(0 <= got <= len(target))  # named once more: numba frees an array behind the last line that names it


@compiled_inside
def interrupted() -> bool:
    """Whether the call that has just failed was interrupted by a signal: it is no fault of the file."""
    return bool(u32(bytes_at(errno_location(), 4), 0) == _EINTR)


@compiled_inside
def read_bytes(fd: Number, target: Number, n_bytes: Number, offset: Number) -> bool:
    """Read bytes of a file to an address; False if they are not there."""
    done: Number = 0
    tries = 0
    while done < n_bytes:
        got = posix_pread(fd, address(target + done), n_bytes - done, offset + done)
        if got > 0:
            done, tries = done + got, 0
        elif got < 0 and tries < INTERRUPTS and interrupted():
            tries += 1
        else:
            return False
    return True


@compiled_making_arrays
def load_index(shards: Shards, shard: int, fd: int) -> int:
    """Read a shard's index from its file; else as `take_index`."""
    tail = np.empty(index_bytes(shards), np.uint8)
    n_bytes = posix_lseek(fd, 0, _SEEK_END)
    start = n_bytes - len(tail)
    if start < 0 or not read_bytes(fd, tail.ctypes.data, len(tail), start):
        return INDEX
    return take_index(shards, shard, tail, n_bytes)


@compiled
def index_bytes(shards: Shards) -> int:
    """Bytes of a shard's index, at its end."""
    return 16 * shard_chunks(shards) + CRC_BYTES


@compiled
def take_index(shards: Shards, shard: int, tail: NDArray[np.uint8], n_bytes: int) -> int:
    """Check a shard's index as FORMAT.md (M8, M9) says, and keep where its chunks begin and end.

    Parameters
    ----------
    shards : Shards, written
        But for `loaded`.
    shard : int
    tail : uint8 [index_bytes]
        The last bytes of the shard,
    n_bytes : int
        which has so many.

    Returns
    -------
    int
        A code.
    """
    if len(tail) != index_bytes(shards):
        return INDEX
    n_entries, start = shard_chunks(shards), n_bytes - len(tail)
    rows = min(shards.shard_rows, shards.n_rows - shard * shards.shard_rows)
    n = -(-rows // shards.chunk_rows)
    if crc32c(address(tail.ctypes.data), 16 * n_entries) != tail[-CRC_BYTES:].view(np.uint32)[0]:
        return INDEX
    index = tail[:-CRC_BYTES].view(np.uint64)
    base, at = shard * (n_entries + 1), 0
    least = ENTRY_BYTES * shards.chunk_rows if shards.codec == FRAMES else CRC_BYTES
    for i in range(n_entries):
        offset, length = index[2 * i], index[2 * i + 1]
        if i >= n:
            if offset != _NO_CHUNK or length != _NO_CHUNK:
                return INDEX
        elif offset != np.uint64(at) or length <= least or length > np.uint64(start - at):
            return INDEX
        else:
            shards.edges[base + i] = at
            at += int(length)
    shards.edges[base + n] = at
    return OK if at == start else INDEX


@compiled_inside
def u32(data: NDArray[np.uint8], at: Number) -> Number:
    """A little-endian number; numba adds only numbers of one sign without making floats of them."""
    low, high = np.int64(data[at]) | np.int64(data[at + 1]) << 8, np.int64(data[at + 2]) | np.int64(data[at + 3]) << 8
    return low | high << 16

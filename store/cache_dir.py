"""A read-through cache: a local folder that keeps the parts of a bucket's shards that were read.

A file of it is a shard with holes: what was read of the shard lies where it lies in the shard. Whether a chunk is there is told
by its checksum, nothing else; so whatever processes, crashes, a full disk, or somebody's hand do to the folder, a chunk is
either what was written or fetched again. That needs no bookkeeping, and no locks but one around the count of bytes. Where
chunks lie is told by the shard's index: a digest behind it says that it is this shard's, so that another's file is noticed.

The folder is the cache's own (``store.cache_files``): nothing that a cache did not make is read, written or removed. Files are
named by the identity of their store, their array's layout and its checksums. A store that was written anew has other names.

Nothing is evicted for something new: an epoch uses everything once, so that what would be evicted is needed just as soon.
Where a store is larger than the folder may be, the part that fits is served from it, and the rest from the bucket. Only files
that nobody has used for an hour, and that are not of this process's stores, make room. Imports no torch.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError
from robozarr.store.cache_files import (
    COUNT,
    STRANGE,
    array_folders,
    claim_folder,
    is_shard,
    make_file,
    open_file,
    open_folder,
    shard_name,
)
from robozarr.store.system import fcntl

__all__ = ["DEFAULT_BYTES", "CacheDir", "CachedArray"]

DEFAULT_BYTES: Final = 50 * 10**9
BLOCK: Final = 4096
"""Block size of a file system, in bytes."""
SPARE_PART: Final = 20
"""Part of the disk that stays free, whatever the folder may hold."""
IDLE_S: Final = 3600
"""Files that were used this recently are not evicted."""
DIGEST_BYTES: Final = 32
"""SHA-256, at the end of a file."""
LOOK_AGAIN_S: Final = 30
"""How often a full folder is checked again."""


class CacheDir:
    """A folder of shards that any number of processes use.

    Parameters
    ----------
    folder : path
        Made if it is not there; else it must be empty, or a cache's already.
    n_bytes : int
        What it may hold; what is being written at the moment may come on top.

    Raises
    ------
    StoreError
        If it holds files of somebody else, or cannot be written to.
    """

    def __init__(self, folder: str | Path, n_bytes: int = DEFAULT_BYTES) -> None:
        self.folder, self.n_bytes = Path(folder).absolute(), n_bytes
        if fcntl is None:
            raise StoreError(f"{self.folder}: a cache_dir needs flock, which this system lacks → leave cache_dir out")
        self._own: set[str] = set()
        self._full_until = 0.0
        self._lock = threading.Lock()
        claim_folder(self.folder)
        try:
            with self._counted():
                pass
        except OSError as exc:
            raise StoreError(
                f"{self.folder}: a cache_dir must be writable; found {exc.strerror or exc} → name a folder on a local disk"
            ) from exc

    def __reduce__(self) -> tuple[type[CacheDir], tuple[Path, int]]:
        return CacheDir, (self.folder, self.n_bytes)

    def array(self, name: str, facts: Sequence[Any], sums: NDArray[np.uint32]) -> CachedArray:
        """An array's shards, identified by a name and by their expected content.

        Parameters
        ----------
        name : text
            For people that look into the folder.
        facts : sequence
            The identity of the store, the array's path and layout.
        sums : uint32 [n_rows]
        """
        digest = hashlib.sha256(repr(tuple(facts)).encode())
        digest.update(sums.astype("<u4").tobytes())
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", name)[-80:]
        folder = f"{readable or '_'}-{digest.hexdigest()[:24]}"
        self._own.add(folder)
        return CachedArray(self, folder)

    @property
    def full(self) -> bool:
        """Whether there was no room at the last attempt."""
        return time.monotonic() < self._full_until

    def write(self, fd: int, pieces: Sequence[NDArray[np.uint8]], starts: Sequence[int]) -> bool:
        """Write pieces into an open file, each at its position; False if there is no room."""
        # a piece touches so many blocks of the file; a neighbour may have counted the outer two already: counted too often
        # rather than too rarely, and put right when the folder seems to be full
        blocks = sum(-(-(start + len(piece)) // BLOCK) - start // BLOCK for piece, start in zip(pieces, starts, strict=True))
        if not self._reserve(blocks * BLOCK):
            return False
        for piece, start in zip(pieces, starts, strict=True):
            done = 0
            while done < len(piece):
                done += os.pwrite(fd, piece[done:].data, start + done)
        return True

    def failed(self, exc: OSError) -> bool:
        """Continue without the folder for a while; training does not end because a cache's disk is full."""
        self._full_until = time.monotonic() + LOOK_AGAIN_S
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            warnings.warn(f"{self.folder}: this cache_dir takes nothing more for now: {exc}", stacklevel=2)
        return False

    def _reserve(self, n: int) -> bool:
        if self.full:
            return False
        disk = os.statvfs(self.folder)
        with self._counted() as count:
            allowed = min(self.n_bytes, count[0] + disk.f_frsize * (disk.f_bavail - disk.f_blocks // SPARE_PART))
            if count[0] + n > allowed:
                count[0] = self._make_room(allowed - n)
            if count[0] + n <= allowed:
                count[0] += n
                return True
        self._full_until = time.monotonic() + LOOK_AGAIN_S
        return False

    @contextmanager
    def _counted(self) -> Iterator[list[int]]:
        """The count of bytes; only one thread of one process reads and changes it at a time."""
        with self._lock, open_folder(self.folder) as root:
            fd = make_file(root, COUNT)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                stored = os.pread(fd, 8, 0)
                count = [int.from_bytes(stored, "little") if len(stored) == 8 else self._make_room(self.n_bytes)]
                yield count
                os.pwrite(fd, count[0].to_bytes(8, "little"), 0)
            finally:
                os.close(fd)

    def _make_room(self, wanted: int) -> int:
        """Count what is there and evict idle files, the longest unused first, down to `wanted`; returns the count."""
        total, idle, now = 0, [], time.time()
        with open_folder(self.folder) as root:
            for name in array_folders(root):
                with suppress(OSError), open_folder(name, root) as folder, os.scandir(folder) as entries:
                    for entry in filter(is_shard, entries):
                        with suppress(FileNotFoundError):
                            facts = entry.stat(follow_symlinks=False)
                            total += (size := facts.st_blocks * 512)
                            if name not in self._own and facts.st_mtime < now - IDLE_S:
                                idle.append((facts.st_mtime, size, name, entry.name))
            for _, size, name, file in sorted(idle):
                if total <= wanted:
                    break
                with suppress(OSError), open_folder(name, root) as folder:
                    fd = open_file(folder, file, os.O_RDWR)
                    os.ftruncate(fd, 0)  # whoever has it open keeps no room occupied
                    os.close(fd)
                    os.unlink(file, dir_fd=folder)
                    total -= size
        return total


class CachedArray:
    """The shards of one array in a cache; a shard's file is at ``prefix``, its number, ``suffix``."""

    suffix: Final = shard_name(0).removeprefix("0")

    def __init__(self, cache: CacheDir, name: str) -> None:
        self.cache, self._name = cache, name
        self.prefix = f"{cache.folder / name}/"

    def open(self, shard: int) -> int | None:
        """Open a shard's file for reading; None if there is none."""
        try:
            with open_folder(self.cache.folder) as root, open_folder(self._name, root) as folder:
                return open_file(folder, shard_name(shard), os.O_RDONLY)
        except OSError:
            return None

    def make(self, shard: int, size: int, tail: NDArray[np.uint8]) -> bool:
        """Make a file for a shard of `size` bytes and write its last bytes, with their digest; False if there is no room."""
        try:
            with open_folder(self.cache.folder) as root, open_folder(self._name, root, make=True) as folder:
                fd = make_file(folder, shard_name(shard))
        except OSError as exc:
            return self.cache.failed(exc)
        try:
            os.ftruncate(fd, size + DIGEST_BYTES)
            digest = np.frombuffer(self._digest(shard, size, tail.tobytes()), np.uint8)
            return self.cache.write(fd, [np.concatenate([tail, digest])], [size - len(tail)])
        except OSError as exc:
            return self.cache.failed(exc)
        finally:
            os.close(fd)

    def write(self, shard: int, pieces: Sequence[NDArray[np.uint8]], starts: Sequence[int]) -> bool:
        """Write bytes of a shard at their position in its file, if there is room; False if the file is gone since `make`."""
        if self.cache.full:
            return True
        try:
            with open_folder(self.cache.folder) as root, open_folder(self._name, root) as folder:
                fd = open_file(folder, shard_name(shard), os.O_RDWR)
        except FileNotFoundError:  # thrown out
            return False
        except OSError as exc:
            if exc.errno not in STRANGE:  # somebody else's: `make` takes the name back
                self.cache.failed(exc)
            return True
        try:
            self.cache.write(fd, pieces, starts)
        except OSError as exc:
            self.cache.failed(exc)
        finally:
            os.close(fd)
        return True

    def read_end(self, fd: int, shard: int, n_bytes: int) -> tuple[NDArray[np.uint8], int] | None:
        """Read the last bytes of a shard, and its size, from its open file; None if they are not what `make` wrote."""
        size = os.fstat(fd).st_size - DIGEST_BYTES
        if size < n_bytes:
            return None
        try:
            found = os.pread(fd, n_bytes + DIGEST_BYTES, size - n_bytes)
        except OSError:  # a disk that fails
            return None
        tail = found[:n_bytes]
        return (np.frombuffer(tail, np.uint8), size) if found[n_bytes:] == self._digest(shard, size, tail) else None

    def _digest(self, shard: int, size: int, tail: bytes) -> bytes:
        return hashlib.sha256(f"{self._name}/{shard}/{size}/".encode() + tail).digest()

    def touch(self, shards: Sequence[int]) -> None:
        """Mark shards as used."""
        with suppress(OSError), open_folder(self.cache.folder) as root, open_folder(self._name, root) as folder:
            for shard in shards:
                with suppress(OSError):
                    os.utime(shard_name(shard), dir_fd=folder, follow_symlinks=False)

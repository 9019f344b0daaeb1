"""Files of a cache folder: only the cache's own files are opened, and never through a link. Imports no torch.

A folder belongs to a cache if it holds the marker, and gets one only while it is empty. Inside, only names that a cache gives
are looked at. Everything is opened below an open folder, without following links, and must be a regular file of one name: what
somebody put there instead (a link, a pipe, a second name of another file) is never read from, written to or emptied.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from robozarr.schemas.errors import StoreError
from robozarr.store.system import CLOEXEC, NO_LINKS, NONBLOCK

__all__ = [
    "COUNT",
    "MARKER",
    "STRANGE",
    "array_folders",
    "claim_folder",
    "is_shard",
    "make_file",
    "open_file",
    "open_folder",
    "shard_name",
]

MARKER: Final = ".robozarr-cache"
"""The file that marks a folder as a cache's own."""
MARKER_TEXT: Final = b"This folder is a cache of robozarr: its files may be removed at any time, by robozarr too.\n"
COUNT: Final = "count"
"""The file with the number of bytes in the folder; all processes update it."""

ARRAY: Final = re.compile(r"[A-Za-z0-9._-]{1,80}-[0-9a-f]{24}")
SHARD: Final = re.compile(r"(0|[1-9][0-9]*)\.shard")
STRANGE: Final = (errno.EINVAL, errno.ELOOP, errno.ENXIO)
"""Errors from opening a second name, a link or a pipe."""
_OPEN: Final = CLOEXEC | NO_LINKS | NONBLOCK  # the last: a pipe is not waited for
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | CLOEXEC


def claim_folder(folder: Path) -> None:
    """Make a folder, or use one that is empty or already a cache.

    Raises
    ------
    StoreError
        If it holds files of somebody else, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_folder(folder) as root:
            names = os.listdir(root)  # noqa: PTH208 - of a descriptor
            if MARKER not in names:
                if names:
                    raise StoreError(
                        f"{folder}: a cache_dir must be a separate folder; this one holds other files ({sorted(names)[0]}"
                        f"{', …' if len(names) > 1 else ''}) → name a new folder, such as {folder / 'robozarr-cache'}"
                    )
                os.close(make_file(root, MARKER, MARKER_TEXT))
            os.close(open_file(root, MARKER, os.O_RDONLY))
    except StoreError:
        raise
    except OSError as exc:
        raise StoreError(
            f"{folder}: a cache_dir must be writable; found {exc.strerror or exc} → name a folder on a local disk"
        ) from exc


@contextmanager
def open_folder(path: str | Path, below: int | None = None, *, make: bool = False) -> Iterator[int]:
    """Open a folder by its path, or by a name `below` another folder, where links are refused."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(path, dir_fd=below)
    fd = os.open(path, _FOLDER | (0 if below is None else NO_LINKS), dir_fd=below)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(folder: int, name: str, flags: int) -> int:
    """Open a regular file with no other name; OSError for anything else."""
    fd = os.open(name, flags | _OPEN, 0o666, dir_fd=folder)
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1:
        os.close(fd)
        raise OSError(errno.EINVAL, "not a file of this cache", name)
    return fd


def make_file(folder: int, name: str, data: bytes = b"") -> int:
    """Open a cache file for writing, new or existing; anything else in its place loses that name.

    `data` is what a new one begins with.
    """
    try:
        return open_file(folder, name, os.O_RDWR)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise
    except OSError as exc:
        if exc.errno not in STRANGE:
            raise
        os.unlink(name, dir_fd=folder)  # a link, a pipe, a second name: what it stands for is left alone
    try:
        fd = open_file(folder, name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except FileExistsError:  # another process was faster
        return open_file(folder, name, os.O_RDWR)
    if data:
        os.write(fd, data)
    return fd


def shard_name(shard: int) -> str:
    """The name of a shard's file in its array's folder."""
    return f"{shard}.shard"


def is_shard(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of an array's folder is a file made by a cache."""
    return SHARD.fullmatch(entry.name) is not None and entry.is_file(follow_symlinks=False)


def array_folders(root: int) -> list[str]:
    """Names of the folders made by a cache."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if ARRAY.fullmatch(e.name) and e.is_dir(follow_symlinks=False))

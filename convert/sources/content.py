"""Identify a source file by the digest of its content, whatever its name and place. Imports no h5py."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from robozarr.convert.sources.lerobot.data_set import beside, is_data_file
from robozarr.convert.sources.replay_buffer import files_of
from robozarr.schemas.digest import sampled_digest
from robozarr.store.system import CLOEXEC, NONBLOCK, pread

__all__ = ["digest_of_file", "digest_or_nothing"]

MOST_FILES: Final = 512
"""Most files of a source whose content is looked at."""


def digest_of_file(path: str | Path, linked: Sequence[str] = ()) -> str:
    """The sampled digest of a file's content (``schemas.digest``); it reads 4 MiB, however large the file.

    A file of a LeRobot data set says little without others: its videos, and what ``meta/`` says of its rows; and a ReplayBuffer
    in a folder is many files. Their digests count too, as do those of the `linked` files of an HDF5 file, in this order; of
    very many files those of some, and all names and sizes.

    Raises
    ------
    OSError
        If the file cannot be read, or is no regular file.
    """
    others, said = beside(path) if is_data_file(path) else (files_of(path), "")
    others = [*others, *map(Path, linked)]
    if not others and not said:
        return _digest(path)
    some = others[:: max(1, -(-len(others) // MOST_FILES))]
    names = [f"{each.relative_to(Path(path).parent)} {each.stat().st_size}\n" for each in files_of(path)]
    together = "".join([said, *names, *(_digest(each) for each in [path, *some])]).encode()
    return sampled_digest(len(together), lambda start, n: together[start : start + n])


def _digest(path: str | Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | NONBLOCK | CLOEXEC)  # a pipe would wait for its writer
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))

        def read(start: int, n: int) -> bytes:
            parts = []
            while n and (part := pread(descriptor, n, start)):
                parts.append(part)
                start, n = start + len(part), n - len(part)
            return b"".join(parts)

        return sampled_digest(status.st_size, read)
    finally:
        os.close(descriptor)


def digest_or_nothing(path: str | Path, linked: Sequence[str] = ()) -> str:
    """The digest of a file that may be damaged; "" if it cannot be read."""
    try:
        return digest_of_file(path, linked)
    except OSError:
        return ""

"""Stores in folders: whole files, written under a temporary name and renamed. Imports no obstore."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from robozarr.schemas.errors import StoreError
from robozarr.schemas.metadata import TEMPORARY
from robozarr.store.place import Buffer, Place
from robozarr.store.system import CLOEXEC, NO_LINKS, NONBLOCK, pread, writev

__all__ = ["FolderPlace", "make_folder"]

PARTS_PER_CALL: Final = 1024
"""Linux's IOV_MAX."""
DROPPED_BYTES: Final = 2**20
"""Smallest file that is dropped from the page cache."""
YOUNG_NS: Final = 3 * 10**9
"""A file that was changed so recently may change again and keep its time: some file systems count in steps of two seconds."""


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder of this machine, or of a mounted file system."""

    folder: Path

    @property
    def url(self) -> str:
        """The path as it was given."""
        return str(self.folder)

    def __str__(self) -> str:
        return self.url

    @property
    def patience_s(self) -> float:
        """None: a folder has no time limit."""
        return 0.0

    def at(self, path: str) -> str:
        """The file's path."""
        return str(self.folder / path)

    def below(self, path: str) -> FolderPlace:
        """A folder inside."""
        return FolderPlace(self.folder / path)

    def read(self, path: str, most: int | None = None) -> bytes:
        """A whole file."""
        with os.fdopen(self.open(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise OSError(f"{size} bytes, but such a file may have at most {most}")
            return file.read()

    def open(self, path: str) -> int:
        """Open a regular file for reading; OSError for anything else: links, FIFOs, devices."""
        inner = ""
        for part in path.split("/")[:-1]:  # folders that are links lead out of the store
            inner = f"{inner}/{part}"
            if os.path.islink(f"{self.folder}{inner}"):  # noqa: PTH114 (a path of pathlib's costs as much as the call)
                raise OSError(f"{self.folder}{inner} is a link, but the folders of a store must not be links")
        if not NO_LINKS and os.path.islink(f"{self.folder}/{path}"):  # noqa: PTH114
            raise OSError("a link, but the files of a store must not be links")
        try:
            descriptor = os.open(f"{self.folder}/{path}", os.O_RDONLY | CLOEXEC | NO_LINKS | NONBLOCK)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise OSError("a link, but the files of a store must not be links") from exc
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("no regular file")
        return descriptor

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[Buffer]:
        """Read byte ranges of a file; OSError if the file ends before they do."""
        with os.fdopen(self.open(path), "rb") as file:
            found = [pread(file.fileno(), end - start, start) for start, end in zip(starts, ends, strict=True)]
        for start, end, part in zip(starts, ends, found, strict=True):
            if len(part) != end - start:
                raise OSError(f"{self.at(path)}: ends before byte {end}")
        return found

    def read_end(self, path: str, n_bytes: int) -> tuple[Buffer, int]:
        """The last bytes of a file, all where it has fewer, and its size; raises as `read` does."""
        with os.fdopen(self.open(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = pread(file.fileno(), n_bytes, max(0, size - n_bytes))
        if len(found) != min(n_bytes, size):
            raise OSError(f"{self.at(path)}: became shorter while it was read")
        return found, size

    def exists(self, path: str) -> bool:
        """Whether a file exists."""
        return (self.folder / path).exists()

    def size(self, path: str) -> int:
        """Bytes of a file; OSError if there is none, or what is no regular file."""
        found = (self.folder / path).lstat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("no regular file")
        return found.st_size

    def facts(self, path: str) -> tuple[int, ...] | None:
        """Facts that would differ for another file of this name, or after a write to it; None where that is not certain.

        The file is opened: a file system of the network looks at its server for that.
        """
        descriptor = self.open(path)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        changed_ns = max(found.st_mtime_ns, found.st_ctime_ns)
        if time.time_ns() - changed_ns < YOUNG_NS:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def names(self, limit: int | None = None) -> list[str]:
        """Names of all files below, sorted."""
        found = []
        for top, _, files in os.walk(self.folder):
            inner = top.removeprefix(str(self.folder)).lstrip("/")
            found += [f"{inner}/{file}" if inner else file for file in files]
        return sorted(found)[:limit]

    def write(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Write to a unique temporary name, fsync, rename."""
        file = self._inside(path)
        make_folder(file.parent)
        temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}{TEMPORARY}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOEXEC, 0o666)
            try:
                _write_all(descriptor, parts)
                os.fsync(descriptor)
                _drop_from_cache(descriptor, parts)
            finally:
                os.close(descriptor)
            if check is not None:
                check()
            temporary.replace(file)
        except StoreError:  # what `check` raises
            temporary.unlink(missing_ok=True)
            raise
        except OSError as exc:
            temporary.unlink(missing_ok=True)
            raise _not_changed(file, "written", exc) from exc

    replace = write  # a process that was killed renames nothing any more

    def move(self, path: str, to: Place) -> None:
        """Rename."""
        assert isinstance(to, FolderPlace)
        source, target = self._inside(path), to._inside(path)
        make_folder(target.parent)
        try:
            source.replace(target)
        except OSError as exc:
            raise _not_changed(target, "written", exc) from exc

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and folders that become empty."""
        folders = set()
        for path in paths:
            file = self._inside(path)
            try:
                file.unlink(missing_ok=True)
            except OSError as exc:
                raise _not_changed(file, "removed", exc) from exc
            folders |= set(Path(path).parents) - {Path()}
        for folder in sorted(folders, reverse=True):  # those inside come before those around them
            with suppress(OSError):  # not empty
                (self.folder / folder).rmdir()

    def empty(self, folders: Sequence[str]) -> None:
        """Remove folders with everything in them; of a link, only the link."""
        for folder in folders:
            path = self._inside(folder)
            try:
                if path.is_symlink():
                    path.unlink()
                elif path.is_dir():  # rmtree waits for ever for somebody at the other end of a FIFO
                    shutil.rmtree(path)
                elif path.exists():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            except OSError as exc:
                raise _not_changed(path, "emptied", exc) from exc

    def _inside(self, path: str) -> Path:
        """Path of a file to write or remove; StoreError if a folder on the way is a link, which may lead outside."""
        where = self.folder
        for part in path.split("/")[:-1]:
            where /= part
            if where.is_symlink():
                raise StoreError(
                    f"{where} is a link, and nothing is written or removed through links inside a store; replace it by what it "
                    "leads to, or remove it"
                )
        return self.folder / path


def _not_changed(path: Path, what: str, exc: OSError) -> StoreError:
    """The error for a change that the system refuses."""
    advice = "make room or change the rights, then convert again"
    if isinstance(exc, IsADirectoryError | NotADirectoryError):
        advice = "a file of the store must be there; move away what is"
    return StoreError(f"{path}: cannot be {what}: {exc.strerror or exc}; {advice}")


def make_folder(path: Path) -> None:
    """Make a folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(
            f"{path}: the folder cannot be made: {exc.strerror or exc}; choose another --store or change the rights"
        ) from exc


def _drop_from_cache(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Drop the pages of a large file from the page cache once it is on the disk.

    Else a store pushes everything out of memory, its own sources first, and each of its pages is a fresh one: on a virtual
    machine 4.95 ms of CPU a MB of source instead of 3.87. What verifies the store afterwards sees the disk, not a copy.
    """
    if hasattr(os, "posix_fadvise") and sum(len(part) for part in parts) >= DROPPED_BYTES:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _write_all(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Write parts one after the other: joining them first would copy every byte again."""
    views = [memoryview(part) for part in parts]
    for start in range(0, len(views), PARTS_PER_CALL):
        group = views[start : start + PARTS_PER_CALL]
        while group:
            n = writev(descriptor, group)
            while group and n >= len(group[0]):
                n -= len(group.pop(0))
            if group:
                group[0] = group[0][n:]

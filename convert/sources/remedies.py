"""Explain why a file cannot be opened, and what helps, from HDF5's message, its lock, and the file's first bytes."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import h5py

from robozarr.convert.records import Fault
from robozarr.store.system import fcntl

__all__ = ["LEAVE_OUT", "is_apple_double", "open_hdf5", "why_not_open"]

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
NO_FILE: Final = "a folder, FIFO, socket or device"
APPLE_DOUBLE: Final = b"\x00\x05\x16\x07"
"""First bytes of the files that macOS writes beside others on foreign disks, named ``._`` and the other's name."""
HELD: Final = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
"""Error numbers of a lock that another program holds; any other refusal means that the file system has no locks."""
AGAIN: Final = "copy or download it again"
LEAVE_OUT: Final = "repair the file, or leave the demo out with --on-error skip"
WAIT: Final = "wait until that program has closed it, then run the same command again"
NOT_HDF5: Final = "the file is not HDF5"
CUT_OFF: Final = "the file is cut off"
CUT_REMEDY: Final = f"{AGAIN}, or wait if it is still being written"
SUPERBLOCK_BYTES: Final = 48
"""Fewest bytes that HDF5 needs at the beginning of a file."""
LFS: Final = "git lfs pull in its repository, then run the same command again"

# what a file begins with · what it is · what helps
LOOKS: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"version https://git-lfs", "a Git LFS pointer: text in the place of the file", LFS),
    (b"version https://hawser", "a Git LFS pointer: text in the place of the file", LFS),
    (b"/annex/objects/", "a git-annex pointer: text in the place of the file", "git annex get it, then run again"),
    (APPLE_DOUBLE, "a macOS '._' file, which holds no data", "leave it out"),
    (b"PK\x03\x04", "a zip archive", "unpack it"),
    (b"\x1f\x8b", "gzip-packed", "unpack it with gunzip or tar"),
    (b"\x28\xb5\x2f\xfd", "zstd-packed", "unpack it with zstd -d"),
    (b"\xfd7zXZ", "xz-packed", "unpack it with xz -d"),
    (b"\x0e\x03\x13\x01", "an HDF4 file", "convert it by h4toh5"),
    (b"CDF", "a NetCDF 3 file", "give LIBERO or robomimic demonstrations"),
)  # fmt: skip


def open_hdf5(path: str) -> Any:
    """Open a file for reading with h5py; without a lock if the file system has none.

    Raises OSError as h5py does, and for what is no file: a FIFO would wait for its writer; ``why_not_open`` explains it.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - of a text
        raise OSError(errno.EINVAL, NO_FILE)
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as exc:
        number = lock_error(exc)
        if number is None or number in HELD:
            raise
        return h5py.File(path, "r", locking=False)


def lock_error(exc: OSError) -> int | None:
    """The error number of a refused lock; None if something else went wrong."""
    found = re.search(r"unable to lock file, errno = (\d+)", str(exc))
    return int(found.group(1)) if found else None


def is_apple_double(path: Path) -> bool:
    """Whether a file is one of macOS's ``._`` files."""
    if not path.name.startswith("._") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(4) == APPLE_DOUBLE
    except OSError:
        return False


def why_not_open(path: str, exc: OSError) -> Fault:
    """Why HDF5 did not open a file."""
    said = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
    if (number := lock_error(exc)) is not None:
        if number in HELD:
            return Fault(rule="another program has the file open for writing", value="it holds HDF5's lock", remedy=WAIT)
        remedy = "export HDF5_USE_FILE_LOCKING=FALSE, then run the same command again"
        return Fault(rule="the file system has no locks", value=os.strerror(number), remedy=remedy)
    if exc.strerror == NO_FILE:
        return Fault(rule="the file cannot be read", value=NO_FILE, remedy="leave it out")
    try:
        with Path(path).open("rb") as file:
            head, size = file.read(1024), os.fstat(file.fileno()).st_size
            has_signature = _has_signature(file, size)
            held = has_signature and _is_locked(file.fileno())
    except PermissionError as denied:
        return Fault(rule="the file cannot be read", value=os.strerror(denied.errno or 13), remedy="change its rights")
    except OSError as failed:
        return Fault(rule="the file cannot be read", value=failed.strerror or str(failed), remedy="check path and rights")
    if size and (SIGNATURE.startswith(head) or (has_signature and size < SUPERBLOCK_BYTES)):
        return Fault(rule=CUT_OFF, value=f"{size} bytes: the beginning of an HDF5 file", remedy=CUT_REMEDY)
    if not has_signature:
        return _not_hdf5(head, size)
    if "already open for" in said or "consistency flags" in said:
        rule = "the file is marked as open for writing"
        if held:
            return Fault(rule=rule, value="a program has it locked", remedy=WAIT)
        value = "no lock on it: the program that wrote it was probably killed, or writes in SWMR mode"
        return Fault(
            rule=rule, value=value, remedy=f"if nothing writes to it any more: h5clear -s {path} (of hdf5-tools); else wait"
        )
    if cut := re.search(r"eof = (\d+).*stored_eof = (\d+)", said):
        value = f"{cut.group(1)} bytes of {cut.group(2)}"
        return Fault(rule=CUT_OFF, value=value, remedy=CUT_REMEDY)
    return Fault(rule="the file is damaged HDF5", value=said, remedy=AGAIN)


def _has_signature(file: Any, size: int) -> bool:
    """Whether HDF5's signature is at byte 0, or after a user block of 512, 1024, 2048, … bytes."""
    at = 0
    while at < size:
        file.seek(at)
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return True
        at = max(512, 2 * at)
    return False


def _is_locked(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        return exc.errno in HELD
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _not_hdf5(head: bytes, size: int) -> Fault:
    """What a file without HDF5's signature is, judged by its first bytes."""
    if not size:
        return Fault(rule="the file is empty", value="0 bytes", remedy=AGAIN)
    if not head.strip(b"\0"):
        value = f"{size} bytes: a download or a disk that failed"
        return Fault(rule="the file begins with zeros", value=value, remedy=AGAIN)
    for begin, value, remedy in LOOKS:
        if head.startswith(begin):
            return Fault(rule=NOT_HDF5, value=value, remedy=remedy)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<script")) or b"<html" in text:
        remedy = "open the address in a browser, sign in or agree there if asked, and download the file itself"
        return Fault(rule=NOT_HDF5, value="a web page", remedy=remedy)
    if text.startswith((b"<?xml", b"<error", b'{"error', b'{"message', b"{")):
        value = f"a server's answer: {_words(head)}"
        return Fault(rule=NOT_HDF5, value=value, remedy="check address and rights, and download it again")
    if b"\0" not in head and head.isascii():
        return Fault(rule=NOT_HDF5, value=f"text: {_words(head)}", remedy=AGAIN)
    return Fault(rule=NOT_HDF5, value=f"{size} bytes that begin with {head[:8].hex(' ')}", remedy=AGAIN)


def _words(head: bytes) -> str:
    """The beginning of a text, as one line that a terminal can show."""
    words = " ".join(head[:200].decode("utf-8", "replace").split())
    return "".join(character if character.isprintable() else "?" for character in words)[:80]

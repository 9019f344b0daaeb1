"""Lock a store in a folder, so that one converter writes at a time. Independent of the rest of a conversion.

The lock is a file in the journal's folder. The kernel holds it (flock) for as long as the process lives, so a killed converter
leaves no lock. File systems that are shared between machines do not always pass flock on; so the file says who holds it, and
the holder touches it every `HEARTBEAT_S`. A lock of another machine is stale once it was not touched for `STALE_S`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from robozarr.schemas.errors import StoreError
from robozarr.store.system import CLOEXEC, NO_LINKS, fcntl

__all__ = ["HEARTBEAT_S", "STALE_S", "hold_lock", "lost", "refused"]

HEARTBEAT_S: Final = 30.0
STALE_S: Final = 300.0
"""Age at which a lock is stale: ten missed updates. A slow machine keeps its lock; a dead one delays others by some minutes."""


@contextlib.contextmanager
def hold_lock(path: Path, store: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock file `path` of `store`; its folder is made, and removed afterwards if nothing else is in it.

    Yields what raises StoreError once the lock is another's: where the kernel holds none, a machine that slept can lose it.

    Raises
    ------
    StoreError
        If another converter holds it; the text names its machine and process.
    """
    if fcntl is None:
        raise StoreError(f"{store}: converting needs flock, which this system lacks → use Linux, WSL or the container")
    new = [folder for folder in (path.parent, store) if not folder.exists()]
    try:
        descriptor, mine = _acquire(path, store)
    except BaseException:
        for folder in new:
            _remove_if_empty(folder)
        raise
    stop = threading.Event()
    thread = threading.Thread(target=_touch, args=(descriptor, mine, stop), daemon=True, name="robozarr-lock")
    thread.start()

    def check() -> None:
        if os.pread(descriptor, 4096, 0) != mine:
            raise lost(str(store))

    try:
        yield check
    finally:
        stop.set()
        thread.join()
        if os.pread(descriptor, 4096, 0) == mine and _is_same_file(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)
        for folder in {path.parent, *new}:
            _remove_if_empty(folder)
        for folder in new:
            _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not empty, or gone already
        folder.rmdir()


def _touch(descriptor: int, mine: bytes, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S) and os.pread(descriptor, 4096, 0) == mine:
        os.utime(descriptor)


def _acquire(path: Path, store: Path) -> tuple[int, bytes]:
    """The open lock file, and the text in it that marks it as ours."""
    for _ in range(100):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | CLOEXEC | NO_LINKS, 0o644)
        except FileNotFoundError:  # its last holder removed the folder in between
            continue
        except OSError as exc:
            raise _not_written(path, exc) from exc
        locked = False
        try:
            locked = _flock(descriptor)
            holder = _read(descriptor)
            if not locked or (holder and _lives_elsewhere(descriptor, holder)):
                raise refused(str(store), str(path), holder)
            if _is_same_file(descriptor, path):
                if os.fstat(descriptor).st_nlink == 1:
                    return descriptor, _write(descriptor)
                path.unlink()  # by another name it is somebody's, such as that of a copy made of hard links
        except OSError as exc:  # a full disk
            if locked:
                path.unlink(missing_ok=True)
            os.close(descriptor)
            raise _not_written(path, exc) from exc
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it in between
    raise StoreError(f"{path}: the lock keeps changing; another converter is working on {store}")


def _not_written(path: Path, exc: OSError) -> StoreError:
    reason = exc.strerror or exc
    return StoreError(f"{path}: cannot be written: {reason}; make room, choose another --store, or change the rights")


def _flock(descriptor: int) -> bool:
    """Whether the kernel gave the lock; also True if the file system has no locks, so that only the file's text counts."""
    assert fcntl is not None  # hold_lock has looked
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if exc.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return True


def _is_same_file(descriptor: int, path: Path) -> bool:
    mine = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _read(descriptor: int) -> dict[str, Any]:
    data = os.pread(descriptor, 4096, 0)
    try:
        holder = json.loads(data)
    except (ValueError, RecursionError):  # empty, or torn by a crash
        return {}
    return holder if isinstance(holder, dict) else {}


def _lives_elsewhere(descriptor: int, holder: dict[str, Any]) -> bool:
    """Whether another machine seems to hold the lock: it updated the file a short while ago."""
    return holder.get("host") != socket.gethostname() and time.time() - os.fstat(descriptor).st_mtime < STALE_S


def _write(descriptor: int) -> bytes:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "lock": uuid.uuid4().hex}
    text = json.dumps(holder).encode()
    os.ftruncate(descriptor, 0)
    written = 0
    while written < len(text):  # a limit on the size of files cuts a write short, and refuses the next
        written += os.pwrite(descriptor, text[written:], written)
    return text


def lost(store: str) -> StoreError:
    """The error for a converter whose lock was taken by another."""
    return StoreError(f"{store}: another converter has taken over this store; this process writes nothing more to it")


def refused(store: str, path: str, holder: dict[str, Any]) -> StoreError:
    """The error for a second converter."""
    who = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}" if holder else "it has just begun"
    return StoreError(
        f"{store}: another converter is working on this store ({who}); wait for it or stop it. If that machine is gone, its "
        f"lock ends {STALE_S / 60:.0f} minutes after its last update ({path})"
    )

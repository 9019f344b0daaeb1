"""Lock a store in a bucket, so that one converter writes at a time. Independent of the rest of a conversion.

The lock is an object that only one can create (a conditional PUT). It says who holds it; the holder writes it anew every
`HEARTBEAT_S`, on the condition that it is still its own. It is stale once it was not written for `STALE_S`, by the service's
own clock; or at once if its holder was a process of this machine that is no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from robozarr.convert.resuming.fence import clock_s
from robozarr.convert.resuming.lock import HEARTBEAT_S, STALE_S, lost, refused
from robozarr.schemas.errors import BucketError, StoreError
from robozarr.store.bucket import BucketPlace, Tag, on_the_way_out
from robozarr.store.place import Place

__all__ = ["hold_bucket_lock"]


@contextlib.contextmanager
def hold_bucket_lock(store: Place, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock object `name` of `store`; yields a function that raises StoreError once another converter has the lock.

    Raises
    ------
    StoreError
        If another converter holds it; the text names its machine and process.
    """
    assert isinstance(store, BucketPlace)
    lock = _BucketLock(store, name)
    lock.acquire()
    thread = threading.Thread(target=lock.keep, daemon=True, name="robozarr-lock")
    thread.start()
    try:
        yield lock.check
    except BaseException:
        lock.stop.set()
        on_the_way_out(lock.release)
        raise
    else:
        lock.stop.set()
        thread.join()
        lock.release()


class _BucketLock:
    def __init__(self, store: BucketPlace, name: str) -> None:
        self._store, self._name = store, name
        self._tag: Tag | None = None
        self._since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self.stop = threading.Event()
        self._beat = threading.Lock()
        self._beaten_s = clock_s()
        self.lost = False

    def acquire(self) -> None:
        for _ in range(10):
            if self._put(None):
                return
            try:
                found, tag = self._store.read_tagged(self._name)
            except FileNotFoundError:  # its holder ended in between
                continue
            holder = _parsed(found)
            if not _is_dead(holder):
                age_s = self._age_s()
                if age_s is None:  # the lock, or what its age was to be measured by, is gone: look again
                    continue
                if age_s < STALE_S:
                    raise refused(self._store.url, self._store.at(self._name), holder)
            if self._put(tag):
                return
        raise StoreError(f"{self._store}: the lock keeps changing; another converter is working on this store")

    def _put(self, tag: Tag | None) -> bool:
        """Write the lock if its tag is still `tag`, or if there is none (tag None); returns whether the lock is ours now."""
        text, began = self._text(), clock_s()
        new = self._store.put_if(self._name, text, tag)
        if new is None:
            with contextlib.suppress(FileNotFoundError):
                found, there = self._store.read_tagged(self._name)
                new = there if found == text else None  # an answer was lost, and what was asked again met what it had written
        if new is not None:
            self._tag, self._beaten_s = new, began
        return new is not None

    def keep(self) -> None:
        """Renew the lock until told to stop, or until another converter has it."""
        while not self.stop.wait(HEARTBEAT_S) and not self.lost:
            with contextlib.suppress(OSError), self._beat:  # a network that is gone for a while; the next beat comes soon
                self.lost = not self._put(self._tag)

    def check(self) -> None:
        """Raise StoreError if this converter slept or was cut off for so long that another may have taken the lock.

        A beat that is overdue is made up for first: whoever slept finds out before it writes, not after.
        """
        if not self.lost and clock_s() - self._beaten_s > HEARTBEAT_S:
            with self._beat:
                if clock_s() - self._beaten_s > HEARTBEAT_S:
                    try:
                        self.lost = not self._put(self._tag)
                    except BucketError:
                        if clock_s() - self._beaten_s > STALE_S / 2:  # it may be another's, and nobody can say
                            raise
        if self.lost:
            raise lost(self._store.url)

    def release(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._store.read_tagged(self._name)[1] == self._tag:
                self._store.remove([self._name])

    def _text(self) -> bytes:
        identity = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since}
        return json.dumps(
            {**identity, "processes": _processes(), "started": _started(os.getpid()), "beat": uuid.uuid4().hex}
        ).encode()

    def _age_s(self) -> float | None:
        """Seconds since the lock was written, by the service's clock; None if that is unknown now.

        What is written to see the clock may be removed by the lock's holder, who cleans its journal: that says nothing of the
        lock.
        """
        probe = f"{self._name}.{uuid.uuid4().hex}"
        self._store.write(probe, [b""])
        try:
            now, then = self._store.written_at(probe), self._store.written_at(self._name)
        except FileNotFoundError:
            return None
        finally:
            self._store.remove([probe])
        return (now - then).total_seconds()


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _processes() -> str:
    """The namespace of process numbers here: one boot of a machine, and one container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}" if boot.exists() else ""


def _started(pid: int) -> str:
    """Start time of a process in the kernel's ticks; "" if it does not exist, or has ended and was not waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X", "x") else fields[19]
    except (OSError, IndexError):
        return ""


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the lock's holder was a process of this machine that has ended."""
    mine = holder.get("processes") == _processes() != ""
    return mine and _started(holder.get("pid", 0)) != holder.get("started")

"""Record finished partitions: lines of a growing file, or in a bucket objects of some lines each. Imports no Dask."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Final, Protocol

from robozarr.convert.records import FinishedPartition
from robozarr.schemas.errors import StoreError
from robozarr.store.bucket import on_the_way_out
from robozarr.store.concurrent import run_concurrently
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place

__all__ = ["FinishedFile", "FinishedObjects", "FinishedRecord"]

FILE: Final = "done.jsonl"
SHARE_OF_TIME: Final = 0.01
"""Longest pause between two objects, as a share of the run's time: a kill loses that much of the work."""
LEAST_INTERVAL_S: Final = 2.0


class FinishedRecord(Protocol):
    """The journal's record of finished partitions."""

    def read(self) -> Iterator[FinishedPartition]:
        """Every recorded partition; a line that a killed writer left incomplete is skipped."""
        ...

    def add(self, finished: FinishedPartition) -> None:
        """Record one partition."""
        ...

    def close(self) -> None:
        """Write what is still waiting."""
        ...

    def forget(self) -> None:
        """Discard what is waiting, before the journal is removed."""
        ...


def _parsed(lines: Sequence[bytes]) -> Iterator[FinishedPartition]:
    for line in lines:
        try:
            finished = FinishedPartition(**json.loads(line))
            hash((finished.path, finished.shard))
            yield finished
        except (ValueError, TypeError, RecursionError):  # the last line of a writer that was killed; it is done again
            continue


class FinishedFile:
    """The record as a file with one line per partition."""

    def __init__(self, journal: FolderPlace) -> None:
        self._journal = journal
        self._path = journal.folder / FILE
        self._file: int | None = None

    def read(self) -> Iterator[FinishedPartition]:
        """Every complete line."""
        try:
            return _parsed(self._journal.read(FILE).splitlines())
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
        except OSError as exc:
            raise StoreError(f"{self._path}: cannot be read: {exc.strerror or exc}; remove it, then convert again") from exc

    def add(self, finished: FinishedPartition) -> None:
        """Add a line."""
        try:
            if self._file is None:
                self._file = self._open()
            os.write(self._file, json.dumps(asdict(finished)).encode() + b"\n")
        except OSError as exc:
            reason = exc.strerror or exc
            raise StoreError(f"{self._path.parent}: cannot be written: {reason}; make room, then convert again") from exc

    def _open(self) -> int:
        """Open the file to add to; a copy where it has another name too, so that nothing else grows with it."""
        there = b""
        if self._path.exists() and self._path.stat().st_nlink > 1:
            there = self._journal.read(FILE)
            self._path.unlink()
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        os.write(file, there + b"\n")  # what a killed writer left of a line ends here
        return file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def forget(self) -> None:
        """Remove the file."""
        self.close()
        self._journal.remove([FILE])


class FinishedObjects:
    """The record as objects below a prefix, each with the lines of some partitions, because an object cannot grow."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._waiting: list[FinishedPartition] = []
        self._began = self._wrote = time.monotonic()

    def read(self) -> Iterator[FinishedPartition]:
        """Every line of every object."""
        for data in run_concurrently(self._place.read, self._place.names()):
            yield from _parsed(data.splitlines())

    def add(self, finished: FinishedPartition) -> None:
        """Record a partition in the next object."""
        self._waiting.append(finished)
        now = time.monotonic()
        if now - self._wrote >= max(LEAST_INTERVAL_S, SHARE_OF_TIME * (now - self._began)):
            self._flush()

    def close(self) -> None:
        """Write what is waiting as an object, if possible; after a conversion's end nothing is waiting."""
        if self._waiting:
            on_the_way_out(self._flush_if_allowed)

    def _flush_if_allowed(self) -> None:
        with suppress(StoreError):  # the store is another converter's meanwhile: it counts these anew
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            lines = [json.dumps(asdict(finished)).encode() + b"\n" for finished in self._waiting]
            self._place.write(f"{time.time_ns():020d}.jsonl", lines)  # one writer: it holds the lock
        self._waiting, self._wrote = [], time.monotonic()

    def forget(self) -> None:
        """Discard what is waiting."""
        self._waiting = []

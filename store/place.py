"""The interface of a place: a folder, or a prefix of a bucket, that holds a store. Imports nothing of ours.

Whoever reads or writes a store asks its place, and need not know which it is. Places are small values: equal by value,
they cross processes by pickle, without credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Buffer", "Place"]

Buffer = Any  # bytes, or an array of them; what both have in common has no name in Python 3.11


class Place(Protocol):
    """A place that holds the files of a store; paths are relative to it, with ``/``."""

    @property
    def url(self) -> str:
        """Name for messages, which also opens the place again: the path as it was given, or the URL."""
        ...

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a bucket."""
        ...

    @property
    def patience_s(self) -> float:
        """Seconds allowed for a file beyond the time for its bytes."""
        ...

    def at(self, path: str) -> str:
        """Name of a file for messages."""
        ...

    def below(self, path: str) -> Place:
        """The place of a folder inside."""
        ...

    def read(self, path: str, most: int | None = None) -> bytes:
        """Read a whole file. FileNotFoundError if there is none; any other failure is an OSError, for a bucket a BucketError.

        So is a file of more than `most` bytes, and in a folder what is no regular file, or lies behind a link.
        """
        ...

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[Buffer]:
        """Read byte ranges [start, end) of one file, none empty, neighbours together; raises as `read` does."""
        ...

    def exists(self, path: str) -> bool:
        """Whether a file exists."""
        ...

    def names(self, limit: int | None = None) -> list[str]:
        """Names of all files below, sorted, or the first ones found; one listing in a bucket."""
        ...

    def write(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Write `parts` one after the other to `path`, whole or not at all, and durably; StoreError if that is not possible.

        `check` is called last, before the file appears or the object is sent: it raises if this process may not write any more.
        """
        ...

    def replace(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Like `write`, over what is there now; in a bucket, refused if somebody else writes the file meanwhile.

        So a request that reaches the service late, when whoever sent it was killed and others went on, changes nothing.
        """
        ...

    def move(self, path: str, to: Place) -> None:
        """Move a file to the same path of another place of the same kind; may be repeated after a kill."""
        ...

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; missing ones are not an error."""
        ...

    def empty(self, folders: Sequence[str]) -> None:
        """Remove folders with everything in them."""
        ...

"""Stop workers that no converter waits for any longer: a token in the journal, checked before every file and PUT.

A worker that was cut off from its scheduler, or a converter that slept, goes on with what it had been given. The token is the
run's own: the next holder of the lock takes it away before it writes anything. Imports nothing of a conversion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from robozarr.schemas.errors import StoreError
from robozarr.store.place import Buffer, Place

__all__ = ["FENCE", "CheckedPlace", "Fence"]

FENCE: Final = "fence"
"""Name of the token in the journal's folder."""
LOOK_AGAIN_S: Final = 1.0
"""How long one check stays valid in a bucket, so that a hundred small objects need few checks."""
_looked: dict[tuple[Place, str], float] = {}


def clock_s() -> float:
    """A clock that also counts the time while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write: a small value that is sent to workers with their tasks."""

    place: Place
    """The journal's folder."""
    plan: str
    """The token of one run with one plan."""

    def check(self) -> None:
        """Raise StoreError if the store is finished, belongs to another run, or now has another plan."""
        if self.place.folder is None and clock_s() - _looked.get((self.place, self.plan), float("-inf")) < LOOK_AGAIN_S:
            return
        began = clock_s()
        try:
            there = self.place.read(FENCE).decode("ascii", "replace")
        except (FileNotFoundError, NotADirectoryError):
            there = ""
        if there != self.plan:
            raise StoreError(f"{self.place}: the conversion that this worker belonged to has ended, so it writes no more")
        _looked.clear()
        _looked[self.place, self.plan] = began


@dataclass(frozen=True, slots=True)
class CheckedPlace:
    """A place that calls `check` before every change; a converter writes its store and journal through it."""

    place: Place
    check: Callable[[], None]
    """Raises StoreError if this process must not write any longer."""

    def __str__(self) -> str:
        return self.url

    @property
    def url(self) -> str:
        """URL of the place."""
        return self.place.url

    @property
    def folder(self) -> Path | None:
        """Folder of the place."""
        return self.place.folder

    @property
    def patience_s(self) -> float:
        """Patience of the place."""
        return self.place.patience_s

    def at(self, path: str) -> str:
        """Location of a file, as messages name it."""
        return self.place.at(path)

    def below(self, path: str) -> CheckedPlace:
        """A folder inside, with the same check."""
        return CheckedPlace(self.place.below(path), self.check)

    def read(self, path: str, most: int | None = None) -> bytes:
        """Read a file."""
        return self.place.read(path, most)

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> Sequence[Buffer]:
        """Read ranges of a file."""
        return self.place.read_ranges(path, starts, ends)

    def exists(self, path: str) -> bool:
        """Whether a file exists."""
        return self.place.exists(path)

    def names(self, limit: int | None = None) -> list[str]:
        """Names of the files below a path."""
        return self.place.names(limit)

    def write(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Write a file, after the check."""
        self.place.write(path, parts, self.check)

    def replace(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Write over what is there now, after the check."""
        self.place.replace(path, parts, self.check)

    def move(self, path: str, to: Place) -> None:
        """Move a file, after the check."""
        self.check()
        self.place.move(path, to.place if isinstance(to, CheckedPlace) else to)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, after the check."""
        gone = list(paths)
        if gone:
            self.check()
            self.place.remove(gone)

    def empty(self, folders: Sequence[str]) -> None:
        """Remove folders with their content, after the check."""
        self.check()
        self.place.empty(folders)

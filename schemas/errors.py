"""The exceptions that robozarr raises; imports nothing.

RoboZarrError
├── SourceError            an HDF5 source breaks a rule of ``schemas/source.py``
├── PlanError              what was asked for does not fit the sources
├── StoreError             a store is missing, exists already, or is not what FORMAT.md says
│   ├── IncompleteStoreError   its conversion has not ended
│   ├── CorruptChunkError      bytes on disk do not decode to what was written
│   ├── StoreChangedError      replaced, appended to or removed since it was opened
│   ├── BucketError            a bucket cannot be reached, or refuses; an OSError too
│   └── FormatVersionError     written by another version of the format
├── WorkerError            processes that should do the work cannot be had, or died
└── WindowError            a window specification does not fit the store

Every text says where (file, demo, key or array, shard, chunk) · the rule · the value found · what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "BucketError",
    "CorruptChunkError",
    "FormatVersionError",
    "IncompleteStoreError",
    "PlanError",
    "Problem",
    "RoboZarrError",
    "SourceError",
    "StoreChangedError",
    "StoreError",
    "WindowError",
    "WorkerError",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One broken rule in a source: where it is, what was found, what to do.

    >>> print(Problem(file="a.hdf5", demo="demo_3", key="actions", rule="values are finite",
    ...               value="nan at step 7", remedy="leave the demo out of the file"))
    a.hdf5 · demo_3 · actions: values are finite; found nan at step 7 → leave the demo out of the file
    """

    file: str
    """Path of the source file as it was given."""
    rule: str
    """The broken rule, or what is wrong."""
    value: str
    """What was found instead."""
    remedy: str
    """What the user can do."""
    demo: str = ""
    """Name of the demo inside the file; empty if the problem concerns the file."""
    key: str = ""
    """Path of the dataset or attribute inside the demo; empty if the problem concerns the demo."""

    def __str__(self) -> str:
        where = " · ".join(part for part in (self.file, self.demo, self.key) if part)
        return f"{where}: {self.rule}; found {self.value} → {self.remedy}"


class RoboZarrError(Exception):
    """Base of every error that robozarr raises on purpose."""


class SourceError(RoboZarrError):
    """Sources break rules; ``problems`` lists all of them.

    >>> SourceError("no source file found in data/").problems
    ()
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, tuple(problems))  # all arguments in args: the error crosses processes by pickle
        self.message = message
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {problem}" for problem in self.problems)])


class PlanError(RoboZarrError):
    """The request does not fit the sources, such as keys that none of them holds."""


class StoreError(RoboZarrError):
    """A store is missing, already exists, or does not follow FORMAT.md."""


class IncompleteStoreError(StoreError):
    """The store's conversion has not finished, so nothing may be read from it."""


class CorruptChunkError(StoreError):
    """Bytes on disk do not decode to what was written; the text names array, shard and chunk.

    ``rule`` is the number of the rule of FORMAT.md that is broken.
    """

    def __init__(self, message: str, rule: str = "") -> None:
        super().__init__(message, rule)
        self.message, self.rule = message, rule

    def __str__(self) -> str:
        return self.message


class StoreChangedError(StoreError):
    """The store that was opened was replaced, appended to, or removed since. Open it again."""


class BucketError(StoreError, OSError):
    """A bucket cannot be reached, or refuses, so its content is unknown. The text names the object and what to do."""

    short = False
    """Whether the bucket answered, but the object ends before the requested bytes."""


class FormatVersionError(StoreError):
    """The store was written by another version of the format."""


class WorkerError(RoboZarrError):
    """Worker processes do not start, cannot be reached, have another version, or died during their work."""


class WindowError(RoboZarrError):
    """A window specification, an order or a filter does not fit the store."""

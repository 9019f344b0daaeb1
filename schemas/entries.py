"""Entries of two lists in the root attributes: the sources, and what of them is not stored. Data only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NotStored", "SourceEntry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceEntry:
    """One HDF5 file that a store was made from."""

    name: str
    """Shortest unique end of its path, with at least folder and file name."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Modification time, ns since the epoch."""
    n_demos: int
    """Demos taken from it."""
    digest: str = ""
    """Digest of its content (FORMAT.md); "" in a store of version 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStored:
    """Data in a source that the store leaves out."""

    source: str
    """Name of the source."""
    path: str
    """Path inside a demo, or inside the file if `n_demos` is 0."""
    n_demos: int
    """Number of its demos that hold it."""
    reason: str
    """Why it is not stored."""

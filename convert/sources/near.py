"""Names that are spelt almost like a missing one, and whether a text is UTF-8. Pure functions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["is_text", "near_names"]


def near_names(wanted: str, paths: Iterable[str]) -> list[str]:
    """Paths whose last part is spelt almost like `wanted`, or exactly like it in another group."""
    by_last: dict[str, list[str]] = {}
    for path in paths:
        by_last.setdefault(path.rpartition("/")[2].lower(), []).append(path)
    return [path for last in difflib.get_close_matches(wanted, by_last, cutoff=0.7) for path in by_last[last]]


def is_text(text: str) -> bool:
    """Whether a text from HDF5 is UTF-8; h5py marks other bytes by lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)

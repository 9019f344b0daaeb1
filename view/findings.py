"""The findings of a store's checks: their level, and lists of episode numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS", "Finding", "Level", "listed"]

Level = Literal["problem", "notice", "good"]
LEVELS: Final[Sequence[Level]] = ("problem", "notice", "good")
N_LISTED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check."""

    level: Level
    """problem: something is wrong; notice: know this before you train; good: checked, and nothing found."""
    title: str
    detail: str
    """What was found, by which rule, and what to do."""


def listed(items: NDArray[np.integer[Any]] | Sequence[object]) -> str:
    """The first of some numbers or names, and the number of further ones.

    >>> listed(np.arange(10))
    '0, 1, 2, 3, 4, 5, 6, 7 and 2 more'
    """
    more = f" and {len(items) - N_LISTED} more" if len(items) > N_LISTED else ""
    return ", ".join(map(str, items[:N_LISTED])) + more

"""What a run found. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tail.plan import Size

__all__ = ["Results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a run found; each list is in an order that does not depend on which worker was faster."""

    size: Size
    task: str
    demos: dict[str, Any]
    """Lengths of the demonstrations and where their releases lie, and how many attempts failed."""
    policies: list[dict[str, Any]]
    rollouts: list[dict[str, Any]]
    cpu_s: dict[str, float]
    """CPU time by part."""
    libraries: dict[str, str]
    """Versions of what decides the numbers."""

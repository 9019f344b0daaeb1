"""Short words that every room says in the same way. Pure."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "task"), counted(1200, "step")
    ('1 task', '1200 steps')
    """
    return f"{n} {what}{'s' * (n != 1)}"

"""Short phrases that every room words in the same way. Pure."""

from __future__ import annotations

__all__ = ["counted", "first_line"]


def counted(n: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "task"), counted(1200, "step")
    ('1 task', '1200 steps')
    """
    return f"{n} {what}{'s' * (n != 1)}"


def first_line(exc: BaseException) -> str:
    r"""The first line of an error's text; its class, if it has none.

    >>> first_line(ValueError("broken\nin detail")), first_line(KeyError())
    ('broken', 'KeyError')
    """
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__

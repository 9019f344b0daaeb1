"""How much the tests try: everything with ``pytest --full``, as ``make test-all`` and CI do; a part of it in ``make test``.

The part is fixed, and of the same kinds: every nth byte, the first examples of Hypothesis. Nothing is left out but repetitions.
"""

from __future__ import annotations

from hypothesis import settings

_full = False


def set_full(full: bool) -> None:
    """Called by conftest.py before any test module is imported."""
    global _full
    _full = full


def examples(n: int, quick: int | None = None) -> settings:
    """Of Hypothesis: `n`, or else `quick`, by default a fifth of them and at least ten."""
    return settings(max_examples=n if _full else min(n, quick or max(10, n // 5)))


def some(everything: int, quick: int) -> int:
    """One number or the other: how many, or at which distance."""
    return everything if _full else quick

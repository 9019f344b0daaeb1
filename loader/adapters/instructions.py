"""Choose the wording of instructions for adapters, and warn where there is none. Imports no torch."""

from __future__ import annotations

import warnings
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError
from robozarr.store.opened import Store

__all__ = ["Wording", "warn_without_words", "wordings"]

Wording: TypeAlias = Literal["file", "name"]
"""The wording to serve: the episode's own, as its file states it, or LIBERO's benchmark wording from the file name."""


def wordings(store: Store, wording: Wording) -> tuple[str, ...]:
    """The instruction of each episode in one wording; the other wording where that is missing, "" where both are.

    Raises
    ------
    WindowError
        If `wording` is no such choice.
    """
    if wording not in ("file", "name"):
        raise WindowError(f'instructions · wording: "file" or "name"; got {wording!r} → pass one of these')
    own = store.episodes.instruction
    if wording == "file":
        return own
    named = store.tasks.instruction_from_name
    return tuple(named[task] or text for task, text in zip(store.episodes.task.tolist(), own, strict=True))


def warn_without_words(
    store: Store, texts: tuple[str, ...], served: NDArray[np.bool_], what: str, *, stacklevel: int = 4
) -> None:
    """Warn if served episodes have no instruction: a policy that reads text would get none."""
    without = [episode for episode in np.flatnonzero(served).tolist() if not texts[episode]]
    if without:
        which = ", ".join(map(str, without[:5])) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        warnings.warn(
            f"{store.path}: {len(without)} of {int(served.sum())} episodes have no instruction ({which}), so their {what} is "
            "empty → convert with --instruction TEXT or --instructions FILE",
            stacklevel=stacklevel,
        )

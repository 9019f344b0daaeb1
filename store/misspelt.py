"""Suggest a similar name for a path that is not there. Imports nothing of robozarr."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

__all__ = ["did_you_mean"]


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """The question to add to an error about a path that is not there; "" if nothing beside it has a similar name.

    Examples
    --------
    >>> did_you_mean("/devv")
    '; did you mean /dev?'
    """
    at = Path(path)
    try:
        beside = sorted(other.name for other in at.parent.iterdir())
    except (OSError, ValueError):
        return ""
    near = difflib.get_close_matches(at.name, [name for name in beside if name != at.name], 1, 0.8)
    return f"; did you mean {at.parent / near[0]}?" if near else ""

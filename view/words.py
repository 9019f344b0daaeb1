"""Short words for numbers: sizes, shapes, shares. Pure."""

from __future__ import annotations

import re
from math import isnan
from typing import TYPE_CHECKING

from robozarr.schemas.visible import visible

if TYPE_CHECKING:
    from robozarr.store.summary import KeySummary, TaskSummary

__all__ = ["key_shape", "printable", "share_words", "size_words", "task_title", "unit_words"]


def printable(text: str) -> str:
    r"""A text from a source on one line, with control characters escaped.

    >>> printable("open\nit"), printable("\x1b[31mred"), printable("zwölf – 打开")
    ('open it', '\\x1b[31mred', 'zwölf – 打开')
    """
    return visible(re.sub(r"[ \t\r\n]*[\t\r\n][ \t\r\n]*", " ", text))


def task_title(task: TaskSummary) -> str:
    """The title of a task: its instruction, or a note that it has none with the name of its file."""
    return printable(task.instruction or f"(no instruction; file {task.name})")


def unit_words(unit: str) -> str:
    """A unit for people; no unit where there is none.

    >>> unit_words("1"), unit_words("rad"), unit_words("")
    ('no unit', 'rad', 'not known')
    """
    return {"1": "no unit", "": "not known"}.get(unit, unit)


def size_words(n_bytes: int) -> str:
    """A size for people.

    >>> size_words(999), size_words(95_900_000)
    ('999 B', '95.9 MB')
    """
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def key_shape(key: KeySummary) -> str:
    """Shape of one step of a key."""
    return "ragged" if key.shape is None else "×".join(map(str, key.shape)) or "scalar"


def share_words(share: float) -> str:
    """A share in percent; never rounded to 100% unless it is all, nor to 0% unless it is nothing.

    >>> share_words(0.3104), share_words(0.9999), share_words(1.0), share_words(0.0001), share_words(float("nan"))
    ('31.0%', '>99.9%', '100%', '<0.1%', '–')
    """
    if isnan(share):
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return ">99.9%" if share > 0.999 else "<0.1%" if share < 0.001 else f"{share:.1%}"

"""The axes of a step: rows, columns and channels of a picture, or the many elements of a large key. Pure.

It decides two things only: which keys are stored one step a chunk, and over which axes statistics are taken together, so that
their size is bounded whatever the shape.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["LARGE", "MOST_CHANNELS", "axes_of", "channel_axes", "is_axes"]

LARGE: Final = 1024
"""Most elements of a step of an ordinary key; a larger one is stored like a picture: 40 kB of statistics per episode."""
MOST_CHANNELS: Final = 64
"""Most channels with separate statistics; with more, statistics are taken over the channels too."""
LEAST: Final = 8
"""Fewest pixels of a picture's shorter side."""
FEW: Final = 4
"""Numbers of channels that certainly mean a picture: grey, RG, RGB, RGBA."""
STACK: Final = 16
"""Most pictures in a stack, and most channels of stacked pictures."""


def axes_of(shape: tuple[int, ...]) -> str:
    """One letter per axis of a step: y and x for pixels, c for channels, t for stacked pictures, n for many equal elements.

    "" where format 1 has words for it: a picture [y, x] or [y, x, c], or a step of few elements.

    >>> axes_of((128, 128, 3)), axes_of((3, 128, 128)), axes_of((2, 84, 84, 3)), axes_of((2, 3, 84, 84))
    ('', 'cyx', 'tyxc', 'tcyx')
    >>> axes_of((7,)), axes_of((4096, 3)), axes_of((2048,)), axes_of((9, 84, 84)), axes_of((84, 84, 9))
    ('', 'nc', 'n', 'cyx', '')
    """
    if len(shape) == 2 and min(shape) >= LEAST:
        return ""
    if len(shape) == 3:
        channels_last, channels_first = min(shape[:2]) >= LEAST, min(shape[1:]) >= LEAST
        if channels_first and shape[0] <= MOST_CHANNELS and (not channels_last or shape[2] > STACK):
            return "cyx"
        if channels_last:
            return "" if shape[2] <= MOST_CHANNELS else "yxc"
    if len(shape) == 4 and shape[0] <= STACK:
        if min(shape[1:3]) >= LEAST and shape[3] <= FEW:
            return "tyxc"
        if min(shape[2:]) >= LEAST and shape[1] <= STACK:
            return "tcyx"
    if math.prod(shape) <= LARGE:
        return ""
    return "n" * (len(shape) - 1) + ("c" if len(shape) > 1 and shape[-1] <= STACK else "n")


def channel_axes(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes with separate statistics: all but y, x and n; none if there would be too many.

    >>> channel_axes("cyx", (3, 84, 84)), channel_axes("tyxc", (16, 84, 84, 16)), channel_axes("nc", (4096, 3))
    ((0,), (), (1,))
    """
    found = tuple(number for number, letter in enumerate(axes) if letter not in "yxn")
    return found if math.prod(shape[number] for number in found) <= MOST_CHANNELS else ()


def is_axes(axes: object, shape: tuple[int, ...]) -> bool:
    """Whether a text is valid for the axes of a step with a given shape."""
    if not isinstance(axes, str) or len(axes) != len(shape) or not axes or set(axes) - set("tcyxn"):
        return False
    letters = axes.replace("n", "")
    return len(set(letters)) == len(letters) and ("y" in axes) == ("x" in axes) and not ("n" in axes and "y" in axes)

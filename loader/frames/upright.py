"""Find the pictures that must be turned to be upright, by each episode's recorded convention. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import ImageConvention
from robozarr.store.opened import Store

__all__ = ["check_conventions", "rows_turned_over", "upright_keys"]


def upright_keys(store: Store, names: Iterable[str], given: bool | Sequence[str]) -> tuple[str, ...]:
    """The keys of a window whose pictures are asked for upright.

    Parameters
    ----------
    store : Store
    names : names
        The window's keys.
    given : True (all pictures), False (none), or names of some

    Raises
    ------
    WindowError
        If a name is not of the window, or not of pictures whose first axis is their lines.
    """
    pictures = [name for name in names if store.keys[name].picture_axes.startswith("y")]
    if isinstance(given, bool):
        others = [name for name in names if name not in pictures and store.keys[name].picture_axes]
        if given and others:
            axes = ", ".join(store.keys[others[0]].picture_axes)
            raise WindowError(
                f"dataset · upright: pictures [y, x, …]; got {others[0]} [{axes}] → name the others, and turn this one by "
                "images=rz.Images()"
            )
        return tuple(pictures) if given else ()
    if isinstance(given, str):
        raise WindowError(f"dataset · upright: True, False or a list of keys; got {given!r} → pass [{given!r}]")
    if bad := sorted(set(given) - set(pictures)):
        raise WindowError(
            f"dataset · upright: pictures [y, x, …] of the window, which are {', '.join(pictures) or 'none'}; got "
            f"{', '.join(bad)} → name some of these"
        )
    return tuple(given)


def check_conventions(store: Store, served: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Bool [n_episodes]: whether row 0 of an episode's pictures is the bottom row.

    Raises
    ------
    WindowError
        If that is not known of an episode that is `served`, bool [n_episodes].
    """
    convention = store.episodes.image_convention
    unknown = np.flatnonzero(served & (convention == ImageConvention.UNKNOWN))
    if unknown.size:
        raise WindowError(
            f"pictures · turn: every episode's convention is known; it is not of {unknown.size}, such as {int(unknown[0])} → "
            "look at a picture (dataset.show), then leave these out by episodes=, or have pictures as stored"
        )
    over: NDArray[np.bool_] = convention == ImageConvention.OPENGL
    return over


def rows_turned_over(store: Store, names: Sequence[str]) -> Mapping[str, NDArray[np.uint8]]:
    """By key, uint8 [n_steps]: 1 where a row's picture is turned over. One array for all keys; nothing where none is."""
    if not names:
        return {}
    over = np.repeat(store.episodes.image_convention == ImageConvention.OPENGL, store.episodes.length).astype(np.uint8)
    return dict.fromkeys(names, over) if over.any() else {}

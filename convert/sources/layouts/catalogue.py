"""List the layouts, and find the one that a file follows. Reads TOML files; never opens HDF5.

The user's own come first, then those in this folder, in the order of ORDER: the narrow ones before the wide ones.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from robozarr.convert.sources.layouts.record import Layout
from robozarr.schemas.errors import PlanError

__all__ = ["DEMOS", "built_in", "layout_text", "read_layout_file", "recognise"]

ORDER: Final = (
    "isaaclab",
    "robocasa",
    "mimicgen",
    "libero",
    "openvla",
    "robomimic",
    "maniskill",
    "robotwin",
    "xpolicylab",
    "aloha",
    "droid",
    "demos",
)
"""Built-in layouts, in the order in which they are tried."""


@functools.cache
def built_in() -> tuple[Layout, ...]:
    """Every layout of this folder, in the order in which they are tried."""
    return tuple(Layout.from_json(tomllib.loads(layout_text(name)), name) for name in ORDER)


def layout_text(name: str) -> str:
    """The TOML text of a built-in layout, as a start for one's own.

    Raises
    ------
    PlanError
        If no layout has this name.
    """
    if name not in ORDER:
        raise PlanError(f"layout {name}: no layout has this name; there are {', '.join(ORDER)}")
    return (files(__package__) / f"{name}.toml").read_text(encoding="utf-8")


def read_layout_file(path: str | Path) -> Layout:
    """Read the user's own layout.

    Raises
    ------
    PlanError
        If the file cannot be read, is no TOML, or breaks a rule of ``Layout``; the text names the file and the field.
    """
    try:
        value = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise PlanError(f"layout {path}: must be a TOML file that can be read; got {exc} → see docs/sources.md") from exc
    return Layout.from_json(value, str(path))


def recognise(holds: Callable[[str], bool], own: Sequence[Layout] = ()) -> Layout | None:
    """The layout of a file; `holds` says whether the file holds a place. None if it follows no layout."""
    for layout in (*own, *built_in()):
        if _fits(layout, holds):
            return layout
    return None


def _fits(layout: Layout, holds: Callable[[str], bool]) -> bool:
    if not all(any(holds(place.strip()) for place in places.split("|")) for places in layout.has):
        return False
    return not any(holds(place) for place in layout.lacks)


DEMOS: Final = next(layout for layout in built_in() if layout.name == "demos")
"""Any file with a group ``data``: the defaults of every layout."""

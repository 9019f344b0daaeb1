"""Check whether an open HDF5 file holds a place, as layouts write places. Reads no values."""

from __future__ import annotations

import fnmatch
from itertools import islice
from typing import Any, Final

import h5py

from robozarr.convert.sources.links import name_text, resolve

__all__ = ["holds"]

RECOGNISED_BY: Final = 16
"""Demos that are looked at to find a file's layout."""


def holds(file: Any, place: str) -> bool:
    """Whether a file holds a place of a layout: a path, with ``*`` for one name, and a final ``@name`` for an attribute."""
    path, _, attribute = place.partition("@")
    items = [file]
    for part in path.split("/") if path else ():
        items = [inner for item in items if isinstance(item, h5py.Group) for inner in _inside(item, part)]
    return any(not attribute or attribute in item.attrs for item in items)


def _inside(group: Any, part: str) -> list[Any]:
    """The objects of a group that one part of a path matches; links that lead nowhere are left out."""
    if "*" in part:
        names = list(islice((name for name in group if fnmatch.fnmatchcase(name_text(name), part)), RECOGNISED_BY))
    else:
        names = [part] if group.id.links.exists(part.encode("utf-8", "surrogateescape")) else []
    return [item for item in (resolve(group, name) for name in names) if item is not None]

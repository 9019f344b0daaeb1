"""Explain links that lead nowhere: where HDF5 looks for the other file, and what is missing.

HDF5 looks for files by a rule of its own (``H5F_prefix_open_file``); ``candidates`` follows it, for messages and for checks.
"""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import h5py

from robozarr.convert.records import Fault

__all__ = ["DEAD_LINK", "OtherFiles", "by_path", "candidates", "dead_link", "name_text", "put_back", "resolve"]

DEAD_LINK: Final = "a link that leads nowhere"
"""The recorded type of an object that a dead link should lead to."""
LINKS_FOLLOWED: Final = 16
"""HDF5's own limit on links followed in a row."""


def name_text(name: str | bytes) -> str:
    """A name as text; h5py gives bytes for names that are not UTF-8."""
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def resolve(group: Any, name: str | bytes) -> Any:
    """The object that a name in a group refers to, following links; None for a link that leads nowhere or in a circle.

    A hard link that cannot be followed is damage, which h5py raises.
    """
    link = group.id.links.get_info(name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape"))
    if link.type == h5py.h5l.TYPE_HARD:
        return group[name]
    try:
        return group.get(name)
    except (RuntimeError, OSError, KeyError):  # too many links in a row, a file that is none
        return None


class OtherFiles:
    """The other files that links in an open file led to."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.paths: set[str] = set()

    @functools.cached_property
    def _own(self) -> int:
        return int(h5py.h5o.get_info(self._file.id).fileno)

    def noted(self, item: Any) -> Any:
        """Note the file of an object, and return the object; None for a link that led nowhere."""
        if item is not None and h5py.h5o.get_info(item.id).fileno != self._own:
            self.paths.add(item.file.filename)
        return item


def by_path(owner: str, paths: Iterable[str]) -> tuple[str, ...]:
    """Absolute paths, in the order of their names as seen from the file `owner`: a folder may move with all that is in it."""
    here = Path(owner).absolute().parent
    return tuple(sorted({str(Path(path).absolute()) for path in paths}, key=lambda path: os.path.relpath(path, here)))


def candidates(owner: str, name: str, variable: str) -> list[Path]:
    """The places where HDF5 looks for the file `name` that the file `owner` refers to, in order.

    `variable` is the environment's: HDF5_EXT_PREFIX for external links, HDF5_VDS_PREFIX for virtual datasets.
    """
    first, path = [], Path(name)
    if path.is_absolute():
        first, path = [path], Path(path.name)
    prefixes = [prefix for prefix in os.environ.get(variable, "").split(os.pathsep) if prefix]
    folder = os.path.dirname(os.path.abspath(owner))  # noqa: PTH100, PTH120 - resolve() follows links
    real = os.path.dirname(os.path.realpath(owner))  # noqa: PTH120
    places = [prefix.replace("${ORIGIN}", folder) for prefix in prefixes]
    return list(dict.fromkeys([*first, *(Path(place, path) for place in (*places, folder)), path.absolute(), Path(real, path)]))


def dead_link(group: Any, name: str | bytes) -> Fault:
    """Explain a link in a group that leads nowhere: every link on the way, and what is missing at the end."""
    root, path = group.file, posixpath.join(group.name or "/", name_text(name))
    steps: list[str] = []
    link = _link(root, path)
    while isinstance(link, h5py.SoftLink) and len(steps) < LINKS_FOLLOWED:
        steps.append(f"a soft link to {link.path}")
        path = posixpath.join(posixpath.dirname(path), link.path)
        link = _link(root, path)
    remedy = "repair the link, or leave it out with --on-error skip"
    if len(steps) >= LINKS_FOLLOWED:
        steps = [*steps[:2], "and so on in a circle"]
    if isinstance(link, h5py.ExternalLink):
        steps.append(f"an external link to {link.path} in {link.filename}")
        there = next((place for place in candidates(root.filename, link.filename, "HDF5_EXT_PREFIX") if place.is_file()), None)
        if there is None:
            steps.append("a file that is not there")
            remedy = put_back(link.filename, "HDF5_EXT_PREFIX")
        elif h5py.is_hdf5(there):
            steps.append(f"which {there} does not hold, or cannot show")
        else:
            steps.append(f"but {there} is not readable HDF5")
            remedy = f"copy or download {there.name} again, or leave it out with --on-error skip"
    return Fault(rule="a link leads nowhere", value=", ".join(steps), remedy=remedy)


def put_back(name: str, variable: str) -> str:
    """The remedy for a file that another file needs beside it."""
    return f"put {name} back beside the file, or its folder into {variable}; or leave it out with --on-error skip"


def _link(root: Any, path: str) -> Any:
    """The link at a path, not its target; None if there is none."""
    try:
        return root.get(path, getlink=True)
    except (KeyError, RuntimeError, OSError, TypeError, ValueError):
        return None

"""Walk the objects of an open HDF5 file by path. Reads no values.

h5py's own visitor leaves out soft and external links, and names a dataset that has two names once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import h5py

from robozarr.convert.sources.links import name_text, resolve

__all__ = ["OpenDemo", "all_but", "tree_of"]

MOST_PATHS: Final = 2**14
"""Most objects that are looked at in a demo, or in a group outside the demos: some seconds; demos hold some dozens."""


class OpenDemo:
    """One demo, so that its tree is walked and its long texts are read only once."""

    def __init__(self, name: str, group: Any) -> None:
        self.name, self.group = name, group
        self._attributes: dict[str, Any] = {}

    @functools.cached_property
    def tree(self) -> list[tuple[str, Any]]:
        """Everything inside the demo, by path (``tree_of``)."""
        return list(tree_of(self.group))

    def attribute(self, name: str) -> Any:
        """An attribute of the demo; None if there is none."""
        if name not in self._attributes:
            self._attributes[name] = self.group.attrs.get(name)
        return self._attributes[name]


def tree_of(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Everything below a group by path, following links; None for a link that leads nowhere.

    h5py's own visitor leaves out soft and external links, and names a dataset that has two names once. ValueError if there are
    more than `MOST_PATHS`: thirty groups that each hold the next one twice have a thousand million.
    """
    for n, found in enumerate(_below(group, prefix, frozenset())):
        if n == MOST_PATHS:
            raise ValueError(f"more than {MOST_PATHS} paths lead to something in {group.name}")
        yield found


def _below(group: Any, prefix: str, above: frozenset[Any]) -> Iterator[tuple[str, Any]]:
    above |= {_identity(group)}
    for name in group:
        item, path = resolve(group, name), prefix + name_text(name)
        yield path, item
        if isinstance(item, h5py.Group) and _identity(item) not in above:
            yield from _below(item, f"{path}/", above)


def all_but(group: Any, prefix: str, apart: Callable[[str, Any], bool]) -> Iterator[tuple[str, Any]]:
    """Everything in a group by path, except the names in `apart`, which are read elsewhere."""
    for name in group:
        item, path = resolve(group, name), prefix + name_text(name)
        if not apart(name_text(name), item):
            yield path, item
            if isinstance(item, h5py.Group):
                yield from tree_of(item, f"{path}/")


def _identity(group: Any) -> tuple[int, int]:
    """File and address of a group: the address alone may occur again in a file that a link leads to."""
    info = h5py.h5o.get_info(group.id)
    return info.fileno, info.addr

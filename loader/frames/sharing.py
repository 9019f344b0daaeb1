"""Share memory among the readers of one open store: each column is held once, however many datasets use it.

Nothing is kept for its own sake: what no reader uses any more is gone. A store that is opened anew shares nothing with the one
that was open before, so that a changed or damaged file is noticed. Imports neither zarr nor torch.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from robozarr.loader.frames.memory import SharedArrays
from robozarr.store.opened import Store

__all__ = ["Shared", "shared_of"]


class Shared:
    """Memory that readers of one store hold, as long as one of them lives."""

    def __init__(self) -> None:
        self.columns: WeakValueDictionary[tuple[str, bool], SharedArrays] = WeakValueDictionary()
        """By key, and whether its pictures are upright: the memory that all its rows lie in."""
        self.frames: WeakValueDictionary[tuple[str, bool], Any] = WeakValueDictionary()
        """The same: what reads its frames from files, with checksums and what is known of its shards."""
        self.readers: WeakValueDictionary[tuple[tuple[str, ...], bool, tuple[str, ...]], Any] = WeakValueDictionary()
        """By keys, whether frames lie in memory too, and keys whose pictures are upright: a whole reader."""


_BY_STORE: WeakKeyDictionary[Store, Shared] = WeakKeyDictionary()


def shared_of(store: Store) -> Shared:
    """The memory shared by the readers of an open store."""
    return _BY_STORE.setdefault(store, Shared())

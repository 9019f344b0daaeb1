"""Linux calls that Windows or macOS lack, replaced so that stores can be read and verified there. Imports no robozarr."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

__all__ = ["CLOEXEC", "NONBLOCK", "NO_LINKS", "fcntl", "pread", "resource", "writev"]


def _module(name: str) -> Any:
    """A module; None on Windows."""
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl: Final = _module("fcntl")
resource: Final = _module("resource")

CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""For every file that is opened: no child inherits it, and Windows changes no line ends in it."""
NO_LINKS: Final = getattr(os, "O_NOFOLLOW", 0)
"""A link is refused; 0 where the system cannot do that: there it is looked for before."""
NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
"""A pipe is not waited for."""


def _seek_and_read(descriptor: int, n_bytes: int, start: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, n_bytes)


def _write_each(descriptor: int, parts: Sequence[memoryview]) -> int:
    return os.write(descriptor, parts[0])


pread: Final = getattr(os, "pread", _seek_and_read)
"""``os.pread``; where there is none, only for descriptors that one thread uses."""
writev: Final = getattr(os, "writev", _write_each)
"""``os.writev``, which may write less than it is given."""

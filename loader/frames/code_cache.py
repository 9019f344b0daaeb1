"""Keep compiled machine code in the user's cache folder, one folder per content of the compiled sources.

Numba keeps code beside the source, and does not notice when a function in another file changes. Here the folder's name is a
digest of all compiled sources, so that code is never stale, and an installation that is read-only costs nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final

try:
    import numba
    from numba.core import caching
except ModuleNotFoundError as exc:  # the first import of numba, whichever module of the loader a program asks for
    raise ModuleNotFoundError(
        f"robozarr.loader needs {exc.name}, which is not installed → pip install '.[train]' in a clone of robozarr",
        name=exc.name,
    ) from exc

__all__ = ["UserCache", "cache_folder"]

UNUSED_DAYS: Final = 60
"""Folders of other contents that nobody used for so long are removed when a new one is made."""
SOURCES: Final = ("loader/frames/*.py", "loader/adapters/turning.py", "schemas/compressed.py")
"""Files with compiled functions, and with functions that these call."""


def user_cache() -> Path:
    """The user's cache folder: by XDG on Linux, the usual one on macOS and Windows."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if given.startswith("/") else Path.home() / ".cache"


@cache
def content_digest() -> str:
    """Digest of the compiled sources and of the compiler's version: 16 hexadecimal digits."""
    package = Path(__file__).parents[2]
    digest = hashlib.sha256(numba.__version__.encode())
    for pattern in SOURCES:
        for path in sorted(package.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path | None:
    """The folder for the machine code of these sources, made if needed; None if no such folder can be written to."""
    try:
        folder = user_cache() / "robozarr" / f"compiled-{content_digest()}"
        new = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except (OSError, RuntimeError):  # no home, a read-only one, a full disk
        return None
    if new:
        _remove_unused(folder)
    return folder


def _remove_unused(folder: Path) -> None:
    """Remove the folders of other sources that have not been used for a long time."""
    with suppress(OSError):
        for other in folder.parent.iterdir():
            named_so = re.fullmatch(r"compiled-[0-9a-f]{16}", other.name)
            if named_so and not other.is_symlink() and other.stat().st_mtime < time.time() - UNUSED_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)


_folder = cache(cache_folder)


class _UserLocator:
    """Tells numba where the code of a function is kept."""

    def __init__(self, folder: Path, line: int) -> None:
        self._folder, self._line = folder, line

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _UserLocator | None:
        """A locator for a function of robozarr; None for any other, or without a place."""
        inside = Path(file).is_relative_to(Path(__file__).parents[2])
        folder = _folder() if inside else None
        return None if folder is None else cls(folder, function.__code__.co_firstlineno)

    def get_cache_path(self) -> str:
        """The folder."""
        return str(self._folder)

    def ensure_cache_path(self) -> None:
        """Do nothing: the folder was tried already."""

    def get_source_stamp(self) -> str:
        """Digest of the sources: the same wherever and whenever they are installed."""
        return content_digest()

    def get_disambiguator(self) -> str:
        """Tell functions of one name apart."""
        return str(self._line)


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    """Numba's cache, with the user's folder after NUMBA_CACHE_DIR and before the source's own folder."""

    _locator_classes: ClassVar[list[Any]] = [
        caching.CacheImpl._locator_classes[0],
        _UserLocator,
        *caching.CacheImpl._locator_classes[1:],
    ]


class UserCache(caching.FunctionCache):  # type: ignore[misc]
    """The cache of one compiled function."""

    _impl_class = _Implementation

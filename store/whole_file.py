"""Write a single file whole or not at all: a page, a plot, statistics, a configuration. Imports no torch and no zarr.

What a full disk, missing rights or an interrupt leave is the file that was there before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from robozarr.schemas.errors import StoreError
from robozarr.schemas.metadata import TEMPORARY
from robozarr.schemas.words import first_line

__all__ = ["whole_file"]


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, in the folder of `path`; in the end the file there takes its place.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as exc:
        reason = exc.strerror or first_line(exc)
        raise StoreError(f"{path}: cannot be written, and is as it was: {reason} → make room, or name another file") from exc
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)

"""Shared code of the exports: an output that appears only when it is complete, progress, keys of one width."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError
from robozarr.schemas.metadata import TEMPORARY
from robozarr.schemas.words import first_line
from robozarr.store.opened import Store

__all__ = ["Progress", "appearing", "check_free", "of_one_width", "size_of"]

LOCK: Final = "lock"


class Progress(Protocol):
    """Receives the progress of an export."""

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        """Begin a stage."""

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        """Count."""


def check_free(output: Path) -> None:
    """Refuse an output that already exists; StoreError."""
    if output.exists() or output.is_symlink():
        raise StoreError(f"{output}: is there already, and nothing is written over → name another --output, or remove it")


@contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which becomes `output` at the end; an error leaves nothing of it.

    It lies in a folder of its own, beside: what a library still writes after its error has nowhere to go. A folder that a
    process left that was killed is removed by the next one.

    Raises
    ------
    StoreError
        If it cannot be written: a full disk.
    """
    for left in output.parent.glob(f".{glob.escape(output.name)}.*{TEMPORARY}"):
        _remove_if_left(left)
    folder = output.with_name(f".{output.name}.{os.getpid()}{TEMPORARY}")
    try:
        folder.mkdir()
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder / output.name
            check_free(output)  # a second export may have been faster
            (folder / output.name).rename(output)
    except OSError as exc:
        raise StoreError(
            f"{output}: cannot be written, and nothing is left of it: {first_line(exc)} → make room, or name another --output"
        ) from exc
    finally:  # after an interrupt too
        shutil.rmtree(folder, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    """Remove the folder of an export, however the export ended."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
    except OSError:  # it is being written, or is none of ours
        return


def size_of(output: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(path.stat().st_size for path in ([output] if output.is_file() else output.rglob("*")) if path.is_file())


def of_one_width(store: Store, name: str) -> NDArray[Any] | None:
    """A ragged key whose steps all have the same width: [n_steps, width]; None if they differ."""
    ragged = store.ragged(name)
    widths = np.diff(ragged.offsets)
    same = bool(len(widths)) and bool((widths == widths[0]).all()) and widths[0] > 0
    return ragged.read(0, int(ragged.offsets[-1])).reshape(store.n_steps, -1) if same else None

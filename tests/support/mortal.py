"""A converter that dies at a chosen change of a file, and the smallest sources that it can be given."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from memory_place import MemoryPlace

from robozarr.convert.resuming import fence
from robozarr.store.bucket import BucketPlace
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place

__all__ = ["Changes", "Killed", "killed_at", "write_source"]


class Killed(BaseException):
    """What a test kills a converter with: no handler of the converter's takes it for an error."""


class Changes(list[str]):
    """What a converter changed, as far as it came."""

    late: Callable[[], object] | None = None
    """The last shard that a worker of it wrote, written once more: by one that nobody knows of any more, and that goes on."""


def write_source(path: Path, seed: int, size: int = 8) -> Path:
    """A file of one or two demos with actions and one small picture: as little as a store can be made from."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number in range(1 + seed % 2):
            n = 2 + (seed + number) % 2
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = rng.normal(size=(n, 7))
            demo["states"] = rng.normal(size=(n, 4 + seed % 3))
            demo["obs/agentview_rgb"] = rng.integers(0, 256, (n, size, size, 3), np.uint8)
    return path


@contextmanager
def killed_at(change: int | None, of: str = "") -> Iterator[Changes]:
    """A converter that dies at its change number `change` of any place: a file that appears, moves or is removed.

    `of` "move" counts moves alone, which only the commit of an append makes.

    Yields what was changed, as far as it came. The dead do nothing on their way out.
    """
    changes = Changes()
    with pytest.MonkeyPatch.context() as patch:
        for kind, name in itertools.product(
            (FolderPlace, MemoryPlace, BucketPlace), ("write", "replace", "move", "remove", "empty")
        ):
            patch.setattr(kind, name, mortal(getattr(kind, name), name, change, changes, of))
        yield changes


def mortal(real: Callable[..., None], name: str, last: int | None, changes: Changes, of: str) -> Callable[..., None]:
    """A method of a place that dies when `last` changes were made."""

    def over() -> bool:
        return last is not None and sum(change.startswith(of) for change in changes) > last

    def do_or_die(self: Place, what: Any, *more: Any, **options: Any) -> None:
        what = list(what) if name == "remove" else what
        if over():
            return
        changes.append(f"{name} {what}")
        if any(isinstance(getattr(check, "__self__", None), fence.Fence) for check in (*more, *options.values())):
            again = [[bytes(part) for part in more[0]], *more[1:]]
            changes.late = partial(real, self, what, *again, **options)
        if over():
            if name in ("write", "replace") and self.folder is not None:
                leave_half(self.folder / what)
            raise Killed
        real(self, what, *more, **options)

    return do_or_die


def leave_half(file: Path) -> None:
    """What a writer leaves that is killed before it renames."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_name(f".{file.name}.{uuid.uuid4().hex}.robozarr-tmp").write_bytes(b"half")

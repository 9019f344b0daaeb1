"""Read rows of a key in a codec that the compiled code does not know, through zarr; slow, with a warning. Imports no torch."""

from __future__ import annotations

import warnings
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.buffers import ThreadBuffers
from robozarr.loader.frames.faults import episode_of
from robozarr.loader.frames.rows import part_of_windows
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.metadata import Key
from robozarr.store.opened import Store

__all__ = ["ForeignArray", "ZarrReader"]

I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]


class ForeignArray:
    """A key stored as FORMAT.md does not describe, read through zarr; values that zarr would invent are errors here."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name, self._array = store, name, store.array(name)
        self._file_shape = self._array.shards or self._array.chunks
        self._there: set[int] = set()

    def read(self, low: int, high: int) -> NDArray[Any]:
        """Some rows.

        Raises
        ------
        CorruptChunkError
            If a file of them is missing, of which zarr would return zeros, or zarr cannot read them.
        """
        where = f"steps/{self._name} · rows {low} to {high} · {episode_of(self._store, low)}"
        for number in range(low // self._file_shape[0], -(-high // self._file_shape[0])):
            self._check_files(number, where)
        try:
            return np.asarray(self._array[low:high])
        except Exception as exc:  # whatever a codec raises: zlib.error and EOFError are their own kinds
            raise CorruptChunkError(f"{where}: zarr can read them; found {exc!r} → convert the sources again") from exc

    def _check_files(self, number: int, where: str) -> None:
        if number in self._there:
            return
        sizes = zip(self._array.shape[1:], self._file_shape[1:], strict=True)
        for rest in product(*(range(-(-size // of_file)) for size, of_file in sizes)):
            path = f"steps/{self._name}/{self._array.metadata.encode_chunk_key((number, *rest))}"
            if not self._store.place.exists(path):
                raise CorruptChunkError(
                    f"{where} · shard {number} ({path}): every expected shard must exist; it is missing → restore it from a "
                    "copy, or convert again",
                    "M7",
                )
        self._there.add(number)


class ZarrReader:
    """Rows of a key in a codec that the compiled code does not know, through zarr."""

    def __init__(self, store: Store, key: Key, why: str, over: U8 | None = None) -> None:
        warnings.warn(
            f"{store.path}: steps/{key.name} is read by zarr-python, one slice per window: tens of times slower than "
            f"what robozarr writes, and damaged bytes are noticed only where its codecs notice them; {why} → convert again",
            stacklevel=2,
        )
        self._store, self._key, self._array = store, key, ForeignArray(store, key.name)
        self._over = over

    def read(self, rows: I64, at: I64, out: U8, thread_buffers: ThreadBuffers, part: tuple[int, int]) -> None:
        """Like ``KeyReader.read``."""
        for window in range(*part_of_windows(len(rows), part)):
            wanted = rows[window]
            inside = wanted[wanted >= 0]
            target = out[at[window]]
            target[wanted < 0] = 0
            if inside.size:
                low, high = int(inside.min()), int(inside.max()) + 1
                values = np.ascontiguousarray(self._array.read(low, high), self._key.dtype)
                if self._over is not None and (turned := self._over[low:high] != 0).any():
                    values[turned] = values[turned][:, ::-1]
                target[wanted >= 0] = values.view(np.uint8).reshape(high - low, -1)[inside - low]

"""Read single rows of a store for a viewer: only the needed chunks, with every check. Imports no Zarr library.

A missing shard, a broken chunk, a frame that belongs elsewhere are errors here, never a black or a wrong picture. Training
reads by ``loader.frames.read``, which needs compiled code; looking does not.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import BucketError, CorruptChunkError
from robozarr.schemas.frame_chunk import entries_of
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import CRC_BYTES, corrupt_chunk, decode_rows, read_index
from robozarr.store.folder import FolderPlace
from robozarr.store.opened import Store
from robozarr.store.place import Place

__all__ = ["read_episode", "read_rows"]


def read_rows(store: Store, name: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Read rows of a key that is not ragged.

    Parameters
    ----------
    store : Store
    name : str
        The key.
    rows : int [n], in [0, n_steps)
        In any order.

    Returns
    -------
    the key's type [n, …]

    Raises
    ------
    StoreError
        If there is no such key.
    CorruptChunkError
        If a row cannot be read exactly; the text names array, shard and chunk, and of a frame with keyframes its episode.
    """
    store.array(name)
    wanted = np.asarray(rows, np.int64)
    return _rows(store, f"steps/{name}", wanted, _sums(store, name, wanted) if store.keys[name].frame else None)


class _Sums(NamedTuple):
    """What ``checksums/`` says of some rows."""

    rows: NDArray[np.int64]
    """Ascending."""
    sums: NDArray[np.uint32]

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Those of `rows`, which are among them."""
        return self.sums[np.searchsorted(self.rows, rows)]


def _sums(store: Store, name: str, wanted: NDArray[np.int64]) -> _Sums:
    """The checksums of rows and of what else their chunks hold: keyframes are compared too."""
    layout = store.layout(f"steps/{name}")
    first = np.unique(wanted // layout.chunk_rows) * layout.chunk_rows
    rows = (first[:, None] + np.arange(layout.chunk_rows)).reshape(-1)
    rows = rows[rows < layout.shape[0]]
    return _Sums(rows, _rows(store, f"checksums/{name}", rows))


def read_episode(store: Store, name: str, episode: int) -> NDArray[Any]:
    """Read all rows of one episode of a key [length, …]; raises as `read_rows` does."""
    start, length = int(store.episodes.start[episode]), int(store.episodes.length[episode])
    values = read_rows(store, name, range(start, start + length))
    if not store.keys[name].frame:
        as_stored = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        if google_crc32c.value(as_stored) != int(_rows(store, f"checksums/{name}", np.array([episode]))[0]):
            raise CorruptChunkError(
                f"steps/{name} · episode {episode}: its rows must agree with checksums/{name}; these are not the episode's "
                f"→ run: robozarr verify {store.path}, then restore it from a copy, or convert again",
                "M21",
            )
    return values


def _rows(store: Store, path: str, wanted: NDArray[np.int64], sums: _Sums | None = None) -> NDArray[Any]:
    """Read rows of an array in any order; `sums` are the checksums that frames must have."""
    layout = store.layout(path)
    out = np.empty((len(wanted), *layout.shape[1:]), layout.dtype)
    shards = wanted // layout.shard_rows
    for shard in np.unique(shards).tolist():
        try:
            mapped = _open_shard(store.place, layout.shard_path(shard))
        except BucketError:
            raise
        except (OSError, ValueError) as exc:  # ValueError: an empty file
            rule, found = "every expected shard must exist and be readable", getattr(exc, "strerror", "") or str(exc)
            raise corrupt_chunk("M7", layout, shard, None, rule, found) from exc
        with mapped as data:
            here = np.flatnonzero(shards == shard)
            out[here] = _read_shard(store, data, layout, shard, wanted[here], sums)
    return out


def _open_shard(place: Place, path: str) -> Any:
    """Open a shard for reading: parts of a file in a folder, the whole object in a bucket."""
    if place.folder is None:
        return nullcontext(place.read(path))
    assert isinstance(place, FolderPlace)
    with os.fdopen(place.open(path), "rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)  # what is not wanted is not read


def _read_shard(
    store: Store, data: Any, layout: ArrayLayout, shard: int, rows: NDArray[np.int64], sums: _Sums | None
) -> NDArray[Any]:
    """Read the rows of an array that lie in one shard."""
    index = read_index(data, layout, shard)
    out = np.empty((len(rows), *layout.shape[1:]), layout.dtype)
    at = rows - shard * layout.shard_rows
    chunks = at // layout.chunk_rows
    for chunk in np.unique(chunks).tolist():
        offset, length = index[chunk].tolist()
        part, here = data[offset : offset + length], np.flatnonzero(chunks == chunk)
        if sums is not None:
            _compare(store, part, layout, shard, chunk, rows[here], sums)
        alone = np.zeros((chunk + 1, 2), np.uint64)
        alone[chunk] = 0, length
        wanted = (at[here] - chunk * layout.chunk_rows).tolist()
        out[here] = decode_rows(part, alone, layout, shard, chunk, wanted, within=partial(_episode, store))
    return out


def _compare(
    store: Store, part: bytes, layout: ArrayLayout, shard: int, chunk: int, rows: NDArray[np.int64], sums: _Sums
) -> None:
    """CorruptChunkError unless frames, and their keyframes, have the checksums that ``checksums/`` states for their steps."""
    rule = "the frame must have the checksum that checksums/ states for its step"
    if layout.effort is None:
        if int.from_bytes(part[-CRC_BYTES:], "little") != int(sums.of(rows[:1])[0]):
            raise corrupt_chunk("M21", layout, shard, chunk, rule, "another frame")
        return
    first = shard * layout.shard_rows + chunk * layout.chunk_rows
    entries = entries_of(part, layout.chunk_rows)
    keyframes = entries["keyframe"][rows - first].astype(np.int64)
    used = np.unique(np.concatenate([rows - first, keyframes[keyframes < layout.chunk_rows]]))
    used = used[first + used < layout.shape[0]]
    bad = used[entries["crc32c"][used] != sums.of(first + used)]
    if bad.size:
        row = first + int(bad[0])
        raise corrupt_chunk("M21", layout, shard, chunk, rule, "another frame", row=row, within=_episode(store, row))


def _episode(store: Store, row: int) -> str:
    """Words for the episode and the step of a row."""
    episode = int(np.searchsorted(store.episodes.start, row, side="right")) - 1
    return f"episode {episode} ({store.episodes.demo[episode]}), step {row - int(store.episodes.start[episode])}"

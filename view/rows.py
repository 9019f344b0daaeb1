"""Owns reading single rows of a store for a viewer: only the chunks asked for, with every check. Imports no Zarr library.

A missing shard, a broken chunk, a frame that belongs elsewhere are errors here, never a black or a wrong picture. Training
reads by ``loader.read``, which needs compiled code; looking does not.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.loader.store import Store
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import CRC_BYTES, corrupt_chunk, decode_chunk, read_index

__all__ = ["read_episode", "read_rows"]


def read_rows(store: Store, name: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[Any]:
    """Rows of a key that is not ragged.

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
        If a row cannot be read exactly; the text names array, shard and chunk.
    """
    store.array(name)
    layout = store.layout(f"steps/{name}")
    wanted = np.asarray(rows, np.int64)
    out = np.empty((len(wanted), *layout.shape[1:]), layout.dtype)
    sums = store.checksums(name) if store.keys[name].frame else None
    for shard in np.unique(wanted // layout.shard_rows).tolist():
        _read_shard(store, layout, shard, wanted, out, sums)
    return out


def read_episode(store: Store, name: str, episode: int) -> NDArray[Any]:
    """All rows of one episode of a key [length, …]; raises as `read_rows` does."""
    start, length = int(store.episodes.start[episode]), int(store.episodes.length[episode])
    values = read_rows(store, name, range(start, start + length))
    if not store.keys[name].frame:
        as_stored = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        if google_crc32c.value(as_stored) != int(store.checksums(name)[episode]):
            raise CorruptChunkError(
                f"steps/{name} · episode {episode}: its rows agree with checksums/{name}; these are not the episode's "
                f"→ run: robozarr verify {store.path}, then restore it from a copy, or convert again",
                "M21",
            )
    return values


def _read_shard(
    store: Store,
    layout: ArrayLayout,
    shard: int,
    wanted: NDArray[np.int64],
    out: NDArray[Any],
    sums: NDArray[np.uint32] | None,
) -> None:
    """Put the wanted rows that lie in one shard into `out`; the file is mapped, so what is not wanted is not read."""
    path = Path(store.path) / layout.shard_path(shard)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            data = bytes(mapped) if len(mapped) < mmap.PAGESIZE else mapped
            index = read_index(data, layout, shard)  # type: ignore[arg-type]  # a mapped file slices into bytes
            buffer = np.empty((layout.chunk_rows, *layout.shape[1:]), np.dtype(layout.dtype).newbyteorder("<"))
            chunks = wanted // layout.chunk_rows
            for number in np.unique(chunks[wanted // layout.shard_rows == shard]).tolist():
                chunk = number - shard * layout.chunks_per_shard
                offset, length = index[chunk].tolist()
                part = data[offset : offset + length]
                if sums is not None and int.from_bytes(part[-CRC_BYTES:], "little") != int(sums[number]):
                    rule = "the frame has the checksum that checksums/ states for its step"
                    raise corrupt_chunk("M21", layout, shard, chunk, rule, "another frame")
                alone = np.zeros((chunk + 1, 2), np.uint64)
                alone[chunk] = 0, length
                decode_chunk(part, alone, layout, shard, chunk, buffer)
                here = chunks == number
                out[here] = buffer[wanted[here] - number * layout.chunk_rows]
    except (OSError, ValueError) as exc:
        raise corrupt_chunk(
            "M7", layout, shard, None, "every expected shard exists and can be read", getattr(exc, "strerror", "") or str(exc)
        ) from exc

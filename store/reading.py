"""Read documents and whole arrays of a store in any place, with every check. Imports no Zarr library.

For tables, statistics, low-dim keys and ``verify``: a missing shard is an error here, where Zarr libraries return zeros. Frames
are read for training by ``loader.frames.read``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.documents import GroupDocument, as_model, parse_json
from robozarr.schemas.errors import BucketError, CorruptChunkError, StoreError
from robozarr.schemas.identity import bound_sum
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.limits import (
    MOST_CHUNK_BYTES,
    MOST_CHUNKS,
    MOST_DOCUMENT_BYTES,
    MOST_ROWS,
    MOST_SHARD_BYTES,
    MOST_SHARDS,
)
from robozarr.schemas.metadata import StoreMetadata
from robozarr.schemas.shard import CRC_BYTES, INDEX_ENTRY_BYTES, decode_shard, shard_sum
from robozarr.schemas.zarr_json import parse_array_document
from robozarr.store.place import Place

__all__ = [
    "MANY_SHARDS",
    "check_bound",
    "check_claim",
    "memory_for",
    "read_array",
    "read_document",
    "read_group",
    "read_layout",
    "read_metadata",
    "read_shard",
    "read_shard_bytes",
    "shard_bytes_max",
]

MANY_SHARDS: Final = 1024
"""Shards that are read before the next ones are started."""


def read_document(place: Place, path: str = "") -> dict[str, Any]:
    """Read the ``zarr.json`` in a folder of a store.

    Raises
    ------
    StoreError
        If it is missing, or no JSON object.
    BucketError
        If the bucket cannot be reached.
    """
    return _read_document(place, path)[0]


def _read_document(place: Place, path: str) -> tuple[dict[str, Any], bytes]:
    """Read a document; returns it and its bytes."""
    name = f"{path}/zarr.json" if path else "zarr.json"
    file = place.at(name)
    try:
        data = place.read(name, MOST_DOCUMENT_BYTES)
    except FileNotFoundError as exc:
        raise StoreError(f"{file}: missing; restore it from a copy, or convert again") from exc
    except BucketError:
        raise
    except OSError as exc:
        raise StoreError(f"{file}: cannot be read: {exc.strerror or exc}; check the path and the rights") from exc
    try:
        return parse_json(data), data
    except ValueError as exc:
        raise StoreError(f"{file}: no JSON: {exc}; restore it from a copy, or convert again") from exc


def read_group(place: Place, path: str = "") -> GroupDocument:
    """Read the ``zarr.json`` of a group; StoreError if it is missing, or another kind of document."""
    document, file = read_document(place, path), place.at(f"{path}/zarr.json" if path else "zarr.json")
    kind = "a group of Zarr v3 is expected" if path else "not the root of a Zarr v3 group"
    try:
        group = as_model(document, GroupDocument)
    except ValueError as exc:
        raise StoreError(f"{file}: {kind}: {exc}") from exc
    if (group.zarr_format, group.node_type) != (3, "group"):
        raise StoreError(f"{file}: {kind}")
    return group


def check_bound(bound: StoreMetadata | None, path: str, shard: int | None, found: int, name: str) -> None:
    """Compare a file's checksum with the one that the store's root binds: of an array's `shard`, or its ``zarr.json`` (None).

    Raises
    ------
    CorruptChunkError
        If it is another file (M23). Not where `bound` is None, or of version 1, which binds nothing.
    """
    if bound is None or bound.format_version == 1:
        return
    expected = bound_sum(bound.files, path, shard)
    if found != expected:
        where = f"{path} · {'zarr.json' if shard is None else f'shard {shard}'} ({name})"
        raise CorruptChunkError(
            f"{where}: the store's root binds it to {'(nothing)' if expected is None else f'{expected:08x}'}; found "
            f"{found:08x}: it was changed, or belongs to another store → restore it from a copy, or convert again",
            "M23",
        )


def read_metadata(store: Place, *, allow_incomplete: bool = False) -> StoreMetadata:
    """Read the store's attributes; raises as ``StoreMetadata.from_attributes`` does."""
    try:
        group = read_group(store)
    except BucketError:
        raise
    except StoreError as exc:
        if not isinstance(exc.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        advice = f"is this the path of a store? Make one with: robozarr convert SOURCE --store {store}"
        raise StoreError(f"{store.at('zarr.json')}: missing; {advice}") from exc
    return StoreMetadata.from_attributes(group.attributes, store.url, allow_incomplete=allow_incomplete)


def read_layout(store: Place, path: str, bound: StoreMetadata | None = None) -> ArrayLayout:
    """Read an array's layout from its ``zarr.json``; StoreError if FORMAT.md does not allow it, or it claims too much.

    With `bound`, the attributes of a store, the document must be the one that they bind, and so below; CorruptChunkError.
    """
    document, data = _read_document(store, path)
    layout = parse_array_document(path, document)
    claims = {
        "rows": (layout.shape[0], MOST_ROWS),
        "shards": (layout.n_shards, MOST_SHARDS),
        "chunks in a shard": (layout.chunks_per_shard, MOST_CHUNKS),
        "bytes in a chunk": (layout.chunk_rows * layout.row_bytes, MOST_CHUNK_BYTES),
        "bytes in a shard": (min(layout.shard_rows, layout.shape[0] + layout.chunk_rows) * layout.row_bytes, MOST_SHARD_BYTES),
    }
    for what, (claimed, most) in claims.items():
        if claimed > most:
            raise StoreError(f"{store.at(path)}/zarr.json: at most {most} {what}; found {claimed} → convert again")
    check_bound(bound, path, None, google_crc32c.value(data), f"{path}/zarr.json")
    return layout


def read_shard(
    store: Place, layout: ArrayLayout, shard: int, *, below: Place | None = None, bound: StoreMetadata | None = None
) -> NDArray[Any]:
    """Read the rows of one shard. If `store` is the stage of an append, missing shards are read from the store `below`.

    Raises
    ------
    CorruptChunkError
        If the shard is missing, unreadable, or not what was written; the text names array, shard and chunk.
    """
    path = layout.shard_path(shard)
    root = store if below is None or store.exists(path) else below
    with memory_for(path):
        data = read_shard_bytes(root, layout, shard)
        rows = decode_shard(data, layout, shard)  # first: what it says of a damaged file is more exact
        check_bound(bound, layout.path, shard, shard_sum(data, layout, shard), path)
        return rows


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Turn errors about impossible amounts of memory into an error that names what claims them.

    Raises
    ------
    StoreError
        In the place of a MemoryError, an OverflowError, numpy's ValueError, the system's "cannot allocate".
    """
    try:
        yield
    except (MemoryError, OverflowError, ValueError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno not in (errno.ENOMEM, errno.EFBIG, errno.ENOSPC):
            raise
        raise StoreError(
            f"{what}: not enough memory for what it claims to hold: {exc or 'none left'} → run: robozarr verify"
        ) from exc


def read_shard_bytes(store: Place, layout: ArrayLayout, shard: int) -> bytes:
    """Read the bytes of one shard; CorruptChunkError if it is missing or unreadable."""
    try:
        return store.read(layout.shard_path(shard), shard_bytes_max(layout))
    except BucketError:
        raise
    except OSError as exc:
        raise CorruptChunkError(
            f"{layout.path} · shard {shard} ({layout.shard_path(shard)}): every expected shard must exist and be readable; "
            f"found {exc.strerror or exc} → restore the shard from a copy, or convert again",
            "M7",
        ) from exc


def shard_bytes_max(layout: ArrayLayout) -> int:
    """Largest shard that is accepted: no encoder makes a chunk much larger than it was."""
    n_chunks = min(layout.chunks_per_shard, -(-layout.shape[0] // layout.chunk_rows))
    chunk_bytes = layout.chunk_rows * layout.row_bytes
    return n_chunks * (chunk_bytes + chunk_bytes // 64 + 1024) + INDEX_ENTRY_BYTES * layout.chunks_per_shard + CRC_BYTES


def check_claim(store: Place, layout: ArrayLayout) -> None:
    """M7, for the last shard: refuse an array that claims many shards where there are few. Checks folders only.

    Raises
    ------
    CorruptChunkError
        If the shard is missing.
    """
    last = layout.n_shards - 1
    if store.folder is not None and last >= MANY_SHARDS and not store.exists(layout.shard_path(last)):
        raise CorruptChunkError(
            f"{layout.path} · shard {last} ({layout.shard_path(last)}): every expected shard must exist; of {last + 1} that "
            "are claimed, the last is missing → restore it from a copy, or convert again",
            "M7",
        )


def read_array(
    store: Place, layout: ArrayLayout, run: Callable[..., Iterable[Any]] = map, bound: StoreMetadata | None = None
) -> NDArray[Any]:
    """Read all rows of a small array. `run` is like ``map``: shards one after the other, or at the same time."""
    check_claim(store, layout)
    parts: list[NDArray[Any]] = []
    for first in range(0, layout.n_shards, MANY_SHARDS):
        numbers = range(first, min(first + MANY_SHARDS, layout.n_shards))
        parts += run(lambda shard: read_shard(store, layout, shard, bound=bound), numbers)
    with memory_for(store.at(layout.path)):
        return np.concatenate(parts) if parts else np.empty(layout.shape, layout.dtype)

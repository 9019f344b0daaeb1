"""Owns what a conversion puts on disk: the skeleton of a store, its tables, one partition at a time.

A file appears under its name whole or not at all: a unique temporary name, fsync, rename. Imports no Dask.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.plan import Plan
from robozarr.convert.shard import encode_shard
from robozarr.convert.source import SourceFile
from robozarr.convert.stats import FrameMoments, frame_moments
from robozarr.convert.types import Partition
from robozarr.schemas.errors import StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import chunk_checksums
from robozarr.schemas.store import ATTRIBUTE, StoreMetadata
from robozarr.schemas.zarr_json import array_document, document_bytes, group_document

__all__ = ["PartitionResult", "init_store", "write_array", "write_atomic", "write_metadata", "write_partition"]

TEMPORARY: Final = ".robozarr-tmp"
"""Ending of temporary names; no name in a store ends so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionResult:
    """What a task that wrote a partition reports."""

    path: str
    """Path of the array."""
    shard: int
    n_bytes: int
    """Decoded size of its values."""
    stored_bytes: int
    """Size of the shard on disk."""
    moments: FrameMoments | None
    """Its share of the key's statistics, for frames."""
    checksums: NDArray[np.uint32] | None
    """What its chunks end in, for frames."""


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` under `path`, whole or not at all, and on the disk before the name appears."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            f"{path}: cannot be written: {exc.strerror or exc}; make room or change the rights, then convert with --overwrite"
        ) from exc


def make_folder(path: Path) -> None:
    """Make a folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(
            f"{path}: the folder cannot be made: {exc.strerror or exc}; choose another --store or change the rights"
        ) from exc


def init_store(store: Path, plan: Plan) -> None:
    """Make the store's groups and arrays, and write every table that the plan determines. Not complete yet."""
    make_folder(store)
    write_metadata(store, plan.metadata)
    for group in sorted({parent for path in plan.layouts for parent in _parents(path)}):
        make_folder(store / group)
        write_atomic(store / group / "zarr.json", document_bytes(group_document()))
    for path, layout in plan.layouts.items():
        make_folder(store / path)
        write_atomic(store / path / "zarr.json", document_bytes(array_document(layout)))
    for path, values in plan.tables.items():
        write_array(store, plan.layouts[path], values)


def write_metadata(store: Path, metadata: StoreMetadata) -> None:
    """Write the root group's ``zarr.json``."""
    write_atomic(store / "zarr.json", document_bytes(group_document({ATTRIBUTE: metadata.to_json()})))


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))


def write_array(store: Path, layout: ArrayLayout, values: NDArray[Any]) -> None:
    """Write every shard of a table."""
    if values.shape != layout.shape:
        raise StoreError(f"{layout.path}: values of shape {values.shape} for an array of {layout.shape}")
    for shard in range(layout.n_shards):
        start, stop = layout.rows_of_shard(shard)
        _write_shard(store, layout, shard, encode_shard(values[start:stop].astype(layout.dtype, copy=False), layout))


def _write_shard(store: Path, layout: ArrayLayout, shard: int, data: bytes) -> None:
    path = store / layout.shard_path(shard)
    make_folder(path.parent)
    write_atomic(path, data)


def write_partition(store: str, partition: Partition) -> PartitionResult:
    """Read one partition's rows from their sources, encode them, write the shard. Runs in a worker."""
    rows = read_partition(partition)
    data = encode_shard(rows, partition.layout)
    _write_shard(Path(store), partition.layout, partition.shard, data)
    frames = partition.key is not None and partition.key.frame
    return PartitionResult(
        path=partition.layout.path,
        shard=partition.shard,
        n_bytes=rows.nbytes,
        stored_bytes=len(data),
        moments=partition_moments(partition, rows),
        checksums=chunk_checksums(data, partition.layout, partition.shard) if frames else None,
    )


def partition_moments(partition: Partition, rows: NDArray[Any]) -> FrameMoments | None:
    """A partition's share of its key's statistics; None unless it holds frames."""
    if partition.key is None or not partition.key.frame:
        return None
    runs = [(segment.episode, segment.at, segment.at + segment.stop - segment.start) for segment in partition.segments]
    return frame_moments(rows, runs, partition.key)


def read_partition(partition: Partition) -> NDArray[Any]:
    """The rows of a partition [n, …], from its sources.

    Raises
    ------
    SourceError
        If a source changed since it was scanned, or cannot be read; the text names file, demo and key.
    """
    layout = partition.layout
    rows = np.empty((partition.n_rows, *layout.shape[1:]), layout.dtype)
    source: SourceFile | None = None
    try:
        for segment in partition.segments:
            if source is None or source.path != segment.path:
                if source is not None:
                    source.close()
                source = SourceFile(segment.path)
                source.expect(segment.size, segment.mtime_ns)
            out = rows[segment.at : segment.at + segment.stop - segment.start]
            if partition.kind == "rows":
                source.read_rows(segment.demo, partition.source, segment.start, segment.stop, out)
            else:
                out[:] = _flat_values(source, partition, segment.demo, segment.start, segment.stop)
    finally:
        if source is not None:
            source.close()
    return rows


def _flat_values(source: SourceFile, partition: Partition, demo: str, start: int, stop: int) -> NDArray[Any]:
    """Values [start, stop) of what a demo contributes to a one-dimensional column."""
    if partition.kind == "text":
        return np.frombuffer(source.text_attribute(demo, partition.source), np.uint8)[start:stop]
    if partition.kind == "vector":
        return source.float_attribute(demo, partition.source)[start:stop]
    width = source.width(demo, partition.source)
    first, last = start // width, -(-stop // width)
    values = source.read_rows(demo, partition.source, first, last).reshape(-1)
    return values[start - first * width : stop - first * width]


def remove_temporaries(store: Path) -> None:
    """Remove what writers that were killed left behind."""
    for path in store.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)

"""Owns what a conversion puts on disk: the skeleton of a store, its tables, one partition at a time.

A file appears under its name whole or not at all: a unique temporary name, fsync, rename. Imports no Dask.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.convert.journal import digest
from robozarr.convert.plan import Plan
from robozarr.convert.shard import checksums_of, encode_chunks
from robozarr.convert.source import SourceFile
from robozarr.convert.stats import FrameMoments, frame_moments
from robozarr.convert.types import Done, Partition
from robozarr.schemas.errors import CorruptChunkError, SourceError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.reading import read_shard
from robozarr.schemas.shard import chunk_checksums, decode_shard
from robozarr.schemas.store import ATTRIBUTE, GROUPS, TEMPORARY, StoreMetadata
from robozarr.schemas.zarr_json import array_document, document_bytes, group_document

__all__ = [
    "PartitionResult",
    "WriteTask",
    "init_store",
    "prune",
    "read_partition",
    "remove_temporaries",
    "write_array",
    "write_atomic",
    "write_batch",
    "write_metadata",
]

Buffer = Any  # bytes, or an array of them; what both have in common has no name in Python 3.11
PARTS_PER_CALL: Final = 1024
"""Linux's IOV_MAX."""
DROPPED_BYTES: Final = 2**20
"""Files from this size on do not stay in the page cache."""


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
    done: Done
    """What the journal records of it."""
    kept: bool
    """Whether it was there already, from a run before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTask:
    """A partition to be written, unless what a run before wrote is still there."""

    partition: Partition
    done: Done | None


def write_atomic(path: Path, parts: Sequence[Buffer]) -> None:
    """Put `parts` end to end under `path`, whole or not at all, and on the disk before the name appears."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, parts)
            os.fsync(descriptor)
            _drop_from_cache(descriptor, parts)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        reason = exc.strerror or exc
        raise StoreError(f"{path}: cannot be written: {reason}; make room or change the rights, then convert again") from exc


def _drop_from_cache(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Let the kernel take back the pages of a large file that is on the disk now.

    Else a store pushes everything out of memory, its own sources first, and each of its pages is a fresh one: on a virtual
    machine 4.95 ms of CPU a MB of source instead of 3.87. What verifies the store afterwards sees the disk, not a copy.
    """
    if hasattr(os, "posix_fadvise") and sum(len(part) for part in parts) >= DROPPED_BYTES:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _write_all(descriptor: int, parts: Sequence[Buffer]) -> None:
    """Write parts as they are: joining them first would copy every byte once more."""
    views = [memoryview(part) for part in parts]
    for start in range(0, len(views), PARTS_PER_CALL):
        group = views[start : start + PARTS_PER_CALL]
        while group:
            n = os.writev(descriptor, group)
            while group and n >= len(group[0]):
                n -= len(group.pop(0))
            if group:
                group[0] = group[0][n:]


def make_folder(path: Path) -> None:
    """Make a folder and its parents."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StoreError(
            f"{path}: the folder cannot be made: {exc.strerror or exc}; choose another --store or change the rights"
        ) from exc


def init_store(root: Path, plan: Plan, *, below: Path | None = None) -> None:
    """Make the groups and arrays below `root`, and write every table that the plan determines. Not complete yet.

    Where `root` is the stage of an append, what the store `below` it holds already is not written again.
    """
    make_folder(root)
    for group in sorted({parent for path in plan.layouts for parent in _parents(path)}):
        _put(root, f"{group}/zarr.json", [document_bytes(group_document())], below)
    for path, layout in plan.layouts.items():
        _put(root, f"{path}/zarr.json", [document_bytes(array_document(layout))], below)
    for path, values in plan.tables.items():
        write_array(root, plan.layouts[path], values, below=below)


def _put(root: Path, name: str, parts: Sequence[Buffer], below: Path | None) -> None:
    """Write a file, unless the store below has the same."""
    if below is not None and _holds(below / name, parts):
        (root / name).unlink(missing_ok=True)  # an earlier run may have planned otherwise
        return
    make_folder((root / name).parent)
    write_atomic(root / name, parts)


def _holds(path: Path, parts: Sequence[Buffer]) -> bool:
    size = sum(len(part) for part in parts)
    return path.is_file() and path.stat().st_size == size and path.read_bytes() == b"".join(parts)


def write_metadata(store: Path, metadata: StoreMetadata) -> None:
    """Write the root group's ``zarr.json``."""
    write_atomic(store / "zarr.json", [document_bytes(group_document({ATTRIBUTE: metadata.to_json()}))])


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))


def write_array(root: Path, layout: ArrayLayout, values: NDArray[Any], *, below: Path | None = None) -> None:
    """Write every shard of a table; of an append, those that the store `below` does not hold already."""
    if values.shape != layout.shape:
        raise StoreError(f"{layout.path}: values of shape {values.shape} for an array of {layout.shape}")
    for shard in range(layout.n_shards):
        start, stop = layout.rows_of_shard(shard)
        rows = values[start:stop].astype(layout.dtype, copy=False)
        _put(root, layout.shard_path(shard), encode_chunks(rows, layout), below)


def write_batch(tasks: Sequence[WriteTask], root: str, store: str) -> list[PartitionResult | SourceError]:
    """Read partitions from their sources, encode them, write their shards below `root`. Runs in a worker.

    `store` holds the rows that an array has already, for an append. While one partition is encoded, the next is read and
    the last is written: at most three are held at once. A source that cannot be read is a result too, in its partition's place.
    """
    results: list[PartitionResult | SourceError] = []
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        writing: Future[PartitionResult] | None = None
        ahead = iter(tasks)
        reading = deque(_begin_reading(reader, root, store, task) for task in islice(ahead, 1))
        for task in tasks:
            reading.extend(_begin_reading(reader, root, store, task) for task in islice(ahead, 1))
            read, moments = reading.popleft()
            try:
                rows, checksums = read.result()
            except SourceError as exc:
                results.append(exc)
                continue
            parts = None if checksums is not None else encode_chunks(rows, task.partition.layout)
            if writing is not None:
                results.append(writing.result())
            writing = writer.submit(_write_task, root, task, moments, parts, checksums)
            del rows, read
        if writing is not None:
            results.append(writing.result())
    return results


Rows = tuple[NDArray[Any], NDArray[np.uint32] | None]
"""The rows of a partition; and, if they are those that a run before wrote, what their chunks end in."""


def _begin_reading(
    reader: ThreadPoolExecutor, root: str, store: str, task: WriteTask
) -> tuple[Future[Rows], Future[FrameMoments | None]]:
    """Rows of a partition, and what they are reduced to: in the reader's thread too, but the rows can be encoded before."""
    rows = reader.submit(_read_task, root, store, task)
    return rows, reader.submit(lambda: partition_moments(task.partition, rows.result()[0]))


def _read_task(root: str, store: str, task: WriteTask) -> Rows:
    found = None if task.done is None else _read_back(Path(root), task.partition, task.done)
    return (read_partition(task.partition, store=Path(store)), None) if found is None else found


def _read_back(root: Path, partition: Partition, done: Done) -> tuple[NDArray[Any], NDArray[np.uint32]] | None:
    """Rows and checksums of a finished partition; None unless its file has the size and the checksum that were recorded."""
    try:
        data = (root / partition.layout.shard_path(partition.shard)).read_bytes()
    except OSError:
        return None
    if (len(data), google_crc32c.value(data)) != (done.size, done.crc32c):
        return None
    try:
        rows = decode_shard(data, partition.layout, partition.shard)
        return rows, chunk_checksums(data, partition.layout, partition.shard)
    except CorruptChunkError:
        return None


def _write_task(
    root: str,
    task: WriteTask,
    moments: Future[FrameMoments | None],
    parts: Sequence[Buffer] | None,
    checksums: NDArray[np.uint32] | None,
) -> PartitionResult:
    partition = task.partition
    frames = partition.key is not None and partition.key.frame
    if parts is None:
        assert task.done is not None
        done = task.done
    else:
        _put(Path(root), partition.layout.shard_path(partition.shard), parts, None)
        checksums = checksums_of(parts)
        checksum = 0
        for part in parts:
            checksum = google_crc32c.extend(checksum, part)
        size = sum(len(part) for part in parts)
        path = partition.layout.path
        done = Done(path=path, shard=partition.shard, size=size, crc32c=checksum, digest=digest(partition))
    return PartitionResult(
        path=partition.layout.path,
        shard=partition.shard,
        n_bytes=partition.n_bytes,
        stored_bytes=done.size,
        moments=moments.result(),
        checksums=checksums if frames else None,
        done=done,
        kept=parts is None,
    )


def partition_moments(partition: Partition, rows: NDArray[Any]) -> FrameMoments | None:
    """A partition's share of its key's statistics; None unless it holds frames."""
    if partition.key is None or not partition.key.frame:
        return None
    runs = [(segment.episode, segment.at, segment.at + segment.stop - segment.start) for segment in partition.segments]
    return frame_moments(rows, runs, partition.key)


def read_partition(partition: Partition, *, store: Path | None = None) -> NDArray[Any]:
    """The rows of a partition [n, …], from its sources; those that the array has already, from `store`.

    Raises
    ------
    SourceError
        If a source changed since it was scanned, or cannot be read; the text names file, demo and key.
    """
    layout = partition.layout
    rows = np.empty((partition.n_rows, *layout.shape[1:]), layout.dtype)
    if partition.n_kept:
        assert store is not None
        old = replace(layout, shape=(partition.old_rows, *layout.shape[1:]))
        rows[: partition.n_kept] = read_shard(store, old, partition.shard)
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


def prune(root: Path, layouts: Mapping[str, ArrayLayout]) -> None:
    """Remove what an earlier plan wrote below `root` and this one does not call for."""
    groups = {parent for path in layouts for parent in _parents(path)}
    for document in sorted(root.rglob("zarr.json"), reverse=True):
        path = document.parent.relative_to(root).as_posix()
        if path != "." and path not in layouts and path not in groups and path.split("/")[0] in GROUPS:
            shutil.rmtree(document.parent)
    for path, layout in layouts.items():
        for shard in (root / path / "c").glob("*"):
            if shard.name.isdecimal() and int(shard.name) >= layout.n_shards:
                shutil.rmtree(shard) if shard.is_dir() else shard.unlink()


def remove_temporaries(store: Path) -> None:
    """Remove the files that writers that were killed left behind."""
    for path in store.rglob(f".*{TEMPORARY}"):
        if not path.is_dir():
            path.unlink(missing_ok=True)

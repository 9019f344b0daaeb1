"""Write a store: its empty arrays, its tables, one partition at a time.

A file appears under its name whole or not at all (``store.place``). Imports no Dask.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import call
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.plan import Plan
from robozarr.convert.records import FinishedPartition, Partition
from robozarr.convert.resuming.fence import Fence
from robozarr.convert.resuming.journal import digest
from robozarr.convert.sources.opening import Source, open_source
from robozarr.convert.writing.owned import parent_groups, temporaries, unplanned_files
from robozarr.convert.writing.read import read_stored
from robozarr.convert.writing.samples import Sample, sample_frames
from robozarr.convert.writing.shard import checksums_of, encode_chunks, sum_of
from robozarr.convert.writing.stats import FrameMoments, fingerprints_of, frame_moments
from robozarr.schemas.errors import BucketError, CorruptChunkError, SourceError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import ATTRIBUTE, StoreMetadata
from robozarr.schemas.shard import decode_shard, shard_sum, step_checksums
from robozarr.schemas.zarr_json import array_document, document_bytes, group_document
from robozarr.store.concurrent import run_concurrently
from robozarr.store.place import Buffer, Place
from robozarr.store.reading import read_shard

__all__ = [
    "PartitionResult",
    "WriteTask",
    "init_store",
    "prune",
    "read_partition",
    "remove_temporaries",
    "write_array",
    "write_batch",
    "write_metadata",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionResult:
    """The result of a task that wrote a partition."""

    path: str
    """Path of the array."""
    shard: int
    n_bytes: int
    """Decoded size of its values."""
    stored_bytes: int
    """Size of the shard on disk."""
    moments: FrameMoments | None
    """Its contribution to the key's statistics, for frames."""
    checksums: NDArray[np.uint32] | None
    """Checksums of its steps (``checksums/``), for frames."""
    fingerprints: NDArray[np.uint32] | None
    """Fingerprints of its steps (``fingerprints/``), for frames."""
    sample: Sample | None
    """Size of some of its frames in the profiles with keyframes, if a sample was wanted."""
    finished: FinishedPartition
    """Its record in the journal."""
    kept: bool
    """Whether an earlier run had already written it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTask:
    """A partition to write, unless an earlier run's file is still there."""

    partition: Partition
    finished: FinishedPartition | None
    sampled: int = 0
    """Chunks of its frames to sample."""


def init_store(root: Place, plan: Plan, *, below: Place | None = None) -> dict[str, int]:
    """Make the groups and arrays below `root` and write every table of the plan. The store is not complete yet.

    Where `root` is the stage of an append, what the store `below` it holds already is not written again. Returns what binds
    each file (M23) by its name.
    """
    groups = sorted({parent for path in plan.layouts for parent in parent_groups(path)})
    documents = {group: document_bytes(group_document()) for group in groups}
    documents |= {path: document_bytes(array_document(layout)) for path, layout in plan.layouts.items()}
    put: list[Callable[[], dict[str, int]]] = [
        partial(_write_document, root, f"{path}/zarr.json", data, below) for path, data in documents.items()
    ]
    put += [partial(write_array, root, plan.layouts[path], table, below=below) for path, table in plan.tables.items()]
    if root.folder is None:  # the time is that of the way there and back
        written = run_concurrently(call, put)
    else:
        written = [each() for each in put]
    return {name: checksum for files in written for name, checksum in files.items()}


def _write_document(root: Place, name: str, data: bytes, below: Place | None) -> dict[str, int]:
    _put(root, name, [data], below)
    return {name: google_crc32c.value(data)}


def _put(root: Place, name: str, parts: Sequence[Buffer], below: Place | None) -> None:
    """Write a file, unless the store below has the same one."""
    if below is not None and _holds(below, name, parts):
        root.remove([name])  # an earlier run may have planned otherwise
        return
    root.write(name, parts)


def _holds(place: Place, name: str, parts: Sequence[Buffer]) -> bool:
    try:
        return place.read(name) == b"".join(parts)
    except FileNotFoundError:
        return False


def write_metadata(store: Place, metadata: StoreMetadata) -> None:
    """Write the root group's ``zarr.json``; a writer that was killed must not change a root that came after its own."""
    store.replace("zarr.json", [document_bytes(group_document({ATTRIBUTE: metadata.to_json()}))])


def write_array(root: Place, layout: ArrayLayout, values: NDArray[Any], *, below: Place | None = None) -> dict[str, int]:
    """Write every shard of a table; of an append, those that the store `below` lacks. Returns the checksum that binds each."""
    if values.shape != layout.shape:
        raise StoreError(f"{layout.path}: values of shape {values.shape} for an array of {layout.shape}")
    sums: dict[str, int] = {}
    for shard in range(layout.n_shards):
        start, stop = layout.rows_of_shard(shard)
        rows = values[start:stop].astype(layout.dtype, copy=False)
        parts = encode_chunks(rows, layout)
        _put(root, layout.shard_path(shard), parts, below)
        sums[layout.shard_path(shard)] = sum_of(parts, layout)
    return sums


def write_batch(tasks: Sequence[WriteTask], root: Place, store: Place, fence: Fence) -> list[PartitionResult | SourceError]:
    """Read partitions from their sources, encode them, write their shards below `root`. Runs in a worker.

    `store` holds the rows that an array has already, for an append. While one partition is encoded, the next is read and
    the last is written: at most three are held at once. A source that cannot be read is a result too, in its partition's place.
    """
    results: list[PartitionResult | SourceError] = []
    fence.check()  # before anything is read for nothing; and again before every file
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        writing: Future[PartitionResult] | None = None
        ahead = iter(tasks)
        reading = deque(_begin_reading(reader, root, store, task) for task in islice(ahead, 1))
        for task in tasks:
            reading.extend(_begin_reading(reader, root, store, task) for task in islice(ahead, 1))
            read, reduced = reading.popleft()
            try:
                rows, checksums = read.result()
            except SourceError as exc:
                results.append(exc)
                continue
            parts = None if checksums is not None else encode_chunks(rows, task.partition.layout, task.partition.begins)
            sample = sample_frames(rows, task.partition, task.sampled) if task.sampled else None
            if writing is not None:
                results.append(writing.result())
            writing = writer.submit(_write_task, root, fence, task, reduced, parts, checksums, sample)
            del rows, read
        if writing is not None:
            results.append(writing.result())
    return results


Rows = tuple[NDArray[Any], NDArray[np.uint32] | None]
"""The rows of a partition; and their checksums, if an earlier run wrote them."""
Reduced = tuple[FrameMoments | None, NDArray[np.uint32] | None]
"""What is computed from frames: their contribution to the statistics, and a fingerprint of each one's values."""


def _begin_reading(
    reader: ThreadPoolExecutor, root: Place, store: Place, task: WriteTask
) -> tuple[Future[Rows], Future[Reduced]]:
    """Read a partition's rows and reduce them, both in the reader's thread; the rows can be encoded before they are reduced."""
    rows = reader.submit(_read_task, root, store, task)
    return rows, reader.submit(lambda: reduce_rows(task.partition, rows.result()[0]))


def _read_task(root: Place, store: Place, task: WriteTask) -> Rows:
    found = None if task.finished is None else _read_back(root, task.partition, task.finished)
    return (read_partition(task.partition, store=store), None) if found is None else found


def _read_back(
    root: Place, partition: Partition, finished: FinishedPartition
) -> tuple[NDArray[Any], NDArray[np.uint32]] | None:
    """Rows and checksums of a finished partition; None unless its file has the recorded size and checksum."""
    try:
        data = root.read(partition.layout.shard_path(partition.shard))
    except BucketError:
        raise
    except OSError:
        return None
    try:
        if (len(data), shard_sum(data, partition.layout, partition.shard)) != (finished.size, finished.crc32c):
            return None
        rows = decode_shard(data, partition.layout, partition.shard)
        return rows, step_checksums(data, partition.layout, partition.shard)
    except CorruptChunkError:
        return None


def _write_task(
    root: Place,
    fence: Fence,
    task: WriteTask,
    reduced: Future[Reduced],
    parts: Sequence[Buffer] | None,
    checksums: NDArray[np.uint32] | None,
    sample: Sample | None,
) -> PartitionResult:
    partition = task.partition
    frames = partition.key is not None and partition.key.frame
    if parts is None:
        assert task.finished is not None
        finished = task.finished
    else:
        root.write(partition.layout.shard_path(partition.shard), parts, fence.check)
        checksums = checksums_of(parts, partition.layout)
        size = sum(len(part) for part in parts)
        path = partition.layout.path
        finished = FinishedPartition(
            path=path, shard=partition.shard, size=size, crc32c=sum_of(parts, partition.layout), digest=digest(partition)
        )
    return PartitionResult(
        path=partition.layout.path,
        shard=partition.shard,
        n_bytes=partition.n_bytes,
        stored_bytes=finished.size,
        moments=reduced.result()[0],
        checksums=checksums if frames else None,
        fingerprints=reduced.result()[1],
        sample=sample,
        finished=finished,
        kept=parts is None,
    )


def reduce_rows(partition: Partition, rows: NDArray[Any]) -> Reduced:
    """A partition's contribution to its key's statistics, and its fingerprints; None unless it holds frames."""
    if partition.key is None or not partition.key.frame:
        return None, None
    runs = [(segment.episode, segment.at, segment.at + segment.stop - segment.start) for segment in partition.segments]
    return frame_moments(rows, runs, partition.key), fingerprints_of(rows)


def read_partition(partition: Partition, *, store: Place | None = None) -> NDArray[Any]:
    """The rows of a partition [n, …], from its sources; rows that the array already has come from `store`.

    Raises
    ------
    SourceError
        If a source changed since it was scanned, or cannot be read; the text names file, demo and key.
    CorruptChunkError
        If what `store` has is not what was written for it.
    """
    layout = partition.layout
    if partition.stored is not None:
        assert store is not None
        start, stop = layout.rows_of_shard(partition.shard)
        return read_stored(store, partition.stored, start, stop)
    rows = np.empty((partition.n_rows, *layout.shape[1:]), layout.dtype)
    if partition.n_kept:
        assert store is not None
        old = replace(layout, shape=(partition.old_rows, *layout.shape[1:]))
        rows[: partition.n_kept] = read_shard(store, old, partition.shard)
    source: Source | None = None
    try:
        for segment in partition.segments:
            if source is None or source.path != segment.path:
                if source is not None:
                    source.close()
                source = open_source(segment.path)
                source.expect(segment.size, segment.mtime_ns)
            source.set_group(segment.demo, segment.group)
            out = rows[segment.at : segment.at + segment.stop - segment.start]
            if partition.key is not None and partition.key.decoded:
                source.read_frames(segment.demo, partition.source, segment.start, segment.stop, out)
            elif partition.kind == "rows":
                source.read_rows(segment.demo, partition.source, segment.start, segment.stop, out)
            else:
                out[:] = _flat_values(source, partition, segment.demo, segment.start, segment.stop)
    finally:
        if source is not None:
            source.close()
    return rows


def _flat_values(source: Source, partition: Partition, demo: str, start: int, stop: int) -> NDArray[Any]:
    """Values [start, stop) of a demo's contribution to a one-dimensional column."""
    if partition.kind == "text":
        return np.frombuffer(source.text_attribute(demo, partition.source), np.uint8)[start:stop]
    if partition.kind == "vector":
        return source.float_attribute(demo, partition.source)[start:stop]
    width = source.width(demo, partition.source)
    first, last = start // width, -(-stop // width)
    values = source.read_rows(demo, partition.source, first, last).reshape(-1)
    return values[start - first * width : stop - first * width]


def prune(root: Place, layouts: Mapping[str, ArrayLayout]) -> None:
    """Remove files of an earlier plan below `root` that this plan does not need."""
    root.remove(unplanned_files(root, layouts))


def remove_temporaries(store: Place) -> None:
    """Remove the temporary files of killed writers; a bucket has none."""
    if store.folder is not None:
        store.remove(temporaries(store.names()))

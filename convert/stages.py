"""The stages of a conversion that run on an executor: scan, write partitions, statistics. ``convert.run`` calls them in order.

A file that takes workers down is found here: what they died over is run again by itself, in a child process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.infer import Base, OnError
from robozarr.convert.planning.plan import Plan
from robozarr.convert.records import FileScan, FinishedPartition, Partition
from robozarr.convert.resuming.fence import Fence
from robozarr.convert.resuming.journal import Journal, digest
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.sources.opening import scan_source, unusable
from robozarr.convert.workers.child_process import ChildDied, ChildProcess
from robozarr.convert.workers.executor import Executor, died
from robozarr.convert.workers.progress import Progress
from robozarr.convert.writing.read import column_blocks, episode_checksums
from robozarr.convert.writing.samples import Sample, estimated_sizes, sampled_shards
from robozarr.convert.writing.stats import QUANTILES, MomentsOfKey, episode_statistics, store_statistics
from robozarr.convert.writing.write import PartitionResult, WriteTask, read_partition, write_array, write_batch
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.index import FlagRules
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import EPISODE_STATISTICS, Key
from robozarr.store.place import Place
from robozarr.store.reading import read_array, read_layout, read_shard

__all__ = ["Written", "key_statistics", "scan_sources", "write_partitions", "write_statistics"]

LIMIT_S = 120.0
SLOWEST_BYTES_PER_S = 2e6
"""Slowest expected reading: a task may take `LIMIT_S` plus its bytes at this speed, that of a slow network disk."""
LARGEST_BATCH = 8
"""Most partitions in one task: enough for reading ahead to pay, and for few requests to the scheduler."""


def _limit_s(n_bytes: int) -> float:
    return LIMIT_S + n_bytes / SLOWEST_BYTES_PER_S


def scan_sources(
    executor: Executor,
    paths: Sequence[Path],
    rules: FlagRules,
    selected: tuple[str, ...] | None,
    progress: Progress,
    layouts: tuple[Layout, ...] = (),
    *,
    without: tuple[str, ...] = (),
) -> list[FileScan]:
    """Scan every file, in the order of `paths`. A file that crashes or hangs HDF5 is reported as a problem."""
    progress.start("scan files", len(paths))
    scan = partial(scan_source, rules=rules, selected=selected, without=without, layouts=layouts)
    limit_s = _limit_s(max((path.stat().st_size for path in paths if path.exists()), default=0))
    found: dict[str, FileScan] = {}
    with ChildProcess() as child:
        rescue = partial(_rescue_scan, child, scan, limit_s)
        for result in executor.run(scan, [str(path) for path in paths], limit_s=limit_s, rescue=rescue):
            found[result.path] = result
            progress.advance()
    return [found[str(path)] for path in paths]


def _rescue_scan(child: ChildProcess, scan: partial[FileScan], limit_s: float, path: str) -> FileScan:
    try:
        return child.call(scan, path, limit_s=limit_s)
    except ChildDied as exc:
        return unusable(path, (_harm(path, "", "", exc),))


def _harm(path: str, demo: str, key: str, exc: ChildDied) -> Problem:
    rule, remedy = "HDF5 must read it without a crash", "copy or download the file again, or leave it out with --on-error skip"
    return Problem(file=path, demo=demo, key=key, rule=rule, value=exc.how, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The result of writing the partitions."""

    stored_bytes: int
    """Size of the shards on disk."""
    would_take: Mapping[str, int]
    """The same in the profiles with keyframes, estimated from samples of the frames; empty without frames."""
    n_kept: int
    """Partitions that an earlier run had finished."""
    moments: Mapping[str, MomentsOfKey]
    """Statistics of the new frames, by path of the array."""
    checksums: Mapping[str, NDArray[np.uint32]]
    """Values of ``checksums/`` for all steps of frame keys, by path of the array."""
    fingerprints: Mapping[str, NDArray[np.uint32]]
    """Values of ``fingerprints/``, likewise; empty where the store has none."""
    files: Mapping[str, int]
    """Checksum that binds each shard (M23), by file name."""
    broken: tuple[Problem, ...]
    """Demos that could not be read, under ``--on-error skip``; the store must not be finished."""


def write_partitions(
    executor: Executor,
    journal: Journal,
    fence: Fence,
    root: Place,
    plan: Plan,
    base: Base | None,
    on_error: OnError,
    progress: Progress,
    *,
    origin: Place,
) -> Written:
    """Write every unfinished partition and record each one when it ends; `origin` is the store that already has values."""
    progress.start("write partitions", plan.n_partitions, plan.n_bytes)
    first = 0 if base is None else base.metadata.n_episodes
    moments = {f"steps/{key.name}": MomentsOfKey(key, first_episode=first) for key in plan.metadata.keys if key.frame}
    checksums = {path: _sums_so_far("checksums", path, plan, base, journal.store) for path in moments}
    fingerprints: dict[str, NDArray[np.uint32]] = {}
    if plan.metadata.has_fingerprints:
        fingerprints = {path: _sums_so_far("fingerprints", path, plan, base, journal.store) for path in moments}
    n_kept = 0
    stored: dict[str, int] = {column.layout.path: 0 for column in plan.columns}
    samples: dict[str, Sample] = {}
    broken: dict[tuple[str, str], Problem] = {}
    files: dict[str, int] = {}
    sampled = sampled_shards(plan)
    tasks = (
        WriteTask(partition=partition, finished=finished, sampled=sampled.get((partition.layout.path, partition.shard), 0))
        for partition, finished in _with_finished(plan, journal)
    )
    write = partial(write_batch, root=root, store=origin, fence=fence)
    with ChildProcess() as child:
        rescue = partial(_rescue_batch, child)
        layouts = [column.layout for column in plan.columns]
        largest = max((min(layout.shard_rows, layout.shape[0]) * layout.row_bytes for layout in layouts), default=0)
        limit_s = _limit_s(LARGEST_BATCH * largest)
        limit_s += LARGEST_BATCH * root.patience_s
        for batch in executor.run(write, _batches(tasks, plan.n_partitions, executor), limit_s=limit_s, rescue=rescue):
            for result in batch:
                if isinstance(result, SourceError):
                    if on_error == "stop" or not all(problem.demo for problem in result.problems):
                        raise result
                    for problem in result.problems:
                        broken.setdefault((problem.file, problem.demo), problem)
                    progress.advance()
                    continue
                files[plan.layouts[result.path].shard_path(result.shard)] = result.finished.crc32c
                if not result.kept:
                    journal.record(result.finished)
                stored[result.path] += result.stored_bytes
                n_kept += result.kept
                if result.sample is not None:
                    so_far = samples.get(result.path)
                    samples[result.path] = result.sample if so_far is None else so_far.plus(result.sample)
                if result.moments is not None:
                    moments[result.path].add(result.shard, result.moments)
                if result.checksums is not None:
                    rows = slice(*plan.layouts[result.path].rows_of_shard(result.shard))
                    checksums[result.path][rows] = result.checksums
                if result.fingerprints is not None and result.path in fingerprints:
                    rows = slice(*plan.layouts[result.path].rows_of_shard(result.shard))
                    fingerprints[result.path][rows] = result.fingerprints
                progress.advance(1, result.n_bytes)
    if n_kept:
        progress.note(f"kept {n_kept} of {plan.n_partitions} partitions, which an earlier run had finished")
    return Written(
        stored_bytes=sum(stored.values()),
        would_take=estimated_sizes(plan, samples, stored),
        n_kept=n_kept,
        moments=moments,
        checksums=checksums,
        fingerprints=fingerprints,
        files=files,
        broken=tuple(broken.values()),
    )


def _sums_so_far(table: str, path: str, plan: Plan, base: Base | None, store: Place) -> NDArray[np.uint32]:
    """An array for the checksums of a frame key's steps; for an append, filled with those that the store has."""
    sums = np.zeros(plan.metadata.n_steps, np.uint32)
    if base is not None:
        sums[: base.metadata.n_steps] = read_array(store, base.layouts[path.replace("steps", table, 1)])
    return sums


def _with_finished(plan: Plan, journal: Journal) -> Iterator[tuple[Partition, FinishedPartition | None]]:
    """Every partition, with the journal's record of it if it was planned in the same way."""
    finished = journal.finished()
    for partition in plan.partitions():
        known = finished.get((partition.layout.path, partition.shard))
        yield partition, known if known is not None and known.digest == digest(partition) else None


def _batches(tasks: Iterator[WriteTask], n_left: int, executor: Executor) -> Iterator[list[WriteTask]]:
    """Cut tasks into batches: large ones first, then smaller and smaller, so that all workers end at about the same time."""
    while batch := list(islice(tasks, max(1, min(LARGEST_BATCH, n_left // (2 * executor.n_workers))))):
        n_left -= len(batch)
        yield batch


def _rescue_batch(child: ChildProcess, tasks: list[WriteTask]) -> list[PartitionResult | SourceError]:
    """Find the demos over which workers died; if it is none of them, the machine is at fault."""
    problems = []
    for task in tasks:
        for segment in task.partition.segments if task.partition.stored is None else ():
            part = replace(task.partition, segments=(segment,), old_rows=0)
            try:
                child.call(_read_and_forget, part, limit_s=_limit_s(part.n_bytes))
            except ChildDied as exc:
                problems.append(_harm(segment.path, segment.demo, part.source, exc))
            except SourceError:  # said when the partition is written
                continue
    if not problems:
        raise died(ChildDied("its sources must be readable"))
    return [SourceError("sources cannot be read:", problems)]


def _read_and_forget(partition: Partition) -> None:
    read_partition(partition)


def write_statistics(
    executor: Executor,
    journal: Journal,
    root: Place,
    plan: Plan,
    base: Base | None,
    written: Written,
    progress: Progress,
) -> dict[str, int]:
    """Write the statistics and checksums of every key; returns the checksum that binds each file (M23), by name."""
    files: dict[str, int] = {}
    lengths: NDArray[np.int64] = plan.tables["episodes/length"]
    below = None if base is None else journal.store
    checked = journal.checked(root)
    keys = [key for key in plan.metadata.keys if not key.ragged]
    progress.start("compute statistics", len(keys))
    for key in (key for key in keys if key.frame):
        table, histogram = _frame_statistics(written.moments[f"steps/{key.name}"], lengths, key, base, below)
        whole = store_statistics(key, table, lengths, histogram=histogram, quantiles=None)
        layout = plan.layouts[f"histograms/{key.name}"]
        files |= write_array(checked, layout, histogram.reshape(layout.shape), below=below)
        files |= _write_key_statistics(checked, plan, key, table, whole, below)
        sums = written.checksums[f"steps/{key.name}"]
        files |= write_array(checked, plan.layouts[f"checksums/{key.name}"], sums, below=below)
        if (fingerprints := written.fingerprints.get(f"steps/{key.name}")) is not None:
            files |= write_array(checked, plan.layouts[f"fingerprints/{key.name}"], fingerprints, below=below)
        progress.advance()
    low_dim = [key for key in keys if not key.frame]
    of_key = partial(key_statistics, root=root, below=below)
    for name, table, whole, checksums in executor.run(of_key, low_dim):
        files |= _write_key_statistics(checked, plan, plan.metadata.key(name), table, whole, below)
        files |= write_array(checked, plan.layouts[f"checksums/{name}"], checksums, below=below)
        progress.advance()
    return files


def _frame_statistics(
    moments: MomentsOfKey, lengths: NDArray[np.int64], key: Key, base: Base | None, below: Place | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Statistics per episode and the histogram; of an append, those of the store and of the new frames."""
    if base is None or below is None:
        return moments.combine(lengths)
    table, histogram = moments.combine(lengths[base.metadata.n_episodes :])
    old_table, old_histogram = (
        read_array(below, base.layouts[f"{group}/{key.name}"]) for group in ("episodes/stats", "histograms")
    )
    return np.concatenate([old_table, table]), histogram + old_histogram.reshape(histogram.shape)


def _write_key_statistics(
    root: Place, plan: Plan, key: Key, table: NDArray[np.float64], whole: NDArray[np.float64], below: Place | None
) -> dict[str, int]:
    per_episode = write_array(root, plan.layouts[f"episodes/stats/{key.name}"], table, below=below)
    return per_episode | write_array(root, plan.layouts[f"stats/{key.name}"], whole, below=below)


def key_statistics(
    key: Key, root: Place, below: Place | None = None
) -> tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.uint32]]:
    """Statistics of a low-dim key, read back: its name, per episode, whole store, and checksums. Runs in a worker.

    Where `root` is the stage of an append, what it lacks is in the store `below` it.
    """

    def layout_of(path: str) -> ArrayLayout:
        there = below is None or root.exists(f"{path}/zarr.json")
        return read_layout(root if there or below is None else below, path)

    lengths_layout = layout_of("episodes/length")
    shards = range(lengths_layout.n_shards)
    lengths = np.concatenate([read_shard(root, lengths_layout, shard, below=below) for shard in shards])
    n_elements = int(np.prod(key.shape, dtype=np.int64))
    table = np.empty((len(lengths), len(EPISODE_STATISTICS), n_elements))
    quantiles = np.empty((len(QUANTILES), n_elements))
    for block, values in column_blocks(root, layout_of(f"steps/{key.name}"), below=below):
        table[:, :, block] = episode_statistics(values, lengths)
        with np.errstate(invalid="ignore"):
            quantiles[:, block] = np.quantile(values.astype(np.float64, copy=False), QUANTILES, axis=0)
    table = table.reshape(len(lengths), len(EPISODE_STATISTICS), *key.shape)
    whole = store_statistics(key, table, lengths, histogram=None, quantiles=quantiles.reshape(len(QUANTILES), *key.shape))
    checksums = episode_checksums(root, layout_of(f"steps/{key.name}"), lengths, below=below)
    return key.name, table, whole, checksums

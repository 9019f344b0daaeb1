"""Verify a store: every byte, every rule of FORMAT.md, and on request every bit against the sources.

Trusts neither the converter that wrote the store nor the loader that reads it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.by_hand import given_before
from robozarr.convert.planning.left_out import left_out_of, not_wanted
from robozarr.convert.planning.plan import Plan, make_plan
from robozarr.convert.records import Partition
from robozarr.convert.sources.hdf5 import find_sources
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.stages import key_statistics, scan_sources
from robozarr.convert.verifying.binding import check_binding
from robozarr.convert.verifying.checks import (
    Violation,
    check_checksums,
    check_flags,
    check_statistics,
    check_tables,
    texts_by_hand,
)
from robozarr.convert.verifying.compare import compare_digests, compare_plan, compare_rows, match_sources
from robozarr.convert.verifying.inventory import check_temporaries, is_table, read_layouts, read_tables
from robozarr.convert.verifying.second_decoder import check_second_decoder
from robozarr.convert.verifying.stored_source import plan_of_store, stored_source
from robozarr.convert.workers.cluster import local_executor
from robozarr.convert.workers.executor import Executor
from robozarr.convert.workers.progress import Progress, SilentProgress
from robozarr.convert.writing.stats import FrameMoments, MomentsOfKey, fingerprints_of, frame_moments, store_statistics
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import Key, StoreMetadata
from robozarr.schemas.shard import decode_shard, shard_sum, step_checksums
from robozarr.store.limits import usable_cores
from robozarr.store.locate import place_of
from robozarr.store.place import Place
from robozarr.store.reading import read_array, read_layout, read_metadata, read_shard_bytes

__all__ = ["VerifyReport", "verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The result of ``verify``."""

    store: str
    n_arrays: int
    n_shards: int
    n_bytes: int
    """Bytes read back, decoded."""
    n_steps: int
    n_episodes: int
    compared_with_source: bool
    seconds: float
    violations: tuple[Violation, ...]
    """Every broken rule; empty for a good store."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardTask:
    """One shard to read back."""

    layout: ArrayLayout
    shard: int
    key: Key | None
    """Its key, if moments of frames are needed."""
    runs: tuple[tuple[int, int, int], ...]
    """Episodes in it: (episode, first row, row after the last), counted from the start of the shard."""
    source: Partition | None
    """What the sources hold in its place; None to skip that comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardResult:
    path: str
    shard: int
    n_bytes: int
    violations: tuple[Violation, ...]
    moments: FrameMoments | None
    checksums: NDArray[np.uint32] | None
    fingerprints: NDArray[np.uint32] | None
    bound: int
    """The checksum that binds the file (M23)."""


def verify(
    store: str | Path | Place,
    *,
    endpoint_url: str | None = None,
    sources: str | Path | Place | Sequence[str | Path] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Read back every byte of a store and check every rule of FORMAT.md; with `sources`, compare bit for bit.

    Parameters
    ----------
    store : path or URL
        A store.
    endpoint_url : str, optional
        Of a service that speaks S3, for a store in a bucket. Default: what the environment says.
    sources : path or sequence of paths, optional
        Files, folders or patterns that hold the HDF5 files that it was made from; or one store that must hold the same.
    workers : int, optional
        Dask worker processes; 0 runs in this process. Default: the cores that this process may use.
    progress : Progress, optional
        Hears what the stages do.

    Returns
    -------
    VerifyReport
        With every violation that was found; ``ok`` if there is none.

    Raises
    ------
    StoreError
        If there is no store, its conversion has not ended, or it is of an unknown version; a BucketError if a bucket cannot be
        reached.
    SourceError
        If the sources are not found, or not the store's.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     verify(f"{folder}/sample.zarr", sources="sample", workers=0).ok
    True
    """
    began = time.monotonic()
    root, progress = place_of(store, endpoint_url), progress or SilentProgress()
    metadata = read_metadata(root)
    names = root.names()
    violations = list(check_temporaries(root, names))
    layouts, layout_violations = read_layouts(root, metadata, names)
    violations += layout_violations
    report = partial(
        VerifyReport,
        store=root.url,
        n_arrays=len(layouts),
        n_steps=metadata.n_steps,
        n_episodes=metadata.n_episodes,
        compared_with_source=sources is not None,
    )
    tables, table_violations = read_tables(root, layouts)
    violations += table_violations
    if not violations:
        violations += check_tables(metadata, tables)
    if violations:  # what follows rests on the tables
        return report(n_shards=0, n_bytes=0, seconds=time.monotonic() - began, violations=tuple(violations))
    with local_executor(usable_cores() if workers is None else workers) as executor:
        origin = None if sources is None else stored_source(sources, endpoint_url)
        if origin is not None:
            planned: Plan | None = plan_of_store(origin, metadata.profile)[0]
        else:
            planned = None if sources is None else _plan_of_sources(executor, metadata, tables, _paths(sources), progress)
        plan = planned
        if plan is not None:
            violations += compare_plan(metadata, tables, plan)
            if violations:
                plan = None  # the episodes are others: comparing values would only repeat that
        tasks = list(_shard_tasks(metadata, layouts, tables, plan))
        n_bytes = sum(layout.shape[0] * layout.row_bytes for layout in layouts.values())
        progress.start("read back shards", len(tasks), n_bytes)
        moments = {f"steps/{key.name}": MomentsOfKey(key) for key in metadata.keys if key.frame}
        sums: dict[str, int] = {}
        for result in executor.run(partial(_check_shard, root, origin), tasks):
            violations += result.violations
            sums[layouts[result.path].shard_path(result.shard)] = result.bound
            if result.moments is not None:
                moments[result.path].add(result.shard, result.moments)
            if result.checksums is not None:
                rows = slice(*layouts[result.path].rows_of_shard(result.shard))
                name = result.path.removeprefix("steps/")
                for table, found in (("checksums", result.checksums), ("fingerprints", result.fingerprints)):
                    if found is not None and (stored := tables.get(f"{table}/{name}")) is not None:
                        violations += check_checksums(f"{table}/{name}", stored[rows], found, "step", rows.start)
            progress.advance(1, result.n_bytes)
        if not violations:
            violations += _check_values(executor, root, metadata, tables, moments, progress)
    if not violations:  # a file that breaks another rule is another one too
        violations += check_binding(root, metadata, layouts, sums)
        violations += [] if planned is None else compare_digests(metadata, planned)
    n_shards = sum(layout.n_shards for layout in layouts.values())
    return report(n_shards=n_shards, n_bytes=n_bytes, seconds=time.monotonic() - began, violations=tuple(violations))


def _paths(sources: str | Path | Place | Sequence[str | Path]) -> Sequence[str | Path]:
    if isinstance(sources, str | Path):
        return [sources]
    assert isinstance(sources, Sequence)
    return sources


def _plan_of_sources(
    executor: Executor,
    metadata: StoreMetadata,
    tables: dict[str, NDArray[Any]],
    sources: Sequence[str | Path],
    progress: Progress,
) -> Plan:
    given = find_sources(sources)
    paths = match_sources(metadata, given)
    layouts = tuple(Layout.from_json(layout, "of the store") for layout in metadata.layouts)
    without = not_wanted(metadata)
    files = scan_sources(executor, paths, metadata.flag_rules, metadata.selected_keys, progress, layouts, without=without)
    files = given_before(files, texts_by_hand(metadata, tables))
    left_out, left_out_keys = left_out_of(metadata, files)
    return make_plan(
        files,
        profile=metadata.profile,
        rules=metadata.flag_rules,
        selected=metadata.selected_keys,
        own_layouts=metadata.layouts,
        left_out=left_out,
        left_out_keys=left_out_keys,
        without=without,
    )


def _shard_tasks(
    metadata: StoreMetadata, layouts: dict[str, ArrayLayout], tables: dict[str, NDArray[Any]], plan: Plan | None
) -> Iterator[_ShardTask]:
    keys = {f"steps/{key.name}": key for key in metadata.keys if key.frame}
    columns = {} if plan is None else {column.layout.path: column for column in plan.columns}
    for path, layout in layouts.items():
        if is_table(path):
            continue
        for shard in range(layout.n_shards):
            runs = tuple(_runs(tables, *layout.rows_of_shard(shard))) if path in keys else ()
            source = None
            if plan is not None:
                # the shard as it lies on disk, which another writer may have cut otherwise than the plan does
                source = plan.partition(replace(columns[path], layout=layout), shard)
            yield _ShardTask(layout=layout, shard=shard, key=keys.get(path), runs=runs, source=source)


def _runs(tables: dict[str, NDArray[Any]], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Episodes of the rows [start, stop), as (episode, first row, row after the last) counted from `start`."""
    starts, lengths = tables["episodes/start"], tables["episodes/length"]
    first, last = np.searchsorted(starts, start, "right") - 1, np.searchsorted(starts, stop, "left")
    for episode in range(int(first), int(last)):
        begin, end = int(starts[episode]), int(starts[episode] + lengths[episode])
        yield episode, max(begin, start) - start, min(end, stop) - start


def _check_shard(root: Place, origin: Place | None, task: _ShardTask) -> _ShardResult:
    """Read one shard back. Runs in a worker."""
    violations: list[Violation] = []
    moments = checksums = fingerprints = None
    n_bytes = bound = 0
    try:
        data = read_shard_bytes(root, task.layout, task.shard)
        rows = decode_shard(data, task.layout, task.shard, within=partial(_episode_of, task))
        bound = shard_sum(data, task.layout, task.shard)
        if task.key is not None:
            check_second_decoder(data, task.layout, task.shard, rows)
    except CorruptChunkError as exc:
        violations.append(Violation(rule=exc.rule, text=str(exc)))
    else:
        n_bytes = rows.nbytes
        if task.key is not None:
            checksums = step_checksums(data, task.layout, task.shard)
            moments = frame_moments(rows, task.runs, task.key)
            fingerprints = fingerprints_of(rows)
        if task.source is not None:
            violations += compare_rows(rows, task.source, origin)
    return _ShardResult(
        path=task.layout.path,
        shard=task.shard,
        n_bytes=n_bytes,
        violations=tuple(violations),
        moments=moments,
        checksums=checksums,
        fingerprints=fingerprints,
        bound=bound,
    )


def _episode_of(task: _ShardTask, row: int) -> str:
    """Words for the episode of a row of the array; "" if rows are not steps."""
    at = row - task.layout.rows_of_shard(task.shard)[0]
    return next((f"episode {episode}" for episode, start, stop in task.runs if start <= at < stop), "")


def _check_values(
    executor: Executor,
    root: Place,
    metadata: StoreMetadata,
    tables: dict[str, NDArray[Any]],
    moments: dict[str, MomentsOfKey],
    progress: Progress,
) -> Iterator[Violation]:
    """M12, M18 and M19: derive from the data again what the converter derived."""
    joint_key = metadata.joint_key
    actions = read_array(root, read_layout(root, "steps/actions"))
    joints = None
    if joint_key is not None and any(key.name == joint_key for key in metadata.keys):
        joints = read_array(root, read_layout(root, f"steps/{joint_key}"))
    yield from check_flags(metadata, tables, actions, joints)
    lengths = tables["episodes/length"]
    keys = [key for key in metadata.keys if not key.ragged]
    progress.start("check statistics", len(keys))
    for key in (key for key in keys if key.frame):
        table, histogram = moments[f"steps/{key.name}"].combine(lengths)
        stored = tables[f"histograms/{key.name}"]
        if not np.array_equal(stored, histogram.reshape(stored.shape)):
            yield Violation(rule="M19", text=f"histograms/{key.name}: not the counts of the data")
        whole = store_statistics(key, table, lengths, histogram=histogram, quantiles=None)
        yield from _compare_statistics(tables, key.name, table, whole)
        progress.advance()
    of_key = partial(key_statistics, root=root)
    for name, table, whole, checksums in executor.run(of_key, [key for key in keys if not key.frame]):
        yield from _compare_statistics(tables, name, table, whole)
        yield from check_checksums(f"checksums/{name}", tables[f"checksums/{name}"], checksums, "episode", 0)
        progress.advance()


def _compare_statistics(
    tables: dict[str, NDArray[Any]], name: str, table: NDArray[np.float64], whole: NDArray[np.float64]
) -> Iterable[Violation]:
    rms = table[:, 2:3]
    yield from check_statistics(f"episodes/stats/{name}", tables[f"episodes/stats/{name}"], table, "M18", rms)
    yield from check_statistics(f"stats/{name}", tables[f"stats/{name}"], whole, "M19", rms.max(initial=0.0))

"""Owns a conversion from end to end: scan → plan → init → write → stats → finalise.

Each stage is a function of another module; here they are put in order and run on an executor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.executor import Executor, default_workers, local_executor
from robozarr.convert.plan import Plan, make_plan
from robozarr.convert.progress import Progress, SilentProgress
from robozarr.convert.read import column_blocks, episode_checksums
from robozarr.convert.scan import scan_file
from robozarr.convert.source import find_sources
from robozarr.convert.stats import QUANTILES, MomentsOfKey, episode_statistics, store_statistics
from robozarr.convert.target import check_apart, check_target, clear
from robozarr.convert.types import FileScan
from robozarr.convert.write import init_store, remove_temporaries, write_array, write_metadata, write_partition
from robozarr.schemas.index import FlagRules
from robozarr.schemas.layout import Profile
from robozarr.schemas.reading import read_array, read_layout
from robozarr.schemas.store import EPISODE_STATISTICS, Key

__all__ = ["ConvertReport", "convert", "key_statistics", "scan_sources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What a conversion did, or would do (`dry_run`)."""

    store: str
    profile: Profile
    dry_run: bool
    n_sources: int
    n_tasks: int
    n_episodes: int
    n_steps: int
    keys: tuple[str, ...]
    n_partitions: int
    source_bytes: int
    """Size of the source files."""
    decoded_bytes: int
    """Size of all columns, decoded."""
    stored_bytes: int
    """Size of the columns' shards on disk; 0 for a dry run."""
    seconds: float
    """Wall time, start-up of the workers included."""
    not_stored: tuple[dict[str, Any], ...]
    """What the sources hold and the store does not, and why."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def convert(
    sources: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    profile: Profile = "fast",
    workers: int | None = None,
    overwrite: bool = False,
    keys: Sequence[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Convert HDF5 demonstrations into a Zarr store, bit for bit.

    Parameters
    ----------
    sources : path or sequence of paths
        Files, folders (searched for ``*.hdf5`` and ``*.h5``), or patterns.
    store : path
        Folder that becomes the store.
    profile : {"fast", "raw", "compact"}
        Codec of the data: Blosc-LZ4, none, Blosc-zstd.
    workers : int, optional
        Dask worker processes; 0 runs in this process. Default: the cores that this process may use.
    overwrite : bool
        Replace a robozarr store that is there already.
    keys : sequence of str, optional
        Keys to keep, by name or by path inside a demo; ``actions`` always is. Default: all that are found.
    dry_run : bool
        Scan and plan, write nothing.
    progress : Progress, optional
        Hears what the stages do. Default: nothing is shown.

    Returns
    -------
    ConvertReport

    Raises
    ------
    SourceError
        If sources are not found or break a rule; it lists every problem.
    PlanError
        If `keys` names what no source holds.
    StoreError
        If the store exists and `overwrite` is not given, is no robozarr store, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = convert("sample", f"{folder}/sample.zarr", workers=0)
    >>> report.n_tasks, report.n_episodes
    (2, 4)
    """
    began = time.monotonic()
    store, progress = Path(store), progress or SilentProgress()
    selected = None if keys is None else tuple(keys)
    rules = FlagRules()
    if not dry_run:
        check_target(store, overwrite=overwrite)
    paths = find_sources([sources] if isinstance(sources, str | Path) else sources)
    check_apart(paths, store)
    n_workers = default_workers() if workers is None else workers
    stored_bytes = 0
    try:
        with local_executor(n_workers) as executor:
            files = scan_sources(executor, paths, rules, selected, progress)
            plan = make_plan(files, profile=profile, rules=rules, selected=selected)
            if not dry_run:
                stored_bytes = _write_store(executor, store, plan, progress)
    except BaseException:  # an interrupt too; by now no worker is left that could begin another file
        if not dry_run:
            remove_temporaries(store)
        raise
    metadata = plan.metadata
    return ConvertReport(
        store=str(store),
        profile=profile,
        dry_run=dry_run,
        n_sources=len(files),
        n_tasks=metadata.n_tasks,
        n_episodes=metadata.n_episodes,
        n_steps=metadata.n_steps,
        keys=tuple(key.name for key in metadata.keys),
        n_partitions=plan.n_partitions,
        source_bytes=sum(file.size for file in files),
        decoded_bytes=plan.n_bytes,
        stored_bytes=stored_bytes,
        seconds=time.monotonic() - began,
        not_stored=tuple(asdict(entry) for entry in metadata.not_stored),
    )


def scan_sources(
    executor: Executor, paths: Sequence[Path], rules: FlagRules, selected: tuple[str, ...] | None, progress: Progress
) -> list[FileScan]:
    """Scan every file; in the order of `paths`."""
    progress.start("scan files", len(paths))
    found: dict[str, FileScan] = {}
    for scan in executor.run(partial(scan_file, rules=rules, selected=selected), [str(path) for path in paths]):
        found[scan.path] = scan
        progress.advance()
    return [found[str(path)] for path in paths]


def _write_store(executor: Executor, store: Path, plan: Plan, progress: Progress) -> int:
    if store.exists() and any(store.iterdir()):
        clear(store, plan.metadata)
    init_store(store, plan)
    progress.start("write partitions", plan.n_partitions, plan.n_bytes)
    stored_bytes = 0
    frames = [f"steps/{key.name}" for key in plan.metadata.keys if key.frame]
    moments = {f"steps/{key.name}": MomentsOfKey(key) for key in plan.metadata.keys if key.frame}
    checksums = {path: np.empty(plan.metadata.n_steps, np.uint32) for path in frames}
    for result in executor.run(partial(write_partition, str(store)), plan.partitions()):
        stored_bytes += result.stored_bytes
        if result.moments is not None:
            moments[result.path].add(result.shard, result.moments)
        if result.checksums is not None:
            checksums[result.path][slice(*plan.layouts[result.path].rows_of_shard(result.shard))] = result.checksums
        progress.advance(1, result.n_bytes)
    for path, values in checksums.items():
        write_array(store, plan.layouts[path.replace("steps", "checksums", 1)], values)
    _write_statistics(executor, store, plan, moments, progress)
    write_metadata(store, plan.metadata.completed())
    return stored_bytes


def _write_statistics(
    executor: Executor, store: Path, plan: Plan, moments: dict[str, MomentsOfKey], progress: Progress
) -> None:
    lengths: NDArray[np.int64] = plan.tables["episodes/length"]
    keys = [key for key in plan.metadata.keys if not key.ragged]
    progress.start("compute statistics", len(keys))
    for key in (key for key in keys if key.frame):
        table, histogram = moments[f"steps/{key.name}"].combine(lengths)
        whole = store_statistics(key, table, lengths, histogram=histogram, quantiles=None)
        layout = plan.layouts[f"histograms/{key.name}"]
        write_array(store, layout, histogram.reshape(layout.shape))
        _write_key_statistics(store, plan, key, table, whole)
        progress.advance()
    low_dim = [key for key in keys if not key.frame]
    for name, table, whole, checksums in executor.run(partial(key_statistics, str(store)), low_dim):
        _write_key_statistics(store, plan, plan.metadata.key(name), table, whole)
        write_array(store, plan.layouts[f"checksums/{name}"], checksums)
        progress.advance()


def _write_key_statistics(store: Path, plan: Plan, key: Key, table: NDArray[np.float64], whole: NDArray[np.float64]) -> None:
    write_array(store, plan.layouts[f"episodes/stats/{key.name}"], table)
    write_array(store, plan.layouts[f"stats/{key.name}"], whole)


def key_statistics(store: str, key: Key) -> tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.uint32]]:
    """Statistics of a low-dim key, read back from the store: its name, per episode, whole, and checksums. Runs in a worker."""
    root = Path(store)
    lengths = read_array(root, read_layout(root, "episodes/length"))
    layout = read_layout(root, f"steps/{key.name}")
    n_elements = int(np.prod(key.shape, dtype=np.int64))
    table = np.empty((len(lengths), len(EPISODE_STATISTICS), n_elements))
    quantiles = np.empty((len(QUANTILES), n_elements))
    for block, values in column_blocks(root, layout):
        table[:, :, block] = episode_statistics(values, lengths)
        with np.errstate(invalid="ignore"):
            quantiles[:, block] = np.quantile(values.astype(np.float64, copy=False), QUANTILES, axis=0)
    table = table.reshape(len(lengths), len(EPISODE_STATISTICS), *key.shape)
    whole = store_statistics(key, table, lengths, histogram=None, quantiles=quantiles.reshape(len(QUANTILES), *key.shape))
    return key.name, table, whole, episode_checksums(root, layout, lengths)

"""Owns the plan: from scans to keys, tables, columns and shard-aligned partitions. Pure; no I/O, no Dask.

A *column* is an array whose values come from the sources; a *partition* is one shard of one column, and is written by
exactly one task, whole. Two writers never share a shard: that loses data silently (dask#12583, zarr-python#3682).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr import __version__
from robozarr.convert.types import Column, DemoScan, FileScan, Partition, Segment
from robozarr.schemas.errors import PlanError, Problem, SourceError
from robozarr.schemas.index import FlagRules, StepFlag, build_index
from robozarr.schemas.layout import ArrayLayout, Profile, is_frame
from robozarr.schemas.source import INIT_STATE, MODEL_FILE, is_array_name, is_ragged, key_name, role_and_unit, source_names
from robozarr.schemas.store import TASK_TEXTS, Key, NotStored, SourceEntry, StoreMetadata, array_layouts

__all__ = ["Plan", "make_plan"]

DEFAULT_CONTROL_FREQ = 20.0
"""Steps a second in LIBERO, for files that do not say (OpenVLA's have no attributes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a conversion will write, but for pixels and statistics."""

    metadata: StoreMetadata
    layouts: dict[str, ArrayLayout]
    """Every array of the store, by path."""
    tables: dict[str, NDArray[Any]]
    """Arrays that the plan itself determines, by path: index, episode and task tables, offsets, short texts."""
    columns: tuple[Column, ...]
    files: tuple[FileScan, ...]
    """The sources, in the store's order."""
    episodes: tuple[tuple[int, str], ...]
    """Source and demo of each episode."""

    def partitions(self) -> Iterator[Partition]:
        """Every partition, pictures first: they are the largest, so the last to end are small."""
        for column in sorted(self.columns, key=lambda column: (not _is_frames(column), column.layout.path)):
            for shard in range(column.layout.n_shards):
                yield self.partition(column, shard)

    def partition(self, column: Column, shard: int) -> Partition:
        """The partition that writes one shard of a column."""
        start, stop = column.layout.rows_of_shard(shard)
        first = int(np.searchsorted(column.starts, start, "right")) - 1
        last = int(np.searchsorted(column.starts, stop, "left"))
        segments = []
        for episode in range(first, last):
            begin, end = int(column.starts[episode]), int(column.starts[episode + 1])
            low, high = max(begin, start), min(end, stop)
            if low < high:
                source, demo = self.episodes[episode]
                file = self.files[source]
                segments.append(
                    Segment(
                        path=file.path,
                        size=file.size,
                        mtime_ns=file.mtime_ns,
                        demo=demo,
                        start=low - begin,
                        stop=high - begin,
                        at=low - start,
                        episode=episode,
                    )
                )
        return Partition(
            layout=column.layout,
            shard=shard,
            kind=column.kind,
            source=column.source,
            segments=tuple(segments),
            key=column.key,
        )

    @property
    def n_partitions(self) -> int:
        """Number of partitions."""
        return sum(column.layout.n_shards for column in self.columns)

    @property
    def n_bytes(self) -> int:
        """Size of all columns, decoded."""
        return sum(column.layout.shape[0] * column.layout.row_bytes for column in self.columns)


def _is_frames(column: Column) -> bool:
    return column.key is not None and column.key.frame


def make_plan(
    files: Sequence[FileScan], *, profile: Profile, rules: FlagRules, selected: tuple[str, ...] | None = None
) -> Plan:
    """Plan the store that `files`, in this order, become.

    Raises
    ------
    SourceError
        Listing every problem of every file, and every demo that is unlike the others.
    PlanError
        If `selected` names keys that no file holds.
    """
    problems = [problem for file in files for problem in file.problems]
    keys, repeats, unlike = _find_keys(files, selected)
    if problems := [*problems, *unlike]:
        raise SourceError(f"{len(problems)} problem(s) in the sources; nothing was written:", problems)
    if selected is not None:
        there = {path for file in files for path, n, _ in file.not_stored if n} | {key.source for key in keys} | set(repeats)
        known = {key_name(path) for path in there}
        if missing := [name for name in selected if name not in there | known]:
            raise PlanError(f"--keys: no source holds {', '.join(missing)}; they hold {', '.join(sorted(known))}")
    demos = [(number, demo) for number, file in enumerate(files) for demo in file.demos]
    tasks = list(dict.fromkeys(_task(file) for file in files))
    names = source_names([PurePath(file.path) for file in files])
    metadata = StoreMetadata(
        software=f"robozarr {__version__}",
        profile=profile,
        complete=False,
        n_steps=sum(demo.length for _, demo in demos),
        n_episodes=len(demos),
        n_tasks=len(tasks),
        control_freq=_control_freq(files),
        keys=keys,
        selected_keys=selected,
        sources=tuple(
            SourceEntry(name=name, size=file.size, mtime_ns=file.mtime_ns, n_demos=len(file.demos))
            for name, file in zip(names, files, strict=True)
        ),
        splits=tuple(sorted({split for file in files for split in file.splits})),
        flag_rules=rules,
        joint_key=_joint_key(demos),
        not_stored=_not_stored(files, names, repeats),
    )
    widths = {key.name: _widths([demo for _, demo in demos], key) for key in keys if key.ragged}
    tables = _tables(metadata, files, demos, tasks) | _ragged_offsets(widths, demos)
    sizes = {path.removesuffix("/offsets"): int(offsets[-1]) for path, offsets in tables.items() if path.endswith("/offsets")}
    layouts = array_layouts(metadata, sizes)
    return Plan(
        metadata=metadata,
        layouts=layouts,
        tables=tables,
        columns=tuple(_columns(metadata, layouts, [demo for _, demo in demos], widths)),
        files=tuple(files),
        episodes=tuple((number, demo.name) for number, demo in demos),
    )


def _find_keys(
    files: Sequence[FileScan], selected: tuple[str, ...] | None
) -> tuple[tuple[Key, ...], tuple[str, ...], list[Problem]]:
    """Keys, the ``next_obs`` paths that repeat ``obs`` in all demos, and a problem for every demo unlike the others."""
    demos = [(file, demo) for file in files for demo in file.demos]
    kinds: dict[str, Counter[tuple[str, tuple[int, ...]]]] = {}
    repeated: Counter[str] = Counter()
    for _, demo in demos:
        repeated.update(demo.repeats)
        for info in demo.datasets:
            shape = () if is_ragged(info.path) else info.shape[1:]
            kinds.setdefault(info.path, Counter())[str(info.dtype), shape] += 1
    # in a demo of one step there is nothing to compare
    compared = {path for _, demo in demos if demo.length > 1 for path in demo.repeats} - _asked_for(selected, kinds)
    repeats = tuple(sorted(path for path in compared if repeated[path] == kinds[path].total()))
    usual = {path: counter.most_common(1)[0][0] for path, counter in kinds.items() if path not in repeats}
    problems = [problem for file, demo in demos for problem in _unlike(file, demo, usual)]
    by_name: dict[str, list[str]] = {}
    for path in usual:
        by_name.setdefault(key_name(path), []).append(path)
    for name, paths in by_name.items():
        if len(paths) > 1:
            value = f"{name} for {' and '.join(sorted(paths))}"
            remedy = "leave one out: name the others' paths with --keys"
            problems.append(Problem(file=files[0].path, rule="two datasets do not get one key", value=value, remedy=remedy))
    problems += _unusable_names(files, list(usual))
    if problems:
        return (), repeats, problems
    keys = []
    for path, (dtype, shape) in usual.items():
        ragged = is_ragged(path)
        role, unit = role_and_unit(key_name(path), dtype, not ragged and is_frame(shape))
        keys.append(Key(name=key_name(path), source=path, dtype=dtype, shape=shape, role=role, unit=unit, ragged=ragged))
    return tuple(sorted(keys, key=lambda key: key.name)), repeats, problems


def _asked_for(selected: tuple[str, ...] | None, paths: Iterable[str]) -> set[str]:
    """Paths that `--keys` names: they are stored even where they repeat others."""
    return {path for path in paths if selected is not None and (path in selected or key_name(path) in selected)}


def _unusable_names(files: Sequence[FileScan], paths: list[str]) -> Iterator[Problem]:
    """Names that HDF5 allows and a store cannot: one that leads out of its folder, or is that of a file in it."""
    for path in paths:
        if not is_array_name(key_name(path)):
            rule, remedy = "a key's name can name an array", "rename the dataset, or leave it out with --keys"
            yield Problem(file=files[0].path, key=path, rule=rule, value=repr(key_name(path)), remedy=remedy)
    for file in files:
        for split in (split for split in file.splits if not is_array_name(split)):
            rule = "a split's name can name an array"
            yield Problem(file=file.path, key=f"mask/{split}", rule=rule, value=repr(split), remedy="rename it in the file")


def _unlike(file: FileScan, demo: DemoScan, usual: dict[str, tuple[str, tuple[int, ...]]]) -> Iterator[Problem]:
    infos = {info.path: info for info in demo.datasets}
    for path, (dtype, shape) in usual.items():
        if path not in infos:
            yield Problem(
                file=file.path,
                demo=demo.name,
                key=path,
                rule="every demo holds the keys that the others hold",
                value="nothing",
                remedy="leave the demo out of its file, or the key out with --keys",
            )
            continue
        info = infos[path]
        got = (info.dtype, () if is_ragged(path) else info.shape[1:])
        if got != (dtype, shape):
            yield Problem(
                file=file.path,
                demo=demo.name,
                key=path,
                rule=f"a step is {dtype} {shape}, as in most demos",
                value=f"{got[0]} {got[1]}",
                remedy="convert unlike files into stores of their own",
            )


def _task(file: FileScan) -> tuple[str, str, str, str, str, str]:
    """What makes a task: two files are of one task if all of this agrees. In the order of schemas.store.TASK_TEXTS."""
    return file.task, file.instruction, file.instruction_from_name, file.suite, file.env_name, file.bddl


def _control_freq(files: Iterable[FileScan]) -> float | None:
    stated = {file.control_freq for file in files if file.control_freq is not None}
    return DEFAULT_CONTROL_FREQ if not stated else stated.pop() if len(stated) == 1 else None


def _joint_key(demos: list[tuple[int, DemoScan]]) -> str | None:
    used = {demo.joint_key for _, demo in demos}
    return used.pop() if len(used) == 1 else None


def _not_stored(files: Sequence[FileScan], names: list[str], repeats: tuple[str, ...]) -> tuple[NotStored, ...]:
    reason = "equals obs one step later at every step but the last, whose next_obs is lost (checked)"
    entries = []
    for file, name in zip(files, names, strict=True):
        counts = Counter(path for demo in file.demos for path in demo.repeats if path in repeats)
        entries += [NotStored(source=name, path=path, n_demos=n, reason=reason) for path, n in sorted(counts.items())]
        entries += [NotStored(source=name, path=path, n_demos=n, reason=why) for path, n, why in file.not_stored]
    return tuple(entries)


def _tables(
    metadata: StoreMetadata,
    files: Sequence[FileScan],
    demos: list[tuple[int, DemoScan]],
    tasks: Sequence[tuple[str, ...]],
) -> dict[str, NDArray[Any]]:
    scans = [demo for _, demo in demos]
    lengths = np.array([demo.length for demo in scans], np.int64)
    start, episode, step = build_index(lengths)
    task_of = {task: number for number, task in enumerate(tasks)}
    tables: dict[str, NDArray[Any]] = {
        "index/episode": episode,
        "index/step": step,
        "index/flags": _flags(metadata, scans),
        "episodes/start": start,
        "episodes/length": lengths,
        "episodes/task": np.array([task_of[_task(files[number])] for number, _ in demos], np.int32),
        "episodes/source": np.array([number for number, _ in demos], np.int32),
        "episodes/success": np.array([demo.success for demo in scans], np.int8),
        "episodes/alignment": np.array([demo.alignment for demo in scans], np.int8),
        "episodes/alignment_error": np.array([demo.alignment_error for demo in scans], np.float64).reshape(-1, 2),
        "episodes/image_convention": np.array([demo.image_convention for demo in scans], np.int8),
        "episodes/image_evidence": np.array([demo.image_evidence for demo in scans], np.int8),
        "episodes/init_state/offsets": _offsets([demo.init_state_size for demo in scans]),
        "episodes/model_file/offsets": _offsets([demo.model_file_bytes for demo in scans]),
        "tasks/control_freq": np.array([_control_freq_of_task(files, task) for task in tasks], np.float64),
    }
    for split in metadata.splits:
        tables[f"episodes/splits/{split}"] = np.array([split in demo.splits for demo in scans], np.bool_)
    texts = {f"tasks/{name}": list(column) for name, column in zip(TASK_TEXTS, zip(*tasks, strict=True), strict=True)}
    texts["episodes/demo"] = [demo.name for demo in scans]
    texts["episodes/attributes"] = [demo.attributes for demo in scans]
    texts["sources/attributes"] = [file.attributes for file in files]
    for path, values in texts.items():
        encoded = [value.encode("utf-8", "replace") for value in values]
        tables[f"{path}/offsets"] = _offsets([len(value) for value in encoded])
        tables[f"{path}/bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
    return tables


def _flags(metadata: StoreMetadata, scans: list[DemoScan]) -> NDArray[np.uint8]:
    """Flags of all steps. Where the demos have no joint key in common, none is called still (FORMAT.md, M12)."""
    flags = np.concatenate([demo.flags for demo in scans]) if scans else np.empty(0, np.uint8)
    return flags if metadata.joint_key is not None else flags & ~np.uint8(StepFlag.STILL)


def _control_freq_of_task(files: Sequence[FileScan], task: tuple[str, ...]) -> float:
    frequency = _control_freq(file for file in files if _task(file) == task)
    return float("nan") if frequency is None else frequency


def _offsets(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))]).astype(np.int64)


def _widths(demos: list[DemoScan], key: Key) -> NDArray[np.int64]:
    """Width of a ragged key in each episode."""
    return np.array([next(info.shape[1] for info in demo.datasets if info.path == key.source) for demo in demos], np.int64)


def _ragged_offsets(widths: dict[str, NDArray[np.int64]], demos: list[tuple[int, DemoScan]]) -> dict[str, NDArray[Any]]:
    lengths = [demo.length for _, demo in demos]
    return {f"ragged/{name}/offsets": _offsets(np.repeat(width, lengths)) for name, width in widths.items()}


def _columns(
    metadata: StoreMetadata,
    layouts: dict[str, ArrayLayout],
    demos: list[DemoScan],
    widths: dict[str, NDArray[np.int64]],
) -> Iterator[Column]:
    lengths = np.array([demo.length for demo in demos], np.int64)
    for key in metadata.keys:
        if key.ragged:
            layout, starts = layouts[f"ragged/{key.name}/values"], _offsets(lengths * widths[key.name])
            yield Column(layout=layout, kind="flat", source=key.source, starts=starts, key=key)
        else:
            starts = _offsets(lengths)
            yield Column(layout=layouts[f"steps/{key.name}"], kind="rows", source=key.source, starts=starts, key=key)
    text = _offsets([demo.model_file_bytes for demo in demos])
    yield Column(layout=layouts["episodes/model_file/bytes"], kind="text", source=MODEL_FILE, starts=text, key=None)
    state = _offsets([demo.init_state_size for demo in demos])
    yield Column(layout=layouts["episodes/init_state/values"], kind="vector", source=INIT_STATE, starts=state, key=None)

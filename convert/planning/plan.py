"""Make the plan: from scans to keys, tables, columns and shard-aligned partitions. Pure; no I/O, no Dask.

A *column* is an array whose values come from the sources; a *partition* is one shard of one column, and is written by
exactly one task, whole. Two writers never share a shard: that loses data silently (dask#12583, zarr-python#3682).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.infer import Base, OnError, infer_schema
from robozarr.convert.planning.instructions import Task, task_of, tasks_of, words_of
from robozarr.convert.planning.left_out import not_stored
from robozarr.convert.planning.majority import LeftOutKeys
from robozarr.convert.planning.names import check_names
from robozarr.convert.records import Column, DemoScan, FileScan, Partition, Segment, Stored
from robozarr.schemas.errors import PlanError, Problem
from robozarr.schemas.identity import bound_sum
from robozarr.schemas.index import FlagRules, StepFlag, build_index
from robozarr.schemas.layout import PROFILES, ArrayLayout, Profile
from robozarr.schemas.metadata import (
    TASK_TEXTS,
    Key,
    SourceEntry,
    StoreMetadata,
    array_layouts,
)
from robozarr.schemas.source import (
    INIT_STATE,
    MODEL_FILE,
    source_names,
)
from robozarr.version import __version__

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a conversion writes, except pixels and statistics."""

    metadata: StoreMetadata
    layouts: dict[str, ArrayLayout]
    """Every array of the store, by path."""
    tables: dict[str, NDArray[Any]]
    """Arrays that the plan determines, by path: index, episode and task tables, offsets, short texts."""
    columns: tuple[Column, ...]
    files: tuple[FileScan, ...]
    """The sources, in the store's order."""
    episodes: tuple[tuple[int, str], ...]
    """Source and demo of each episode."""
    groups: tuple[str, ...]
    """Path of each episode's group in its file; "" if the file itself is the episode."""
    left_out: tuple[Problem, ...]
    """Why demos and files were left out under ``--on-error skip``, in the order they were found."""

    def partitions(self) -> Iterator[Partition]:
        """Every partition, pictures first: they are the largest, so that small ones come last."""
        for column in sorted(self.columns, key=lambda column: (not _is_frames(column), column.layout.path)):
            for shard in range(column.first_shard, column.layout.n_shards):
                yield self.partition(column, shard)

    def partition(self, column: Column, shard: int) -> Partition:
        """The partition that writes one shard of a column."""
        start, stop = column.layout.rows_of_shard(shard)
        first = int(np.searchsorted(column.starts, start, "right")) - 1
        last = int(np.searchsorted(column.starts, stop, "left"))
        segments = []
        for episode in range(first, last):
            begin, end = int(column.starts[episode]), int(column.starts[episode + 1])
            low, high = max(begin, start, column.old_rows), min(end, stop)
            if low < high:
                source, demo = self.episodes[episode]
                file = self.files[source]
                segments.append(
                    Segment(
                        path=file.path,
                        size=file.size,
                        mtime_ns=file.mtime_ns,
                        demo=demo,
                        group=self.groups[episode],
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
            old_rows=column.old_rows,
            stored=None if column.stored is None else column.stored.of_rows(start, stop),
            begins=tuple((column.starts[first:last][column.starts[first:last] >= start] - start).tolist()),
        )

    @property
    def n_partitions(self) -> int:
        """Number of partitions."""
        return sum(column.layout.n_shards - column.first_shard for column in self.columns)

    @property
    def n_bytes(self) -> int:
        """Size of all partitions, decoded."""
        return sum(
            max(0, column.layout.shape[0] - column.first_shard * column.layout.shard_rows) * column.layout.row_bytes
            for column in self.columns
        )


def _is_frames(column: Column) -> bool:
    return column.key is not None and column.key.frame


def make_plan(
    files: Sequence[FileScan],
    *,
    profile: Profile,
    rules: FlagRules,
    selected: tuple[str, ...] | None = None,
    level: int | None = None,
    own_layouts: tuple[Mapping[str, Any], ...] = (),
    on_error: OnError = "stop",
    left_out: Sequence[Problem] = (),
    left_out_keys: LeftOutKeys | None = None,
    without: tuple[str, ...] = (),
    base: Base | None = None,
    anew: bool = False,
) -> Plan:
    """Plan the store for `files`, in this order.

    Parameters
    ----------
    files : sequence of FileScan
        The scans; of an append, those of the store's own sources first (``base.files``).
    profile, rules, selected, level
        As the user wants them; `level` None: the profile's.
    own_layouts : tuple of JSON objects
        The user's own layouts, by which the files were scanned.
    on_error : {"stop", "skip"}
        Whether demos and files with problems are errors, or are left out and listed.
    left_out : sequence of Problem
        Demos (files and splits, where a problem names no demo) that are left out in any case.
    left_out_keys : dict, optional
        File and path of datasets that are left out in any case, and why.
    without : tuple of str
        What the user left out by name; the scans say where it was.
    base : Base, optional
        The store that is appended to; or that is written `anew`, as `profile` lays it out, with its own values as the source.

    Raises
    ------
    SourceError
        Listing every problem of every file, and every demo that is unlike the others.
    PlanError
        If `selected` names keys that are not stored, `without` what no file holds, or `level` is none of the profile's codec.
    """
    codec, _ = PROFILES[profile]
    if level is not None and (codec == "none" or not 1 <= level <= 9):
        raise PlanError(f"--level is 1 to 9, and the profile 'raw' has none; got {level} for {profile}")
    inferred = infer_schema(files, selected, on_error, left_out, base, left_out_keys)
    kept, keys = inferred.files, inferred.keys
    check_names(inferred, selected, without)
    demos = [(number, demo) for number, file in enumerate(kept) for demo in file.demos]
    usable = [file for file in kept if file.demos]
    tasks = tasks_of((kept[number], demo) for number, demo in demos)
    names = source_names([PurePath(file.path) for file in kept])
    metadata = StoreMetadata(
        software=f"robozarr {__version__}",
        profile=profile,
        complete=False,
        n_steps=sum(demo.length for _, demo in demos),
        n_episodes=len(demos),
        n_tasks=len(tasks),
        control_freq=_control_freq(usable),
        keys=keys,
        selected_keys=selected,
        sources=tuple(
            SourceEntry(name=name, size=file.size, mtime_ns=file.mtime_ns, n_demos=len(file.demos), digest=file.digest)
            for name, file in zip(names, kept, strict=True)
        ),
        splits=tuple(sorted({split for file in usable for split in file.splits})),
        flag_rules=_flag_rules(kept, rules),
        joint_key=_joint_key(demos, keys),
        layouts=own_layouts,
        not_stored=tuple(not_stored(inferred, names)),
    )
    widths = {key.name: _widths([demo for _, demo in demos], key) for key in keys if key.ragged}
    tables = _tables(metadata, kept, demos, tasks) | _ragged_offsets(widths, demos)
    sizes = {path.removesuffix("/offsets"): int(offsets[-1]) for path, offsets in tables.items() if path.endswith("/offsets")}
    layouts = _layouts(array_layouts(metadata, sizes), level, None if anew else base)
    columns = _new_columns(metadata, layouts, [demo for _, demo in demos], widths)
    if base is not None:
        columns = (_from_store(column, base) if anew else _appended(column, base) for column in columns)
    return Plan(
        metadata=metadata,
        layouts=layouts,
        tables=tables,
        columns=tuple(columns),
        files=kept,
        episodes=tuple((number, demo.name) for number, demo in demos),
        groups=tuple(demo.group for _, demo in demos),
        left_out=(*inferred.problems, *inferred.key_problems),
    )


def _flag_rules(files: Sequence[FileScan], rules: FlagRules) -> FlagRules:
    """The flag rules that all demos share; an error if the files' layouts disagree about the gripper."""
    made: dict[FlagRules, str] = {}
    for file in files:
        for demo in file.demos:
            made.setdefault(rules if demo.rules is None else demo.rules, f"{file.path} · {demo.name}")
    if len(made) > 1:
        (one, where), (other, elsewhere) = list(made.items())[:2]
        raise PlanError(
            f"flags: one element of the actions is the gripper's in all demos; got {one.gripper} of {where} and "
            f"{other.gripper} of {elsewhere} → name it with --gripper, or convert unlike files into stores of their own"
        )
    return next(iter(made), replace(rules, gripper=None) if rules.gripper == "layout" else rules)


def _layouts(layouts: dict[str, ArrayLayout], level: int | None, base: Base | None) -> dict[str, ArrayLayout]:
    """The layouts at the user's level; for an append, the store's layouts with a new number of rows."""
    if base is not None:
        old = base.layouts
        return {path: replace(old.get(path, layout), shape=layout.shape) for path, layout in layouts.items()}
    if level is None:
        return layouts
    return {
        path: replace(layout, level=level) if is_bulk(path) and layout.effort is None else layout
        for path, layout in layouts.items()
    }


def is_bulk(path: str) -> bool:
    """Whether an array holds source data that uses the profile's codec."""
    return path.startswith("steps/") or (path.startswith("ragged/") and path.endswith("/values"))


def _control_freq(files: Iterable[FileScan]) -> float | None:
    files = list(files)
    stated: set[float | None] = {file.control_freq for file in files if file.control_freq is not None}
    found = stated or {file.usual_freq for file in files}
    return found.pop() if len(found) == 1 else None


def _joint_key(demos: list[tuple[int, DemoScan]], keys: Sequence[Key]) -> str | None:
    names = {key.source: key.name for key in keys}
    used = {names.get(demo.joint_path, demo.joint_key) for _, demo in demos}
    return used.pop() if len(used) == 1 else None


def _tables(
    metadata: StoreMetadata,
    files: Sequence[FileScan],
    demos: list[tuple[int, DemoScan]],
    tasks: Sequence[Task],
) -> dict[str, NDArray[Any]]:
    scans = [demo for _, demo in demos]
    words = [words_of(files[number], demo) for number, demo in demos]
    lengths = np.array([demo.length for demo in scans], np.int64)
    start, episode, step = build_index(lengths)
    number_of = {task.key: number for number, task in enumerate(tasks)}
    of_episode = [number_of[task_of(files[number], demo).key] for number, demo in demos]
    tables: dict[str, NDArray[Any]] = {
        "index/episode": episode,
        "index/step": step,
        "index/flags": _flags(metadata, scans),
        "episodes/start": start,
        "episodes/length": lengths,
        "episodes/task": np.array(of_episode, np.int32),
        "episodes/source": np.array([number for number, _ in demos], np.int32),
        "episodes/success": np.array([demo.success for demo in scans], np.int8),
        "episodes/alignment": np.array([demo.alignment for demo in scans], np.int8),
        "episodes/alignment_error": np.array([demo.alignment_error for demo in scans], np.float64).reshape(-1, 2),
        "episodes/image_convention": np.array([demo.image_convention for demo in scans], np.int8),
        "episodes/image_evidence": np.array([demo.image_evidence for demo in scans], np.int8),
        "episodes/init_state/offsets": _offsets([demo.init_state_size for demo in scans]),
        "episodes/model_file/offsets": _offsets([demo.model_file_bytes for demo in scans]),
        "episodes/instruction_source": np.array([source for _, source in words], np.int8),
        "tasks/control_freq": _control_freqs([files[number] for number, _ in demos], of_episode, len(tasks)),
    }
    for split in metadata.splits:
        tables[f"episodes/splits/{split}"] = np.array([split in demo.splits for demo in scans], np.bool_)
    texts = {f"tasks/{name}": list(column) for name, column in zip(TASK_TEXTS, zip(*tasks, strict=True), strict=True)}
    texts["episodes/demo"] = [demo.name for demo in scans]
    texts["episodes/instruction"] = [text for text, _ in words]
    texts["episodes/attributes"] = [demo.attributes for demo in scans]
    texts["sources/attributes"] = [file.attributes for file in files]
    for path, values in texts.items():
        encoded = [value.encode("utf-8", "backslashreplace") for value in values]
        tables[f"{path}/offsets"] = _offsets([len(value) for value in encoded])
        tables[f"{path}/bytes"] = np.frombuffer(b"".join(encoded), np.uint8)
    return tables


def _flags(metadata: StoreMetadata, scans: list[DemoScan]) -> NDArray[np.uint8]:
    """Flags of all steps. If the demos share no joint key, no step is marked as still (FORMAT.md, M12)."""
    flags = np.concatenate([demo.flags for demo in scans]) if scans else np.empty(0, np.uint8)
    return flags if metadata.joint_key is not None else flags & ~np.uint8(StepFlag.STILL)


def _control_freqs(files: Sequence[FileScan], of_episode: Sequence[int], n_tasks: int) -> NDArray[np.float64]:
    """Control frequency of each task; NaN where a task's files differ."""
    of_task: list[dict[str, FileScan]] = [{} for _ in range(n_tasks)]
    for file, task in zip(files, of_episode, strict=True):
        of_task[task][file.path] = file
    found = [_control_freq(same.values()) for same in of_task]
    return np.array([np.nan if frequency is None else frequency for frequency in found], np.float64)


def _offsets(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))]).astype(np.int64)


def _widths(demos: list[DemoScan], key: Key) -> NDArray[np.int64]:
    """Width of a ragged key in each episode."""
    return np.array([next(info.shape[1] for info in demo.datasets if info.path == key.source) for demo in demos], np.int64)


def _ragged_offsets(widths: dict[str, NDArray[np.int64]], demos: list[tuple[int, DemoScan]]) -> dict[str, NDArray[Any]]:
    lengths = [demo.length for _, demo in demos]
    return {f"ragged/{name}/offsets": _offsets(np.repeat(width, lengths)) for name, width in widths.items()}


def _appended(column: Column, base: Base) -> Column:
    """A column whose first rows are already in the store."""
    old = base.layouts.get(column.layout.path)
    return column if old is None else replace(column, old_rows=old.shape[0])


def _from_store(column: Column, base: Base) -> Column:
    """A column whose values are in the store."""
    layout = base.layouts[column.layout.path]
    sums = tuple(bound_sum(base.metadata.files, layout.path, shard) for shard in range(layout.n_shards))
    return replace(column, stored=Stored(layout=layout, sums=sums, frames=_is_frames(column)))


def _new_columns(
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

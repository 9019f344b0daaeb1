"""Decide what is converted: which demos are good, which keys they share, what is left out. Pure; no I/O, no Dask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, cast

from robozarr.convert.planning.instructions import task_of
from robozarr.convert.planning.majority import Base, LeftOutKeys, Verdict, judge
from robozarr.convert.records import DatasetInfo, DemoScan, FileScan
from robozarr.schemas.axes import axes_of
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.metadata import Key
from robozarr.schemas.source import Role, is_array_name, is_ragged, role_and_unit
from robozarr.schemas.words import counted

__all__ = ["Base", "Inferred", "OnError", "infer_schema", "is_of_split"]

OnError = Literal["stop", "skip"]
"""What to do with demos and files that have problems: stop with an error that lists all, or leave them out and list them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """The result of schema inference."""

    files: tuple[FileScan, ...]
    """The files, with the demos that are kept."""
    keys: tuple[Key, ...]
    repeats: tuple[str, ...]
    """Paths below ``next_obs`` that are not stored because they repeat ``obs`` in all demos."""
    problems: tuple[Problem, ...]
    """Demos, files and splits that were left out, and why."""
    key_problems: tuple[Problem, ...]
    """Keys that were left out, and why; each belongs to one file."""
    left_out_keys: LeftOutKeys
    nameless: dict[str, str]
    """Paths that are not stored because their name is taken or not allowed, and why."""


def infer_schema(
    files: Sequence[FileScan],
    selected: tuple[str, ...] | None,
    on_error: OnError,
    left_out: Sequence[Problem],
    base: Base | None,
    left_out_keys: LeftOutKeys | None = None,
) -> Inferred:
    """Infer the schema; with `skip`, leave out everything that has a problem.

    Files are looked at first, then demos that lack what most others hold, then keys that most demos do not hold, so that each
    is judged among what is good. What a base store holds is never to blame.

    Raises
    ------
    SourceError
        Listing everything that has to be left out, unless `on_error` is "skip"; or if nothing is left.
    """
    n_base = 0 if base is None else len(base.files)
    of_base = {file.path for file in files[:n_base]}
    out, of_keys, keys_out = list(left_out), list[Problem](), dict(left_out_keys or {})
    n_known = len(out)
    blocking = [problem for file in files for problem in file.blocking]
    while True:
        kept = [_without(file, [problem for problem in out if problem.file == file.path]) for file in files]
        found = [*(problem for file in kept for problem in file.problems), *_twice(kept), *_unusable_splits(kept)]
        verdict = judge(kept, selected, base, keys_out)
        found = [problem for problem in found or verdict.demos if problem.file not in of_base]
        if base is not None:
            found += [problem for problem in _decoded_otherwise(kept[n_base:], base) if problem not in found]
        out += found
        if not found and not verdict.keys:
            break
        if not found:
            of_keys += verdict.keys
            keys_out |= verdict.keys_out
    problems = [*blocking, *out[n_known:], *of_keys]
    if blocking or (on_error == "stop" and problems):
        raise SourceError(f"{counted(len(problems), 'problem')} in the sources; nothing was written:", problems)
    if len(files) > n_base and not any(file.demos for file in kept[n_base:]):
        left = "no demo is left" if base is None else "no demo is left to append"
        raise SourceError(f"{left}; {counted(len(out), 'problem')} in the sources; nothing was written:", out)
    return Inferred(
        files=tuple(kept),
        keys=tuple(sorted(_keys(verdict, base, kept), key=lambda key: key.name)),
        repeats=verdict.repeats,
        problems=tuple(out),
        key_problems=tuple(of_keys),
        left_out_keys=keys_out,
        nameless=verdict.nameless,
    )


def _without(file: FileScan, left_out: list[Problem]) -> FileScan:
    """A file without the demos and splits that have problems; a problem that names neither concerns the whole file."""
    splits = {problem.key for problem in left_out if is_of_split(problem)}
    names = {problem.demo for problem in left_out if not is_of_split(problem)}
    if "" in names:
        return replace(file, demos=(), problems=())
    if not names and not splits:
        return file
    return replace(
        file,
        demos=tuple(demo for demo in file.demos if demo.name not in names),
        problems=tuple(
            problem
            for problem in file.problems
            if (problem.key not in splits if is_of_split(problem) else problem.demo not in names)
        ),
        splits=tuple(split for split in file.splits if f"mask/{split}" not in splits),
    )


def is_of_split(problem: Problem) -> bool:
    """Whether only a split has to be left out."""
    return not problem.demo and (problem.key == "mask" or problem.key.startswith("mask/"))


def _twice(files: Sequence[FileScan]) -> Iterator[Problem]:
    """Find files with the same folder name, file name and task but other demos: one of them is probably wrong."""
    seen: dict[tuple[Any, ...], FileScan] = {}
    for file in (file for file in files if file.demos):
        tasks = tuple(dict.fromkeys(task_of(file, demo) for demo in file.demos))
        first = seen.setdefault((PurePath(file.path).parts[-2:], tasks), file)
        facts = [(each.size, *((demo.name, demo.length) for demo in each.demos)) for each in (first, file)]
        if first is not file and facts[0] != facts[1]:
            value = f"{len(file.demos)} demos, {file.size} bytes, but {first.path} has {len(first.demos)}, {first.size} bytes"
            rule = "files with the same name and task must be equal"
            yield Problem(file=file.path, rule=rule, value=value, remedy="give only the right one, or rename the folder of one")


def _unusable_splits(files: Sequence[FileScan]) -> Iterator[Problem]:
    for file in files:
        for split in (split for split in file.splits if not is_array_name(split)):
            rule = "the name of a split must be valid as an array name"
            yield Problem(file=file.path, key=f"mask/{split}", rule=rule, value=repr(split), remedy="rename it in the file")


def _keys(verdict: Verdict, base: Base | None, files: Sequence[FileScan]) -> Iterator[Key]:
    if base is not None:
        yield from base.metadata.keys
        return
    demos = [demo for file in files for demo in file.demos]
    infos = {info.path: info for demo in reversed(demos) for info in demo.datasets}
    decoded = _decoders(demos)
    for path, name in verdict.names.items():
        key = _key(name, infos[path], *verdict.usual[path])
        yield replace(key, decoded="; ".join(sorted(decoded.get(path, ()))))


def _key(name: str, info: DatasetInfo, dtype: str, shape: tuple[int, ...]) -> Key:
    """The key that datasets become: what the layout says of it, or else what name, type and shape suggest."""
    ragged = is_ragged(name)
    key = Key(
        name=name,
        source=info.path,
        dtype=dtype,
        shape=shape,
        role="unknown",
        unit="",
        ragged=ragged,
        axes="" if ragged else axes_of(shape),
    )
    role, unit = role_and_unit(name, dtype, bool(key.picture_axes), shape)
    return replace(key, role=cast(Role, info.role) or role, unit=info.unit or unit)


def _decoders(demos: Iterable[DemoScan]) -> dict[str, set[str]]:
    """The decoder of each dataset that holds encoded frames in some demo."""
    found: dict[str, set[str]] = {}
    for info in (info for demo in demos for info in demo.datasets if info.decoded):
        found.setdefault(info.path, set()).add(info.decoded)
    return found


def _decoded_otherwise(files: Sequence[FileScan], base: Base) -> Iterator[Problem]:
    """Find files of an append whose frames need another decoder version than the store's."""
    for file in files:
        decoded = _decoders(file.demos)
        for key in base.metadata.keys:
            if other := sorted(decoded.get(key.source, set()) - set(key.decoded.split("; "))):
                rule = "new frames must have the same decoder as the store's"
                value = f"{other[0]}; in the store {key.decoded or 'frames that were not encoded'}"
                remedy = "install that version, or convert all sources into a new store"
                yield Problem(file=file.path, key=key.source, rule=rule, value=value, remedy=remedy)

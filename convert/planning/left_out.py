"""Record in a store what it leaves out, and read that back for ``verify`` and for an append. Pure; no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from robozarr.convert.planning.infer import Inferred, is_of_split
from robozarr.convert.planning.majority import LeftOutKeys
from robozarr.convert.records import FileScan
from robozarr.schemas.errors import Problem
from robozarr.schemas.metadata import LEFT_OUT, NOT_WANTED, NotStored, StoreMetadata
from robozarr.schemas.source import as_utf8, demo_number

__all__ = ["REPEATS", "left_out_of", "not_stored", "not_wanted"]

REPEATS: Final = "equals obs one step later at every step but the last, whose next_obs is lost (checked)"
"""Reason for data that is not stored because it repeats other data."""


def not_stored(inferred: Inferred, names: Sequence[str]) -> Iterator[NotStored]:
    """Entries for everything that the files hold and the store does not; `names` are the files' names in the store."""
    for entry in _not_stored(inferred, names):
        yield replace(entry, path=as_utf8(entry.path), reason=as_utf8(entry.reason))


def _not_stored(inferred: Inferred, names: Sequence[str]) -> Iterator[NotStored]:
    for file, name in zip(inferred.files, names, strict=True):
        held = Counter(info.path for demo in file.demos for info in demo.datasets)
        left_out = {path: why for (of, path), why in inferred.left_out_keys.items() if of == file.path}
        counts = Counter(path for demo in file.demos for path in demo.repeats if path in inferred.repeats)
        reasons = {path: REPEATS for path in sorted(counts) if path not in left_out}
        reasons |= {path: why for path, why in sorted((left_out | inferred.nameless).items()) if held[path]}
        yield from (NotStored(source=name, path=path, n_demos=held[path], reason=why) for path, why in reasons.items())
        yield from (NotStored(source=name, path=path, n_demos=n, reason=why) for path, n, why in file.not_stored)
        of_parts: dict[str, list[str]] = {}
        for problem in (problem for problem in inferred.problems if problem.file == file.path):
            path = f"data/{problem.demo}" if problem.demo else ""
            if is_of_split(problem):
                path, problem = problem.key, replace(problem, key="")
            of_parts.setdefault(path, []).append(_reason(problem))
        for path, why in sorted(of_parts.items(), key=lambda item: (_number(item[0]), item[0])):
            yield NotStored(source=name, path=path, n_demos=0, reason=LEFT_OUT + " | ".join(why))


def _reason(problem: Problem) -> str:
    where = f"{problem.key}: " if problem.key else ""
    return where + problem.rule + (f"; found {problem.value}" if problem.value else "")


def _number(path: str) -> int:
    try:
        return demo_number(path)
    except ValueError:
        return -1


def not_wanted(metadata: StoreMetadata) -> tuple[str, ...]:
    """Paths that the user left out of a store by name."""
    return tuple(sorted({entry.path for entry in metadata.not_stored if entry.reason == NOT_WANTED}))


def left_out_of(metadata: StoreMetadata, files: Sequence[FileScan]) -> tuple[list[Problem], LeftOutKeys]:
    """What a store lists as left out, for planning its sources again; `files` are in the store's order.

    Demos, files and splits as problems, and keys. Names that are not UTF-8 are as the files have them, not as the store does.
    """
    scans = {source.name: file for source, file in zip(metadata.sources, files, strict=True)}
    entries = [entry for entry in metadata.not_stored if entry.reason.startswith(LEFT_OUT) and entry.source in scans]
    named = {entry.source for entry in entries}
    paths = {name: {as_utf8(path): path for path in _paths_of(scans[name])} for name in named}
    problems, keys = [], LeftOutKeys()
    for entry in entries:
        file, path = scans[entry.source].path, paths[entry.source].get(entry.path, entry.path)
        if entry.n_demos:
            keys[file, path] = entry.reason
        else:
            demo = path.removeprefix("data/") if path.startswith("data/") else ""
            rule = entry.reason.removeprefix(LEFT_OUT)
            problems.append(Problem(file=file, demo=demo, key="" if demo else path, rule=rule, value="", remedy=""))
    return problems, keys


def _paths_of(file: FileScan) -> Iterator[str]:
    """Paths that a store may list as left out, except demos, whose names are always UTF-8."""
    yield from (info.path for demo in file.demos for info in demo.datasets)
    yield from (f"mask/{split}" for split in file.splits)
    yield from (problem.key for problem in file.problems)

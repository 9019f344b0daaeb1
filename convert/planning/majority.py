"""Find what most demos have (keys, types, shapes) and which demos differ. Pure; no I/O.

A store that is appended to comes first: what it holds is the rule, however many the new demos are. Else the majority is, and
where two halves are equal the half of the first demo.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robozarr.convert.records import DemoScan, FileScan
from robozarr.convert.sources.misfits import AS_MANY
from robozarr.schemas.errors import Problem
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import LEFT_OUT, StoreMetadata
from robozarr.schemas.source import is_array_name, is_ragged, key_name, key_names

__all__ = ["Base", "LeftOutKeys", "Verdict", "judge"]

Kind = tuple[str, tuple[int, ...]]
"""Type and shape of one step; the shape of a ragged key is empty."""
LeftOutKeys = dict[tuple[str, str], str]
"""File and path of a dataset that is left out in all its demos → why (a reason of ``not_stored``)."""
OF_DEMO = "leave the demo out with --on-error skip, or the key with --keys"
APART = "convert unlike files into stores of their own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The content of a store that is appended to."""

    metadata: StoreMetadata
    layouts: dict[str, ArrayLayout]
    """Layout of every array, as it is on disk."""
    files: tuple[FileScan, ...]
    """Its sources, as if they were scanned again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What most demos have, and who differs."""

    usual: dict[str, Kind]
    """Path → kind, of every dataset that becomes a key."""
    names: dict[str, str]
    """Path → name of the key, of the same datasets except the nameless."""
    repeats: tuple[str, ...]
    """Paths below ``next_obs`` that repeat ``obs`` wherever they are."""
    demos: tuple[Problem, ...]
    """Demos that lack a usual key, or hold it with another type or shape."""
    keys: tuple[Problem, ...]
    """Unusual keys of the other demos."""
    keys_out: LeftOutKeys
    """The same keys, as entries of what is left out."""
    nameless: dict[str, str]
    """Paths that cannot be stored under any name, and why."""


@dataclass(frozen=True, slots=True)
class _Demo:
    """A demo with the datasets that may still become keys."""

    file: FileScan
    demo: DemoScan
    kinds: dict[str, Kind]


def judge(files: Sequence[FileScan], selected: tuple[str, ...] | None, base: Base | None, left_out: LeftOutKeys) -> Verdict:
    """Find what most demos of `files` have, and which demos and keys differ; entries of `left_out` do not count."""
    demos = [
        _Demo(
            file,
            demo,
            {
                info.path: (str(info.dtype), () if is_ragged(info.name or info.path) else info.shape[1:])
                for info in demo.datasets
                if (file.path, info.path) not in left_out
            },
        )
        for file in files
        for demo in file.demos
    ]
    counts: dict[str, Counter[Kind]] = {}
    for each in demos:
        for path, kind in each.kinds.items():
            counts.setdefault(path, Counter())[kind] += 1
    repeats = _repeats(demos, counts, selected, base)
    usual, halves = _usual(demos, counts, repeats, base)
    names = {key.source: key.name for key in base.metadata.keys} if base is not None else key_names(usual, _called(demos))
    new = demos[sum(len(file.demos) for file in base.files) :] if base is not None else demos
    unlike: list[Problem] = []
    odd: list[tuple[_Demo, str]] = []
    for each in new:
        problems = list(_unlike(each, usual, halves, base))
        unlike += problems
        if not problems:
            known = usual.keys() | (set(repeats) & set(each.demo.repeats))
            odd += [(each, path) for path in each.kinds if path not in known]
    holders: dict[tuple[str, str], list[str]] = {}
    for each, path in odd:
        holders.setdefault((each.file.path, path), []).append(each.demo.name)
    found = {place: _odd_key(*place, names, counts[place[1]].total(), len(demos), base) for place, names in holders.items()}
    keys, keys_out = list(found.values()), {place: _reason(problem) for place, problem in found.items()}
    unusable = [] if base is not None else list(_unusable(demos, names))
    keys += [problem for problem, _ in unusable]
    keys_out |= {place: _reason(problem) for problem, places in unusable for place in places}
    return Verdict(
        usual=usual,
        names=names,
        repeats=repeats,
        demos=tuple(unlike),
        keys=tuple(keys),
        keys_out=keys_out,
        nameless={path: f"another dataset is called {path.replace('/', '.')}" for path in usual if path not in names},
    )


def _called(demos: Sequence[_Demo]) -> dict[str, str]:
    """Path → the key name that the layouts give; the first demo decides."""
    return {info.path: info.name for each in reversed(demos) for info in reversed(each.demo.datasets) if info.name}


def _repeats(
    demos: Sequence[_Demo], counts: dict[str, Counter[Kind]], selected: tuple[str, ...] | None, base: Base | None
) -> tuple[str, ...]:
    asked_for = {path for path in counts if selected is not None and (path in selected or key_name(path) in selected)}
    n_repeat = Counter(path for each in demos for path in each.demo.repeats if path in each.kinds)
    # in a demo of one step there is nothing to compare
    compared = {path for each in demos if each.demo.length > 1 for path in each.demo.repeats} - asked_for
    if base is not None:  # the store has no such key, whatever others hold
        return tuple(sorted(set(n_repeat) - {key.source for key in base.metadata.keys} - asked_for))
    return tuple(sorted(path for path in compared & counts.keys() if n_repeat[path] == counts[path].total()))


def _usual(
    demos: Sequence[_Demo], counts: dict[str, Counter[Kind]], repeats: tuple[str, ...], base: Base | None
) -> tuple[dict[str, Kind], set[str]]:
    """The usual type and shape of each path; and the paths over which the demos split into two equal halves."""
    if base is not None:
        return {key.source: (key.dtype, key.shape) for key in base.metadata.keys}, set()
    usual, halves = {}, set()
    for path, kinds in counts.items():
        twice, n = 2 * kinds.total(), len(demos)
        if path in repeats or twice < n or (twice == n and path not in demos[0].kinds):
            continue
        (kind, most), *others = kinds.most_common(2)  # of equals, what was met first
        usual[path] = kind
        if twice == n or (others and others[0][1] == most):
            halves.add(path)
    return usual, halves


def _unlike(each: _Demo, usual: dict[str, Kind], halves: set[str], base: Base | None) -> Iterator[Problem]:
    """What a demo lacks, or holds with another type or shape."""
    rows = dict(each.demo.misfits)
    first = " (two equal halves: the first demo's counts)"
    for path, (dtype, shape) in usual.items():
        found = each.kinds.get(path)
        if found == (dtype, shape):
            continue
        if found is not None:
            rule = f"a step must be {dtype} {shape}, as in {'the store' if base is not None else 'most demos'}"
            value, remedy = f"{found[0]} {found[1]}", APART
        elif path in rows:
            rule, value, remedy = AS_MANY, f"{rows[path]} and {each.demo.length} steps", OF_DEMO
        else:
            rule, value, remedy = "every demo must hold the keys that the others hold", "nothing", OF_DEMO
        yield Problem(
            file=each.file.path,
            demo=each.demo.name,
            key=path,
            rule=rule + (first if path in halves else ""),
            value=value,
            remedy=remedy,
        )


def _odd_key(file: str, path: str, holders: list[str], n_hold: int, n_demos: int, base: Base | None) -> Problem:
    """The problem of a key that some demos of a file have and the others lack."""
    rule, value = "most demos do not hold it", f"it in {n_hold} of {n_demos} demos"
    remedy = f"leave the key out with --without {path}, or with --on-error skip"
    if 2 * n_hold == n_demos:
        rule = "half of the demos, and the first of them, do not hold it"
    if base is not None:
        rule, value = "an append must hold the store's keys and no others", "a key that the store lacks"
        remedy = "leave the key out with --on-error skip, or convert all sources into a new store"
    if len(holders) > 1:
        more = f", … {holders[-1]}" if len(holders) > 2 else ""
        value += f" ({holders[0]}, {holders[1]}{more})"
    demo = holders[0] if len(holders) == 1 else ""
    return Problem(file=file, demo=demo, key=path, rule=rule, value=value, remedy=remedy)


def _unusable(demos: Sequence[_Demo], names: dict[str, str]) -> Iterator[tuple[Problem, set[tuple[str, str]]]]:
    """Names that HDF5 allows but a store cannot use: paths out of the folder, and names of files in it."""
    for path, name in names.items():
        if not is_array_name(name):
            rule, remedy = (
                "the name of a key must be valid as an array name",
                "rename the dataset, or leave it out with --without",
            )
            holders = {(each.file.path, path): None for each in demos if path in each.kinds}
            problem = Problem(file=next(iter(holders))[0], key=path, rule=rule, value=repr(name), remedy=remedy)
            yield problem, set(holders)


def _reason(problem: Problem) -> str:
    return f"{LEFT_OUT}{problem.rule}; found {problem.value}"

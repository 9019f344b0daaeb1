"""Check the rules of FORMAT.md that hold between the tables of a store. Pure: tables in, broken rules out.

What holds inside one shard is checked by ``schemas.shard``; what holds against the sources by ``convert.verifying.compare``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.sources.detect import detect_flags
from robozarr.schemas.documents import parse_json
from robozarr.schemas.index import StepFlag
from robozarr.schemas.instructions import InstructionSource
from robozarr.schemas.metadata import StoreMetadata, text_paths, variable_paths
from robozarr.schemas.source import RAGGED_KEYS, demo_number
from robozarr.store.table_rules import (
    BrokenRule,
    Tables,
    broken_codes,
    broken_flags,
    broken_index,
    broken_offsets,
    broken_texts,
    texts_between,
)

__all__ = [
    "Violation",
    "check_checksums",
    "check_flags",
    "check_statistics",
    "check_tables",
    "texts_by_hand",
    "texts_of",
    "violations_of",
]

TOLERANCE = 1e-9
"""Relative tolerance: sums of floats differ in their last bits between processors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule of FORMAT.md that a store breaks, or a difference from its sources ("source")."""

    rule: str
    """Number of the rule, such as ``M11``; ``source`` for a difference from the sources."""
    text: str
    """Where it is, what was expected, what was found."""

    def __str__(self) -> str:
        return f"[{self.rule}] {self.text}"


def violations_of(broken: Iterable[BrokenRule]) -> Iterator[Violation]:
    """List broken rules as violations."""
    return (Violation(rule=rule, text=text) for rule, text in broken)


def check_checksums(
    path: str, stored: NDArray[np.uint32], found: NDArray[np.uint32], what: str, first: int
) -> Iterator[Violation]:
    """M21: compare checksums or fingerprints of a key's steps or episodes, from number `first` on, with those of its data."""
    if (bad := np.flatnonzero(stored != found)).size:
        number = first + int(bad[0])
        text = f"{path}: of {what} {number} the data has {found[bad[0]]:#010x}, got {stored[bad[0]]:#010x}"
        yield Violation(rule="M21", text=f"{text} ({bad.size} differ): shards were mixed up, or the table is another store's")


def texts_of(tables: Tables, path: str) -> list[bytes]:
    """The texts of a column."""
    return texts_between(tables[f"{path}/offsets"], tables[f"{path}/bytes"])


def check_tables(metadata: StoreMetadata, tables: Tables) -> Iterator[Violation]:
    """Check M11, M13 to M17, and M22."""
    if broken := list(violations_of(broken_index(metadata, tables))):
        yield from broken  # everything below counts on episodes and rows
        return
    yield from violations_of(chain(broken_codes(metadata, tables), broken_flags(tables["index/flags"])))
    for path in sorted(variable_paths(metadata)):
        values = tables.get(f"{path}/bytes")
        n_values = None if values is None else len(values)  # of the others inventory has checked it
        if broken := list(violations_of(broken_offsets(path, tables[f"{path}/offsets"], n_values))):
            yield from broken
            return
    lengths, start = tables["episodes/length"], tables["episodes/start"]
    for key in metadata.keys:
        if key.name in RAGGED_KEYS and not key.ragged:
            yield Violation(rule="M16", text=f"steps/{key.name}: is always ragged")
    for key in (key for key in metadata.keys if key.ragged):
        widths = np.diff(tables[f"ragged/{key.name}/offsets"])
        if (widths != np.repeat(widths[start], lengths)).any():
            row = int(np.flatnonzero(widths != np.repeat(widths[start], lengths))[0])
            yield Violation(
                rule="M16", text=f"ragged/{key.name}: the width must be the same within an episode; row {row} differs"
            )
    yield from _check_texts(metadata, tables)


def _check_texts(metadata: StoreMetadata, tables: Tables) -> Iterator[Violation]:
    for path in sorted(path for path in text_paths(metadata) if f"{path}/bytes" in tables):
        texts = texts_of(tables, path)
        if broken := list(violations_of(broken_texts(path, texts))):
            yield from broken
            return
        for number, text in enumerate(texts if path.endswith("/attributes") else ()):
            try:
                _check_attributes(parse_json(text, foreign_bytes=True))
            except ValueError as exc:
                yield Violation(rule="M17", text=f"{path}: text {number}: {exc}")
                return
    demos = [text.decode() for text in texts_of(tables, "episodes/demo")]
    order = [(int(source), demo_number(demo), demo) for source, demo in zip(tables["episodes/source"], demos, strict=True)]
    if order != sorted(set(order)):
        rule = "episodes must be sorted by source and then by demo number, each once; they are not"
        yield Violation(rule="M13", text=f"episodes/demo: {rule}")
    if metadata.format_version > 1:
        yield from _check_instructions(tables)


def _check_instructions(tables: Tables) -> Iterator[Violation]:
    """M22: check that an episode's instruction is its task's, and that its source is stated."""
    stated, named = (texts_of(tables, f"tasks/{name}") for name in ("instruction", "instruction_from_name"))
    texts, codes = texts_of(tables, "episodes/instruction"), tables["episodes/instruction_source"].tolist()
    for episode, (task, text, code) in enumerate(zip(tables["episodes/task"].tolist(), texts, codes, strict=True)):
        if not 0 <= task < len(stated):
            return  # M13 says so
        expected = stated[task] or named[task]
        allowed = set(InstructionSource) - {InstructionSource.NONE, InstructionSource.FILE_NAME}
        if not stated[task]:
            allowed = {InstructionSource.FILE_NAME if named[task] else InstructionSource.NONE}
        if text != expected:
            words = f"{expected.decode()!r}, as task {task} has it, got {text.decode()!r}"
            yield Violation(rule="M22", text=f"episodes/instruction: episode {episode}: {words}")
            return
        if code not in allowed:
            words = f"one of {sorted(int(one) for one in allowed)} by its task, got {code}"
            yield Violation(rule="M22", text=f"episodes/instruction_source: episode {episode}: {words}")
            return


def texts_by_hand(metadata: StoreMetadata, tables: Tables) -> dict[tuple[int, str], str]:
    """The instructions that were given by hand, by source and demo."""
    if metadata.format_version == 1:
        return {}
    by_hand = np.flatnonzero(tables["episodes/instruction_source"] == InstructionSource.BY_HAND).tolist()
    texts, demos = (texts_of(tables, f"episodes/{name}") for name in ("instruction", "demo"))
    sources = tables["episodes/source"].tolist()
    return {(sources[episode], demos[episode].decode()): texts[episode].decode() for episode in by_hand}


def _check_attributes(value: object) -> None:
    """Raise ValueError unless `value` is path → name → an object with a dtype."""
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    for path, names in value.items():
        if not isinstance(names, dict) or not all(isinstance(entry, dict) and "dtype" in entry for entry in names.values()):
            raise ValueError(f"{path!r} does not lead to attributes with a dtype")


def check_flags(
    metadata: StoreMetadata, tables: Tables, actions: NDArray[Any], joints: NDArray[Any] | None
) -> Iterator[Violation]:
    """M12: check that the flags follow their rules, from the columns `actions` and `joints` [step, …].

    Where the rule for still starts looked at a key that was left out of the store, its bit cannot be checked.
    """
    known = np.uint8(0xFF)
    if metadata.joint_key is not None and joints is None:
        known = np.uint8(0xFF & ~int(StepFlag.STILL))
    flags = tables["index/flags"]
    if broken := list(violations_of(broken_flags(flags))):
        yield from broken
        return
    for number, (start, length) in enumerate(zip(tables["episodes/start"], tables["episodes/length"], strict=True)):
        rows = slice(int(start), int(start + length))
        expected = detect_flags(actions[rows], None if joints is None else joints[rows], metadata.flag_rules)
        different = (flags[rows] ^ expected) & known
        if different.any():
            step = int(np.flatnonzero(different)[0])
            text = (
                f"index/flags: episode {number}, step {step}: {expected[step]:#05b} by the rules, got {flags[rows][step]:#05b}"
            )
            yield Violation(rule="M12", text=text)
            return


def check_statistics(
    path: str, stored: NDArray[Any], computed: NDArray[Any], rule: str, scale: NDArray[Any] | float = 0.0
) -> Iterator[Violation]:
    """M18 and M19: compare a stored table of statistics with one computed from the data.

    `scale` bounds the size of the numbers that were added up: a difference of rounding is relative to them.
    """
    finite = np.isfinite(stored) & np.isfinite(computed)
    with np.errstate(invalid="ignore"):  # not by np.isclose: numpy 1 takes no array of tolerances where there are NaN
        near = np.abs(stored - computed) <= TOLERANCE * (np.nan_to_num(scale, posinf=0) + np.abs(computed))
    same = (near & finite) | (stored == computed) | (np.isnan(stored) & np.isnan(computed))
    if not same.all():
        at = tuple(int(i) for i in np.argwhere(~same)[0])
        yield Violation(rule=rule, text=f"{path}{list(at)}: {computed[at]!r} by the data, got {stored[at]!r}")

"""Check a store's texts and tables: instructions, splits, units and ranges."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

import numpy as np

from robozarr.schemas.instructions import (
    CONTAINERS,
    Found,
    InstructionSource,
    choose_words,
    is_named_so,
    named_in,
    same_wording,
    shown,
    wording_of_name,
)
from robozarr.store.opened import Store
from robozarr.view.findings import Finding, listed

__all__ = ["check_instructions", "check_keys", "check_ranges", "check_splits"]

TRAINING: Final = frozenset({"train", "training"})
HELD_OUT: Final = frozenset({"valid", "val", "validation", "test", "testing", "eval", "evaluation", "heldout"})
"""Words in the names of held-out splits; names look like ``train`` and ``20_percent_valid``."""
RANGE_TOLERANCE: Final = 1e-6
N_SOURCES_READ: Final = 500
"""Most sources whose attributes are searched for other wordings, together with their first episode's."""


def check_instructions(store: Store) -> Iterator[Finding]:
    """Find episodes without an instruction, and instructions that come from file names, or that have other wordings."""
    codes, n = store.episodes.instruction_source, store.n_episodes
    without = np.flatnonzero([not text for text in store.episodes.instruction])
    if without.size:
        all_of_them = len(without) == n
        who = "no source states an instruction" if all_of_them else f"episodes {listed(without)} have no instruction, others do"
        yield Finding(
            level="notice" if all_of_them else "problem",
            title="No instruction" if all_of_them else f"Episodes without an instruction: {len(without)} of {n}",
            detail=f"{who}: batches have an empty instruction there; nothing is made up from file names → convert "
            "with --instruction TEXT or --instructions FILE, if the policy reads instructions",
        )
    else:
        n_texts = len(set(store.episodes.instruction))
        yield Finding(level="good", title="Every episode has an instruction", detail=f"{n_texts} distinct, in {n} episodes")
    named = np.flatnonzero(codes == InstructionSource.FILE_NAME)
    if named.size:
        yield Finding(
            level="notice", title=f"Instructions from names of files: {named.size} episodes",
            detail=f"the sources of episodes {listed(named)} state no instruction, so the file name's wording is used, by "
            f"LIBERO's naming, such as {shown(store.episodes.instruction[int(named[0])])}",
        )  # fmt: skip
    other = list(dict.fromkeys([*_names_that_differ(store), *_attributes_that_differ(store)]))
    if other:
        yield Finding(
            level="notice", title=f"Wordings that differ: {len(other)}",
            detail=f"{'; '.join(other[:4])}{f'; and {len(other) - 4} more' if len(other) > 4 else ''} → batches hold the first "
            'of each; adapters take either, wording="file" or "name"; evaluate with the wording used in training',
        )  # fmt: skip


def _names_that_differ(store: Store) -> Iterator[str]:
    for stated, name in zip(store.tasks.instruction, store.tasks.name, strict=True):
        named = wording_of_name(name)
        if stated and named and not same_wording(stated, named):
            yield f"{shown(stated)} is stated, the file's name says {shown(named)}"


def _attributes_that_differ(store: Store) -> Iterator[str]:
    """Other wordings in the stored attributes of sources and of their first episodes."""
    by_hand = InstructionSource.BY_HAND
    first = {source: episode for episode, source in reversed(list(enumerate(store.episodes.source.tolist())))}
    chosen = dict(sorted(first.items())[:N_SOURCES_READ])
    of_demos, of_files = store.attributes_of_episodes(chosen.values()), store.attributes_of_sources(chosen)
    for (source, episode), of_demo, of_file in zip(chosen.items(), of_demos, of_files, strict=True):
        taken = store.episodes.instruction[episode]
        where = {InstructionSource.DEMO_ATTRIBUTE: of_demo, InstructionSource.FILE_ATTRIBUTE: of_file}
        for code, attributes in where.items():
            words = choose_words(_found_in(attributes, code))
            if words.text and taken and words.text != taken:
                what = "given by hand" if store.episodes.instruction_source[episode] == by_hand else "taken"
                name = store.metadata.sources[source].name
                yield f"{shown(taken)} is {what}, {words.where} of {name} says {shown(words.text)}"


def _found_in(attributes: Mapping[str, Any], source: InstructionSource) -> Iterator[Found]:
    """Possible instructions in the attributes of a store (FORMAT.md, M17)."""
    for path, names in attributes.items():
        inside = f"{path}@" if path not in ("", "data") else ""
        for name, entry in names.items():
            value = entry.get("value")
            if entry.get("dtype") != "text":
                continue
            if is_named_so(name):
                yield Found(f"attribute {inside}{name}", name.lower(), value, source)
            elif name.lower() in CONTAINERS:
                for inner, text in named_in(_object(value)):
                    yield Found(f"attribute {inside}{name}.{inner}", inner.lower(), text, source)


def _object(value: object) -> Mapping[str, Any]:
    text = value[0] if isinstance(value, list) and len(value) == 1 else value
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_splits(store: Store) -> Iterator[Finding]:
    """Find episodes that are in a training split and in a held-out one."""
    splits = store.episodes.splits
    words = {name: set(re.split(r"[^a-z]+", name.lower())) for name in splits}
    pairs = product(*([name for name in splits if words[name] & kind and not words[name] & other]
                      for kind, other in ((TRAINING, HELD_OUT), (HELD_OUT, TRAINING))))  # fmt: skip
    overlaps = [(train, held_out, np.flatnonzero(splits[train] & splits[held_out])) for train, held_out in pairs]
    bad = [f"{held_out} and {train} share episodes {listed(both)}" for train, held_out, both in overlaps if both.size]
    if bad:
        yield Finding(
            level="problem", title=f"Overlapping splits: {len(bad)}",
            detail=f"{'; '.join(bad)} → validation data were used in training; make new splits",
        )  # fmt: skip
    elif overlaps:
        yield Finding(
            level="good", title="Splits do not overlap",
            detail=f"{', '.join(splits)}: no episode is both in a training split and in a held-out one",
        )  # fmt: skip


def check_ranges(store: Store) -> Iterator[Finding]:
    """Find actions outside the range that their unit states, such as "controller command in [-1, 1]"."""
    stated = []
    for key in store.metadata.keys:
        match = re.search(r"in \[(-?[\d.]+), ?(-?[\d.]+)\]", key.unit)
        if key.role != "action" or key.ragged or key.frame or match is None:
            continue
        low, high = map(float, match.groups())
        stats = store.episode_stats(key.name)
        least, most = (stats[name].reshape(store.n_episodes, -1) for name in ("min", "max"))
        beyond = (least < low - RANGE_TOLERANCE) | (most > high + RANGE_TOLERANCE)
        stated.append(f"{key.name} in [{low:g}, {high:g}]")
        if beyond.any():
            elements = [
                f"{i} ({least[:, i].min():.4g} to {most[:, i].max():.4g})" for i in np.flatnonzero(beyond.any(axis=0)).tolist()
            ]
            yield Finding(
                level="problem", title=f"{key.name} beyond their stated range",
                detail=f"[{low:g}, {high:g}] is stated; elements {listed(elements)} exceed it in episodes "
                f"{listed(np.flatnonzero(beyond.any(axis=1)))} → are these commands of another controller, or not scaled?",
            )  # fmt: skip
            stated.pop()
    if stated:
        yield Finding(level="good", title="Actions stay within their stated range", detail=", ".join(stated))


def check_keys(store: Store) -> Iterator[Finding]:
    """Find keys of unknown meaning or unit."""
    unknown = [key.name for key in store.metadata.keys if str(key.role) == "unknown" or not key.unit]
    if unknown:
        yield Finding(
            level="notice", title=f"Keys whose meaning is not known: {len(unknown)}",
            detail=f"{listed(unknown)}: neither name nor values tell their role or unit → look them up at the data's origin "
            "before you feed them to a policy",
        )  # fmt: skip

"""Rules of FORMAT.md that tables must follow before they are used. Pure: tables in, broken rules out.

Whoever reads tables asks here, once: ``store.opened`` for the loader and for what people look at, ``convert.verifying`` for
``verify`` and for an append. Nothing here adds or subtracts numbers of a store before they are known to be in range: a sum that
wraps would be right by accident. Imports no Zarr library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.index import FLAG_MASK, Alignment, ImageConvention, ImageEvidence, build_index
from robozarr.schemas.instructions import InstructionSource
from robozarr.schemas.layout import PROFILES, ArrayLayout, CodecName
from robozarr.schemas.metadata import StoreMetadata
from robozarr.schemas.source import demo_number

__all__ = [
    "MOST_STEPS_OF_AN_EPISODE",
    "BrokenRule",
    "Tables",
    "broken_codes",
    "broken_flags",
    "broken_index",
    "broken_layout",
    "broken_lengths",
    "broken_offsets",
    "broken_texts",
    "exact_sum",
    "texts_between",
]

Tables = Mapping[str, NDArray[Any]]
MOST_STEPS_OF_AN_EPISODE: Final = 2**31 - 1
"""Most steps of an episode: ``index/step`` is int32."""
CODES: Final = {
    "success": {-1, 0, 1},
    "alignment": {int(code) for code in Alignment},
    "image_convention": {int(code) for code in ImageConvention},
    "image_evidence": {int(code) for code in ImageEvidence},
    "instruction_source": {int(code) for code in InstructionSource},
}
OF_FORMAT_2: Final = {"image_evidence": {int(ImageEvidence.LAYOUT)}}
"""Codes that a store of version 1 does not have."""


WITHOUT_KEYFRAMES: Final[dict[CodecName, CodecName]] = {"frames-lean": "blosc-lz4", "frames-compact": "blosc-zstd"}
"""Other codecs of frames, one frame per chunk: for steps that are too large for a chunk of 16, and in older stores."""


class BrokenRule(NamedTuple):
    """A broken rule of FORMAT.md: its number, the place, what must be, what was found."""

    rule: str
    text: str


def exact_sum(numbers: NDArray[np.int64]) -> int:
    """The sum of int64 [n], n < 2³¹, without overflow.

    >>> exact_sum(np.array([2**62, 2**62, 2**62], np.int64)) == 3 * 2**62
    True
    """
    numbers = np.asarray(numbers, np.int64)
    return (int((numbers >> 32).sum()) << 32) + int((numbers & 0xFFFFFFFF).sum())


def broken_layout(found: ArrayLayout, expected: ArrayLayout) -> Iterator[BrokenRule]:
    """M3, M5 and M6: compare an array's ``zarr.json`` with what the attributes require."""
    for name in ("shape", "dtype", "dims"):
        got, wanted = getattr(found, name), getattr(expected, name)
        if got != wanted:
            yield BrokenRule("M3", f"{found.path}: {name} must be {wanted}, got {got}")
    folder, _, last = expected.path.partition("/")
    if folder == "steps" or (folder == "ragged" and last.endswith("/values")):
        if found.codec not in (expected.codec, WITHOUT_KEYFRAMES.get(expected.codec)):
            yield BrokenRule("M5", f"{found.path}: codec must be {expected.codec} by the profile, got {found.codec}")
        if expected.step_a_chunk and found.effort is None and found.chunk_rows != 1:
            yield BrokenRule("M6", f"{found.path}: frames must have one step per chunk, got {found.chunk_rows}")
    elif found.codec not in {codec for codec, _ in PROFILES.values()} | {expected.codec}:
        yield BrokenRule("M5", f"{found.path}: codec {found.codec} is not one of the format")


def broken_lengths(metadata: StoreMetadata, tables: Tables) -> Iterator[BrokenRule]:
    """M11 for ``episodes/length`` and ``episodes/start``, from which rows and windows are counted."""
    lengths, start, n = tables["episodes/length"], tables["episodes/start"], metadata.n_steps
    if (lengths < 1).any() or (lengths > min(n, MOST_STEPS_OF_AN_EPISODE)).any() or exact_sum(lengths) != n:
        most = f"every episode has a step and at most {MOST_STEPS_OF_AN_EPISODE}"
        yield BrokenRule("M11", f"episodes/length: {most}, {n} together; got {exact_sum(lengths)}")
        return
    expected = np.cumsum(lengths) - lengths  # in [0, n_steps], as the sum is exact and no length is negative
    yield from _different("episodes/start", start, expected)


def broken_index(metadata: StoreMetadata, tables: Tables) -> Iterator[BrokenRule]:
    """M11 for the whole index; skipped if lengths are already broken."""
    yield from (broken := list(broken_lengths(metadata, tables)))
    if not broken:
        _, episode, step = build_index(tables["episodes/length"])
        yield from _different("index/episode", tables["index/episode"], episode)
        yield from _different("index/step", tables["index/step"], step)


def _different(path: str, got: NDArray[Any], expected: NDArray[Any]) -> Iterator[BrokenRule]:
    if not np.array_equal(got, expected):
        row = int(np.flatnonzero(got != expected)[0])
        yield BrokenRule("M11", f"{path}: row {row} must be {expected[row]}, got {got[row]}")


def broken_flags(flags: NDArray[np.uint8]) -> Iterator[BrokenRule]:
    """M12, as far as it can be checked from the flags alone."""
    if (flags & ~np.uint8(FLAG_MASK)).any():
        yield BrokenRule("M12", f"index/flags: only bits {FLAG_MASK:#05b} have a meaning")


def broken_codes(metadata: StoreMetadata, tables: Tables) -> Iterator[BrokenRule]:
    """M13, M14 and M22: codes in those columns of the episode table that are present."""
    n_sources = len(metadata.sources)
    for name, n in (("task", metadata.n_tasks), ("source", n_sources)):
        column = tables[f"episodes/{name}"]
        if (bad := column[(column < 0) | (column >= n)]).size:
            yield BrokenRule("M13", f"episodes/{name}: {np.unique(bad)[:9].tolist()} mean nothing: numbers in [0, {n})")
    for name, allowed in CODES.items():
        column = tables.get(f"episodes/{name}", np.empty(0, np.int8))
        if metadata.format_version == 1:
            allowed = allowed - OF_FORMAT_2.get(name, set())
        if unknown := set(np.unique(column).tolist()) - allowed:
            yield BrokenRule(
                "M22" if name == "instruction_source" else "M14", f"episodes/{name}: {sorted(unknown)} mean nothing"
            )
    counts = np.bincount(np.clip(tables["episodes/source"], 0, max(n_sources, 1)), minlength=n_sources).tolist()
    stated = [source.n_demos for source in metadata.sources]
    if counts[:n_sources] != stated:
        text = f"episodes/source: the sources state {stated} demos, the episodes name {counts[:n_sources]}"
        yield BrokenRule("M13", text)


def broken_offsets(path: str, offsets: NDArray[np.int64], n_values: int | None, *, whole: bool = True) -> Iterator[BrokenRule]:
    """M15: whether ``<path>/offsets``, or a range of them, point into `n_values` values (None: unknown)."""
    begins = 0 if whole else max(0, int(offsets[0])) if len(offsets) else 0
    if len(offsets) == 0 or offsets[0] != begins or (offsets[1:] < offsets[:-1]).any():
        text = f"{path}/offsets: offsets must begin at 0 and never fall; got {offsets[:4].tolist()}…"
        yield BrokenRule("M15", text)
    elif n_values is not None and (offsets[-1] != n_values if whole else offsets[-1] > n_values):
        found = f"{offsets[0]} to {offsets[-1]}"
        yield BrokenRule(
            "M15", f"{path}/offsets: must ascend from 0 to the {n_values} values that they point into; found {found}"
        )


def broken_texts(path: str, texts: list[bytes]) -> Iterator[BrokenRule]:
    """M17: find the first text of a column that is not UTF-8; in ``episodes/demo``, the first one without a number."""
    for number, text in enumerate(texts):
        try:
            value = text.decode()
            if path == "episodes/demo":
                demo_number(value)
        except ValueError as exc:
            yield BrokenRule("M17", f"{path}: text {number}: {exc}")
            return


def texts_between(offsets: NDArray[np.int64], data: NDArray[np.uint8]) -> list[bytes]:
    """The texts of a column."""
    whole = data.tobytes()
    return [whole[start:stop] for start, stop in pairwise(offsets.tolist())]

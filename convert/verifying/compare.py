"""Compare a store with its sources, bit for bit, key by key, demo by demo.

The sources are scanned and planned anew; then every table and every value of the store must be what the plan says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.plan import Plan
from robozarr.convert.records import Partition
from robozarr.convert.sources.content import digest_or_nothing
from robozarr.convert.sources.videos import is_video_file
from robozarr.convert.verifying.checks import Violation
from robozarr.convert.writing.write import read_partition
from robozarr.schemas.errors import SourceError
from robozarr.schemas.metadata import Key, SourceEntry, StoreMetadata
from robozarr.store.place import Place
from robozarr.store.table_rules import Tables

__all__ = ["compare_digests", "compare_plan", "compare_rows", "match_sources"]


def match_sources(metadata: StoreMetadata, paths: Sequence[Path]) -> list[Path]:
    """Find the file among `paths` for each source of the store: first by content, wherever it lies, then by name.

    Raises
    ------
    SourceError
        If a source has no file, or several.
    """
    sizes = {path: path.stat().st_size for path in paths}
    wanted = {source.size for source in metadata.sources if source.digest}
    left = {path: digest_or_nothing(path) for path in paths if sizes[path] in wanted}
    matched: list[Path | None] = []
    for source in metadata.sources:
        same = [
            path for path, digest in left.items() if source.digest and (sizes[path], digest) == (source.size, source.digest)
        ]
        found = next((path for path in same if _is_called(path, source.name)), same[0] if same else None)
        if found is not None:
            del left[found]
        matched.append(found)
    taken = {path for path in matched if path is not None}
    return [
        _by_name(source, [path for path in paths if path not in taken], sizes) if found is None else found
        for source, found in zip(metadata.sources, matched, strict=True)
    ]


def _by_name(source: SourceEntry, paths: Sequence[Path], sizes: Mapping[Path, int]) -> Path:
    """The file with a source's name, if its content has changed or the store does not record it."""
    found = [path for path in paths if _is_called(path, source.name)]
    if not found:  # its folder may have been renamed
        found = [path for path in paths if path.name == source.name.split("/")[-1] and sizes[path] == source.size]
    if len(found) != 1:
        others = f": {', '.join(str(path) for path in found)}" if found else ""
        raise SourceError(
            f"the store was made from {source.name} ({source.size} bytes); {len(found)} of the {len(paths)} files given "
            f"have this name{others}. Give --source the folder that holds it"
        )
    return found[0]


def _is_called(path: Path, name: str) -> bool:
    tail = tuple(name.split("/"))
    return path.parts[-len(tail) :] == tail


def compare_plan(metadata: StoreMetadata, tables: Tables, plan: Plan) -> Iterator[Violation]:
    """Compare attributes and tables of a store with a new plan made from its sources."""
    # a source may be called otherwise here: it is what it holds, and its folder may have been renamed
    called = {mine.name: theirs.name for mine, theirs in zip(plan.metadata.sources, metadata.sources, strict=True)}
    not_stored = tuple(replace(entry, source=called[entry.source]) for entry in plan.metadata.not_stored)
    planned = replace(plan.metadata, not_stored=not_stored)
    version_1 = metadata.format_version == 1  # words were read otherwise, and belonged to tasks
    for name in ("n_steps", "n_episodes", "n_tasks", "control_freq", "keys", "splits", "joint_key", "not_stored"):
        if version_1 and name == "n_tasks":
            continue
        got, expected = getattr(metadata, name), getattr(planned, name)
        if name == "keys":  # the pixels decide, not what decoded them
            got, expected = (tuple(replace(key, decoded=_codecs(key)) for key in keys) for keys in (got, expected))
        if name == "not_stored":  # a video that lay beside a source may be gone: nothing was taken from it
            got, expected = (tuple(each for each in entries if not is_video_file(each.path)) for entries in (got, expected))
        if got != expected:
            yield Violation(rule="source", text=f"attribute {name}: {expected!r} by the sources, got {got!r}")
    for source, file in zip(metadata.sources, plan.files, strict=True):
        if (source.size, source.n_demos) != (file.size, len(file.demos)):
            yield Violation(
                rule="source",
                text=f"source {source.name}: {source.size} bytes and {source.n_demos} demos when converted, "
                f"{file.size} and {len(file.demos)} now",
            )
    for path, expected in plan.tables.items():
        if version_1 and path.startswith(("tasks/", "episodes/task", "episodes/instruction")):
            continue
        stored = tables.get(path)
        if stored is None or not same_bits(stored, expected):
            yield Violation(rule="source", text=f"{path}: not what the sources say")


def compare_digests(metadata: StoreMetadata, plan: Plan) -> Iterator[Violation]:
    """Sources whose content has changed, in data that the store does not hold or that was not compared."""
    for source, file in zip(metadata.sources, plan.files, strict=True):
        if source.digest not in ("", file.digest):
            text = f"source {source.name}: its content had the digest {source.digest} when converted, {file.digest} now"
            yield Violation(rule="source", text=text)


def _codecs(key: Key) -> str:
    """The codecs of a key's frames (JPEG, PNG), without their decoders."""
    return "; ".join(sorted({text.split()[0].rstrip(",") for text in key.decoded.split("; ") if text}))


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays are equal in shape, type and every bit: NaN equals itself, 0.0 is not -0.0."""
    return a.shape == b.shape and a.dtype == b.dtype and little_endian(a) == little_endian(b)


def little_endian(values: NDArray[Any]) -> bytes:
    """The values in little-endian order."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def compare_rows(stored: NDArray[Any], partition: Partition, origin: Place | None = None) -> Iterator[Violation]:
    """Compare a shard's rows with the bytes of the sources, or of the store `origin`; names the first step that differs."""
    expected = read_partition(partition, store=origin)
    for segment in partition.segments:
        rows = slice(segment.at, segment.at + segment.stop - segment.start)
        mine, theirs = stored[rows], expected[rows]
        if little_endian(mine) != little_endian(theirs):
            width = max(1, mine[:1].nbytes)
            raw = [np.frombuffer(little_endian(x), np.uint8).reshape(len(x), width) for x in (mine, theirs)]
            row = int(np.flatnonzero((raw[0] != raw[1]).any(axis=1))[0])
            yield Violation(
                rule="source",
                text=f"{partition.layout.path}: episode {segment.episode} is not bit for bit {segment.path} · {segment.demo} · "
                f"{partition.source}, from row {segment.start + row} of the demo on"
                + (f" (decoded now: {partition.key.decoded})" if partition.key is not None and partition.key.decoded else ""),
            )

"""Read what a store holds as if its sources were scanned again: for an append, and for converting a store.

Everything comes from documents and tables, checked; no pixels are read.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.infer import Base
from robozarr.convert.planning.left_out import REPEATS
from robozarr.convert.records import DatasetInfo, DemoScan, FileScan
from robozarr.convert.sources.detect import control_frequency, json_object
from robozarr.convert.verifying.checks import check_tables, texts_of
from robozarr.convert.verifying.inventory import read_layouts, read_tables
from robozarr.schemas.errors import StoreError
from robozarr.schemas.index import Alignment, ImageConvention, ImageEvidence
from robozarr.schemas.instructions import InstructionSource, reads_as_instruction
from robozarr.schemas.metadata import FORMAT_VERSION, TASK_TEXTS, SourceEntry, StoreMetadata
from robozarr.store.identity import check_identity
from robozarr.store.place import Place
from robozarr.store.reading import read_metadata

__all__ = ["read_base", "scanned_again"]


def read_base(store: Place) -> Base:
    """What a complete store holds, from its tables.

    Raises
    ------
    StoreError
        If it breaks a rule of FORMAT.md as far as tables show, or is of an older format; nothing may be built on it.
    """
    metadata = read_metadata(store)
    if metadata.format_version != FORMAT_VERSION:
        raise StoreError(
            f"{store} has format {metadata.format_version}, and this robozarr appends to format {FORMAT_VERSION}: an older "
            "store does not say what its sources held, so nothing tells which are new; convert all sources into a new store, "
            "or --overwrite this one"
        )
    if unknown := [source.name for source in metadata.sources if source.n_demos and not source.digest]:
        raise StoreError(
            f"{store} was made from a store of format 1, which does not say what its sources held ({unknown[0]}), so nothing "
            "tells which are new; convert all sources into a new store, or --overwrite this one"
        )
    return scanned_again(store, metadata)[0]


def scanned_again(store: Place, metadata: StoreMetadata) -> tuple[Base, dict[str, NDArray[Any]]]:
    """Read what a complete store of any version holds, and its tables by path.

    Raises
    ------
    StoreError
        If it breaks a rule of FORMAT.md as far as tables show.
    """
    check_identity(metadata, store.url)
    layouts, violations = read_layouts(store, metadata, store.names())
    tables, more = read_tables(store, layouts, metadata)
    if violations := [*violations, *more] or list(check_tables(metadata, tables)):
        raise StoreError(f"{store} is broken, so nothing can be made from it: {violations[0]} (robozarr verify lists all)")
    demos = _demos(metadata, tables)
    texts = {name: [text.decode() for text in texts_of(tables, f"tasks/{name}")] for name in TASK_TEXTS}
    attributes = [text.decode() for text in texts_of(tables, "sources/attributes")]
    source, task = tables["episodes/source"], tables["episodes/task"]
    files = []
    for number, entry in enumerate(metadata.sources):
        mine = np.flatnonzero(source == number)
        facts = {name: column[int(task[mine[0]])] for name, column in texts.items()} if len(mine) else {}
        freq = float(tables["tasks/control_freq"][int(task[mine[0]])]) if len(mine) else float("nan")
        usual = None if np.isnan(freq) else freq
        files.append(replace(_file(metadata, entry, [demos[i] for i in mine], attributes[number], facts), usual_freq=usual))
    return Base(metadata=metadata, layouts=layouts, files=tuple(files)), tables


def _file(
    metadata: StoreMetadata, entry: SourceEntry, demos: list[DemoScan], attributes: str, facts: dict[str, str]
) -> FileScan:
    mine = [fact for fact in metadata.not_stored if fact.source == entry.name]
    repeats = Counter({fact.path: fact.n_demos for fact in mine if fact.reason == REPEATS})
    of_data = json.loads(attributes).get("data", {})
    env_args = json_object(of_data.get("env_args", {}).get("value"))
    from_name = facts.get("instruction_from_name", "")
    if metadata.format_version == 1 and not reads_as_instruction(from_name):
        from_name = ""  # version 1 took any file's name for words
    return FileScan(
        path=entry.name,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        digest=entry.digest,
        problems=(),
        demos=tuple(_with_repeats(demo, i, repeats, metadata) for i, demo in enumerate(demos)),
        not_stored=tuple((fact.path, fact.n_demos, fact.reason) for fact in mine if fact.reason != REPEATS),
        splits=metadata.splits,  # those without members too
        attributes=attributes,
        suite=facts.get("suite", ""),
        task=facts.get("name", ""),
        instruction_from_name=from_name,
        env_name=facts.get("env_name", ""),
        bddl=facts.get("bddl", ""),
        control_freq=control_frequency(env_args),
    )


def _with_repeats(demo: DemoScan, number: int, repeats: Counter[str], metadata: StoreMetadata) -> DemoScan:
    """Add to a demo the ``next_obs`` datasets of its file that repeat ``obs``; which demo held them does not matter."""
    paths = tuple(path for path, n in sorted(repeats.items()) if number < n)
    keys = {key.source: key for key in metadata.keys}
    infos = [_info(path, "", keys[obs].dtype, (demo.length, *keys[obs].shape)) for path in paths if (obs := path[5:]) in keys]
    return replace(demo, repeats=paths, datasets=(*demo.datasets, *infos))


def _info(path: str, name: str, dtype: str, shape: tuple[int, ...]) -> DatasetInfo:
    return DatasetInfo(path=path, name=name, shape=shape, dtype=dtype, stored_as=dtype)


def _demos(metadata: StoreMetadata, tables: dict[str, NDArray[Any]]) -> list[DemoScan]:
    names, attributes = (texts_of(tables, f"episodes/{name}") for name in ("demo", "attributes"))
    sizes = {name: np.diff(tables[f"episodes/{name}/offsets"]) for name in ("model_file", "init_state")}
    instructions = _instructions(metadata, tables)
    demos = []
    for episode, (start, length) in enumerate(zip(tables["episodes/start"], tables["episodes/length"], strict=True)):
        datasets = []
        for key in metadata.keys:
            shape = key.shape
            if key.ragged:
                offsets = tables[f"ragged/{key.name}/offsets"]
                shape = (int(offsets[start + 1] - offsets[start]),)
            datasets.append(_info(key.source, key.name, key.dtype, (int(length), *shape)))
        demos.append(
            DemoScan(
                name=names[episode].decode(),
                length=int(length),
                datasets=tuple(datasets),
                repeats=(),
                flags=tables["index/flags"][start : start + length],
                joint_key=metadata.joint_key,
                alignment=Alignment(int(tables["episodes/alignment"][episode])),
                alignment_error=tuple(tables["episodes/alignment_error"][episode].tolist()),
                image_convention=ImageConvention(int(tables["episodes/image_convention"][episode])),
                image_evidence=ImageEvidence(int(tables["episodes/image_evidence"][episode])),
                success=int(tables["episodes/success"][episode]),
                model_file_bytes=int(sizes["model_file"][episode]),
                init_state_size=int(sizes["init_state"][episode]),
                attributes=attributes[episode].decode(),
                splits=tuple(split for split in metadata.splits if tables[f"episodes/splits/{split}"][episode]),
                rules=metadata.flag_rules,
                instruction=instructions[episode][0],
                instruction_source=instructions[episode][1],
            )
        )
    return demos


def _instructions(metadata: StoreMetadata, tables: dict[str, NDArray[Any]]) -> list[tuple[str, InstructionSource]]:
    """What each episode states; nothing where its words are the file name's."""
    if metadata.format_version == 1:  # words belonged to tasks, and were those of the file
        of_task = [text.decode() for text in texts_of(tables, "tasks/instruction")]
        return [(of_task[task], InstructionSource.FILE_ATTRIBUTE) for task in tables["episodes/task"].tolist()]
    texts, codes = texts_of(tables, "episodes/instruction"), tables["episodes/instruction_source"].tolist()
    return [
        ("" if code == InstructionSource.FILE_NAME else text.decode(), InstructionSource(code))
        for text, code in zip(texts, codes, strict=True)
    ]

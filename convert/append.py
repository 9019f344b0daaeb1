"""Append to a store: read what it holds as if its sources were scanned again, and move the new files into place.

The plan of an append is the plan of old and new sources together, so it is the plan of a store that is made at once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.infer import Base
from robozarr.convert.planning.instructions import task_of
from robozarr.convert.planning.left_out import REPEATS
from robozarr.convert.records import DatasetInfo, DemoScan, FileScan
from robozarr.convert.resuming.journal import Journal
from robozarr.convert.resuming.states import RECOVERIES, Command, Step
from robozarr.convert.sources.content import digest_or_nothing
from robozarr.convert.sources.detect import control_frequency, parse_json
from robozarr.convert.verifying.checks import check_tables, texts_of
from robozarr.convert.verifying.inventory import read_layouts, read_tables
from robozarr.convert.writing.destination import check_destination
from robozarr.convert.writing.write import remove_temporaries, write_metadata
from robozarr.schemas.errors import Problem, SourceError, StoreError
from robozarr.schemas.index import Alignment, ImageConvention, ImageEvidence
from robozarr.schemas.instructions import InstructionSource, reads_as_instruction
from robozarr.schemas.metadata import FORMAT_VERSION, TASK_TEXTS, SourceEntry, StoreMetadata
from robozarr.store.identity import check_identity
from robozarr.store.place import Place
from robozarr.store.reading import read_metadata

__all__ = ["check_unchanged", "commit", "new_sources", "read_base", "recover"]


def read_base(store: Place) -> Base:
    """Read what a complete store holds, from its tables.

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
    check_identity(metadata, store.url)
    layouts, violations = read_layouts(store, metadata, store.names())
    tables, more = read_tables(store, layouts, metadata)
    if violations := [*violations, *more] or list(check_tables(metadata, tables)):
        raise StoreError(f"{store}: broken, so nothing is appended to it: {violations[0]} (robozarr verify lists all)")
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
    return Base(metadata=metadata, layouts=layouts, files=tuple(files))


def _file(
    metadata: StoreMetadata, entry: SourceEntry, demos: list[DemoScan], attributes: str, facts: dict[str, str]
) -> FileScan:
    mine = [fact for fact in metadata.not_stored if fact.source == entry.name]
    repeats = Counter({fact.path: fact.n_demos for fact in mine if fact.reason == REPEATS})
    of_data = json.loads(attributes).get("data", {})
    env_args = parse_json(of_data.get("env_args", {}).get("value"))
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
    """The demo with the ``next_obs`` paths that its file's demos held as repeats of ``obs``, whichever demos held them."""
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
    """The instruction that each episode states; empty where its words come from the file name."""
    if metadata.format_version == 1:  # words belonged to tasks, and were those of the file
        of_task = [text.decode() for text in texts_of(tables, "tasks/instruction")]
        return [(of_task[task], InstructionSource.FILE_ATTRIBUTE) for task in tables["episodes/task"].tolist()]
    texts, codes = texts_of(tables, "episodes/instruction"), tables["episodes/instruction_source"].tolist()
    return [
        ("" if code == InstructionSource.FILE_NAME else text.decode(), InstructionSource(code))
        for text, code in zip(texts, codes, strict=True)
    ]


def new_sources(base: Base, paths: Sequence[Path]) -> tuple[Base, list[Path]]:
    """The files in `paths` whose content is not in the store yet; and the base, with its sources named as they are here.

    A source is its content, whatever folder it lies in and whatever its time of change. What the store holds once and is given
    twice is new once.
    """
    held: dict[tuple[int, str], list[int]] = {}
    for number, entry in enumerate(base.metadata.sources):
        held.setdefault((entry.size, entry.digest), []).append(number)
    sizes = {entry.size for entry in base.metadata.sources}
    files, new = list(base.files), []
    for path in sorted(paths, key=lambda path: not any(_is_called(path, entry.name) for entry in base.metadata.sources)):
        size = path.stat().st_size
        numbers = held.get((size, digest_or_nothing(path)), []) if size in sizes else []
        if not numbers:
            new.append(path)
            continue
        number = next((n for n in numbers if _is_called(path, base.metadata.sources[n].name)), numbers[0])
        numbers.remove(number)
        if _is_called(path, files[number].path):
            files[number] = replace(files[number], path=str(path))  # so that its name can grow until it is its own
    return replace(base, files=tuple(files)), [path for path in paths if path in set(new)]


def check_unchanged(base: Base, files: Sequence[FileScan]) -> None:
    """Refuse new files that are newer versions of one of the store's sources; SourceError.

    Two files of one name are two sources if they are of two tasks (robomimic's can/ph/image.hdf5 and lift/ph/image.hdf5), or if
    the store's own is among what is given.
    """
    problems = []
    for file in files:
        for entry, old in zip(base.metadata.sources, base.files, strict=True):
            given = old.path != entry.name
            if not given and old.demos and _is_called(Path(file.path), entry.name) and _of_one_task(old, file):
                value = f"{file.size} bytes, digest {file.digest}; in the store {entry.size} bytes, digest {entry.digest}"
                rule = f"{entry.name} is the file that the store holds"
                remedy = "convert all into a new store, or rename its folder if it is another"
                problems.append(Problem(file=file.path, rule=rule, value=value, remedy=remedy))
    if problems:
        raise SourceError("sources of the store have changed; nothing was appended:", problems)


def _of_one_task(old: FileScan, new: FileScan) -> bool:
    """Whether two files have a task in common; a file without a readable demo may belong to any task."""
    tasks = [{task_of(file, demo) for demo in file.demos} for file in (old, new)]
    return not tasks[1] or bool(tasks[0] & tasks[1])


def _is_called(path: Path, name: str) -> bool:
    parts = tuple(name.split("/"))
    return path.parts[-len(parts) :] == parts


def commit(journal: Journal) -> None:
    """Move the staged files of an append into place; may be killed and run again at any point."""
    journal.fence()
    store, stage = journal.checked(journal.store), journal.checked(journal.stage)
    remove_temporaries(store)
    write_metadata(store, replace(read_metadata(stage), complete=False))
    for name in stage.names():
        if name != "zarr.json":
            stage.move(name, store)
    stage.move("zarr.json", store)
    journal.clear()


def recover(journal: Journal, command: Command) -> Step:
    """Finish what was interrupted, look again, and return what `command` must do next. The caller holds the lock.

    Raises
    ------
    StoreError
        As ``check_destination`` does: a way back is guarded as a fresh start is.
    """
    while (step := check_destination(journal, command)) in RECOVERIES:
        if step is Step.COMMIT:
            commit(journal)
        else:
            journal.fence()
            journal.clear()
    return step

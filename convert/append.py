"""Append to a store: find which sources are new, and move the new files into place.

The plan of an append is the plan of old and new sources together, so it is the plan of a store that is made at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robozarr.convert.planning.infer import Base
from robozarr.convert.planning.instructions import task_of
from robozarr.convert.records import FileScan
from robozarr.convert.resuming.journal import Journal
from robozarr.convert.resuming.states import RECOVERIES, Command, NextStep
from robozarr.convert.sources.content import digest_or_nothing
from robozarr.convert.writing.destination import check_destination
from robozarr.convert.writing.write import remove_temporaries, write_metadata
from robozarr.schemas.errors import Problem, SourceError
from robozarr.store.reading import read_metadata

__all__ = ["check_still_the_same", "check_unchanged", "commit", "new_sources", "recover", "without_held"]


def new_sources(base: Base, paths: Sequence[Path]) -> tuple[Base, list[Path]]:
    """Return the files in `paths` whose content the store does not hold yet, and the base with its sources named as here.

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


def without_held(base: Base, files: Sequence[FileScan]) -> list[FileScan]:
    """Leave out scans of files that the store holds; files with links are compared by the digest of all that they link to."""
    held = Counter((entry.size, entry.digest) for entry in base.metadata.sources)
    new = []
    for file in files:
        if file.linked and held[file.size, file.digest]:
            held[file.size, file.digest] -= 1
        else:
            new.append(file)
    return new


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
                rule = f"{entry.name} must be the file that the store holds"
                remedy = "convert all into a new store, or rename its folder if it is another"
                problems.append(Problem(file=file.path, rule=rule, value=value, remedy=remedy))
    if problems:
        raise SourceError("sources of the store have changed; nothing was appended:", problems)


def check_still_the_same(files: Sequence[FileScan]) -> None:
    """Refuse sources whose content changed since the scan, even if size and modification time did not; SourceError."""
    problems = []
    for file in (file for file in files if file.demos and file.digest):
        found = digest_or_nothing(file.path, file.linked)
        if found != file.digest:
            rule, remedy = "a source must not change while it is converted", "start again with --overwrite"
            value = f"digest {found or 'unknown'}; {file.digest} when scanned"
            problems.append(Problem(file=file.path, rule=rule, value=value, remedy=remedy))
    if problems:
        raise SourceError("sources have changed; the store is not finished:", problems)


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


def recover(journal: Journal, command: Command) -> NextStep:
    """Finish what was interrupted, look again, and return the next step of `command`. The caller holds the lock.

    Raises
    ------
    StoreError
        As ``check_destination`` does: a way back is guarded as a fresh start is.
    """
    while (step := check_destination(journal, command)) in RECOVERIES:
        if step is NextStep.COMMIT:
            commit(journal)
        else:
            journal.fence()
            journal.clear()
    return step

"""Find the source files that the user names. Opens a file only to see whether it is one of macOS's ``._`` files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from robozarr.convert.sources.lerobot.data_set import data_files, is_data_set
from robozarr.convert.sources.remedies import is_apple_double
from robozarr.convert.sources.replay_buffer import replay_buffer_in
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.source import SOURCE_SUFFIXES
from robozarr.store.misspelt import did_you_mean

__all__ = ["find_sources"]


def find_sources(sources: Sequence[str | Path]) -> list[Path]:
    """HDF5 files from files, folders (searched for ``*.hdf5`` and ``*.h5``) and globs: absolute, sorted, each once.

    A folder that is a LeRobot data set stands for its Parquet files, one that is a ReplayBuffer for its ``.zgroup``.

    The ``._x.hdf5`` that macOS writes beside files on foreign disks hold no data and are passed over.

    Raises
    ------
    SourceError
        If an argument leads to no file.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for source in sources:
        path = Path(source)
        if path.is_dir() and is_data_set(path):
            try:
                files = data_files(path)
            except SourceError as exc:
                problems += exc.problems
                continue
            rule, remedy = "a LeRobot data set must have Parquet files in data/", "copy or download it again"
        elif path.is_dir() and (buffer := replay_buffer_in(path)) is not None:
            files, rule, remedy = [buffer], "", ""
        elif path.is_dir():
            files = _files_below(path)
            rule, remedy = "a folder must hold *.hdf5 or *.h5 files, or be a LeRobot data set or a ReplayBuffer", "name another"
        elif path.exists():
            files, rule, remedy = [path], "", ""
        else:
            names = glob.glob(str(source), recursive=True)  # noqa: PTH207 - absolute patterns
            files = [path for path in map(Path, names) if path.is_file() and not is_apple_double(path)]
            rule = "a source must be a file, a folder, or a pattern that matches files"
            remedy = f"check the path{did_you_mean(source)}"
        if not files:
            problems.append(Problem(file=str(source), rule=rule, value="none", remedy=remedy))
        for file in files:
            # the name as it stands: download caches link names to files called by their hash
            path, target = Path(os.path.abspath(file)), os.path.realpath(file)  # noqa: PTH100 - resolve() follows links
            found[target] = min(path, found.get(target, path))
    if problems:
        raise SourceError("sources not found:", problems)
    return sorted(found.values(), key=_in_order)


def _in_order(path: Path) -> tuple[object, ...]:
    """Sort by folder, then by name; names that differ only in a final number are sorted by it: episode_2 before episode_10."""
    match = re.fullmatch(r"(.*?)([0-9]{1,18})", path.stem)
    stem, number = (path.stem, -1) if match is None else (match.group(1), int(match.group(2)))
    return (*path.parts[:-1], stem + path.suffix), number, path.name


def _files_below(folder: Path) -> list[Path]:
    """HDF5 files below a folder, also through links; a folder that cannot be read is an error."""

    def refuse(error: OSError) -> None:
        problem = Problem(
            file=str(error.filename),
            rule="every folder below a source must be readable",
            value=error.strerror or str(error),
            remedy="change the rights, or name the files",
        )
        raise SourceError("sources not found:", [problem])

    files, seen = [], set()
    for name, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(name))
        folders[:] = sorted(inner for inner in folders if os.path.realpath(f"{name}/{inner}") not in seen)
        files += [Path(name, file) for file in names if Path(file).suffix.lower() in SOURCE_SUFFIXES]
    return [file for file in files if not is_apple_double(file)]

"""Open a source by what it is: HDF5, a file of a LeRobot data set, a ReplayBuffer. Imports no library of theirs itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from robozarr.convert.records import FileScan
from robozarr.convert.sources.content import digest_of_file, digest_or_nothing
from robozarr.convert.sources.hdf5 import SourceFile
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.sources.lerobot.data_set import is_data_file
from robozarr.convert.sources.lerobot.reading import LeRobotFile
from robozarr.convert.sources.lerobot.scan import scan_data_file
from robozarr.convert.sources.replay_buffer import ReplayBufferFile, is_replay_buffer, scan_replay_buffer
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.index import FlagRules

__all__ = ["Source", "open_source", "scan_source", "unusable"]

Source: TypeAlias = SourceFile | LeRobotFile | ReplayBufferFile


def open_source(path: str) -> Source:
    """Open a source for reading; SourceError if it cannot be."""
    if is_data_file(path):
        return LeRobotFile(path)
    return ReplayBufferFile(path) if is_replay_buffer(path) else SourceFile(path)


def scan_source(
    path: str,
    rules: FlagRules,
    selected: tuple[str, ...] | None = None,
    without: tuple[str, ...] = (),
    layouts: tuple[Layout, ...] = (),
) -> FileScan:
    """Scan a source of any kind; parameters and result as for ``scan_file``: problems are listed, never raised."""
    if not is_data_file(path) and not is_replay_buffer(path):
        return scan_file(path, rules, selected, without, layouts)
    scan = scan_data_file if is_data_file(path) else scan_replay_buffer
    try:
        return replace(scan(path, rules, selected, without), digest=digest_of_file(path))
    except SourceError as exc:
        return unusable(path, tuple(replace(problem, file=path, demo="") for problem in exc.problems))


def unusable(path: str, problems: tuple[Problem, ...]) -> FileScan:
    """The scan of a file that is there and cannot be used at all."""
    status = Path(path).stat()
    return FileScan(
        path=path, size=status.st_size, mtime_ns=status.st_mtime_ns, digest=digest_or_nothing(path), problems=problems
    )

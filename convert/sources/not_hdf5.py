"""Shared code for sources that are not HDF5: files of many episodes without attributes, some of them made by robozarr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.records import DatasetInfo, DemoScan
from robozarr.convert.sources.detect import detect_flags
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence
from robozarr.schemas.instructions import InstructionSource

__all__ = ["AGAIN", "LEAVE_OUT", "EpisodesFile", "demo_of", "describe", "rules_of"]

AGAIN: Final = "copy or download the file again, or leave the demo out with --on-error skip"
LEAVE_OUT: Final = "repair the data set, or leave the episode out with --on-error skip"
Code = TypeVar("Code", bound=IntEnum)


class EpisodesFile:
    """One file, open for reading; a context manager. A partition reads it by the methods of ``sources.hdf5.SourceFile``."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        raise NotImplementedError

    def read_rows(self, demo: str, dataset: str, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows [start, stop) of an episode, into `out` [stop - start, …] if given."""
        raise NotImplementedError

    def error(self, rule: str, value: str, remedy: str, demo: str = "", key: str = "") -> SourceError:
        """A SourceError about this file with one problem."""
        problem = Problem(file=self.path, demo=demo, key=key, rule=rule, value=value, remedy=remedy)
        return SourceError("a source cannot be used:", [problem])

    def expect(self, size: int, mtime_ns: int) -> None:
        """Refuse a file that changed since it was scanned; SourceError."""
        stat = Path(self.path).stat()
        if (stat.st_size, stat.st_mtime_ns) != (size, mtime_ns):
            value = f"{stat.st_size} bytes, changed at {stat.st_mtime_ns} ns; {size} bytes and {mtime_ns} ns when scanned"
            raise self.error("a source must not change while it is converted", value, "start again with --overwrite")

    def set_group(self, demo: str, group: str) -> None:
        """Do nothing: an episode is found by its name."""

    def width(self, demo: str, dataset: str) -> int:
        """Number of values in one step [n]."""
        return int(self.read_rows(demo, dataset, 0, 1).size)

    def text_attribute(self, demo: str, name: str) -> bytes:
        """Return nothing: there are no model files."""
        return b""

    def float_attribute(self, demo: str, name: str) -> NDArray[np.float64]:
        """Return an empty array: there are no states of a simulator."""
        return np.empty(0)


def demo_of(episode: int) -> str:
    """Name of an episode.

    >>> demo_of(12)
    'episode_000012'
    """
    return f"episode_{episode:06d}"


def rules_of(rules: FlagRules, made: Mapping[str, Any]) -> FlagRules:
    """The flag rules: the user's, or with the gripper of the store that the files were made from; none is known otherwise."""
    if rules.gripper != "layout":
        return rules
    gripper = made.get("gripper")
    stated = made.get("switches")
    switches = tuple(element for element in stated if isinstance(element, int)) if isinstance(stated, list) else ()
    return replace(rules, gripper=gripper if isinstance(gripper, int) else None, switches=switches)


def _coded(codes: Iterable[Code], word: object, default: Code) -> Code:
    """The code of a word that an export wrote; the default for any other."""
    return next((code for code in codes if code.name.lower() == word), default)


def describe(
    name: str,
    actions: NDArray[Any],
    datasets: Sequence[DatasetInfo],
    joint: object,
    joints_at: Callable[[str], NDArray[Any]],
    facts: Mapping[str, Any],
    rules: FlagRules,
    instruction: str,
) -> DemoScan:
    """The record of an episode.

    Parameters
    ----------
    actions : [steps, n]
    joint : object
        Name of the key with the joints' positions; anything else where there is none.
    joints_at : function
        Their values [steps, n], by path.
    facts : mapping
        What robozarr's export added: ``alignment``, ``pictures``, ``success``.
    """
    path = next((info.path for info in datasets if joint and info.name == joint and len(info.shape) == 2), "")
    convention = _coded(ImageConvention, facts.get("pictures"), ImageConvention.UNKNOWN)
    rules = rules.of_width(actions.shape[1])
    return DemoScan(
        name=name,
        length=len(actions),
        datasets=tuple(datasets),
        repeats=(),
        flags=detect_flags(actions, joints_at(path) if path else None, rules),
        joint_key=str(joint) if path else None,
        joint_path=path,
        alignment=_coded(Alignment, facts.get("alignment"), Alignment.UNKNOWN),
        alignment_error=(float("nan"), float("nan")),
        image_convention=convention,
        image_evidence=ImageEvidence.NONE if convention == ImageConvention.UNKNOWN else ImageEvidence.ATTRIBUTE,
        success=facts["success"] if facts.get("success") in (0, 1) else -1,
        model_file_bytes=0,
        init_state_size=0,
        attributes="{}",
        splits=(),
        rules=rules,
        instruction=instruction,
        instruction_source=InstructionSource.DATASET if instruction else InstructionSource.NONE,
    )

"""The tables of an open store for users: index, episodes, tasks, ragged keys. The values were already checked.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from robozarr.schemas.instructions import InstructionSource
from robozarr.store.viewer import html_of, viewer

if TYPE_CHECKING:
    import pandas

__all__ = ["Episodes", "Ragged", "StepIndex", "Tasks", "instructions_of_tasks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepIndex:
    """The episode and step of each row."""

    episode: NDArray[np.int32]
    """Episode of each row: [n_steps]."""
    step: NDArray[np.int32]
    """Step t inside the episode: [n_steps]."""
    flags: NDArray[np.uint8]
    """Bits of ``StepFlag`` [n_steps]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """The episode table; every array is [n_episodes]."""

    start: NDArray[np.int64]
    """First row of each episode."""
    length: NDArray[np.int64]
    """Number of steps of each episode."""
    task: NDArray[np.int32]
    """Row of the task table."""
    source: NDArray[np.int32]
    """Entry of ``metadata.sources``."""
    demo: tuple[str, ...]
    """Name of the demo in its source."""
    success: NDArray[np.int8]
    """1, 0, or -1 for unknown."""
    alignment: NDArray[np.int8]
    """``Alignment``: whether observations were recorded before or after the action."""
    image_convention: NDArray[np.int8]
    """``ImageConvention``: which way up pictures are."""
    splits: Mapping[str, NDArray[np.bool_]]
    """Members of each split."""
    instruction: tuple[str, ...] = ()
    """The instruction of each episode, as its source states it; "" if it states none."""
    instruction_source: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    """``InstructionSource``: where the instruction comes from."""

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a frame, codes as words; needs ``pip install '.[view]'``."""
        frame: pandas.DataFrame = viewer("tables").episode_frame(self)
        return frame

    def _repr_html_(self) -> str | None:
        return html_of(lambda: self.to_pandas().to_html(max_rows=20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """The task table; every column has one entry per task."""

    name: tuple[str, ...]
    """The file's name without its ending and ``_demo``."""
    instruction: tuple[str, ...]
    """The instruction that the sources state or the user gave by hand; "" if there is none."""
    instruction_from_name: tuple[str, ...]
    """The instruction as the file name words it; "" if it does not read as words (in a store of version 1, the name itself)."""
    suite: tuple[str, ...]
    """Folder of the file, such as ``libero_spatial``."""
    env_name: tuple[str, ...]
    bddl: tuple[str, ...]
    """The task's BDDL text."""

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a frame, without the BDDL text; needs ``pip install '.[view]'``."""
        frame: pandas.DataFrame = viewer("tables").task_frame(self)
        return frame

    def _repr_html_(self) -> str | None:
        return html_of(lambda: self.to_pandas().to_html(max_rows=20))


@dataclass(frozen=True, slots=True)
class Ragged:
    """A key whose width varies between episodes: ``ragged[row]`` is the vector of one step."""

    values: zarr.Array[Any]
    offsets: NDArray[np.int64]
    read: Callable[[int, int], NDArray[Any]]
    """Reads the values from one offset to another, checked."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> NDArray[Any]:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.read(int(self.offsets[row]), int(self.offsets[row + 1]))


def instructions_of_tasks(tasks: Tasks, task: NDArray[np.int32]) -> dict[str, Any]:
    """The columns about instructions in ``Episodes``, for a store that records them by task only (version 1)."""
    words = [stated or named for stated, named in zip(tasks.instruction, tasks.instruction_from_name, strict=True)]
    stated = np.array([bool(text) for text in tasks.instruction], bool)[task]
    code = np.where(stated, InstructionSource.FILE_ATTRIBUTE, InstructionSource.FILE_NAME)
    code[np.array([not text for text in words], bool)[task]] = InstructionSource.NONE
    return {"instruction": tuple(words[row] for row in task.tolist()), "instruction_source": code.astype(np.int8)}

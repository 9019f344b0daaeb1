"""The tables of a store as pandas frames: codes become words, names are kept."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from robozarr.schemas.index import Alignment, ImageConvention
from robozarr.schemas.instructions import InstructionSource
from robozarr.store.opened import Episodes, Tasks

__all__ = ["episode_frame", "task_frame"]


def episode_frame(episodes: Episodes) -> pd.DataFrame:
    """The episode table with one row per episode; `success` is True, False or missing, splits are ``split_<name>``."""
    success = pd.array([None if code < 0 else bool(code) for code in episodes.success.tolist()], dtype="boolean")
    columns: dict[str, Any] = {
        "task": episodes.task,
        "instruction": list(episodes.instruction),
        "instruction_source": _words(InstructionSource, episodes.instruction_source),
        "demo": list(episodes.demo),
        "start": episodes.start,
        "length": episodes.length,
        "source": episodes.source,
        "success": success,
        "alignment": _words(Alignment, episodes.alignment),
        "image_convention": _words(ImageConvention, episodes.image_convention),
        **{f"split_{name}": members for name, members in episodes.splits.items()},
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(len(episodes.length), name="episode"))


def task_frame(tasks: Tasks) -> pd.DataFrame:
    """The task table with one row per task; without the BDDL text, which is ``store.tasks.bddl``."""
    names = ("suite", "instruction", "instruction_from_name", "name", "env_name")
    columns = {name: list(getattr(tasks, name)) for name in names}
    return pd.DataFrame(columns, index=pd.RangeIndex(len(tasks.name), name="task"))


def _words(codes: type[IntEnum], column: NDArray[np.integer[Any]]) -> pd.Categorical[str]:
    words = [codes(code).name.lower() for code in column.tolist()]
    return pd.Categorical(words, categories=[code.name.lower() for code in codes])

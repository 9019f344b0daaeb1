"""The metadata that LeRobot's training code reads from a data set's ``meta``. Imports no torch.

huggingface/lerobot 0.4.4, lerobot/datasets/lerobot_dataset.py: LeRobotDatasetMetadata; 0.6.0, dataset_metadata.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.adapters.lerobot.features import Features
from robozarr.loader.adapters.lerobot.statistics import Statistics, of_values
from robozarr.store.opened import Store

__all__ = ["VERSION", "EpisodeTable", "Meta", "counters_of"]

VERSION: Final = "v3.0"
"""Version of LeRobot's files that 0.4.4 and 0.6.0 read and write."""


class EpisodeTable:
    """The episodes: a column by its name, a row by its number, as a table of the package ``datasets`` gives them."""

    def __init__(self, length: NDArray[np.int64], texts: tuple[str, ...]) -> None:
        start = np.cumsum(length) - length
        self.columns: dict[str, list[Any]] = {
            "episode_index": list(range(len(length))),
            "tasks": [[text] for text in texts],
            "length": length.tolist(),
            "dataset_from_index": start.tolist(),
            "dataset_to_index": (start + length).tolist(),
        }

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    def __len__(self) -> int:
        return len(self.columns["length"])

    def __getitem__(self, wanted: str | SupportsIndex) -> Any:
        if isinstance(wanted, str):
            return self.columns[wanted]
        return {name: values[wanted.__index__()] for name, values in self.columns.items()}


def counters_of(length: NDArray[np.int64], fps: float, task_index: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """LeRobot's own features, [n_steps] each.

    Parameters
    ----------
    length : int64 [n_episodes]
        Steps of each episode.
    fps : float
    task_index : int64 [n_episodes]
        Number of each episode's instruction.
    """
    episode = np.repeat(np.arange(len(length)), length)
    index = np.arange(len(episode))
    step = index - (np.cumsum(length) - length)[episode]
    return {
        "timestamp": (step / fps).astype(np.float32),
        "frame_index": step,
        "episode_index": episode,
        "index": index,
        "task_index": task_index[episode],
    }


class Meta:
    """Metadata of a store under LeRobot's names.

    Parameters
    ----------
    store : Store
    features : Features
    fps : int or float
    texts : text per episode
    length : int64 [n_episodes]
        Steps of each episode.
    stats : feature → statistics
        Of pictures.
    values : feature → [n_steps, dim]
        Every feature of numbers, and LeRobot's own.
    repo_id : str
    """

    subtasks = None
    robot_type = None
    revision = VERSION
    has_language_columns = False

    def __init__(
        self,
        store: Store,
        features: Features,
        fps: float,
        texts: tuple[str, ...],
        length: NDArray[np.int64],
        stats: Mapping[str, Statistics],
        values: Mapping[str, NDArray[Any]],
        repo_id: str,
    ) -> None:
        self.repo_id, self.root, self.fps = repo_id, store.path, fps
        self.features: dict[str, dict[str, Any]] = features.to_info()
        self.episodes = EpisodeTable(length, texts)
        self._texts = list(dict.fromkeys(texts))
        self.stats = {**stats, **{name: of_values(rows.reshape(len(rows), -1)) for name, rows in values.items()}}
        self.info: dict[str, Any] = {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": len(length),
            "total_frames": int(length.sum()),
            "total_tasks": len(self._texts),
            "fps": fps,
            "features": self.features,
        }

    @cached_property
    def tasks(self) -> Any:
        """pandas.DataFrame: the instructions as its index, ``task_index`` as its column."""
        import pandas as pd

        return pd.DataFrame({"task_index": range(len(self._texts))}, index=pd.Index(self._texts, name="task"))

    def get_task_index(self, task: str) -> int | None:
        """Number of an instruction; None if no episode has it."""
        return self._texts.index(task) if task in self._texts else None

    @property
    def image_keys(self) -> list[str]:
        """Features that are pictures."""
        return [name for name, entry in self.features.items() if entry["dtype"] == "image"]

    @property
    def camera_keys(self) -> list[str]:
        """Features that are pictures, however they are stored."""
        return self.image_keys

    @property
    def video_keys(self) -> list[str]:
        """An empty list: a store has no videos."""
        return []

    depth_keys = video_keys

    @property
    def names(self) -> dict[str, Any]:
        """Names of each feature's elements."""
        return {name: entry["names"] for name, entry in self.features.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each feature."""
        return {name: tuple(entry["shape"]) for name, entry in self.features.items()}

    @property
    def total_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episodes)

    @property
    def total_frames(self) -> int:
        """Number of steps."""
        return int(self.info["total_frames"])

    @property
    def total_tasks(self) -> int:
        """Number of different instructions."""
        return len(self._texts)

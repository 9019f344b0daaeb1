"""A data set that LeRobot's own recorder wrote becomes a store with the recorded values, and is served as LeRobot serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stored import column

from robozarr.convert import convert, verify
from robozarr.loader.adapters.lerobot import LeRobotStore
from robozarr.store.opened import open_store

TASKS = ("stack the cups", "open the drawer", "stack the cups")
FEATURES = {
    "observation.images.top": {"dtype": "image", "shape": (64, 96, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (6,), "names": None},
    "action": {"dtype": "float32", "shape": (6,), "names": None},
    "next.values": {"dtype": "float32", "shape": (2,), "names": None},
}


def record(root: Path) -> dict[str, list[NDArray[Any]]]:
    """Record three episodes by LeRobot's recorder; returns what was recorded, by feature."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    random = np.random.default_rng(5)
    dataset = LeRobotDataset.create("recorded", 30, features=FEATURES, root=root, use_videos=False)
    recorded: dict[str, list[NDArray[Any]]] = {name: [] for name in FEATURES}
    for task, length in zip(TASKS, (7, 12, 5), strict=True):
        for _ in range(length):
            frame: dict[str, Any] = {
                "observation.images.top": random.integers(0, 256, (64, 96, 3), np.uint8),
                "observation.state": random.normal(size=6).astype(np.float32),
                "action": random.normal(size=6).astype(np.float32),
                "next.values": random.normal(size=2).astype(np.float32),
            }
            for name, value in frame.items():
                recorded[name].append(value)
            dataset.add_frame({**frame, "task": task})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()
    return recorded


def test_recorded_data_set(tmp_path: Path) -> None:
    recorded = record(tmp_path / "recorded")
    convert(tmp_path / "recorded", tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    assert store.metadata.control_freq == 30
    assert store.episodes.instruction == TASKS
    assert store.episodes.length.tolist() == [7, 12, 5]
    for name, key in zip(FEATURES, ("top", "state", "actions", "next.values"), strict=True):
        expected = np.stack(recorded[name])
        np.testing.assert_array_equal(column(store, key).reshape(expected.shape), expected)
    assert verify(tmp_path / "a.zarr", sources=[tmp_path / "recorded"], workers=0).ok

    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    deltas = {"action": [0.0, 1 / 30, 2 / 30]}
    theirs = LeRobotDataset("recorded", root=tmp_path / "recorded", delta_timestamps=deltas)
    mine = LeRobotStore(store, keys=None, delta_timestamps=deltas)
    for number in range(len(theirs)):
        for name, value in theirs[number].items():
            found = mine[number][name]
            assert found == value if isinstance(value, str) else torch.equal(found, value), name

"""Every item of a store is that of LeRobot's own data set, made of the store: field by field, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robozarr.loader.adapters.lerobot import LeRobotStore

DELTAS = {
    "action": [step / 20 for step in range(-2, 9)],
    "observation.state": [-0.05, 0.0],
    "observation.images.agentview_rgb": [-0.1, 0.0],
    "ee_pos": [0.05],
    "rewards": [0.0, 0.05],
}


def theirs_of(root: Path, **options: Any) -> Any:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("sample", root=root, **options)


@pytest.mark.parametrize("causal", [False, True], ids=["recorded", "causal"])
@pytest.mark.parametrize("deltas", [None, DELTAS], ids=["one step", "several"])
@pytest.mark.parametrize("episodes", [None, [1, 3]], ids=["all", "some"])
def test_items_equal(
    store: Path,
    images: Path,
    causal_images: Path,
    episodes: list[int] | None,
    deltas: dict[str, list[float]] | None,
    causal: bool,
) -> None:
    theirs = theirs_of(causal_images if causal else images, episodes=episodes, delta_timestamps=deltas)
    mine = LeRobotStore(store, keys=None, episodes=episodes, delta_timestamps=deltas, causal=causal)
    assert len(mine) == len(theirs) == mine.num_frames == theirs.num_frames
    assert mine.num_episodes == theirs.num_episodes
    for number in range(len(theirs)):
        one, other = theirs[number], mine[number]
        assert set(one) == set(other)
        for name, value in one.items():
            if isinstance(value, str):
                assert other[name] == value
            else:
                assert (other[name].dtype, other[name].shape) == (value.dtype, value.shape), name
                assert torch.equal(other[name], value), name


@pytest.mark.parametrize("causal", [False, True], ids=["recorded", "causal"])
def test_metadata_equal(store: Path, images: Path, causal_images: Path, causal: bool) -> None:
    theirs = theirs_of(causal_images if causal else images).meta
    mine = LeRobotStore(store, keys=None, causal=causal).meta
    assert mine.features == theirs.features
    assert (mine.fps, mine.camera_keys, mine.video_keys, mine.total_frames) == (
        theirs.fps, theirs.camera_keys, theirs.video_keys, theirs.total_frames,
    )  # fmt: skip
    assert list(mine.tasks.index) == list(theirs.tasks.index)
    for name in ("dataset_from_index", "dataset_to_index", "length", "tasks"):
        assert mine.episodes[name] == list(theirs.episodes[name])
    assert set(mine.stats) == set(theirs.stats)
    for name, found in theirs.stats.items():
        for statistic, value in found.items():
            np.testing.assert_allclose(mine.stats[name][statistic], value, rtol=1e-12)
            assert np.shape(mine.stats[name][statistic]) == np.shape(value), (name, statistic)


def test_statistics_against_lerobots_own(store: Path) -> None:
    """What LeRobot computes of the same values; its quantiles are of bins. Pictures are handed to it as float64: 0.4.4 squares
    uint8 in uint8, so that the standard deviation of pictures in its own data sets is 0 or far too small."""
    from lerobot.datasets.compute_stats import get_feature_stats

    mine = LeRobotStore(store, keys=None)
    actions = np.asarray(mine.store.array("actions")[:])
    frames = np.moveaxis(np.asarray(mine.store.array("agentview_rgb")[:], np.float64), -1, 1)
    theirs = {
        "action": get_feature_stats(actions, axis=0, keepdims=False),
        "observation.images.agentview_rgb": {
            name: value if name == "count" else np.squeeze(value / 255.0, axis=0)
            for name, value in get_feature_stats(frames, axis=(0, 2, 3), keepdims=True).items()
        },
    }
    for feature, found in theirs.items():
        for name in ("min", "max", "mean", "std", "count"):
            np.testing.assert_allclose(mine.meta.stats[feature][name], found[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_videos_open(store: Path, videos: Path) -> None:
    """LeRobot finds the frame of each step in the videos: no other frame of the store is nearer to it."""
    theirs, mine = theirs_of(videos, video_backend="pyav"), LeRobotStore(store, return_uint8=True)
    name = "observation.images.eye_in_hand_rgb"
    exact = torch.stack([mine[number][name] for number in range(len(mine))]).to(torch.float32) / 255
    for number in range(0, len(theirs), 5):
        error = ((exact - theirs[number][name]) ** 2).mean(dim=(1, 2, 3))
        assert torch.equal(exact[int(error.argmin())], exact[number])
        assert 10 * np.log10(1 / float(error[number])) > 30

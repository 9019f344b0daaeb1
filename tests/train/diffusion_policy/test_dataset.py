"""Diffusion policy's own sampler, normaliser and ReplayBuffer beside a store, of a checkout that ROBOZARR_UPSTREAM names.

real-stanford/diffusion_policy, 5ba07ac6661db573af695b419a7947ecb704690f. No registry has the package; without a checkout this
skips itself, and tests/loader/adapters/test_diffusion_policy.py compares with its rules written down.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import UPSTREAM, checkout
from stored import column

from robozarr.convert import convert
from robozarr.store.opened import Store, open_store

META: dict[str, Any] = {
    "obs": {
        "agentview_rgb": {"shape": [3, 128, 128], "type": "rgb"},
        "ee_pos": {"shape": [3]},
        "gripper_states": {"shape": [2]},
    },
    "action": {"shape": [7]},
}


CHECKOUT = checkout("diffusion_policy")
pytestmark = pytest.mark.skipif(
    CHECKOUT is None, reason=f"no checkout of real-stanford/diffusion_policy: {UPSTREAM} names a folder that holds one"
)
if CHECKOUT is not None:  # before the adapter is imported: it takes upstream's class for its own base
    sys.path.insert(0, str(CHECKOUT))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("diffusion_policy") / "sample.zarr"
    convert(Path(__file__).parents[3] / "sample", path, workers=0)
    return open_store(path)


def dataset(*arguments: Any, **options: Any) -> Any:
    module = importlib.import_module("robozarr.loader.adapters.diffusion_policy.dataset")
    return module.DiffusionPolicyDataset(*arguments, **options)


@pytest.mark.parametrize(
    ("horizon", "before", "after", "n_obs"), [(16, 1, 7, 2), (4, 3, 3, 2), (8, 0, 0, None), (3, 9, 9, 2), (1, 0, 0, 1)]
)
@pytest.mark.parametrize(("val_ratio", "most"), [(0.0, None), (0.3, None), (0.3, 1)])
def test_every_item(
    store: Store, horizon: int, before: int, after: int, n_obs: int | None, val_ratio: float, most: int | None
) -> None:
    sampler: Any = importlib.import_module("diffusion_policy.common.sampler")
    buffer: Any = importlib.import_module("diffusion_policy.common.replay_buffer").ReplayBuffer
    base: Any = importlib.import_module("diffusion_policy.dataset.base_dataset").BaseImageDataset
    mine = dataset(META, store, horizon, before, after, n_obs, val_ratio=val_ratio, max_train_episodes=most)
    assert isinstance(mine, base)
    data = {key: column(store, key) for key in META["obs"]} | {"action": column(store, "actions")}
    ends = (store.episodes.start + store.episodes.length).astype(np.int64)
    replay = buffer({"data": data, "meta": {"episode_ends": ends}})
    mask = sampler.downsample_mask(~sampler.get_val_mask(store.n_episodes, val_ratio, 42), most, 42)
    np.testing.assert_array_equal(mine.train_mask, mask)
    for served, episodes in ((mine, mask), (mine.get_validation_dataset(), ~mask)):
        sequences = sampler.SequenceSampler(replay, horizon, before, after, episode_mask=episodes)
        assert len(sequences) == len(served)
        for number, item in enumerate(served.__getitems__(range(len(served)))):
            theirs = sequences.sample_sequence(number)
            assert torch.equal(item["action"], torch.from_numpy(theirs["action"].astype(np.float32)))
            picture = np.moveaxis(theirs["agentview_rgb"][:n_obs], -1, 1).astype(np.float32) / 255.0
            assert torch.equal(item["obs"]["agentview_rgb"], torch.from_numpy(picture))
            for key in ("ee_pos", "gripper_states"):
                assert torch.equal(item["obs"][key], torch.from_numpy(theirs[key][:n_obs].astype(np.float32)))


@pytest.mark.parametrize("absolute", [False, True])
def test_normaliser(store: Store, absolute: bool) -> None:
    """Upstream's own class, whose inverse gives actions back; positions of absolute ones reach from -1 to 1."""
    mine = dataset({**META, "action": {"shape": [10 if absolute else 7]}}, store, horizon=2, abs_action=absolute)
    normaliser = mine.get_normalizer()
    actions = mine.get_all_actions()
    scaled = normaliser["action"].normalize(actions)
    torch.testing.assert_close(normaliser["action"].unnormalize(scaled), actions)
    if absolute:
        torch.testing.assert_close(scaled[:, :3].amin(0), -torch.ones(3))
        torch.testing.assert_close(scaled[:, :3].amax(0), torch.ones(3))
    else:
        assert torch.equal(scaled, actions)
    for key in ("ee_pos", "gripper_states"):
        values = normaliser[key].normalize(torch.from_numpy(column(store, key).astype(np.float32)))
        torch.testing.assert_close(values.amax(0), torch.ones(values.shape[1]))
    assert normaliser["agentview_rgb"].normalize(torch.tensor([0.0, 1.0])).tolist() == [-1.0, 1.0]

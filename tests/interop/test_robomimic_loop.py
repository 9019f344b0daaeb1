"""robomimic's own training loop, ``TrainUtils.run_epoch`` with its own BC, over this project's loaders; `make test-interop`.

Its configurations have ``epoch_every_n_steps: 100``: an epoch is N steps, however many batches the data are. torchvision, which
robomimic imports for encoders of pictures, goes with no torch of these constraints: an empty module stands in for it, and the
policy is of low-dim observations.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from itertools import chain
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.loader.adapters.robomimic import SequenceDataset

OBS = ["robot0_eef_pos", "robot0_joint_pos"]
SIZE = 4


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


if find_spec("torchvision") is None:
    for _name in ("torchvision", "torchvision.models", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[_name] = _Empty(_name)
        above, _, _last = _name.rpartition(".")
        if above:
            setattr(sys.modules[above], _last, sys.modules[_name])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SequenceDataset:
    """42 windows: 11 batches of 4."""
    folder = tmp_path_factory.mktemp("loop")
    file = synthetic.write_robomimic(folder / "robomimic.hdf5", lengths=(16, 11, 15), size=8)
    with h5py.File(file, "r+") as opened:  # actions by which a window is known again: some are no-ops, and equal
        for number, demo in enumerate(opened["data"].values()):
            actions = demo["actions"][()]
            actions[:, 0] = np.linspace(0, 0.3, len(actions)) + 0.31 * number
            demo["actions"][...] = actions
    convert(file, folder / "r.zarr", workers=0)
    return SequenceDataset(folder / "r.zarr", OBS, ["actions"], load_next_obs=False, hdf5_cache_mode="low_dim")


def make(kind: str, dataset: SequenceDataset, workers: int = 0) -> Any:
    context = "fork" if workers else None
    if kind == "loader":
        return dataset.loader(SIZE, seed=3)
    if kind == "WindowDataLoader":
        return rz.WindowDataLoader(
            dataset, SIZE, windows=dataset.windows, seed=3, num_workers=workers, multiprocessing_context=context
        )  # fmt: skip
    sampler = rz.WindowSampler(dataset.windows, SIZE, seed=3)
    return DataLoader(dataset, SIZE, sampler=sampler, num_workers=workers, multiprocessing_context=context)


def policy(dataset: SequenceDataset) -> Any:
    """robomimic's BC, which notes the actions that it is trained on."""
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.algo import algo_factory
    from robomimic.config import config_factory

    config = config_factory("bc")
    config.observation.modalities.obs.low_dim = OBS
    obs_utils.initialize_obs_utils_with_config(config)
    shapes = {key: list(dataset.store.keys[key].shape) for key in OBS}
    model = algo_factory("bc", config, obs_key_shapes=shapes, ac_dim=7, device=torch.device("cpu"))
    model.got = []
    train = model.train_on_batch

    def train_on_batch(batch: Any, epoch: int, validate: bool = False) -> Any:
        model.got.append(batch["actions"].clone())
        return train(batch, epoch, validate=validate)

    model.train_on_batch = train_on_batch
    return model


@pytest.mark.parametrize(
    ("kind", "workers"), [("loader", 0), ("WindowDataLoader", 0), ("WindowDataLoader", 2), ("sampler", 0), ("sampler", 2)]
)
@pytest.mark.parametrize("n_steps", [3, None])
def test_run_epoch_serves_every_window_before_any_comes_again(
    dataset: SequenceDataset, kind: str, workers: int, n_steps: int | None
) -> None:
    from robomimic.utils.train_utils import run_epoch

    everything = {row.tobytes() for row in dataset.windows.windows.reader.column("actions").astype("f4")}
    assert len(everything) == 42
    model, loader = policy(dataset), make(kind, dataset, workers)
    before = {name: values.clone() for name, values in model.nets.state_dict().items()}
    epochs = []
    for epoch in range(1, 6):
        model.got.clear()
        log = run_epoch(model=model, data_loader=loader, epoch=epoch, num_steps=n_steps)
        assert log["Loss"] > 0
        epochs.append([row.tobytes() for actions in model.got for row in actions.numpy()])
        assert len(model.got) == (n_steps or 11)
    in_order = list(chain.from_iterable(epochs))
    assert len(set(in_order[:42])) == 42
    assert set(in_order[:42]) == everything
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert any(not torch.equal(before[name], values) for name, values in model.nets.state_dict().items())  # it learnt


def test_run_epoch_trains_and_validates_side_by_side(dataset: SequenceDataset) -> None:
    """robomimic/scripts/train.py: an epoch of training, then one of validation, each on a loader of its own."""
    from robomimic.utils.train_utils import run_epoch

    model, train, valid = policy(dataset), make("loader", dataset), dataset.loader(SIZE, shuffle=False)
    for epoch in (1, 2):
        run_epoch(model=model, data_loader=train, epoch=epoch, num_steps=5)
        model.got.clear()
        run_epoch(model=model, data_loader=valid, epoch=epoch, validate=True, num_steps=None)
        got = torch.cat(model.got).numpy()
        assert (got == dataset.windows.windows.reader.column("actions").astype("f4")).all()

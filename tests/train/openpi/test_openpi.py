"""openpi's data loader and statistics over the adapter: re-created, and its own code where a checkout is named."""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import UPSTREAM, apply_diff, blocks, checkout, shell
from torch.utils.data import DataLoader, Dataset

from robozarr.convert import convert
from robozarr.loader.adapters.openpi import OpenPIDataset

SAMPLE = Path(__file__).parents[3] / "sample"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("openpi") / "libero_spatial.zarr"
    convert(SAMPLE / "libero_spatial", path, workers=0)
    return path


class Transformed(Dataset[Any]):
    """TransformedDataset with the repack transform, LiberoInputs and DeltaActions, re-created.

    Physical-Intelligence/openpi at 15a9616: training/data_loader.py, training/config.py: LeRobotLiberoDataConfig,
    policies/libero_policy.py, transforms.py, which subtracts in the array that it is given.
    """

    def __init__(self, dataset: OpenPIDataset, delta: bool) -> None:
        self.dataset, self.delta = dataset, delta

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        assert isinstance(item["prompt"], str)
        state, actions = item["state"], item["actions"]
        if self.delta:
            actions[..., :6] -= state[None, :6]
        images = {"base_0_rgb": item["image"], "left_wrist_0_rgb": item["wrist_image"]}
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images.values())
        return {"state": state, "actions": actions} | images


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """training/data_loader.py: _collate_fn."""
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def test_the_data_loader_trains_with_spawned_workers(store: Path) -> None:
    """TorchDataLoader: spawn, persistent workers, the last part of a batch dropped, epoch after epoch."""
    dataset = Transformed(OpenPIDataset(store, action_horizon=50), delta=True)
    loader = DataLoader(
        dataset, batch_size=8, shuffle=True, num_workers=1, multiprocessing_context=multiprocessing.get_context("spawn"),
        persistent_workers=True, collate_fn=collate, drop_last=True,
    )  # fmt: skip
    policy = torch.nn.Linear(8 + 3, 50 * 7)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        for batch in loader:
            pixels = torch.from_numpy(batch["base_0_rgb"]).float().mean(dim=(1, 2)) / 255
            seen = torch.cat([torch.from_numpy(batch["state"]), pixels], dim=-1)
            loss = (policy(seen).view(-1, 50, 7) - torch.from_numpy(batch["actions"])).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert len(losses) == 2 * (len(dataset) // 8)
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("delta", [False, True])
def test_statistics_are_those_that_histograms_estimate(store: Path, delta: bool) -> None:
    """shared/normalize.py: RunningStats over batches of one item: mean and std by sums, quantiles as edges of 5,000 bins."""
    dataset = OpenPIDataset(store, action_horizon=50)
    items = [Transformed(dataset, delta)[index] for index in range(len(dataset))]
    ours = dataset.norm_stats(delta=delta)["norm_stats"]
    for name in ("state", "actions"):
        values = np.concatenate([item[name].reshape(-1, item[name].shape[-1]) for item in items]).astype(np.float64)
        mean, squares = values.mean(axis=0), (values**2).mean(axis=0)
        np.testing.assert_allclose(ours[name]["mean"], mean, atol=1e-9)
        std = np.sqrt(np.maximum(0, squares - mean**2))
        moving = np.ptp(values, axis=0) > 0
        np.testing.assert_allclose(np.array(ours[name]["std"])[moving], std[moving], atol=1e-6)
        for element in range(values.shape[1]):
            low, high = values[:, element].min() - 1e-10, values[:, element].max() + 1e-10
            counts, edges = np.histogram(values[:, element], bins=np.linspace(low, high, 5001))
            for statistic, q in (("q01", 0.01), ("q99", 0.99)):
                estimate = edges[np.searchsorted(np.cumsum(counts), q * len(values))]
                near = np.sort(values[:, element])[[int(q * (len(values) - 1)), -(-int(q * (len(values) - 1) * 1e6) // 10**6)]]
                width = (high - low) / 5000 + np.ptp(near)
                assert abs(ours[name][statistic][element] - estimate) <= width


# --- openpi's own code ---

RUN = """
import json, pathlib, sys
from types import ModuleType
for name in ("lerobot", "lerobot.common", "lerobot.common.datasets", "lerobot.common.datasets.lerobot_dataset"):
    sys.modules[name] = ModuleType(name)
sys.modules["lerobot.common.datasets"].lerobot_dataset = sys.modules["lerobot.common.datasets.lerobot_dataset"]
import numpy as np
import openpi.models.tokenizer as tokenizers

class Words:  # its vocabulary is downloaded
    def __init__(self, max_len=48): self.max_len = max_len
    def tokenize(self, prompt, state=None):
        tokens = [ord(letter) for letter in prompt][: self.max_len]
        pad = self.max_len - len(tokens)
        return np.array(tokens + [0] * pad), np.array([True] * len(tokens) + [False] * pad)

tokenizers.PaligemmaTokenizer = Words
import dataclasses
import openpi.training.config as configs
import openpi.training.data_loader as loaders
sys.path.insert(0, "scripts")
import compute_norm_stats

if __name__ == "__main__":
    for name in ("pi0_libero", "pi05_libero"):
        # one batch of all windows: nothing is dropped, and no histogram is made anew
        configs._CONFIGS_DICT[name] = dataclasses.replace(configs.get_config(name), batch_size=int(sys.argv[1]), num_workers=0)
        compute_norm_stats.main(name)
        small = dataclasses.replace(configs.get_config(name), batch_size=4, num_workers=0)
        batches = []
        for observation, actions in loaders.create_data_loader(small, shuffle=True, num_batches=4):
            image = observation.images["base_0_rgb"]
            assert np.isfinite(np.asarray(actions)).all() and np.isfinite(np.asarray(observation.state)).all()
            batches.append([list(actions.shape), list(image.shape), str(image.dtype)])
        print(json.dumps({"name": name, "batches": batches}))
"""


def test_upstreams_loader_and_statistics(store: Path, tmp_path: Path) -> None:
    at = checkout("openpi")
    if at is None:
        pytest.skip(f"openpi is on no registry under this name: {UPSTREAM} names no folder with a checkout of it")
    if importlib.util.find_spec("flax") is None:
        pytest.skip("openpi's own packages (jax 0.5.3, flax 0.10.2, …) are not in this environment: make test-train-openpi")
    for name in ("src", "scripts", "packages"):
        shutil.copytree(at / name, tmp_path / name)
    shutil.copytree(store, tmp_path / "libero_spatial.zarr")
    assert apply_diff(blocks("openvla", "diff")[2], tmp_path) == ["src/openpi/training/data_loader.py"]
    (tmp_path / "run.py").write_text(RUN)
    n_windows = len(OpenPIDataset(store))
    printed = shell(
        f"export PYTHONPATH=src:packages/openpi-client/src:$PYTHONPATH; python run.py {n_windows}",
        tmp_path,
        JAX_PLATFORMS="cpu",
    )
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert [line["name"] for line in lines] == ["pi0_libero", "pi05_libero"]
    for line, horizon, delta in zip(lines, (50, 10), (True, False), strict=True):
        assert len(line["batches"]) == 4
        assert all(actions[:2] == [4, horizon] for actions, _, _ in line["batches"])
        assert all(image[0] == 4 and image[-1] == 3 for _, image, _ in line["batches"])
        written = tmp_path / "assets" / line["name"] / "physical-intelligence" / "libero" / "norm_stats.json"
        theirs = json.loads(written.read_text())["norm_stats"]
        dataset = OpenPIDataset(store, action_horizon=horizon)
        ours = dataset.norm_stats(delta=delta)["norm_stats"]
        items = [Transformed(dataset, delta)[index] for index in range(n_windows)]
        for name in ("state", "actions"):
            assert theirs[name].keys() == ours[name].keys()
            values = np.concatenate([item[name].reshape(-1, item[name].shape[-1]) for item in items])
            moving = np.ptp(values, axis=0) > 0
            # theirs are sums in float32, and a variance that is a difference of two of them
            np.testing.assert_allclose(ours[name]["mean"], theirs[name]["mean"], rtol=2e-5, atol=1e-5)
            variances = [np.array(stats[name]["std"])[moving] ** 2 for stats in (ours, theirs)]
            np.testing.assert_allclose(variances[0], variances[1], atol=5e-4)
            for statistic, q in (("q01", 0.01), ("q99", 0.99)):
                gap = np.ptp(
                    np.sort(values, axis=0)[[math.floor(q * (len(values) - 1)), math.ceil(q * (len(values) - 1))]], axis=0
                )
                bins = np.ptp(values, axis=0) / 5000
                assert (np.abs(np.array(ours[name][statistic]) - theirs[name][statistic]) <= gap + 2 * bins + 1e-6).all()

"""Diffusion policy's own ``train.py`` with the recipe's task and commands, of a checkout that ROBOZARR_UPSTREAM names.

Its own data set reads an exported ReplayBuffer beside that, by the Zarr 2 that it was written for: ``zarr2`` in the
environment. Empty modules stand for pytorch3d and imagecodecs, which it imports and does not use here.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from recipes import SITE, UPSTREAM, blocks, checkout, shell

CHECKOUT = checkout("diffusion_policy")
pytestmark = pytest.mark.skipif(
    CHECKOUT is None, reason=f"no checkout of real-stanford/diffusion_policy: {UPSTREAM} names a folder that holds one"
)
TINY = (
    "training.device=cpu training.num_epochs=2 training.max_train_steps=3 logging.mode=disabled policy.down_dims=[16,32] "
    "policy.diffusion_step_embed_dim=16 policy.num_inference_steps=2 policy.obs_encoder.crop_shape=[48,48] "
    "dataloader.batch_size=4 dataloader.num_workers=0 dataloader.persistent_workers=false val_dataloader.batch_size=4 "
    "val_dataloader.num_workers=0 val_dataloader.persistent_workers=false"
)
OURS = "robozarr.loader.adapters.diffusion_policy.DiffusionPolicyDataset"
THEIRS = "diffusion_policy.dataset.robomimic_replay_image_dataset.RobomimicReplayImageDataset"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with demos, the checkout, the recipe's task, and its store."""
    assert CHECKOUT is not None
    (tmp_path / "diffusion_policy").symlink_to(CHECKOUT)
    shutil.copytree(Path(__file__).parents[3] / "sample" / "libero_spatial", tmp_path / "data" / "libero_spatial")
    (tmp_path / "task").mkdir()
    (task,) = blocks("diffusion_policy", "yaml")
    (tmp_path / "task" / "libero.yaml").write_text(task)
    shell(commands()[0], tmp_path)
    return tmp_path


def commands() -> tuple[str, str]:
    """The recipe's conversion, and its training."""
    convert, _, train = blocks("diffusion_policy", "bash")[0].partition("\n")
    return convert, train.strip()


def train(folder: Path, options: str, **environment: str) -> list[dict[str, Any]]:
    """Train by the recipe's command; what was logged of each step."""
    shell(f"{commands()[1]} {TINY} hydra.run.dir=out {options}", folder, **environment)
    return [json.loads(line) for line in (folder / "out" / "logs.json.txt").read_text().splitlines()]


def test_train(folder: Path) -> None:
    logged = train(folder, "task.dataset.val_ratio=0.5")
    assert {entry["epoch"] for entry in logged} == {0, 1}
    assert all(math.isfinite(entry["train_loss"]) for entry in logged)
    assert len([entry for entry in logged if math.isfinite(entry.get("val_loss", math.nan))]) == 2
    assert (folder / "out" / "checkpoints" / "latest.ckpt").stat().st_size > 0


def test_losses_are_those_on_a_replay_buffer(folder: Path) -> None:
    """Upstream's own data set for robomimic takes a ReplayBuffer at its path for its cache; it trains on float32 only."""
    ours = train(folder, "task.dataset.causal=false")
    shutil.rmtree(folder / "out")
    shell("robozarr export diffusion-policy libero_spatial.zarr --output theirs.zarr.zip --float32", folder)
    path = folder / "task" / "libero.yaml"
    text = path.read_text()
    for old, new in ((OURS, THEIRS), ("path: libero_spatial.zarr", "path: theirs"), ("causal: true", "use_cache: true")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)
    (folder / "stubs" / "pytorch3d").mkdir(parents=True)
    (folder / "stubs" / "imagecodecs.py").touch()
    (folder / "stubs" / "pytorch3d" / "transforms.py").write_text("def __getattr__(name): return None\n")
    theirs = train(folder, "", PYTHONPATH=f"{folder / 'stubs'}:{Path(sys.prefix) / 'zarr2'}:{SITE}")
    assert len(ours) == 4
    assert ours == theirs

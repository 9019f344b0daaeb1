"""robomimic's own scripts/train.py on an HDF5 file and, by the recipe's lines, on the store of it: equal losses."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes import UPSTREAM, blocks, checkout, shell

import synthetic

LOW_DIM = ["robot0_eef_pos", "robot0_eef_quat", "robot0_joint_pos"]
CAMERA = "agentview_image"


def config(data: Any, folder: Path, **train: Any) -> dict[str, Any]:
    """A small behavioural cloning run with a picture: 2 epochs of 3 steps, validated."""
    modalities = {"low_dim": LOW_DIM, "rgb": [CAMERA], "depth": [], "scan": []}
    return {
        "algo_name": "bc",
        "experiment": {
            "name": "test", "validate": True, "epoch_every_n_steps": 3, "validation_epoch_every_n_steps": 2,
            "logging": {"terminal_output_to_txt": False, "log_tb": False, "log_wandb": False},
            "save": {"enabled": False}, "rollout": {"enabled": False}, "render_video": False,
        },
        "train": {
            "data": data, "output_dir": str(folder / "out"), "num_data_workers": 0, "hdf5_cache_mode": "low_dim",
            "hdf5_load_next_obs": False, "hdf5_filter_key": "train", "hdf5_validation_filter_key": "valid",
            "seq_length": 3, "frame_stack": 1, "dataset_keys": ["actions"], "cuda": False, "batch_size": 4, "num_epochs": 2,
            "seed": 1, **train,
        },
        "algo": {"actor_layer_dims": [16], "optim_params": {"policy": {"learning_rate": {"initial": 0.01}}}},
        "observation": {
            "modalities": {"obs": modalities},
            "encoder": {
                "rgb": {
                    "core_class": "VisualCore",
                    "core_kwargs": {
                        "feature_dimension": 8, "backbone_class": "ResNet18Conv", "pool_class": "SpatialSoftmax",
                        "backbone_kwargs": {"pretrained": False, "input_coord_conv": False}, "pool_kwargs": {"num_kp": 4},
                    },
                },
            },
        },
    }  # fmt: skip


def losses(printed: str) -> list[str]:
    found = re.findall(r'"(?:\w+/)?(?:Loss|[A-Za-z0-9_]*Loss)": ([-\d.eE]+)', printed)
    assert len(found) >= 4, printed[-3000:]
    return found


def trained(package: Path, folder: Path, script: str, written: dict[str, Any]) -> list[str]:
    """Copy robomimic into a folder, run the script there; the losses that it prints."""
    folder.mkdir()
    shutil.copytree(package, folder / "robomimic")
    synthetic.write_robomimic(folder / "demos.hdf5", lengths=(16, 11, 15), size=24)
    (folder / "config.json").write_text(json.dumps(written))
    printed = shell(script, folder)
    return losses(printed)


def compare(package: Path, tmp_path: Path, written: Any) -> None:
    [recipe, _] = blocks("robomimic", "sh")
    ours = trained(package, tmp_path / "store", f"{recipe}\n", written("demos.zarr", tmp_path / "store"))
    run = recipe.strip().splitlines()[-1]
    theirs = trained(package, tmp_path / "hdf5", run, written("demos.hdf5", tmp_path / "hdf5"))
    assert ours == theirs
    assert np.isfinite([float(loss) for loss in ours]).all()


def test_version_0_3_trains_on_a_store_as_on_the_file(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("robomimic")
    assert spec is not None
    assert spec.submodule_search_locations
    compare(Path(spec.submodule_search_locations[0]), tmp_path, config)


@pytest.mark.parametrize("normalization", [None, "min_max", "gaussian"])
def test_version_0_5_trains_on_a_store_as_on_the_file(tmp_path: Path, normalization: str | None) -> None:
    at = checkout("robomimic")
    if at is None:
        pytest.skip(f"robomimic 0.5 is on no registry: {UPSTREAM} names no folder with a checkout of it")

    def written(data: str, folder: Path) -> dict[str, Any]:
        keys = {"action_keys": ["actions"], "action_config": {"actions": {"normalization": normalization}}}
        return config([{"path": data}], folder, **keys)

    compare(at / "robomimic", tmp_path, written)

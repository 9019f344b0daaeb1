"""LeRobot's own training function on a store, beside the same on its own data sets made of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from robozarr.loader.adapters.lerobot import serve_stores

STEPS, BATCH = 4, 8


def act() -> Any:
    from lerobot.policies.act.configuration_act import ACTConfig

    return ACTConfig(
        device="cpu", push_to_hub=False, chunk_size=8, n_action_steps=8, dim_model=32, n_heads=2, dim_feedforward=64,
        n_encoder_layers=1, n_vae_encoder_layers=1, latent_dim=8, pretrained_backbone_weights=None,
    )  # fmt: skip


def diffusion() -> Any:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    return DiffusionConfig(
        device="cpu", push_to_hub=False, horizon=8, n_action_steps=4, drop_n_last_frames=2, down_dims=(16, 32),
        diffusion_step_embed_dim=16, pretrained_backbone_weights=None,
        spatial_softmax_num_keypoints=8, num_train_timesteps=10, crop_shape=(84, 84),
    )  # fmt: skip


def losses(root: Path, policy: Any, output: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], float]:
    """Losses of LeRobot's ``train``, and samples a second from the second step on."""
    from lerobot.configs.default import DatasetConfig
    from lerobot.configs.train import TrainPipelineConfig
    from lerobot.scripts import lerobot_train

    seen: list[float] = []
    at: list[float] = []
    update = lerobot_train.update_policy

    def recorded(metrics: Any, *arguments: Any, **options: Any) -> Any:
        result = update(metrics, *arguments, **options)
        seen.append(float(result[0].loss.val))
        at.append(time.perf_counter())
        return result

    config = TrainPipelineConfig(
        dataset=DatasetConfig(repo_id="sample", root=str(root), video_backend="pyav"), policy=policy, output_dir=output,
        batch_size=BATCH, steps=STEPS, num_workers=0, save_checkpoint=False, log_freq=1, seed=7,
    )  # fmt: skip
    monkeypatch.setattr(lerobot_train, "update_policy", recorded)
    with serve_stores():
        lerobot_train.train(config)
    monkeypatch.undo()
    return seen, BATCH * (len(at) - 1) / (at[-1] - at[0])


@pytest.mark.parametrize("make_policy", [act, diffusion])
def test_training_is_the_same(
    make_policy: Any, store: Path, images: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {root.name: losses(root, make_policy(), tmp_path / root.name, monkeypatch) for root in (store, images, videos)}
    for name, (seen, speed) in found.items():
        print(f"{make_policy.__name__} on {name}: losses {', '.join(f'{loss:.4f}' for loss in seen)}; {speed:.1f} samples/s")
    assert found["sample.zarr"][0] == found["images"][0]
    assert found["sample.zarr"][0] == pytest.approx(found["videos"][0], rel=0.2)
    assert len(found["sample.zarr"][0]) == STEPS

"""The commands and the lines of docs/recipes/lerobot.md, run as they stand, with a tiny policy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from recipes import blocks, shell

TINY = (
    "--policy.device=cpu --policy.chunk_size=4 --policy.n_action_steps=4 --policy.dim_model=32 --policy.n_heads=2 "
    "--policy.dim_feedforward=64 --policy.n_encoder_layers=1 --policy.n_vae_encoder_layers=1 --policy.latent_dim=8 "
    "--policy.pretrained_backbone_weights=null --steps=2 --batch_size=4 --num_workers=0 --log_freq=1 --save_checkpoint=false"
)


def test_commands(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[3] / "sample/libero_spatial", tmp_path / "data/libero_spatial")
    (script,) = blocks("lerobot", "python")
    train, export, convert = blocks("lerobot", "bash")
    (tmp_path / "train.py").write_text("import conftest\n" + script)  # what is put in the place of something
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "conftest.py")
    lines = train.replace("--policy.push_to_hub=false", f"--policy.push_to_hub=false {TINY} 2>&1")
    printed = shell(lines, tmp_path, PYTHONPATH=str(tmp_path))
    assert len(re.findall(r"loss:\d", printed)) == 2, printed[-3000:]
    assert "PSNR" in shell(export, tmp_path, SVT_LOG="1")
    assert "from_videos.zarr" in shell(convert, tmp_path)
    assert (tmp_path / "from_videos.zarr/zarr.json").is_file()

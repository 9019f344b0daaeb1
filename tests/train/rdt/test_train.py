"""RDT's training with the recipe's lines: re-created from its sources, and its own main.py where a checkout is named."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import UPSTREAM, apply_diff, blocks, checkout, shell

HERE = Path(__file__).parent
SAMPLE = HERE.parents[2] / "sample"


def losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"step \d+ loss (\S+)", printed)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The re-created repository with demos in data/, and the recipe's first commands run."""
    root = tmp_path / "rdt"
    shutil.copytree(HERE / "recreated", root)
    return prepared(root)


def prepared(root: Path) -> Path:
    (root / "configs").mkdir(exist_ok=True)
    shutil.copytree(SAMPLE / "libero_spatial", root / "data" / "libero_spatial")
    shell(blocks("rdt", "sh")[0], root)
    return root


def test_fine_tuning_trains_saves_and_goes_on(tree: Path) -> None:
    fine_tuning, _ = blocks("rdt", "diff")
    assert apply_diff(fine_tuning, tree) == ["train/dataset.py", "train/train.py"]
    [_, launch, _] = blocks("rdt", "sh")
    first = losses(shell(launch, tree, OPTIONS="--max_train_steps=4"))
    assert len(first) == 4
    assert all(math.isfinite(loss) for loss in first)
    saved = torch.load(tree / "out" / "checkpoint-4" / "custom_checkpoint_0.pkl")
    assert saved["position"] >= 4 * 4  # and what the worker had read ahead
    more = shell(launch, tree, OPTIONS="--max_train_steps=6 --resume_from_checkpoint=checkpoint-4")
    assert len(losses(more)) == 2
    later = torch.load(tree / "out" / "checkpoint-6" / "custom_checkpoint_0.pkl")
    assert later["seed"] == saved["seed"]
    assert later["position"] >= saved["position"] + 2 * 4


def test_fine_tuning_ends_at_a_window_that_cannot_be_read(tree: Path) -> None:
    apply_diff(blocks("rdt", "diff")[0], tree)
    for shard in (tree / "libero_spatial.zarr" / "steps" / "agentview_rgb" / "c").rglob("*"):
        if shard.is_file():
            content = bytearray(shard.read_bytes())
            content[len(content) // 2] ^= 0xFF
            shard.write_bytes(content)
    with pytest.raises(AssertionError, match="the run ends, for a sample cannot be read"):
        shell(blocks("rdt", "sh")[1], tree, OPTIONS="--max_train_steps=100")


def test_the_pretraining_form_trains(tree: Path) -> None:
    assert apply_diff(blocks("rdt", "diff")[1], tree) == ["train/train.py"]
    found = losses(shell(blocks("rdt", "sh")[2], tree, OPTIONS="--max_train_steps=5"))
    assert len(found) == 5
    assert all(math.isfinite(loss) for loss in found)


# --- RDT's own code ---


def tiny(root: Path) -> str:
    """Encoders of a few numbers under the names that RDT asks for, and a configuration; its options."""
    import yaml
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        PreTrainedTokenizerFast,
        SiglipImageProcessor,
        SiglipVisionConfig,
        SiglipVisionModel,
        T5Config,
        T5EncoderModel,
    )

    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "pick", "up", "the", "bowl"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    # as T5's: RDT masks instructions, and a batch of empty ones would have no token at all
    template: Any = processors.TemplateProcessing
    tokenizer.post_processor = template(single="$A </s>", special_tokens=[("</s>", words["</s>"])])
    t5 = root / "google" / "t5-v1_1-xxl"
    wrap: Any = PreTrainedTokenizerFast
    wrap(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>").save_pretrained(t5)
    T5EncoderModel(T5Config(vocab_size=8, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(t5)
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    SiglipVisionModel(vision).save_pretrained(root / "siglip")
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / "siglip")
    config = yaml.safe_load((root / "configs" / "base.yaml").read_text())
    config["model"] |= {"lang_token_dim": 16, "img_token_dim": 16}
    config["model"]["rdt"] |= {"hidden_size": 32, "depth": 1, "num_heads": 4}
    (root / "tiny.yaml").write_text(yaml.safe_dump(config))
    return (
        "--config_path=tiny.yaml --pretrained_text_encoder_name_or_path=google/t5-v1_1-xxl "
        "--pretrained_vision_encoder_name_or_path=siglip --train_batch_size=2 --sample_batch_size=2 --num_sample_batches=1 "
        "--sample_period=2 --checkpointing_period=2 --dataloader_num_workers=1 --image_aug --state_noise_snr=40 "
        "--report_to=tensorboard --output_dir=out --mixed_precision=no --learning_rate=1e-3"
    )


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    at = checkout("RoboticsDiffusionTransformer")
    if at is None:
        pytest.skip(f"RDT is on no registry: {UPSTREAM} names no folder with a checkout of it")
    if int(np.__version__.split(".")[0]) > 1:
        pytest.skip(f"RDT imports imgaug, which knows no numpy 2; this is {np.__version__}")
    root = tmp_path / "rdt"
    shutil.copytree(at, root, ignore=shutil.ignore_patterns(".git", "assets"))
    return prepared(root)


def logged(root: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: list[float] = []
    for file in sorted(root.rglob("events.out.tfevents.*"), key=os.path.getmtime):
        events = EventAccumulator(str(file)).Reload()
        if "loss" in events.Tags()["scalars"]:
            found += [event.value for event in events.Scalars("loss")]
    return found


def test_upstreams_main_fine_tunes_and_goes_on(upstream: Path) -> None:
    apply_diff(blocks("rdt", "diff")[0], upstream)
    options, [_, launch, _] = tiny(upstream), blocks("rdt", "sh")
    shell(launch, upstream, OPTIONS=f"{options} --max_train_steps=4", ACCELERATE_USE_CPU="true")
    first = logged(upstream)
    assert len(first) == 4
    assert all(math.isfinite(loss) for loss in first)
    saved = torch.load(upstream / "out" / "checkpoint-4" / "custom_checkpoint_0.pkl")
    more = f"{options} --max_train_steps=6 --resume_from_checkpoint=checkpoint-4"
    shell(launch, upstream, OPTIONS=more, ACCELERATE_USE_CPU="true")
    later = torch.load(upstream / "out" / "checkpoint-6" / "custom_checkpoint_0.pkl")
    assert later["seed"] == saved["seed"]
    assert later["position"] >= saved["position"] + 2 * 2
    assert len(logged(upstream)) == 6


def test_upstreams_main_trains_the_pretraining_form(upstream: Path) -> None:
    apply_diff(blocks("rdt", "diff")[1], upstream)
    options = f"{tiny(upstream)} --max_train_steps=4"
    shell(blocks("rdt", "sh")[2], upstream, OPTIONS=options, ACCELERATE_USE_CPU="true")
    found = logged(upstream)
    assert len(found) == 4
    assert all(math.isfinite(loss) for loss in found)
    assert json.loads((upstream / "configs" / "pretrain_datasets.json").read_text())[-1] == "libero_spatial"

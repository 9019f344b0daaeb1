"""OpenVLA's and OFT's fine-tuning with the recipe's lines: re-created, and their own transforms where checkouts are named."""

from __future__ import annotations

import json
import math
import shutil
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from recipes import UPSTREAM, apply_diff, blocks, checkout, shell

from robozarr.loader.adapters.openvla import OpenVLADataset

HERE = Path(__file__).parent
SAMPLE = HERE.parents[2] / "sample"
OPTIONS = {"dataset_name": "libero_spatial_no_noops", "batch_size": 4, "image_aug": True, "use_val_set": True, "val_freq": 4}


def run(tmp_path: Path, kind: str, diff: str, max_steps: int) -> list[dict[str, Any]]:
    """What finetune.py prints, line by line."""
    root = shutil.copytree(HERE / "recreated", tmp_path / "recreated")
    assert apply_diff(diff, root / kind) == ["vla-scripts/finetune.py"]
    shutil.copytree(SAMPLE / "libero_spatial", root / "data" / "libero_spatial")
    shell(blocks("openvla", "sh")[0], root)
    options = json.dumps(OPTIONS | {"max_steps": max_steps})
    printed = shell(f"python {kind}/vla-scripts/finetune.py '{options}'", root)
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def test_openvla_trains_over_epochs_to_max_steps(tmp_path: Path) -> None:
    lines = run(tmp_path, "openvla", blocks("openvla", "diff")[0], max_steps=20)
    n_windows = lines[0]["windows"]
    assert lines[0]["statistics"] == ["libero_spatial_no_noops"]
    assert lines[-1] == {"stopped": 20}
    steps = [line for line in lines if "loss" in line]
    assert 4 * len(steps) > 2 * n_windows  # the loop goes on where an epoch ends
    assert all(math.isfinite(step["loss"]) for step in steps)
    actions = [tuple(action) for step in steps for action in step["action"]]
    first, second = actions[:n_windows], actions[n_windows : 2 * n_windows]
    assert sorted(first) == sorted(second)  # every window, once an epoch
    assert first != second


def test_oft_trains_and_validates(tmp_path: Path) -> None:
    lines = run(tmp_path, "oft", blocks("openvla", "diff")[1], max_steps=9)
    assert lines[-1] == {"stopped": 9}
    validations = [line["validation"] for line in lines if "validation" in line]
    assert [len(losses) > 0 for losses in validations] == [True, True]
    assert all(math.isfinite(loss) for losses in validations for loss in losses)
    assert all(math.isfinite(line["loss"]) for line in lines if "loss" in line)


# --- their own code ---


@pytest.mark.parametrize(("name", "number"), [("openvla", 0), ("openvla-oft", 1)])
def test_the_lines_apply_to_their_finetune(name: str, number: int, tmp_path: Path) -> None:
    at = checkout(name)
    if at is None:
        pytest.skip(f"{name} is on no registry: {UPSTREAM} names no folder with a checkout of it")
    script = tmp_path / "vla-scripts" / "finetune.py"
    script.parent.mkdir()
    shutil.copy(at / "vla-scripts" / "finetune.py", script)
    apply_diff(blocks("openvla", "diff")[number], tmp_path)
    compile(script.read_text(), str(script), "exec")
    assert "RLDSDataset(" not in script.read_text().split("def finetune")[1].replace("# ", "")


class _Tokenizer:
    """32,000 tokens; words by their bytes, the last tokens by a letter each, as Llama's: OFT counts letters for tokens."""

    vocab_size, pad_token_id, model_max_length, first = 32000, 0, 512, 0x4E00

    def decode(self, tokens: Any) -> str:
        return "".join(chr(self.first + int(token)) for token in tokens)

    def batch_decode(self, many: Any) -> list[str]:
        return [self.decode(tokens) for tokens in many]

    def __call__(self, text: str, add_special_tokens: bool = True) -> Any:
        answer = ModuleType("answer")
        words = text.replace("</s>", "\2")
        ids = [ord(letter) - self.first if ord(letter) >= self.first else ord(letter) for letter in words]
        answer.input_ids = [1, *ids]  # type: ignore[attr-defined]
        return answer


def their_modules(at: Path, patch: pytest.MonkeyPatch) -> tuple[Any, Any, Any, Any]:
    """Their transform, collator, action tokenizer, prompt builder; what these files import besides is put in its place."""
    import importlib.util

    class Anything(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    def load(name: str, path: str) -> Any:
        spec = importlib.util.spec_from_file_location(name, at / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    for name in (
        "prismatic", "prismatic.models", "prismatic.models.backbones", "prismatic.models.backbones.vision",
        "prismatic.models.backbones.llm", "prismatic.models.backbones.llm.prompting", "prismatic.util", "prismatic.vla",
        "prismatic.vla.datasets", "prismatic.vla.datasets.rlds", "prismatic.vla.datasets.rlds.oxe",
        "prismatic.vla.datasets.rlds.utils", "prismatic.vla.datasets.rlds.utils.data_utils",
    ):  # fmt: skip
        patch.setitem(sys.modules, name, Anything(name))
    if (at / "prismatic/vla/constants.py").exists():
        patch.setattr(sys, "argv", ["finetune.py", "libero"])  # which chooses the constants
        load("prismatic.vla.constants", "prismatic/vla/constants.py")
    prompting = load(
        "prismatic.models.backbones.llm.prompting.base_prompter", "prismatic/models/backbones/llm/prompting/base_prompter.py"
    )
    tokenizer = load("prismatic.vla.action_tokenizer", "prismatic/vla/action_tokenizer.py")
    data_utils = load("prismatic.util.data_utils", "prismatic/util/data_utils.py")
    datasets = load("prismatic.vla.datasets.datasets", "prismatic/vla/datasets/datasets.py")
    return (
        datasets.RLDSBatchTransform, data_utils.PaddedCollatorForActionPrediction, tokenizer.ActionTokenizer,
        prompting.PurePromptBuilder,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "chunk"), [("openvla", 1), ("openvla-oft", 8)])
def test_their_transform_and_collator_make_batches(
    name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = checkout(name)
    if at is None:
        pytest.skip(f"{name} is on no registry: {UPSTREAM} names no folder with a checkout of it")
    transform, collator, action_tokenizer, prompt_builder = their_modules(at, monkeypatch)
    tokenizer = _Tokenizer()

    def pixels(image: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()

    options: dict[str, Any] = {"use_wrist_image": True, "use_proprio": True} if chunk > 1 else {}
    batch_transform = transform(action_tokenizer(tokenizer), tokenizer, pixels, prompt_builder, **options)
    from robozarr.convert import convert

    convert(SAMPLE / "libero_spatial", tmp_path / "s.zarr", workers=0)
    dataset = OpenVLADataset(tmp_path / "s.zarr", batch_transform, chunk=chunk)
    collate = collator(tokenizer.model_max_length, tokenizer.pad_token_id, padding_side="right")
    plain = OpenVLADataset(tmp_path / "s.zarr", chunk=chunk)
    n_batches = -(-len(dataset) // 4)
    read = 0
    for batch in islice(dataset.dataloader(4, collate, shuffle=False), n_batches):
        for row in range(len(batch["input_ids"])):
            sample = plain[read]
            tokens = batch["labels"][row][batch["labels"][row] != -100][:-1].numpy()
            back = action_tokenizer(tokenizer).decode_token_ids_to_actions(tokens).reshape(chunk, 7)
            np.testing.assert_allclose(back, np.clip(sample["action"], -1, 1), atol=2 / 255)  # a bin's width
            picture = batch["pixel_values"][row].numpy()
            np.testing.assert_array_equal(picture[:3].transpose(1, 2, 0), sample["observation"]["image_primary"][0])
            if chunk > 1:
                np.testing.assert_array_equal(picture[3:].transpose(1, 2, 0), sample["observation"]["image_wrist"][0])
                np.testing.assert_allclose(batch["proprio"][row].numpy(), sample["observation"]["proprio"][0])
                np.testing.assert_allclose(batch["actions"][row].numpy(), sample["action"])
            read += 1
    assert read == len(dataset)

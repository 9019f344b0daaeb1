"""LIBERO's own main.py by the recipe's commands, on the store and on the files: equal losses. Its simulator is left out.

Lifelong-Robot-Learning/LIBERO at 8f1084e, in a checkout that ROBOZARR_UPSTREAM names: PyPI's package has no configurations.
BERT is of a few numbers: its weights are downloaded.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes import ROBOMIMIC_0_2, UPSTREAM, blocks, checkout, shell

from synthetic import write_libero

ENVIRONMENTS = "class OffScreenRenderEnv: ...\nclass SubprocVectorEnv: ...\nclass DummyVectorEnv: ...\n"
OPTIONS = (
    "device=cpu lifelong=multitask policy=bc_rnn_policy policy.rnn_hidden_size=16 eval.eval=false eval.eval_every=1 "
    "train.n_epochs=1 train.batch_size=8 train.num_workers=1"
)


def tiny_bert(folder: Path) -> None:
    """A model and a tokenizer under the name that LIBERO asks for."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "bowl", "plate", "drawer", "open", "put", "on"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer: Any = BertTokenizer
    tokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)


def prepared(at: Path, folder: Path) -> Path:
    """LIBERO and robomimic in a folder, demos of LIBERO-Goal in datasets/."""
    for name in ("libero", "scripts"):
        shutil.copytree(at / name, folder / name, ignore=shutil.ignore_patterns("assets"))
    (folder / "libero" / "__init__.py").write_text("")  # or PyPI's would be found first
    (folder / "libero" / "libero" / "envs" / "__init__.py").write_text(ENVIRONMENTS)
    (folder / "wandb.py").write_text("")  # imported, and not used by default
    shutil.copytree(ROBOMIMIC_0_2, folder / "robomimic")
    tasks: dict[str, Any] = {}
    exec((at / "libero" / "libero" / "benchmark" / "libero_suite_task_map.py").read_text(), tasks)
    for number, task in enumerate(tasks["libero_task_map"]["libero_goal"]):
        file = folder / "datasets" / "libero_goal" / f"{task}_demo.hdf5"
        write_libero(file, lengths=(3, 2), size=128, seed=number, instruction=task.replace("_", " "))
    tiny_bert(folder / "bert-base-cased")
    places = {"benchmark_root": ".", "bddl_files": ".", "init_states": ".", "datasets": "datasets", "assets": "."}
    (folder / "config.yaml").write_text(json.dumps(places))
    return folder


def run(folder: Path, script: str) -> tuple[list[str], np.ndarray]:
    """The counts that main.py prints, and the losses that it saves."""
    variables = {"LIBERO_CONFIG_PATH": str(folder), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OPTIONS": OPTIONS}
    printed = shell(script, folder, **variables)
    assert "[error]" not in printed, printed
    [saved] = folder.rglob("multitask_auc.log")
    read = f"import torch; print(torch.load({str(saved)!r}, weights_only=False)['loss'].tolist())"
    losses = np.array(json.loads(shell(f'{sys.executable} -c "{read}"', folder)))
    return [line for line in printed.splitlines() if line.startswith(" # ")], losses


def test_main_trains_on_the_store_as_on_the_files(tmp_path: Path) -> None:
    at = checkout("LIBERO")
    if at is None:
        pytest.skip(f"PyPI's package lacks LIBERO's configurations: {UPSTREAM} names no folder with a checkout of it")
    [*prepare, main] = blocks("robomimic", "sh")[1].splitlines()
    counts, losses = run(prepared(at, tmp_path / "store"), "\n".join([*prepare, "rm -r datasets", main]))
    assert len(losses) == 2  # of the policy as it was made, and of an epoch
    assert np.isfinite(losses).all()
    files = prepared(at, tmp_path / "files")
    for file, old, new in (
        ("robomimic/utils/dataset.py", "np.bool)", "bool)"),  # which numpy has no more
        ("libero/lifelong/main.py", 'set_start_method("spawn"', 'set_start_method("fork"'),  # open files cannot be handed over
    ):
        text = (files / file).read_text()
        assert text.count(old) == 1
        (files / file).write_text(text.replace(old, new))
    their_counts, theirs = run(files, main.replace("libero.zarr", "datasets"))
    assert counts == their_counts
    assert len(counts) == 3
    np.testing.assert_array_equal(losses, theirs)

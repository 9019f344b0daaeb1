"""docs/loops.md: its blocks run as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from robozarr.loader.adapters.openpi import OpenPIDataset
from robozarr.loader.adapters.openvla import OpenVLADataset

PAGE = Path(__file__).parents[3] / "docs" / "loops.md"
pytestmark = pytest.mark.filterwarnings("default")  # the frameworks' own


def blocks() -> dict[str, list[str]]:
    """Code by heading; what stands before the first one is under ""."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    texts = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    return {
        heading: re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE) for heading, text in texts.items()
    }


def run(heading: str, sample_store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (folder / "libero.zarr").symlink_to(sample_store)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "page"}
    for code in [*blocks()[""], *blocks()[heading]]:
        exec(compile(code, f"{PAGE.name}: {heading}", "exec"), names)
    return names


def test_every_block_is_run() -> None:
    counts = {heading: len(code) for heading, code in blocks().items()}
    assert counts == {"": 1, "torch": 2, "Lightning": 1, "Accelerate": 1, "Trainer": 1, "torchdata": 1}


def test_torch(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("torch", sample_store, tmp_path, monkeypatch)
    per_epoch = len(names["loader"])
    state = names["loader"].state_dict()
    assert (state["epoch"], state["consumed"]) == (2 + 20 // per_epoch, 20 % per_epoch * 16)
    assert names["torch"].load("run.pt", weights_only=True)["loader"]["epoch"] == 2


@pytest.mark.slow(reason="imports Lightning")
def test_lightning(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("Lightning", sample_store, tmp_path, monkeypatch)
    assert names["trainer"].global_step == 4


def test_accelerate(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("Accelerate", sample_store, tmp_path, monkeypatch)
    assert names["loader"].state_dict()["epoch"] == 1
    names["loader"].set_epoch(7)
    names["accelerator"].load_state("checkpoint")
    assert names["loader"].state_dict()["epoch"] == 1


@pytest.mark.slow(reason="imports transformers")
def test_trainer(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="no Trainer: transformers is not installed")
    names = run("Trainer", sample_store, tmp_path, monkeypatch)
    per_epoch = len(names["loader"])
    state = names["loader"].state_dict()
    assert (state["epoch"], state["consumed"]) == (4 // per_epoch, 4 % per_epoch * 16)


def test_torchdata(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    names = run("torchdata", sample_store, tmp_path, monkeypatch)
    assert sum(map(len, names["rest"])) == len(names["dataset"]) - 2 * 16


def test_openvla_211_until_max_steps(sample_store: Path) -> None:
    """The loop of vla-scripts/finetune.py; tests/train/openvla runs the recipe's lines in such a file."""
    dataset = OpenVLADataset(sample_store, lambda sample: sample["action"])
    dataloader, n_batches, max_steps = dataset.dataloader(4, list), 0, 30
    for batch_idx, _ in enumerate(dataloader):
        n_batches += 1
        if batch_idx // 2 == max_steps:  # grad_accumulation_steps
            break
    per_epoch = -(-len(dataset) // 4)
    assert n_batches == 61 > per_epoch  # of an epoch there are fewer
    state = dataloader.state_dict()
    assert (state["epoch"], state["consumed"]) == (61 // per_epoch, 61 % per_epoch * 4)


def test_openpi_statistics(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libero_spatial.zarr").symlink_to(sample_store)
    monkeypatch.chdir(tmp_path)
    text = (PAGE.parent / "recipes" / "openvla.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, "openvla.md", "exec"), {})
    (path,) = tmp_path.glob("assets/**/norm_stats.json")
    assert json.loads(path.read_text()) == OpenPIDataset(sample_store, action_horizon=50).norm_stats(delta=True)

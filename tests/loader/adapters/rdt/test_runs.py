"""RDT's runs: saved and resumed, ended by what cannot be read; embeddings as T5 makes them; predictions as commands."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served import Taking
from torch.utils.data import DataLoader, Dataset

from robozarr.convert import convert
from robozarr.loader.adapters.rdt import RDTConfig, RDTDataset, RDTSteps
from robozarr.loader.adapters.rdt.inverse import commands_of
from robozarr.loader.adapters.rdt.language import write_lang_embeds
from robozarr.schemas.errors import CorruptChunkError, WindowError
from synthetic import write_libero


class Retrying(Dataset[Any]):
    """The loop of thu-ml/RoboticsDiffusionTransformer at deb71d8, train/dataset.py: __getitem__, as far as errors go."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return 44

    def __getitem__(self, index: int) -> Any:
        while True:
            try:
                if isinstance(self.inner, RDTSteps):
                    return self.inner.load(index)[1]
                return self.inner.get_item()["meta"]["step_id"]
            except BaseException:  # SystemExit and KeyboardInterrupt too
                index = (index + 1) % len(self)


@pytest.fixture
def damaged(sample_store: Path, tmp_path: Path) -> Path:
    """A byte of each picture shard changed, in the middle."""
    store = shutil.copytree(sample_store, tmp_path / "damaged.zarr")
    for shard in (store / "steps" / "agentview_rgb" / "c").rglob("*"):
        if shard.is_file():
            with shard.open("r+b") as file:
                file.seek(shard.stat().st_size // 2)
                byte = file.read(1)[0]
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte ^ 0xFF]))
    return store


@pytest.mark.parametrize("kind", [lambda dataset: dataset, RDTSteps], ids=["fine-tuning", "pre-training"])
def test_what_cannot_be_read_ends_the_run(damaged: Path, kind: Any, capfd: pytest.CaptureFixture[str]) -> None:
    loop = Retrying(kind(RDTDataset(damaged)))
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(DataLoader(loop, batch_size=4, num_workers=2, multiprocessing_context="fork"))
    told = capfd.readouterr().err
    assert "the run ends, for a sample cannot be read" in told
    assert "agentview_rgb" in told


def test_the_process_that_trains_ends_too(damaged: Path) -> None:
    def train() -> None:
        list(Retrying(RDTDataset(damaged)))  # type: ignore[call-overload]

    process = multiprocessing.get_context("fork").Process(target=train)
    process.start()
    process.join(60)
    assert process.exitcode == 1


def test_errors_may_be_raised_instead(damaged: Path) -> None:
    dataset = RDTDataset(damaged, on_error="raise")
    with pytest.raises(CorruptChunkError, match="agentview_rgb"):
        _ = [dataset.get_item() for _ in range(44)]
    with pytest.raises(CorruptChunkError, match="agentview_rgb"):
        _ = [RDTDataset(damaged).get_item(index) for index in range(44)]


def test_predictions_become_the_recorded_commands_again(sample_store: Path) -> None:
    config = RDTConfig(profile="delta")
    dataset = RDTDataset(sample_store, config=config)
    commands = dataset.windows.windows.reader.column("actions")
    for index in (0, len(dataset) - 1):
        anchor = dataset.windows.table.anchors([index])
        row = anchor.row[0] + dataset.windows.table.shift[anchor.episode[0]]
        first = commands_of(dataset.get_item(index)["actions"], config)[0]
        np.testing.assert_allclose(first, commands[row], atol=1e-12)
    with pytest.raises(WindowError, match="are states, not commands"):
        commands_of(np.zeros(128), RDTConfig())
    with pytest.raises(WindowError, match="unified vectors"):
        commands_of(np.zeros(7), config)


def test_embeddings_may_be_bfloat16(sample_store: Path, tmp_path: Path) -> None:
    """T5Embedder's dtype by default, which numpy does not have."""
    dataset = RDTDataset(sample_store)
    paths = write_lang_embeds(dataset.store, tmp_path, lambda text: torch.ones((1, len(text), 4), dtype=torch.bfloat16))
    served = RDTDataset(sample_store, lang_embed=paths)
    batch = next(iter(served.loader(8, shuffle=False)))
    assert batch["lang_embeds"].dtype == torch.bfloat16
    assert batch["lang_embeds"].sum(dim=(1, 2)).tolist() == [4 * len(text) for text in batch["instruction"]]
    torch.save(torch.ones(3, 4), paths[0])
    with pytest.raises(WindowError, match="alike for all tasks"):
        RDTDataset(sample_store, lang_embed=paths).make(served.windows.read([0]))


def test_a_run_goes_on_where_it_was_saved(sample_store: Path) -> None:
    first = RDTDataset(sample_store)
    served = [first.walk.take() for _ in range(17)]
    saved = json.loads(json.dumps(first.state_dict()))
    second = RDTDataset(sample_store)
    assert second.walk.order.seed != first.walk.order.seed  # 1 in 2^32
    second.load_state_dict(saved)
    assert sorted(served + [second.walk.take() for _ in range(44 - 17)]) == list(range(44))
    with pytest.raises(WindowError, match="of 44 windows"):
        second.load_state_dict(saved | {"n_windows": 43})


def test_two_ranks_go_on_as_one(sample_store: Path) -> None:
    ranks = [RDTDataset(sample_store, seed=5, rank=rank, world_size=2) for rank in range(2)]
    served = [rank.walk.take() for _ in range(9) for rank in ranks]
    one = RDTDataset(sample_store)
    one.load_state_dict(ranks[0].state_dict())
    assert sorted(served + [one.walk.take() for _ in range(44 - 18)]) == list(range(44))
    with pytest.raises(WindowError, match="the same on 2 ranks"):
        RDTDataset(sample_store, rank=0, world_size=2).walk.take()


def test_a_place_is_one_in_the_same_windows(sample_store: Path, tmp_path: Path) -> None:
    saved = RDTDataset(sample_store).state_dict()
    RDTDataset(sample_store).load_state_dict({name: saved[name] for name in saved if name != "windows"})  # an earlier version's
    tasks = [RDTDataset(sample_store, tasks=[task]) for task in (0, 1)]
    config = RDTConfig(history=1)
    for other in (*tasks, RDTDataset(sample_store, config=config)):
        with pytest.raises(WindowError, match=r"order · state: of (this window|the windows)"):
            other.load_state_dict(saved)
    write_libero(tmp_path / "other" / "open_demo.hdf5", lengths=(9, 10), size=8)
    convert(tmp_path / "other", tmp_path / "other.zarr", workers=0)
    with pytest.raises(WindowError, match="of this store"):
        RDTDataset(tmp_path / "other.zarr").load_state_dict(saved)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow(reason="imports torch in workers"))])
def test_a_place_may_be_loaded_when_workers_run_already(sample_store: Path, context: str) -> None:
    first, second = RDTDataset(sample_store, seed=1), RDTDataset(sample_store, seed=2)
    loader = DataLoader(Taking(second.walk), 4, num_workers=2, persistent_workers=True, multiprocessing_context=context)
    assert sorted(window for batch in loader for window in batch.tolist()) == list(range(44))  # and workers stay
    first.walk.taken = 20
    second.load_state_dict(first.state_dict())
    taken = sorted(window for batch in loader for window in batch.tolist())
    assert taken == sorted(first.walk.take() for _ in range(44))

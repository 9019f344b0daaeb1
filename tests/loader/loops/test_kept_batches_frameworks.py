"""Frameworks that keep batches: what they train on is what the windows hold, batch by batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robozarr as rz

KEYS = {"agentview_rgb": [0], "actions": range(200)}
pytestmark = pytest.mark.filterwarnings("default")  # the frameworks' and their dependencies' own


@pytest.fixture(scope="module")
def dataset(sample_store: Path) -> rz.WindowDataset:
    return rz.WindowDataset(rz.open_store(sample_store), rz.WindowSpec(KEYS))


def loader_of(dataset: rz.WindowDataset) -> rz.WindowLoader:
    return rz.WindowLoader(dataset, 4, prefetch=1, seed=5)


class Checked(torch.nn.Module):
    """A model that compares what it is given with the windows, and notes which they were."""

    def __init__(self, dataset: rz.WindowDataset) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(7, 1)
        anchors = dataset.table.anchors(np.arange(len(dataset)))
        places = zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True)
        self.numbers = {at: window for window, at in enumerate(places)}
        self.dataset, self.got = dataset, list[int]()

    def forward(self, **batch: Any) -> dict[str, torch.Tensor]:
        windows = [self.numbers[at] for at in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)]
        wanted = self.dataset.read(windows)
        assert torch.equal(batch["actions"].cpu(), wanted["actions"])
        assert torch.equal(batch["agentview_rgb"].cpu(), wanted["agentview_rgb"])
        self.got += windows
        return {"loss": self.layer(batch["actions"].float()).mean()}


@pytest.mark.slow(reason="imports transformers")
def test_trainers_get_batch_samples(dataset: rz.WindowDataset, tmp_path: Path) -> None:
    """transformers' Trainer draws all batches of an accumulation before it uses the first: 372 of 436 windows were right."""
    transformers = pytest.importorskip("transformers", reason="no Trainer: transformers is not installed")

    class Trainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            return loader_of(dataset)

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, gradient_accumulation_steps=4, per_device_train_batch_size=4,
        report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    model = Checked(dataset)
    Trainer(model=model, args=arguments).train()
    assert sorted(model.got) == sorted(2 * list(range(len(dataset))))


def test_accelerates_accumulation_with_losses_that_are_kept(dataset: rz.WindowDataset) -> None:
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
    model = Checked(dataset)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))
    batches = []
    for batch in loader_of(dataset):
        batches.append(batch)
        with accelerator.accumulate(prepared):
            accelerator.backward(prepared(**batch)["loss"])
            optimizer.step()
            optimizer.zero_grad()
    for batch in batches:  # a second look, when all have been
        prepared(**batch)
    assert sorted(model.got) == sorted(2 * list(range(len(dataset))))


@pytest.mark.slow(reason="imports Lightning")
def test_lightning_2611_an_overfitted_batch_and_outputs_that_are_kept(dataset: rz.WindowDataset) -> None:
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.checked = Checked(dataset)
            self.kept: list[dict[str, Any]] = []

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.kept.append(batch)
            return self.checked(**batch)["loss"]  # type: ignore[no-any-return]

        def on_train_epoch_end(self) -> None:
            for batch in self.kept:
                self.checked(**batch)
            self.kept.clear()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model = Model()
    lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=4, use_distributed_sampler=False,
    ).fit(model, loader_of(dataset))  # fmt: skip
    assert sorted(model.checked.got) == sorted(4 * list(range(len(dataset))))


def test_diffusion_policys_train_sampling_batch(dataset: rz.WindowDataset) -> None:
    """real-stanford/diffusion_policy, train_diffusion_unet_image_workspace.py: run().

    ``train_sampling_batch = None``; over the loader ``batch = dict_apply(batch, lambda x: x.to(device,
    non_blocking=True))`` and ``if train_sampling_batch is None: train_sampling_batch = batch``; after each epoch it is sampled
    from. On the CPU ``to`` gives the very same tensors.
    """
    device, loader, model = torch.device("cpu"), loader_of(dataset), Checked(dataset)
    train_sampling_batch: dict[str, Any] | None = None
    first: list[int] = []
    for _ in range(3):
        for batch in loader:
            batch = {name: x.to(device, non_blocking=True) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
            if train_sampling_batch is None:
                train_sampling_batch = batch
                before = copy.deepcopy(batch)
        assert train_sampling_batch is not None
        model(**train_sampling_batch)
        first.append(len(model.got))
    assert train_sampling_batch is not None
    assert all(torch.equal(before[name], x) for name, x in train_sampling_batch.items() if isinstance(x, torch.Tensor))
    assert first == [4, 8, 12]
    assert model.got[:4] == model.got[4:8] == model.got[8:]

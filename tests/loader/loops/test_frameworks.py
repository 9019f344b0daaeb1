"""Lightning, Trainer, torchdata, Accelerate on one rank: loops as people write them serve what they say, and resume exactly."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import robozarr as rz
from robozarr.convert import convert
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

SPEC = rz.WindowSpec({"agentview_rgb": [0], "actions": range(4)})
SIZE = 4
pytestmark = pytest.mark.filterwarnings("default")  # the frameworks' and their dependencies' own


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> rz.WindowDataset:
    """38 windows: 10 batches of 4."""
    folder = tmp_path_factory.mktemp("frameworks")
    for name, lengths in (("a/open", (11, 3, 7)), ("a/close", (9, 8))):
        write_libero(folder / f"{name}_demo.hdf5", lengths=lengths, size=8, instruction=name)
    convert(folder / "a", folder / "a.zarr", workers=0)
    return rz.WindowDataset(rz.open_store(folder / "a.zarr"), SPEC)


def windows(batch: dict[str, Any]) -> list[int]:
    return [100 * episode + step for episode, step in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)]


def every(dataset: rz.WindowDataset) -> list[int]:
    return sorted(windows(dataset.read(range(len(dataset)))))


def make(kind: str, dataset: rz.WindowDataset, **order: Any) -> Any:
    if kind == "WindowSampler":
        return DataLoader(dataset, SIZE, sampler=rz.WindowSampler(dataset, SIZE, **order), collate_fn=dataset.collate)
    return {"WindowLoader": rz.WindowLoader, "WindowDataLoader": rz.WindowDataLoader}[kind](dataset, SIZE, **order)


# --- Lightning ---


@pytest.mark.parametrize("kind", ["WindowLoader", "WindowDataLoader", "WindowSampler"])
def test_lightning_2630_7364_limit_train_batches_moves_on(dataset: rz.WindowDataset, kind: str) -> None:
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(7, 1)
            self.trained: list[list[int]] = []
            self.validated: list[list[int]] = []

        def on_train_epoch_start(self) -> None:
            self.trained.append([])

        def on_validation_epoch_start(self) -> None:
            self.validated.append([])

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.trained[-1] += windows(batch)
            loss: torch.Tensor = self.layer(batch["actions"].float()).mean()
            return loss

        def validation_step(self, batch: dict[str, Any], _: int) -> None:
            self.validated[-1] += windows(batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    model = Model()
    lightning.Trainer(
        max_epochs=8, limit_train_batches=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(model, make(kind, dataset, seed=9), make(kind, dataset))  # fmt: skip
    assert [len(epoch) for epoch in model.trained] == [12] * 8
    assert len({str(epoch) for epoch in model.trained}) == 8
    assert len(set(chain.from_iterable(model.trained[:3]))) == 36
    assert sorted(set(chain.from_iterable(model.trained[:4]))) == every(dataset)
    sanity, *validated = model.validated
    assert len(sanity) == 2 * SIZE
    assert all(sorted(epoch) == every(dataset) for epoch in validated)  # the sanity check cost the first one nothing


def test_lightning_predict_makes_a_loader_anew_and_is_told_what_to_use(dataset: rz.WindowDataset) -> None:
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def forward(self, batch: dict[str, Any]) -> list[int]:
            return windows(batch)

    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    model = Model()
    with pytest.raises(WindowError, match=r"WindowLoader for predict\(\)"):
        trainer.predict(model, rz.WindowDataLoader(dataset, SIZE))
    predicted = trainer.predict(model, rz.WindowLoader(dataset, SIZE, shuffle=False))
    assert list(chain.from_iterable(predicted or [])) == windows(dataset.read(range(38)))


# --- Hugging Face ---


@pytest.mark.slow(reason="imports transformers")
@pytest.mark.parametrize("kind", ["WindowLoader", "WindowDataLoader"])
def test_transformers_26289_trainer_resumes_in_the_middle_of_an_epoch(
    dataset: rz.WindowDataset, tmp_path: Path, kind: str
) -> None:
    got = train_by_trainer(lambda: make(kind, dataset, seed=9), tmp_path)
    assert len(got) == 25
    assert sorted(chain.from_iterable(got[:10])) == sorted(chain.from_iterable(got[10:20])) == every(dataset)
    assert got[:10] != got[10:20]
    assert train_by_trainer(lambda: make(kind, dataset, seed=9), tmp_path, "checkpoint-14") == got[14:]


def train_by_trainer(loader: Any, folder: Path, checkpoint: str | None = None) -> list[list[int]]:
    transformers = pytest.importorskip("transformers", reason="no Trainer: transformers is not installed")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(7, 1)
            self.got: list[list[int]] = []

        def forward(self, **batch: Any) -> dict[str, torch.Tensor]:
            self.got.append(windows(batch))
            return {"loss": self.layer(batch["actions"].float()).mean()}

    class Trainer(transformers.Trainer):  # type: ignore[misc, name-defined]
        def get_train_dataloader(self) -> Any:
            return loader()

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=25, save_steps=14, per_device_train_batch_size=SIZE, gradient_accumulation_steps=1,
        report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = Model()
    Trainer(model=model, args=arguments).train(resume_from_checkpoint=checkpoint and str(folder / checkpoint))
    return model.got


# --- torchdata, accelerate ---


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_1513_stateful_data_loader_with_our_sampler(dataset: rz.WindowDataset, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def start() -> Any:
        return stateful.StatefulDataLoader(
            dataset, SIZE, sampler=rz.WindowSampler(dataset, SIZE, seed=2), collate_fn=dataset.collate, num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )  # fmt: skip

    loader = start()
    whole = [windows(batch) for _ in range(2) for batch in loader]
    assert len(whole) == 20
    for stop in (3, 10, 13):
        loader = start()
        got: list[list[int]] = []
        while len(got) < stop:
            for batch in loader:
                got.append(windows(batch))
                if len(got) == stop:
                    state = loader.state_dict()
                    break
        loader = start()
        loader.load_state_dict(state)
        while len(got) < len(whole):
            got += [windows(batch) for batch in loader]
        assert got == whole
    with pytest.raises(WindowError, match="the sampler has 4, the DataLoader 8,"):
        next(iter(stateful.StatefulDataLoader(dataset, 8, sampler=rz.WindowSampler(dataset, SIZE))))


def test_accelerate_skips_batches_of_the_epoch_that_is_set(dataset: rz.WindowDataset) -> None:
    """accelerate's examples: set_epoch, then skip_first_batches."""
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    for kind in ("WindowLoader", "WindowDataLoader"):
        loader = make(kind, dataset, seed=3)
        epochs = [[windows(batch) for batch in loader] for _ in range(3)]
        resumed = make(kind, dataset, seed=3)
        with pytest.raises(WindowError, match="nobody called set_epoch"):
            next(iter(accelerator.skip_first_batches(resumed, 4)))
        resumed = make(kind, dataset, seed=3)
        resumed.set_epoch(1)
        assert [windows(batch) for batch in accelerator.skip_first_batches(resumed, 4)] == epochs[1][4:]
        assert [windows(batch) for batch in resumed] == epochs[2]


def test_accelerate_on_one_process_prepares_and_moves_on(dataset: rz.WindowDataset) -> None:
    import accelerate

    for kind in ("WindowLoader", "WindowDataLoader", "WindowSampler"):
        loader = accelerate.Accelerator(cpu=True).prepare(make(kind, dataset))
        epochs = [[windows(batch) for batch in loader] for _ in range(2)]
        assert all(sorted(chain.from_iterable(epoch)) == every(dataset) for epoch in epochs)
        assert epochs[0] != epochs[1]

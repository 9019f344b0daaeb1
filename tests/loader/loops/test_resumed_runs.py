"""Runs of Lightning, Trainer and accelerate that are resumed: they go on with exactly the windows that were left.

Checkpoints are from the end of an epoch too, where Lightning loads no loader's state, and Trainer never does.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from served import KINDS, SIZE, every, lightning_model, windows
from served import make as made

import robozarr as rz
from robozarr.schemas.errors import WindowError

make = partial(made, seed=9)
pytestmark = pytest.mark.filterwarnings("default")  # the frameworks' and their dependencies' own


def peeked(loader: Any) -> Any:
    """A loader whose first batch somebody looked at."""
    next(iter(loader))
    return loader


# --- Lightning ---


def train_by_lightning(
    loader: Any, folder: Path, checkpoint: str | None = None, *, n: int | float = 1.0, validate: Any = None, **options: Any
) -> list[list[int]]:
    """Four epochs of `n` batches, or of all; checkpoints after each epoch and batch, of a resumed run in another folder."""
    import pytorch_lightning as lightning
    from pytorch_lightning.callbacks import ModelCheckpoint

    own = folder / "again" if checkpoint else folder
    keep: list[lightning.Callback] = [
        ModelCheckpoint(own, filename="{epoch}", save_top_k=-1, every_n_epochs=1, enable_version_counter=False),
        ModelCheckpoint(own, filename="{step}", save_top_k=-1, every_n_train_steps=1, enable_version_counter=False),
    ]
    got: list[list[int]] = []
    lightning.Trainer(
        **{"max_epochs": 4, **options}, limit_train_batches=n, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=keep,
    ).fit(lightning_model(got), loader, validate, ckpt_path=checkpoint and folder / f"{checkpoint}.ckpt")  # fmt: skip
    return got


@pytest.mark.slow(reason="imports Lightning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_an_epochs_end_leads_to_the_next_epoch(dataset: rz.WindowDataset, tmp_path: Path, kind: str) -> None:
    """ModelCheckpoint's default; Lightning loads the loader's state only of checkpoints from within an epoch."""
    whole = train_by_lightning(make(kind, dataset), tmp_path)
    assert whole[:10] != whole[10:20]
    for epoch in (0, 2):
        assert train_by_lightning(make(kind, dataset), tmp_path, f"epoch={epoch}") == whole[10 * (epoch + 1) :]
    assert train_by_lightning(peeked(make(kind, dataset)), tmp_path, "epoch=1") == whole[20:]


@pytest.mark.slow(reason="trains ninety times")
@pytest.mark.parametrize(("kind", "workers"), [*((kind, 0) for kind in KINDS), ("WindowDataLoader", 2), ("WindowSampler", 2)])
@pytest.mark.parametrize("n", [1.0, 3, 9])
@pytest.mark.parametrize("validate", [False, True])
def test_lightning_resumes_anywhere(
    dataset: rz.WindowDataset, tmp_path: Path, kind: str, workers: int, n: int | float, validate: bool
) -> None:
    """A plain DataLoader too, of which Lightning keeps nothing but its own counts; and epochs of n steps."""

    def run(checkpoint: str | None = None) -> list[list[int]]:
        value = make("WindowSampler", dataset) if validate else None
        return train_by_lightning(make(kind, dataset, workers), tmp_path, checkpoint, n=n, validate=value)

    whole, per_epoch = run(), 10 if n == 1.0 else int(n)
    assert len(whole) == 4 * per_epoch
    for epoch in (0, 1):
        assert run(f"epoch={epoch}") == whole[per_epoch * (epoch + 1) :]
    for step in (1, per_epoch - 1, per_epoch, per_epoch + 2, 3 * per_epoch - 1):
        assert run(f"step={step}") == whole[step:]


@pytest.mark.slow(reason="imports Lightning")
def test_lightning_that_makes_a_loader_anew_each_epoch(dataset: rz.WindowDataset, tmp_path: Path) -> None:
    """reload_dataloaders_every_n_epochs: a new loader would begin with epoch 0 each time."""
    import pytorch_lightning as lightning

    class Data(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            return make("WindowLoader", dataset)

    got = train_by_lightning(Data(), tmp_path, reload_dataloaders_every_n_epochs=1)
    assert got == train_by_lightning(make("WindowLoader", dataset), tmp_path)


@pytest.mark.slow(reason="imports Lightning")
def test_a_checkpoint_of_another_batch_size_leads_to_its_next_epoch(dataset: rz.WindowDataset, tmp_path: Path) -> None:
    whole = train_by_lightning(make("WindowLoader", dataset), tmp_path)
    for size in (2, 8):
        rest = train_by_lightning(rz.WindowLoader(dataset, size, seed=9), tmp_path, "epoch=0")
        assert list(chain.from_iterable(rest)) == list(chain.from_iterable(whole[10:]))


# --- Trainer ---


def train_by_trainer(get_loader: Callable[[Any], Any], folder: Path, checkpoint: str | None = None) -> list[list[int]]:
    """25 batches, a checkpoint after each."""
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
            return get_loader(self)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=25, save_steps=1, per_device_train_batch_size=SIZE, report_to=[], use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    model = Model()
    Trainer(model=model, args=arguments).train(resume_from_checkpoint=checkpoint and str(folder / checkpoint))
    return model.got


@pytest.mark.slow(reason="imports transformers")
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(("kind", "workers"), [*((kind, 0) for kind in KINDS), ("WindowSampler", 2)])
def test_transformers_26289_trainer_resumes_anywhere(
    dataset: rz.WindowDataset, tmp_path: Path, kind: str, workers: int, prepared: bool
) -> None:
    """It skips batches within an epoch, and begins the next one at its end; a plain sampler is told no epoch of either."""
    if prepared and kind == "WindowLoader":
        pytest.skip("not a torch DataLoader, which accelerate prepares")

    def get_loader(trainer: Any) -> Any:
        loader = make(kind, dataset, workers)
        return trainer.accelerator.prepare(loader) if prepared else loader

    got = train_by_trainer(get_loader, tmp_path)
    assert sorted(chain.from_iterable(got[:10])) == sorted(chain.from_iterable(got[10:20])) == every(dataset)
    assert got[:10] != got[10:20]
    for step in (3, 10, 14, 20):
        assert train_by_trainer(get_loader, tmp_path, f"checkpoint-{step}") == got[step:]
    for step in (10, 14):
        assert train_by_trainer(lambda trainer: peeked(get_loader(trainer)), tmp_path, f"checkpoint-{step}") == got[step:]


@pytest.mark.slow(reason="imports transformers")
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_state_and_skipped_batches_are_one_too_many(dataset: rz.WindowDataset, tmp_path: Path, kind: str) -> None:
    first = make(kind, dataset)
    holder = first.sampler if kind == "WindowSampler" else first
    for number, _ in enumerate(first, 1):
        if number == 4:
            break
    state = holder.state_dict()

    def loaded(_: Any) -> Any:
        loader = make(kind, dataset)
        (loader.sampler if kind == "WindowSampler" else loader).load_state_dict(state)
        return loader

    train_by_trainer(lambda _: make(kind, dataset), tmp_path)
    with pytest.raises(WindowError, match="leaves out as many batches once more"):
        train_by_trainer(loaded, tmp_path, "checkpoint-4")


# --- accelerate ---


@pytest.mark.parametrize("kind", ["WindowDataLoader", "WindowSampler"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow(reason="starts processes"))])
def test_accelerates_stateful_loader_is_told_what_to_write(
    dataset: rz.WindowDataset, tmp_path: Path, kind: str, workers: int
) -> None:
    """It counts batches of a batch sampler, knows no epoch, and forgets what is on its way; the message's line is exact."""
    import accelerate

    pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")
    stateful = accelerate.utils.DataLoaderConfiguration(use_stateful_dataloader=True)
    said = r"accelerator.register_for_checkpointing\(loader\), of a plain DataLoader \(sampler\)"
    with pytest.raises(WindowError, match=said):  # with workers prepare iterates already
        next(iter(accelerate.Accelerator(cpu=True, dataloader_config=stateful).prepare(make(kind, dataset, workers))))
    for process in multiprocessing.active_children():  # torchdata's, which it leaves to themselves
        process.kill()
        process.join()

    def start() -> tuple[Any, Any]:
        loader, accelerator = make(kind, dataset, workers), accelerate.Accelerator(cpu=True)
        accelerator.register_for_checkpointing(loader.sampler if kind == "WindowSampler" else loader)
        return accelerator, accelerator.prepare(loader)

    whole = [windows(batch) for loader in [start()[1]] for _ in range(2) for batch in loader]
    for stop in (3, 13):
        (accelerator, loader), got = start(), list[list[int]]()
        while len(got) < stop:
            for batch in loader:
                got.append(windows(batch))
                if len(got) == stop:
                    accelerator.save_state(str(tmp_path / "state"))
                    break
        accelerator, loader = start()
        accelerator.load_state(str(tmp_path / "state"))
        while len(got) < len(whole):
            got += [windows(batch) for batch in loader]
        assert got == whole

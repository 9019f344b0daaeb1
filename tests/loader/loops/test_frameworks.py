"""Lightning, torchdata, Accelerate on one rank: loops as people write them serve what they say, and resume exactly."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from effort import some
from served import KINDS, SIZE, every, lightning_model, make, windows

import robozarr as rz
from robozarr.schemas.errors import WindowError

pytestmark = pytest.mark.filterwarnings("default")  # the frameworks' and their dependencies' own


# --- Lightning ---


@pytest.mark.slow(reason="imports Lightning")
@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.slow(reason="imports Lightning")
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


@pytest.mark.slow(reason="imports Lightning")
def test_through_lightning(dataset: rz.WindowDataset, tmp_path: Path) -> None:
    """The trainer saves and loads the loader's state by itself; both kinds of loader."""
    import pytorch_lightning as lightning

    def train(make: Any, max_steps: int, resume: Path | None = None) -> tuple[list[list[int]], lightning.Trainer]:
        trainer = lightning.Trainer(
            max_steps=max_steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, barebones=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, use_distributed_sampler=False,
        )  # fmt: skip
        got: list[list[int]] = []
        trainer.fit(lightning_model(got), make(), ckpt_path=resume)
        return got, trainer

    makers = (
        lambda: rz.WindowLoader(dataset, 4, seed=9),
        lambda: rz.WindowDataLoader(dataset, 4, order={"seed": 9}),
    )
    for kind in makers:
        whole, _ = train(kind, 25)
        assert len(whole) == 25
        begun, trainer = train(kind, 14)  # in the second epoch
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        rest, _ = train(kind, 25, tmp_path / "run.ckpt")
        assert begun + rest == whole


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
    for stop in (3, 10, 13)[:: some(1, 2)]:
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

    for kind in KINDS:
        loader = accelerate.Accelerator(cpu=True).prepare(make(kind, dataset))
        epochs = [[windows(batch) for batch in loader] for _ in range(2)]
        assert all(sorted(chain.from_iterable(epoch)) == every(dataset) for epoch in epochs)
        assert epochs[0] != epochs[1]

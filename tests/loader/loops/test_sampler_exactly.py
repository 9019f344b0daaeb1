"""A DataLoader with WindowSampler in the loops of torch, accelerate and Lightning: exact, whatever is prefetched.

A DataLoader asks a sampler for batches before the training has them, and frameworks set epochs by counts of their own.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from effort import some
from served import SIZE, every, make, windows
from torch.utils.data import DataLoader

import robozarr as rz

KINDS = ("WindowSampler", "WindowDataLoader")
pytestmark = pytest.mark.filterwarnings("default")  # the frameworks' and their dependencies' own


def first(loader: Any, n: int) -> list[list[int]]:
    """A loop that is left after `n` batches, and lets its iterator go."""
    got = []
    for batch in loader:
        got.append(windows(batch))
        if len(got) == n:
            break
    return got


def assert_all_before_any_again(epochs: list[list[list[int]]], dataset: rz.WindowDataset) -> None:
    in_order = list(chain.from_iterable(chain.from_iterable(epochs)))
    assert sorted(in_order[:38]) == every(dataset)
    assert len({str(epoch) for epoch in epochs}) == len(epochs)  # another order each time


@pytest.mark.parametrize(
    ("workers", "persistent"),
    [(0, False), pytest.param(2, False, marks=pytest.mark.slow(reason="starts processes")), (2, True)],
)
@pytest.mark.parametrize("n", [3, 9])  # 9: what is left is on its way already
def test_batches_that_workers_had_prefetched_come_next(
    dataset: rz.WindowDataset, workers: int, persistent: bool, n: int
) -> None:
    loader = make("WindowSampler", dataset, workers, persistent=persistent, seed=4)
    assert_all_before_any_again([first(loader, n) for _ in range(some(6, 4))], dataset)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow(reason="starts processes six times"))])
@pytest.mark.parametrize("n", [3, 9, 10])
def test_epochs_of_n_steps_of_a_loader_that_accelerate_prepared(
    dataset: rz.WindowDataset, kind: str, workers: int, n: int
) -> None:
    """Accelerate's loader reads one batch ahead, and tells the sampler the same epoch until one of its own is whole."""
    import accelerate

    loader = accelerate.Accelerator(cpu=True).prepare(make(kind, dataset, workers, seed=4))
    assert_all_before_any_again([first(loader, n) for _ in range(6)], dataset)


@pytest.mark.slow(reason="starts processes for eight epochs")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [3, 9])
def test_lightning_2630_7364_epochs_of_n_steps_with_workers(dataset: rz.WindowDataset, kind: str, n: int) -> None:
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(7, 1)
            self.got: list[list[list[int]]] = []

        def on_train_epoch_start(self) -> None:
            self.got.append([])

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            self.got[-1].append(windows(batch))
            loss: torch.Tensor = self.layer(batch["actions"].float()).mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    model = Model()
    lightning.Trainer(
        max_epochs=8, limit_train_batches=n, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(model, make(kind, dataset, 2, seed=9))  # fmt: skip
    assert [len(epoch) for epoch in model.got] == [n] * 8
    assert_all_before_any_again(model.got, dataset)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow(reason="starts processes once more")), 6, 9, 10])
def test_a_samplers_state_counts_what_was_handed_out(dataset: rz.WindowDataset, workers: int, stop: int) -> None:
    whole = first(make("WindowSampler", dataset, seed=2), 99)
    loader, got = make("WindowSampler", dataset, workers, seed=2), []
    for batch in loader:
        got.append(windows(batch))
        if len(got) == stop:
            state = loader.sampler.state_dict()
            break
    assert (state["epoch"], state["consumed"]) == ((0, SIZE * stop) if stop < 10 else (1, 0))
    resumed = make("WindowSampler", dataset, workers, seed=2)
    resumed.sampler.load_state_dict(state)
    if stop < 10:
        assert got + first(resumed, 99) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_windows_that_are_asked_for_one_by_one(dataset: rz.WindowDataset, workers: int) -> None:
    """DataLoader(batch_size=None): torch's workers have windows then, not batches."""
    sampler = rz.WindowSampler(dataset, SIZE, seed=2)
    context = "fork" if workers else None
    loader = DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, multiprocessing_context=context)
    for _ in range(2):
        assert sorted(100 * int(item["episode"]) + int(item["step"]) for item in loader) == every(dataset)
    state = sampler.state_dict()
    assert (state["epoch"], state["consumed"]) == (2, 0)
    next(iter(loader))
    assert 0 <= sampler.state_dict()["consumed"] <= 38


def test_a_user_that_sets_an_epoch_goes_there(dataset: rz.WindowDataset) -> None:
    loader = make("WindowSampler", dataset, seed=1)
    expected = []
    for epoch in range(3):
        fresh = make("WindowSampler", dataset, seed=1)
        fresh.sampler.set_epoch(epoch)
        expected.append(first(fresh, 3))
    for epoch in (2, 0, 1):
        loader.sampler.set_epoch(epoch)
        assert first(loader, 3) == expected[epoch]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_place_is_kept_when_a_framework_tells_an_epoch(dataset: rz.WindowDataset, kind: str) -> None:
    import accelerate

    loader = make(kind, dataset, seed=3)
    served = first(loader, 4)
    owner = loader if kind == "WindowDataLoader" else loader.sampler
    state = owner.state_dict()
    fresh = make(kind, dataset, seed=3)
    (fresh if kind == "WindowDataLoader" else fresh.sampler).load_state_dict(state)
    rest = first(accelerate.Accelerator(cpu=True).prepare(fresh), 99)
    assert sorted(chain.from_iterable(served + rest)) == every(dataset)

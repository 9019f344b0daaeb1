"""The windows that training loops are served: the package's loaders by name, and which windows a batch holds."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.utils.data import DataLoader, Dataset

import robozarr as rz

SIZE: Final = 4
KINDS: Final = ("WindowLoader", "WindowDataLoader", "WindowSampler")


class Taking(Dataset[int]):
    """Asks for samples without an index, as RDT's data set does; here, where spawned workers find it."""

    def __init__(self, walk: Any, n: int = 44) -> None:
        self.walk, self.n = walk, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, _: int) -> int:
        taken: int = self.walk.take()
        return taken


def windows(batch: dict[str, Any]) -> list[int]:
    """Each window of a batch: 100 · episode + step."""
    return [100 * episode + step for episode, step in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)]


def every(dataset: rz.WindowDataset) -> list[int]:
    return sorted(windows(dataset.read(range(len(dataset)))))


def make(kind: str, dataset: rz.WindowDataset, workers: int = 0, *, persistent: bool = False, **order: Any) -> Any:
    """A loader with batches of `SIZE`; "WindowSampler": a plain DataLoader with it, whose state is the sampler's."""
    if kind == "WindowLoader":
        return rz.WindowLoader(dataset, SIZE, **order)
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": persistent}
    options["multiprocessing_context"] = "fork" if workers else None
    if kind == "WindowDataLoader":
        return rz.WindowDataLoader(dataset, SIZE, **order, **options)
    sampler, drop_last = rz.WindowSampler(dataset, SIZE, **order), order.get("drop_last", False)
    return DataLoader(dataset, SIZE, sampler=sampler, collate_fn=dataset.collate, drop_last=drop_last, **options)


def lightning_model(got: list[list[int]]) -> Any:
    """A model for Lightning's trainer; the windows of each batch that it is trained on go to `got`."""
    import pytorch_lightning as lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(7, 1)

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            got.append(windows(batch))
            loss: torch.Tensor = self.layer(batch["actions"].float()).mean()
            return loss

        def validation_step(self, batch: dict[str, Any], _: int) -> None:
            pass

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Model()

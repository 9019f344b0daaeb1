"""Training loops of two ranks, run by torchrun: python -m torch.distributed.run --nproc-per-node 2 rank_loops.py GROUP STORE.

Each loop gives what its rank was served; rank 0 prints what all ranks got, as JSON: name of the loop → a list, one a rank.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as distributed
from served import SIZE, windows
from torch.utils.data import DataLoader

import robozarr as rz

SPEC = rz.WindowSpec({"agentview_rgb": [0], "actions": range(4)})


def error_of(function: Callable[[], object]) -> str:
    try:
        function()
    except rz.RoboZarrError as error:
        return str(error)
    return ""


def train(loader: Iterable[dict[str, Any]], n_epochs: int) -> list[list[list[int]]]:
    """As DDP trains: gradients are summed over ranks at each step, so that a rank with fewer steps leaves the others waiting.

    Not DDP itself, which takes four seconds of each process to import; Lightning's loop below has it.
    """
    model = torch.nn.Linear(7, 1)

    def step(batch: dict[str, Any]) -> list[int]:
        model(batch["actions"].float()).mean().backward()
        for weights in model.parameters():
            distributed.all_reduce(weights.grad)
        return windows(batch)

    return [[step(batch) for batch in loader] for _ in range(n_epochs)]


def odd(dataset: rz.WindowDataset) -> rz.WindowDataset:
    """21 windows: in batches of 2, 5 and 10 of 2 ranks, the last one is alone in the last global batch."""
    episodes = [number for number, length in enumerate(dataset.store.episodes.length.tolist()) if length in (3, 7, 11)]
    return rz.WindowDataset(dataset.store, SPEC, episodes=episodes)


class Torch:
    """What needs nothing but torch."""

    def __init__(self, dataset: rz.WindowDataset) -> None:
        self.dataset = dataset
        self.early: list[Any] = [rz.WindowLoader(dataset, SIZE, seed=5), rz.WindowDataLoader(dataset, SIZE)]
        self.refused = error_of(lambda: len(self.early[0]))
        distributed.init_process_group("gloo", timeout=timedelta(seconds=20))

    def before_the_group_len_is_refused(self) -> str:
        return self.refused

    def made_before_the_process_group(self) -> Any:
        return [train(loader, 2) for loader in self.early]

    def uneven_ends(self) -> Any:
        dataset = odd(self.dataset)
        loaders: list[Any] = [rz.WindowLoader(dataset, size) for size in (2, 3, 5, 10, 11)]
        loaders += [rz.WindowDataLoader(dataset, size, drop_last=False) for size in (2, 4, 5)]
        return [train(loader, 2) for loader in loaders]

    def given_and_other_than_torch_says(self) -> str:
        other = 1 - distributed.get_rank()
        return error_of(lambda: next(iter(rz.WindowLoader(self.dataset, SIZE, rank=other, world_size=2))))

    def given_and_the_same(self) -> Any:
        return train(rz.WindowLoader(self.dataset, SIZE, rank=distributed.get_rank(), world_size=2), 1)

    def smaller_groups_of_ranks(self) -> Any:
        """Tensor parallel: both ranks want the same windows."""
        groups = [distributed.new_group([rank]) for rank in (0, 1)]
        loader = rz.WindowLoader(self.dataset, SIZE, group=groups[distributed.get_rank()])
        return [windows(batch) for batch in loader]

    def sampler_with_a_tail(self) -> str:
        dataset = odd(self.dataset)
        return error_of(lambda: next(iter(DataLoader(dataset, 5, sampler=rz.WindowSampler(dataset, 5)))))

    def openvla_until_max_steps(self) -> Any:
        from robozarr.loader.adapters.openvla import OpenVLADataset

        dataset = OpenVLADataset(
            self.dataset.store, lambda sample: sample["observation"]["proprio"].tobytes().hex(), drop_noops=False
        )
        got = []
        for step, batch in enumerate(dataset.dataloader(SIZE, list, seed=2), 1):
            got.append(batch)
            if step == 30:
                break
        return [len(dataset), got]


class Frameworks:
    """Accelerate and Lightning."""

    def __init__(self, dataset: rz.WindowDataset) -> None:
        self.dataset = dataset
        distributed.init_process_group("gloo", timeout=timedelta(seconds=30))

    def loaders(self) -> list[Any]:
        plain = DataLoader(self.dataset, SIZE, sampler=rz.WindowSampler(self.dataset, SIZE), collate_fn=self.dataset.collate)
        return [rz.WindowLoader(self.dataset, SIZE), rz.WindowDataLoader(self.dataset, SIZE), plain]

    def accelerate_prepares(self) -> Any:
        import accelerate

        accelerator = accelerate.Accelerator(cpu=True)
        out: list[Any] = []
        for loader in self.loaders():
            prepared = accelerator.prepare(loader)
            out.append([windows(batch) for batch in prepared] if prepared is loader else error_of(partial(list, prepared)))
        return out

    def accelerate_dispatches(self) -> Any:
        import accelerate

        loader = accelerate.data_loader.prepare_data_loader(
            rz.WindowDataLoader(self.dataset, SIZE), put_on_device=True, dispatch_batches=True, device=torch.device("cpu")
        )
        return error_of(lambda: list(loader)) if distributed.get_rank() == 0 else ""

    def lightning_with_its_own_sampler(self) -> Any:
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

        out = []
        for loader in self.loaders():
            model = Model()
            lightning.Trainer(
                max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=True,
            ).fit(model, loader)  # fmt: skip
            out.append(model.got)
        return out


def main(group: str, path: str) -> None:
    warnings.simplefilter("ignore")
    dataset = rz.WindowDataset(rz.open_store(path), SPEC)
    loops = {"torch": Torch, "frameworks": Frameworks}[group](dataset)
    found = {}
    for name in [name for name in vars(type(loops)) if not name.startswith("_") and name != "loaders"]:
        found[name] = [None, None]
        mine = getattr(loops, name)()
        distributed.all_gather_object(found[name], mine)
    if distributed.get_rank() == 0:
        print("\n" + json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

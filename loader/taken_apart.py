"""Attributes that frameworks look for in a loader: ``WindowLoader`` has them so that they can skip batches.

Hugging Face's Trainer resumes in the middle of an epoch by accelerate's ``skip_first_batches``, which makes a torch DataLoader
of a loader's ``dataset``, ``batch_sampler`` and ``collate_fn``, and leaves out the batches that had been trained on. Here the
"batch sampler" gives the loader's batches as they are, and the others hand them on: so they are the loader's, device and all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import BatchSampler, Dataset, Sampler, SequentialSampler

from robozarr.loader.endless import Endless
from robozarr.loader.schedule import Schedule
from robozarr.schemas.errors import WindowError

__all__ = ["TakenApart"]


class _AsRead(Dataset[Any]):
    """Passes on batches that are already read; its length is the number of windows."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __len__(self) -> int:
        return self.schedule.order.n_positions

    def __getitem__(self, window: int) -> Any:
        raise WindowError("loader · dataset: only hands on the loader's batches → ask the WindowDataset for windows")

    def __getitems__(self, batch: Any) -> Any:
        return batch


class _Batches(BatchSampler):
    """A loader's batches, where a DataLoader expects lists of windows."""

    def __init__(self, loader: TakenApart) -> None:
        self.loader, self.sampler = loader, loader.sampler
        self.batch_size, self.drop_last = loader.schedule.batch_size, loader.schedule.drop_last

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader

    def __len__(self) -> int:
        return self.loader.schedule.n_batches

    def set_epoch(self, epoch: int) -> None:
        """Set the loader's epoch; Trainer calls this after it began to skip."""
        self.loader.schedule.set_epoch(epoch)


class _NoSampler(Sampler[int]):
    """Tells frameworks that windows come shuffled; it refuses to list them."""

    def __iter__(self) -> Iterator[int]:
        raise WindowError("loader · sampler: WindowLoader reads by itself → use WindowDataLoader where a sampler is needed")


class TakenApart:
    """The attributes of a torch DataLoader, for a loader of our own; and its methods about epochs."""

    schedule: Schedule
    num_workers, prefetch_factor = 0, None

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    @property
    def dataset(self) -> Dataset[Any]:
        """For frameworks: an object with as many items as there are windows."""
        return _AsRead(self.schedule)

    @property
    def sampler(self) -> Sampler[int]:
        """For frameworks: whether windows come in the order of the store."""
        return _NoSampler() if self.schedule.shuffle else SequentialSampler(_AsRead(self.schedule))

    @property
    def batch_sampler(self) -> BatchSampler:
        """For frameworks: the loader's batches."""
        return _Batches(self)

    @staticmethod
    def collate_fn(batch: Any) -> Any:
        """For frameworks: returns a batch unchanged."""
        return batch

    def forever(self) -> Endless:
        """Run epoch after epoch without an end, for loops that count steps; it has no length."""
        return Endless(self)

    @property
    def n_batches_left(self) -> int:
        """Batches of this rank in the next iteration."""
        return self.schedule.n_batches_left

    def expected_coverage(self, n_epochs: float = 1) -> float:
        """The share of windows that `n_epochs` epochs should serve at least once, over all ranks; 1 without weights."""
        return self.schedule.expected_coverage(n_epochs)

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch. Not needed: each finished epoch leads to the next; a resumed one keeps its position."""
        self.schedule.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """State of the run as JSON values: the batch that was handed out last counts as consumed, later ones do not.

        The same on every rank, as long as ranks take turns; save rank 0's.
        """
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state: the next iteration serves exactly what was left, with any batch size and world size.

        Raises
        ------
        WindowError
            If it belongs to another order: another store, window, filter, seed, …; the text says what differs.
        """
        self.schedule.load_state_dict(state)

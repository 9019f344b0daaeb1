"""Augment pictures of samples in a DataLoader's workers: as ``WindowLoader(augment=…)`` does, by seed, epoch and window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from multiprocessing.sharedctypes import RawValue
from typing import Any, Protocol

from torch.utils.data import Dataset

from robozarr.loader.adapters.libero import LiberoWindows
from robozarr.loader.dataset import Sample
from robozarr.loader.device.augmenting.augment import Augment
from robozarr.loader.device.augmenting.of_cameras import told_augment
from robozarr.loader.sampler import WindowDataLoader

__all__ = ["AugmentedDataLoader", "AugmentedSamples"]


class Samples(Protocol):
    """An adapter's data set, which makes samples from batches."""

    windows: LiberoWindows

    def __len__(self) -> int: ...
    def make(self, batch: Sample) -> Sample: ...
    def samples(self, batch: Sample) -> list[Any]: ...


class AugmentedSamples(Dataset[Any]):
    """Samples whose pictures are changed.

    Parameters
    ----------
    inner : OpenVLADataset
    augments : mapping of str to Augment
        What changes each field of a batch, uint8 [b, n, y, x, 3].
    """

    def __init__(self, inner: Samples, augments: Mapping[str, Augment]) -> None:
        self.inner, self.augments = inner, augments
        self.seed = 0
        """That of the order; the loader tells it."""
        self.epoch = RawValue("q", 0)
        """Shared with workers, however they are started."""

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch of the windows that are read from now on."""
        self.epoch.value = epoch

    def __len__(self) -> int:
        return len(self.inner)

    def __getitems__(self, windows: Sequence[int]) -> list[Any]:
        """Samples of several windows, read and augmented together; called by ``DataLoader``."""
        batch = self.inner.make(self.inner.windows.read(windows))
        for field, augment in self.augments.items():
            batch = augment(batch, [field], seed=self.seed, epoch=int(self.epoch.value), channels_first=False)
        return self.inner.samples(batch)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]


class AugmentedDataLoader(WindowDataLoader):
    """A ``WindowDataLoader`` of ``AugmentedSamples``, which tells them seed and epoch; its state names the augmentation."""

    def __init__(self, dataset: AugmentedSamples, batch_size: int, **options: Any) -> None:
        super().__init__(dataset, batch_size, **options)
        self.schedule.augment = told_augment(dataset.augments)
        dataset.seed = self.schedule.order.seed
        self.batch_sampler.sampler.tell_epoch = dataset.begin_epoch  # type: ignore[union-attr]

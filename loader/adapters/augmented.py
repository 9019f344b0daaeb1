"""Augment pictures of samples in a DataLoader's workers: as ``WindowLoader(augment=…)`` does, by seed, epoch and window."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any, Protocol

from torch.utils.data import Dataset

from robozarr.loader.adapters.libero import LiberoWindows
from robozarr.loader.dataset import Sample
from robozarr.loader.device.augmenting.augment import Augment
from robozarr.loader.sampler import WindowDataLoader

__all__ = ["AugmentedDataLoader", "AugmentedSamples"]


class Samples(Protocol):
    """An adapter's data set that makes samples of batches."""

    windows: LiberoWindows

    def __len__(self) -> int: ...
    def make(self, batch: Sample) -> Sample: ...
    def samples(self, batch: Sample) -> list[Any]: ...


class AugmentedSamples(Dataset[Any]):
    """Samples of which `cameras` are augmented.

    Parameters
    ----------
    inner : OpenVLADataset
    augment : Augment
    cameras : sequence of str
        Fields of a batch, uint8 [b, n, y, x, 3]; those that are not there are left out.
    seed : int
        The loader's.
    """

    def __init__(self, inner: Samples, augment: Augment, cameras: Sequence[str], *, seed: int) -> None:
        self.inner, self.augment, self.cameras, self.seed = inner, augment, tuple(cameras), seed
        self.epoch = multiprocessing.Value("q", 0)
        """Shared with workers."""

    def begin_epoch(self, epoch: int) -> None:
        """The epoch of the windows that are asked for from now on."""
        self.epoch.value = epoch

    def __len__(self) -> int:
        return len(self.inner)

    def __getitems__(self, windows: Sequence[int]) -> list[Any]:
        """Samples of several windows, read and augmented together; called by ``DataLoader``."""
        batch = self.inner.make(self.inner.windows.read(windows))
        cameras = [name for name in self.cameras if name in batch]
        augmented = self.augment(batch, cameras, seed=self.seed, epoch=int(self.epoch.value), channels_first=False)
        return self.inner.samples(augmented)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]


class AugmentedDataLoader(WindowDataLoader):
    """A ``WindowDataLoader`` of ``AugmentedSamples``, which tells them the epoch."""

    def __init__(self, dataset: AugmentedSamples, batch_size: int, **options: Any) -> None:
        super().__init__(dataset, batch_size, **options)
        self.batch_sampler.sampler.tell_epoch = dataset.begin_epoch  # type: ignore[union-attr]

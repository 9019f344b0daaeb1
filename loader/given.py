"""Take apart the data given to a loader: one dataset, several, or torch's ``Subset`` and ``ConcatDataset``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset

from robozarr.loader.dataset import WindowDataset
from robozarr.schemas.errors import WindowError

__all__ = ["datasets_of"]


def datasets_of(given: Any, shuffle: bool = True) -> list[WindowDataset]:
    """The datasets in a loader's argument: one, several, or torch's ``Subset`` and ``ConcatDataset`` of them.

    Raises
    ------
    WindowError
        If it is something else, names a window twice, or promises an order that a loader does not keep.
    """
    if isinstance(given, WindowDataset):
        return [given]
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping, Dataset)):
        return [one for part in list(given) for one in datasets_of(part, shuffle)]
    datasets, number, windows = _windows_of(given)
    if not shuffle and ((np.diff(windows) < 0).any() or len(np.unique(number)) > 1):
        raise WindowError(
            f"loader · dataset: without shuffling, windows of one dataset in the store's order; got a {type(given).__name__} "
            "in another one → pass Subset(dataset, sorted(subset.indices)), a list of the datasets, which take turns, or "
            "shuffle=True"
        )
    return [dataset.only(windows[number == n]) for n, dataset in enumerate(datasets) if (number == n).any()]


def _windows_of(given: Any) -> tuple[list[WindowDataset], NDArray[np.int64], NDArray[np.int64]]:
    """The datasets in a tree of ``Subset`` and ``ConcatDataset``; and for each index its dataset and window."""
    if isinstance(given, WindowDataset):
        return [given], np.zeros(len(given), np.int64), np.arange(len(given))
    if isinstance(given, Subset):
        datasets, number, windows = _windows_of(given.dataset)
        at = np.asarray(given.indices, np.int64)
        return datasets, number[at], windows[at]
    if isinstance(given, ConcatDataset):
        parts = [_windows_of(part) for part in given.datasets]
        before = np.cumsum([0, *(len(part[0]) for part in parts)]).tolist()
        return (
            [dataset for part in parts for dataset in part[0]],
            np.concatenate([part[1] + n for n, part in zip(before, parts, strict=False)]),
            np.concatenate([part[2] for part in parts]),
        )
    raise WindowError(
        f"loader · dataset: a WindowDataset, or a list of them; got {type(given).__name__} → "
        "pass rz.WindowDataset(rz.open_store(PATH), rz.WindowSpec({…}))"
    )

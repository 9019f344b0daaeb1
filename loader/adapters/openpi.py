"""Samples of LIBERO for openpi: the items that its LeRobot data set gives to the repack transform.

Physical-Intelligence/openpi: examples/libero/convert_libero_data_to_lerobot.py, src/openpi/policies/libero_policy.py,
src/openpi/training/config.py: LeRobotLiberoDataConfig.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from robozarr.loader.adapters.instructions import Wording
from robozarr.loader.adapters.libero import LiberoWindows, pictures, proprio_of
from robozarr.loader.adapters.turning import Turn
from robozarr.loader.dataset import Sample
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.spread import spread_or_one
from robozarr.store.opened import Store

__all__ = ["OpenPIDataset"]

N_DELTA: Final = 6
"""Elements of an action from which DeltaActions subtracts the state: make_bool_mask(6, -1)."""


class OpenPIDataset(Dataset[Sample]):
    """openpi's data set: ``image``, ``wrist_image`` uint8 [y, x, 3], ``state`` float32 [8], ``actions`` float32 [horizon, 7],
    ``actions_is_pad`` bool [horizon], ``prompt``.

    Actions are LIBERO's commands as they are (-1 opens the gripper, +1 closes it), which openpi trains on.
    Those behind an episode's end are its last one again. Pictures are turned by 180°, as in examples/libero/main.py.

    Parameters
    ----------
    store : Store or path
    action_horizon : int
        The model configuration's: 50 for ``pi0_libero``; 10, the default, for ``pi05_libero`` and ``pi0_fast_libero``.
    drop_noops, wording, turn, **filters
        As for ``OpenVLADataset``: openpi's LIBERO data are OpenVLA's ``*_no_noops``.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     item = OpenPIDataset(f"{folder}/sample.zarr", action_horizon=10)[0]
    >>> item["image"].shape, item["state"].shape, item["actions"].shape, item["prompt"]
    ((128, 128, 3), (8,), (10, 7), 'put the bowl on the stove')
    """  # noqa: D205 - one sentence

    def __init__(
        self,
        store: Store | str | Path,
        *,
        action_horizon: int = 10,
        drop_noops: bool = True,
        wording: Wording = "file",
        turn: Turn = "rotate",
        **filters: Any,
    ) -> None:
        self.windows = LiberoWindows(store, chunk=action_horizon, drop_noops=drop_noops, wording=wording, turn=turn, **filters)
        self._actions, self._state = self.windows.actions.astype(np.float32), proprio_of(self.windows).astype(np.float32)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self.__getitems__([index.__index__()])[0]

    def __getitems__(self, windows: Sequence[int]) -> list[Sample]:
        """Samples of several windows, read together; called by ``DataLoader``."""
        batch = self.make(self.windows.read(windows))
        names = ("image", "wrist_image", "state", "actions", "actions_is_pad")
        return [
            {**{name: batch[name][i].numpy() for name in names if name in batch}, "prompt": batch["prompt"][i]}
            for i in range(len(windows))
        ]

    def loader(self, batch_size: int, **options: Any) -> WindowLoader:
        """Batches from ``WindowLoader``: the same fields with a batch axis; `options` are passed to it."""
        return WindowLoader(self.windows.dataset, batch_size, transform=self.make, **options)

    def make(self, batch: Sample) -> Sample:
        """Turn a batch of the underlying window into openpi's batch, on the same device."""
        row, at, is_pad = self.windows.rows(batch)
        device = batch["step"].device
        turned = pictures(batch, self.windows, ("image", "wrist_image"))
        return {
            **{name: values[:, 0] for name, values in turned.items()},
            "state": torch.from_numpy(self._state[row]).to(device),
            "actions": torch.from_numpy(self._actions[at]).to(device),
            "actions_is_pad": torch.from_numpy(is_pad).to(device),
            "prompt": self.windows.instructions(batch),
            **{name: batch[name] for name in ("episode", "step", "task")},
        }

    def norm_stats(self, *, delta: bool = False) -> dict[str, Any]:
        """Statistics as in openpi's ``norm_stats.json``: of all windows, and of all actions of their chunks.

        What scripts/compute_norm_stats.py estimates by histograms of 5,000 bins, leaving out the last part of a batch: here q01
        and q99 are exact, and the std of a constant is 1, where upstream divides by 0 and something small (openpi#814).

        Parameters
        ----------
        delta : bool
            After ``extra_delta_transform`` of LeRobotLiberoDataConfig, which ``pi0_libero`` and ``pi0_fast_libero`` have: the
            anchor's state is subtracted from the first six numbers of each action (transforms.py: DeltaActions).
        """
        anchors = self.windows.dataset.table.anchors(np.arange(len(self)))
        row, at, _ = self.windows.rows({"episode": torch.from_numpy(anchors.episode), "step": torch.from_numpy(anchors.step)})
        state = self._state[row]
        actions = (
            self._actions[at, i] - state[:, None, i] if delta and i < N_DELTA else self._actions[at, i]
            for i in range(self._actions.shape[1])
        )
        found = {"state": [_statistics(column) for column in state.T], "actions": [_statistics(column) for column in actions]}
        return {
            "norm_stats": {
                name: {statistic: [column[statistic] for column in columns] for statistic in ("mean", "std", "q01", "q99")}
                for name, columns in found.items()
            }
        }


def _statistics(values: NDArray[np.float32]) -> dict[str, float]:
    """Statistics of one element, over all its values."""
    flat = values.astype(np.float64).ravel()
    low, high = np.array([flat.min()]), np.array([flat.max()])
    q01, q99 = np.quantile(flat, (0.01, 0.99))
    std = spread_or_one(np.array([flat.std()]), low, high)[0]
    return {"mean": float(flat.mean()), "std": float(std), "q01": float(q01), "q99": float(q99)}

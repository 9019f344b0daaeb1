"""Samples of LIBERO for openpi: the items that its LeRobot data set gives to the repack transform.

Physical-Intelligence/openpi: examples/libero/convert_libero_data_to_lerobot.py, src/openpi/policies/libero_policy.py,
src/openpi/training/config.py: LeRobotLiberoDataConfig.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch.utils.data import Dataset

from robozarr.loader.adapters.instructions import Wording
from robozarr.loader.adapters.libero import LiberoWindows, Turn, pictures, proprio_of
from robozarr.loader.dataset import Sample
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.spread import spread_or_one
from robozarr.store.opened import Store

__all__ = ["OpenPIDataset"]


class OpenPIDataset(Dataset[Sample]):
    """openpi's data set: ``image``, ``wrist_image`` uint8 [y, x, 3], ``state`` float32 [8], ``actions`` float32 [horizon, 7],
    ``actions_is_pad`` bool [horizon], ``prompt``.

    Actions are LIBERO's commands as they are (-1 opens the gripper, +1 closes it), which openpi trains on.
    Those behind an episode's end are its last one again. Pictures are turned by 180°, as in examples/libero/main.py.

    Parameters
    ----------
    store : Store or path
    action_horizon : int
        The model configuration's.
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

    def norm_stats(self) -> dict[str, Any]:
        """Statistics of the served windows, as in openpi's ``norm_stats.json``; q01 and q99 exact, std of a constant 1."""
        values = {
            "state": self._state[self.windows.anchor_rows()].astype(np.float64),
            "actions": self._actions[self.windows.action_rows()].astype(np.float64),
        }
        found: dict[str, Any] = {}
        for name, rows in values.items():
            q01, q99 = np.quantile(rows, (0.01, 0.99), axis=0)
            std = spread_or_one(rows.std(axis=0), rows.min(axis=0), rows.max(axis=0))  # openpi#814
            means = {"mean": rows.mean(axis=0), "std": std, "q01": q01, "q99": q99}
            found[name] = {statistic: numbers.tolist() for statistic, numbers in means.items()}
        return {"norm_stats": found}

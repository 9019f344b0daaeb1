"""Samples for OpenVLA: what its RLDS pipeline passes to ``RLDSBatchTransform``, from LIBERO's own files.

openvla/openvla and moojink/openvla-oft: prismatic/vla/datasets/datasets.py, prismatic/vla/datasets/rlds. Pictures are turned by
180° as experiments/robot/libero/libero_utils.py does: LIBERO stores them upside down, so that this rights them and leaves them
mirrored left to right. A policy that was trained on such pictures has to go on seeing such pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from robozarr.loader.adapters.augmented import AugmentedDataLoader, AugmentedSamples
from robozarr.loader.adapters.instructions import Wording
from robozarr.loader.adapters.libero import LiberoWindows, gripper_open, pictures, proprio_of
from robozarr.loader.adapters.turning import Turn
from robozarr.loader.dataset import Sample
from robozarr.loader.device.augmenting.of_cameras import Augments, augments_of, check_augment
from robozarr.loader.endless import Endless
from robozarr.loader.sampler import WindowDataLoader
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.spread import is_constant, spread_or_one
from robozarr.store.opened import Store

__all__ = ["OpenVLADataset", "prompt_of"]

PICTURES: Final = ("image_primary", "image_wrist")
"""OpenVLA's names for the cameras of ``LiberoWindows``."""
NORMALISED: Final = np.array([True] * 6 + [False])
"""Elements of the action that are normalised: all but the gripper (oxe/materialize.py: action_normalization_mask)."""


def prompt_of(instruction: str) -> str:
    r"""The prompt up to the answer (datasets.py: RLDSBatchTransform; base_prompter.py: PurePromptBuilder).

    >>> prompt_of("Pick up the bowl")
    'In: What action should the robot take to pick up the bowl?\nOut: '
    """
    return f"In: What action should the robot take to {instruction.lower()}?\nOut: "


class OpenVLADataset(Dataset[Any]):
    """Every window as OpenVLA's ``RLDSDataset`` gives it, map-style, without a second, regenerated data set.

    Parameters
    ----------
    store : Store or path
    batch_transform : function of a dict, optional
        OpenVLA's ``RLDSBatchTransform(…)``: called on each sample. Default: the dict itself.
    name : str
        ``dataset_name``, and the key of ``dataset_statistics``.
    chunk : int
        Actions from the anchor on: 1 for OpenVLA, 8 for OpenVLA-OFT on LIBERO.
    drop_noops : bool
        Leave out no-op steps by flag: as anchors, and inside chunks, as if they had never been recorded.
    statistics : "store" or "windows"
        Quantiles of all steps (the store's exact ones), or of the actions that are served.
    wording : "file" or "name"
        Instruction as the file states it; or as LIBERO's benchmark words it, by the file's name, which OpenVLA's data have.
        They differ for LIBERO-Spatial. Where one is missing the other is taken, and a warning says where there is neither.
    turn : "rotate", "upright" or "none"
        "rotate" is OpenVLA's; "upright" is not mirrored, and another distribution.
    **filters
        Of ``WindowDataset``.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     dataset = OpenVLADataset(f"{folder}/sample.zarr", chunk=8)
    ...     sample = dataset[0]
    >>> sample["action"].shape, sample["observation"]["image_primary"].shape, sample["task"]["language_instruction"]
    ((8, 7), (1, 128, 128, 3), b'put the bowl on the stove')
    """

    def __init__(
        self,
        store: Store | str | Path,
        batch_transform: Callable[[dict[str, Any]], Any] | None = None,
        *,
        name: str = "libero",
        chunk: int = 1,
        drop_noops: bool = True,
        statistics: Literal["store", "windows"] = "store",
        wording: Wording = "file",
        turn: Turn = "rotate",
        **filters: Any,
    ) -> None:
        self.windows = LiberoWindows(store, chunk=chunk, drop_noops=drop_noops, wording=wording, turn=turn, **filters)
        self.name, self.batch_transform = name, batch_transform
        self.dataset_statistics = {name: self._statistics(statistics)}
        actions = self.windows.actions.copy()
        actions[:, 6] = gripper_open(actions[:, 6])
        self._actions = self._normalised(actions, self.dataset_statistics[name]["action"])
        self._proprio = self._normalised(proprio_of(self.windows), self.dataset_statistics[name]["proprio"])

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, windows: Sequence[int]) -> list[Any]:
        """Samples of several windows, read together; called by ``DataLoader``."""
        return self.samples(self.make(self.windows.read(windows)))

    def samples(self, batch: Sample) -> list[Any]:
        """The samples of a batch, through the batch transform."""
        samples = [self._sample(batch, i) for i in range(len(batch["step"]))]
        return samples if self.batch_transform is None else [self.batch_transform(sample) for sample in samples]

    def __iter__(self) -> Iterator[Any]:
        """All windows in the store's order, once; a DataLoader with a sampler shuffles."""
        for index in range(len(self)):
            yield self[index]

    def split(self, share: float, **options: Any) -> tuple[Self, Self]:
        """Training and validation data without an episode in common, of the same statistics: ``dataset.split(0.95)``.

        `options` are those of ``WindowDataset.split``. Upstream's validation data are the last 5% of the episodes as its files
        have them (rlds/dataset.py: "train[95%:]").
        """
        parts = copy(self), copy(self)
        for part, windows in zip(parts, self.windows.split(share, **options), strict=True):
            part.windows = windows
        return parts

    def loader(self, batch_size: int, **options: Any) -> WindowLoader:
        """Batches from ``WindowLoader``: ``image_primary``, ``image_wrist`` uint8 [b, 1, y, x, 3], ``proprio`` float32 [b,
        1, 8], ``action`` float32 [b, chunk, 7], ``action_is_pad`` bool [b, chunk], ``prompt`` (a list); `options` are passed
        to it.
        """  # noqa: D205 - one sentence
        return WindowLoader(self.windows.dataset, batch_size, transform=self.make, **options)

    def dataloader(
        self,
        batch_size: int,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        *,
        augment: Augments | None = None,
        **options: Any,
    ) -> Endless:
        """A torch DataLoader of samples in this project's order, epoch after epoch, as finetune.py expects of RLDS.

        It has no end, no length, and each window once an epoch over all ranks; finetune.py breaks at ``max_steps``.

        Parameters
        ----------
        batch_size : int
        collate_fn : function of a list of samples, optional
        augment : Augment, or mapping of camera to Augment, optional
            What ``image_aug`` does: ``Augment.openvla()``, on turned pictures, before the batch transform. Cameras have the
            store's names.
        **options
            Of ``WindowDataLoader``: ``num_workers``, ``seed``, ``drop_last``, …
        """
        windows = self.windows.dataset
        check_augment(augment)
        if augment is None:
            return WindowDataLoader(self, batch_size, windows=windows, collate_fn=collate_fn, **options).forever()
        fields = dict(zip(self.windows.images, PICTURES, strict=False))
        samples = AugmentedSamples(self, {fields[key]: of for key, of in augments_of(windows.windows, augment).items()})
        return AugmentedDataLoader(samples, batch_size, windows=windows, collate_fn=collate_fn, **options).forever()

    def make(self, batch: Sample) -> Sample:
        """Turn a batch of the underlying window into OpenVLA's batch, on the same device."""
        row, at, is_pad = self.windows.rows(batch)
        action = self._actions[at]
        # behind the end: no movement, and the last gripper command (traj_transforms.py: "Actions past the goal timestep …")
        action[is_pad] = np.where(NORMALISED, 0, action[is_pad])
        device = batch["step"].device
        texts = self.windows.instructions(batch)
        return {
            **pictures(batch, self.windows, PICTURES),
            "proprio": torch.from_numpy(self._proprio[row][:, None]).to(device),
            "action": torch.from_numpy(action).to(device),
            "action_is_pad": torch.from_numpy(is_pad).to(device),
            "instruction": texts,
            "prompt": [prompt_of(text) for text in texts],
            **{name: batch[name] for name in ("episode", "step", "task")},
        }

    def _sample(self, batch: Sample, i: int) -> dict[str, Any]:
        """One window in the form that ``RLDSBatchTransform`` receives."""
        observation = {name: batch[name][i].numpy() for name in (*PICTURES, "proprio") if name in batch}
        return {
            "dataset_name": self.name,
            "action": batch["action"][i].numpy(),
            "observation": observation,
            "task": {"language_instruction": batch["instruction"][i].encode()},
        }

    def _statistics(self, scope: Literal["store", "windows"]) -> dict[str, Any]:
        """Statistics as in data_utils.py: get_dataset_statistics; q01 and q99 exact. They undo a run's normalisation."""
        actions, proprio = self.windows.actions.copy(), proprio_of(self.windows)
        actions[:, 6] = gripper_open(actions[:, 6])
        rows = self.windows.action_rows() if scope == "windows" else np.arange(len(actions))
        anchors = self.windows.anchor_rows() if scope == "windows" else rows
        action = _statistics_of(actions[rows])
        if scope == "store":  # the gripper's are of its changed command
            stored = self.windows.store.stats("actions")
            for name, values in action.items():
                values[:6] = stored[name][:6]
        return {
            "action": {**action, "mask": NORMALISED.copy()},
            "proprio": _statistics_of(proprio[anchors]),
            "num_transitions": len(rows),
            "num_trajectories": int(self.windows.dataset.table.served.sum())
            if scope == "windows"
            else self.windows.store.n_episodes,
        }

    @staticmethod
    def _normalised(values: NDArray[np.float64], stats: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Scale to [-1, 1] by q01 and q99, and clip (data_utils.py: normalize_action_and_proprio, BOUNDS_Q99)."""
        low, high = stats["q01"], stats["q99"]
        scaled = np.clip(2 * (values - low) / (high - low + 1e-8) - 1, -1, 1)
        out = np.where(stats.get("mask", np.ones(len(low), bool)), scaled, values)
        constant = is_constant(stats["max"] - stats["min"], stats["min"], stats["max"])
        return np.where(constant, 0.0, out).astype(np.float32)


def _statistics_of(values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    q01, q99 = np.quantile(values, (0.01, 0.99), axis=0)
    low, high = values.min(axis=0), values.max(axis=0)
    std = spread_or_one(values.std(axis=0), low, high)  # of a constant element the deviation is rounding, and is divided by
    return {
        "mean": values.mean(axis=0), "std": std, "max": high, "min": low,
        "q01": q01, "q99": q99,
    }  # fmt: skip

"""Diffusion policy's image data set, reading a store: its sequences, its padding, its validation split, its normaliser.

real-stanford/diffusion_policy, 5ba07ac6661db573af695b419a7947ecb704690f: diffusion_policy/dataset/base_dataset.py,
robomimic_replay_image_dataset.py, common/sampler.py, common/normalize_util.py.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from robozarr.loader.adapters.diffusion_policy.rotations import absolute_actions
from robozarr.loader.adapters.diffusion_policy.sequences import Sequences, train_mask, validation_mask
from robozarr.loader.adapters.pairing import Pairing
from robozarr.loader.adapters.turning import Turn, channels_last, check_pictures, check_turn, turn_pictures, upside_down
from robozarr.loader.arguments import numbers_of, store_of
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store

__all__ = ["DiffusionPolicyDataset"]


def _base() -> type[Any]:
    """Upstream's class, which its workspaces ask for; torch's where diffusion policy is not installed."""
    try:
        found: type[Any] = importlib.import_module("diffusion_policy.dataset.base_dataset").BaseImageDataset
    except ModuleNotFoundError:
        return Dataset
    return found


if TYPE_CHECKING:
    _Base = Dataset[Sample]
else:
    _Base = _base()


class DiffusionPolicyDataset(_Base):
    """A store as diffusion policy's ``BaseImageDataset``: its name in a task's configuration is ``dataset._target_``.

    An item is ``{"obs": {key: …}, "action": …}``: pictures float32 [t, c, y, x] in [0, 1], numbers float32 [t, dim]; t is
    `horizon`, of observations `n_obs_steps`. Sequences begin up to `pad_before` steps before an episode and end up to
    `pad_after` steps after it; there the first or last step stands again.

    Parameters
    ----------
    shape_meta : mapping
        The task's: ``obs`` by key with ``shape`` and ``type`` ("rgb" or "low_dim"), ``action``. Keys are the store's.
    dataset_path : Store or path
    horizon, pad_before, pad_after, n_obs_steps, seed, val_ratio, max_train_episodes
        As upstream's.
    abs_action : bool
        Actions are absolute poses: their axis-angle becomes six numbers, and the normaliser scales positions.
    rotation_rep : "rotation_6d"
    use_legacy_normalizer, use_cache : bool
        The first must be False; the second has no meaning here.
    turn : "none", "rotate" or "upright"
        Which way up pictures are.
    causal, assume_alignment
        As of ``WindowSpec``. True: action t of a sequence is the first that was chosen after observation t was seen. An episode
        that was recorded AFTER, as LIBERO's are, has one step less then.

    Raises
    ------
    WindowError
        If a key is not in the store, or has another shape than `shape_meta` says; if no sequence is left; if `causal`, and an
        episode's alignment is not known.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> shape_meta = {
    ...     "obs": {"agentview_rgb": {"shape": [3, 128, 128], "type": "rgb"}, "ee_pos": {"shape": [3]}},
    ...     "action": {"shape": [7]},
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     dataset = DiffusionPolicyDataset(
    ...         shape_meta, f"{folder}/sample.zarr", horizon=16, pad_before=1, pad_after=7, n_obs_steps=2
    ...     )
    ...     item = dataset[0]
    >>> item["obs"]["agentview_rgb"].shape, item["obs"]["ee_pos"].shape, item["action"].shape
    (torch.Size([2, 3, 128, 128]), torch.Size([2, 3]), torch.Size([16, 7]))
    """

    def __init__(
        self,
        shape_meta: Mapping[str, Any],
        dataset_path: Store | str | Path,
        horizon: int = 1,
        pad_before: int = 0,
        pad_after: int = 0,
        n_obs_steps: int | None = None,
        abs_action: bool = False,
        rotation_rep: Literal["rotation_6d"] = "rotation_6d",
        use_legacy_normalizer: bool = False,
        use_cache: bool = False,
        seed: int = 42,
        val_ratio: float = 0.0,
        max_train_episodes: int | None = None,
        turn: Turn = "none",
        causal: bool = False,
        assume_alignment: Alignment | None = None,
    ) -> None:
        super().__init__()
        if rotation_rep != "rotation_6d" or use_legacy_normalizer or horizon < 1:
            raise WindowError(
                "diffusion policy · options: rotation_rep='rotation_6d', use_legacy_normalizer=False, horizon of 1 or more; "
                f"got {rotation_rep!r}, {use_legacy_normalizer}, {horizon} → pass these"
            )
        check_turn(turn)
        self.store, self.shape_meta, self.abs_action, self.turn = store_of(dataset_path), shape_meta, abs_action, turn
        self.horizon, self.pad_before, self.pad_after, self.n_obs_steps = horizon, pad_before, pad_after, n_obs_steps
        self.rgb_keys, self.lowdim_keys = _keys(shape_meta, self.store)
        n_obs = horizon if n_obs_steps is None else min(n_obs_steps, horizon)
        offsets = {key: range(n_obs) for key in (*self.rgb_keys, *self.lowdim_keys)} | {"actions": range(horizon)}
        self.windows = WindowDataset(self.store, WindowSpec(offsets, causal=causal, assume_alignment=assume_alignment))
        self.pairing = Pairing.of(self.windows)
        check_pictures(self.windows, self.rgb_keys)
        self._upside_down = upside_down(self.windows) if turn != "none" else np.zeros(self.store.n_episodes, bool)
        self._actions = self._served(self.pairing.column("actions"))
        _check_shapes(shape_meta, self.store, self._actions.shape[1:])
        validation = validation_mask(self.store.n_episodes, val_ratio, seed)
        self.train_mask = train_mask(validation, max_train_episodes, seed)
        self.sequences = self._drawn(self.train_mask)
        if not len(self.sequences):
            raise WindowError(
                f"diffusion policy · sequences: at least one of {horizon} steps; the longest episode has "
                f"{self.pairing.length.max()} → a smaller horizon, or more pad_before and pad_after"
            )

    def _drawn(self, episodes: NDArray[np.bool_]) -> Sequences:
        return Sequences.of(self.pairing.length, episodes, self.horizon, self.pad_before, self.pad_after)

    def _served(self, actions: NDArray[Any]) -> NDArray[np.float32]:
        """Actions [n, dim] as they are trained on."""
        values = actions.astype(np.float32)
        return absolute_actions(values) if self.abs_action else values

    def get_validation_dataset(self) -> DiffusionPolicyDataset:
        """The same data set with the episodes that are not trained on, as upstream's."""
        made = copy.copy(self)
        made.train_mask = ~self.train_mask
        made.sequences = self._drawn(made.train_mask)
        return made

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, idx: SupportsIndex) -> Sample:
        return self.__getitems__([idx.__index__()])[0]

    def __getitems__(self, items: Sequence[int]) -> list[Sample]:
        """Several items, read together; called by ``DataLoader``."""
        numbers = np.array(numbers_of(items, len(self), "item"), np.int64)
        episode, steps = self.sequences.episode[numbers], self.sequences.steps(numbers)
        batch = self.pairing.read(episode, {key.name: steps[:, : len(key.offsets)] for key in self.windows.spec.keys})
        obs = {key: self._picture(batch[key], episode, key) for key in self.rgb_keys}
        obs |= {key: batch[key].to(torch.float32) for key in self.lowdim_keys}
        raw = batch["actions"].numpy()
        action = torch.from_numpy(self._served(raw.reshape(-1, raw.shape[-1]))).reshape(*raw.shape[:2], self._actions.shape[1])
        return [{"obs": {key: values[i] for key, values in obs.items()}, "action": action[i]} for i in range(len(numbers))]

    def _picture(self, values: torch.Tensor, episode: NDArray[np.int64], key: str) -> torch.Tensor:
        values = turn_pictures(channels_last(values, self.windows, key), self._upside_down[episode], self.turn == "rotate")
        return values.movedim(-1, -3).contiguous().to(torch.float32).div_(255)

    def get_all_actions(self) -> torch.Tensor:
        """All actions of all episodes that can be served: float32 [n, dim]."""
        return torch.from_numpy(self._actions.copy())

    def get_normalizer(self, **kwargs: Any) -> Any:
        """Upstream's ``LinearNormalizer``, made by its own functions.

        Actions stay as they are; of absolute ones the positions go to [-1, 1]. Keys that end in ``quat`` stay as they are, all
        others go to [-1, 1]; upstream knows ``pos`` and ``qpos`` only. Pictures go from [0, 1] to [-1, 1].
        """
        util: Any = importlib.import_module("diffusion_policy.common.normalize_util")
        normalizer = importlib.import_module("diffusion_policy.model.common.normalizer").LinearNormalizer()
        stat = util.array_to_stats(self._actions)
        if not self.abs_action:
            normalizer["action"] = util.get_identity_normalizer_from_stat(stat)
        elif self._actions.shape[1] > 10:
            normalizer["action"] = util.robomimic_abs_action_only_dual_arm_normalizer_from_stat(stat)
        else:
            normalizer["action"] = util.robomimic_abs_action_only_normalizer_from_stat(stat)
        for key in self.lowdim_keys:
            stat = util.array_to_stats(self.pairing.column(key).astype(np.float32))
            identity = key.endswith("quat")
            made = util.get_identity_normalizer_from_stat if identity else util.get_range_normalizer_from_stat
            normalizer[key] = made(stat)
        for key in self.rgb_keys:
            normalizer[key] = util.get_image_range_normalizer()
        return normalizer


def _keys(shape_meta: Mapping[str, Any], store: Store) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Pictures and numbers that a task observes."""
    kinds = {key: str(entry.get("type", "low_dim")) for key, entry in shape_meta["obs"].items()}
    names = ", ".join(store.keys)
    if missing := [key for key in (*kinds, "actions") if key not in store.keys]:
        raise WindowError(
            f"diffusion policy · {missing[0]}: is not a key of the store, which has {names} → name one in shape_meta.obs"
        )
    if bad := [key for key, kind in kinds.items() if kind not in ("rgb", "low_dim")]:
        raise WindowError(f"diffusion policy · {bad[0]}: type rgb or low_dim; got {kinds[bad[0]]} → state one of these")
    pictures = tuple(key for key, kind in kinds.items() if kind == "rgb")
    return pictures, tuple(key for key in kinds if key not in pictures)


def _check_shapes(shape_meta: Mapping[str, Any], store: Store, action: tuple[int, ...]) -> None:
    """Compare what a task expects with the store; raises WindowError."""
    for key, entry in shape_meta["obs"].items():
        shape: tuple[int, ...] = store.keys[key].shape
        if entry.get("type") == "rgb":
            size = dict(zip(store.keys[key].picture_axes, shape, strict=True))
            shape = (size["c"], size["y"], size["x"])
        _compare(key, tuple(entry["shape"]), shape)
    _compare("action", tuple(shape_meta["action"]["shape"]), action)


def _compare(name: str, wanted: tuple[int, ...], found: tuple[int, ...]) -> None:
    if wanted != found:
        raise WindowError(
            f"diffusion policy · {name}: the shape that shape_meta states, {list(wanted)}; the store has {list(found)} "
            "→ state that"
        )

"""A store in the place of LeRobot's ``LeRobotDataset``: the same items, from exact frames, without a conversion.

huggingface/lerobot 0.4.4, lerobot/datasets/lerobot_dataset.py: LeRobotDataset.__getitem__; utils.py: hf_transform_to_torch;
factory.py: make_dataset; 0.6.0, dataset_reader.py. ``make test-train`` compares every item with LeRobot's own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, SupportsIndex, TypeGuard
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from robozarr.loader.adapters.instructions import Wording, warn_without_words, wordings
from robozarr.loader.adapters.lerobot.features import DEFAULTS, Feature, features_of, fps_of
from robozarr.loader.adapters.lerobot.metadata import Meta, counters_of
from robozarr.loader.adapters.lerobot.statistics import Statistics, counts_of, of_counts
from robozarr.loader.adapters.pairing import Pairing
from robozarr.loader.adapters.turning import Turn, channels_last, check_turn, lines_first, turn_pictures, upside_down
from robozarr.loader.arguments import numbers_of, store_of
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store

__all__ = ["LeRobotStore", "serve_stores"]


class LeRobotStore(Dataset[Sample]):
    """What LeRobot's training code takes for a ``LeRobotDataset``.

    An item has each camera as float32 [c, y, x] in [0, 1], every number as float32, int64 or bool, ``timestamp``,
    ``frame_index``, ``episode_index``, ``index``, ``task_index``, and ``task``, the episode's instruction. Features in
    `delta_timestamps` have an axis of times before the others, and a mask ``*_is_pad``; outside the episode stands its first or
    last step. Observations and actions are paired as recorded, or by `causal`.

    Parameters
    ----------
    store : Store or path
    episodes : rows of the episode table, optional
        Default: all. Items are numbered anew; ``index`` stays that of all episodes.
    image_transforms : function, optional
        Called with each camera's tensor.
    delta_timestamps : mapping of feature to seconds, optional
    tolerance_s : float
        How far a time may be from a whole number of steps.
    return_uint8 : bool
        Give cameras as uint8, as LeRobot 0.6 has videos, whose training function scales them on the device.
    images, state, keys : keys, optional
        Cameras; what ``observation.state`` is made of; other keys to serve. Default: all cameras, the layout's state, none.
    turn : "none", "rotate" or "upright"
        Which way up cameras are. LIBERO's LeRobot data sets are turned by 180° ("rotate"), which rights its pictures and leaves
        them mirrored. A policy has to be run on what it was trained on.
    wording : "file" or "name"
        Of the instruction.
    fps : float, optional
        Steps per second. Default: the store's.
    causal, assume_alignment
        As of ``WindowSpec``. True: a step is an observation and the first action that was chosen after it was seen. An episode
        that was recorded AFTER, as LIBERO's are, has one step less then, and step t has the recorded action t + 1.
    repo_id : str
        What LeRobot calls the data set.

    Raises
    ------
    WindowError
        If a feature, an episode, or a time is not there; the text names what is. If `causal`, and an episode's alignment is not
        known.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     dataset = LeRobotStore(f"{folder}/sample.zarr", delta_timestamps={"action": [0.0, 0.05]}, turn="rotate")
    ...     item = dataset[0]
    >>> item["observation.images.agentview_rgb"].shape, item["action"].shape, item["action_is_pad"].tolist(), item["task"]
    (torch.Size([3, 128, 128]), torch.Size([2, 7]), [False, False], 'put the bowl on the stove')
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        episodes: Sequence[int] | None = None,
        image_transforms: Callable[[torch.Tensor], torch.Tensor] | None = None,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        tolerance_s: float = 1e-4,
        return_uint8: bool = False,
        images: Sequence[str] | None = None,
        state: Sequence[str] | None = None,
        keys: Sequence[str] | None = (),
        turn: Turn = "none",
        wording: Wording = "file",
        fps: float | None = None,
        causal: bool = False,
        assume_alignment: Alignment | None = None,
        repo_id: str = "robozarr",
    ) -> None:
        self.store = store_of(store)
        self.repo_id, self.root = repo_id, self.store.path
        self.image_transforms, self.return_uint8, self.turn = image_transforms, return_uint8, turn
        self.episodes = None if episodes is None else [int(episode) for episode in episodes]
        check_turn(turn)
        served = features_of(self.store, images=images, state=state, keys=keys)
        frequency = fps_of(self.store, fps)
        self.delta_timestamps = None if delta_timestamps is None else {name: list(at) for name, at in delta_timestamps.items()}
        for name in self.delta_timestamps or ():
            served.named(name)
        self.delta_indices = _delta_indices(self.delta_timestamps, frequency, tolerance_s)
        self._served = served
        self._pictures = {feature.name: feature for feature in served.pictures}
        offsets = _offsets(tuple(served), self.delta_indices or {})
        upright = lines_first(self.store, [feature.keys[0] for feature in served.pictures]) if turn == "upright" else ()
        spec = WindowSpec(offsets, causal=causal, assume_alignment=assume_alignment)
        self.windows = WindowDataset(self.store, spec, episodes=self.episodes, upright=upright)
        self.pairing = Pairing.of(self.windows)
        of_all = np.repeat(np.arange(self.store.n_episodes), self.pairing.length)
        self._items = np.arange(len(of_all)) if self.episodes is None else np.flatnonzero(np.isin(of_all, self.episodes))
        later = turn == "rotate" or (turn == "upright" and len(upright) < len(served.pictures))
        self._upside_down = upside_down(self.windows) if later else np.zeros(self.store.n_episodes, bool)
        self._places = {
            (feature.name, key): _places(offsets[key], self._deltas(feature)) for feature in served for key in feature.keys
        }
        self._texts = wordings(self.store, wording)
        warn_without_words(self.store, self._texts, self.windows.table.served, "task")
        numbers = {text: number for number, text in enumerate(dict.fromkeys(self._texts))}
        tasks = np.array([numbers[text] for text in self._texts], np.int64)
        self.counters = counters_of(self.pairing.length, frequency, tasks)
        stats = {feature.name: self._statistics(feature.keys[0]) for feature in served.pictures}
        values = {feature.name: self.column(feature) for feature in served.numbers}
        self.meta = Meta(
            self.store, served, frequency, self._texts, self.pairing.length, stats, {**values, **self.counters}, repo_id
        )

    @property
    def fps(self) -> int | float:
        """Steps per second."""
        return self.meta.fps

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """``features`` of ``info.json``."""
        return self.meta.features

    @property
    def num_frames(self) -> int:
        """Number of items."""
        return len(self)

    @property
    def num_episodes(self) -> int:
        """Number of episodes served."""
        return self.store.n_episodes if self.episodes is None else len(self.episodes)

    @property
    def absolute_to_relative_idx(self) -> dict[int, int] | None:
        """The position of each ``index`` among the items; None if all episodes are served. LeRobot 0.6's sampler reads it."""
        return None if self.episodes is None else {index: number for number, index in enumerate(self._items.tolist())}

    def set_image_transforms(self, image_transforms: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        """Replace the function that camera pictures go through."""
        self.image_transforms = image_transforms

    def clear_image_transforms(self) -> None:
        """Let camera pictures go through no function."""
        self.image_transforms = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self.__getitems__([index.__index__()])[0]

    def __getitems__(self, items: Sequence[int]) -> list[Sample]:
        """Several items, read together; called by ``DataLoader``."""
        index = self._items[numbers_of(items, len(self), "item")]
        episode, step = self.counters["episode_index"][index], self.counters["frame_index"][index]
        batch = self.pairing.read(episode, {key.name: step[:, None] + np.array(key.offsets) for key in self.windows.spec.keys})
        made = self._made(batch, episode) | {name: torch.from_numpy(self.counters[name][index]) for name in DEFAULTS}
        samples = [{name: values[i] for name, values in made.items()} for i in range(len(items))]
        for sample, of_item in zip(samples, episode.tolist(), strict=True):
            for name in self._pictures if self.image_transforms is not None else ():
                sample[name] = self.image_transforms(sample[name])  # type: ignore[misc]
            sample["task"] = self._texts[of_item]
        return samples

    def column(self, feature: Feature) -> NDArray[Any]:
        """A feature of numbers at all steps of all episodes, in the store's type: [n_steps, dim]."""
        return np.concatenate([self.pairing.column(key).reshape(self.pairing.n_steps, -1) for key in feature.keys], axis=1)

    def _statistics(self, key: str) -> Statistics:
        """Statistics of a camera's pictures at all steps of all episodes."""
        counts, rows = self.store.histogram(key), np.setdiff1d(np.arange(self.store.n_steps), self.pairing.rows(key))
        reader = WindowDataset(self.store, {key: [0]})
        for row in rows:  # the last of an episode: a few of the many that the store has counted
            counts = counts - counts_of(channels_last(reader.read([row])[key], reader, key)[0, 0].numpy())
        return of_counts(counts, self.pairing.n_steps)

    def _made(self, batch: Sample, episode: NDArray[np.int64]) -> Sample:
        """The features of a batch, [b, …]."""
        made: Sample = {}
        for feature in self._served:
            deltas = self._deltas(feature)
            parts = [self._part(batch, episode, feature, key) for key in feature.keys]
            values = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
            if not feature.picture and feature.shape == (1,):  # LeRobot has a single number without an axis
                values = values.squeeze(-1)
            made[feature.name] = values if deltas is not None else values[:, 0]
            if deltas is not None:
                key = feature.keys[0]
                made[f"{feature.name}_is_pad"] = _take(batch[f"{key}_is_pad"], self._places[feature.name, key])
        return made

    def _part(self, batch: Sample, episode: NDArray[np.int64], feature: Feature, key: str) -> torch.Tensor:
        """One key's part of a feature [b, n, …], in the type that LeRobot gives."""
        values = _take(batch[key], self._places[feature.name, key])
        if not feature.picture:
            values = _as_lerobot(values)
            return values if values.ndim > 2 else values[..., None]
        values = self.pictures(episode, key, values).movedim(-1, -3).contiguous()
        return values if self.return_uint8 else values.to(torch.float32).div_(255)  # as torchvision's ToTensor does

    def pictures(self, episode: NDArray[np.int64], key: str, values: torch.Tensor) -> torch.Tensor:
        """Pictures of a key [b, n, …] as they are served: uint8 [b, n, y, x, c], turned; `values` may be written to."""
        over = self._upside_down[episode] & (key not in self.windows.upright)  # those were turned while they were read
        return turn_pictures(channels_last(values, self.windows, key), over, self.turn == "rotate")

    def _deltas(self, feature: Feature) -> list[int] | None:
        return None if self.delta_indices is None else self.delta_indices.get(feature.name)


@contextmanager
def serve_stores(**options: Any) -> Iterator[None]:
    """Let LeRobot's ``make_dataset`` take a store, wherever ``--dataset.root`` names one; other data sets are LeRobot's.

    All else is LeRobot's own: which times a policy asks for, ImageNet's statistics, transforms, the evaluation split of 0.6.

    Parameters
    ----------
    **options
        Of ``LeRobotStore``: ``turn``, ``causal``, ``state``, ``images``, …
    """
    factory: Any = importlib.import_module("lerobot.datasets.factory")
    given, given_meta = factory.LeRobotDataset, factory.LeRobotDatasetMetadata

    def dataset(repo_id: str, root: str | Path | None = None, **asked: Any) -> Any:
        if not _is_store(root):
            return given(repo_id, root=root, **asked)
        known = ("episodes", "delta_timestamps", "image_transforms", "tolerance_s", "return_uint8")
        return LeRobotStore(root, repo_id=repo_id, **{name: asked[name] for name in known if name in asked}, **options)

    def metadata(repo_id: str, root: str | Path | None = None, **asked: Any) -> Any:
        if not _is_store(root):
            return given_meta(repo_id, root=root, **asked)
        return LeRobotStore(root, repo_id=repo_id, **options).meta

    with patch.object(factory, "LeRobotDataset", dataset), patch.object(factory, "LeRobotDatasetMetadata", metadata):
        yield


def _is_store(root: str | Path | None) -> TypeGuard[str | Path]:
    return root is not None and ("://" in str(root) or (Path(root) / "zarr.json").is_file())


def _delta_indices(deltas: Mapping[str, Sequence[float]] | None, fps: float, tolerance_s: float) -> dict[str, list[int]] | None:
    """Convert times to steps (utils.py: check_delta_timestamps, get_delta_indices)."""
    if deltas is None:
        return None
    for name, times in deltas.items():
        if bad := [time for time in times if abs(time * fps - round(time * fps)) / fps > tolerance_s]:
            raise WindowError(
                f"lerobot · delta_timestamps · {name}: multiples of 1/{fps} s, to {tolerance_s} s; got {bad[0]} "
                "→ pass steps / fps"
            )
    return {name: [round(time * fps) for time in times] for name, times in deltas.items()}


def _offsets(features: Sequence[Feature], deltas: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The offsets of each key: those of all features that it is part of, ascending where they differ."""
    found: dict[str, list[int]] = {}
    for feature in features:
        wanted = list(deltas.get(feature.name, [0]))
        for key in feature.keys:
            found[key] = wanted if found.get(key, wanted) == wanted else sorted({*found[key], *wanted})
    return found


def _places(offsets: Sequence[int], deltas: Sequence[int] | None) -> NDArray[np.int64] | None:
    """Positions of a feature's offsets among those of its key; None if both are equal."""
    wanted = [0] if deltas is None else list(deltas)
    return None if wanted == list(offsets) else np.array([list(offsets).index(delta) for delta in wanted], np.int64)


def _take(values: torch.Tensor, places: NDArray[np.int64] | None) -> torch.Tensor:
    return values if places is None else values[:, torch.from_numpy(places)]


def _as_lerobot(values: torch.Tensor) -> torch.Tensor:
    """Numbers as ``torch.tensor`` makes them of Python's: float32, int64, bool (utils.py: hf_transform_to_torch)."""
    if values.dtype == torch.bool:
        return values
    return values.to(torch.float32 if values.is_floating_point() else torch.int64)

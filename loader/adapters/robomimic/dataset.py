"""Samples for robomimic: what its ``SequenceDataset`` gives, from a store.

ARISE-Initiative/robomimic, robomimic/utils/dataset.py: get_item, get_sequence_from_demo; 0.3.0, and 0.5.0 (d309eae), whose
arguments are the same but for action_keys, action_config, lang and demo_limit; 0.2.0, through which LIBERO trains, prepares
observations for the network in the data set. Its order, its padding (edges repeated) and its mask are kept; `make test-interop`
compares every sample with the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate

from robozarr.loader.adapters.robomimic.actions import Stats, action_stats, scales_and_offsets
from robozarr.loader.adapters.robomimic.opening import open_data_set
from robozarr.loader.arguments import numbers_of
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.nothing_left import check_not_empty
from robozarr.schemas.errors import WindowError
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store

__all__ = ["ProcessedSequenceDataset", "SequenceDataset"]


class SequenceDataset(Dataset[Sample]):
    """robomimic's ``SequenceDataset``, reading a store instead of a file.

    Parameters
    ----------
    hdf5_path : Store or path
        A store, or the path of a source file in it (``libero.zarr/libero_goal/…_demo.hdf5``), whose demos alone are served;
        named as upstream, so that a configuration's ``data`` can name one.
    obs_keys, dataset_keys : sequence of str
        ``dataset_keys`` that the store lacks are zeros [n, 1] where `hdf5_cache_mode` is not None, else refused; as upstream.
    frame_stack, seq_length : int
        A sample has `frame_stack` - 1 steps before the anchor and `seq_length` from it on.
    pad_frame_stack, pad_seq_length : bool
        False: no anchors where that would reach beyond the episode. `left_out` counts them.
    get_pad_mask : bool
        Give ``pad_mask`` bool [n, 1] beside the datasets and inside the observations: true where not repeated.
    goal_mode : "last" or None
        Give ``goal_obs``, the last ``next_obs``.
    hdf5_cache_mode : "all", "low_dim" or None
        What is cached is this package's; but unless None, datasets are float32, as upstream's cache makes them.
    filter_by_attribute : str, optional
        A split of the store (``mask/…`` of the file).
    load_next_obs : bool
        Give ``next_obs``.
    repeat_last_obs : bool
        A store does not hold ``next_obs`` that equal ``obs`` one step later; then the one of an episode's last step is lost.
        True: take the last ``obs`` for it. False, the default: refuse `load_next_obs` of such a store.
    action_keys : keys, optional
        robomimic 0.5's: ``actions`` are these one after the other, normalised, float32 where `hdf5_cache_mode` is not None;
        samples have ``index`` as well. None, the default: samples are 0.3.0's.
    action_config : mapping, optional
        Of each action key: ``normalization``, which is None, "min_max" or "gaussian".
    lang : str or float32 [d], optional
        An instruction for robomimic's ``LangUtils.get_lang_emb``, or its embedding: ``obs["lang_emb"]`` at every step.
    demo_limit : int, optional
        Only so many episodes, the first ones.
    hdf5_use_swmr : bool
        Without meaning here.
    hdf5_normalize_obs : bool
        Refused: pass ``normalise=`` to `loader`.
    **filters
        Of ``WindowDataset``.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     dataset = SequenceDataset(f"{folder}/sample.zarr", ["joint_states"], ["actions"], frame_stack=2, seq_length=3,
    ...                               get_pad_mask=True, load_next_obs=False)
    ...     sample = dataset[0]
    >>> len(dataset), sample["actions"].shape, sample["obs"]["joint_states"].shape, sample["pad_mask"][:, 0].tolist()
    (44, (4, 7), (4, 7), [False, True, True, True])
    """

    def __init__(
        self,
        hdf5_path: Store | str | Path,
        obs_keys: Sequence[str],
        dataset_keys: Sequence[str],
        frame_stack: int = 1,
        seq_length: int = 1,
        pad_frame_stack: bool = True,
        pad_seq_length: bool = True,
        get_pad_mask: bool = False,
        goal_mode: Literal["last"] | None = None,
        hdf5_cache_mode: Literal["all", "low_dim"] | None = None,
        hdf5_use_swmr: bool = True,
        hdf5_normalize_obs: bool = False,
        filter_by_attribute: str | None = None,
        load_next_obs: bool = True,
        *,
        action_keys: Sequence[str] | None = None,
        action_config: Mapping[str, Any] | None = None,
        lang: str | NDArray[Any] | None = None,
        demo_limit: int | None = None,
        repeat_last_obs: bool = False,
        **filters: Any,
    ) -> None:
        if hdf5_normalize_obs:
            raise WindowError("robomimic · hdf5_normalize_obs: false; → pass normalise=Normalise(…) to loader()")
        if goal_mode not in (None, "last") or (goal_mode is not None and not load_next_obs):
            raise WindowError(f'robomimic · goal_mode: None, or "last" with load_next_obs; got {goal_mode!r} → pass these')
        self.store, source = open_data_set(hdf5_path)
        if source is not None:
            of_source = np.flatnonzero(self.store.episodes.source == source).tolist()
            filters["episodes"] = [i for i in filters.get("episodes", of_source) if i in of_source]
        self.action_keys = None if action_keys is None else tuple(action_keys)
        self.action_config = action_config or {}
        self.obs_keys = tuple(obs_keys)
        self.dataset_keys = tuple(dict.fromkeys((*dataset_keys, *(self.action_keys or ()))))
        self.n_frame_stack, self.seq_length = frame_stack, seq_length
        self.get_pad_mask, self.goal_mode, self.load_next_obs = get_pad_mask, goal_mode, load_next_obs
        self.hdf5_cache_mode, self.filter_by_attribute = hdf5_cache_mode, filter_by_attribute
        self._stored = {key: key.replace("/", ".") for key in self.dataset_keys}
        """Names of groups that upstream writes as paths."""
        self._missing = [
            key for key, name in self._stored.items() if name not in self.store.keys and hdf5_cache_mode is not None
        ]
        self._next = {key: self._next_of(key, repeat_last_obs) for key in self.obs_keys} if load_next_obs else {}
        both = range(1 - frame_stack, seq_length)
        offsets: dict[str, Any] = {key: both for key in self.obs_keys}
        offsets |= {name: both for key, name in self._stored.items() if key not in self._missing}
        offsets |= {name: both for name in self._next.values() if name is not None}
        # one step more, of which next_obs is taken
        offsets |= {key: range(both.start, both.stop + 1) for key, name in self._next.items() if name is None}
        self.windows = WindowDataset(self.store, WindowSpec(offsets), split=filter_by_attribute, **filters)
        self._leave_out(pad_frame_stack, pad_seq_length, demo_limit)
        self._lang_emb = None if lang is None else torch.as_tensor(_lang_emb(lang))
        self._action_normalization: dict[str, dict[str, NDArray[Any]]] | None = None
        self._goal_end = 0 if pad_seq_length else seq_length - 1
        goals = {name or key: [0] for key, name in self._next.items()}
        self._goals = WindowDataset(self.store, WindowSpec(goals)) if goal_mode == "last" else None

    def _next_of(self, key: str, repeat_last_obs: bool) -> str | None:
        """The key that holds an observation's ``next_obs``; None means that it is taken from the observation itself."""
        name = f"next_obs.{key}"
        if name in self.store.keys:
            return name
        if not repeat_last_obs:
            raise WindowError(
                f"robomimic · load_next_obs: the store holds {name}; it does not, because next_obs equalled obs one step later "
                "(see robozarr info), or the source had none → pass load_next_obs=False, or repeat_last_obs=True to take the "
                "last obs for what came after it"
            )
        return None

    def _leave_out(self, pad_frame_stack: bool, pad_seq_length: bool, demo_limit: int | None) -> None:
        table = self.windows.table
        if demo_limit is not None:
            beyond = np.cumsum(table.served) > demo_limit
            table = table.without(f"demo_limit {demo_limit}", np.repeat(beyond, table.stop - table.start))
        length = table.stop - table.start
        step = np.arange(int(length.sum())) - np.repeat(table.start, length)
        if not pad_frame_stack:
            table = table.without("pad_frame_stack", step < self.n_frame_stack - 1)
        if not pad_seq_length:
            table = table.without("pad_seq_length", step + self.seq_length > np.repeat(length, length))
        check_not_empty(table)
        self.windows.windows.table = table

    @property
    def left_out(self) -> tuple[Any, ...]:
        """Steps that have no window, by reason."""
        return self.windows.left_out

    @property
    def n_demos(self) -> int:
        """Number of episodes that have windows."""
        return int(self.windows.table.served.sum())

    @property
    def total_num_sequences(self) -> int:
        """Number of windows."""
        return len(self)

    def __len__(self) -> int:
        return len(self.windows)

    def __repr__(self) -> str:
        return (
            f"SequenceDataset({self.store.path!r}, obs_keys={self.obs_keys}, seq_length={self.seq_length}, "
            f"frame_stack={self.n_frame_stack}, filter_key={self.filter_by_attribute}: {self.windows.table!r})"
        )

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, windows: Sequence[int]) -> list[Sample]:
        """Samples of several windows, read together; called by ``DataLoader``."""
        batch = self.make(self.windows.read(numbers_of(windows, len(self))))
        return [_part(batch, i) for i in range(len(windows))]

    def loader(self, batch_size: int, **options: Any) -> WindowLoader:
        """Batches of all windows from ``WindowLoader``: the same dict with a batch axis; `options` are passed to it."""
        return WindowLoader(self.windows, batch_size, transform=self.make, **options)

    @staticmethod
    def collate(samples: list[Sample]) -> Sample:
        """Stack samples: a ``collate_fn`` for ``DataLoader``; torch's own does the same."""
        batch: Sample = default_collate(samples)
        return batch

    def make(self, batch: Sample) -> Sample:
        """Turn a batch of `windows` into robomimic's batch, on the same device."""
        size = self.n_frame_stack - 1 + self.seq_length
        any_key = next(key.name for key in self.windows.spec.keys)
        mask = ~batch[f"{any_key}_is_pad"][:, :size, None]
        out: Sample = {key: self._dataset(batch, key, size) for key in self.dataset_keys}
        if self.action_keys is not None:
            out["actions"] = self._actions(out, self.action_keys)
            out["index"] = self._index(batch)
        out["obs"] = {key: batch[key][:, :size] for key in self.obs_keys}
        if self._lang_emb is not None:
            emb = self._lang_emb.to(batch["step"].device)
            out["obs"]["lang_emb"] = emb.expand(len(batch["step"]), size, -1).clone()
        if self.load_next_obs:
            places = self._places(batch)
            out["next_obs"] = {
                key: batch[name] if name is not None else _take(batch[key], places) for key, name in self._next.items()
            }
        if self._goals is not None:
            out["goal_obs"] = self._goal(batch)
        if self.get_pad_mask:
            out["pad_mask"] = mask
            for name in ("obs", "next_obs"):
                if name in out:
                    out[name]["pad_mask"] = mask
            if self._goals is not None:
                out["goal_obs"]["pad_mask"] = torch.ones_like(mask[:, 0])
        return out

    def _dataset(self, batch: Sample, key: str, size: int) -> torch.Tensor:
        if key in self._missing:
            return torch.zeros((len(batch["step"]), size, 1), dtype=torch.float32, device=batch["step"].device)
        values: torch.Tensor = batch[self._stored[key]][:, :size]
        return values if self.hdf5_cache_mode is None else values.to(dtype=torch.float32)

    def _actions(self, out: Sample, action_keys: tuple[str, ...]) -> torch.Tensor:
        stats, parts = self._normalization(), []
        for key in action_keys:
            scale, offset = (torch.as_tensor(stats[key][name][0], device=out[key].device) for name in ("scale", "offset"))
            parts.append((out[key] - offset) / scale)
        return torch.cat(parts, dim=-1)

    def _index(self, batch: Sample) -> torch.Tensor:
        """The number of each window: int64 [b]."""
        table = self.windows.table
        rows = table.start[batch["episode"].cpu().numpy()] + batch["step"].cpu().numpy()
        run = np.searchsorted(table.runs[:, 0], rows, side="right") - 1
        return torch.from_numpy(rows - table.to_row[run]).to(batch["step"].device)

    def _places(self, batch: Sample) -> torch.Tensor:
        """Where each ``next_obs`` is in a window with one more step; a repeated step uses the next step of the original."""
        length = torch.as_tensor(self.store.episodes.length, device=batch["step"].device)[batch["episode"]]
        step, past = batch["step"][:, None], self.n_frame_stack - 1
        at = step + torch.arange(-past, self.seq_length, device=step.device)
        after = torch.minimum(torch.clamp(at, min=0) + 1, length[:, None] - 1)
        places: torch.Tensor = after - step + past
        return places

    def _goal(self, batch: Sample) -> Sample:
        assert self._goals is not None
        table = self._goals.table
        rows = table.stop[batch["episode"].cpu().numpy()] - 1 - self._goal_end
        stored = [key for key, name in self._next.items() if name is not None]
        read = self._goals.read(rows)
        late = self._goals.read(np.minimum(rows + 1, table.stop[batch["episode"].cpu().numpy()] - 1))
        device = batch["step"].device
        return {key: (read[f"next_obs.{key}"] if key in stored else late[key])[:, 0].to(device) for key in self.obs_keys}

    def get_action_stats(self) -> dict[str, Stats]:
        """``n``, ``mean``, ``sqdiff``, ``min``, ``max`` of each action key over the episodes that have windows."""
        table, reader = self.windows.table, self.windows.windows.reader
        found = {}
        for key in self.action_keys or ():
            column = reader.column(self._stored[key])
            found[key] = action_stats(column[table.start[i] : table.stop[i]] for i in np.flatnonzero(table.served).tolist())
        return found

    def get_action_normalization_stats(self) -> dict[str, dict[str, NDArray[Any]]]:
        """``scale`` and ``offset`` float32 [1, d] of each action key; robomimic saves them with the policy."""
        return deepcopy(self._normalization())

    def set_action_normalization_stats(self, action_normalization_stats: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Use these statistics; robomimic's ``MetaDataset`` gives those of all its data sets to each one."""
        self._action_normalization = {key: dict(stats) for key, stats in action_normalization_stats.items()}

    def _normalization(self) -> dict[str, dict[str, NDArray[Any]]]:
        if self._action_normalization is None:
            self._action_normalization = scales_and_offsets(self.get_action_stats(), self.action_config)
        return self._action_normalization

    def get_dataset_sampler(self) -> None:
        """None, which means every window in the DataLoader's order; robomimic/scripts/train.py calls this."""
        return None


class ProcessedSequenceDataset(SequenceDataset):
    """``SequenceDataset`` of robomimic 0.2.0: by its ObsUtils, pictures become float32 [n, c, y, x] in [0, 1]; what it caches
    of observations is float32.

    From 0.3.0 on training does that with batches. Modalities of keys are those that ObsUtils knows when this is made: workers
    that are spawned, as LIBERO's are, know none.
    """  # noqa: D205 - one sentence

    def __init__(self, *arguments: Any, **options: Any) -> None:
        import robomimic.utils.obs_utils as obs_utils

        super().__init__(*arguments, **options)
        self._modalities = {key: obs_utils.OBS_KEYS_TO_MODALITIES[key] for key in self.obs_keys}

    def make(self, batch: Sample) -> Sample:
        """Turn a batch of `windows` into robomimic's batch, on the same device, prepared for the network."""
        import robomimic.utils.obs_utils as obs_utils

        out = super().make(batch)
        for name in ("obs", "next_obs", "goal_obs"):
            for key in self._modalities.keys() & out.get(name, {}).keys():
                modality = self._modalities[key]
                cached = self.hdf5_cache_mode == "all" or self.hdf5_cache_mode == modality
                values = out[name][key].float() if cached else out[name][key]
                out[name][key] = obs_utils.process_obs(values, obs_modality=modality)
        return out


def _lang_emb(lang: str | NDArray[Any]) -> Any:
    if not isinstance(lang, str):
        return np.asarray(lang, np.float32)
    import robomimic.utils.lang_utils as lang_utils  # robomimic's own encoder, whose weights it downloads

    return lang_utils.get_lang_emb(lang)


def _take(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    taken: torch.Tensor = values[torch.arange(len(values), device=values.device)[:, None], places]
    return taken


def _part(batch: Sample, i: int) -> Sample:
    """Sample i as numpy arrays, in robomimic's form."""
    return {name: _part(values, i) if isinstance(values, dict) else values[i].numpy() for name, values in batch.items()}

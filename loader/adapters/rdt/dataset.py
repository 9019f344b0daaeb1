"""Samples for RDT: what its ``HDF5VLADataset`` gives, for every window, and batches of them.

The dict and its rules are those of thu-ml/RoboticsDiffusionTransformer, data/hdf5_vla_dataset.py;
``loader.adapters.rdt.pretrain`` has the pre-training form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from robozarr.loader.adapters.ending import OnError, ending
from robozarr.loader.adapters.epoch import Walk
from robozarr.loader.adapters.instructions import warn_without_words
from robozarr.loader.adapters.rdt.language import LangEmbed, lang_embeds_of, pad_lang_embeds
from robozarr.loader.adapters.rdt.scatter import write_vectors
from robozarr.loader.adapters.rdt.vector import STATE_DIM, RDTConfig, RDTVectors, unify
from robozarr.loader.adapters.turning import channels_last, check_pictures, lines_first, turn_pictures, upside_down
from robozarr.loader.arguments import numbers_of
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.device.leases import Leases
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.nothing_left import check_not_empty
from robozarr.loader.windows.same import check_same_windows, fingerprint
from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store, open_store

__all__ = ["CAMERAS", "RDTBatches", "RDTDataset", "config_for"]

CAMERAS: Final = ("cam_high", "cam_right_wrist", "cam_left_wrist")
CAP_SEED: Final = 0x5D7
"""Seed of the random draw for `epsd_len_thresh_high`: it always draws the same steps."""


class RDTDataset:
    """A replacement for RDT's ``HDF5VLADataset``: the same dict, but ``index`` names a window, and every window is included.

    Parameters
    ----------
    store : Store or path
    name : str
        Of the data set, as in RDT's configs.
    config : RDTConfig, optional
        What a sample is. Default: LIBERO's, or ``RDTConfig.aloha`` for a store that holds ALOHA's keys.
    lang_embed : paths or arrays, one per task, optional
        By task, in the order of ``store.tasks``, or a mapping by instruction or name of the task. Paths stand in for the
        instruction in ``meta``, as RDT expects of precomputed embeddings; arrays [n_tokens, d] are the sample's ``lang_embed``.
    seed : int, optional
        Of the order in which `get_item` walks without an index. Default: another one each time, and rank 0's for all ranks;
        `load_state_dict` restores it.
    rank, world_size : int, optional
        As for ``WindowLoader``: ranks share an epoch.
    dtype : dtype
        Of vectors. float64 is what RDT's own data set gives.
    on_error : "exit" or "raise"
        What `get_item` without an index does where a window cannot be read. RDT's ``__getitem__`` catches every exception and
        takes another sample, so that the default says what is wrong and ends the process; training ends with its worker.
    **filters
        Of ``WindowDataset``: ``tasks``, ``episodes``, ``split``, ``success``, ``exclude_flags``, …

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     dataset = RDTDataset(f"{folder}/sample.zarr", name="libero")
    ...     sample = dataset.get_item(0)
    >>> len(dataset), sample["meta"]["#steps"], sample["actions"].shape, sample["cam_high"].shape, sample["cam_high_mask"]
    (44, 9, (64, 128), (2, 128, 128, 3), array([False,  True]))
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        name: str = "libero",
        config: RDTConfig | None = None,
        lang_embed: LangEmbed | None = None,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        dtype: DTypeLike = np.float64,
        on_error: OnError = "exit",
        **filters: Any,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self.config = config or config_for(self.store)
        self.name, self.dtype = name, np.dtype(dtype)
        self.windows = _windows(self.store, self.config, filters)
        keys = self.config.keys
        columns = {key: self.windows.windows.reader.column(key) for key in (*self.config.state_keys, keys.actions)}
        self.vectors = RDTVectors.build(columns, self.windows.table, self.config)
        self.lang_embed = None if lang_embed is None else lang_embeds_of(self.store, lang_embed)
        if lang_embed is None:
            texts = self.store.episodes.instruction
            warn_without_words(self.store, texts, self.windows.table.served, "instruction", stacklevel=3)
        self.walk = Walk(len(self), seed=seed, rank=rank, world_size=world_size)
        self._windows_of = [fingerprint(self.windows.spec, self.windows.table) | {"store": self.store.identity}]
        self.on_error: OnError = on_error
        self._told = self.config.describe()
        check_pictures(self.windows, tuple(self.config.cameras.values()))
        self._batches = RDTBatches(self, self.dtype)

    def __len__(self) -> int:
        return len(self.windows)

    def __repr__(self) -> str:
        return f"RDTDataset({self.name!r}, profile={self.config.profile!r}: {self.windows.table!r})"

    def get_dataset_name(self) -> str:
        """Name of the data set in RDT's configs."""
        return self.name

    def get_item(self, index: int | None = None, state_only: bool = False) -> dict[str, Any]:
        """Get one sample, or an episode's vectors.

        Parameters
        ----------
        index : int, optional
            A window. Default: the next one of the epoch's order.
        state_only : bool
            Give `get_episode` of the window's episode instead.

        Returns
        -------
        dict
            ``meta``: ``dataset_name``, ``#steps``, ``step_id``, ``instruction`` (or the path of its embedding), ``robozarr``
            (profile, scales); ``state`` [1, 128]; ``state_std``, ``state_mean``, ``state_norm`` [128], of the episode;
            ``actions`` [chunk, 128]; ``state_indicator`` [128]; ``cam_high``, ``cam_right_wrist``, ``cam_left_wrist`` uint8
            [history, y, x, 3], or [history, 0, 0, 0] where there is no such camera, each with a ``…_mask`` bool [history].
        """
        if index is None:
            with ending(self.on_error):
                return self.get_item(self.walk.take(), state_only)
        index = self._window(index)
        if state_only:
            return self.get_episode(int(self.windows.table.anchors([index]).episode[0]))
        batch = self.read([index])
        episode, step, task = (int(batch[field][0]) for field in ("episode", "step", "task"))
        instruction: Any = batch["instruction"][0]
        sample = {name: values[0].numpy() for name, values in batch.items() if name not in _TABLE}
        if self.lang_embed is not None:
            embed = self.lang_embed[task]
            if isinstance(embed, str):
                instruction = embed
            else:
                sample["lang_embed"] = embed
        meta = {
            "dataset_name": self.name,
            "#steps": int(self.store.episodes.length[episode]),
            "step_id": step,
            "instruction": instruction,
            "robozarr": self._told,
        }
        return {"meta": meta, **sample}

    def get_episode(self, episode: int) -> dict[str, Any]:
        """A whole episode: ``state`` and ``action``, [n_steps, 128] each; action t is the first of window t's chunk."""
        vectors = self.vectors
        start, stop = int(vectors.start[episode]), int(vectors.stop[episode])
        if self.config.skip_still:
            still = (self.store.index.flags[start:stop] & int(StepFlag.STILL)) != 0
            start += int(still.sum())
        at = np.minimum(np.arange(start, stop) + vectors.first_action[episode], stop - 1)
        return {
            "state": unify(vectors.state[start:stop], vectors.state_slots, self.dtype),
            "action": unify(vectors.action[at], vectors.slots, self.dtype),
        }

    def read(self, windows: Sequence[int]) -> Sample:
        """Read one batch of windows into new memory; fields as in ``RDTBatches``."""
        return self.make(self.windows.read(windows))

    def make(self, batch: Sample) -> Sample:
        """Turn a batch of ``windows`` into RDT's batch."""
        return self._batches(batch)

    def past_states(self, batch: Sample) -> tuple[torch.Tensor, torch.Tensor]:
        """States up to the anchors of a batch, as in ``RDTBatches.past_states``."""
        return self._batches.past_states(batch)

    def state_dict(self) -> dict[str, Any]:
        """The position of `get_item` in its order: ``accelerator.register_for_checkpointing(dataset)`` saves it with the run.

        It counts what this rank's DataLoader workers have read ahead: after a resume those windows come in the next epoch.
        """
        return self.walk.state_dict() | {"windows": self._windows_of}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved position; WindowError if it belongs to other windows."""
        check_same_windows(state.get("windows", self._windows_of), self._windows_of)  # states of earlier versions lack it
        self.walk.load_state_dict(state)

    def loader(self, batch_size: int, **options: Any) -> WindowLoader:
        """Batches of all windows from ``WindowLoader``, float32, on any device; `options` are passed to it.

        What comes of vectors is made on the device; pictures cross the bus as bytes.
        """
        batches = RDTBatches(self, np.float32)
        loader = WindowLoader(self.windows, batch_size, transform=batches, **options)
        batches.leases = loader.leases
        return loader

    def _window(self, index: int) -> int:
        return numbers_of([index], len(self))[0]


_TABLE: Final = ("episode", "step", "task", "instruction", "actions_is_pad", "lang_embeds", "lang_attn_mask")
"""Fields of a batch that a sample of ``HDF5VLADataset`` does not have."""


class RDTBatches:
    """Turns batches of ``WindowLoader`` into RDT's, on their device; used as a ``transform``.

    A batch has ``get_item``'s fields with a batch axis, without ``meta``, and ``episode``, ``step``, ``task``,
    ``actions_is_pad`` bool [b, chunk], ``instruction`` (a list), and with embeddings ``lang_embeds`` [b, n_tokens, d] and
    ``lang_attn_mask`` bool [b, n_tokens], as RDT's collator makes them.
    """

    def __init__(self, dataset: RDTDataset, dtype: DTypeLike) -> None:
        self.leases: Leases | None = None
        """Memory for vectors on the CPU that is reused when nobody holds it. None means new memory, which is slower."""
        self.config, vectors, self._windows = dataset.config, dataset.vectors, dataset.windows
        tables = {name: getattr(vectors, name) for name in ("state", "action", "mean", "std", "norm", "indicator")}
        self._tables: dict[str, NDArray[Any]] = {name: table.astype(dtype) for name, table in tables.items()}
        self._tables |= {name: getattr(vectors, name) for name in ("start", "stop", "first_action")}
        self._tables |= {
            "state_slots": np.array(vectors.state_slots), "action_slots": np.array(vectors.slots),
            "offsets": np.arange(self.config.chunk), "past": np.arange(1 - self.config.chunk, 1),
            "pictures": np.arange(1 - self.config.history, 1),
        }  # fmt: skip
        if self.config.skip_still:
            self._tables["still"] = (dataset.store.index.flags & int(StepFlag.STILL)) != 0
        self._lang = () if dataset.lang_embed is None else pad_lang_embeds(dataset.lang_embed)
        """Tensors, for T5's are bfloat16, which numpy does not have."""
        later = set(self.config.cameras.values()) - set(dataset.windows.upright) if self.config.upright else ()
        self._over = upside_down(dataset.windows) if later else None
        self._on: dict[torch.device, dict[str, torch.Tensor]] = {}
        self._lang_on: dict[torch.device, tuple[torch.Tensor, ...]] = {}

    def __call__(self, batch: Sample) -> Sample:
        """Turn a batch of the window that ``RDTDataset`` reads into RDT's batch."""
        xp, tables, (episode, step, task) = self._at(batch, "episode", "step", "task")
        row, last = tables["start"][episode] + step, tables["stop"][episode] - 1
        at = (row + tables["first_action"][episode])[:, None] + tables["offsets"]
        out = {
            "state": self._vectors("state", row[:, None], tables),
            "state_std": tables["std"][episode],
            "state_mean": tables["mean"][episode],
            "state_norm": tables["norm"][episode],
            "actions": self._vectors("action", xp.minimum(at, last[:, None]), tables),
            "actions_is_pad": at > last[:, None],
            "state_indicator": tables["indicator"][None][task * 0],
        }
        made = {name: torch.as_tensor(values) for name, values in out.items()}
        made |= self._language(batch["task"])
        for camera in CAMERAS:
            made |= self._pictures(batch, camera, row, xp, tables)
        return made | {name: batch[name] for name in ("episode", "step", "task", "instruction")}

    def _language(self, task: torch.Tensor) -> Sample:
        if not self._lang:
            return {}
        if task.device not in self._lang_on:
            self._lang_on[task.device] = tuple(values.to(task.device) for values in self._lang)
        return {
            name: values.index_select(0, task.long())
            for name, values in zip(("lang_embeds", "lang_attn_mask"), self._lang_on[task.device], strict=True)
        }

    def past_states(self, batch: Sample) -> tuple[torch.Tensor, torch.Tensor]:
        """States up to the anchor [b, chunk, 128], padded with the first, and which are in the episode (flatten_episode)."""
        xp, tables, (episode, step) = self._at(batch, "episode", "step")
        first = tables["start"][episode][:, None]
        at = first + step[:, None] + tables["past"]
        return torch.as_tensor(self._vectors("state", xp.maximum(at, first), tables)), torch.as_tensor(at >= first)

    def _vectors(self, name: str, rows: Any, tables: Mapping[str, Any]) -> Any:
        """Vectors of rows [b, n], with values in their slots: [b, n, 128]."""
        table = tables[name]
        if isinstance(table, np.ndarray):
            if self.leases is None:
                return torch.from_numpy(unify(table[rows], tuple(tables[f"{name}_slots"]), table.dtype))
            pool = self.leases.pool(name, (*rows.shape, STATE_DIM), table.dtype)
            out = pool.lend(pool.take(), rows.shape[0])  # whoever held it may have written to every slot
            write_vectors(table, rows.reshape(-1), tables[f"{name}_slots"], out.numpy().reshape(-1, STATE_DIM))
            return out
        values = table.index_select(0, rows.flatten())
        out = values.new_zeros((len(values), STATE_DIM)).index_copy_(1, tables[f"{name}_slots"], values)
        return out.view(*rows.shape, STATE_DIM)

    def _pictures(self, batch: Sample, camera: str, row: Any, xp: Any, tables: Mapping[str, Any]) -> Sample:
        device, shape = batch["step"].device, (len(row), self.config.history)
        if camera not in self.config.cameras:
            absent = torch.zeros((*shape, 0, 0, 0), dtype=torch.uint8, device=device)
            return {camera: absent, f"{camera}_mask": torch.zeros(shape, dtype=torch.bool, device=device)}
        key = self.config.cameras[camera]
        mask = ~batch[f"{key}_is_pad"]
        if self.config.skip_still:  # "For step_id = first_idx - 1, the valid_len should be one"
            mask &= ~torch.as_tensor(tables["still"][xp.clip(row[:, None] + tables["pictures"], 0, None)])
        pictures = channels_last(batch[key], self._windows, key)
        if self._over is not None and key not in self._windows.upright:  # the others were turned while they were read
            pictures = turn_pictures(pictures, self._over[batch["episode"].cpu().numpy()], mirror=False)
        return {camera: pictures, f"{camera}_mask": mask}

    def _at(self, batch: Sample, *fields: str) -> tuple[Any, Mapping[str, Any], list[Any]]:
        """Return the array library (numpy or torch), the tables and some fields, for the device of a batch.

        On the CPU it is numpy: torch's threads would wait for cores that the loader's threads are reading on.
        """
        device = batch["step"].device
        if device.type == "cpu":
            return np, self._tables, [batch[field].numpy() for field in fields]
        if device not in self._on:
            self._on[device] = {name: torch.from_numpy(table).to(device) for name, table in self._tables.items()}
        return torch, self._on[device], [batch[field] for field in fields]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_on": {}, "_lang_on": {}}


def config_for(store: Store) -> RDTConfig:
    """Default settings for a store: ALOHA's if it holds ``qpos`` and no ``joint_states``, else LIBERO's."""
    aloha = "qpos" in store.keys and RDTConfig().keys.joints not in store.keys
    if not aloha:
        return RDTConfig()
    config = RDTConfig.aloha()
    return replace(config, cameras={name: key for name, key in config.cameras.items() if key in store.keys})


def _windows(store: Store, config: RDTConfig, filters: Mapping[str, Any]) -> WindowDataset:
    """The window that RDT reads; vectors come from columns, so one step of their keys is enough."""
    offsets: dict[str, Any] = {key: range(1 - config.history, 1) for key in dict.fromkeys(config.cameras.values())}
    keys = config.keys
    if config.commands:  # decides which anchors a causal window has
        offsets[keys.actions] = range(config.chunk)
    offsets |= {key: [0] for key in (*config.state_keys, keys.actions)} | offsets
    if config.skip_still:
        filters = {**filters, "exclude_flags": filters.get("exclude_flags", StepFlag(0)) | StepFlag.STILL}
    causal = config.causal and config.commands
    upright = lines_first(store, tuple(dict.fromkeys(config.cameras.values())))
    dataset = WindowDataset(store, WindowSpec(offsets, causal=causal), upright=upright if config.upright else (), **filters)
    table = dataset.table
    length = table.stop - table.start
    if config.epsd_len_thresh_low is not None:
        short = np.repeat(length < config.epsd_len_thresh_low, length)
        table = table.without(f"epsd_len_thresh_low {config.epsd_len_thresh_low}", short)
    if config.epsd_len_thresh_high is not None:
        beyond = _beyond(table, config.epsd_len_thresh_high)
        table = table.without(f"epsd_len_thresh_high {config.epsd_len_thresh_high}", beyond)
    check_not_empty(table)
    dataset.windows.table = table
    return dataset


def _beyond(table: WindowTable, most: int) -> NDArray[np.bool_]:
    """Anchors to leave out so that no episode has more than `most`; a fixed random draw without replacement."""
    anchor = table.anchor_mask()
    beyond = np.zeros(len(anchor), bool)
    for episode, (start, stop) in enumerate(zip(table.start.tolist(), table.stop.tolist(), strict=True)):
        rows = start + np.flatnonzero(anchor[start:stop])
        if len(rows) > most:
            rng = np.random.default_rng([CAP_SEED, episode])
            beyond[rng.permutation(rows)[most:]] = True
    return beyond

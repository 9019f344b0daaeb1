"""Samples for robomimic: what its ``SequenceDataset`` gives, from a store.

ARISE-Initiative/robomimic, robomimic/utils/dataset.py (0.3.0): get_item, get_sequence_from_demo; LIBERO trains through it too.
Its order, its padding (edges repeated) and its mask are kept; `make test-interop` compares every sample with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.stream import WindowLoader
from robozarr.loader.windows.nothing_left import check_not_empty
from robozarr.schemas.errors import WindowError
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store, open_store

__all__ = ["SequenceDataset"]


class SequenceDataset(Dataset[Sample]):
    """robomimic's ``SequenceDataset``, reading a store instead of a file.

    Parameters
    ----------
    hdf5_path : Store or path
        A store; named as upstream, so that a configuration's ``data`` can name one.
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
        repeat_last_obs: bool = False,
        **filters: Any,
    ) -> None:
        if hdf5_normalize_obs:
            raise WindowError("robomimic · hdf5_normalize_obs: false; → pass normalise=Normalise(…) to loader()")
        if goal_mode not in (None, "last") or (goal_mode is not None and not load_next_obs):
            raise WindowError(f'robomimic · goal_mode: None, or "last" with load_next_obs; got {goal_mode!r} → pass these')
        self.store = hdf5_path if isinstance(hdf5_path, Store) else open_store(hdf5_path)
        self.obs_keys, self.dataset_keys = tuple(obs_keys), tuple(dataset_keys)
        self.n_frame_stack, self.seq_length = frame_stack, seq_length
        self.get_pad_mask, self.goal_mode, self.load_next_obs = get_pad_mask, goal_mode, load_next_obs
        self.hdf5_cache_mode, self.filter_by_attribute = hdf5_cache_mode, filter_by_attribute
        self._missing = [key for key in self.dataset_keys if key not in self.store.keys and hdf5_cache_mode is not None]
        self._next = {key: self._next_of(key, repeat_last_obs) for key in self.obs_keys} if load_next_obs else {}
        both = range(1 - frame_stack, seq_length)
        offsets: dict[str, Any] = {key: both for key in (*self.dataset_keys, *self.obs_keys) if key not in self._missing}
        offsets |= {name: both for name in self._next.values() if name is not None}
        # one step more, of which next_obs is taken
        offsets |= {key: range(both.start, both.stop + 1) for key, name in self._next.items() if name is None}
        self.windows = WindowDataset(self.store, WindowSpec(offsets), split=filter_by_attribute, **filters)
        self._leave_out(pad_frame_stack, pad_seq_length)
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

    def _leave_out(self, pad_frame_stack: bool, pad_seq_length: bool) -> None:
        table = self.windows.table
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
        n = len(self)
        if bad := [window for window in windows if not -n <= window < n]:
            raise IndexError(f"window {bad[0]} of {n}")
        batch = self.make(self.windows.read([int(window) % n for window in windows]))
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
        out["obs"] = {key: batch[key][:, :size] for key in self.obs_keys}
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
        values: torch.Tensor = batch[key][:, :size]
        return values if self.hdf5_cache_mode is None else values.to(dtype=torch.float32)

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

    def get_dataset_sampler(self) -> None:
        """None, which means every window in the DataLoader's order; robomimic/scripts/train.py calls this."""
        return None


def _take(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    taken: torch.Tensor = values[torch.arange(len(values), device=values.device)[:, None], places]
    return taken


def _part(batch: Sample, i: int) -> Sample:
    """Sample i as numpy arrays, in robomimic's form."""
    return {name: _part(values, i) if isinstance(values, dict) else values[i].numpy() for name, values in batch.items()}

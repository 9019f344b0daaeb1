"""Write a store as diffusion policy's ReplayBuffer: Zarr v2, with every number and every frame as the store has it.

real-stanford/diffusion_policy, diffusion_policy/common/replay_buffer.py (5ba07ac6661db573af695b419a7947ecb704690f):
``data/<key>`` [n_steps, …] in chunks of steps, ``meta/episode_ends`` int64 [n_episodes]; ``*.zarr.zip`` or a folder. What a
reader needs to make the same store again is in the root's attributes, which upstream passes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.storage import LocalStore, ZipStore

from robozarr.loader.adapters.exporting import Progress, appearing, check_free, of_one_width, size_of
from robozarr.loader.arguments import store_of
from robozarr.loader.dataset import WindowDataset
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment, ImageConvention
from robozarr.store.opened import Store

__all__ = ["ReplayBufferExport", "export_replay_buffer"]

BLOCK: Final = 64
"""Frames that are read at once."""
CHUNK_BYTES: Final = 2e6
"""Size of a chunk of numbers (replay_buffer.py: get_optimal_chunks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBufferExport:
    """The result of an export."""

    output: str
    n_episodes: int
    n_steps: int
    keys: tuple[str, ...]
    """Arrays in ``data``."""
    n_bytes: int
    left_out: dict[str, str]
    """Keys that a ReplayBuffer cannot hold → why."""

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def export_replay_buffer(
    store: Store | str | Path,
    output: str | Path,
    *,
    keys: Sequence[str] | None = None,
    float32: bool = False,
    progress: Progress | None = None,
) -> ReplayBufferExport:
    """Write a ReplayBuffer, which appears when it is whole: a file if `output` ends in ``.zip``, else a folder.

    Parameters
    ----------
    store : Store or path
    output : path
        Not there yet.
    keys : keys, optional
        Default: all. ``actions``, which is called ``action`` there, always is one.
    float32 : bool
        Write float64 as float32, rounded, as upstream's own scripts do: its data set for robomimic trains on nothing else.
    progress : Progress, optional

    Raises
    ------
    StoreError
        If something is at `output` already.
    WindowError
        If a key is not there, or two would have one name.
    """
    path, opened = Path(output).absolute(), store_of(store)
    check_free(path)
    wanted = list(opened.keys) if keys is None else list(dict.fromkeys([*keys, "actions"]))
    if missing := [key for key in wanted if key not in opened.keys]:
        raise WindowError(
            f"diffusion policy · {missing[0]}: is not a key of the store, which has {', '.join(opened.keys)} → name one"
        )
    if "action" in wanted:
        raise WindowError("diffusion policy · action: the name of the actions; the store has another key of it → leave it out")
    with appearing(path) as stage:
        target: Any = ZipStore(stage, mode="w") if path.suffix == ".zip" else LocalStore(stage)
        try:
            root = zarr.create_group(target, zarr_format=2, attributes={"robozarr": _facts(opened)})
            left_out = _write(opened, wanted, root, float32, progress)
        finally:
            target.close()
    return ReplayBufferExport(
        output=str(path),
        n_episodes=opened.n_episodes,
        n_steps=opened.n_steps,
        keys=tuple(_name(key) for key in wanted if key not in left_out),
        n_bytes=size_of(path),
        left_out=left_out,
    )


def _write(store: Store, wanted: Sequence[str], root: zarr.Group, float32: bool, progress: Progress | None) -> dict[str, str]:
    """Write all arrays; returns what was left out."""
    data, meta = root.create_group("data"), root.create_group("meta")
    ends = (store.episodes.start + store.episodes.length).astype(np.int64)
    _array(meta, "episode_ends", ends.shape, ends.dtype, ends.shape)[:] = ends
    left_out: dict[str, str] = {}
    if progress is not None:
        progress.start("write arrays", len(wanted))
    for key in wanted:
        if store.keys[key].ragged:
            values = of_one_width(store, key)
            if values is None:
                left_out[key] = "its width differs between episodes"
            else:
                _put(data, key, values, float32)
        elif store.keys[key].frame:
            _put_frames(data, key, store)
        else:
            reader = WindowDataset(store, {key: [0]}).windows.reader
            _put(data, _name(key), reader.column(key), float32)
        if progress is not None:
            progress.advance()
    return left_out


def _put(group: zarr.Group, name: str, values: NDArray[Any], float32: bool) -> None:
    """Write numbers in chunks of some steps, each once: a file in a ZIP cannot be written again."""
    values = values.astype(np.float32) if float32 and values.dtype == np.float64 else values
    rows = max(1, min(len(values), int(CHUNK_BYTES // max(1, values[:1].nbytes))))
    array = _array(group, name, values.shape, values.dtype, (rows, *values.shape[1:]))
    for start in range(0, len(values), rows):
        array[start : start + rows] = values[start : start + rows]


def _put_frames(group: zarr.Group, key: str, store: Store) -> None:
    """Write frames, one a chunk."""
    stored, reader = store.keys[key], WindowDataset(store, {key: [0]})
    array = _array(group, key, (store.n_steps, *stored.shape), np.dtype(stored.dtype), (1, *stored.shape))
    for start in range(0, store.n_steps, BLOCK):
        rows = np.arange(start, min(store.n_steps, start + BLOCK))
        array[rows[0] : rows[-1] + 1] = reader.read(rows)[key][:, 0].numpy()


def _array(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: tuple[int, ...]) -> Any:
    """An array with upstream's default compressor (replay_buffer.py: resolve_compressor); chunks of zeros are written too."""
    return group.create_array(
        name, shape=shape, dtype=dtype, chunks=chunks, compressors=Blosc("lz4", 5, Blosc.NOSHUFFLE), fill_value=0,
        config={"write_empty_chunks": True},
    )  # fmt: skip


def _name(key: str) -> str:
    return "action" if key == "actions" else key


def _facts(store: Store) -> dict[str, Any]:
    """What a ReplayBuffer does not say, and a store knows."""
    episodes, rules = store.episodes, store.metadata.flag_rules
    return {
        "version": 1,
        "identity": store.identity,
        "control_freq": store.metadata.control_freq,
        "gripper": rules.gripper,
        "switches": list(rules.switches),
        "joint_key": store.metadata.joint_key,
        "instruction": list(episodes.instruction),
        "success": episodes.success.tolist(),
        "alignment": [Alignment(int(code)).name.lower() for code in episodes.alignment],
        "pictures": [ImageConvention(int(code)).name.lower() for code in episodes.image_convention],
    }

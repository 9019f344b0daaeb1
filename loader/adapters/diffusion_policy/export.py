"""Write a store as diffusion policy's ReplayBuffer: Zarr v2, with every number and every frame as the store has it.

real-stanford/diffusion_policy, diffusion_policy/common/replay_buffer.py (5ba07ac6661db573af695b419a7947ecb704690f):
``data/<key>`` [n_steps, …] in chunks of steps, ``meta/episode_ends`` int64 [n_episodes]; ``*.zarr.zip`` or a folder. What a
reader needs to make the same store again is in the root's attributes, which upstream passes over.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from robozarr.loader.adapters.exporting import Progress, appearing, check_free, of_one_width, size_of
from robozarr.loader.arguments import store_of
from robozarr.loader.dataset import WindowDataset
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment, ImageConvention
from robozarr.store.opened import Store

__all__ = ["ReplayBufferExport", "export_replay_buffer"]

Put: TypeAlias = Callable[[str, bytes], None]
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
    with appearing(path) as stage, _files(stage) as put:
        for group in ("", "data/", "meta/"):
            put(f"{group}.zgroup", b'{"zarr_format": 2}')
        put(".zattrs", json.dumps({"robozarr": _facts(opened)}).encode())
        left_out = _write(opened, wanted, put, float32, progress)
    return ReplayBufferExport(
        output=str(path),
        n_episodes=opened.n_episodes,
        n_steps=opened.n_steps,
        keys=tuple(_name(key) for key in wanted if key not in left_out),
        n_bytes=size_of(path),
        left_out=left_out,
    )


@contextmanager
def _files(place: Path) -> Iterator[Put]:
    """Yield a function that writes (name, bytes) into an uncompressed ZIP file or a folder; each name once."""
    if place.suffix != ".zip":
        yield partial(_put_file, place)
        return
    file = place.open("wb")
    archive = zipfile.ZipFile(file, "w")
    try:
        yield partial(_put_entry, archive)
        archive.close()
        file.close()
    except BaseException:
        archive.fp = None  # it would try to write its end when nobody needs it any more
        with suppress(OSError):
            file.close()
        raise


def _put_file(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _put_entry(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name)  # of no date: the same store gives the same file
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def _write(store: Store, wanted: Sequence[str], put: Put, float32: bool, progress: Progress | None) -> dict[str, str]:
    """Write all arrays; returns what was left out."""
    ends = (store.episodes.start + store.episodes.length).astype(np.int64)
    _write_array(put, "meta/episode_ends", ends.shape, ends.dtype, ends.shape, iter([ends]))
    left_out: dict[str, str] = {}
    if progress is not None:
        progress.start("write arrays", len(wanted))
    for key in wanted:
        if store.keys[key].frame:
            _write_frames(put, key, store)
        elif not store.keys[key].ragged:
            _write_numbers(put, key, WindowDataset(store, {key: [0]}).windows.reader.column(key), float32)
        elif (values := of_one_width(store, key)) is not None:
            _write_numbers(put, key, values, float32)
        else:
            left_out[key] = "its width differs between episodes"
        if progress is not None:
            progress.advance()
    return left_out


def _write_numbers(put: Put, key: str, values: NDArray[Any], float32: bool) -> None:
    """Write numbers in chunks of some steps; the last one is filled with zeros, as Zarr v2 has it."""
    values = values.astype(np.float32) if float32 and values.dtype == np.float64 else values
    rows = max(1, min(len(values), int(CHUNK_BYTES // max(1, values[:1].nbytes))))
    padding = [(0, -len(values) % rows), *[(0, 0)] * (values.ndim - 1)]
    chunks = np.pad(values, padding).reshape(-1, rows, *values.shape[1:])
    _write_array(put, f"data/{_name(key)}", values.shape, values.dtype, chunks.shape[1:], iter(chunks))


def _write_frames(put: Put, key: str, store: Store) -> None:
    """Write frames, one per chunk."""
    stored, reader, n = store.keys[key], WindowDataset(store, {key: [0]}), store.n_steps
    blocks = (reader.read(np.arange(first, min(n, first + BLOCK)))[key].numpy() for first in range(0, n, BLOCK))
    shape, dtype = (n, *stored.shape), np.dtype(stored.dtype)
    _write_array(put, f"data/{_name(key)}", shape, dtype, (1, *stored.shape), (frame for block in blocks for frame in block))


def _write_array(
    put: Put, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], chunk: tuple[int, ...], chunks: Iterator[NDArray[Any]]
) -> None:
    """Write an array with upstream's default compressor (replay_buffer.py: resolve_compressor), with every chunk."""
    codec = Blosc("lz4", 5, Blosc.NOSHUFFLE)
    document = {
        "zarr_format": 2, "shape": shape, "chunks": chunk, "dtype": dtype.str, "compressor": codec.get_config(),
        "fill_value": False if dtype.kind == "b" else 0, "order": "C", "filters": None,
    }  # fmt: skip
    put(f"{name}/.zarray", json.dumps(document).encode())
    for number, values in enumerate(chunks):
        index = ".".join(map(str, [number, *[0] * (len(shape) - 1)]))
        put(f"{name}/{index}", codec.encode(np.ascontiguousarray(values)))


def _name(key: str) -> str:
    return "action" if key == "actions" else key


def _facts(store: Store) -> dict[str, Any]:
    """Facts that a store knows and a ReplayBuffer has no place for."""
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

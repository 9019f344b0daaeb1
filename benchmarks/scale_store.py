"""Make a store with any number of steps that takes almost no disk space: each shard is a hard link to one of a few files.

Everything that a reader looks at follows FORMAT.md: index, episodes, tasks, checksums. Statistics are zeros, which ``verify``
would say. All episodes have `EPISODE` steps, so that every whole shard of a key can hold the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.convert.writing.binding import bind_files
from robozarr.convert.writing.shard import encode_shard
from robozarr.convert.writing.stats import fingerprints_of
from robozarr.convert.writing.write import write_array, write_metadata
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, build_index
from robozarr.schemas.instructions import InstructionSource
from robozarr.schemas.layout import ArrayLayout, Profile
from robozarr.schemas.metadata import Key, SourceEntry, StoreMetadata, array_layouts, fixed_layouts
from robozarr.schemas.shard import shard_sum, step_checksums
from robozarr.schemas.source import Role
from robozarr.schemas.window import WindowSpec
from robozarr.schemas.zarr_json import array_document, document_bytes, group_document
from robozarr.store.folder import FolderPlace

__all__ = ["EPISODE", "window", "write_scale_store"]

EPISODE: Final = 128
"""Steps of each episode but the last; every shard holds a whole number of episodes."""
KEYS: Final[dict[str, tuple[str, tuple[int, ...], Role]]] = {
    "agentview_rgb": ("uint8", (), "image"),
    "eye_in_hand_rgb": ("uint8", (), "image"),
    "joint_states": ("float64", (7,), "state"),
    "gripper_states": ("float64", (2,), "state"),
    "ee_states": ("float64", (6,), "state"),
    "actions": ("float64", (7,), "action"),
}


def window() -> WindowSpec:
    """The window of design.md: 2 frames of 2 cameras, 3 state keys, 64 actions, all with masks."""
    one = [0]
    return WindowSpec(
        {
            "agentview_rgb": [-1, 0], "eye_in_hand_rgb": [-1, 0], "joint_states": one, "gripper_states": one, "ee_states": one,
            "actions": range(64),
        }
    )  # fmt: skip


def write_scale_store(
    folder: Path, n_steps: int, *, picture: tuple[int, int, int] = (128, 128, 3), profile: Profile = "raw", seed: int = 0
) -> None:
    """Write a store of `n_steps` steps into a new folder; its pictures are noise."""
    rng = np.random.default_rng(seed)
    lengths = np.full(-(-n_steps // EPISODE), EPISODE, np.int64)
    lengths[-1] = n_steps - EPISODE * (len(lengths) - 1)
    metadata = _metadata(n_steps, len(lengths), picture, profile)
    tables = _tables(lengths)
    sizes = {layout.path.removesuffix("/offsets"): 0 for layout in fixed_layouts(metadata) if layout.path.endswith("/offsets")}
    for path, texts in _texts(len(lengths)).items():
        tables[f"{path}/bytes"] = np.frombuffer(b"".join(texts), np.uint8)
        tables[f"{path}/offsets"] = np.cumsum([0, *map(len, texts)])
        sizes[path] = len(tables[f"{path}/bytes"])
    layouts = array_layouts(metadata, sizes)
    folder.mkdir(parents=True)
    sums: dict[str, int] = {}
    for path, layout in layouts.items():
        (folder / path).mkdir(parents=True)
        document = document_bytes(array_document(layout))
        (folder / path / "zarr.json").write_bytes(document)
        sums[f"{path}/zarr.json"] = google_crc32c.value(document)
    for above in {parent for path in layouts for parent in Path(path).parents[:-1]}:
        (folder / above / "zarr.json").write_bytes(document_bytes(group_document()))
    for name in KEYS:
        layout = layouts[f"steps/{name}"]
        rows = _values(rng, layout)
        data = encode_shard(rows, layout)
        sums |= _write_links(folder, layout, rows, data)
        frame = metadata.key(name).frame
        whole = replace(layout, shape=rows.shape)
        tables[f"checksums/{name}"] = (
            np.resize(step_checksums(data, whole, 0), n_steps) if frame else _episode_sums(rows, lengths)
        )
        if frame and metadata.has_fingerprints:
            tables[f"fingerprints/{name}"] = np.resize(fingerprints_of(rows), n_steps)
    for path, layout in layouts.items():
        if not path.startswith("steps/"):
            values = tables.get(path)
            array = np.zeros(layout.shape, layout.dtype) if values is None else values
            sums |= write_array(FolderPlace(folder), layout, array)
    files = bind_files(layouts, sums, None, FolderPlace(folder))
    write_metadata(FolderPlace(folder), metadata.bound_to(files))


def _metadata(n_steps: int, n_episodes: int, picture: tuple[int, int, int], profile: Profile) -> StoreMetadata:
    return StoreMetadata(
        software="scale_store",
        profile=profile,
        complete=True,
        n_steps=n_steps,
        n_episodes=n_episodes,
        n_tasks=1,
        control_freq=20.0,
        keys=tuple(
            Key(name=name, source=name, dtype=dtype, shape=shape or picture, role=role, unit="")
            for name, (dtype, shape, role) in KEYS.items()
        ),
        selected_keys=None,
        sources=(SourceEntry(name="suite/a_demo.hdf5", size=1, mtime_ns=1, n_demos=n_episodes),),
        splits=(),
        flag_rules=FlagRules(),
        joint_key=None,
        not_stored=(),
    )


def _tables(lengths: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The index and the episode table; arrays that are not returned are zeros."""
    start, episode, step = build_index(lengths)
    n = len(lengths)
    return {
        "index/episode": episode,
        "index/step": step,
        "episodes/start": start,
        "episodes/length": lengths,
        "episodes/success": np.full(n, -1, np.int8),
        "episodes/alignment": np.full(n, Alignment.AFTER, np.int8),
        "episodes/image_convention": np.full(n, ImageConvention.OPENGL, np.int8),
        "episodes/instruction_source": np.full(n, InstructionSource.FILE_ATTRIBUTE, np.int8),
    }


def _texts(n_episodes: int) -> dict[str, list[bytes]]:
    """Every text column that is not empty."""
    return {
        "episodes/demo": [b"demo_%d" % number for number in range(n_episodes)],
        "episodes/attributes": [b"{}"] * n_episodes,
        "episodes/instruction": [b"a task"] * n_episodes,
        "sources/attributes": [b"{}"],
        **{f"tasks/{name}": [b"a task"] for name in ("name", "instruction", "instruction_from_name", "suite")},
    }


def _values(rng: np.random.Generator, layout: ArrayLayout) -> NDArray[Any]:
    """The rows of a whole shard, or of the whole array if that is smaller."""
    shape = (min(layout.shard_rows, -(-layout.shape[0] // EPISODE) * EPISODE), *layout.shape[1:])
    if layout.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape)


def _write_links(folder: Path, layout: ArrayLayout, rows: NDArray[Any], data: bytes) -> dict[str, int]:
    """Write one whole shard and link the others to it; a last partial shard is its own file. Returns each shard's checksum."""
    made: Path | None = None
    sums: dict[str, int] = {}
    of_whole = shard_sum(data, replace(layout, shape=rows.shape), 0)
    for shard in range(layout.n_shards):
        start, stop = layout.rows_of_shard(shard)
        path = folder / layout.shard_path(shard)
        path.parent.mkdir(parents=True)
        if stop - start < len(rows):
            last = encode_shard(rows[: stop - start], layout)
            path.write_bytes(last)
            sums[layout.shard_path(shard)] = shard_sum(last, layout, shard)
            continue
        sums[layout.shard_path(shard)] = of_whole
        if made is None:
            made = path
            path.write_bytes(data)
        else:
            path.hardlink_to(made)
    return sums


def _episode_sums(rows: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.uint32]:
    """M21 of a low-dim key: the checksum of each episode's rows."""
    per_shard = len(rows) // EPISODE
    whole = np.array([google_crc32c.value(rows[at : at + EPISODE].tobytes()) for at in range(0, len(rows), EPISODE)], np.uint32)
    sums = np.resize(whole, len(lengths))
    at = EPISODE * ((len(lengths) - 1) % per_shard)
    sums[-1] = google_crc32c.value(rows[at : at + int(lengths[-1])].tobytes())
    return sums

"""Diffusion policy's ReplayBuffer as a source.

replay_buffer.zarr.zip was written by its own code (real-stanford/diffusion_policy, 5ba07ac6661db573af695b419a7947ecb704690f,
diffusion_policy/common/replay_buffer.py: add_episode, save_to_store) with zarr 2.18: `written` says what.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from refused import assert_refused
from stored import column

from robozarr.convert import convert, verify
from robozarr.schemas.errors import SourceError
from robozarr.store.opened import open_store

FILE = Path(__file__).with_name("replay_buffer.zarr.zip")


def written(episode: int) -> dict[str, NDArray[Any]]:
    """What was written of an episode."""
    n = 5 + episode
    return {
        "img": np.random.default_rng(episode).integers(0, 256, (n, 16, 24, 3), np.uint8),
        "state": np.random.default_rng(episode).normal(size=(n, 5)).astype(np.float32),
        "actions": np.random.default_rng(episode).normal(size=(n, 2)).astype(np.float32),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with zipfile.ZipFile(FILE) as archive:
        archive.extractall(tmp_path / "theirs.zarr")
    return tmp_path / "theirs.zarr"


def test_a_file_of_theirs(tmp_path: Path) -> None:
    convert(FILE, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    assert store.episodes.length.tolist() == [5, 6, 7]
    for episode in range(3):
        start = int(store.episodes.start[episode])
        for key, expected in written(episode).items():
            np.testing.assert_array_equal(column(store, key)[start : start + len(expected)], expected)
    assert store.metadata.control_freq is None
    assert verify(tmp_path / "a.zarr", sources=[FILE], workers=0).ok


def test_a_folder_is_the_same(folder: Path, tmp_path: Path) -> None:
    convert(FILE, tmp_path / "a.zarr", workers=0)
    convert(folder, tmp_path / "b.zarr", workers=0)
    one, other = open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr")
    for key in one.keys:
        assert column(one, key).tobytes() == column(other, key).tobytes()
    assert verify(tmp_path / "b.zarr", sources=[folder], workers=0).ok
    (folder / "data/state/0.0").write_bytes((folder / "data/state/0.0").read_bytes()[::-1])
    with pytest.raises(SourceError, match=r"data|decodable"):
        convert(folder, tmp_path / "c.zarr", workers=0)


def lost_chunk(root: Path) -> None:
    (root / "data/state/0.0").unlink()


def other_ends(root: Path) -> None:
    (root / "meta/episode_ends/0").write_bytes(np.array([5, 4, 18], np.int64).tobytes())
    change(root / "meta/episode_ends/.zarray", {"compressor": None, "chunks": [3]})


def too_few_rows(root: Path) -> None:
    change(root / "data/state/.zarray", {"shape": [17, 5]})


def unknown_codec(root: Path) -> None:
    change(root / "data/img/.zarray", {"compressor": {"id": "diffusion_policy_jpeg2k", "level": 50}})


def no_action(root: Path) -> None:
    shutil.rmtree(root / "data/action")


def change(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def ends_with_fractions(root: Path) -> None:
    (root / "meta/episode_ends/0").write_bytes(np.array([5.9, 11, 18]).tobytes())
    change(root / "meta/episode_ends/.zarray", {"compressor": None, "chunks": [3], "dtype": "<f8"})


def very_many_ends(root: Path) -> None:
    change(root / "meta/episode_ends/.zarray", {"shape": [10**13]})


def very_large_chunks(root: Path) -> None:
    change(root / "data/state/.zarray", {"shape": [18, 10**12], "chunks": [18, 10**12]})


def no_document(root: Path) -> None:
    (root / "data/state/.zarray").write_text("{}")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lost_chunk, r"state.*every chunk must be there.*3 of 4"),
        (other_ends, r"meta/episode_ends must ascend from 1; found \[5, 4, 18\]"),
        (ends_with_fractions, r"meta/episode_ends of float64 \(3,\)"),
        (very_many_ends, r"meta/episode_ends of int64 \(10000000000000,\)"),
        (very_large_chunks, r"state.*a chunk must have at most 1 GiB"),
        (no_document, r"data/state/\.zarray is no array's document"),
        (too_few_rows, r"state.*an array must have one row per step; found \(17, 5\) and 18 steps"),
        (unknown_codec, r"diffusion_policy_jpeg2k"),
        (no_action, r"action.*a ReplayBuffer must have data/action"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_problems_are_named(folder: Path, tmp_path: Path, break_it: Callable[[Path], None], words: str) -> None:
    break_it(folder)
    assert_refused(folder, tmp_path / "a.zarr", words)


def test_what_is_unusual_is_kept(folder: Path, tmp_path: Path) -> None:
    """An array called as a key is, big-endian numbers, one that an older copy of the documents lacks; the rest is listed."""
    zarr.consolidate_metadata(folder, zarr_format=2)
    root: Any = zarr.open_group(folder, mode="a", zarr_format=2, use_consolidated=False)
    root["data"].create_array("actions", data=np.arange(18, dtype=">f8"))
    root["data"].create_group("inner").create_array("x", data=np.ones(18))
    root["meta"].create_array("language", data=np.ones(3))
    report = convert(folder, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    assert set(store.keys) == {"actions", "data.actions", "img", "state"}
    np.testing.assert_array_equal(column(store, "data.actions"), np.arange(18.0))
    assert {entry["path"] for entry in report.not_stored} == {"data/inner", "meta/language"}
    assert verify(tmp_path / "a.zarr", sources=[folder], workers=0).ok


def test_facts_of_an_export_are_not_believed(folder: Path, tmp_path: Path) -> None:
    facts = {"control_freq": float("inf"), "gripper": 99, "switches": 3, "joint_key": ["x"], "success": [2, True]}
    (folder / ".zattrs").write_text(json.dumps({"robozarr": {**facts, "instruction": ["open it", 5], "alignment": ["x"]}}))
    convert(folder, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    assert store.metadata.control_freq is None
    assert store.episodes.instruction == ("open it", "", "")
    assert (store.episodes.alignment == -1).all()


def test_no_zip_file(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.zip").write_bytes(b"PK no")
    with pytest.raises(SourceError, match="ReplayBuffer"):
        convert(tmp_path / "a.zarr.zip", tmp_path / "a.zarr", workers=0)

"""Diffusion policy's ReplayBuffer as a source.

replay_buffer.zarr.zip was written by its own code (real-stanford/diffusion_policy, 5ba07ac6661db573af695b419a7947ecb704690f,
diffusion_policy/common/replay_buffer.py: add_episode, save_to_store) with zarr 2.18: `written` says what.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from stored import column

from robozarr.convert import convert, verify
from robozarr.loader.adapters.diffusion_policy.export import export_replay_buffer
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


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.zarr"])
def test_there_and_back(sample_store: Path, tmp_path: Path, name: str) -> None:
    """Every number and every frame bit for bit, and what is known of steps and episodes."""
    export_replay_buffer(sample_store, tmp_path / name)
    convert(tmp_path / name, tmp_path / "back.zarr", workers=0)
    one, other = open_store(sample_store), open_store(tmp_path / "back.zarr")
    assert set(other.keys) == set(one.keys) - {"states"}
    for key in other.keys:
        mine, theirs = column(one, key), column(other, key)
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes()), key
    assert one.index.flags.tobytes() == other.index.flags.tobytes()
    assert one.episodes.instruction == other.episodes.instruction
    for fact in ("start", "length", "success", "alignment", "image_convention"):
        np.testing.assert_array_equal(getattr(one.episodes, fact), getattr(other.episodes, fact))
    assert (one.metadata.control_freq, one.metadata.flag_rules) == (other.metadata.control_freq, other.metadata.flag_rules)


@pytest.mark.slow(reason="240 MB of real files there and back")
def test_there_and_back_of_real_files(real_data: Path, tmp_path: Path) -> None:
    convert(real_data, tmp_path / "a.zarr", workers=2)
    left_out = set(export_replay_buffer(tmp_path / "a.zarr", tmp_path / "out.zarr.zip").left_out)
    convert(tmp_path / "out.zarr.zip", tmp_path / "b.zarr", workers=2)
    one, other = open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr")
    assert set(other.keys) == set(one.keys) - left_out
    for key in other.keys:
        assert column(one, key).tobytes() == column(other, key).tobytes()


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


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lost_chunk, r"state.*every chunk must be there.*3 of 4"),
        (other_ends, r"meta/episode_ends must ascend from 1; found \[5, 4, 18\]"),
        (too_few_rows, r"state.*an array must have one row per step; found \(17, 5\) and 18 steps"),
        (unknown_codec, r"diffusion_policy_jpeg2k"),
        (no_action, r"action.*a ReplayBuffer must have data/action"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_problems_are_named(folder: Path, tmp_path: Path, break_it: Callable[[Path], None], words: str) -> None:
    break_it(folder)
    with pytest.raises(SourceError, match=r"problems? in the sources") as caught:
        convert(folder, tmp_path / "a.zarr", workers=0)
    assert any(re.search(words, str(problem)) for problem in caught.value.problems), caught.value.problems


def test_no_zip_file(tmp_path: Path) -> None:
    (tmp_path / "a.zarr.zip").write_bytes(b"PK no")
    with pytest.raises(SourceError, match="ReplayBuffer"):
        convert(tmp_path / "a.zarr.zip", tmp_path / "a.zarr", workers=0)

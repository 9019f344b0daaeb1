"""Rows for a viewer: what plain zarr reads, nothing but what was asked for, and an error instead of a wrong picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import robozarr
import synthetic
from robozarr.convert import convert
from robozarr.schemas.errors import CorruptChunkError, StoreError
from robozarr.view.rows import read_episode, read_rows


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of large frames: the first fills shard 0, the second lies in shard 1 alone."""
    folder = tmp_path_factory.mktemp("two")
    synthetic.write_libero(folder / "s" / "a_demo.hdf5", lengths=(32, 3), size=512, drop_keys=["obs/eye_in_hand_rgb"])
    convert(folder / "s", folder / "a.zarr", workers=0)
    assert robozarr.open_store(folder / "a.zarr").layout("steps/agentview_rgb").shard_rows == 32
    return folder / "a.zarr"


@given(st.data())
def test_rows_are_those_of_plain_zarr(sample_store: Path, data: st.DataObject) -> None:
    store = robozarr.open_store(sample_store)
    name = data.draw(st.sampled_from([name for name, key in store.keys.items() if not key.ragged]))
    rows = data.draw(st.lists(st.integers(0, store.n_steps - 1), max_size=6))
    expected = np.asarray(zarr.open_array(sample_store / "steps" / name, mode="r")[...])[rows]
    got = read_rows(store, name, rows)
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


def test_an_episode_is_read_and_nothing_else(two_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(two_shards, tmp_path / "a.zarr")
    (tmp_path / "a.zarr/steps/agentview_rgb/c/0/0/0/0").unlink()
    store = robozarr.open_store(tmp_path / "a.zarr")
    html = store.episode(1)._repr_html_()
    assert html.count("<img") == 3
    assert len(store.episode(-1).video().data) > 1000
    with pytest.raises(
        CorruptChunkError, match=r"steps/agentview_rgb · shard 0 .*every expected shard must exist.*No such file"
    ):
        store.episode(0).filmstrip()


def test_a_flipped_bit_is_an_error_where_it_lies_and_nowhere_else(sample_store: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_store, tmp_path / "a.zarr")
    shard = tmp_path / "a.zarr/steps/agentview_rgb/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    store = robozarr.open_store(tmp_path / "a.zarr")
    with pytest.raises(CorruptChunkError, match=r"shard 0 .* · chunk 0 \(rows 0 to 1\): the chunk must agree with its crc32c"):
        read_rows(store, "agentview_rgb", [0])
    assert read_rows(store, "agentview_rgb", [1]).any()
    (tmp_path / "a.zarr/steps/agentview_rgb/c/0/0/0/0").write_bytes(b"")
    with pytest.raises(CorruptChunkError, match="cannot mmap an empty file"):
        read_rows(store, "agentview_rgb", [1])


def test_a_whole_shard_of_another_store_is_an_error(tmp_path: Path) -> None:
    for seed in (0, 1):
        synthetic.write_libero(tmp_path / f"s{seed}/a_demo.hdf5", seed=seed, size=16)
        convert(tmp_path / f"s{seed}", tmp_path / f"{seed}.zarr", workers=0, profile="raw")
    for name in ("agentview_rgb/c/0/0/0/0", "ee_pos/c/0/0"):
        shutil.copy(tmp_path / "1.zarr/steps" / name, tmp_path / "0.zarr/steps" / name)
    store = robozarr.open_store(tmp_path / "0.zarr")
    with pytest.raises(
        CorruptChunkError, match=r"the frame must have the checksum that checksums/ states .* found another frame"
    ):
        read_rows(store, "agentview_rgb", [2])
    with pytest.raises(CorruptChunkError, match=r"steps/ee_pos · episode 1: its rows must agree with checksums/ee_pos"):
        read_episode(store, "ee_pos", 1)


def test_keys_that_are_not_there_or_ragged_are_refused(sample_store: Path) -> None:
    store = robozarr.open_store(sample_store)
    with pytest.raises(StoreError, match="no key 'rgb'"):
        read_rows(store, "rgb", [0])
    with pytest.raises(StoreError, match="is ragged"):
        store.episode(0)["states"]
    with pytest.raises(StoreError, match="episodes are 0 … 3; got 4"):
        store.episode(4)

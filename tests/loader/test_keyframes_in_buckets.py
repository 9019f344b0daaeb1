"""Chunks of frames in a bucket: what is served is what the local store serves, or an error that names the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bucket_stores import assert_same, epoch, files_of, make_dataset, n_frames, upload
from faulty import Proxy, broken, first_n

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.loader.frames import remote
from robozarr.loader.schedule import REMOTE_LOCALITY
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.frame_chunk import ENTRY
from robozarr.schemas.layout import Profile
from robozarr.schemas.shard import read_index
from robozarr.store.locate import place_of

SPEC = {"agentview_rgb": [-1, 0], "eye_in_hand_rgb": [-1, 0], "agentview_depth": [0], "actions": range(4)}


NOT_READ = ("obs/ee_pos", "obs/ee_ori", "obs/ee_states", "obs/gripper_states", "obs/joint_states", "robot_states", "rewards")
COMPACT = pytest.mark.slow(reason="a second upload; frames/test_keyframe_stores.py reads both from a folder")


@pytest.fixture(scope="module", params=["lean", pytest.param("compact", marks=COMPACT)])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 steps: chunks hold two episodes."""
    folder = tmp_path_factory.mktemp("local")
    source = synthetic.write_libero(folder / "s" / "a_demo.hdf5", lengths=(7, 41, 32), size=32, depth=True, drop_keys=NOT_READ)
    profile: Profile = request.param
    convert([source], folder / "a.zarr", profile=profile, workers=0)
    return folder / "a.zarr"


@pytest.fixture(scope="module")
def url(local: Path, s3: str) -> str:
    return upload(local, s3)


@pytest.mark.parametrize(
    "whole_bytes",
    [
        pytest.param(0, id="tables first"),
        pytest.param(1 << 30, id="whole chunks", marks=pytest.mark.slow(reason="reads all epochs again")),
    ],
)
def test_epochs_are_the_local_ones(
    local: Path, url: str, proxy: Proxy, tmp_path: Path, whole_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(remote, "GAP_BYTES", 200)
    here = rz.open_store(local)
    expected = epoch(here, SPEC, 6)
    assert_same(epoch(rz.open_store(url, proxy.url), SPEC, 6), expected)
    assert_same(epoch(rz.open_store(url, proxy.url), SPEC, 6, threads=3, cache="host"), expected)
    in_blocks = epoch(here, SPEC, 6, locality=REMOTE_LOCALITY)
    assert_same(epoch(rz.open_store(url, proxy.url), SPEC, 6, locality=None), in_blocks)

    cached = rz.open_store(url, proxy.url, cache_dir=tmp_path / "cache")
    assert_same(epoch(cached, SPEC, 6), expected)
    proxy.reset()
    again = rz.open_store(url, proxy.url, cache_dir=tmp_path / "cache")
    assert_same(epoch(again, SPEC, 6), expected)
    assert n_frames(proxy) == 0  # indexes, tables and frames come from the folder


def test_what_a_cache_lost_or_changed_is_fetched_again(local: Path, url: str, proxy: Proxy, tmp_path: Path) -> None:
    expected = epoch(rz.open_store(local), SPEC, 6)
    epoch(rz.open_store(url, proxy.url, cache_dir=tmp_path / "cache"), SPEC, 6)
    rng = np.random.default_rng(0)
    files = [file for file in files_of(tmp_path / "cache") if file.stat().st_size > 3000]
    assert files
    for _ in range(4):
        for file in files:
            data = bytearray(file.read_bytes())
            for at in rng.integers(0, len(data), 12).tolist():
                data[at] ^= 0x41
            start = int(rng.integers(0, len(data)))
            data[start : start + 400] = bytes(len(data[start : start + 400]))
            file.write_bytes(data)
        assert_same(epoch(rz.open_store(url, proxy.url, cache_dir=tmp_path / "cache"), SPEC, 6), expected)


def test_bytes_that_change_on_the_way_are_asked_for_again(
    local: Path, url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WHOLE_BYTES", 0)
    expected = epoch(rz.open_store(local), SPEC, 6)
    for n in (1, 2):  # of each object's answers: of the index, of tables, of frames
        store = rz.open_store(url, proxy.url)
        with broken(proxy, first_n(n, "flipped", lambda request: "steps/" in request.path and "_rgb/c/" in request.path)):
            assert_same(epoch(store, SPEC, 6), expected)


def test_a_damaged_frame_is_named_after_three_attempts(local: Path, url: str, s3: str) -> None:
    store = rz.open_store(local)
    layout = store.layout("steps/agentview_rgb")
    good = (local / layout.shard_path(0)).read_bytes()
    data = bytearray(good)
    offset = int(read_index(bytes(data), layout, 0)[1, 0])  # of rows 16 to 32
    entry = offset + 5 * ENTRY.itemsize
    data[offset + int.from_bytes(data[entry : entry + 4], "little") + 1] ^= 1  # a byte of the frame of row 21
    where = r"agentview_rgb · shard 0 .* · chunk 1 \(rows 16 to 32\) · frame 5 \(row 21\) · episode 1 \(demo_1\), step 14: "
    place = place_of(url, s3)
    place.write(layout.shard_path(0), [data])
    try:
        with pytest.raises(CorruptChunkError, match=where):
            make_dataset(rz.open_store(url, s3), SPEC).read(range(80))
        dataset = make_dataset(rz.open_store(url, s3), SPEC)
        assert np.array_equal(dataset.read([30])["agentview_rgb"], make_dataset(store, SPEC).read([30])["agentview_rgb"])
    finally:
        place.write(layout.shard_path(0), [good])

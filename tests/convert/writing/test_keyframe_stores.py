"""Stores with keyframes, end to end: exact, appended to as if made at once, resumed, looked at, refused where damaged."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest
import xarray
from effort import some
from killing import same_bytes
from numpy.typing import NDArray
from stored import stored_values

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.frame_chunk import ENTRY
from robozarr.schemas.layout import Profile
from robozarr.schemas.shard import read_index
from robozarr.view.picture_checks import check_cameras
from robozarr.view.rows import read_episode, read_rows

PROFILES: tuple[Profile, ...] = ("lean", "compact")
SOME = [
    pytest.param(profile, marks=[pytest.mark.slow(reason="the same on another profile")] if profile == "compact" else [])
    for profile in PROFILES
]
"""Both; compact, which differs in the encoder alone, only where there is time."""
LENGTHS = (7, 20, 13, 3)
OPTIONS: dict[str, Any] = {"size": 24, "depth": True, "drop_keys": (*few_keys.OF_LIBERO, "dones", "obs/eye_in_hand_depth")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of 43 steps: chunks hold two episodes, files begin within chunks. One camera hangs for a while."""
    folder = tmp_path_factory.mktemp("sources")
    files = [
        synthetic.write_libero(folder / "s" / f"task{number}_demo.hdf5", lengths=LENGTHS, seed=number, **OPTIONS)
        for number in range(3)
    ]
    with h5py.File(files[0], "a") as file:
        frames = file["data/demo_1/obs/agentview_rgb"]
        frames[4:19] = frames[4]
    return files


@pytest.fixture(scope="module", params=SOME)
def made(request: pytest.FixtureRequest, sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Profile, Path]:
    store = tmp_path_factory.mktemp("made") / "a.zarr"
    convert(sources, store, workers=0, profile=request.param)
    return request.param, store


def test_every_value_comes_back(made: tuple[Profile, Path], sources: list[Path]) -> None:
    profile, path = made
    assert verify(path, sources=sources, workers=0).violations == ()
    store = robozarr.open_store(path)
    assert store.metadata.profile == profile
    opened = xarray.open_zarr(path / "steps", consolidated=False)
    for key in store.metadata.keys:
        layout = None if key.ragged else store.layout(f"steps/{key.name}")
        assert layout is None or layout.codec == (f"frames-{profile}" if key.frame else layout.codec)
        if not key.ragged and not some(1, 0):
            opened[key.name].load()  # at once, where xarray would read the shards anew for each episode
        for episode, (start, length) in enumerate(zip(store.episodes.start, store.episodes.length, strict=True)):
            with h5py.File(sources[store.episodes.source[episode]]) as file:
                expected = file[f"data/{store.episodes.demo[episode]}/{key.source}"][...]
            got = [stored_values(store, key, int(start), int(length))]
            if not key.ragged:
                got += [read_episode(store, key.name, episode), opened[key.name][start : start + length].values]
            for values in got:
                assert values.dtype == expected.dtype
                assert values.tobytes() == expected.tobytes(), key.name


def test_rows_in_any_order(made: tuple[Profile, Path]) -> None:
    store = robozarr.open_store(made[1])
    whole: NDArray[Any] = np.asarray(store.array("agentview_rgb")[...])
    for rows in ([], [0], [42, 3, 3, 17, 128, 16], range(128, -1, -1)):
        assert np.array_equal(read_rows(store, "agentview_rgb", rows), whole[list(rows)])


def test_appends_equal_a_store_made_at_once(made: tuple[Profile, Path], sources: list[Path], tmp_path: Path) -> None:
    profile, whole = made
    store = tmp_path / "a.zarr"
    convert(sources[:1], store, workers=0, profile=profile)
    for n in (2, 3):
        convert(sources[:n], store, workers=0, append=True)
    assert same_bytes(store, whole)


def test_no_episode_reads_another_ones_keyframe(made: tuple[Profile, Path], sources: list[Path]) -> None:
    store = robozarr.open_store(made[1])
    for name in ("agentview_rgb", "agentview_depth"):
        layout = store.layout(f"steps/{name}")
        data = (made[1] / layout.shard_path(0)).read_bytes()
        keyframes: list[int] = []
        for offset, _ in read_index(data, layout, 0).tolist():
            table = np.frombuffer(data, ENTRY, 16, offset)
            keyframes += (len(keyframes) + table["keyframe"][table["length"] > 0]).tolist()
        assert np.array_equal(store.index.episode[keyframes], store.index.episode)


def test_a_run_that_was_interrupted_ends_in_the_same_bytes(
    made: tuple[Profile, Path], sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, whole = made
    store = tmp_path / "a.zarr"

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robozarr.convert.run.write_statistics", end)
        with pytest.raises(KeyboardInterrupt):
            convert(sources, store, workers=0, profile=profile)
    shard = store / "steps/agentview_rgb/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 1
    shard.write_bytes(data)
    report = convert(sources, store, workers=0, profile=profile)
    assert report.n_kept == report.n_partitions - 1
    assert same_bytes(store, whole)


def test_a_report_finds_what_it_finds_without_keyframes(
    made: tuple[Profile, Path], sources: list[Path], tmp_path: Path
) -> None:
    convert(sources, tmp_path / "fast.zarr", workers=0)
    fast, store = robozarr.open_store(tmp_path / "fast.zarr"), robozarr.open_store(made[1])
    found = list(check_cameras(store))
    assert found == list(check_cameras(fast))
    assert any("frozen" in finding.title.lower() for finding in found)


def damaged(store: Path, folder: Path, at: int) -> robozarr.Store:
    """A copy with one byte of the first shard of the agent's view changed."""
    shutil.copytree(store, folder / "a.zarr")
    shard = folder / "a.zarr/steps/agentview_rgb/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(data)
    return robozarr.open_store(folder / "a.zarr")


def test_a_changed_byte_names_array_shard_chunk_frame_and_episode(made: tuple[Profile, Path], tmp_path: Path) -> None:
    layout = robozarr.open_store(made[1]).layout("steps/agentview_rgb")
    data = (made[1] / layout.shard_path(0)).read_bytes()
    offset = int(read_index(data, layout, 0)[1, 0])
    begin = int(np.frombuffer(data, ENTRY, 16, offset)["offset"][12])  # of row 28, the first of the third episode but one
    store = damaged(made[1], tmp_path, offset + begin)
    where = r"steps/agentview_rgb · shard 0 \(steps/agentview_rgb/c/0/0/0/0\) · chunk 1 \(rows 16 to 32\) · frame 12 \(row 28\)"
    with pytest.raises(
        CorruptChunkError, match=rf"^{where} · episode 2 \(demo_2\), step 1: the frame must agree with its crc32c"
    ):
        read_rows(store, "agentview_rgb", [28])
    (violation,) = verify(store.place, workers=0).violations
    assert violation.rule == "M9"
    assert re.match(rf"{where} · episode 2: the frame must agree with its crc32c; found other bytes", violation.text)


def test_a_chunk_of_another_store_is_an_error(made: tuple[Profile, Path], sources: list[Path], tmp_path: Path) -> None:
    """Each store whole, the shards of a camera mixed up."""
    other = synthetic.write_libero(tmp_path / "x/task0_demo.hdf5", lengths=LENGTHS, seed=9, **OPTIONS)
    convert([other, *sources[1:]], tmp_path / "b.zarr", workers=0, profile=made[0])
    shutil.copytree(made[1], tmp_path / "a.zarr")
    shard = "steps/agentview_rgb/c/0/0/0/0"
    shutil.copy(tmp_path / "b.zarr" / shard, tmp_path / "a.zarr" / shard)
    store = robozarr.open_store(tmp_path / "a.zarr")
    with pytest.raises(CorruptChunkError, match=r"frame \d+ \(row \d+\) · episode .*: the frame must have the checksum"):
        read_rows(store, "agentview_rgb", [5])
    assert {violation.rule for violation in verify(store.place, workers=0).violations} == {"M21"}

"""A source is its content: what an append, a resumed conversion and a verification take for the same file, and what not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import few_keys
import h5py
import pytest
from effort import some
from hypothesis import given
from hypothesis import strategies as st
from killing import files_of
from mortal import write_source

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.sources.content import digest_of_file
from robozarr.convert.stages import scan_sources
from robozarr.schemas.digest import BLOCK_BYTES, EDGE_BYTES, N_BLOCKS, sample_ranges, sampled_digest
from robozarr.schemas.errors import IncompleteStoreError, SourceError, StoreError

REST = (*few_keys.OF_LIBERO, "states", "dones", "obs/joint_states")
SMALL: dict[str, Any] = {"lengths": (3, 2), "size": 8, "model_file_bytes": 9, "drop_keys": REST}


def names(store: Path) -> list[str]:
    return [source.name for source in robozarr.open_store(store).metadata.sources]


def robomimic(path: Path, env: str, seed: int) -> Path:
    options: dict[str, Any] = {"next_obs": False, "drop_keys": (*few_keys.OF_ROBOMIMIC, "states", "rewards")}
    synthetic.write_robomimic(path, lengths=(3, 2), size=8, seed=seed, **options)
    with h5py.File(path, "r+") as file:
        arguments = {**json.loads(file["data"].attrs["env_args"]), "env_name": env}
        file["data"].attrs["env_args"] = json.dumps(arguments)
    return path


@pytest.mark.parametrize("size", [0, 1, 2 * EDGE_BYTES + N_BLOCKS * BLOCK_BYTES, 2 * EDGE_BYTES + N_BLOCKS * BLOCK_BYTES + 1])
def test_ranges_tile_small_files_and_stay_inside_large_ones(size: int) -> None:
    ranges = list(sample_ranges(size))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == size
    assert all(0 <= start <= stop <= size for start, stop in ranges)


@given(size=st.integers(2**22 + 1, 2**50))
def test_of_any_large_file_four_mebibytes_are_read_its_ends_whole(size: int) -> None:
    ranges = list(sample_ranges(size))
    assert sum(stop - start for start, stop in ranges) == 2**22
    assert all(0 <= start < stop <= size for start, stop in ranges)
    assert ranges == sorted(ranges)
    assert (ranges[0], ranges[-1]) == ((0, EDGE_BYTES), (size - EDGE_BYTES, size))


def test_a_digest_is_of_size_and_content(tmp_path: Path) -> None:
    data = os.urandom(2**22 + 100_000)
    (tmp_path / "a").write_bytes(data)
    assert digest_of_file(tmp_path / "a") == sampled_digest(len(data), lambda start, n: data[start : start + n])
    for at in (0, EDGE_BYTES - 1, len(data) - EDGE_BYTES, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert digest_of_file(tmp_path / "b") != digest_of_file(tmp_path / "a"), at
    (tmp_path / "b").write_bytes(data[:-1])
    assert digest_of_file(tmp_path / "b") != digest_of_file(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        digest_of_file(tmp_path / "pipe")


def test_one_name_in_two_folders_is_two_sources_at_once_or_appended(tmp_path: Path) -> None:
    """robomimic's lift/ph/image.hdf5 and can/ph/image.hdf5."""
    lift = robomimic(tmp_path / "rm/lift/ph/image.hdf5", "Lift", 0)
    can = robomimic(tmp_path / "rm/can/ph/image.hdf5", "Can", 1)
    convert(tmp_path / "rm", tmp_path / "both.zarr", workers=0)
    assert names(tmp_path / "both.zarr") == ["can/ph/image.hdf5", "lift/ph/image.hdf5"]
    convert(can, tmp_path / "a.zarr", workers=0)
    assert names(tmp_path / "a.zarr") == ["ph/image.hdf5"]
    shutil.copytree(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert convert([can, lift], tmp_path / "a.zarr", workers=0, append=True).n_appended == 1
    a, both = (robozarr.open_store(tmp_path / f"{name}.zarr").metadata for name in ("a", "both"))
    assert [(s.name, s.digest) for s in a.sources] == [(s.name, s.digest) for s in both.sources]
    assert convert(lift, tmp_path / "b.zarr", workers=0, append=True).n_appended == 1
    assert names(tmp_path / "b.zarr") == ["ph/image.hdf5", "lift/ph/image.hdf5"]  # of the first, only this much is known
    for name in ("a", "b", "both")[: some(3, 1)]:
        assert verify(tmp_path / f"{name}.zarr", sources=tmp_path / "rm", workers=0).ok
        assert convert(tmp_path / "rm", tmp_path / f"{name}.zarr", workers=0, append=True).n_appended == 0


def test_equal_size_and_time_are_no_equal_file(tmp_path: Path) -> None:
    paths = [
        synthetic.write_libero(tmp_path / f"ss/{name}/ph/image.hdf5", instruction=text, seed=seed, **SMALL)
        for seed, (name, text) in enumerate([("x", "open it"), ("y", "shut it")])
    ]
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    assert paths[0].stat().st_size == paths[1].stat().st_size
    convert(paths[0], tmp_path / "a.zarr", workers=0)
    assert convert(tmp_path / "ss", tmp_path / "a.zarr", workers=0, append=True).n_appended == 1
    assert names(tmp_path / "a.zarr") == ["x/ph/image.hdf5", "y/ph/image.hdf5"]
    assert verify(tmp_path / "a.zarr", sources=tmp_path / "ss", workers=0).ok


def test_a_moved_folder_holds_the_same_sources_and_a_changed_file_is_named(tmp_path: Path) -> None:
    paths = [synthetic.write_libero(tmp_path / "here/s" / f"{n}_demo.hdf5", seed=i, **SMALL) for i, n in enumerate("ab")]
    convert(paths, tmp_path / "a.zarr", workers=0)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    os.utime(tmp_path / "there/s/a_demo.hdf5", ns=(5, 5))
    assert convert(tmp_path / "there", tmp_path / "a.zarr", workers=0, append=True).n_appended == 0
    assert verify(tmp_path / "a.zarr", sources=tmp_path / "there", workers=0).ok
    (tmp_path / "here/s").rename(tmp_path / "here/renamed")
    assert convert(tmp_path / "here", tmp_path / "a.zarr", workers=0, append=True).n_appended == 0
    file = tmp_path / "there/s/a_demo.hdf5"
    with h5py.File(file, "r+") as opened:
        opened["data/demo_0/actions"][0, 0] += 1
    os.utime(file, ns=(5, 5))  # same size, same time
    before = {name: (tmp_path / "a.zarr" / name).read_bytes() for name in files_of(tmp_path / "a.zarr")}
    with pytest.raises(SourceError, match="sources of the store have changed; nothing was appended") as caught:
        convert(file, tmp_path / "a.zarr", workers=0, append=True)
    assert "s/a_demo.hdf5 must be the file that the store holds" in str(caught.value)
    assert {name: (tmp_path / "a.zarr" / name).read_bytes() for name in files_of(tmp_path / "a.zarr")} == before
    found = verify(tmp_path / "a.zarr", sources=tmp_path / "there", workers=0)
    assert any("index/flags: not what the sources say" in violation.text for violation in found.violations)
    with h5py.File(file, "r+") as opened:
        opened["data/demo_0/actions"][0, 0] -= 1
    with file.open("ab") as data:  # in nothing that the store holds
        data.write(b"\0")
    (violation,) = verify(tmp_path / "a.zarr", sources=tmp_path / "there", workers=0).violations
    assert "s/a_demo.hdf5" in violation.text


def test_a_source_that_changed_within_its_size_and_time_is_no_source_to_go_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic.write_libero(tmp_path / "s/a_demo.hdf5", **SMALL)
    os.utime(path, ns=(5, 5))

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robozarr.convert.run.write_statistics", end)
        with pytest.raises(KeyboardInterrupt):
            convert(path, tmp_path / "a.zarr", workers=0)
    with h5py.File(path, "r+") as opened:
        opened["data/demo_0/actions"][0, 0] += 1
    os.utime(path, ns=(5, 5))
    with pytest.raises(SourceError, match="sources have changed since this convert began"):
        convert(path, tmp_path / "a.zarr", workers=0)
    convert(path, tmp_path / "a.zarr", workers=0, overwrite=True)
    assert verify(tmp_path / "a.zarr", sources=path, workers=0).ok


def test_an_append_of_nothing_usable_is_an_error_each_time_and_the_store_stays(tmp_path: Path) -> None:
    good = synthetic.write_libero(tmp_path / "a/x_demo.hdf5", seed=1, **SMALL)
    unlike = synthetic.write_libero(tmp_path / "b/y_demo.hdf5", seed=2, **{**SMALL, "size": 24})
    convert(good, tmp_path / "a.zarr", workers=0)
    before = {name: (tmp_path / "a.zarr" / name).read_bytes() for name in files_of(tmp_path / "a.zarr")}
    for sources in (unlike, [good, unlike], [good, unlike]):
        with pytest.raises(SourceError, match=r"no demo is left to append; .*nothing was written") as caught:
            convert(sources, tmp_path / "a.zarr", workers=0, append=True, on_error="skip")
        assert "agentview_rgb" in str(caught.value)
        assert {name: (tmp_path / "a.zarr" / name).read_bytes() for name in files_of(tmp_path / "a.zarr")} == before
    assert verify(tmp_path / "a.zarr", sources=good, workers=0).ok


def test_a_store_of_format_1_is_not_appended_to(tmp_path: Path) -> None:
    paths = [synthetic.write_libero(tmp_path / "s" / f"{n}_demo.hdf5", seed=i, **SMALL) for i, n in enumerate("ab")]
    convert(paths[0], tmp_path / "a.zarr", workers=0)
    root = json.loads((tmp_path / "a.zarr/zarr.json").read_text())
    attributes = root["attributes"]["robozarr"]
    attributes["format_version"] = 1
    for name in ("identity", "files"):
        del attributes[name]
    for source in attributes["sources"]:
        del source["digest"]
    (tmp_path / "a.zarr/zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=r"has format 1, and this robozarr appends to format 2: .*convert all sources"):
        convert(paths, tmp_path / "a.zarr", workers=0, append=True)
    convert(paths, tmp_path / "a.zarr", workers=0, overwrite=True)
    assert verify(tmp_path / "a.zarr", sources=paths, workers=0).ok


@pytest.mark.parametrize("append", [False, True])
def test_a_file_that_takes_anothers_place_size_and_time_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, append: bool
) -> None:
    """As ``cp -p`` or an archive gives them, after the scan."""
    paths = [write_source(tmp_path / f"s{number}" / "a_demo.hdf5", seed=number) for number in (2, 8, 14)]
    if append:
        convert(paths[2], tmp_path / "a.zarr", workers=0)

    def scan_and_swap(*args: Any, **options: Any) -> Any:
        found = scan_sources(*args, **options)
        status = paths[0].stat()
        paths[1].replace(paths[0])
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
        assert paths[0].stat().st_size == status.st_size
        return found

    monkeypatch.setattr("robozarr.convert.run.scan_sources", scan_and_swap)
    with pytest.raises(SourceError, match="a source must not change while it is converted"):
        convert(paths[0], tmp_path / "a.zarr", workers=0, append=append)
    if append:
        assert robozarr.open_store(tmp_path / "a.zarr").n_episodes == 1
    else:
        with pytest.raises(IncompleteStoreError):
            robozarr.open_store(tmp_path / "a.zarr")

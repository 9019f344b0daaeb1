"""Appending: several appends equal one conversion, what is there stays, and a kill leaves the old store or the new one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from killing import convert_command, files_of, run_and_kill, same_bytes

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.journal import FOLDER
from robozarr.schemas.errors import SourceError, StoreError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(3):
        path = tmp_path / "s" / f"task{number}_demo.hdf5"
        synthetic.write_libero(path, lengths=(40, 41), size=160, seed=number, n_states=20 + number, depth=True)
    return tmp_path / "s"


def test_appends_equal_one_conversion_and_rewrite_last_shards_only(tmp_path: Path, source: Path) -> None:
    paths, store = sorted(source.iterdir()), tmp_path / "a.zarr"
    for n, path in enumerate(paths):
        convert(path, store, workers=0, append=n > 0)
    convert(source, tmp_path / "b.zarr", workers=0)
    assert same_bytes(store, tmp_path / "b.zarr"), files_of(store)
    assert convert(source, store, workers=0, append=True).n_appended == 0


def test_bad_appends_are_refused_and_leave_the_store_as_it_was(tmp_path: Path, source: Path) -> None:
    paths, store = sorted(source.iterdir()), tmp_path / "a.zarr"
    with pytest.raises(StoreError, match="no store is there that could be appended to"):
        convert(paths[0], store, workers=0, append=True)
    convert(paths[0], store, workers=0)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    synthetic.write_libero(paths[1], size=24, depth=True)
    with pytest.raises(SourceError, match="a step is"):
        convert(paths[1], store, workers=0, append=True)
    synthetic.write_libero(paths[0], lengths=(4, 4), size=160, depth=True)
    with pytest.raises(SourceError, match="sources of the store have changed; nothing was appended"):
        convert(paths[0], store, workers=0, append=True)
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before


def test_killed_appends_leave_the_old_store_and_go_on(tmp_path: Path, source: Path) -> None:
    paths, rng = sorted(source.iterdir()), random.Random(0)
    convert(source, tmp_path / "b.zarr", workers=0)
    for number in range(4):
        store = tmp_path / f"{number}.zarr"
        convert(paths[0], store, workers=0)
        command = convert_command(source, "--store", store, "--append", "-w", "0")
        run_and_kill(command, rng.uniform(0, 0.4), store, until=f"{FOLDER}/plan.json")
        if json.loads((store / "zarr.json").read_bytes())["attributes"]["robozarr"]["complete"]:
            assert robozarr.open_store(store).metadata.n_episodes in (2, 6)
        convert(source, store, workers=0, append=True)
        assert same_bytes(store, tmp_path / "b.zarr"), files_of(store)
    assert verify(store, sources=source, workers=0).ok

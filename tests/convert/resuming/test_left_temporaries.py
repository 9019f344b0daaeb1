"""What a killed converter had not renamed yet in its journal goes with the next one, whatever that finds to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import synthetic
from robozarr.convert import convert
from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas.errors import StoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source and its store."""
    folder = tmp_path_factory.mktemp("made")
    source = synthetic.write_libero(folder / "s/a_demo.hdf5", lengths=(3, 2), size=8, model_file_bytes=9)
    convert(source, folder / "a.zarr", workers=0)
    return source, folder / "a.zarr"


@pytest.mark.parametrize("lock", [False, True])
def test_of_an_append_that_was_killed_before_it_began(made: tuple[Path, Path], tmp_path: Path, lock: bool) -> None:
    source, store = made[0], Path(shutil.copytree(made[1], tmp_path / "a.zarr"))

    def leave() -> None:
        (store / FOLDER).mkdir()
        (store / FOLDER / f".fence.{'0' * 32}.robozarr-tmp").write_bytes(b"half")
        if lock:
            (store / FOLDER / "lock").write_bytes(b"")

    leave()
    assert convert(source, store, workers=0, append=True).n_appended == 0
    assert not (store / FOLDER).exists()
    leave()
    with pytest.raises(StoreError, match="already holds a store"):
        convert(source, store, workers=0)
    assert not (store / FOLDER).exists()
    leave()
    convert(source, store, workers=0, overwrite=True)
    assert not (store / FOLDER).exists()

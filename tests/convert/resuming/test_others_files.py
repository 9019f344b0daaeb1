"""What lies where a journal's files should be: another name of somebody's is not written to, what is no file is an error."""

from __future__ import annotations

import itertools
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from killing import files_of, same_bytes
from mortal import Killed, killed_at, write_source
from remote import new_place

import robozarr
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas.errors import StoreError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [write_source(folder / f"s{number}" / f"{name}_demo.hdf5", number) for number, name in enumerate("abc")]


@pytest.fixture(scope="module")
def made(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the first file; copy it."""
    store = tmp_path_factory.mktemp("made") / "a.zarr"
    convert(files[:1], store, workers=0)
    return store


def begun(files: list[Path], store: Path) -> None:
    """A conversion that was killed half-way, with a record of finished partitions."""
    with killed_at(120), pytest.raises(Killed):
        convert(files[:2], store, workers=0)
    assert (store / FOLDER / "done.jsonl").exists()


@pytest.mark.parametrize("options", [{}, {"append": True}, {"overwrite": True}])
def test_a_lock_that_is_somebodys_by_another_name_is_not_written_to(
    tmp_path: Path, files: list[Path], made: Path, options: dict[str, bool]
) -> None:
    store, precious = shutil.copytree(made, tmp_path / "a.zarr"), tmp_path / "precious"
    precious.write_text("mine")
    (store / FOLDER).mkdir()
    (store / FOLDER / "lock").hardlink_to(precious)
    if options:
        convert(files[1:2], store, workers=0, **options)  # type: ignore[arg-type]
    else:
        with pytest.raises(StoreError, match="already holds a store"):
            convert(files[1:2], store, workers=0)
    assert precious.read_text() == "mine"
    assert verify(store, workers=0).ok


def test_a_copy_of_hard_links_stays_what_it_was(tmp_path: Path, files: list[Path]) -> None:
    """``cp -al`` of an unfinished conversion, which then goes on."""
    store, copy = tmp_path / "a.zarr", tmp_path / "copy"
    begun(files, store)
    shutil.copytree(store, copy, copy_function=os.link)
    before = {name: (copy / name).read_bytes() for name in files_of(copy)}
    convert(files[:2], store, workers=0)
    assert {name: (copy / name).read_bytes() for name in files_of(copy)} == before
    convert(files[:2], copy, workers=0)
    assert same_bytes(store, copy)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "mine").write_text("")


KINDS: dict[str, Callable[[Path], None]] = {
    "folder": folder,
    "fifo": os.mkfifo,
    "zeros": lambda path: path.symlink_to("/dev/zero"),
}


def cases() -> Iterator[Any]:
    """Each kind by each name; with one option, and with the other where there is time."""
    options = [{"append": True}, {"overwrite": True}]
    for n, (name, kind) in enumerate(itertools.product(("lock", "fence", "plan.json", "commit", "stage"), KINDS)):
        for odd in (0, 1):
            marks = pytest.mark.slow(reason="tried with the other option") if odd else ()
            yield pytest.param(kind, name, options[(n + odd) % 2], marks=marks)


@pytest.mark.parametrize(("kind", "name", "options"), [*cases()])
def test_what_is_no_file_is_an_error_or_makes_way(
    tmp_path: Path, files: list[Path], made: Path, kind: str, name: str, options: dict[str, bool]
) -> None:
    store = shutil.copytree(made, tmp_path / "a.zarr")
    (store / FOLDER).mkdir()
    KINDS[kind](store / FOLDER / name)
    said = ""
    try:
        convert(files[1:2], store, workers=0, **options)  # type: ignore[arg-type]
    except StoreError as error:
        said = str(error)
    assert not said or str(store / FOLDER) in said
    assert robozarr.open_store(store).n_episodes == (1 if said else 3 if "append" in options else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_is_no_file(tmp_path: Path, files: list[Path], kind: str) -> None:
    store = tmp_path / "a.zarr"
    begun(files, store)
    (store / FOLDER / "done.jsonl").unlink()
    KINDS[kind](store / FOLDER / "done.jsonl")
    with pytest.raises(StoreError, match=r"done.jsonl: cannot be read: .*; remove it, then convert again"):
        convert(files[:2], store, workers=0)


@pytest.mark.parametrize("line", ["[" * 100_000, "null", '{"path": [1], "shard": 0, "size": 1, "crc32c": 2, "digest": ""}'])
def test_a_record_of_nonsense_means_that_nothing_is_finished(tmp_path: Path, files: list[Path], line: str) -> None:
    store = tmp_path / "a.zarr"
    begun(files, store)
    (store / FOLDER / "done.jsonl").write_text(f"{line}\n")
    (store / FOLDER / "lock").write_text("[" * 4096)
    assert convert(files[:2], store, workers=0).n_kept == 0
    assert verify(store, sources=files[:2], workers=0).ok


def test_arrays_that_somebody_added_stay(tmp_path: Path, files: list[Path], made: Path) -> None:
    """Beside the store's own, of whatever form, and a copy of one of them; of an append that was given up, too."""
    store = shutil.copytree(made, tmp_path / "a.zarr")
    for path, options in (("steps/mine", {}), ("stats/mine", {"shards": (4, 3)}), ("episodes/splits/mine", {"fill_value": 1})):
        zarr.create_array(store / path, shape=(4, 3), chunks=(2, 3), dtype="f4", **options)[:] = 7
    shutil.copytree(store / "steps/actions", store / "steps/actions_before")
    before = {name: (store / name).read_bytes() for name in files_of(store) if "mine" in name or "before" in name}
    assert len(before) == 10
    convert(files[1:2], store, workers=0, append=True)
    with killed_at(20), pytest.raises(Killed):
        convert(files[2:], store, workers=0, append=True)
    convert(files[2:], store, workers=0, overwrite=True, keys=["states"])
    assert {name: (store / name).read_bytes() for name in before} == before
    assert not (store / "steps/agentview_rgb").exists()


def test_in_a_folder_that_was_removed(tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for call in (lambda: convert(files[:1], "a.zarr", workers=0), lambda: robozarr.open_store("a.zarr")):
        with pytest.raises(StoreError, match=r"a.zarr: the folder that this process works in was removed"):
            call()


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_folders_that_a_console_shows_are_no_files(s3: str, files: list[Path]) -> None:
    """Objects of no bytes whose names end in ``/``."""
    place = new_place(s3)

    def mark(*names: str) -> None:
        for name in names:
            url = f"{s3}/{place.url.removeprefix('s3://')}/{name}"
            urllib.request.urlopen(urllib.request.Request(url, b"", method="PUT")).close()

    mark("")
    convert(files[:1], place, workers=0)
    mark("steps/", "steps/actions/c/")
    convert(files[1:2], place, workers=0, append=True)
    assert verify(place, sources=files[:2], workers=0).ok

"""Ways back from an interruption are guarded as a fresh start is; what is not the store's stays as it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exits import exit_code
from killing import files_of, same_bytes
from remote import environment, new_place

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas.errors import RoboZarrError, SourceError, StoreError
from robozarr.store.bucket import BucketPlace
from robozarr.store.folder import FolderPlace
from robozarr.store.locate import place_of
from robozarr.store.place import Place

DROPPED = (
    "robot_states", "rewards", "dones", "obs/eye_in_hand_rgb", "obs/ee_states", "obs/ee_pos", "obs/ee_ori",
    "obs/gripper_states",
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources") / "s"
    small: dict[str, Any] = {"lengths": (3, 2), "size": 8, "model_file_bytes": 9, "drop_keys": DROPPED}
    return [synthetic.write_libero(folder / f"{name}_demo.hdf5", seed=i, **small) for i, name in enumerate("abc")]


@pytest.fixture(scope="module")
def made(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the first file; copy it."""
    store = tmp_path_factory.mktemp("made") / "a.zarr"
    convert(files[:1], store, workers=0)
    return store


class Killed(BaseException):
    pass


def append_killed_in_its_commit(files: list[Path], store: Place, after: int = 3) -> None:
    kind, n = (FolderPlace if store.folder else BucketPlace), [0]
    move = kind.move

    def move_or_die(self: Place, path: str, to: Place) -> None:
        n[0] += 1
        if n[0] > after:
            raise Killed
        move(self, path, to)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "move", move_or_die)
        with pytest.raises(Killed):
            convert(files, store, workers=0, append=True)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow(reason="over HTTP"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield place_of(tmp_path / "a.zarr")
    else:
        yield new_place(request.getfixturevalue("s3"))


@pytest.mark.parametrize("options", [{}, {"append": True}, {"overwrite": True}])
def test_after_a_commit_is_finished_the_place_is_looked_at_again(
    store: Place, files: list[Path], options: dict[str, bool]
) -> None:
    convert(files[:1], store, workers=0)
    append_killed_in_its_commit(files[1:2], store)
    if not options:
        with pytest.raises(StoreError, match="already holds a store; give another --store, or --append"):
            convert(files[2:], store, workers=0)
    else:
        convert(files[2:], store, workers=0, **options)  # type: ignore[arg-type]
    held = [source.name for source in robozarr.open_store(store).metadata.sources]
    expected = {"": ["a", "b"], "append": ["a", "b", "c"], "overwrite": ["c"]}["".join(options)]
    assert held == [f"s/{name}_demo.hdf5" for name in expected]
    assert verify(store, sources=files, workers=0).ok


def test_an_overwrite_that_fails_in_its_scan_leaves_the_finished_append(tmp_path: Path, files: list[Path]) -> None:
    store = place_of(tmp_path / "a.zarr")
    convert(files[:1], store, workers=0)
    append_killed_in_its_commit(files[1:2], store)
    bad = tmp_path / "bad.hdf5"
    bad.write_bytes(b"no HDF5")
    with pytest.raises(SourceError, match="nothing was written"):
        convert(bad, store, workers=0, overwrite=True)
    assert verify(store, sources=files, workers=0).ok
    assert robozarr.open_store(store).n_episodes == 4


def test_a_first_document_that_was_not_renamed_yet_is_no_stranger(tmp_path: Path, files: list[Path]) -> None:
    store = tmp_path / "a.zarr"
    (store / FOLDER).mkdir(parents=True)
    (store / f".zarr.json.{'0' * 32}.robozarr-tmp").write_bytes(b"half")
    convert(files[:1], store, workers=0)
    assert verify(store, workers=0).ok
    other = tmp_path / "b.zarr"
    other.mkdir()
    (other / ".mine.robozarr-tmp").write_bytes(b"mine")
    with pytest.raises(StoreError, match="is not a robozarr store"):
        convert(files[:1], other, workers=0)
    assert (other / ".mine.robozarr-tmp").read_bytes() == b"mine"


def test_a_record_that_cannot_be_read_is_an_error_and_to_replace_is_no_guess(tmp_path: Path, files: list[Path]) -> None:
    store = tmp_path / "a.zarr"
    convert(files[:1], store, workers=0)
    (store / FOLDER).mkdir()
    (store / FOLDER / "plan.json").write_text("{")
    for options in ({}, {"append": True}):
        with pytest.raises(StoreError, match=r"plan.json: cannot be read .*start again with --overwrite"):
            convert(files[1:2], store, workers=0, **options)  # type: ignore[arg-type]
    convert(files[1:2], store, workers=0, overwrite=True)
    assert verify(store, sources=files[1:2], workers=0).ok


def bystanders(store: Path, inner: Path) -> dict[str, bytes]:
    for folder in ("steps/mine", "steps/agentview_rgb", "episodes/splits", ""):
        (store / folder).mkdir(exist_ok=True)
        (store / folder / "notes.txt").write_text(folder)
    for folder in ("steps", "ragged", "episodes/stats", "tasks/embedding"):
        shutil.copytree(inner, store / folder / "inner.zarr")
    (store / "steps/inner.zarr/steps/actions" / f".zarr.json.{'1' * 32}.robozarr-tmp").write_bytes(b"of another writer")
    (store.parent / "a.zarr.bak").mkdir()
    (store.parent / "a.zarr.bak/zarr.json").write_text("beside")
    kept = ("notes.txt", "inner.zarr/", "a.zarr.bak")
    return {
        str(path): path.read_bytes() for path in store.parent.rglob("*") if path.is_file() and any(k in str(path) for k in kept)
    }


def test_bystanders_and_stores_inside_survive_every_command(tmp_path: Path, files: list[Path]) -> None:
    store = tmp_path / "here/a.zarr"
    convert(files[:1], store, workers=0)
    convert(files[2:], tmp_path / "inner.zarr", workers=0)
    there = bystanders(store, tmp_path / "inner.zarr")
    n_inner = len(files_of(tmp_path / "inner.zarr"))
    assert len(there) == 4 * n_inner + 1 + 4 + 1
    (store / "steps/agentview_rgb/notes.txt").unlink()  # among shards it breaks M7, and an append refuses that
    del there[str(store / "steps/agentview_rgb/notes.txt")]
    convert(files[1:2], store, workers=0, append=True)
    convert(files[:1], store, workers=0, overwrite=True, keys=["joint_states"])
    assert {name: Path(name).read_bytes() for name in there} == there
    assert not (store / "steps/agentview_rgb").exists()
    assert same_bytes(store / "steps/inner.zarr", store / "steps/inner.zarr")
    assert verify(store / "ragged/inner.zarr", sources=files[2:], workers=0).ok


def test_a_store_inside_where_the_new_one_needs_room_is_refused_before_anything_is_removed(
    tmp_path: Path, files: list[Path]
) -> None:
    store = tmp_path / "a.zarr"
    convert(files[:1], store, workers=0, keys=["joint_states"])
    convert(files[2:], store / "steps/agentview_rgb", workers=0)
    before = {name: (store / name).read_bytes() for name in files_of(store)}
    with pytest.raises(StoreError, match="steps/agentview_rgb is not this store's, and is in the store's way"):
        convert(files[:1], store, workers=0, overwrite=True)
    assert {name: (store / name).read_bytes() for name in files_of(store)} == before
    assert not (store / FOLDER / "plan.json").exists()


@pytest.mark.parametrize("link", ["steps", "steps/agentview_rgb", "steps/actions/c", FOLDER, f"{FOLDER}/stage"])
@pytest.mark.parametrize("options", [{"overwrite": True}, {"append": True}])
def test_nothing_is_written_or_removed_through_a_link(
    tmp_path: Path, files: list[Path], made: Path, link: str, options: dict[str, bool]
) -> None:
    store, outside = shutil.copytree(made, tmp_path / "a.zarr"), tmp_path / "outside"
    if (store / link).exists():
        shutil.move(store / link, outside)
    else:
        (outside / "stage/steps").mkdir(parents=True)
        (store / link).parent.mkdir(exist_ok=True)
    (outside / "precious").write_text("mine")
    (store / link).symlink_to(outside)
    before = {str(path): path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=r"is a link, and nothing is written (or removed )?through links inside a store"):
        convert(files[1:2], store, workers=0, **options)  # type: ignore[arg-type]
    assert {str(path): path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["lock", "done.jsonl", "plan.json", "fence", "commit"])
def test_links_among_a_journals_files_are_not_followed(tmp_path: Path, files: list[Path], name: str) -> None:
    store, outside = tmp_path / "a.zarr", tmp_path / "precious"
    outside.write_text("mine")
    (store / FOLDER).mkdir(parents=True)
    (store / FOLDER / name).symlink_to(outside)
    with contextlib.suppress(RoboZarrError):
        convert(files[:1], store, workers=0)
    assert outside.read_text() == "mine"


def test_a_store_behind_a_link_of_the_users_is_the_users_store(tmp_path: Path, files: list[Path]) -> None:
    (tmp_path / "disk").mkdir()
    convert(files[:1], tmp_path / "disk/a.zarr", workers=0)
    (tmp_path / "a.zarr").symlink_to(tmp_path / "disk/a.zarr")
    convert(files[1:2], tmp_path / "a.zarr", workers=0, append=True)
    assert verify(tmp_path / "disk/a.zarr", sources=files[:2], workers=0).ok


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_a_killed_converter_that_nobody_waited_for_holds_no_lock(s3: str, files: list[Path]) -> None:
    place = new_place(s3)
    code = f"""
import os, signal, sys
from robozarr.convert.resuming.journal import Journal
from robozarr.store.bucket import BucketPlace
with Journal(BucketPlace({place.url!r}, {s3!r})).locked():
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    assert process.stdout.read() == "held\n"
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
    try:
        assert json.loads(place.read(f"{FOLDER}/lock"))["pid"] == process.pid
        convert(files[:1], place, workers=0)
    finally:
        process.wait()
        process.stdout.close()
    assert verify(place, workers=0).ok


def test_the_command_line_refuses_as_the_api_does(
    tmp_path: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store = place_of(tmp_path / "a.zarr")
    convert(files[:1], store, workers=0)
    append_killed_in_its_commit(files[1:2], store)
    assert exit_code(["convert", str(files[2]), "--store", store.url, "-w", "0"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert robozarr.open_store(store).n_episodes == 4

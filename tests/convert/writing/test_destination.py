"""Where a store may appear, and that replacing one removes nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import few_keys
import pytest
from rights import let_others_reach

import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import StoreError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(3,), size=8, drop_keys=few_keys.OF_LIBERO)
    return tmp_path / "s"


def test_sources_inside_the_store_are_refused_and_kept(tmp_path: Path, source: Path) -> None:
    store = tmp_path / "a.zarr"
    convert(source, store, workers=0)
    inside = shutil.copytree(source, store / "raw") / "a_demo.hdf5"
    with pytest.raises(StoreError, match=r"is to become the store, but holds the source .*raw/a_demo.hdf5"):
        convert(inside, store, workers=0, overwrite=True)
    assert inside.exists()
    assert verify(store, sources=source, workers=0).ok


def test_replacing_a_store_leaves_what_is_not_the_stores(tmp_path: Path, source: Path) -> None:
    store = tmp_path / "a.zarr"
    convert(source, store, workers=0)
    (store / "notes.txt").write_text("mine")
    (store / "steps" / "ghost").mkdir()
    convert(source, store, workers=0, overwrite=True)
    assert (store / "notes.txt").read_text() == "mine"
    assert not (store / "steps" / "ghost").exists()
    assert verify(store, sources=source, workers=0).ok


@pytest.mark.parametrize("value", [5, None, "x", []])
def test_a_group_whose_attribute_is_no_object_is_no_store(tmp_path: Path, source: Path, value: object) -> None:
    store = tmp_path / "a.zarr"
    store.mkdir()
    (store / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"robozarr": value}}))
    with pytest.raises(StoreError, match="is not a robozarr store, so it is not touched"):
        convert(source, store, workers=0, overwrite=True)


def test_a_path_through_a_file_is_refused_before_the_scan(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file: not a folder, so no store can be written there; give another --store"):
        convert(source, tmp_path / "file" / "a.zarr", workers=0)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is not a robozarr store"):
        convert(source, tmp_path / "link", workers=0)


def test_links_to_one_file_give_one_source_by_the_same_name_in_any_order(tmp_path: Path, source: Path) -> None:
    for name in ("x", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "task_demo.hdf5").symlink_to(source / "a_demo.hdf5")
    links = [tmp_path / name / "task_demo.hdf5" for name in ("x", "b")]
    for number, order in enumerate((links, links[::-1])):
        convert(order, tmp_path / f"{number}.zarr", workers=0)
    roots = [json.loads((tmp_path / f"{number}.zarr" / "zarr.json").read_text()) for number in (0, 1)]
    assert roots[0] == roots[1]
    assert [entry["name"] for entry in roots[0]["attributes"]["robozarr"]["sources"]] == ["b/task_demo.hdf5"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_of_somebody_else_is_refused_with_one_line(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    let_others_reach(tmp_path)
    pid = os.fork()
    if pid == 0:  # not a new process: somebody else may not run root's Python
        try:
            os.setuid(65534)
            convert(source, folder / "a.zarr", workers=0)
        except StoreError as error:
            os._exit(7 if "this folder cannot be written to" in str(error) else 8)
        finally:
            os._exit(9)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7

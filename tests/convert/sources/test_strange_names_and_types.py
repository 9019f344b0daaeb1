"""Names that are no UTF-8, types that numpy lacks, bools that are none, FIFOs, and links in the millions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.sources import tree
from robozarr.schemas.errors import SourceError

REST = (*few_keys.OF_LIBERO, "states", "dones")


def a_file(folder: Path, change: Callable[[Any], object] = lambda file: None) -> Path:
    options: dict[str, Any] = {"lengths": (3, 4), "size": 8, "model_file_bytes": 9, "drop_keys": REST}
    path = synthetic.write_libero(folder / "s/task_demo.hdf5", **options)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def add_low_level(place: Any, name: bytes, kind: Any) -> None:
    space = h5py.h5s.create_simple((2,))
    h5py.h5d.create(place.id, name, kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(2, "S1"))


@pytest.mark.parametrize(
    "name",
    [
        b"caf\xe9_demo.hdf5",
        pytest.param(b"caf\xe9/task_demo.hdf5", marks=pytest.mark.slow(reason="two more conversions, of a folder's name")),
    ],
)
def test_a_files_name_that_is_no_utf8(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/" + name))
    path.parent.mkdir(parents=True)
    a_file(tmp_path).rename(path)
    store = tmp_path / "a.zarr"
    convert(path, store, workers=0)
    opened = robozarr.open_store(store)
    assert "caf\\udce9" in opened.metadata.sources[0].name
    assert verify(store, sources=path, workers=0).ok
    assert convert(path, store, workers=0, append=True).n_appended == 0


def test_what_is_listed_is_text(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        demo = file["data/demo_0"]
        add_low_level(file, b"stray\xff", h5py.h5t.C_S1)
        add_low_level(demo, b"text\xff", h5py.h5t.C_S1)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        h5py.h5a.create(demo.id, b"number\xff", h5py.h5t.STD_I32LE, space).write(np.array(3, np.int32))
        h5py.h5a.create(demo.id, b"ref\xff", h5py.h5t.STD_REF_OBJ, space).write(np.array(file.ref, h5py.ref_dtype))

    store, path = tmp_path / "a.zarr", a_file(tmp_path, change)
    convert(path, store, workers=0)
    opened = robozarr.open_store(store)
    listed = {entry.path for entry in opened.metadata.not_stored}
    assert {"stray\\udcff", "text\\udcff", "@ref\\udcff"} <= listed
    assert verify(store, sources=path, workers=0).ok


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": "skip"},
        {"without": ["obs/caf\\udce9"]},
        pytest.param({"without": ["obs/caf\udce9"]}, marks=pytest.mark.slow(reason="two more conversions: the name as it is")),
    ],
)
def test_a_key_left_out_whose_name_is_no_utf8(tmp_path: Path, options: Any) -> None:
    def change(file: Any) -> None:
        for demo in file["data"].values():
            demo["obs"].create_dataset(b"caf\xe9", data=np.zeros((len(demo["actions"]), 3)))
        if options == {"on_error": "skip"}:
            file.require_group("mask").create_dataset(b"caf\xe9", data=[b"demo_0"])

    path, store, other = a_file(tmp_path, change), tmp_path / "a.zarr", tmp_path / "b.zarr"
    convert(path, store, workers=0, **options)
    convert(store, other, workers=0, profile="raw")
    listed = {entry.path for entry in robozarr.open_store(other).metadata.not_stored}
    assert "obs/caf\\udce9" in listed
    assert ("mask/caf\\udce9" in listed) == ("on_error" in options)
    for made in (store, other):
        assert not verify(made, sources=path, workers=0).violations


def test_a_demos_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        data = file["data"]
        data.id.links.move(b"demo_1", data.id, b"demo_\xff1")

    with pytest.raises(SourceError, match="the names of demos must be UTF-8"):
        convert(a_file(tmp_path, change), tmp_path / "a.zarr", workers=0)


def test_a_type_that_numpy_lacks_is_listed(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        demo = file["data/demo_0"]
        h5py.h5d.create(demo.id, b"when", h5py.h5t.UNIX_D64LE, h5py.h5s.create_simple((3,)))

    report = convert(a_file(tmp_path, change), tmp_path / "a.zarr", workers=0)
    (entry,) = [entry for entry in report.not_stored if entry["path"] == "when"]
    assert "TypeTimeID" in entry["reason"]


def test_a_bool_that_is_none_is_the_sources_fault(tmp_path: Path) -> None:
    def change(file: Any) -> None:
        for name, value in (("demo_0", 1), ("demo_1", 2)):
            demo = file[f"data/{name}"]
            values = np.full((len(demo["actions"]), 2), value, np.uint8).view(np.bool_)
            demo.create_dataset("obs/touch", values.shape, np.bool_).id.write(h5py.h5s.ALL, h5py.h5s.ALL, values)

    path = a_file(tmp_path, change)
    with pytest.raises(SourceError, match=r"demo_1 · obs/touch: .* a bool that is neither 0 nor 1, but 2"):
        convert(path, tmp_path / "a.zarr", workers=0)
    convert(path, tmp_path / "b.zarr", workers=0, on_error="skip")
    assert robozarr.open_store(tmp_path / "b.zarr").episodes.demo == ("demo_0",)
    assert verify(tmp_path / "b.zarr", sources=path, workers=0).ok


def test_a_fifo_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    os.mkfifo(path.with_name("z_demo.hdf5"))
    os.mkfifo(path.with_name("._z_demo.hdf5"))
    with pytest.raises(SourceError, match=r"z_demo.hdf5: the file cannot be read; found a folder, FIFO, socket or device"):
        convert(path.parent, tmp_path / "a.zarr", workers=0)


@pytest.mark.parametrize("inside", [True, False])
def test_groups_that_hold_the_next_one_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    monkeypatch.setattr(tree, "MOST_PATHS", 200)

    def change(file: Any) -> None:
        group = file["data/demo_1"].create_group("z") if inside else file.create_group("z")
        for number in range(30):
            inner = file.create_group(f"data/demo_1/h{number}" if inside else f"h{number}")
            group["a"], group["b"] = inner, inner
            group = inner

    with pytest.raises(SourceError, match="more than 200 paths lead to something in"):
        convert(a_file(tmp_path, change), tmp_path / "a.zarr", workers=0)

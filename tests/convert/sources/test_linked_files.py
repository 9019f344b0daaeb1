"""Files that an HDF5 file links to are part of its content: for appends, resumed and running conversions, and verifications."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import few_keys
import h5py
import numpy as np
import pytest

import robozarr
import synthetic
from robozarr.convert import convert, stages, verify
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import SourceError
from robozarr.schemas.index import FlagRules

VALUES = np.arange(12, dtype=np.float64).reshape(4, 3)
Link = Callable[[Path], Path]
"""Link something in a file of one demo of four steps to another file, which is returned."""


def beside(file: Path) -> Path:
    """Another HDF5 file, with values of four steps."""
    side = file.with_name("side.h5part")
    with h5py.File(side, "w") as opened:
        opened["values"] = VALUES
    return side


def dataset(file: Path) -> Path:
    side = beside(file)
    with h5py.File(file, "r+") as opened:
        opened["data/demo_0/obs/extra"] = h5py.ExternalLink(side.name, "/values")
    return side


def demo(file: Path) -> Path:
    side = file.with_name("side.h5part")
    with h5py.File(file, "r+") as opened, h5py.File(side, "w") as other:
        opened.copy("data/demo_0", other, "demo")
        other["demo/obs/extra"] = VALUES
        other.move("demo/obs/extra", "values")  # so that all kinds are changed alike
        other["demo/obs/extra"] = other["values"]
        del opened["data/demo_0"]
        opened["data/demo_0"] = h5py.ExternalLink(side.name, "/demo")
    return side


def virtual(file: Path) -> Path:
    side = beside(file)
    layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
    layout[:] = h5py.VirtualSource(side.name, "values", VALUES.shape)
    with h5py.File(file, "r+") as opened:
        opened["data/demo_0/obs"].create_virtual_dataset("extra", layout)
    return side


def raw(file: Path) -> Path:
    side = file.with_name("side.raw")
    with h5py.File(file, "r+") as opened:
        opened["data/demo_0/obs"].create_dataset("extra", data=VALUES, external=[(str(side), 0, h5py.h5f.UNLIMITED)])
    return side


MORE = pytest.mark.slow(reason="four conversions each; the next test tries every kind of link")
LINKS: tuple[Link, ...] = (dataset, demo, virtual, raw)


def change(side: Path) -> None:
    """Other values; size and times stay as they were."""
    status = side.stat()
    if side.suffix == ".raw":
        side.write_bytes((VALUES + 1).tobytes())
    else:
        with h5py.File(side, "r+") as opened:
            opened["values"][...] = VALUES + 1
    os.utime(side, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert side.stat().st_size == status.st_size


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return synthetic.write_libero(
        tmp_path / "s/a_demo.hdf5", lengths=(4,), size=8, drop_keys=(*few_keys.OF_LIBERO, "states", "dones")
    )


@pytest.mark.parametrize("link", [dataset, raw, *(pytest.param(link, marks=MORE) for link in (demo, virtual))])
def test_an_append_and_a_verification_see_that_a_linked_file_changed(file: Path, tmp_path: Path, link: Link) -> None:
    side, store = link(file), tmp_path / "a.zarr"
    scan = scan_file(str(file), FlagRules())
    assert (scan.linked, scan.problems) == ((str(side),), ())
    convert(file, store, workers=0)
    assert np.array_equal(robozarr.open_store(store).array("extra")[:], VALUES)
    assert convert(file, store, workers=0, append=True).n_appended == 0
    assert verify(store, sources=file, workers=0).ok
    shutil.copytree(tmp_path / "s", tmp_path / "moved/s")
    assert convert(tmp_path / "moved", store, workers=0, append=True).n_appended == 0
    change(side)
    with pytest.raises(SourceError, match=r"s/a_demo\.hdf5 must be the file that the store holds"):
        convert(file, store, workers=0, append=True)
    assert not verify(store, sources=file, workers=0).ok


@pytest.mark.parametrize("link", LINKS)
def test_a_linked_file_that_changes_meanwhile_ends_the_conversion(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Link
) -> None:
    side, plain = link(file), stages.write_partitions

    def after_the_scan(*arguments: object, **options: object) -> object:
        change(side)
        return plain(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("robozarr.convert.run.write_partitions", after_the_scan)
    with pytest.raises(SourceError, match="sources have changed; the store is not finished"):
        convert(file, tmp_path / "a.zarr", workers=0)
    monkeypatch.undo()
    with pytest.raises(SourceError, match="sources have changed since this convert began"):  # nor is it gone on with
        convert(file, tmp_path / "a.zarr", workers=0)


def test_a_file_without_links_is_read_for_its_own_digest_alone(file: Path) -> None:
    assert scan_file(str(file), FlagRules()).linked == ()

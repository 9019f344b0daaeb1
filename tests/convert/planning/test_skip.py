"""``--on-error skip``: the rest is converted, what was left out is listed, and ``verify`` agrees."""

from __future__ import annotations

from pathlib import Path

import few_keys
import h5py
import numpy as np
import pytest

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import SourceError


def test_bad_demos_and_files_are_left_out_and_listed(tmp_path: Path) -> None:
    source, store = tmp_path / "s", tmp_path / "a.zarr"
    synthetic.write_libero(source / "a_demo.hdf5", lengths=(6, 7, 8), size=8, drop_keys=few_keys.OF_LIBERO)
    with h5py.File(source / "a_demo.hdf5", "r+") as file:
        file["data/demo_1/actions"][2, 3] = np.nan
    (source / "b_demo.hdf5").write_bytes(b"not HDF5")
    with pytest.raises(SourceError, match="2 problem"):
        convert(source, store, workers=0)
    assert not store.exists()
    report = convert(source, store, workers=0, on_error="skip")
    assert len(report.left_out) == 2
    opened = robozarr.open_store(store)
    assert opened.episodes.demo == ("demo_0", "demo_2")
    listed = {(entry.source, entry.path) for entry in opened.metadata.not_stored if entry.reason.startswith("left out: ")}
    assert listed == {("s/a_demo.hdf5", "data/demo_1"), ("s/b_demo.hdf5", "")}
    assert verify(store, sources=source, workers=0).ok


@pytest.mark.slow(reason="two more conversions; test_bad_input.py has it with fewer keys")
def test_a_broken_gzip_chunk_stops_or_is_left_out(tmp_path: Path) -> None:
    source, store = tmp_path / "s" / "image.hdf5", tmp_path / "a.zarr"
    synthetic.write_robomimic(source, lengths=(9, 7, 8), size=32, next_obs=False, drop_keys=few_keys.OF_ROBOMIMIC)
    with h5py.File(source) as file:
        chunk = file["data/demo_1/obs/agentview_image"].id.get_chunk_info(0)
    data = bytearray(source.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + 64] = bytes(64)
    source.write_bytes(data)
    with pytest.raises(SourceError, match="demo_1 · obs/agentview_image: steps 0 to 7 cannot be read"):
        convert(source, store, workers=0)
    report = convert(source, store, workers=0, on_error="skip")
    assert robozarr.open_store(store).episodes.demo == ("demo_0", "demo_2")
    assert [entry["demo"] for entry in report.left_out] == ["demo_1"]
    assert verify(store, sources=source, workers=0).ok

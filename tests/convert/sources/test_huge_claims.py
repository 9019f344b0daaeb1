"""HDF5 files of some kilobytes that claim datasets of any size: an error that names them, in no time and no memory."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import few_keys
import h5py
import pytest

import synthetic
from robozarr.convert import convert
from robozarr.convert.sources import hdf5
from robozarr.convert.sources.hdf5 import SourceFile
from robozarr.schemas.errors import SourceError

Claim = Callable[[h5py.File], None]
EMPTY, PART = "nothing was ever written to it", "a part of it was never written"


def steps(n: int, written: int = 0) -> Claim:
    """Actions of `n` steps, and nothing beside them; the first and the last chunk may be written."""

    def change(file: h5py.File) -> None:
        demo = file["data/demo_1"]
        for name in list(demo):
            del demo[name]
        made = demo.create_dataset("actions", shape=(n, 7), dtype="f8", chunks=(1024, 7))
        for start in (0, n - n % 1024)[:written]:
            made[start : start + 5] = 1.0

    return change


def each(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], written: bool = True) -> Claim:
    """One more dataset of both demos, with steps of any shape; its first element may be written."""

    def change(file: h5py.File) -> None:
        for demo, n in (("demo_0", 4), ("demo_1", 3)):
            made = file[f"data/{demo}/obs"].create_dataset(name, shape=(n, *shape), dtype="u1", chunks=(1, *chunks))
            if written:
                made[(0,) * made.ndim] = 1

    return change


def packed(name: str, row: tuple[int, ...], chunk_rows: int = 1) -> Claim:
    """One more dataset of both demos, written as zeros that gzip packs a thousand times smaller; it stays packed here."""

    def change(file: h5py.File) -> None:
        for demo, n in (("demo_0", 4), ("demo_1", 3)):
            chunks = (chunk_rows, *row)
            made = file[f"data/{demo}"].create_dataset(
                name, shape=(n, *row), dtype="u1", chunks=chunks, maxshape=(None, *row), compression="gzip"
            )
            for start in range(0, n, chunk_rows):
                made.id.write_direct_chunk((start, *[0] * len(row)), b"never unpacked")

    return change


CLAIMS: dict[str, tuple[Claim, str]] = {
    "a billion steps": (steps(10**9), f"demo_1 · actions: {EMPTY}"),
    "as many steps as can be counted": (steps(2**60), f"demo_1 · actions: {EMPTY}"),
    "a billion steps, five of them written": (steps(10**9, 1), f"demo_1 · actions: {PART}; found 976562 of 976563 chunks"),
    "their first and last written": (steps(10**9, 2), f"demo_1 · actions: {PART}; found 976561 of 976563 chunks"),
    "steps of a terabyte": (each("wide", (10**12,), (1024,)), f"demo_0 · obs/wide: {PART}"),
    "pictures of 30 GB": (each("cam", (10**5, 10**5, 3), (64, 64, 3)), f"demo_0 · obs/cam: {PART}"),
    "packed pictures of 2.7 GB": (
        packed("obs/cam", (30_000, 30_000, 3)),
        "demo_0 · obs/cam: a chunk, which HDF5 unpacks whole, must have at most 1.1 GB; found 2.7 GB → make them smaller",
    ),
    "a packed chunk of more steps than there are": (
        packed("obs/cam", (8, 8, 3), 10_000_000),
        "demo_0 · obs/cam: a chunk, which HDF5 unpacks whole",
    ),
    "packed pictures of 300 MB": (
        packed("obs/cam", (10_000, 10_000, 3)),
        "demo_0 · obs/cam: a step of a key must have at most 67 MB; found 300 MB",
    ),
    "packed vectors of 800 MB": (
        packed("states_of_all", (800_000_000,)),
        "demo_0 · states_of_all: a step of a key must have at most",
    ),
    "pictures beyond measure": (each("cam", (10**9, 10**9, 3), (64, 64, 3), False), f"demo_0 · obs/cam: {EMPTY}"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write_libero(
        tmp_path_factory.mktemp("good") / "a_demo.hdf5",
        lengths=(4, 3),
        size=8,
        model_file_bytes=9,
        drop_keys=few_keys.OF_LIBERO,
    )


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_claim_is_an_error(good: Path, tmp_path: Path, claim: str, on_error: str) -> None:
    change, words = CLAIMS[claim]
    source = tmp_path / "a_demo.hdf5"
    shutil.copy(good, source)
    with h5py.File(source, "r+") as file:
        change(file)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if on_error == "skip" and "demo_1" in words:  # the other demo is whole
        report = convert(source, tmp_path / "a.zarr", workers=0, on_error="skip")
        assert report.n_episodes == 1
        assert [problem["demo"] for problem in report.left_out] == ["demo_1"]
    else:
        with pytest.raises(SourceError, match=words):
            convert(source, tmp_path / "a.zarr", workers=0, on_error=on_error)  # type: ignore[arg-type]
        assert not (tmp_path / "a.zarr").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # kB


def test_rows_that_do_not_fit_into_memory_name_their_key(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def empty(self, *_: object) -> None:
            raise MemoryError("Unable to allocate 26.8 GiB")

    with SourceFile(good) as source:
        monkeypatch.setattr(hdf5, "np", Full())
        with pytest.raises(
            SourceError, match=r"demo_0 · actions: steps 0 to 4 must fit into memory; found .*26.8 GiB → leave the key"
        ):
            source.read("demo_0", "actions")

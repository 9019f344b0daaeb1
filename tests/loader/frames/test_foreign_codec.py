"""Frames in a codec that FORMAT.md does not know: an error, or, asked for by name, read slowly, with one warning, and right."""

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import format_writer
import numpy as np
import pytest
import zarr
from damaged import CHANGES, SPEC, changed, fault_of, load, make_store, same
from effort import some
from zarr.codecs import Crc32cCodec, GzipCodec

import robozarr as rz
from robozarr.loader.dataset import WindowDataset
from robozarr.schemas.errors import RoboZarrError

GZIP = ("gzip",)


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    return make_store(tmp_path / "a.zarr", "fast")


@pytest.fixture
def gzipped(fast: Path) -> Path:
    """A store whose frames are in a codec that FORMAT.md does not know."""
    write_gzip(fast, {})
    return fast


def write_gzip(store: Path, options: dict[str, Any]) -> None:
    key = next(key for key in format_writer.keys() if key.name == "agentview_rgb")
    shutil.rmtree(store / "steps/agentview_rgb")
    array = zarr.open_group(store, mode="r+").create_array(
        "steps/agentview_rgb", shape=key.steps.shape, dtype=key.steps.dtype, chunks=(1, *key.steps.shape[1:]),
        compressors=[GzipCodec(level=1), Crc32cCodec()], config={"write_empty_chunks": True}, **options,
    )  # fmt: skip
    array[...] = key.steps


@pytest.mark.parametrize("options", [{}, {"shards": (4, 8, 9, 3)}], ids=["files", "shards"])
def test_another_codec_is_read_with_one_warning(fast: Path, options: dict[str, Any]) -> None:
    good = load(fast)
    write_gzip(fast, options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert same(load(fast, foreign_codecs=GZIP), good)
    assert len(caught) == 1
    assert "steps/agentview_rgb is read by zarr-python, one slice per window: tens of times slower" in str(caught[0].message)


@pytest.mark.filterwarnings("ignore:.*is read by zarr-python")
def test_another_codec_works_everywhere(gzipped: Path, tmp_path: Path) -> None:
    good = load(make_store(tmp_path / "good.zarr", "fast"))
    dataset = WindowDataset(rz.open_store(gzipped, foreign_codecs=GZIP), rz.WindowSpec(SPEC))
    for loader in (
        rz.WindowLoader(dataset, 4, shuffle=False, threads=2),
        rz.WindowLoader(dataset, 4, shuffle=False, threads=2, cache="host"),
        rz.WindowDataLoader(dataset, 4, order={"shuffle": False}, num_workers=2, multiprocessing_context="fork"),
    ):
        got = np.concatenate([batch["agentview_rgb"].numpy() for batch in loader])
        assert np.array_equal(got, good["agentview_rgb"])


@pytest.mark.filterwarnings("ignore:.*is read by zarr-python")
def test_another_codec_damaged(gzipped: Path) -> None:
    spec: dict[str, Sequence[int]] = {"agentview_rgb": [0]}
    good = load(gzipped, spec, GZIP)
    file = gzipped / "steps/agentview_rgb/c/7/0/0/0"
    for at, _ in changed(file, CHANGES[:1], step=some(9, 23)):
        said = fault_of(lambda: load(gzipped, spec, GZIP), good)
        assert said is not None, at
        assert "steps/agentview_rgb · rows 7 to 8 · episode 1 (demo_10), step 1" in said
    data = file.read_bytes()
    for size in (0, 3, 4, 50, len(data) - 1):
        file.write_bytes(data[:size])
        assert fault_of(lambda: load(gzipped, spec, GZIP), good) is not None
    file.unlink()
    with pytest.raises(RoboZarrError, match=r"rows 7 to 8 .*episode 1 .*every expected shard must exist; it is missing"):
        load(gzipped, spec, GZIP)


@pytest.mark.parametrize("options", [{}, {"shards": (4, 8, 9, 3)}], ids=["files", "shards"])
def test_another_codec_is_asked_for_by_name(fast: Path, options: dict[str, Any]) -> None:
    write_gzip(fast, options)
    for codecs in ((), ("zlib",)):
        with pytest.raises(
            RoboZarrError, match=r"agentview_rgb/zarr\.json is not as FORMAT.md says.*foreign_codecs=\['gzip'\]"
        ):
            load(fast, foreign_codecs=codecs)
        store = rz.open_store(fast, foreign_codecs=codecs)
        with pytest.raises(RoboZarrError, match=r"is not as FORMAT\.md says"):
            store.array("agentview_rgb")


@pytest.mark.parametrize(
    ("path", "value"),
    [(("data_type",), "int8"), (("shape",), [20, 8, 9, 3]), (("fill_value",), 7), (("zarr_format",), 2),
     (("codecs", 0, "configuration", "endian"), "big"), (("storage_transformers",), [{"name": "x"}]),
     (("chunk_grid", "configuration", "chunk_shape"), [1, 8, 2**40, 3]),
     (("chunk_grid", "configuration", "chunk_shape"), [0, 8, 9, 3])],
)  # fmt: skip
def test_nothing_else_is_let_through_with_it(gzipped: Path, path: tuple[Any, ...], value: Any) -> None:
    file = gzipped / "steps/agentview_rgb/zarr.json"
    document = at = json.loads(file.read_text())
    document["codecs"][0]["configuration"] = {"endian": "little"}
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    file.write_text(json.dumps(document))
    with pytest.raises(RoboZarrError, match="agentview_rgb"):
        load(gzipped, {"agentview_rgb": [0]}, GZIP)

"""``zarr.json``: from a layout and back, as plain zarr reads and writes it, and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

from robozarr.schemas.errors import StoreError
from robozarr.schemas.layout import ArrayLayout, CodecName
from robozarr.schemas.zarr_json import array_document, document_bytes, group_document, parse_array_document

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@st.composite
def layouts(draw: st.DrawFn) -> ArrayLayout:
    shape = (draw(st.integers(0, 10**6)), *draw(st.lists(st.integers(1, 300), max_size=3)))
    codec: CodecName = draw(st.sampled_from(["none", "blosc-lz4", "blosc-zstd", "zstd"]))
    chunk_rows = draw(st.integers(1, 5000))
    return ArrayLayout(
        path="steps/key",
        shape=shape,
        dtype=draw(st.sampled_from(DTYPES)),
        dims=tuple(draw(st.lists(st.text(min_size=1), min_size=len(shape), max_size=len(shape)))),
        chunk_rows=chunk_rows,
        shard_rows=chunk_rows * draw(st.integers(1, 5000)),
        codec=codec,
        level=0 if codec == "none" else draw(st.integers(0, 9)),
    )


@given(layout=layouts())
def test_a_document_says_all_of_a_layout(layout: ArrayLayout) -> None:
    document = json.loads(document_bytes(array_document(layout)))
    assert parse_array_document(layout.path, document) == layout


@settings(max_examples=25)
@given(layout=layouts())
def test_plain_zarr_opens_the_array(layout: ArrayLayout) -> None:
    with TemporaryDirectory() as folder:
        Path(folder, "zarr.json").write_bytes(document_bytes(array_document(layout)))
        array = zarr.open_array(folder, mode="r", zarr_format=3)
    assert (array.shape, array.dtype) == (layout.shape, np.dtype(layout.dtype))
    assert array.chunks == (layout.chunk_rows, *layout.shape[1:])
    assert array.shards == (layout.shard_rows, *layout.shape[1:])
    assert array.metadata.to_dict()["dimension_names"] == layout.dims
    assert array.fill_value == 0
    (sharding,) = array.metadata.codecs  # type: ignore[union-attr]
    assert isinstance(sharding, ShardingCodec)
    kinds = {"none": (), "zstd": (ZstdCodec,)}.get(layout.codec, (BloscCodec,))
    assert tuple(map(type, sharding.codecs)) == (BytesCodec, *kinds, Crc32cCodec)
    assert tuple(map(type, sharding.index_codecs)) == (BytesCodec, Crc32cCodec)


@settings(max_examples=25)
@given(layout=layouts())
def test_what_plain_zarr_writes_is_understood(layout: ArrayLayout) -> None:
    compressor: dict[CodecName, list[Any]] = {
        "none": [],
        "zstd": [ZstdCodec(level=layout.level)],
        "blosc-lz4": [BloscCodec(cname="lz4", clevel=layout.level, shuffle=layout.shuffle)],
        "blosc-zstd": [BloscCodec(cname="zstd", clevel=layout.level, shuffle=layout.shuffle)],
    }
    inner = layout.shape[1:]
    sharding = ShardingCodec(
        chunk_shape=(layout.chunk_rows, *inner), codecs=[BytesCodec(), *compressor[layout.codec], Crc32cCodec()]
    )
    with TemporaryDirectory() as folder:
        zarr.create(
            store=folder, shape=layout.shape, dtype=layout.dtype, chunks=(layout.shard_rows, *inner), codecs=[sharding],
            dimension_names=layout.dims, fill_value=0, zarr_format=3,
        )  # fmt: skip
        document = json.loads(Path(folder, "zarr.json").read_bytes())
    assert parse_array_document(layout.path, document) == layout


def test_plain_zarr_opens_the_group(tmp_path: Path) -> None:
    attributes = {"robozarr": {"text": "Ω", "list": [1, None, 0.1]}}
    (tmp_path / "zarr.json").write_bytes(document_bytes(group_document(attributes)))
    assert dict(zarr.open_group(str(tmp_path), mode="r", zarr_format=3).attrs) == attributes
    assert group_document()["attributes"] == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        document_bytes({"a": value})


LAYOUT = ArrayLayout(
    path="steps/key", shape=(9, 2), dtype="int32", dims=("a", "b"), chunk_rows=2, shard_rows=4, codec="blosc-lz4", level=5
)
SHARDING = ("codecs", 0, "configuration")
CHUNK = (*SHARDING, "codecs")
INDEX = (*SHARDING, "index_codecs")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("zarr_format",), 2, "zarr_format must be 3, got 2"),
        (("node_type",), "group", "node_type must be 'array', got 'group'"),
        (("storage_transformers",), [{"name": "x"}], r"storage_transformers must be \[\], got \[\{'name': 'x'\}\]"),
        (("fill_value",), 7, "fill_value must be 0, got 7"),
        (("fill_value",), "NaN", "fill_value must be 0"),
        ((*CHUNK, 1, "configuration", "blocksize"), ["x"], "codecs must be"),
        ((*CHUNK, 1, "configuration", "extra"), 1, "codecs must be"),
        (("chunk_key_encoding", "configuration"), {"a": 1}, "chunk_key_encoding must be"),
        (("attributes",), [1], "attributes must be an object"),
        (("data_type",), "string", ""),
        (("data_type",), "complex64", "bool, integers and floats only, got complex64"),
        (("data_type",), {"name": "numpy.datetime64"}, ""),
        (("chunk_grid", "name"), "rectangular", "chunk_grid must be 'regular', got 'rectangular'"),
        (("chunk_grid", "configuration", "chunk_shape"), [4, 1], "shard shape behind the first axis must be"),
        (("chunk_grid", "configuration", "chunk_shape"), [5, 2], "a shard of 5 rows is no multiple of 2 rows"),
        (("chunk_grid", "configuration", "chunk_shape"), [0, 2], "a shard of 0 rows"),
        (("chunk_key_encoding", "name"), "v2", "chunk_key_encoding must be 'default', got 'v2'"),
        (("chunk_key_encoding", "configuration", "separator"), ".", "separator must be '/', got '.'"),
        (("dimension_names",), None, ""),
        (("dimension_names",), ["a"], r"2 axes but dimension names \('a',\)"),
        (("codecs",), [], "not enough values to unpack"),
        (("codecs",), [{"name": "bytes"}], "codec must be 'sharding_indexed', got 'bytes'"),
        ((*SHARDING, "chunk_shape"), [2, 1], "chunk shape behind the first axis must be"),
        ((*SHARDING, "index_location"), "start", "index_location must be 'end', got 'start'"),
        (INDEX, [{"name": "bytes"}], r"index codecs must be \['bytes', 'crc32c'\], got \['bytes'\]"),
        ((*INDEX, 0, "configuration", "endian"), "big", "endian"),
        ((*CHUNK, 0, "configuration", "endian"), "big", "endian must be 'little', got 'big'"),
        ((*CHUNK, 0, "name"), "transpose", "chunk codecs must be bytes, at most one compressor, crc32c; got"),
        ((*CHUNK, 1, "name"), "gzip", "compressor must be 'blosc', got 'gzip'"),
        ((*CHUNK, 1, "configuration", "cname"), "zlib", "cname must be one of lz4, zstd, got 'zlib'"),
        ((*CHUNK, 1, "configuration", "shuffle"), "bitshuffle", "shuffle must be 'shuffle', got 'bitshuffle'"),
        ((*CHUNK, 2, "name"), "adler32", "chunk codecs must be bytes, at most one compressor, crc32c; got"),
    ],
)  # fmt: skip
def test_other_documents_are_refused(path: tuple[str | int, ...], value: Any, message: str) -> None:
    document = copy.deepcopy(array_document(LAYOUT))
    at: Any = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(StoreError, match=f"steps/key/zarr.json is not as FORMAT.md says: .*{message}"):
        parse_array_document("steps/key", document)


@pytest.mark.parametrize("path", [(), ("chunk_grid",), SHARDING, (*CHUNK, 1, "configuration")])
def test_a_missing_field_is_refused(path: tuple[str | int, ...]) -> None:
    at: Any = array_document(LAYOUT)
    for step in path:
        at = at[step]
    optional = {"index_location", "attributes", "typesize", "blocksize"}
    for name in set(at) - optional:
        document = copy.deepcopy(array_document(LAYOUT))
        at = document
        for step in path:
            at = at[step]
        del at[name]
        with pytest.raises(StoreError, match=r"steps/key/zarr\.json is not as FORMAT.md says"):
            parse_array_document("steps/key", document)


@pytest.mark.parametrize(
    "configuration", [{"endian": 0}, {"endian": "NaN"}, {"endian": "little", "name": "zstd"}, -4611686018427387904, []]
)
def test_bytes_without_an_order_are_as_zarr_takes_them(configuration: Any) -> None:
    """Of one byte a value any order will do, but nothing that zarr-python refuses to open."""
    layout = replace(LAYOUT, dtype="uint8")
    for endian in ("little", "big"):
        document = array_document(layout)
        document["codecs"][0]["configuration"]["codecs"][0]["configuration"] = {"endian": endian}
        assert parse_array_document("steps/key", document) == layout
    document = array_document(layout)
    document["codecs"][0]["configuration"]["codecs"][0]["configuration"] = configuration
    with pytest.raises(StoreError, match=r"steps/key/zarr\.json is not as FORMAT.md says"):
        parse_array_document("steps/key", document)


def test_two_compressors_are_refused() -> None:
    document = array_document(LAYOUT)
    chunk_codecs = document["codecs"][0]["configuration"]["codecs"]
    chunk_codecs.insert(1, {"name": "zstd", "configuration": {"level": 1}})
    with pytest.raises(StoreError, match=r"at most one compressor, crc32c; got \['bytes', 'zstd', 'blosc', 'crc32c'\]"):
        parse_array_document("steps/key", document)

"""Write and read the ``zarr.json`` of arrays and groups: from a layout to JSON and back. Imports no I/O.

The documents are written here, not by a library, so that they are the same bytes whatever is installed, and so that
``verify`` has one place to hold a document against.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from robozarr.schemas.documents import ArrayDocument, as_model
from robozarr.schemas.errors import PlanError, StoreError
from robozarr.schemas.layout import DTYPES, ArrayLayout, CodecName

__all__ = ["array_document", "document_bytes", "group_document", "parse_array_document"]

_BLOSC: dict[str, CodecName] = {"lz4": "blosc-lz4", "zstd": "blosc-zstd"}
_FRAMES: dict[str, CodecName] = {"lean": "frames-lean", "compact": "frames-compact"}
FRAMES = "robozarr.frames"
"""Name of the codec of frames with keyframes."""


def document_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as on disk, in ASCII. NaN and infinities are not JSON and raise ValueError."""
    return json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"


def group_document(attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The ``zarr.json`` of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}


def array_document(layout: ArrayLayout) -> dict[str, Any]:
    """The ``zarr.json`` of an array with this layout.

    >>> from robozarr.schemas.layout import layout_of_table
    >>> layout = layout_of_table("index/step", (5,), "int32", ("step",))
    >>> parse_array_document("index/step", array_document(layout)) == layout
    True
    """
    inner = layout.shape[1:]
    fill_value: Any = False if layout.dtype == "bool" else 0.0 if layout.dtype.startswith("float") else 0
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(layout.shape),
        "data_type": layout.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [layout.shard_rows, *inner]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [layout.chunk_rows, *inner],
                    "codecs": _chunk_codecs(layout),
                    "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                    "index_location": "end",
                },
            }
        ],
        "attributes": {},
        "dimension_names": list(layout.dims),
    }


def _chunk_codecs(layout: ArrayLayout) -> list[dict[str, Any]]:
    """The codecs of a chunk. Frames have only one: its checksums are inside."""
    if layout.effort is not None:
        return [{"name": FRAMES, "configuration": {"effort": layout.effort}}]
    single = layout.row_bytes and layout.dtype in ("uint8", "int8", "bool")
    bytes_codec = {"name": "bytes"} if single else {"name": "bytes", "configuration": {"endian": "little"}}
    compressor: list[dict[str, Any]] = []
    if layout.codec == "zstd":
        compressor = [{"name": "zstd", "configuration": {"level": layout.level, "checksum": False}}]
    elif layout.codec != "none":
        configuration = {
            "typesize": _itemsize(layout.dtype),
            "cname": layout.codec.removeprefix("blosc-"),
            "clevel": layout.level,
            "shuffle": layout.shuffle,
            "blocksize": 0,
        }
        compressor = [{"name": "blosc", "configuration": configuration}]
    return [bytes_codec, *compressor, {"name": "crc32c"}]


def _itemsize(dtype: str) -> int:
    return 1 if dtype == "bool" else int("".join(c for c in dtype if c.isdigit())) // 8


def parse_array_document(path: str, document: Mapping[str, Any]) -> ArrayLayout:
    """The layout that an array's ``zarr.json`` states.

    Raises
    ------
    StoreError
        If the document is not one that FORMAT.md allows: another codec, chunks along other axes than the first, no crc32c.
    """
    try:
        return _parse(path, as_model(document, ArrayDocument), document)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, PlanError) as exc:
        raise StoreError(f"{path}/zarr.json is not as FORMAT.md says: {exc}") from exc


def _expect(name: str, got: Any, expected: Any) -> None:
    if got != expected:
        raise ValueError(f"{name} must be {expected!r}, got {got!r}")


def _counts(numbers: Any) -> tuple[int, ...]:
    """Numbers of a shape as integers; 4e96 is valid JSON too."""
    if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"shapes must be lists of counts, got {numbers!r}")
    return tuple(numbers)


def _parse(path: str, model: ArrayDocument, document: Mapping[str, Any]) -> ArrayLayout:
    _expect("zarr_format", model.zarr_format, 3)
    _expect("node_type", model.node_type, "array")
    _expect("storage_transformers", model.storage_transformers, [])
    _expect("fill_value", model.fill_value, 0)
    _expect("chunk_grid", model.chunk_grid["name"], "regular")
    _expect("chunk_key_encoding", model.chunk_key_encoding["name"], "default")
    separator = model.chunk_key_encoding.get("configuration", {}).get("separator", "/")
    _expect("separator", separator, "/")
    shape, dtype = tuple(model.shape), model.data_type
    if dtype not in DTYPES:
        raise ValueError(f"arrays hold bool, integers and floats only, got {dtype}")
    outer = _counts(model.chunk_grid["configuration"]["chunk_shape"])
    (sharding,) = model.codecs
    _expect("codec", sharding["name"], "sharding_indexed")
    configuration = sharding["configuration"]
    inner = _counts(configuration["chunk_shape"])
    _expect("shard shape behind the first axis", outer[1:], shape[1:])
    _expect("chunk shape behind the first axis", inner[1:], shape[1:])
    _expect("index_location", configuration["index_location"], "end")
    _expect("index codecs", [codec["name"] for codec in configuration["index_codecs"]], ["bytes", "crc32c"])
    _expect("endian of the index", configuration["index_codecs"][0]["configuration"]["endian"], "little")
    codec, level = _parse_chunk_codecs(configuration["codecs"], _itemsize(dtype))
    layout = ArrayLayout(
        path=path,
        shape=shape,
        dtype=dtype,
        dims=tuple(model.dimension_names),
        chunk_rows=inner[0],
        shard_rows=outer[0],
        codec=codec,
        level=level,
    )
    if codec.startswith("blosc"):
        blosc = configuration["codecs"][1]["configuration"]
        _expect("shuffle", blosc["shuffle"], layout.shuffle)
        _expect("typesize", blosc["typesize"], _itemsize(dtype))
    expected = array_document(layout)
    for name, got in _without_liberties(document, layout).items():
        _expect(name, got, expected.get(name))
    return layout


def _without_liberties(document: Mapping[str, Any], layout: ArrayLayout) -> dict[str, Any]:
    """A document in the form of ``array_document``, wherever writers may differ."""
    value: dict[str, Any] = json.loads(json.dumps(dict(document)))
    value.pop("storage_transformers", None)
    value.pop("fill_value")
    value.pop("attributes", None)
    value["chunk_key_encoding"].setdefault("configuration", {"separator": "/"})
    sharding = value["codecs"][0]["configuration"]
    for codec in [*sharding["codecs"], *sharding["index_codecs"]]:
        if codec.get("configuration") == {}:
            del codec["configuration"]
    if layout.effort is not None:
        return value
    if sharding["codecs"][0].get("configuration") in ({"endian": "little"}, {"endian": "big"}) and _itemsize(layout.dtype) == 1:
        del sharding["codecs"][0]["configuration"]  # one byte has no order
    for codec in sharding["codecs"][1:-1]:
        configuration = codec["configuration"]
        blocksize = configuration.get("blocksize")
        if type(blocksize) is int and blocksize >= 0:
            configuration["blocksize"] = 0
        if type(configuration.get("checksum")) is bool:
            configuration["checksum"] = False
    return value


def _parse_chunk_codecs(codecs: list[Mapping[str, Any]], itemsize: int) -> tuple[CodecName, int]:
    names = [codec["name"] for codec in codecs]
    if FRAMES in names:
        _expect("chunk codecs with frames", names, [FRAMES])
        effort = codecs[0]["configuration"]["effort"]
        if effort not in _FRAMES:
            raise ValueError(f"effort must be one of {', '.join(_FRAMES)}, got {effort!r}")
        return _FRAMES[effort], 0
    if names[:1] != ["bytes"] or names[-1:] != ["crc32c"] or len(names) not in (2, 3):
        raise ValueError(f"chunk codecs must be bytes, at most one compressor, crc32c; got {names}")
    if itemsize > 1:
        _expect("endian", codecs[0]["configuration"]["endian"], "little")
    if len(names) == 2:
        return "none", 0
    configuration = codecs[1]["configuration"]
    if names[1] == "zstd":
        return "zstd", int(configuration["level"])
    _expect("compressor", names[1], "blosc")
    if configuration["cname"] not in _BLOSC:
        raise ValueError(f"cname must be one of {', '.join(_BLOSC)}, got {configuration['cname']!r}")
    return _BLOSC[configuration["cname"]], int(configuration["clevel"])

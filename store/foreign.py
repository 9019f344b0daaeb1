"""Allow arrays that FORMAT.md does not describe, if the user named their codecs.

A robozarr store never holds any. Somebody who packed a store anew may still want to train from it, and says so:
``open_store(path, foreign_codecs=["gzip"])``. Everything but codecs and the cut into chunks is as strict as ever.
"""

from __future__ import annotations

from typing import Any, Final

from robozarr.schemas.documents import ArrayDocument, as_model
from robozarr.schemas.errors import StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.limits import MOST_CHUNK_BYTES
from robozarr.store.place import Place
from robozarr.store.reading import read_document

__all__ = ["foreign_codecs_of"]

OURS: Final = frozenset({"bytes", "crc32c", "sharding_indexed"})


def foreign_codecs_of(place: Place, expected: ArrayLayout) -> frozenset[str] | None:
    """Names of an array's codecs that the user must allow; None if its document has other faults too.

    Parameters
    ----------
    place : Place
        Of the store.
    expected : ArrayLayout
        What the store's attributes say of the array.
    """
    try:
        document = read_document(place, expected.path)
        model = as_model(document | {"dimension_names": document.get("dimension_names") or []}, ArrayDocument)
        chunk = model.chunk_grid["configuration"]["chunk_shape"]
        n_bytes = expected.itemsize
        for n in chunk:
            if type(n) is not int or n < 1:
                return None
            n_bytes *= n
        names = frozenset(_names(model.codecs))
    except (StoreError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    stated = (
        model.zarr_format,
        model.node_type,
        tuple(model.shape),
        model.data_type,
        model.fill_value,
        model.storage_transformers,
    )
    if stated != (3, "array", expected.shape, expected.dtype, 0, []) or n_bytes > MOST_CHUNK_BYTES:
        return None
    return names - OURS


def _names(codecs: list[dict[str, Any]]) -> list[str]:
    """Names of codecs, including nested ones; ValueError for another byte order."""
    names = []
    for codec in codecs:
        configuration = codec.get("configuration", {})
        if codec["name"] == "bytes" and configuration.get("endian", "little") != "little":
            raise ValueError("endian")
        if not isinstance(codec["name"], str):
            raise ValueError("name")
        names.append(codec["name"])
        for inner in ("codecs", "index_codecs"):
            names += _names(configuration.get(inner, []))
    return names

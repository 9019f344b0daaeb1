"""Read HDF5 attributes however they were written: bytes, and arrays of one text, count as text.

Works on what h5py gives, and knows h5py's value for a null space.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from robozarr.convert.sources.links import name_text

__all__ = ["attributes_json", "bytes_of", "read_attribute", "text_of"]


def read_attribute(attributes: Mapping[str, Any], name: str) -> Any:
    """The value of an attribute; None if there is none, or h5py cannot read its type."""
    try:
        return attributes[name] if name in attributes else None
    except (OSError, TypeError, ValueError):  # a type that h5py cannot read: references to what is gone, say
        return None


def text_of(value: object) -> str | None:
    """A value as text: text, UTF-8 bytes, or an array or list of one of these; None for anything else.

    Bytes that are no UTF-8 become lone surrogates, as h5py makes of them.

    >>> text_of("a"), text_of(np.bytes_(b"a")), text_of(np.array([b"a"])), text_of(np.array(["a", "b"])), text_of(7)
    ('a', 'a', 'a', None, None)
    """
    value = _only(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value) if isinstance(value, str) else None


def bytes_of(value: object) -> bytes | None:
    """A text value as bytes; None if it is not text.

    >>> bytes_of(np.array(["a"], object)), bytes_of(1.0)
    (b'a', None)
    """
    text = text_of(value)
    return None if text is None else text.encode("utf-8", "surrogateescape")


def _only(value: object) -> object:
    """The only element of an array, however deep; any other value unchanged."""
    if isinstance(value, np.ndarray):
        return value.reshape(-1)[0] if value.size == 1 and value.dtype.kind in "SUO" else None
    return value


def attributes_json(items: Sequence[tuple[str, Any, set[str]]]) -> tuple[str, list[str]]:
    """Attributes as JSON, of (path, HDF5 object, names to leave out); and ``path@name`` of those that JSON cannot hold.

    The JSON is one object: path → name → {dtype, shape, value}. Floats are written so that they read back to the same
    bits; NaN and infinities as text; types without a JSON form as the hex digits of their bytes.
    """
    result: dict[str, dict[str, Any]] = {}
    lost = []
    for path, item, without in items:
        for name in () if item is None else sorted(item.attrs, key=name_text):
            if name in without:
                continue
            value = _attribute_value(item, name)
            if value is None:
                lost.append(f"{path}@{name_text(name)}")
            else:
                result.setdefault(path, {})[name_text(name)] = value
    return json.dumps(result, sort_keys=True, allow_nan=False), lost  # ASCII, so that bytes that are no UTF-8 stay apart


def _attribute_value(item: Any, name: str | bytes) -> dict[str, Any] | None:
    try:
        value = item.attrs[name]
    except (OSError, TypeError, ValueError):  # a type that h5py cannot read: references to what is gone, say
        return None
    if isinstance(value, str):
        return {"dtype": "text", "value": value}
    if isinstance(value, h5py.Empty):
        return {"dtype": "empty", "value": str(value.dtype)}
    array = np.asarray(value)
    shape = list(array.shape)
    if array.dtype.kind in "SU" or (array.dtype.kind == "O" and all(isinstance(text, str | bytes) for text in array.flat)):
        texts = [text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else str(text) for text in array.flat]
        return {"dtype": "text", "shape": shape, "value": texts}
    if array.dtype.hasobject:
        return None
    if array.dtype.kind in "biuf" and array.dtype.itemsize <= 8:
        return {"dtype": array.dtype.str, "shape": shape, "value": [_json_number(x) for x in array.ravel().tolist()]}
    return {"dtype": str(array.dtype), "shape": shape, "hex": array.tobytes().hex()}


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)

"""Find the instruction of a demo and of a file in HDF5: attributes, JSON in attributes, text datasets.

What counts as one is ruled in ``schemas.instructions``. Works on h5py's objects; imports no h5py itself.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from robozarr.convert.sources.attributes import read_attribute, text_of
from robozarr.convert.sources.links import name_text
from robozarr.schemas.instructions import (
    CONTAINERS,
    MAX_CHARACTERS,
    NAMES,
    Found,
    InstructionSource,
    Words,
    choose_words,
    is_named_so,
    named_in,
)

__all__ = ["WORDS_OF_DATASET", "find_words", "is_text_dataset", "words_at"]

WORDS_OF_DATASET: Final = "text, kept as the instruction of the episodes"
"""Reason for a dataset that is not stored because it is the source of the instruction."""
MAX_JSON_BYTES: Final = 2**24
"""Largest JSON text that is parsed: RoboCasa's ``ep_meta`` has some 100 kB."""
MAX_PYTHON_BYTES: Final = 2**16
"""Largest text that is parsed as Python's form of a dict, by a parser that takes a hundred times the text's memory."""
BLOCK_BYTES: Final = 2**20
BLOCK_ROWS: Final = 1024
"""Rows of a text dataset that are read at once, to check that all of them agree."""


def find_words(items: Iterable[tuple[str, Any]], source: InstructionSource) -> Words:
    """The instruction found in HDF5 objects.

    Parameters
    ----------
    items : iterable of (path, h5py object or None)
        Groups and datasets of one demo, or of a file outside its demos. None: a link that leads nowhere.
    source : InstructionSource
        Of attributes: the demo's, or the file's.
    """
    return choose_words(found for path, item in items if item is not None for found in _found_in(path, item, source))


def words_at(places: Iterable[str], demo: Any, file: Any) -> Words:
    """The instruction at the first place of a layout that has one; looks into h5py's groups of a demo and its file."""
    for place in places:
        path, _, attribute = place.lstrip("/").partition("@")
        item = (file if place.startswith("/") else demo).get(path) if path else (file if place.startswith("/") else demo)
        if item is None or not (attribute or is_text_dataset(item)):
            continue
        source, why_not = InstructionSource.DATASET, ""
        if attribute:
            name, _, inner = attribute.partition(":")
            value: object = read_attribute(item.attrs, name)
            value = _object_in(value)[0].get(inner) if inner else value
            source = InstructionSource.FILE_ATTRIBUTE if place.startswith("/") else InstructionSource.DEMO_ATTRIBUTE
        else:
            value, why_not = _constant_text(item)
        of_demo = "" if attribute or place.startswith("/") else path
        words = choose_words([Found(f"{place} (by the layout)", NAMES[0], value, source, of_demo, why_not)])
        if words.text:
            return words
    return Words()


def is_text_dataset(item: Any) -> bool:
    """Whether an h5py object is a dataset of text."""
    try:
        dtype = getattr(item, "dtype", None)
    except TypeError:  # of a type that numpy lacks, such as a time
        return False
    return dtype is not None and (dtype.kind in "SU" or (dtype.metadata or {}).get("vlen") in (str, bytes))


def _found_in(path: str, item: Any, source: InstructionSource) -> Iterator[Found]:
    name = path.rpartition("/")[2]
    if hasattr(item, "shape"):
        if is_named_so(name) and is_text_dataset(item):
            value, why_not = _constant_text(item)
            yield Found(f"dataset {path}", name.lower(), value, InstructionSource.DATASET, path, why_not)
        return
    inside = f"{path}@" if path else ""
    for name in map(name_text, item.attrs):
        if is_named_so(name):
            yield Found(f"attribute {inside}{name}", name.lower(), read_attribute(item.attrs, name), source)
        elif name.lower() in CONTAINERS:
            members, why_not = _object_in(read_attribute(item.attrs, name))
            for inner, value in named_in(members):
                yield Found(f"attribute {inside}{name}.{inner}", inner.lower(), value, source)
            if why_not:
                yield Found(f"attribute {inside}{name}", NAMES[0], "", source, why_not=why_not)


def _object_in(value: object) -> tuple[Mapping[str, Any], str]:
    """Members of an object in JSON, or as Python prints a dict; or why a text that names an instruction is none."""
    text = text_of(value)
    if text is None or len(text) > MAX_JSON_BYTES:
        return {}, ""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why_not = f"it is no JSON ({error})" if any(f'"{name}"' in text for name in NAMES) else ""
        try:
            found = ast.literal_eval(text.strip()) if len(text) <= MAX_PYTHON_BYTES else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found = None
        if not isinstance(found, dict):
            return {}, why_not
    return (found if isinstance(found, dict) else {}), ""


def _constant_text(item: Any) -> tuple[object, str]:
    """The text of all rows of a text dataset (empty rows are ignored), or why they do not agree."""
    if item.shape is None or 0 in item.shape:
        return "", ""
    if item.dtype.itemsize > 4 * MAX_CHARACTERS:
        return "", f"its texts have {item.dtype.itemsize:,} bytes each"
    if item.shape == ():
        return item[()], ""
    texts: dict[object, None] = {}
    step = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, item.dtype.itemsize)))
    for start in range(0, item.shape[0], step):
        rows = item[start : start + step].reshape(-1).tolist()
        texts |= dict.fromkeys(text for text in rows if text.strip(*([b"\0 \t\r\n"] if isinstance(text, bytes) else [])))
        if len(texts) > 1:
            return "", f"its rows say different things, up to row {start + len(rows)} {len(texts)} of them"
    return next(iter(texts), ""), ""

"""Models of a store's JSON documents, and strict parsing of them. Imports msgspec, and does no I/O.

What two readers could take differently is refused: a name that occurs twice, NaN, text that is no UTF-8, fields that the format
does not know. What a field *means* is said by ``metadata`` and ``zarr_json``, which use these models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "ArrayDocument",
    "FlagsDocument",
    "GroupDocument",
    "KeyDocument",
    "NotStoredDocument",
    "RootDocument",
    "SourceDocument",
    "as_model",
    "each_once",
    "parse_json",
]

Count = Annotated[int, Meta(ge=0, le=2**53)]
"""A number that every language reads exactly from JSON."""
Number = int | float


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """A document with exactly these fields."""


class KeyDocument(_Document):
    """An entry of ``keys``."""

    name: str
    source: str
    dtype: str
    shape: list[Count]
    role: str
    unit: str
    ragged: bool
    axes: str | UnsetType = UNSET
    decoded: str | UnsetType = UNSET


class SourceDocument(_Document):
    """An entry of ``sources``."""

    name: str
    size: Count
    mtime_ns: int
    n_demos: Count
    digest: str | UnsetType = UNSET


class NotStoredDocument(_Document):
    """An entry of ``not_stored``."""

    source: str
    path: str
    n_demos: Count
    reason: str


class FlagsDocument(_Document):
    """``flags``; ``FlagRules.from_json`` checks the rules in it."""

    noop: dict[str, Any]
    still: dict[str, Any]
    key_moment: dict[str, Any]
    joint_key: str | None
    gripper: dict[str, Any] | UnsetType = UNSET


class RootDocument(_Document):
    """The attribute ``robozarr`` of the root group."""

    format_version: int
    software: str
    profile: str
    complete: bool
    n_steps: Count
    n_episodes: Count
    n_tasks: Count
    control_freq: Number | None
    keys: list[KeyDocument]
    selected_keys: list[str] | None
    sources: list[SourceDocument]
    splits: list[str]
    flags: FlagsDocument
    not_stored: list[NotStoredDocument]
    identity: str | UnsetType = UNSET
    files: dict[str, str] | UnsetType = UNSET
    layouts: list[dict[str, Any]] | UnsetType = UNSET


class GroupDocument(_Document):
    """The ``zarr.json`` of a group."""

    zarr_format: int
    node_type: str
    attributes: dict[str, Any] = {}
    consolidated_metadata: Any = None
    """Copies of other documents that Zarr libraries may write; ignored here."""


class ArrayDocument(_Document):
    """The ``zarr.json`` of an array; ``zarr_json`` checks its codecs."""

    zarr_format: int
    node_type: str
    shape: list[Count]
    data_type: str
    chunk_grid: dict[str, Any]
    chunk_key_encoding: dict[str, Any]
    fill_value: bool | Number
    codecs: list[dict[str, Any]]
    dimension_names: list[str]
    attributes: dict[str, Any] = {}
    storage_transformers: list[Any] = []


WORDS: Final = {
    "n_steps": "a count",
    "n_episodes": "a count",
    "n_tasks": "a count",
    "size": "a count",
    "n_demos": "a count",
    "shape": "a list of counts",
    "selected_keys": "text",
    "software": "text",
    "identity": "text",
    "digest": "text",
    "control_freq": "a number or null",
    "fill_value": "0",
    "attributes": "an object",
    "dimension_names": "a list of text",
}
"""Plain words for what a field must be, where msgspec's own are harder to read."""

Model = TypeVar("Model", bound=_Document)


def as_model(value: Any, model: type[Model]) -> Model:
    """Convert a JSON value to one of the models.

    Raises
    ------
    ValueError
        If it is anything else; the text names the field, and what was found.

    Examples
    --------
    >>> as_model({"zarr_format": 3, "node_type": "group", "colour": "red"}, GroupDocument)
    Traceback (most recent call last):
    ValueError: unknown fields ['colour']
    """
    try:
        return msgspec.convert(dict(value) if isinstance(value, Mapping) else value, model)
    except msgspec.ValidationError as exc:
        raise ValueError(_words(str(exc), value)) from exc


def _words(said: str, value: Any) -> str:
    expected, _, at = said.rstrip("`").partition(" - at `$")
    where = at.removeprefix(".")
    if field := re.fullmatch(r"Object (contains unknown|missing required) field `(.*)", expected.rstrip("`"), re.S):
        kind = "unknown" if "unknown" in field[1] else "missing"
        return f"{where}: {kind} fields [{field[2]!r}]" if where else f"{kind} fields [{field[2]!r}]"
    found = value
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", at):
        found = found[name] if name else found[int(number)]
    last = re.sub(r"\[.*", "", where.rpartition(".")[2])
    shown = repr(found)
    must = WORDS.get(last) or expected.removeprefix("Expected ").partition(", got")[0].replace("`", "")
    return f"{where or 'the document'} must be {must}, got {shown if len(shown) <= 200 else f'{shown[:200]}…'}"


def parse_json(data: bytes, *, foreign_bytes: bool = False) -> dict[str, Any]:
    """Parse a JSON object that every reader understands in the same way.

    Parameters
    ----------
    data : bytes
    foreign_bytes : bool
        Whether texts may hold bytes that are no UTF-8, as lone surrogates U+DC80 to U+DCFF (FORMAT.md, M17).

    Raises
    ------
    ValueError
        If it is not UTF-8, no JSON, no object, or ambiguous: a name twice, NaN or infinities, half a character.

    Examples
    --------
    >>> parse_json(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: the name 'a' occurs twice
    """
    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=each_once, parse_constant=_refuse)
        if "\\u" in text:
            # halves of surrogate pairs are no text
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape" if foreign_bytes else "strict")
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"must be a JSON object, got {type(value).__name__}")
    return value


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for ``json.loads(…, object_pairs_hook=each_once)``; ValueError if a name occurs twice."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")

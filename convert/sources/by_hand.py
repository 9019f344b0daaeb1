"""Read instructions that the user gives by hand: ``--instructions FILE`` as CSV, JSON or TOML. Imports no h5py.

What they are matched with is the business of ``convert.planning.by_hand``.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from robozarr.schemas.documents import each_once
from robozarr.schemas.errors import PlanError
from robozarr.schemas.instructions import MAX_CHARACTERS, shown

__all__ = ["Given", "Instructions", "checked_instruction", "read_instructions"]

Instructions: TypeAlias = "str | Path | Mapping[str, str | Mapping[str, str]]"
"""A file, or its content: source → instruction, or source → demo → instruction."""
HOW: Final = (
    "CSV with the columns file, instruction and perhaps demo; JSON or TOML: file → instruction, or file → demo → instruction"
)
MAX_BYTES: Final = 2**26


class Given(NamedTuple):
    """One instruction that was given by hand."""

    file: str
    """Name of a source: its file name, or a longer end of its path."""
    demo: str
    """Name of a demo; "" for all demos of the file."""
    text: str
    where: str
    """Where it was given, for messages."""


def read_instructions(given: Instructions) -> list[Given]:
    """Read what the user gives by hand and check each entry.

    Raises
    ------
    PlanError
        If the file cannot be read, is of no known form, or an entry is no instruction; the text names the entry.
    """
    if isinstance(given, Mapping):
        found = list(_of_mapping(given, "instructions"))
    else:
        found = list(_of_file(Path(given)))
    if not found:
        raise PlanError(f"{'instructions' if isinstance(given, Mapping) else given}: holds no instruction → {HOW}")
    return [one._replace(text=checked_instruction(one.text, one.where)) for one in found]


def checked_instruction(text: object, where: str) -> str:
    """An instruction given by hand, without surrounding white space; PlanError if it is not one."""
    if not isinstance(text, str) or not text.strip():
        raise PlanError(f"{where}: an instruction must be text, not empty; got {text!r} → leave out what has none")
    text = text.strip()
    if len(text) > MAX_CHARACTERS or any("\ud800" <= character <= "\udfff" for character in text):
        raise PlanError(f"{where}: an instruction must be UTF-8 of at most {MAX_CHARACTERS:,} characters; got {shown(text)}")
    return text


def _of_file(path: Path) -> Iterator[Given]:
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as exc:
        raise PlanError(f"--instructions: {path} must be readable; found {exc.strerror or exc} → check the path") from exc
    if data is None:
        raise PlanError(f"--instructions: {path} is larger than {MAX_BYTES:,} bytes → {HOW}")
    try:
        text = data.decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            yield from _of_csv(text, path)
        elif path.suffix.lower() == ".json":
            yield from _of_json(json.loads(text, object_pairs_hook=each_once), str(path))
        elif path.suffix.lower() == ".toml":
            yield from _of_mapping(tomllib.loads(text), str(path))
        else:
            raise PlanError(f"--instructions: must be a .csv, .json or .toml file; got {path} → {HOW}")
    except (ValueError, RecursionError, csv.Error) as exc:  # no UTF-8, no JSON, no TOML
        raise PlanError(f"--instructions: {path} must be readable as {path.suffix[1:].upper()}; found {exc} → {HOW}") from exc


def _of_csv(text: str, path: Path) -> Iterator[Given]:
    rows = csv.DictReader(text.splitlines(keepends=True), strict=True, skipinitialspace=True)
    columns = [name.strip().lower() for name in rows.fieldnames or []]
    if not {"file", "instruction"} <= set(columns) <= {"file", "demo", "instruction"} or len(set(columns)) != len(columns):
        raise PlanError(
            f"--instructions: {path} must begin with the names of its columns; got {shown(', '.join(columns))} → {HOW}"
        )
    rows.fieldnames = columns
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        if None in row or None in row.values():
            raise PlanError(
                f"{where}: must have {len(columns)} cells, as the first line has; found another number → quote commas"
            )
        yield Given(row["file"].strip(), (row.get("demo") or "").strip(), row["instruction"], where)


def _of_json(value: Any, where: str) -> Iterable[Given]:
    if isinstance(value, dict):
        return _of_mapping(value, where)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise PlanError(f"--instructions: {where}: must be an object, or a list of objects; got {shown(str(value))} → {HOW}")
    return _of_list(value, where)


def _of_list(value: list[dict[str, Any]], where: str) -> Iterator[Given]:
    for number, entry in enumerate(value):
        if not {"file", "instruction"} <= set(entry) <= {"file", "demo", "instruction"}:
            raise PlanError(f"{where}, entry {number}: file, instruction and perhaps demo; got {', '.join(entry)} → {HOW}")
        yield Given(str(entry["file"]), str(entry.get("demo", "")), entry["instruction"], f"{where}, entry {number}")


def _of_mapping(value: Mapping[str, Any], where: str) -> Iterator[Given]:
    for file, text in value.items():
        if isinstance(text, Mapping):
            for demo, inner in text.items():
                yield Given(str(file), str(demo), inner, f"{where}: {file} · {demo}")
        else:
            yield Given(str(file), "", text, f"{where}: {file}")

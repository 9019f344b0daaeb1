"""Tell which files at a store's place belong to the store: those that FORMAT.md names, and a writer's temporary files.

All else belongs to somebody: notes beside the arrays, arrays that somebody added, a store inside a group. It is neither removed
nor written over, and nothing is reached through a link. Imports no Dask.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final

from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas.errors import BucketError, StoreError
from robozarr.schemas.index import FlagRules
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import GROUPS, TEMPORARY, Key, StoreMetadata, array_layouts, fixed_layouts
from robozarr.schemas.zarr_json import parse_array_document
from robozarr.store.concurrent import run_concurrently
from robozarr.store.place import Place
from robozarr.store.reading import read_metadata

__all__ = ["check_links", "check_room", "owned_files", "parent_groups", "temporaries", "unplanned_files"]

EMBEDDING: Final = "tasks/embedding"
"""Arrays that a store may hold in addition, at any depth below this path."""
SHARD: Final = re.compile(r"(?P<path>.+?)/c/\d+(?:/\d+)*")
IN_ARRAY: Final = r"(?:/c(?:/\d+)*)?"
WRITERS: Final = re.compile(rf"(?P<folder>(?:.*/)?)\.[^/]+\.[0-9a-f]{{32}}{re.escape(TEMPORARY)}")
"""The temporary files of ``FolderPlace.write``."""


def parent_groups(path: str) -> Iterator[str]:
    """The groups above an array."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Paths of arrays and groups that a store can have, with each kind of key and a split."""
    any_name = "ANY"  # stands for every name
    kinds = [
        Key(name=any_name, source=any_name, dtype="uint8", shape=shape, role="state", unit="", ragged=ragged)
        for shape, ragged in (((8, 8), False), ((1,), False), ((), True))
    ]
    paths: set[str] = set()
    for key in kinds:
        metadata = StoreMetadata(
            software="", profile="lean", complete=False, n_steps=0, n_episodes=0, n_tasks=0, control_freq=None, keys=(key,),
            selected_keys=None, sources=(), splits=(any_name,), flag_rules=FlagRules(), joint_key=None, not_stored=(),
        )  # fmt: skip
        sizes = {layout.path.removesuffix("/offsets"): 0 for layout in fixed_layouts(metadata)}
        paths |= set(array_layouts(metadata, sizes))
    groups = {parent for path in paths for parent in parent_groups(path)} | set(GROUPS) | {EMBEDDING}

    def alternatives(names: Iterable[str]) -> str:
        return "|".join(re.escape(name).replace(any_name, "[^/]+") for name in sorted(names))

    arrays = f"{alternatives(paths)}|{EMBEDDING}/.+"
    return re.compile(arrays), re.compile(alternatives(groups))


def owned_files(place: Place, names: Sequence[str]) -> list[str]:
    """Those of `names` (all files of a place) that belong to a store, except its root document.

    The root of a complete store names its arrays. What an unfinished conversion left is told by the form of its documents.
    """
    bound, (arrays, _) = _bound_arrays(place), _patterns()
    candidates = [
        (name, path)
        for name, path in _by_name(names)
        if not bound or path in bound or not arrays.fullmatch(path) or path.startswith(f"{EMBEDDING}/")
    ]
    there = set(names)
    paths = sorted({path for _, path in candidates if f"{path}/zarr.json" in there})
    kinds = dict(zip(paths, run_concurrently(partial(_kind, place), paths), strict=True))
    foreign = [path for path, kind in kinds.items() if not _fits(path, kind)]
    return [name for name, path in candidates if not any(path == other or path.startswith(f"{other}/") for other in foreign)]


def _bound_arrays(place: Place) -> frozenset[str]:
    """The arrays that the root of a complete store binds (M23); none if there is no such root."""
    try:
        return frozenset(read_metadata(place).files)
    except BucketError:
        raise
    except StoreError:
        return frozenset()


def _by_name(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Files whose names a store can have, with the array or group that each belongs to."""
    arrays, groups = _patterns()
    for name in names:
        if name.endswith("/zarr.json"):
            path = name.removesuffix("/zarr.json")
            if arrays.fullmatch(path) or groups.fullmatch(path):
                yield name, path
        elif (match := SHARD.fullmatch(name)) and arrays.fullmatch(match["path"]):
            yield name, match["path"]


def _kind(place: Place, path: str) -> str:
    """What a document describes: ``array``, ``group``, or ``other`` for another program's store, group or array."""
    try:
        document = json.loads(place.read(f"{path}/zarr.json"))
    except BucketError:
        raise
    except (OSError, ValueError, RecursionError):
        return ""  # damaged: by its name it is the store's
    if not isinstance(document, dict):
        return ""
    if document.get("node_type") == "group" and document.get("attributes"):
        return "other"
    if document.get("node_type") == "array" and not path.startswith(f"{EMBEDDING}/"):
        try:
            dims = parse_array_document(path, document).dims
        except StoreError:  # a store has no such array
            return "other"
        group, _, name = path.rpartition("/")
        if group == "steps" and not all(dim.startswith(f"{name}_") for dim in dims[1:]):  # a copy under another name
            return "other"
    return str(document.get("node_type"))


def _fits(path: str, kind: str) -> bool:
    arrays, groups = _patterns()
    if kind == "group":
        return bool(groups.fullmatch(path) or path.startswith(f"{EMBEDDING}/"))
    return kind == "" or (kind == "array" and bool(arrays.fullmatch(path)))


def unplanned_files(place: Place, layouts: Mapping[str, ArrayLayout]) -> list[str]:
    """Files of an earlier plan that this plan does not need: arrays and groups, and shards after an array's last."""
    names = place.names()
    groups = {parent for path in layouts for parent in parent_groups(path)}
    others = [name for name, path in _by_name(names) if path not in layouts and path not in groups]
    gone = owned_files(place, others) if others else []
    for name in names:
        path, chunk, inner = name.partition("/c/")
        number = inner.split("/")[0]
        if chunk and path in layouts and number.isdecimal() and int(number) >= layouts[path].n_shards:
            gone.append(name)
    return gone


def check_room(place: Place, names: Sequence[str], owned: Sequence[str], layouts: Mapping[str, ArrayLayout]) -> None:
    """Refuse to write a store over other programs' documents; StoreError, before anything is removed."""
    planned = {*layouts, *(parent for path in layouts for parent in parent_groups(path))}
    others = set(names) - set(owned)
    for path in sorted(planned):
        if f"{path}/zarr.json" in others:
            raise StoreError(
                f"{place.at(path)} is not this store's, and is in the store's way; move it away, or give another --store"
            )


def check_links(place: Place) -> None:
    """Refuse a store with a folder that is a link, which may lead outside; StoreError, before anything is written."""
    if place.folder is None:
        return
    arrays, groups = _patterns()
    in_array = re.compile(f"(?:{arrays.pattern}){IN_ARRAY}")
    for top, folders, _ in os.walk(place.folder):
        for name in folders:
            path = Path(top, name)
            inner = path.relative_to(place.folder).as_posix()
            if path.is_symlink() and (groups.fullmatch(inner) or in_array.fullmatch(inner)):
                raise StoreError(
                    f"{path} is a link, and nothing is written or removed through links inside a store; replace it by what it "
                    "leads to, or remove it"
                )


def temporaries(names: Iterable[str]) -> Iterator[str]:
    """Temporary files that writers of this store left behind; not those of a store inside it."""
    arrays, groups = _patterns()
    in_array = re.compile(f"(?:{arrays.pattern}){IN_ARRAY}")
    for name in names:
        match = WRITERS.fullmatch(name)
        if match is None:
            continue
        folder = match["folder"].rstrip("/").removeprefix(f"{FOLDER}/stage").strip("/")
        if folder in ("", FOLDER) or groups.fullmatch(folder) or in_array.fullmatch(folder):
            yield name

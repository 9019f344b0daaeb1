"""Compare the documents, arrays and shards on disk with those that a store must have.

What is inside the shards of columns is read by ``convert.verifying.verification``; only offsets and tables are read here.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from robozarr.convert.verifying.checks import Violation, violations_of
from robozarr.schemas.errors import BucketError, CorruptChunkError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import TEMPORARY, StoreMetadata, array_layouts, fixed_layouts, variable_paths
from robozarr.store.place import Place
from robozarr.store.reading import read_array, read_group, read_layout
from robozarr.store.table_rules import broken_layout, broken_offsets

__all__ = ["check_temporaries", "is_table", "read_layouts", "read_tables"]


def check_temporaries(root: Place, names: Sequence[str]) -> Iterator[Violation]:
    """M20: check that no file of an interrupted writer is left. `names` is every file of the store."""
    temporary = re.compile(rf"(?:.*/)?\.[^/]*{re.escape(TEMPORARY)}")
    files = {name for name in names if temporary.fullmatch(name)}
    parts = (name.split("/")[:-1] for name in names)
    folders = {
        path for path in ("/".join(part[:i]) for part in parts for i in range(1, len(part) + 1)) if temporary.fullmatch(path)
    }
    if root.folder is not None:  # folders without files too
        folders |= {path.relative_to(root.folder).as_posix() for path in root.folder.rglob(f".*{TEMPORARY}") if path.is_dir()}
    for path in sorted(files | folders):
        remedy = "left behind by a writer that was interrupted; remove it"
        if path in folders:
            remedy = "an append is not finished; run it again, or remove this folder to give it up"
            if [name for name in names if name.startswith(f"{path}/")] == [f"{path}/lock"]:
                remedy = (
                    "a converter is working on the store, or was killed after its last step; wait for it, or remove this folder"
                )
        yield Violation(rule="M20", text=f"{path}: {remedy}")


def read_layouts(root: Place, metadata: StoreMetadata, names: Sequence[str]) -> tuple[dict[str, ArrayLayout], list[Violation]]:
    """M1 and M3 to M7: read every array that the attributes require. `names` is every file, sorted."""
    found: dict[str, ArrayLayout] = {}
    violations: list[Violation] = []
    for expected in fixed_layouts(metadata):
        violations += _read_one(root, names, expected, found)
    sizes: dict[str, int] = {}
    for path in variable_paths(metadata) if not violations else ():
        try:
            offsets = read_array(root, found[f"{path}/offsets"])
        except CorruptChunkError as exc:
            violations.append(Violation(rule=exc.rule, text=str(exc)))
            continue
        if broken := list(violations_of(broken_offsets(path, offsets, None))):
            violations += broken
        else:
            sizes[path] = int(offsets[-1])
    if not violations:
        for path, expected in array_layouts(metadata, sizes).items():
            if path not in found:
                violations += _read_one(root, names, expected, found)
    for group in sorted({parent for path in found for parent in _parent_groups(path)}):
        try:
            read_group(root, group)
        except BucketError:
            raise
        except StoreError as exc:
            violations.append(Violation(rule="M1", text=str(exc)))
    return found, violations


def _parent_groups(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _read_one(root: Place, names: Sequence[str], expected: ArrayLayout, found: dict[str, ArrayLayout]) -> Iterator[Violation]:
    try:
        layout = read_layout(root, expected.path)
    except BucketError:
        raise
    except StoreError as exc:
        absent = isinstance(exc.__cause__, FileNotFoundError) or "dimension_names" in str(exc)
        yield Violation(rule="M3" if absent else "M4", text=str(exc))
        return
    if f"{layout.path.rpartition('/')[0]}/offsets" in found and layout.shape != expected.shape:
        text = f"{layout.path}: {layout.shape[0]} values, but the offsets end at {expected.shape[0]}"
        yield Violation(rule="M15", text=text)
        return
    broken = list(violations_of(broken_layout(layout, expected))) or list(_check_shards(names, layout))
    yield from broken
    if not broken:
        found[layout.path] = layout


def _check_shards(names: Sequence[str], layout: ArrayLayout) -> Iterator[Violation]:
    """M7: check that the files below an array are exactly its shards; a claimed number of shards needs as many files."""
    name = re.compile(rf"c/(0|[1-9][0-9]*){'/0' * (len(layout.shape) - 1)}")
    there = set()
    top = f"{layout.path}/"
    for file in names[bisect_left(names, top) : bisect_left(names, f"{layout.path}0")]:  # "0" is what follows "/"
        inner = file.removeprefix(top)
        if inner == "zarr.json" or inner.endswith(TEMPORARY):
            continue
        match = name.fullmatch(inner)
        if match is None or int(match.group(1)) >= layout.n_shards:
            yield Violation(rule="M7", text=f"{layout.path}/{inner}: no shard of the array has this name")
        else:
            there.add(int(match.group(1)))
    if len(there) < layout.n_shards:
        first = next(shard for shard in range(layout.n_shards) if shard not in there)
        where = f"{layout.path} · shard {first} ({layout.shard_path(first)})"
        text = f"{where}: every expected shard must exist; found {len(there)} of {layout.n_shards}"
        yield Violation(rule="M7", text=f"{text} → restore it from a copy, or convert again")


def is_table(path: str) -> bool:
    """Whether an array is small enough to hold whole: all arrays except the columns."""
    bulk = ("episodes/model_file/bytes", "episodes/init_state/values")
    folder, _, last = path.partition("/")
    return folder != "steps" and path not in bulk and not (folder == "ragged" and last.endswith("/values"))


def read_tables(
    root: Place, layouts: dict[str, ArrayLayout], bound: StoreMetadata | None = None
) -> tuple[dict[str, NDArray[Any]], list[Violation]]:
    """Read every table by path, with a violation for each that cannot be read or is not the one that `bound` binds."""
    tables, violations = {}, []
    for path, layout in layouts.items():
        if is_table(path):
            try:
                tables[path] = read_array(root, layout, bound=bound)
            except CorruptChunkError as exc:
                violations.append(Violation(rule=exc.rule, text=str(exc)))
    return tables, violations

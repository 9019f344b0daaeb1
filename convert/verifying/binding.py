"""Check M23: every file of a store is the one that its root document binds, and the root's identity is its own digest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import google_crc32c

from robozarr.convert.verifying.checks import Violation
from robozarr.schemas.identity import bound_sum, files_entry
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import StoreMetadata
from robozarr.schemas.shard import shard_sum
from robozarr.store.place import Place

__all__ = ["check_binding"]


def check_binding(
    root: Place, metadata: StoreMetadata, layouts: Mapping[str, ArrayLayout], sums: Mapping[str, int]
) -> Iterator[Violation]:
    """Check M23 of a store that has no other violations.

    Parameters
    ----------
    root : Place
    metadata : StoreMetadata
        Of version 1: nothing is bound.
    layouts : mapping
        Every array.
    sums : mapping
        What binds the shards that were read already, by name; the other files are read here.
    """
    if metadata.format_version == 1:
        return
    if (found := metadata.document_digest) != metadata.identity:
        text = f"zarr.json: identity is the digest of the attributes, {found}; got {metadata.identity!r}: they were changed"
        yield Violation(rule="M23", text=text)
    if unlike := set(layouts) ^ set(metadata.files):
        text = f"zarr.json: files must name every array and no other; wrong for: {', '.join(sorted(unlike))}"
        yield Violation(rule="M23", text=text)
        return
    for path, layout in layouts.items():
        names = [layout.shard_path(shard) for shard in range(layout.n_shards)]
        found_sums = [
            sums[name] if name in sums else shard_sum(root.read(name), layout, shard) for shard, name in enumerate(names)
        ]
        document = google_crc32c.value(root.read(f"{path}/zarr.json"))
        if files_entry(document, found_sums) != metadata.files[path]:
            yield Violation(rule="M23", text=_first_other(metadata, path, document, found_sums))


def _first_other(metadata: StoreMetadata, path: str, document: int, sums: list[int]) -> str:
    """The first file of an array that is not the bound one."""
    for shard, found in [(None, document), *enumerate(sums)]:
        bound = bound_sum(metadata.files, path, shard)
        if bound != found:
            what = "zarr.json" if shard is None else f"shard {shard}"
            expected = "no such file" if bound is None else f"{bound:#010x}"
            return f"{path} · {what}: bound to {expected}, got {found:#010x}: it was changed, or is another store's"
    return f"{path}: files binds more shards than the array has"

"""Record a checksum of every file in the root document of a finished store (FORMAT.md, M23). Imports no Dask.

What this run wrote is known from writing it; of an append, what the store held before is known from its root, or is read where
that is of version 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from robozarr.schemas.identity import bound_sum, files_entry
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import StoreMetadata
from robozarr.schemas.shard import shard_sum
from robozarr.store.place import Place

__all__ = ["bind_files"]


def bind_files(
    layouts: Mapping[str, ArrayLayout], sums: Mapping[str, int], base: StoreMetadata | None, store: Place
) -> dict[str, str]:
    """The field ``files``.

    Parameters
    ----------
    layouts : mapping
        Every array of the finished store.
    sums : mapping
        What binds each file that was written, or found unchanged, by its name.
    base : StoreMetadata, optional
        Of the store that is appended to.
    store : Place
        Where that is.
    """

    def of_shard(layout: ArrayLayout, shard: int) -> int:
        name = layout.shard_path(shard)
        known = sums.get(name)
        if known is None and base is not None:
            known = bound_sum(base.files, layout.path, shard)
        return shard_sum(store.read(name), layout, shard) if known is None else known

    return {
        path: files_entry(sums[f"{path}/zarr.json"], [of_shard(layout, shard) for shard in range(layout.n_shards)])
        for path, layout in sorted(layouts.items())
    }

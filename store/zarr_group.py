"""zarr's view of a store, for users who like to slice. robozarr itself does not use it to read a store's content."""

from __future__ import annotations

from typing import Any

import zarr

from robozarr.schemas.errors import BucketError, StoreError
from robozarr.store.place import Place

__all__ = ["zarr_array", "zarr_group", "zarr_store"]


def zarr_group(place: Place) -> zarr.Group:
    """Open the root group for reading; StoreError if zarr cannot open it. Consolidated copies of documents are ignored."""
    try:
        return zarr.open_group(zarr_store(place), mode="r", zarr_format=3, use_consolidated=False)
    except BucketError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as exc:
        raise StoreError(f"{place.url}/zarr.json: not the root of a Zarr v3 group: {exc}; convert the sources again") from exc


def zarr_array(group: zarr.Group, where: str, path: str) -> zarr.Array[Any]:
    """Open an array of the group; StoreError if zarr cannot open it."""
    try:
        array = group[path]
    except StoreError:
        raise
    except Exception as exc:  # zarr's words for a bad document are of many kinds
        raise StoreError(
            f"{where}/{path}: an array that zarr can open; found {exc!r} → run: robozarr verify {where}, then convert again"
        ) from exc
    if not isinstance(array, zarr.Array):
        raise StoreError(f"{where}: {path} must be an array; run: robozarr verify {where}")
    return array


def zarr_store(place: Place, *, read_only: bool = True) -> Any:
    """The store object through which zarr opens a place."""
    if place.folder is not None:
        return str(place.folder)
    from robozarr.store.bucket import BucketPlace
    from robozarr.store.zarr_bucket import BucketOfZarr

    assert isinstance(place, BucketPlace)
    return BucketOfZarr(place, read_only=read_only)

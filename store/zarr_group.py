"""zarr's view of a store, for users who want to slice it. robozarr itself does not use it to read a store's content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import zarr

from robozarr.schemas.errors import BucketError, StoreError
from robozarr.store.bucket import BucketPlace
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place
from robozarr.store.zarr_place import CheckedStoreOfZarr, PlaceOfZarr

if TYPE_CHECKING:
    from robozarr.store.checked_files import CheckedFiles

__all__ = ["writable_group", "zarr_array", "zarr_group"]


def zarr_group(files: CheckedFiles) -> zarr.Group:
    """The root group of an open store, to be read, with every check; StoreError if zarr cannot open it.

    Copies of documents that it may hold are not believed.
    """
    where = files.path
    try:
        return zarr.open_group(CheckedStoreOfZarr(files), mode="r", zarr_format=3, use_consolidated=False)
    except BucketError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as exc:
        raise StoreError(f"{where}/zarr.json: not the root of a Zarr v3 group: {exc}; convert the sources again") from exc


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


def writable_group(place: Place) -> zarr.Group:
    """The root group of a place, for adding arrays to it."""
    assert isinstance(place, FolderPlace | BucketPlace)
    return zarr.open_group(PlaceOfZarr(place, read_only=False), mode="r+")

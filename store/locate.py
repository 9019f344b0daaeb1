"""Find the place that a path or a URL names. Imports obstore only for a bucket."""

from __future__ import annotations

import re
from pathlib import Path

from robozarr.schemas.errors import StoreError
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place

__all__ = ["place_of"]


def place_of(store: str | Path | Place, endpoint_url: str | None = None) -> Place:
    """The place that a path or a URL names.

    Parameters
    ----------
    store : path, URL or Place
        ``s3://bucket/prefix``, ``gs://bucket/prefix`` (the scheme in any case), or else a folder.
    endpoint_url : str, optional
        Of a service that speaks S3 and is not Amazon's; only for ``s3://``.

    Raises
    ------
    StoreError
        If the URL is of another kind, or names no bucket; or if a relative path leads nowhere any more.

    Examples
    --------
    >>> place_of("libero.zarr").folder
    PosixPath('libero.zarr')
    >>> place_of("s3://robots/libero.zarr/").at("zarr.json")
    's3://robots/libero.zarr/zarr.json'
    """
    if not isinstance(store, str | Path):
        return store
    if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*://", str(store)) is None:
        if isinstance(store, Path) and re.match(r"(?i)(s3|gs|az):/[^/]", str(store)):
            raise StoreError(f"{store}: a pathlib.Path holds no URL; give it as text, such as 's3://bucket/prefix'")
        if re.match(r"(?i)\s*(s3|gs|az|gcs|https?|file):", str(store)):
            raise StoreError(
                f"{store}: neither a URL nor the path of a folder; give s3://bucket/prefix, gs://bucket/prefix, or a folder "
                f"(one of this name: ./{store})"
            )
        if endpoint_url is not None:
            raise StoreError(f"{store}: a folder has no endpoint; leave out --endpoint-url, or give s3://bucket/prefix")
        if not Path(store).is_absolute():
            try:
                Path.cwd()
            except FileNotFoundError as exc:
                raise StoreError(f"{store}: the folder that this process works in was removed; give an absolute path") from exc
        return FolderPlace(Path(store))
    from robozarr.store.bucket import BucketPlace

    return BucketPlace.of(str(store).strip(), endpoint_url)

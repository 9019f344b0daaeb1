"""Identify a store, and notice if it is no longer the one that was opened. Imports no Zarr library.

The root document of a store of version 2 binds every file (``schemas.identity``), so its identity is that of the whole store.
Of version 1 there is only a digest of the root document and of the checksums of the data.
"""

from __future__ import annotations

from robozarr.schemas.errors import BucketError, StoreChangedError, StoreError
from robozarr.schemas.identity import digest_of
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import StoreMetadata, fixed_layouts
from robozarr.store.bucket import BucketPlace
from robozarr.store.concurrent import run_concurrently
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place
from robozarr.store.reading import read_layout, read_metadata

__all__ = ["Watch", "changed_since", "check_identity", "find_identity"]


class Watch:
    """Whether a store is still the one that was opened. While its root document is the same file, that is not read again.

    Parameters
    ----------
    place : Place
    metadata, identity : StoreMetadata, str
        Of the store that was opened.
    """

    def __init__(self, place: Place, metadata: StoreMetadata, identity: str) -> None:
        self._place, self._metadata, self._identity = place, metadata, identity
        self._same: object = None  # what the root document was when the store was found to be the same

    def changed(self) -> StoreChangedError | None:
        """The error if the store was changed; None if it is the same, or nobody can tell."""
        facts = self._facts()
        if facts is not None and facts == self._same:
            return None
        found = changed_since(self._place, self._metadata, self._identity)
        self._same = facts if found is None else None
        return found

    def _facts(self) -> object:
        """Facts that distinguish the root document from another one, without reading it; None where there are none."""
        if not isinstance(self._place, FolderPlace | BucketPlace):
            return None
        try:
            return self._place.facts("zarr.json")
        except OSError:
            return None


def check_identity(metadata: StoreMetadata, where: str) -> None:
    """Raise StoreError unless a root document is the one that the conversion wrote."""
    if metadata.format_version > 1 and (found := metadata.document_digest) != metadata.identity:
        raise StoreError(
            f"{where}/zarr.json: identity {metadata.identity or '(none)'} is the digest of the document; found {found}: it was "
            "changed after the conversion → restore it from a copy, or convert again"
        )


def find_identity(place: Place, metadata: StoreMetadata) -> str:
    """The identity of a store: as its root states it; for version 1 a digest of the root and of the data's checksums."""
    if metadata.format_version > 1:
        return metadata.identity
    tables = [layout for layout in fixed_layouts(metadata) if layout.path.startswith("checksums/")]
    run = map if place.folder is not None else run_concurrently
    return digest_of(metadata.document_digest.encode(), *run(lambda layout: _bytes_of(place, layout), tables))


def _bytes_of(place: Place, expected: ArrayLayout) -> bytes:
    """The files of a table; empty if it cannot be read, which its reader will report."""
    try:
        layout = read_layout(place, expected.path)
        return b"".join(place.read(layout.shard_path(shard)) for shard in range(layout.n_shards))
    except BucketError:
        raise
    except (StoreError, OSError):
        return b""


def changed_since(place: Place, metadata: StoreMetadata, identity: str) -> StoreChangedError | None:
    """The error if a store was changed since it was opened; None if it is the same, or if that cannot be known.

    Parameters
    ----------
    place : Place
    metadata, identity : StoreMetadata, str
        Of the store that was opened.
    """
    try:
        now = read_metadata(place, allow_incomplete=True)
        if now.complete and find_identity(place, now) == identity:
            return None
    except BucketError:
        return None
    except StoreError as exc:
        cause = exc.__cause__ and (exc.__cause__.__cause__ or exc.__cause__)
        if isinstance(cause, FileNotFoundError | NotADirectoryError):
            return StoreChangedError(f"{place}: removed since it was opened → restore it, or open another store")
        return StoreChangedError(f"{place}: replaced since it was opened, by something else: {exc}")
    if not now.complete:
        return StoreChangedError(
            f"{place}: changed since it was opened: a conversion or an append is working on it, or was interrupted → open it "
            "again when that has ended"
        )
    n = len(metadata.sources)
    if now.n_steps >= metadata.n_steps and now.sources[:n] == metadata.sources and len(now.sources) > n:
        return StoreChangedError(
            f"{place}: grew since it was opened: {metadata.n_episodes} episodes then, {now.n_episodes} now → open it "
            "again, and build datasets and loaders from that"
        )
    return StoreChangedError(
        f"{place}: replaced since it was opened: identity {identity} then, {find_identity(place, now)} now → open it again, "
        "and build datasets and loaders from that"
    )

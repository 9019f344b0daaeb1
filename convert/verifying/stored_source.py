"""A store as a source: plan the same store in another profile, with the values of the store itself.

For a conversion from store to store, and for the comparison of two stores. Imports no h5py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.planning.left_out import not_wanted
from robozarr.convert.planning.plan import Plan, make_plan
from robozarr.convert.verifying.base import scanned_again
from robozarr.schemas.errors import CorruptChunkError, PlanError, StoreError
from robozarr.schemas.layout import Profile
from robozarr.schemas.metadata import ATTRIBUTE, StoreMetadata
from robozarr.store.locate import place_of
from robozarr.store.place import Place
from robozarr.store.reading import read_array, read_document, read_layout, read_metadata

__all__ = ["check_columns", "plan_of_store", "stored_source"]

FACTS: Final = ("control_freq", "keys", "selected_keys", "sources", "splits", "joint_key", "not_stored")
"""What a store of version 1 says of itself as it is said in version 2."""
SOME_URL: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


def stored_source(sources: str | Path | Place | Sequence[str | Path], endpoint_url: str | None = None) -> Place | None:
    """The store that was given instead of HDF5 files; None if there is none.

    Raises
    ------
    PlanError
        If a store is given together with something else.
    """
    given = [sources] if not isinstance(sources, Sequence) or isinstance(sources, str) else list(sources)
    stores = [place for each in given if (place := _store_at(each, endpoint_url)) is not None]
    if stores and len(given) > 1:
        raise PlanError(f"{stores[0]} is a store, and a store must be converted alone; give no other source with it")
    return stores[0] if stores else None


def _store_at(source: str | Path | Place, endpoint_url: str | None) -> Place | None:
    if not isinstance(source, str | Path):
        return source
    if SOME_URL.match(str(source)):  # HDF5 files are never read from a bucket
        return place_of(source, endpoint_url)
    if not (Path(source) / "zarr.json").is_file():
        return None
    place = place_of(source)
    try:
        attributes = read_document(place).get("attributes")
    except StoreError:
        return None
    return place if isinstance(attributes, dict) and ATTRIBUTE in attributes else None


def plan_of_store(store: Place, profile: Profile, level: int | None = None) -> tuple[Plan, StoreMetadata]:
    """Plan a store of any version and profile in `profile`; returns the attributes of the store too.

    Of a store of version 2 every table and every fact stays what it is. What one of version 1 does not say (digests of its
    sources) stays unsaid; its words become those of its episodes.

    Raises
    ------
    StoreError
        If it is no complete store, or breaks a rule of FORMAT.md as far as tables show.
    PlanError
        If the profile has no such `level`.
    """
    old = read_metadata(store)
    base, tables = scanned_again(store, old)
    plan = make_plan(
        base.files,
        profile=profile,
        rules=old.flag_rules,
        selected=old.selected_keys,
        level=level,
        own_layouts=tuple(old.layouts),
        without=not_wanted(old),
        base=base,
        anew=True,
    )
    facts: dict[str, Any] = {name: getattr(old, name) for name in FACTS}
    if old.format_version == 1:
        return replace(plan, metadata=replace(plan.metadata, **facts)), old
    fresh = {name: getattr(plan.metadata, name) for name in ("software", "profile", "complete", "files", "identity")}
    kept = {path: _kept(store, path, tables, table) for path, table in plan.tables.items()}
    return replace(plan, metadata=replace(old, **fresh, document_digest=""), tables=kept), old


def _kept(store: Place, path: str, tables: dict[str, NDArray[Any]], planned: NDArray[Any]) -> NDArray[Any]:
    """A table of the store, after checking that it has the planned shape."""
    if (table := tables[path]).shape != planned.shape:
        rule = f"{path} has the shape {planned.shape} that follows from the other tables"
        raise StoreError(f"{store}: {rule}; found {table.shape} → run: robozarr verify {store}")
    return np.asarray(table, planned.dtype)


def check_columns(origin: Place, store: Place, plan: Plan) -> None:
    """M21 of low-dim keys: check that each episode's rows in the new store have the old store's checksums.

    Raises
    ------
    CorruptChunkError
        If not: the old store's shards are not those that were written for it.
    """
    for key in (key for key in plan.metadata.keys if not key.frame and not key.ragged):
        path = f"checksums/{key.name}"
        old, new = (read_array(place, read_layout(place, path)) for place in (origin, store))
        if (bad := np.flatnonzero(old != new)).size:
            raise CorruptChunkError(
                f"{origin} · steps/{key.name} · episode {bad[0]}: its rows must have the checksum that {path} states; found "
                f"another → run: robozarr verify {origin}",
                "M21",
            )

"""The user's request to convert, and the report that answers it; ``convert.run`` does the work. Imports no Dask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from robozarr.convert.planning.by_hand import told
from robozarr.convert.planning.infer import Base, OnError
from robozarr.convert.planning.instructions import instruction_remarks
from robozarr.convert.planning.lengths import length_remarks
from robozarr.convert.planning.plan import Plan
from robozarr.convert.sources.by_hand import Given
from robozarr.convert.sources.layouts.catalogue import read_layout_file
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.stages import Written
from robozarr.schemas.errors import StoreError
from robozarr.schemas.layout import Profile
from robozarr.store.locate import place_of
from robozarr.store.place import Place
from robozarr.version import __version__

__all__ = ["ConvertReport", "Wish", "as_paths", "destination_of", "layouts_of", "options_of", "report_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """Report of a conversion, or of one that would be done (`dry_run`)."""

    store: str
    profile: Profile
    dry_run: bool
    n_sources: int
    n_tasks: int
    n_episodes: int
    n_steps: int
    keys: tuple[str, ...]
    n_partitions: int
    source_bytes: int
    """Size of the source files; if the source was a store, size of its values."""
    decoded_bytes: int
    """Decoded size of all columns."""
    stored_bytes: int
    """Size of the columns' shards on disk; 0 for a dry run."""
    would_take: dict[str, int]
    """The same in each profile with keyframes, estimated from samples of the frames; empty for a dry run or no frames."""
    seconds: float
    """Wall time, including the start-up of workers."""
    not_stored: tuple[dict[str, Any], ...]
    """Data of the sources that is not in the store, with the reason."""
    left_out: tuple[dict[str, str], ...]
    """Every problem that something was left out for, under ``--on-error skip``."""
    remarks: tuple[str, ...]
    """Remarks on the instructions: episodes without one, differing wordings, where they come from."""
    n_kept: int
    """Partitions that an earlier, interrupted run had finished."""
    n_appended: int
    """Source files that an append added; 0 without an append."""
    other_actions: tuple[str, ...] = ()
    """Keys that are actions too, beside ``actions``, as the layout says: of another arm, or in another form."""
    length_remarks: tuple[str, ...] = ()
    """Remarks on demos that are said to have another number of steps than they have."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The user's request."""

    store: Place
    origin: Place | None
    """The store that is converted instead of HDF5 files."""
    profile: Profile
    level: int | None
    keys: tuple[str, ...] | None
    without: tuple[str, ...]
    instruction: str | None
    instructions: tuple[Given, ...]
    on_error: OnError
    overwrite: bool
    append: bool
    layouts: tuple[Layout, ...]
    """The user's own layouts, tried before the built-in ones."""
    gripper: int | Literal["layout"] | None


def destination_of(store: str | Path | Place, origin: Place | None, endpoint_url: str | None) -> Place:
    """The place of the new store; the endpoint may be meant for the old store only.

    Raises
    ------
    StoreError
        If it is the old one.
    """
    is_folder = isinstance(store, Path) or (isinstance(store, str) and "://" not in store)
    of_origin = origin is not None and origin.folder is None and is_folder
    place = place_of(store, None if of_origin else endpoint_url)
    if origin is not None and (place == origin or (place.folder is None and place.url.startswith(f"{origin.url}/"))):
        raise StoreError(f"{store} is, or lies in, the store that is to be converted; give another --store")
    return place


def as_paths(sources: str | Path | Place | Sequence[str | Path]) -> Sequence[str | Path]:
    """Sources that are HDF5 files, as a sequence."""
    if isinstance(sources, str | Path):
        return [sources]
    assert isinstance(sources, Sequence)
    return sources


def layouts_of(given: str | Path | Layout | Sequence[str | Path | Layout] | None) -> tuple[Layout, ...]:
    """The user's own layouts; TOML files are read."""
    several = () if given is None else (given,) if isinstance(given, str | Path | Layout) else tuple(given)
    return tuple(each if isinstance(each, Layout) else read_layout_file(each) for each in several)


def options_of(wish: Wish) -> dict[str, Any]:
    """Everything that decides the bytes, except the sources."""
    versions = {name: version(name) for name in ("lz4", "numcodecs", "numpy", "zstandard")}
    keys = None if wish.keys is None else list(wish.keys)
    own: dict[str, Any] = {"layouts": [layout.to_json() for layout in wish.layouts], "gripper": wish.gripper}
    without = list(wish.without) or None
    by_hand = told(wish.instruction, wish.instructions)
    asked = {"profile": wish.profile, "level": wish.level, "keys": keys, "without": without}
    return {**asked, **own, **by_hand, "robozarr": __version__, **versions}


def report_of(
    wish: Wish, plan: Plan, base: Base | None, written: Written | None, dry_run: bool, seconds: float
) -> ConvertReport:
    """The report of a conversion that has ended, or of a dry run."""
    metadata, n_old = plan.metadata, 0 if base is None else len(base.files)
    return ConvertReport(
        store=wish.store.url,
        profile=metadata.profile,
        dry_run=dry_run,
        n_sources=len(plan.files),
        n_tasks=metadata.n_tasks,
        n_episodes=metadata.n_episodes,
        n_steps=metadata.n_steps,
        keys=tuple(key.name for key in metadata.keys),
        n_partitions=plan.n_partitions,
        source_bytes=sum(file.size for file in plan.files[n_old:]) if wish.origin is None else plan.n_bytes,
        decoded_bytes=plan.n_bytes,
        stored_bytes=0 if written is None else written.stored_bytes,
        would_take={} if written is None or base is not None else dict(written.would_take),
        seconds=seconds,
        not_stored=tuple(asdict(entry) for entry in metadata.not_stored),
        left_out=tuple(asdict(problem) for problem in plan.left_out),
        remarks=tuple(instruction_remarks(plan.files[n_old:])) if wish.origin is None else (),
        n_kept=0 if written is None else written.n_kept,
        n_appended=len(plan.files) - n_old if base is not None else 0,
        other_actions=tuple(key.name for key in metadata.keys if key.role == "action" and key.name != "actions"),
        length_remarks=tuple(length_remarks(plan.files[n_old:])) if wish.origin is None else (),
    )

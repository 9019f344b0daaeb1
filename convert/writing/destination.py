"""Check the place of a new store: what is there, and whether it may be used; empty it when a store is replaced.

Removes nothing that is not the store's (``writing.owned``). What may be done is decided by ``resuming.states``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

from robozarr.convert.planning.plan import Plan
from robozarr.convert.resuming.journal import FOLDER, Journal
from robozarr.convert.resuming.states import Command, NextStep, State, next_step, refusal
from robozarr.convert.writing.owned import check_links, check_room, owned_files, temporaries
from robozarr.convert.writing.write import remove_temporaries, write_metadata
from robozarr.schemas.errors import StoreError
from robozarr.schemas.metadata import ATTRIBUTE, GROUPS
from robozarr.store.place import Place
from robozarr.store.reading import read_document

__all__ = ["check_apart", "check_destination", "clear"]

ENOUGH_NAMES: Final = 4096
"""How many names at a prefix are looked at to see that it holds more than a journal."""


def check_destination(journal: Journal, command: Command) -> NextStep:
    """Return the next step of `command` for what is there; called before hours of work, not after.

    Raises
    ------
    StoreError
        If the path holds anything but nothing, an unfinished conversion that can go on, or a robozarr store that
        ``--overwrite`` or ``--append`` is given for; if its folder cannot be written to; or if a folder in it is a link.
    """
    store = journal.store
    document = _root_document(journal)
    root, others = _kind(document), document is not None
    if root == "foreign":
        raise StoreError(refusal(State.FOREIGN, command, str(store)))
    state = journal.look(command, root, others)
    step = next_step(state, command)
    if state is not State.EMPTY or step is not NextStep.REFUSE:
        _check_writable(store)
    if step is NextStep.REFUSE:
        if state is State.COMPLETE:
            journal.tidy()
        raise StoreError(refusal(state, command, str(store)))
    check_links(store)
    return step


def _kind(document: dict[str, Any] | None) -> Literal["none", "foreign", "incomplete", "complete"]:
    if document is None:
        return "none"
    attributes = document.get("attributes")
    value = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(value, dict):
        return "foreign"
    return "complete" if value.get("complete") is True else "incomplete"


def _root_document(journal: Journal) -> dict[str, Any] | None:
    """The root document: None if there are only a converter's own files, empty if there is something that is not a store."""
    store = journal.store
    if store.folder is None:
        if store.exists("zarr.json"):
            return read_document(store)
        return {} if any(name.split("/")[0] != FOLDER for name in store.names(ENOUGH_NAMES)) else None
    folder = store.folder
    try:
        if not os.path.lexists(folder):
            return None
        if (folder / "zarr.json").is_file():
            return read_document(store)
        if not folder.is_dir():
            return {}
        inside = [path.name for path in folder.iterdir() if path.name != FOLDER]
        # a first document that was not renamed yet when its writer was killed; without a journal it is anybody's
        return None if not set(inside) - set(temporaries(inside) if (folder / FOLDER).is_dir() else []) else {}
    except OSError as exc:
        raise StoreError(f"{store}: cannot be read: {exc.strerror or exc}; give another --store or change the rights") from exc


def _check_writable(place: Place) -> None:
    store = place.folder
    if store is None:  # a bucket says so when the lock is written, which is the next thing
        return
    parent = next(folder for folder in (store, *store.absolute().parents) if folder.exists())
    if not parent.is_dir():
        raise StoreError(f"{parent}: not a folder, so no store can be written there; give another --store")
    if not os.access(parent, os.W_OK | os.X_OK):
        why = _why_not_writable(parent)
        if parent not in (store, store.absolute().parent):
            why += f", and {store.absolute().parent} is not there (a mount that was left out?)"
        raise StoreError(f"{parent}: this folder cannot be written to: {why}; give another --store or change the rights")


def _why_not_writable(folder: Path) -> str:
    """Explain why a folder is not writable, for users who mounted it wrongly or not at all."""
    status = folder.stat()
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return "it is on a file system that is mounted read-only"
    return f"it belongs to user {status.st_uid} with mode {status.st_mode & 0o777:o}, and this is user {os.geteuid()}"


def check_apart(sources: Sequence[Path], store: Place) -> None:
    """Refuse sources inside the store, where replacing it would remove them; StoreError."""
    if store.folder is None:
        return
    for source in sources:
        if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(store.folder)):
            raise StoreError(f"{store} is to become the store, but holds the source {source}; give another --store")


def clear(store: Place, plan: Plan) -> None:
    """Remove the files of a store that is replaced, and nothing else; its root says "incomplete" from the beginning.

    Raises
    ------
    StoreError
        If something that is not the store's stands where the new one needs room.
    """
    names = store.names()
    owned = owned_files(store, names)
    check_room(store, names, owned, plan.layouts)
    write_metadata(store, plan.metadata)
    store.remove(owned)
    remove_temporaries(store)
    if store.folder is not None:
        for group in GROUPS:
            _remove_empty_folders(store.folder / group)


def _remove_empty_folders(folder: Path) -> None:
    for top, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            Path(top).rmdir()

"""Remember an unfinished conversion: its options and sources, and its finished partitions. Imports no Dask.

It lives in a folder of the store whose name is a temporary's, so that no finished store has one (FORMAT.md, M20):
``plan.json`` (what it was begun with), ``fence`` (for which plan workers may write), ``done.jsonl`` (a line per finished
partition; of a bucket ``done/``), ``lock``, and for an append ``stage/``, where the new files wait, and ``commit``, which
says that all of them are there.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from robozarr.convert.records import FileScan, FinishedPartition, Partition
from robozarr.convert.resuming.bucket_lock import hold_bucket_lock
from robozarr.convert.resuming.fence import FENCE, CheckedPlace, Fence
from robozarr.convert.resuming.finished import FinishedFile, FinishedObjects, FinishedRecord
from robozarr.convert.resuming.lock import hold_lock
from robozarr.convert.resuming.states import Command, PlaceFacts, State, state_of
from robozarr.schemas.errors import BucketError, PlanError, Problem, SourceError, StoreError
from robozarr.schemas.metadata import TEMPORARY
from robozarr.store.bucket import on_the_way_out
from robozarr.store.folder import FolderPlace
from robozarr.store.place import Place

__all__ = ["FOLDER", "Begun", "Fence", "Journal", "SourceFacts", "check_same", "digest"]

FOLDER: Final = f".convert{TEMPORARY}"
Kind = Literal["convert", "append"]


class SourceFacts(NamedTuple):
    """Facts that distinguish one content of a source file from another."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Modification time, ns since the epoch."""
    digest: str
    """Sampled digest of its content (``schemas.digest``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Everything that decides the bytes of a conversion, as recorded when it began."""

    kind: Kind
    options: Mapping[str, Any]
    """Profile, level, keys, and the versions of the encoding packages."""
    sources: Mapping[str, SourceFacts]
    """Path of each source → its size, modification time and digest."""
    left_out: tuple[Problem, ...] = ()
    """Demos that turned out to be unreadable while their pictures were being read, under ``--on-error skip``."""


def sources_of(files: Sequence[FileScan]) -> dict[str, SourceFacts]:
    """Size, modification time and digest of each file when it was scanned."""
    return {file.path: SourceFacts(file.size, file.mtime_ns, file.digest) for file in files}


def check_same(begun: Begun, now: Begun, store: Place) -> None:
    """Refuse to continue a conversion with options or sources that would give other bytes.

    Raises
    ------
    PlanError
        If it was begun with other options, or by another version.
    SourceError
        If sources came, went or changed; it lists each.
    """
    changed = [name for name in now.options if begun.options.get(name) != now.options[name]]
    anew = _anew(begun, store)
    if changed:
        what = "; ".join(f"{name} {begun.options.get(name)!r}, now {now.options[name]!r}" for name in changed)
        raise PlanError(f"{store}: the unfinished {begun.kind} used {what}; repeat it with the same options, or {anew}")
    problems = []
    for path in sorted({*begun.sources, *now.sources}):
        old, new = begun.sources.get(path), now.sources.get(path)
        if old != new:
            value = f"{_fact(new)}; when it began: {_fact(old)}"
            rule, remedy = f"an unfinished {begun.kind} must use the sources that it began with", f"put it back, or {anew}"
            problems.append(Problem(file=path, rule=rule, value=value, remedy=remedy))
    if problems:
        raise SourceError(f"{store}: sources have changed since this {begun.kind} began:", problems)


def _anew(begun: Begun, store: Place) -> str:
    if begun.kind == "append":
        return f"remove {store.at(FOLDER)} to cancel the append (the store stays as it was)"
    return "start again with --overwrite"


def _fact(fact: SourceFacts | None) -> str:
    if fact is None:
        return "no such source"
    if not fact.mtime_ns:  # a store
        return f"identity {fact.digest}"
    return f"{fact.size} bytes, changed at {fact.mtime_ns} ns, digest {fact.digest or 'unknown'}"


def digest(partition: Partition) -> str:
    """Digest of a partition's plan: layout, sources as scanned, rows."""
    return hashlib.blake2b(repr(partition).encode(), digest_size=12).hexdigest()


class Journal:
    """The journal of one store. Writing to it takes the store's lock.

    `store` and `place` are for reading; what is written goes through `checked`.
    """

    def __init__(self, store: Place) -> None:
        self.store = store
        self.place = store.below(FOLDER)
        self.stage = self.place.below("stage")
        self._lock_is_ours: Callable[[], None] = lambda: None
        self._held = False
        self._fence: Fence | None = None
        self._run = uuid.uuid4().hex
        self._checked = CheckedPlace(self.place, self.check)
        self._finished: FinishedRecord = (
            FinishedFile(self.place) if isinstance(self.place, FolderPlace) else FinishedObjects(self._checked.below("done"))
        )

    def check(self) -> None:
        """Raise StoreError if another converter has the lock or the fence: this process slept, or was cut off, for too long."""
        self._lock_is_ours()
        if self._fence is not None:
            self._fence.check()

    def checked(self, place: Place) -> CheckedPlace:
        """A place of this store for writing; the lock and the fence are checked before every change."""
        return CheckedPlace(place, self.check)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock while anything is written; StoreError if another converter holds it.

        Who gets it takes the fence away: whatever an earlier holder left running writes nothing more.
        """
        if self.store.folder is not None:
            self._refuse_links(self.store.folder)
            lock = hold_lock(self.store.folder / FOLDER / "lock", self.store.folder)
        else:
            lock = hold_bucket_lock(self.store, f"{FOLDER}/lock")
        with lock as self._lock_is_ours:
            self._held = True
            try:
                self._remove_temporaries()
                if self.place.exists(FENCE):
                    self.place.remove([FENCE])
                yield
                self.withdraw()
            except BaseException:
                on_the_way_out(self.withdraw)
                raise
            finally:
                self._held = False

    def _refuse_links(self, store: Path) -> None:
        """Refuse a link at the journal's place: writing and removing through it would leave the store."""
        for path in (store / FOLDER, store / FOLDER / "stage"):
            if path.is_symlink():
                raise StoreError(f"{path} is a link, and nothing is written through links inside a store; remove it")

    def _remove_temporaries(self) -> None:
        """Remove files that killed holders of the lock had not renamed yet."""
        if self.place.folder is not None:
            self.place.remove([entry.name for entry in os.scandir(self.place.folder) if _is_temporary(entry.name)])

    def tidy(self) -> None:
        """Remove the lock of a converter that was killed after its last step; StoreError if a converter holds it."""
        left = {name for name in self.place.names(9) if not _is_temporary(name)}
        if not self._held and self.place.names(1) and left <= {"lock", FENCE}:
            with self.locked():
                pass

    def begun(self) -> Begun | None:
        """What the unfinished conversion began with; None if there is none."""
        try:
            value = json.loads(self.place.read("plan.json"))
            if value["kind"] not in get_args(Kind):
                raise ValueError(f"kind {value['kind']!r}")
            return Begun(
                kind=value["kind"],
                options=value["options"],
                sources={name: SourceFacts(*facts) for name, facts in value["sources"].items()},
                left_out=tuple(Problem(**problem) for problem in value["left_out"]),
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except BucketError:
            raise
        except PermissionError as exc:
            where = self.place.at("plan.json")
            raise StoreError(f"{where}: cannot be read ({exc.strerror}); change the rights, or give another --store") from exc
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise StoreError(f"{self.place.at('plan.json')}: cannot be read ({exc!r}); start again with --overwrite") from exc

    def begin(self, begun: Begun) -> None:
        """Record what a conversion begins with, whole or not at all."""
        self._checked.write("plan.json", [json.dumps(asdict(begun), indent=1).encode()])

    def fence(self, begun: Begun | None = None) -> Fence:
        """Allow this run and its workers to write, and no others."""
        facts = json.dumps([self._run, None if begun is None else asdict(begun)], sort_keys=True).encode()
        fence = Fence(self.place, hashlib.blake2b(facts, digest_size=12).hexdigest())
        self.check()
        self.place.write(FENCE, [fence.plan.encode()], self._lock_is_ours)
        self._fence = fence
        return fence

    def withdraw(self) -> None:
        """Allow no more writing: busy workers stop before their next file."""
        fence, self._fence = self._fence, None
        if fence is not None:
            with suppress(StoreError):  # it is another's already
                self._lock_is_ours()
                fence.check()
                self.place.remove([FENCE])

    def finished(self) -> dict[tuple[str, int], FinishedPartition]:
        """The finished partitions, by array and shard."""
        return {(finished.path, finished.shard): finished for finished in self._finished.read()}

    def record(self, finished: FinishedPartition) -> None:
        """Add a finished partition."""
        self.check()
        self._finished.add(finished)

    def look(self, command: Command, root: Literal["none", "foreign", "incomplete", "complete"], others: bool) -> State:
        """The state of the place, given its root document and whether other files exist."""
        try:
            begun = self.begun()
        except BucketError:
            raise
        except StoreError:  # nobody can go on with it; to replace the store is no guess
            if command != "overwrite":
                raise
            begun = None
        committing = self.place.exists("commit")
        return state_of(
            PlaceFacts(
                root=root,
                others=others,
                record="none" if begun is None else begun.kind,
                committing=committing,
                staged=committing and self.stage.exists("zarr.json"),
            )
        )

    def ready_to_commit(self) -> None:
        """Record that all files of an append are staged."""
        self._checked.write("commit", [b""])

    def close(self) -> None:
        """Write what is not yet written."""
        self._finished.close()

    def clear(self, *, given_up: bool = False) -> None:
        """Remove the record of a conversion that has finished or was `given_up`; the lock and a fence stay.

        What says how far it came goes last, so that a kill in between changes no state; but of what is given up it goes
        first, so that nobody goes on with what is no longer whole.
        """
        self.check()
        self._finished.forget()
        if given_up:
            self._checked.remove(["commit"])
            self._checked.remove(["plan.json"])
        if self.place.folder is not None:
            self._checked.empty(["stage"])
        else:
            self._checked.remove(name for name in self.place.names() if name not in ("lock", "plan.json", "commit", FENCE))
        self._checked.remove(["plan.json"])
        self._checked.remove(["commit"])


def _is_temporary(name: str) -> bool:
    """Whether a file of the journal's folder was not renamed yet."""
    return "/" not in name and name.startswith(".") and name.endswith(TEMPORARY)

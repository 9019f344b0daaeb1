"""Sequences of commands, killed anywhere: the store is one conversion of what it says it holds, or the old one, untouched.

A machine draws convert, append, overwrite, skip, changed and odd sources, in a folder and in a bucket, and kills some between
any two changes of files. After each step everything that is there is compared with a conversion that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import h5py
import pytest
from effort import some
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from memory_place import MemoryPlace, memory_lock
from mortal import Killed, killed_at, write_source
from remote import BUCKET

from robozarr.convert import convert
from robozarr.convert.resuming import fence
from robozarr.convert.resuming.journal import FOLDER
from robozarr.convert.sources.content import digest_of_file
from robozarr.schemas.errors import IncompleteStoreError, RoboZarrError, SourceError, StoreError
from robozarr.schemas.metadata import LEFT_OUT
from robozarr.store.locate import place_of
from robozarr.store.place import Place
from robozarr.store.reading import read_metadata

MANY = int(os.environ.get("SEQUENCES", "60"))
"""``make kill-nightly`` tries three hundred."""
BYSTANDERS = {
    "notes.txt": b"mine",
    "steps/notes.txt": b"mine too",
    "steps/inner.zarr/zarr.json": b'{"zarr_format": 3, "node_type": "group", "attributes": {"robozarr": {"complete": true}}}',
    "steps/inner.zarr/steps/actions/c/0/0": b"of a store inside",
}


KILLS = st.one_of(st.integers(0, 120), st.integers(100, 200), st.integers(0, 280), st.none())
"""At which change of a file a converter dies: a conversion makes about 120, an append 200 (from 120 on it commits), or 270 in a
bucket. Who makes fewer lives."""


def write_sources(folder: Path) -> list[Path]:
    """Files in the order of their names, so that any appended in that order are what a conversion of all would take."""
    good = [write_source(folder / f"s{number}" / f"{name}_demo.hdf5", number) for number, name in enumerate("aabc")]
    odd = write_source(folder / "s4" / "d_demo.hdf5", 4, size=9)
    broken = folder / "s5" / "e_demo.hdf5"
    broken.parent.mkdir()
    broken.write_bytes(b"no HDF5")
    return [*good, odd, broken]


class Sequences(RuleBasedStateMachine):
    """The commands of a user whom nothing goes right for."""

    pool: ClassVar[list[Path]]
    by_digest: ClassVar[dict[str, int]]
    demos: ClassVar[dict[int, tuple[int, int]]]
    """Of each source that can be read: how many demos it holds, and of which size their pictures are."""
    references: ClassVar[dict[tuple[int, ...], dict[str, bytes]]]

    @initialize(first=st.sets(st.sampled_from([0, 1, 2, 3]), max_size=2))
    def begin(self, first: set[int]) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="sequence-", dir=self.pool[0].parents[1]))
        self.place, self.beside = (self.new_place(str(self.top / name)) for name in ("a.zarr", "a.zarr.bak"))
        self.beside.write("b.txt", [b"beside"])
        self.bystanders: dict[str, bytes] = {}
        self.unfinished: tuple[str, list[int], bool] | None = None
        self.late: Callable[[], object] | None = None
        if first:
            self.run("convert", sorted(first), False, None)

    def new_place(self, path: str) -> Place:
        return place_of(path)

    def teardown(self) -> None:
        if hasattr(self, "top"):
            shutil.rmtree(self.top)
            if self.place.folder is None:
                self.place.remove(self.place.names())

    @rule(
        kind=st.sampled_from(["convert", "append", "append", "overwrite"]),
        which=st.sets(st.sampled_from([0, 1, 2, 3, 0, 1, 2, 4, 5]), min_size=1, max_size=3),
        skip=st.booleans(),
        kill=KILLS,
    )
    def command(self, kind: str, which: set[int], skip: bool, kill: int | None) -> None:
        self.run(kind, sorted(which), skip, kill)

    @precondition(lambda self: self.unfinished is not None)
    @rule(kill=KILLS)
    def again(self, kill: int | None) -> None:
        """The same command goes on, and is the end of it."""
        assert self.unfinished is not None
        self.run(*self.unfinished, kill)
        assert kill is not None or self.held() is not None

    @precondition(lambda self: self.unfinished is None and self.held() is not None)
    @rule(
        new=st.sampled_from([0, 1, 2, 3]),
        moves=st.one_of(st.integers(0, 3), st.integers(0, 90)),
        kind=st.sampled_from(["convert", "convert", "append", "overwrite"]),
        which=st.sets(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=2),
    )
    def an_append_is_killed_in_its_commit_and_then(self, new: int, moves: int, kind: str, which: set[int]) -> None:
        """Whatever comes next finishes the commit, and takes what it finds then as it would at any time."""
        self.run("append", [new], False, moves, "move")
        self.run(kind, sorted(which), False, None)

    def run(self, kind: str, which: list[int], skip: bool, kill: int | None, of: str = "") -> None:
        before, pending, there = self.files(), self.unfinished is not None, self.held() is not None
        appending = self.unfinished is not None and self.unfinished[0] == "append"
        options = {"append": kind == "append", "overwrite": kind == "overwrite", "on_error": "skip" if skip else "stop"}
        ended = "well"
        with killed_at(kill, of) as changes:
            try:
                convert([self.pool[number] for number in which], self.place, workers=0, **options)  # type: ignore[arg-type]
            except Killed:
                ended = "killed"
            except RoboZarrError as error:
                ended = str(error)
        self.late = self.late or changes.late
        if ended == "killed":
            self.unfinished = self.unfinished if self.files() == before and pending else (kind, which, skip)
        elif ended == "well":
            self.unfinished = None
            assert kind != "convert" or not (appending or (there and not pending)), (
                "a store was replaced, and nobody asked for it"
            )
            assert not [name for name in self.place.names() if FOLDER in name or name.endswith("robozarr-tmp")]
        elif not pending:
            assert self.files() == before, ended
            assert not [name for name in self.place.names() if FOLDER in name], ended
        self.check(before, ended)
        if ended == "well":
            held = self.held()
            assert held is not None
            assert set(which) <= set(held)
            assert kind == "append" or held == tuple(which)

    @precondition(lambda self: self.late is not None and self.unfinished is None)
    @rule()
    def a_forgotten_worker_writes(self) -> None:
        """Of an earlier command, whichever is done since: the store stays what it is."""
        assert self.late is not None
        before = self.files()
        fence._looked.clear()  # a second passes
        with suppress(StoreError):
            self.late()
        self.late = None
        assert self.files() == before
        assert not [name for name in self.place.names() if name.endswith("robozarr-tmp")]

    @precondition(lambda self: self.unfinished is None and self.held() is not None)
    @rule(number=st.sampled_from([0, 1, 2, 3]), change=st.booleans())
    def append_moved_or_changed(self, number: int, change: bool) -> None:
        """A source in another folder is the same source; another content under its name is not."""
        held = self.held()
        if held is None or number not in held:
            return
        name = self.pool[number].parts[-2:]
        file = self.top / "elsewhere" / name[0] / name[1]
        if change:
            write_source(file, number + 100)
            with pytest.raises(SourceError, match="sources of the store have changed; nothing was appended"):
                convert(file, self.place, workers=0, append=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.pool[number], file)
            assert convert(file, self.place, workers=0, append=True).n_appended == 0
        self.check(self.files(), "looked")
        assert self.held() == held

    @precondition(lambda self: not self.bystanders and self.held() is not None)
    @rule()
    def put_bystanders(self) -> None:
        self.bystanders = BYSTANDERS
        for name, data in BYSTANDERS.items():
            self.place.write(name, [data])

    def files(self) -> dict[str, bytes]:
        """Every file but a converter's journal, temporary files and bystanders."""
        names = [name for name in self.place.names() if FOLDER not in name and not name.endswith("robozarr-tmp")]
        return {name: self.place.read(name) for name in names if name not in self.bystanders}

    def held(self) -> tuple[int, ...] | None:
        """The sources that the store says it holds; None if it says that it is not complete, or is not there."""
        try:
            metadata = read_metadata(self.place)
        except IncompleteStoreError:
            return None
        except StoreError as error:
            if "is this the path of a store" not in str(error):
                raise
            return None
        return tuple(self.by_digest[source.digest] for source in metadata.sources)

    def check(self, before: dict[str, bytes], ended: str) -> None:
        assert self.beside.read("b.txt") == b"beside"
        assert {name: self.place.read(name) for name in self.bystanders} == self.bystanders
        held = self.held()
        if held is None:
            assert self.unfinished is not None or not self.files(), ended
            return
        found, expected = self.files(), self.reference(held)
        assert found.keys() == expected.keys(), ended
        assert [name for name in found if name != "zarr.json" and found[name] != expected[name]] == [], ended
        assert facts(found["zarr.json"]) == facts(expected["zarr.json"])
        kinds = [self.demos[number] for number in held]
        assert [source.n_demos for source in read_metadata(self.place).sources] == [
            n if size == kinds[0][1] else 0 for n, size in kinds
        ], ended

    def reference(self, held: tuple[int, ...]) -> dict[str, bytes]:
        """The files of one conversion of these sources, in this order."""
        if held not in self.references:
            place = MemoryPlace(f"reference/{held}")
            paths = [self.pool[number] for number in held]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("robozarr.convert.run.find_sources", lambda _: paths)
                convert(paths, place, workers=0, on_error="skip")
            self.references[held] = {name: place.read(name) for name in place.names()}
            place.remove(place.names())
        return self.references[held]


def facts(root: bytes) -> dict[str, Any]:
    """What a root document says, but for the digest that every writing has anew, and the words of why a demo was left out.

    It is unlike most demos of one conversion, and unlike the store's of an append.
    """
    attributes: dict[str, Any] = json.loads(root)["attributes"]["robozarr"]
    for entry in attributes["not_stored"]:
        entry["reason"] = entry["reason"][:10] if entry["reason"].startswith(LEFT_OUT) else entry["reason"]
    return {name: value for name, value in attributes.items() if name != "identity"}


class SequencesInMemory(Sequences):
    """In what behaves as a bucket: objects are copied, and stay until they are removed."""

    def new_place(self, path: str) -> Place:
        return MemoryPlace(path)


class SequencesOverHttp(Sequences):
    """In a bucket of a service that speaks S3."""

    url: ClassVar[str]

    def new_place(self, path: str) -> Place:
        return place_of(f"s3://{BUCKET}{path}", self.url)


@pytest.fixture(scope="module", autouse=True)
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Sequences.pool = write_sources(tmp_path_factory.mktemp("pool"))
    Sequences.by_digest = {digest_of_file(path): number for number, path in enumerate(Sequences.pool)}
    Sequences.demos = {len(Sequences.pool) - 1: (0, 0)}  # no HDF5
    for number, path in enumerate(Sequences.pool[:-1]):
        with h5py.File(path) as file:
            Sequences.demos[number] = len(file["data"]), file["data/demo_0/obs/agentview_rgb"].shape[1]
    Sequences.references = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robozarr.convert.resuming.journal.hold_bucket_lock", memory_lock)
        patch.setattr("os.fsync", lambda _: None)  # the machine does not lose its power
        yield


def run(machine: type[Sequences], n: int) -> None:
    chosen = settings(
        max_examples=n,
        stateful_step_count=5,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if n > 50 else (Phase.generate,),
    )
    run_state_machine_as_test(machine, settings=chosen)


def test_a_few_sequences() -> None:
    """Twenty, or the first six of them."""
    run(Sequences, some(11, 4))
    run(SequencesInMemory, some(9, 2))


@pytest.mark.slow(reason="sixty sequences of up to five commands")
def test_many_sequences_in_folders() -> None:
    run(Sequences, MANY)


@pytest.mark.slow(reason="sixty sequences of up to five commands")
def test_many_sequences_in_memory() -> None:
    run(SequencesInMemory, MANY)


@pytest.mark.slow(reason="over HTTP")
def test_a_few_sequences_over_http(s3: str) -> None:
    SequencesOverHttp.url = s3
    run(SequencesOverHttp, MANY // 12)

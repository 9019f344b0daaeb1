"""Conversions that are killed, interrupted, or meet each other: the same command goes on, and ends in the same bytes."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from effort import some
from forks import said_in_fork
from killing import convert_command, files_of, kill_until_done, same_bytes, write_sources
from mortal import write_source

import robozarr
import synthetic
from robozarr.cli import run
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER, Fence
from robozarr.convert.resuming.lock import STALE_S, hold_lock
from robozarr.convert.workers.progress import SilentProgress
from robozarr.convert.writing.write import PartitionResult, WriteTask, write_batch
from robozarr.schemas.errors import IncompleteStoreError, PlanError, SourceError, StoreError
from robozarr.store.locate import place_of

KILLS = some(10, 5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "s"
    write_sources(folder, size=some(160, 48))  # a fork converts at once, and takes half a second even for small pictures
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many files, for where nobody is killed over them."""
    folder = tmp_path_factory.mktemp("small") / "s"
    for number in range(4):
        write_source(folder / f"task{number}_demo.hdf5", number)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("expected") / "a.zarr"
    convert(source, store, workers=0, profile="compact", level=9)
    return store


def command(source: Path, store: Path, workers: int) -> list[str]:
    return convert_command(source, "--store", store, "--profile", "compact", "--level", "9", "-w", str(workers))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow(reason="worker processes that are killed"))])
def test_killed_at_random_moments_the_rerun_ends_in_the_same_bytes(
    tmp_path: Path, source: Path, expected: Path, workers: int
) -> None:
    """Ten times SIGKILL to a converter at work, and to its workers with it."""
    rng, n_killed = random.Random(workers), 0
    while n_killed < KILLS:
        store = tmp_path / f"{n_killed}.zarr"

        def call(store: Path = store) -> None:
            convert(source, store, workers=0, profile="compact", level=9)

        what = command(source, store, workers) if workers else call
        n_killed += kill_until_done(what, rng, 0.5, store, until=f"{FOLDER}/plan.json", most=KILLS - n_killed)
        assert same_bytes(store, expected), files_of(store)
        assert not list(store.rglob(".*robozarr-tmp"))
    assert n_killed == KILLS


@pytest.mark.slow(reason="starts workers")
def test_a_killed_worker_does_not_fail_the_run(tmp_path: Path, source: Path, expected: Path) -> None:
    store, killer = tmp_path / "a.zarr", Killer()
    convert(source, store, workers=some(2, 1), profile="compact", level=9, progress=killer)
    assert killer.killed
    assert same_bytes(store, expected), files_of(store)


class Killer(SilentProgress):
    """Kills a worker of this process when partitions begin to be written."""

    def __init__(self) -> None:
        self.killed = 0
        self.before = workers_here()

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        if stage == "write partitions":
            self.killed = min(workers_here() - self.before)
            os.kill(self.killed, signal.SIGKILL)


def workers_here() -> set[int]:
    """Dask's worker processes of this process."""
    children: set[int] = set()
    for task in Path("/proc/self/task").iterdir():  # a thread's children are listed under it
        children |= {int(child) for child in (task / "children").read_text().split()}
    return {child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def interrupted(source: Path, store: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    """A conversion that ends right before its statistics, as if killed there."""

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robozarr.convert.run.write_statistics", end)
        with pytest.raises(KeyboardInterrupt):
            convert(source, store, workers=0, **options)  # type: ignore[arg-type]


def test_what_is_done_is_kept_and_what_was_damaged_is_done_again(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "a.zarr"
    interrupted(small, store, monkeypatch)
    with pytest.raises(IncompleteStoreError, match="run the same `robozarr convert` again to continue it"):
        robozarr.open_store(store)
    first = store / "steps/agentview_rgb/c/0/0/0/0"
    kept = {path: path.stat().st_mtime_ns for path in (store / "ragged/states/values").rglob("0")}
    assert kept
    data = bytearray(first.read_bytes())
    data[100] ^= 1  # the size is right, the checksum is not
    first.write_bytes(data)
    (store / "steps/actions/c/0/0").unlink()
    with (store / FOLDER / "done.jsonl").open("ab") as file:
        file.write(b'{"path": "steps/to')  # torn by a kill
    report = convert(small, store, workers=0)
    assert report.n_kept == report.n_partitions - 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    convert(small, tmp_path / "b.zarr", workers=0)
    assert same_bytes(store, tmp_path / "b.zarr")
    assert verify(store, sources=small, workers=0).ok
    with pytest.raises(StoreError, match="already holds a store; give another --store, or --append"):
        convert(small, store, workers=0)


def test_changed_sources_are_refused_with_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = tmp_path / "s", tmp_path / "a.zarr"
    paths = [write_source(source / f"{name}_demo.hdf5", 1) for name in "abc"]
    interrupted(source, store, monkeypatch)
    os.utime(paths[0], ns=(1, 1))
    paths[1].unlink()
    write_source(source / "d_demo.hdf5", 1)
    with pytest.raises(SourceError, match="sources have changed since this convert began") as caught:
        convert(source, store, workers=0)
    assert [(Path(p.file).name, "no such source" in p.value.split(";")[0]) for p in caught.value.problems] == [
        ("a_demo.hdf5", False),
        ("b_demo.hdf5", True),
        ("d_demo.hdf5", False),
    ]
    assert all("start again with --overwrite" in p.remedy for p in caught.value.problems)
    assert (store / FOLDER / "plan.json").exists()
    with pytest.raises(PlanError, match="used profile 'fast', now 'raw'; repeat it with the same options, or start again"):
        convert(source, store, workers=0, profile="raw")
    report = convert(source, store, workers=0, overwrite=True)
    assert report.n_kept == 0
    assert verify(store, sources=source, workers=0).ok


def test_overwrite_goes_on_with_its_own_unfinished_conversion(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "a.zarr"
    synthetic.write_libero(tmp_path / "t" / "a_demo.hdf5", depth=True)
    convert(tmp_path / "t", store, workers=0)
    interrupted(small, store, monkeypatch, overwrite=True)
    report = convert(small, store, workers=0, overwrite=True)
    assert report.n_kept == report.n_partitions
    assert verify(store, sources=small, workers=0).ok


def test_an_unfinished_store_without_its_record_asks_for_overwrite(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "a.zarr"
    convert(small, store, workers=0)
    root = json.loads((store / "zarr.json").read_bytes())
    root["attributes"]["robozarr"]["complete"] = False
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match="the record of its progress is missing; start again with --overwrite"):
        convert(small, store, workers=0)
    convert(small, store, workers=0, overwrite=True)
    assert verify(store, workers=0).ok


def test_a_second_converter_is_kept_out_and_a_dead_ones_lock_is_not(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "a.zarr"
    with hold_lock(store / FOLDER / "lock", store):
        done = said_in_fork(lambda: run(["convert", str(small), "--store", str(store)]))
        assert done.returncode == 3
        assert f"another converter is working on this store (process {os.getpid()} on " in done.stderr
    assert not store.exists()
    lock = store / FOLDER / "lock"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 7, "since": "today"}))  # of a machine that lives
    with pytest.raises(StoreError, match="process 7 on elsewhere, since today"):
        convert(small, store, workers=0)
    long_ago = time.time() - STALE_S - 1
    os.utime(lock, (long_ago, long_ago))  # of one that gave no sign of life
    convert(small, store, workers=0)
    assert not (store / FOLDER).exists()


def test_the_lock_of_a_converter_that_was_killed_when_all_was_done_goes(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "a.zarr"
    convert(small, store, workers=0)
    (store / FOLDER).mkdir()
    (store / FOLDER / "lock").write_text('{"host": "elsewhere", "pid": 1, "since": "long ago"}')
    os.utime(store / FOLDER / "lock", (0, 0))
    (violation,) = verify(store, workers=0).violations
    assert (violation.rule, "killed after its last step" in violation.text) == ("M20", True)
    with pytest.raises(StoreError, match="already holds a store"):
        convert(small, store, workers=0)
    assert not (store / FOLDER).exists()
    assert verify(store, workers=0).ok


def test_a_lock_without_text_counts_while_the_kernel_holds_it(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    lock = store / FOLDER / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"another converter .*it has just begun"), hold_lock(lock, store):
            pass


def test_a_worker_that_was_cut_off_writes_for_no_other_plan_and_into_no_finished_store(tmp_path: Path, small: Path) -> None:
    """What a scheduler has lost sight of still runs: with the tasks of an old plan it may not touch what is there now."""
    store, tasks = tmp_path / "a.zarr", []

    def take(batch: list[WriteTask], **options: Any) -> list[PartitionResult]:
        tasks.append((batch, options))
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robozarr.convert.stages.write_batch", take)
        patch.setattr("robozarr.convert.run.write_statistics", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(small, store, workers=0, profile="raw")
    batch, options = tasks[0]
    convert(small, store, workers=0, profile="fast", overwrite=True)
    before = {name: (store / name).stat().st_mtime_ns for name in files_of(store)}
    with pytest.raises(StoreError, match="the conversion that this worker belonged to has ended"):
        write_batch(batch, **options)
    interrupted(small, tmp_path / "b.zarr", pytest.MonkeyPatch(), profile="fast")
    for place in ("root", "store"):
        options[place] = place_of(tmp_path / "b.zarr")
    options["fence"] = Fence(options["store"].below(FOLDER), options["fence"].plan)
    with pytest.raises(StoreError, match="the conversion that this worker belonged to has ended"):
        write_batch(batch, **options)
    assert {name: (store / name).stat().st_mtime_ns for name in files_of(store)} == before
    assert verify(store, sources=small, workers=0).ok

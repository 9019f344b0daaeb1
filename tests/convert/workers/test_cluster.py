"""A Dask cluster that is there already: the same bytes, lost workers, and what is said when it is not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import Status
from effort import some
from exits import exit_code
from killing import same_bytes

import synthetic
from robozarr.convert import convert
from robozarr.convert.resuming.journal import FOLDER
from robozarr.convert.workers.cluster import local_executor, note_dashboard
from robozarr.convert.workers.executor import DaskExecutor
from robozarr.convert.workers.progress import SilentProgress
from robozarr.schemas.errors import WorkerError


def start_dask(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    common = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(folder / "scheduler.json")]
    command = [sys.executable, "-m", "dask", *arguments, *common]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    return start_dask(folder, "worker", "--nthreads", "1", "--no-nanny")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    file = tmp_path / "scheduler.json"
    processes = [start_dask(tmp_path, "scheduler", "--port", "0"), start_worker(tmp_path), start_worker(tmp_path)]
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow(reason="starts a cluster")
def test_an_external_cluster_gives_the_same_bytes_and_survives_a_lost_worker(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, processes = cluster
    source, store, ended = tmp_path / "s", tmp_path / "a.zarr", threading.Event()

    def lose() -> None:
        while not (store / FOLDER / "done.jsonl").exists() and not ended.wait(0.005):
            pass
        processes[-1].kill()

    for number in range(3):
        synthetic.write_libero(source / f"task{number}_demo.hdf5", lengths=(60, 60), size=some(160, 32), seed=number)
    convert(source, tmp_path / "b.zarr", workers=0, profile="compact", level=4)
    options = ["--profile", "compact", "--level", "4", "--scheduler", address]
    loser = threading.Thread(target=lose)
    loser.start()
    try:
        assert exit_code(["convert", str(source), "--store", str(store), *options]) == 0
    finally:
        ended.set()
        loser.join()
    assert "dashboard: " in capsys.readouterr().err
    assert same_bytes(store, tmp_path / "b.zarr")


@pytest.mark.slow(reason="a cluster whose workers are killed")
def test_a_cluster_that_loses_all_workers_is_waited_for(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, processes = cluster
    source, store = tmp_path / "s", tmp_path / "a.zarr"
    for number in range(2):
        synthetic.write_libero(source / f"task{number}_demo.hdf5", lengths=(20, 30), seed=number)
    convert(source, tmp_path / "b.zarr", workers=0)
    monkeypatch.setattr("robozarr.convert.workers.executor.COUNT_INTERVAL_S", 0.3)
    heard = Heard()

    def lose() -> None:
        for process in processes[1:]:
            process.kill()
            process.wait()

    heard.at_first_result = lose
    heard.at_note = lambda: processes.append(start_worker(tmp_path))
    convert(source, store, scheduler=address, progress=heard)
    assert [note for note in heard.notes if note.startswith(f"no worker is left at {address}: waiting 10 minutes")]
    assert same_bytes(store, tmp_path / "b.zarr")

    monkeypatch.setattr("robozarr.convert.workers.executor.NO_WORKERS_S", 0.5)
    heard.at_note = lambda: None
    with pytest.raises(WorkerError, match="for 0 minutes; start some with: dask worker"):
        convert(source, tmp_path / "c.zarr", scheduler=address, progress=heard)
    monkeypatch.undo()
    convert(source, tmp_path / "c.zarr", workers=0)
    assert same_bytes(tmp_path / "c.zarr", tmp_path / "b.zarr")


@pytest.mark.slow(reason="starts workers, and waits for what does not come")
def test_workers_of_this_machine_that_nobody_restarts_are_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's nanny gives up if its worker dies while it begins: over a file that hangs HDF5, on a busy machine."""
    monkeypatch.setattr("robozarr.convert.workers.executor.COUNT_INTERVAL_S", 0.3)
    monkeypatch.setattr("robozarr.convert.workers.executor.ANEW_S", 0.6)

    def lose_all(cluster: Any) -> None:
        for nanny in list(cluster.workers.values()):
            nanny.status = Status.starting
            if nanny.pid is not None:
                os.kill(nanny.pid, signal.SIGKILL)

    with local_executor(1) as executor:
        assert list(executor.run(abs, [-1])) == [1]
        assert isinstance(executor, DaskExecutor)
        lose_all(executor._client.cluster)
        assert sorted(executor.run(abs, [-2, -3])) == [2, 3]
        monkeypatch.setattr(executor, "_start_anew", lambda: None)
        monkeypatch.setattr("robozarr.convert.workers.executor.NO_WORKERS_S", 1.0)
        executor._client.cluster.scale(0)  # those too that are on their way: a slow machine may have started two anew
        while executor._client.cluster.workers:
            time.sleep(0.02)
        with pytest.raises(WorkerError, match=r"end as soon as they are started; workers=0 \(-w 0\) works without any"):
            list(executor.run(abs, [-4]))


class Heard(SilentProgress):
    """Progress that acts: at the first partition that is written, and when it is told that no worker is left."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stage = ""
        self.at_first_result: Callable[[], object] = lambda: None
        self.at_note: Callable[[], object] = lambda: None

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        self.stage = stage

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        if self.stage == "write partitions":
            self.stage = ""
            self.at_first_result()

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text.startswith("no worker is left"):
            self.at_note()


def test_no_scheduler_is_said_with_code_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5")
    assert exit_code(["convert", str(source), "--store", str(tmp_path / "a.zarr"), "--scheduler", "tcp://127.0.0.1:9"]) == 5
    assert "no Dask scheduler answers there" in capsys.readouterr().err
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("installed", [True, False])
def test_a_dashboard_is_only_named_if_it_can_be_looked_at(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robozarr.convert.workers.cluster.find_spec", lambda name: object() if installed else None)
    said: list[str] = []
    note_dashboard(SimpleNamespace(dashboard_link="http://127.0.0.1:8787/status"), said.append)
    assert said == ["dashboard: http://127.0.0.1:8787/status"] * installed

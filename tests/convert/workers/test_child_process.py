"""Calls that take the process down, and who is blamed for workers that die over a task."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import child_calls
import h5py
import pytest
from effort import some
from fuzz_hdf5 import with_a_worker

import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.planning.plan import make_plan
from robozarr.convert.stages import _rescue_batch, scan_sources
from robozarr.convert.workers.child_process import ChildDied, ChildProcess
from robozarr.convert.workers.cluster import check_versions, local_executor
from robozarr.convert.workers.executor import DaskExecutor, Executor
from robozarr.convert.workers.progress import SilentProgress
from robozarr.convert.writing.write import WriteTask
from robozarr.schemas.errors import SourceError, WorkerError
from robozarr.schemas.index import FlagRules


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    find_calls(monkeypatch)


def find_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child, and Dask's workers, find ``child_calls``."""
    paths = [str(Path(child_calls.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))


@pytest.fixture(scope="module")
def child() -> Iterator[ChildProcess]:
    """One for several tests: whoever ends its process has the next one start another."""
    with pytest.MonkeyPatch.context() as patch:
        find_calls(patch)
        with ChildProcess() as child:
            yield child


def test_a_child_is_kept_between_calls_and_replaced_when_it_died() -> None:
    with ChildProcess() as child:
        first = child.call(child_calls.pid, limit_s=10)
        assert first == child.call(child_calls.pid, limit_s=10) != os.getpid()
        with pytest.raises(ChildDied) as died:
            child.call(child_calls.die, signal.SIGSEGV, limit_s=10)
        assert died.value.how == "the process that reads it died (SIGSEGV)"
        second = child.call(child_calls.pid, limit_s=10)
        assert second != first
        with pytest.raises(ChildDied, match="exit code 7"):
            child.call(child_calls.leave, 7, limit_s=10)
        assert child.call(child_calls.pid, limit_s=10) not in (first, second)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_what_a_call_raises_or_prints_comes_through_or_does_no_harm(child: ChildProcess) -> None:
    with pytest.raises(KeyError, match="reason"):
        child.call(child_calls.complain, limit_s=10)
    assert child.call(child_calls.chatter, limit_s=10) == "said"
    assert child.call(child_calls.pid, limit_s=10) == child.call(child_calls.pid, limit_s=10)


def test_a_call_that_cannot_be_found_is_said(child: ChildProcess) -> None:
    """Not taken for one that hangs."""
    with pytest.raises(AttributeError):
        child.call(child_calls.Nowhere(), limit_s=10)


def test_an_interrupt_ends_the_child_whose_answer_would_come_later(child: ChildProcess) -> None:
    first = child.call(child_calls.pid, limit_s=10)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        child.call(time.sleep, 5, limit_s=10)
    assert child.call(child_calls.pid, limit_s=10) != first


def test_a_call_that_hangs_in_code_that_holds_the_interpreter_is_ended(child: ChildProcess) -> None:
    child.call(child_calls.pid, limit_s=10)
    began = time.monotonic()
    with pytest.raises(ChildDied, match="no answer within 1 s"):
        child.call(child_calls.hang, limit_s=0.6)
    assert time.monotonic() - began < 5


@pytest.mark.slow(reason="waits for time limits")
def test_a_file_that_hangs_workers_is_that_files_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 does not come back from a global heap whose first object says that it has no bytes: it waits for the next."""
    monkeypatch.setattr("robozarr.convert.stages.LIMIT_S", 1.0)
    deadly = synthetic.write_libero(tmp_path / "s" / "deadly_demo.hdf5", lengths=(5, 6))
    data = bytearray(deadly.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 16 : heap + 48] = bytes(32)
    deadly.write_bytes(data)
    synthetic.write_libero(tmp_path / "s" / "good_demo.hdf5", lengths=(5, 6), seed=1)
    report = convert(tmp_path / "s", tmp_path / "a.zarr", workers=1, on_error="skip")
    (problem,) = report.left_out
    assert (problem["file"], problem["rule"]) == (str(deadly), "HDF5 must read it without a crash")
    assert problem["value"] == "no answer within 1 s"
    assert problem["remedy"] == "copy or download the file again, or leave it out with --on-error skip"
    assert (report.n_episodes, verify(tmp_path / "a.zarr", workers=0).ok) == (2, True)


def test_a_demo_that_kills_workers_while_its_pictures_are_read_is_that_demos_problem(tmp_path: Path) -> None:
    """The scan does not look at pictures; what workers died over is looked at segment by segment."""
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(5, 6))
    with local_executor(0) as executor:
        files = scan_sources(executor, [source], FlagRules(), None, SilentProgress())
    plan = make_plan(files, profile="raw", rules=FlagRules())
    tasks = [WriteTask(partition=partition, finished=None) for partition in plan.partitions()][:2]
    with FatalGuard("demo_1") as child:
        (error,) = _rescue_batch(child, tasks)
    assert isinstance(error, SourceError)
    assert {(problem.file, problem.demo, problem.value) for problem in error.problems} == {
        (str(source), "demo_1", "the process that reads it died (SIGKILL)")
    }
    with FatalGuard("") as child, pytest.raises(WorkerError, match="workers died several times over one task"):
        _rescue_batch(child, tasks)


class FatalGuard(ChildProcess):
    """A child whose child is killed over one demo, for real."""

    def __init__(self, demo: str) -> None:
        super().__init__()
        self._demo = demo

    def call(self, function: Any, *arguments: Any, limit_s: float) -> Any:
        if any(segment.demo == self._demo for segment in arguments[0].segments):
            return super().call(child_calls.die, signal.SIGKILL, limit_s=limit_s)
        return super().call(function, *arguments, limit_s=limit_s)


@pytest.fixture(scope="module")
def one_worker() -> Iterator[Executor]:
    """A process of Dask's, started once for all tests that need one."""
    with pytest.MonkeyPatch.context() as patch:
        find_calls(patch)
        with local_executor(1) as executor:
            yield executor


def test_a_task_that_times_out_by_itself_is_not_waited_for(one_worker: Executor) -> None:
    """Dask says the same where it waits for a result: asking again would be told again, for ever."""
    with pytest.raises(TimeoutError, match="the disk"):
        list(one_worker.run(child_calls.time_out, [0]))


def test_a_result_ends_the_time_without_workers(one_worker: Executor) -> None:
    """A cluster that loses its workers a second time, much later, is waited for from then on."""
    assert isinstance(one_worker, DaskExecutor)
    one_worker._alone_since = 0.0
    assert list(one_worker.run(abs, [-1])) == [1]
    assert one_worker._alone_since is None


def test_workers_of_another_version_are_refused(one_worker: Executor, tmp_path: Path) -> None:
    site = tmp_path / "numcodecs-0.0.1.dist-info"
    site.mkdir()
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: numcodecs\nVersion: 0.0.1\n")
    assert isinstance(one_worker, DaskExecutor)
    check_versions(one_worker._client)
    one_worker._client.run(child_calls.look_first_into, str(tmp_path))
    with pytest.raises(WorkerError, match=r"tcp://127.0.0.1:\d+ has numcodecs 0.0.1, this process .*Install the same"):
        check_versions(one_worker._client)


def test_the_fuzzers_way_of_asking_a_worker_is_a_conversion(
    one_worker: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing of a file that converts."""
    monkeypatch.setattr("robozarr.convert.run.open_executor", lambda **_: contextlib.nullcontext(one_worker))
    path = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(3,))
    with h5py.File(path, "r+") as file:
        del file["data/demo_0/actions"]
    assert with_a_worker(path, tmp_path / "a.zarr", "a crash", 60.0) == "died"


def test_workers_that_die_over_a_task_that_nobody_can_look_into_are_said(one_worker: Executor) -> None:
    """The last one that asks this worker, which is replaced."""
    assert isinstance(one_worker, DaskExecutor)
    one_worker._client.cluster.scheduler.allowed_failures = some(2, 0)
    with pytest.raises(WorkerError, match="workers died several times over one task"):
        list(one_worker.run(child_calls.die, [signal.SIGKILL]))

"""Run tasks, in this process or on Dask workers. Knows nothing of what the tasks do.

Tasks and results are small records; a Dask task graph must not carry arrays.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

from robozarr.convert.workers.child_process import time_limit
from robozarr.schemas.errors import WorkerError

__all__ = ["DaskExecutor", "Executor", "InlineExecutor"]

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER: Final = 4
"""Tasks that wait at a scheduler per worker: enough to keep it busy, few enough for any number of tasks."""
COUNT_INTERVAL_S: Final = 5.0
"""Time between two counts of a cluster's workers, which come and go."""
NO_WORKERS_S: Final = 600.0
"""How long to wait for a cluster that has lost all its workers."""
ANEW_S: Final = 60.0
"""How long to wait until workers of this machine are started anew. Dask restarts none that dies before it has said that it
has begun, as over a file that hangs HDF5, which holds the interpreter's lock."""


class Executor(Protocol):
    """Runs one function over many tasks."""

    @property
    def n_workers(self) -> int:
        """Number of tasks that run at the same time."""
        ...

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        limit_s: float | None = None,
        rescue: Callable[[Task], Result] | None = None,
    ) -> Iterator[Result]:
        """Yield results as they come, in any order. The first exception of a task stops everything and is raised.

        A worker that takes longer than `limit_s` over a task is ended. A task over which workers died, time and again, is given
        to `rescue`, in this process, which returns its result or raises. Inline there is neither: that is for debugging.
        """
        ...


class InlineExecutor:
    """Runs tasks in this process, one after the other."""

    n_workers = 1

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        limit_s: float | None = None,
        rescue: Callable[[Task], Result] | None = None,
    ) -> Iterator[Result]:
        """Run each task when its result is read."""
        return map(function, tasks)


class DaskExecutor:
    """Runs tasks on the workers of any Dask client; `note` receives messages for the user.

    `start_anew` starts other workers where all are gone; None where that is the user's business.
    """

    def __init__(self, client: Any, note: Callable[[str], None], start_anew: Callable[[], object] | None = None) -> None:
        self._client, self._note, self._start_anew = client, note, start_anew
        self._n_workers, self._counted = 0, float("-inf")
        self._alone_since: float | None = None
        self._started_anew = 0.0
        self._run = uuid.uuid4().hex

    @property
    def n_workers(self) -> int:
        """Number of tasks that run at the same time: threads of the cluster's workers, at least 1."""
        if time.monotonic() - self._counted > COUNT_INTERVAL_S:
            self._count()
        return max(1, self._n_workers)

    def _count(self) -> None:
        try:
            self._n_workers, self._counted = sum(self._client.nthreads().values()), time.monotonic()
        except OSError as exc:
            raise _lost() from exc

    def run(
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        *,
        limit_s: float | None = None,
        rescue: Callable[[Task], Result] | None = None,
    ) -> Iterator[Result]:
        """Keep a few tasks per worker at the scheduler, which never sees the whole list."""
        from distributed import KilledWorker

        waiting = iter(tasks)
        there: dict[Any, Task] = {}
        ended: SimpleQueue[Any] = SimpleQueue()

        def submit() -> None:
            for task in islice(waiting, max(0, TASKS_PER_WORKER * self.n_workers - len(there))):
                future = self._client.submit(partial(_limited, function, limit_s, self._run), task, pure=False)
                there[future] = task
                future.add_done_callback(ended.put)

        try:
            submit()
            while there:
                try:
                    future = ended.get(timeout=COUNT_INTERVAL_S)
                except Empty:
                    self._wait_for_workers()
                    continue
                task = there.pop(future)
                try:
                    result: Result = self._result(future)
                except KilledWorker as exc:
                    if rescue is None:
                        raise died(exc) from exc
                    result = rescue(task)
                except CancelledError as exc:
                    raise _lost() from exc
                self._alone_since = None  # a worker made it: the next loss is another one
                future.release()
                submit()
                yield result
        finally:
            if there:
                self._client.cancel(list(there))

    def _result(self, future: Any) -> Any:
        """The result of a finished task, or its exception. Results that were lost with a worker are computed again."""
        while True:
            try:
                return future.result(timeout=COUNT_INTERVAL_S)
            except TimeoutError:
                if future.status == "error":  # the task's own, a network disk's perhaps: it would be raised for ever
                    raise
                self._wait_for_workers()

    def _wait_for_workers(self) -> None:
        """If nothing ended for a while because no worker is left, say so, and give up after `NO_WORKERS_S`."""
        self._count()
        if self._n_workers:
            self._alone_since = None
            return
        address, now = self._client.scheduler.address, time.monotonic()
        first = self._alone_since is None
        self._alone_since = now if self._alone_since is None else self._alone_since
        if self._start_anew is not None:
            if now - max(self._alone_since, self._started_anew) > ANEW_S:
                self._started_anew = now
                self._start_anew()
            if now - self._alone_since > NO_WORKERS_S:
                raise WorkerError("worker processes end as soon as they are started; workers=0 (-w 0) works without any")
            return
        if first:
            self._note(
                f"no worker is left at {address}: waiting {NO_WORKERS_S / 60:.0f} minutes for one; start it with: "
                f"dask worker {address} --nthreads 1"
            )
        if now - self._alone_since > NO_WORKERS_S:
            raise WorkerError(
                f"no worker has joined {address} for {NO_WORKERS_S / 60:.0f} minutes; start some with: dask worker {address} "
                "--nthreads 1, then run the same command again"
            )

    def wait_for_tasks(self, most_s: float) -> None:
        """Wait until no worker runs a task of this executor; a second interrupt, or `most_s` seconds, ends the wait.

        A task that was cancelled is not stopped by that: it goes on, and nobody hears of it.
        """
        deadline, said = time.monotonic() + most_s, False
        while time.monotonic() < deadline:
            try:
                n = sum(self._client.run(n_running, self._run, on_error="return").values())
            except (OSError, TypeError, ValueError, RuntimeError, CancelledError):  # the cluster, or a worker, is gone
                return
            if n == 0:
                return
            if not said:
                self._note(f"waiting for {n} task(s) that the cluster is still running")
                said = True
            time.sleep(0.1)


def _lost() -> WorkerError:
    return WorkerError("the connection to the Dask scheduler was lost; run the same command again")


_running: Counter[str] = Counter()
"""In a worker: number of running tasks, by executor."""
_running_lock = threading.Lock()


def n_running(run: str) -> int:
    """Number of an executor's tasks that this worker is running."""
    return _running[run]


def _limited(function: Callable[[Task], Result], limit_s: float | None, run: str, task: Task) -> Result:
    """Run one task in a worker."""
    with _running_lock:
        _running[run] += 1
    try:
        with time_limit(limit_s):
            return function(task)
    finally:
        with _running_lock:
            _running[run] -= 1


def died(exc: Exception) -> WorkerError:
    """The error when workers died over a task that is not at fault."""
    return WorkerError(
        f"workers died several times over one task ({str(exc).splitlines()[0]}): the machine may be out of memory; "
        "use fewer --workers, then run the same command again"
    )

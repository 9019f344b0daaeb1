"""Threads that read: a team that takes jobs from a queue. Imports neither zarr nor torch.

Not ``concurrent.futures``: its locks are written in Python, and Ctrl-C may come after one is taken and before that is noted.
Then the threads, and with them the end of the program, wait for ever. Here the consumer's thread calls only what is written in
C, or may be done twice.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

__all__ = ["ThreadJob", "ThreadTeam"]

LOOK_AGAIN_S: Final = 1.0
"""How long a thread waits before it looks again: this limits the cost of a wake-up that an interrupt swallowed."""


class ThreadJob:
    """Work in parts that threads of a team do in any order.

    Parameters
    ----------
    work : function of a part's number
    n_parts : int
    last : function, optional
        Called by the thread that ends last, if nothing failed and nobody cancelled.
    """

    def __init__(self, work: Callable[[int], object], n_parts: int, last: Callable[[], object] | None = None) -> None:
        self.n_parts = n_parts
        self._work: Callable[[int], object] | None = work
        self._last = last
        self._left = list(range(n_parts))  # whoever takes the 0 is the last one
        self._errors: list[tuple[int, BaseException]] = []
        self._cancelled, self._finished = False, n_parts == 0
        self._latch = threading.Lock()
        self._latch.acquire()

    def run(self, part: int) -> None:
        """Do one part, unless an earlier part failed."""
        try:
            if self._work is not None and not self._cancelled and all(part < failed for failed, _ in self._errors):
                self._work(part)
        except BaseException as exc:
            self._errors.append((part, exc))
        if self._left.pop() == 0:
            try:
                if self._last is not None and not self._cancelled and not self._errors:
                    self._last()
            except BaseException as exc:
                self._errors.append((self.n_parts, exc))
            self._work = self._last = None  # what they hold may go
            self._finished = True
            self._latch.release()

    def cancel(self) -> None:
        """Skip the parts that have not begun; `wait` waits for the others."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self._cancelled

    def wait(self) -> None:
        """Wait until no thread works on it any longer; several threads may wait."""
        while not self.wait_a_little():
            pass

    def wait_a_little(self) -> bool:
        """Wait likewise, but at most one second; returns whether the job has ended."""
        if not self._finished and self._latch.acquire(timeout=LOOK_AGAIN_S):
            self._latch.release()
        return self._finished

    @property
    def error(self) -> BaseException | None:
        """The error of the first part that failed, once all have ended; independent of the threads' timing."""
        return min(self._errors, key=lambda failed: failed[0])[1] if self._errors else None

    def result(self) -> None:
        """Wait, and raise the error of the first part that failed."""
        self.wait()
        error, self._errors = self.error, []
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame


Jobs: TypeAlias = "SimpleQueue[tuple[ThreadJob, int] | None]"


class ThreadTeam:
    """Threads that do jobs until the team is no longer referenced, or the program ends.

    After that, in at-exit handlers that come later, a job is done by whoever submits it; also where no thread can be started.

    Parameters
    ----------
    n_threads : int
    begin : function, optional
        Called by each thread before its first job.
    patience_s : float, optional
        How long the program's end waits for threads that are at a job. Default: until they are done.

    >>> team = ThreadTeam(2)
    >>> team.map(abs, [-1, 2, -3])
    [1, 2, 3]
    """

    def __init__(self, n_threads: int, begin: Callable[[], object] | None = None, patience_s: float | None = None) -> None:
        self._jobs: Jobs = SimpleQueue()
        # daemons, so that the interpreter ends; _dismiss waits for them then, so that none writes to memory that is gone
        threads = [
            threading.Thread(target=_serve, args=(self._jobs, begin), name=f"robozarr_{number}", daemon=True)
            for number in range(n_threads)
        ]
        self._working: list[threading.Thread] = []
        weakref.finalize(self, _dismiss, self._jobs, self._working, patience_s)
        for thread in threads:
            self._working.append(thread)
            try:
                thread.start()
            except RuntimeError:  # the system's limit, or the program's end: Python 3.12 starts none then
                self._working.pop()
                break

    def submit(self, job: ThreadJob) -> None:
        """Start a job."""
        for part in range(job.n_parts):
            if self._working:
                self._jobs.put((job, part))
            else:
                job.run(part)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """The results of a function for each item; raises its errors."""
        todo = list(items)
        results: list[Any] = [None] * len(todo)

        def work(number: int) -> None:
            results[number] = function(todo[number])

        job = ThreadJob(work, len(todo))
        try:
            self.submit(job)
            job.result()
        except BaseException:
            job.cancel()
            raise
        return results


def _serve(jobs: Jobs, begin: Callable[[], object] | None) -> None:
    if begin is not None:
        begin()
    while (item := jobs.get()) is not None:
        job, part = item
        job.run(part)
        del item, job  # not kept while waiting for the next one


def _dismiss(jobs: Jobs, threads: list[threading.Thread], patience_s: float | None) -> None:
    working = list(threads)
    threads.clear()
    for _ in working:
        jobs.put(None)
    until = None if patience_s is None else time.monotonic() + patience_s
    for thread in working:
        if thread.ident is not None and thread is not threading.current_thread():
            thread.join(None if until is None else max(0, until - time.monotonic()))

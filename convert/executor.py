"""Owns how tasks run: inline in this process, or on Dask workers. Knows nothing of what the tasks do.

Tasks and results are small records; a Dask task graph must not carry arrays.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

from robozarr.schemas.errors import RoboZarrError

__all__ = ["Executor", "default_workers", "local_executor"]

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER = 4
"""Tasks that wait at a scheduler for each worker: enough to keep it busy, few enough for any number of tasks."""


MALLOC = {
    f"distributed.nanny.pre-spawn-environ.{name}": str(1 << 30) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
}
"""Dask sets glibc's trim threshold so low that every shard's buffers are mapped, faulted in and unmapped again. Kept between
shards instead: raw 111 → 186 MB/s with one worker, 157 → 238 LZ4 with two, peak RSS below 150 MB (1.5 GB of source)."""


class Executor(Protocol):
    """Runs one function over many tasks."""

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield results as they come, in any order. The first exception of a task stops everything and is raised."""
        ...


class _Inline:
    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return map(function, tasks)


class _Dask:
    def __init__(self, client: Any, n_workers: int) -> None:
        self._client, self._n_workers = client, n_workers

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        from distributed import KilledWorker, as_completed

        client, waiting = self._client, iter(tasks)
        # as_completed yields futures in the order they end; a finished one makes room for the next task
        running = as_completed([])
        for task in islice(waiting, TASKS_PER_WORKER * self._n_workers):
            running.add(client.submit(function, task, pure=False))
        for future in running:
            try:
                result = future.result()
            except KilledWorker as exc:
                raise RoboZarrError(
                    f"a worker died several times over one task ({exc}): the machine may be out of memory; use fewer --workers"
                ) from exc
            future.release()
            yield result
            for task in islice(waiting, 1):
                running.add(client.submit(function, task, pure=False))


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def local_executor(n_workers: int) -> Iterator[Executor]:
    """Run tasks on `n_workers` processes of an embedded Dask cluster on this machine; 0: inline, for debugging.

    The processes listen on the loopback address only and end with the context, however it is left.
    """
    if n_workers < 0:
        raise ValueError(f"workers is a number of processes, or 0 to work in this one; got {n_workers}")
    if n_workers == 0:
        yield _Inline()
        return
    import dask
    from distributed import Client, LocalCluster

    # What goes wrong reaches the user once, through a future. Dask's own account of workers that an interrupt ended may
    # come after the cluster has closed, so the level is put back only if all went well.
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        # not under the working folder, and gone with the cluster
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="robozarr-", ignore_cleanup_errors=True))
        with _interrupts_held_back(), dask.config.set(MALLOC):
            try:
                cluster = LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,  # h5py holds one global lock, and one thread keeps Blosc's bytes the same
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",  # any free port: several conversions may run at once
                    local_directory=scratch,
                    silence_logs=logging.CRITICAL,
                    memory_limit=0,  # a task holds a shard, so a limit would only kill workers on small machines
                )
            except RuntimeError as exc:
                raise RoboZarrError(
                    f"worker processes do not start ({exc}); a script calls robozarr below `if __name__ == '__main__':`, "
                    "because each worker imports it, and one read from standard input works with workers=0 only"
                ) from exc
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster))
        yield _Dask(client, n_workers)
    logger.setLevel(level)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C: a terminal sends it to all of them, and this process will end them."""
    resource_tracker.ensure_running()  # started later, it would unblock the signal in the thread that starts workers
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Decide where tasks run: workers of this machine, an existing cluster, or this process.

The only module that starts processes of Dask, or connects to some.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import Any, Final

from robozarr.convert.workers.executor import DaskExecutor, Executor, InlineExecutor
from robozarr.convert.workers.progress import Progress, SilentProgress
from robozarr.convert.workers.user_script import script_not_imported
from robozarr.schemas.errors import WorkerError
from robozarr.store.limits import usable_cores

__all__ = ["leave_if_imported", "local_executor", "open_executor"]

NO_GUARD_EXIT: Final = 3
"""Exit code of a process of the user's own that imports the script, which would convert once more."""
MALLOC: Final = {
    f"distributed.nanny.pre-spawn-environ.{name}": str(1 << 30) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
}
"""Dask sets glibc's trim threshold so low that every shard's buffers are mapped, faulted in and unmapped again. Kept between
shards instead: raw 111 → 186 MB/s with one worker, 157 → 238 LZ4 with two, peak RSS below 150 MB (1.5 GB of source)."""
SETTINGS: Final = {**MALLOC, "distributed.scheduler.allowed-failures": 2}
"""A task over which two workers died is run again by itself."""
DECIDES_BYTES: Final = ("robozarr", "numcodecs", "numpy")
"""Packages that decide the bytes of a store; workers must have the same versions as this process."""
CONNECT_S: Final = 10
WORKERS_S: Final = 30
"""How long to wait for a cluster's scheduler, and for its first worker."""
LEAVE_S: Final = 60.0
"""How long to wait for a cluster's tasks when the work is left: about one shard, as each stops before its next file."""


@contextlib.contextmanager
def open_executor(*, workers: int | None, scheduler: str | None, client: Any, progress: Progress) -> Iterator[Executor]:
    """Run tasks on `client`, on the cluster at `scheduler`, or on `workers` processes of this machine.

    Raises
    ------
    WorkerError
        If the cluster cannot be reached, has no worker, or workers of another version.
    """
    if client is None and scheduler is None:
        with local_executor(usable_cores() if workers is None else workers, progress) as executor:
            yield executor
        return
    if workers is not None or (client is not None and scheduler is not None):
        raise ValueError("give one of workers, scheduler and client: a cluster has its own number of workers")
    if client is not None:
        with _awaited(_checked(client, progress)) as executor:
            yield executor
        return
    assert scheduler is not None
    _check_answers(scheduler)
    from distributed import Client

    with _quiet():
        try:
            connected = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as exc:
            raise _no_scheduler(scheduler, exc) from exc
        with connected:
            with _awaited(_checked(connected, progress)) as executor:
                yield executor


@contextlib.contextmanager
def _awaited(executor: DaskExecutor) -> Iterator[Executor]:
    """Wait for the tasks that a cluster still runs, however the block ends: they may be writing."""
    try:
        yield executor
    except BaseException:
        executor.wait_for_tasks(LEAVE_S)
        raise


def _check_answers(scheduler: str) -> None:
    """Fail at once where Dask would need many seconds: no address, no such machine, nobody listening; WorkerError."""
    match = re.fullmatch(r"(?:(?P<scheme>[a-z]+)://)?(?P<host>\[[^\]]+\]|[^\s/:]+):(?P<port>\d{1,5})/?", scheduler)
    if match is None:
        if re.match(r"(inproc|ucx|ucxx)://", scheduler):
            return
        raise _no_scheduler(scheduler, "this is not an address like tcp://HOST:PORT")
    if match["scheme"] not in (None, "tcp", "tls", "ws", "wss"):
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as exc:
        raise _no_scheduler(scheduler, exc) from exc


def _no_scheduler(scheduler: str, why: object) -> WorkerError:
    return WorkerError(
        f"--scheduler {scheduler}: no Dask scheduler answers there ({why}); start one with `dask scheduler`, and give "
        "the address that it prints, such as tcp://127.0.0.1:8786"
    )


def _checked(client: Any, progress: Progress) -> DaskExecutor:
    """An existing cluster, after checking that it has workers with this process's versions."""
    from distributed import TimeoutError as DaskTimeoutError

    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except (DaskTimeoutError, TimeoutError) as exc:
        address = client.scheduler.address
        raise WorkerError(f"the cluster at {address} has no worker; start some with: dask worker {address}") from exc
    check_versions(client)
    progress.note(f"dashboard: {client.dashboard_link}")
    return DaskExecutor(client, progress.note)


def check_versions(client: Any) -> None:
    """Refuse workers whose packages would write other bytes; WorkerError names each worker and package."""
    names = DECIDES_BYTES

    def versions() -> dict[str, str]:  # inside a function, so that it is sent whole: a worker may lack this package
        import importlib.metadata

        found = {}
        for name in names:
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "missing"
        return found

    here = {name: importlib.metadata.version(name) for name in names}
    unlike = [
        f"{address} has {name} {found[name]}, this process {here[name]}"
        for address, found in sorted(client.run(versions).items())
        for name in names
        if found[name] != here[name]
    ]
    if unlike:
        more = f", and {len(unlike) - 5} more" if len(unlike) > 5 else ""
        raise WorkerError(
            f"workers have other versions than this process: {'; '.join(unlike[:5])}{more}. Install the same on all"
        )


@contextlib.contextmanager
def local_executor(n_workers: int, progress: Progress | None = None) -> Iterator[Executor]:
    """Run tasks on `n_workers` processes of an embedded Dask cluster on this machine; 0 runs them here, for debugging.

    The processes listen on the loopback address only and end with the context, however it is left.
    """
    if n_workers < 0:
        raise ValueError(f"workers must be a number of processes, or 0 to use this process; got {n_workers}")
    if n_workers == 0:
        yield InlineExecutor()
        return
    leave_if_imported()
    import dask
    from distributed import Client, LocalCluster
    from distributed.gc import disable_gc_diagnosis

    with _quiet(), contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch())
        stack.enter_context(script_not_imported())
        with _interrupts_held_back(), dask.config.set(SETTINGS):
            try:
                cluster = LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,  # h5py holds one global lock, and one thread keeps Blosc's bytes the same
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",  # any free port: several conversions may run at once
                    local_directory=scratch,
                    silence_logs=logging.CRITICAL,
                    memory_limit=0,  # a task holds a few shards, so a limit would only kill workers on small machines
                )
            except RuntimeError as exc:
                raise WorkerError(f"worker processes do not start ({exc}); workers=0 works without any") from None
            stack.enter_context(cluster)
            client = stack.enter_context(Client(cluster, set_as_default=False))
            disable_gc_diagnosis(
                force=True
            )  # a Ctrl-C that comes inside its callback is lost: Python ignores what callbacks raise
        note = (progress or SilentProgress()).note
        note_dashboard(client, note)
        yield DaskExecutor(client, note, lambda: cluster.scale(len(cluster.worker_spec) + n_workers))


def leave_if_imported() -> None:
    """End a process of the user's own, such as a DataLoader worker, that imports a script which converts again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.stderr.flush()
        os._exit(NO_GUARD_EXIT)


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for Dask's files: outside the working folder, and removed with the cluster."""
    try:
        return tempfile.TemporaryDirectory(prefix="robozarr-", ignore_cleanup_errors=True)
    except OSError as exc:
        raise WorkerError(
            f"workers have no folder for temporary files ({exc.strerror or exc}); name one with TMPDIR, or give the container "
            "one: docker run --tmpfs /tmp"
        ) from exc


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's log: errors reach the user once, through a future.

    Its own account of workers that an interrupt ended may come after the cluster has closed, so the level is put back only if
    all went well.
    """
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: a terminal sends it to all of them, and this process will end them."""
    _start_resource_tracker()  # started later, it would unblock the signal in the thread that starts workers
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    """Start the process that removes what workers leave behind, quietly: interrupted workers leave something."""
    name = "PYTHONWARNINGS"
    before = os.environ.get(name)
    os.environ[name] = ",".join(filter(None, [before, "ignore:resource_tracker:UserWarning"]))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def note_dashboard(client: Any, note: Callable[[str], None]) -> None:
    """Say where Dask shows what the workers of this machine do; without bokeh it shows nothing there."""
    if find_spec("bokeh") is not None:
        note(f"dashboard: {client.dashboard_link}")

"""Starting converters and killing them with all of their processes: for the tests and for the nightly script."""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from forks import said_in_fork

import synthetic

__all__ = [
    "convert_command", "files_of", "fork_and_kill", "kill_all", "kill_until_done", "run_and_kill", "same_bytes",
    "write_sources",
]  # fmt: skip


def convert_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "robozarr", "convert", *map(str, arguments)]


def files_of(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


def same_bytes(a: Path, b: Path) -> bool:
    names = files_of(a)
    return names == files_of(b) and filecmp.cmpfiles(a, b, names, shallow=False)[1:] == ([], [])


def write_sources(folder: Path, size: int = 160) -> list[Path]:
    """Four files of about 35 MB in all, which make eight shards of frames: long enough to be killed over."""
    return [
        synthetic.write_libero(folder / f"task{number}_demo.hdf5", lengths=(40, 50), size=size, seed=number)
        for number in range(4)
    ]


def kill_all(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """SIGKILL to the converter, its workers and its guards: all of the process group, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_until_done(
    command: Sequence[str] | Callable[[], object],
    rng: random.Random,
    longest_s: float,
    store: Path,
    until: str = "",
    most: int | None = None,
) -> int:
    """Run a command again and again, killing each at a random moment, until one ends by itself; returns the number of kills.

    A function is called in forks instead. After `most` kills the next one is left to end. A converter that fails is an error.
    """
    for n_killed in itertools.count():
        kill = partial(fork_and_kill, command) if callable(command) else partial(run_and_kill, command)
        if n_killed != most and kill(rng.uniform(0, longest_s), (store / until).exists):
            continue
        if callable(command):
            done = said_in_fork(command, limit_s=300)
        else:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode and "already holds a store" not in done.stderr:  # else it had ended before the kill
            raise RuntimeError(f"exit code {done.returncode} after {n_killed} kills:\n{done.stderr}")
        return n_killed
    raise AssertionError


def run_and_kill(
    command: Sequence[str], after_s: float, at_work: Callable[[], bool], env: Mapping[str, str] | None = None
) -> bool:
    """Kill a converter `after_s` seconds after it is `at_work`; returns whether it still was."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True, env=env)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and not at_work() and time.monotonic() < deadline:
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        return process.poll() is None
    finally:
        kill_all(process)


def fork_and_kill(function: Callable[[], object], after_s: float, at_work: Callable[[], bool]) -> bool:
    """The same to a fork of this process, which calls a function: a new Python takes longer to start than a small conversion.

    Not for a conversion into a bucket, whose client does not survive a fork, nor for one with workers: they would go on.
    """
    process = multiprocessing.get_context("fork").Process(target=function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 says that there are threads
        process.start()
    try:
        deadline = time.monotonic() + 60
        while process.is_alive() and not at_work() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.join(after_s)
        return process.is_alive()
    finally:
        process.kill()
        process.join()
        process.close()

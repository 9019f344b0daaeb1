"""At-exit handlers after robozarr's own may iterate, wait for threads, fork: the program ends, and they are served."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

import robozarr as rz
from robozarr.loader import consumers
from robozarr.loader.consumers import Consumer
from robozarr.store import threads
from robozarr.store.threads import ThreadTeam

SCRIPT = """
import atexit, os, queue, sys, threading
import faulthandler
faulthandler.dump_traceback_later(100, exit=True)

def count(batches):
    return sum(len(batch["step"]) for batch in batches)

def handler():
    global stopping
    stopping = True
    prefetcher.join()
    print(count(left), count(loader), len(dataset[0]["step"].shape))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(count(loader)))
    thread.start()
    thread.join()
    def fork():
        if (child := os.fork()) == 0:
            os._exit(count(rz.WindowLoader(dataset, batch_size=4)))
        seen.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    print(seen)

atexit.register(handler)  # before robozarr is there: so it comes last
import robozarr as rz
dataset = rz.WindowDataset(rz.open_store(sys.argv[1]), rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(3)}))
loader, other = (rz.WindowLoader(dataset, batch_size=4, threads=2) for _ in range(2))
left = iter(rz.WindowLoader(dataset, batch_size=4))
first = count([next(left)])
stopping, running = False, threading.Event()

def prefetch():
    while True:
        for batch in other:
            running.set()
            if stopping:
                return

prefetcher = threading.Thread(target=prefetch, daemon=True)
prefetcher.start()
running.wait()
print(len(dataset), first)
"""


@pytest.mark.slow(reason="a start of Python")
def test_handlers_that_iterate_at_the_end(sample_store: Path) -> None:
    """Each of the first four hung: the readers were dismissed, or a thread that is waited for got no batch."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(sample_store)], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    words = ran.stdout.split("\n")
    n, first = map(int, words[0].split())
    assert words[1:] == [f"{n - first} {n} 0", f"[{n}, {n}]", ""]


def served(team: ThreadTeam) -> list[int]:
    """What a team makes of three numbers, in a thread that does not hang the tests."""
    found: list[list[int]] = []
    thread = threading.Thread(target=lambda: found.append(team.map(abs, [-1, 2, -3])), daemon=True)
    thread.start()
    thread.join(10)
    return found[0] if found else []


def test_a_team_that_was_dismissed_works_in_its_user_thread() -> None:
    team = ThreadTeam(2)
    assert served(team) == [1, 2, 3]
    threads._dismiss(team._jobs, team._working, None)
    assert served(team) == [1, 2, 3]


@pytest.mark.parametrize("n_started", [0, 1])
def test_a_team_needs_no_thread(n_started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system may have no more, and Python 3.12 starts none when it ends."""
    start, left = threading.Thread.start, [None] * n_started

    def refuse(thread: threading.Thread) -> None:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    with monkeypatch.context() as changed:
        changed.setattr(threading.Thread, "start", refuse)
        team = ThreadTeam(2)
    assert served(team) == [1, 2, 3]


@pytest.mark.parametrize("daemon", [True, False])
def test_who_is_stopped_goes_on_where_someone_waits(daemon: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "_ENDED_BY", [threading.get_ident()])
    monkeypatch.setattr(consumers, "STOPPED_S", 0.02)
    consumer = Consumer()

    def ask() -> None:
        for _ in range(3):
            consumer.comes()

    thread = threading.Thread(target=ask, daemon=daemon)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert consumer._stopped_s == pytest.approx(0.08 if daemon else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_child_is_not_at_its_end() -> None:
    consumers._ENDED_BY.append(-1)
    try:
        if (child := os.fork()) == 0:
            os._exit(len(consumers._ENDED_BY))
    finally:
        consumers._ENDED_BY.clear()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "made", [lambda dataset: [dataset[0]], lambda dataset: rz.WindowDataLoader(dataset, 4)], ids=["items", "loader"]
)
def test_daemons_that_read_by_torch_are_stopped(
    sample_store: Path, made: Callable[[rz.WindowDataset], Iterable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain DataLoader in a daemon thread aborted the program at its end, as WindowLoader once did."""
    dataset = rz.WindowDataset(rz.open_store(sample_store), rz.WindowSpec({"actions": range(3)}))
    monkeypatch.setattr(consumers, "_ENDED_BY", [threading.get_ident()])
    monkeypatch.setattr(consumers, "_STOPPED", set())
    monkeypatch.setattr(consumers, "STOPPED_S", 0.001)
    thread = threading.Thread(target=lambda: [None for _ in made(dataset)], daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert thread.ident in consumers._STOPPED

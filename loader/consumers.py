"""Where the threads that take batches are when the program ends.

A daemon thread may be anywhere then. torch gives Python's lock back while it frees a tensor; asking for the lock again ends the
thread by unwinding its stack, which C++ takes for an error: the program aborts (exit code 134) after all its work is done. So
a daemon thread that takes batches stops at its next one before the interpreter ends.

At-exit handlers that were registered before this module's run after it, and one may wait for such a thread: a prefetcher's
that says "stop" and joins. So a thread that stopped goes on after a second, for a batch, then after two seconds, four, …:
nobody waits for ever, and it is hardly ever inside torch when the interpreter does end.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import Final
from weakref import WeakSet

__all__ = ["Consumer", "thread_reads"]

PATIENCE_S: Final = 0.25
"""How long the end of the program waits for daemon threads that may never ask again: one may only keep an iterator."""
STOPPED_S: Final = 1.0
"""How long a thread stops that asks for a batch at the end of the program; each time twice as long."""

RECENT_S: Final = 1.0
"""A thread that has not asked for so long is not waited for: it hardly comes within `PATIENCE_S`."""

_CONSUMERS: WeakSet[Consumer] = WeakSet()
_ENDED_BY: list[int] = []
"""The thread that ends the program, once it does so."""
_STOPPED: set[int] = set()
"""Threads that wait here; one that reads for another's transform, or for torch's loader, is the consumer of several."""


class Consumer:
    """The thread that takes the batches of one iteration: whichever asked last."""

    def __init__(self) -> None:
        self._thread, self._asked = threading.get_ident(), time.monotonic()
        self._stopped_s = 0.0
        _CONSUMERS.add(self)

    def comes(self) -> None:
        """Note that this thread asks for a batch. Once the program is ending, a daemon waits here.

        Other threads that run then were started by at-exit handlers, which wait for them.
        """
        self._thread, self._asked = threading.get_ident(), time.monotonic()
        if _ENDED_BY and self._thread not in _ENDED_BY and threading.current_thread().daemon:
            self._stopped_s = 2 * self._stopped_s or STOPPED_S
            _STOPPED.add(self._thread)
            time.sleep(self._stopped_s)

    def may_run(self, threads: set[int | None]) -> bool:
        """Whether it is one of these threads, is not stopped, and may ask soon."""
        return self._thread in threads - _STOPPED and time.monotonic() - self._asked < RECENT_S


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.consumer = Consumer()


_OF_THREAD: Final = _OfThread()


def thread_reads() -> None:
    """Note that this thread reads windows by itself, as torch's own DataLoader does: at the program's end it waits here."""
    _OF_THREAD.consumer.comes()


@atexit.register
def _stop_all() -> None:
    """Stop the consumers in other threads, which are daemons: the program has waited for all others."""
    _ENDED_BY.append(threading.get_ident())
    others = {thread.ident for thread in threading.enumerate()} - set(_ENDED_BY)
    until = time.monotonic() + PATIENCE_S
    while _some_may_run(others) and time.monotonic() < until:
        time.sleep(0.001)


def _some_may_run(threads: set[int | None]) -> bool:
    try:
        return any(consumer.may_run(threads) for consumer in list(_CONSUMERS))
    except RuntimeError:  # another thread begins an iteration just now
        return True


if hasattr(os, "register_at_fork"):  # a child that an at-exit handler forks, from whatever thread, is not at its end
    os.register_at_fork(after_in_child=_ENDED_BY.clear)

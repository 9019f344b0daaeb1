"""Stop the threads that take batches when the program ends.

A daemon thread may be anywhere then. torch gives Python's lock back while it frees a tensor; asking for the lock again ends the
thread by unwinding its stack, which C++ takes for an error: the program aborts (exit code 134) after all its work is done. So
a daemon thread that takes batches stops at its next one before the interpreter ends.
"""

from __future__ import annotations

import atexit
import threading
import time
from typing import Final
from weakref import WeakSet

__all__ = ["Consumer"]

PATIENCE_S: Final = 0.25
"""How long the end of the program waits for daemon threads that may never ask again: one may only keep an iterator."""

_CONSUMERS: WeakSet[Consumer] = WeakSet()
_ENDED_BY: list[int] = []
"""The thread that ends the program, once it does so."""


class Consumer:
    """The thread that takes the batches of one iteration: whichever asked last."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._stopped = False
        _CONSUMERS.add(self)

    def comes(self) -> None:
        """Note that this thread asks for a batch. Once the program is ending, it gets none, and waits here for ever."""
        self._thread = threading.get_ident()
        if _ENDED_BY and self._thread not in _ENDED_BY:
            self._stopped = True
            never = threading.Lock()
            never.acquire()
            never.acquire()

    def may_run(self, threads: set[int | None]) -> bool:
        """Whether the consumer is one of these threads, and not stopped."""
        return self._thread in threads and not self._stopped


@atexit.register
def _stop_all() -> None:
    """Stop the consumers in other threads, which are daemons: the program has waited for all others."""
    _ENDED_BY.append(threading.get_ident())
    others = {thread.ident for thread in threading.enumerate()} - set(_ENDED_BY)
    until = time.monotonic() + PATIENCE_S
    while any(consumer.may_run(others) for consumer in list(_CONSUMERS)) and time.monotonic() < until:
        time.sleep(0.001)

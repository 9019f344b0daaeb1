"""Wait for compiled code without blocking signals, and clean up within a limit at the end. Imports nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, TypeVar

__all__ = ["heeding_signals", "on_the_way_out"]

FAREWELL_S: Final = 1.5
"""Seconds for cleaning up: twice this fits into the 10 s of ``docker stop``; ending busy workers takes about 5."""

Result = TypeVar("Result")


def heeding_signals(request: Callable[[], Result], most_s: float | None = None) -> Result:
    """Run a request and react to Ctrl-C and SIGTERM meanwhile; obstore itself may wait in compiled code for minutes.

    TimeoutError, if it takes more than `most_s` seconds; it then goes on, and nobody waits for it.
    """
    if most_s is None and threading.current_thread() is not threading.main_thread():
        return request()
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(request())
        except BaseException as exc:
            result.set_exception(exc)

    threading.Thread(target=run, daemon=True, name="robozarr-request").start()
    return result.result(most_s)


def on_the_way_out(act: Callable[[], object]) -> None:
    """Try to clean up before the process ends; what fails or takes too long is skipped."""

    def quietly() -> None:
        with suppress(OSError):
            act()

    thread = threading.Thread(target=quietly, daemon=True, name="robozarr-farewell")
    thread.start()
    thread.join(FAREWELL_S)

"""Run many short calls that wait for a bucket at the same time. Imports nothing of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, TypeVar

__all__ = ["run_concurrently"]

THREADS: Final = 16
"""Small requests that run at the same time."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_concurrently(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results of `act` for each item, in order; after the first error no further item begins.

    An interrupt ends it at once: the threads are left behind, where an executor's would be waited for, as long as their service
    does not answer.

    >>> run_concurrently(abs, [-3, 4])
    [3, 4]
    """
    results: list[Future[Result]] = [Future() for _ in items]
    waiting, taking, ended = iter(zip(items, results, strict=True)), threading.Lock(), threading.Event()

    def work() -> None:
        while not ended.is_set():
            with taking:
                item, result = next(waiting, (None, None))
            if result is None:
                return
            try:
                result.set_result(act(item))  # type: ignore[arg-type]
            except BaseException as exc:
                result.set_exception(exc)

    threads = [threading.Thread(target=work, daemon=True, name="robozarr-at-once") for _ in items[:THREADS]]
    for thread in threads:
        thread.start()
    try:
        return [result.result() for result in results]
    except Exception:  # what is under way ends before anybody else may write
        ended.set()
        for thread in threads:
            thread.join()
        raise
    finally:
        ended.set()

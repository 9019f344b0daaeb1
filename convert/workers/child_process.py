"""Run calls that may crash the process: HDF5's C code can crash on a damaged file, or never return.

A call runs in a child process that is kept between calls. The child ends itself when a call takes too long, by a timer that
needs no Python: HDF5 holds the interpreter's lock while it hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self, TypeVar

__all__ = ["ChildDied", "ChildProcess", "time_limit"]

Result = TypeVar("Result")
TIMER_EXIT: Final = 1
"""Exit code with which ``faulthandler`` ends a process. The child uses it for nothing else: it sends exceptions back."""
_DEVNULL: Final = os.open(os.devnull, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))
"""The timer writes to it as long as the process lives."""


class ChildDied(Exception):
    """The child died during a call; `how` says of what."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End this process at once, without running any Python, if the block takes longer. None means no limit."""
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=_DEVNULL)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class ChildProcess:
    """A child process for calls; started with the first call, and again after a call that killed it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def call(self, function: Callable[..., Result], *arguments: Any, limit_s: float) -> Result:
        """Return or raise what ``function(*arguments)`` does; both must be picklable.

        Raises
        ------
        ChildDied
            If the child died, or the call took longer than `limit_s`.
        """
        child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        message = pickle.dumps((function, arguments, limit_s))
        try:
            child.stdin.write(struct.pack("<Q", len(message)) + message)
            child.stdin.flush()
            answer = _receive(child.stdout)
        except (BrokenPipeError, EOFError):
            code = child.wait()
            self.close()
            if code == TIMER_EXIT:
                raise ChildDied(f"no answer within {limit_s:.0f} s") from None
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise ChildDied(f"the process that reads it died ({name})") from None
        except BaseException:  # an interrupt: its answer would be taken for the next call's
            self.close()
            raise
        raised, value = pickle.loads(answer)
        if raised:
            raise value
        return value  # type: ignore[no-any-return]

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            code = "from robozarr.convert.workers.child_process import serve; serve()"
            self._child = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._child

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._child = None


def _receive(stream: Any) -> bytes:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    (n,) = struct.unpack("<Q", head)
    data: bytes = stream.read(n)
    if len(data) < n:
        raise EOFError
    return data


def serve() -> None:
    """The child's loop: answer calls until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the parent ends this process
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand among the answers
    while True:
        try:
            message = _receive(incoming)
        except EOFError:
            return
        try:
            function, arguments, limit_s = pickle.loads(message)
            with time_limit(limit_s):
                answer = (False, function(*arguments))
        except Exception as exc:
            answer = (True, exc)
        data = pickle.dumps(answer)
        outgoing.write(struct.pack("<Q", len(data)) + data)
        outgoing.flush()

"""What ``tests/convert/workers/test_child_process.py`` has done in a child process, which imports it by name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

__all__ = ["Nowhere", "chatter", "complain", "die", "hang", "leave", "look_first_into", "pid", "time_out"]


def pid() -> int:
    return os.getpid()


def die(signum: int) -> None:
    os.kill(os.getpid(), signum)


def leave(code: int) -> None:
    os._exit(code)


def hang() -> None:
    """Like HDF5 over damaged files: no other thread of the interpreter gets to run."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def time_out(_: object) -> None:
    """What a network disk that does not answer raises."""
    raise TimeoutError("the disk")


def look_first_into(folder: str) -> None:
    """As if ``PYTHONPATH`` began with it."""
    sys.path.insert(0, folder)


def complain() -> None:
    raise KeyError("reason")


def chatter() -> str:
    print("to standard output", flush=True)
    os.write(1, b"to its descriptor")
    print("to standard error", file=sys.stderr, flush=True)
    return "said"


def refuse() -> None:
    raise AttributeError("no such function here")


class Nowhere:
    """A function that cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return refuse, ()

    def __call__(self) -> None: ...

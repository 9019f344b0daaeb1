"""Keep worker processes from importing the user's script. Imports nothing of ours, and no Dask.

``multiprocessing`` has a new process import the program's ``__main__``, so that functions of it can be named. Workers here are
given functions of robozarr only: they need no script, and one that calls robozarr outside of ``if __name__ == "__main__":``
would call it again in each of them. So such a script works, and so does one that is read from standard input.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
from typing import Any, Final

__all__ = ["script_not_imported"]

WORKER: Final = "Dask Worker process"
"""How the names of Dask's worker processes begin; other processes are started as ever."""

_lock = threading.Lock()
_entered = 0
_prepare = spawn.get_preparation_data


def _without_script(name: str) -> dict[str, Any]:
    """The data that a new process gets first; for Dask's workers, without the user's script."""
    data: dict[str, Any] = _prepare(name)
    if name.startswith(WORKER):
        for told in ("init_main_from_name", "init_main_from_path"):
            data.pop(told, None)
    return data


@contextmanager
def script_not_imported() -> Iterator[None]:
    """Start workers without importing the script, and so the replacements of workers that died."""
    global _entered
    with _lock:
        _entered += 1
        spawn.get_preparation_data = _without_script
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if _entered == 0 and spawn.get_preparation_data is _without_script:
                spawn.get_preparation_data = _prepare

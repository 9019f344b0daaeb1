"""A fork of the process that runs the tests, which has everything imported: a start of Python takes seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable

__all__ = ["forget", "said_in_fork"]


def said_in_fork(function: Callable[[], object], limit_s: int = 60) -> subprocess.CompletedProcess[str]:
    """Call a function in a fork: how that ended, and what it printed. It is killed if it takes longer than `limit_s`.

    The fork leaves without the interpreter's own way out: what is at stake there wants a process of its own.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 says that there are threads
            pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(limit_s)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_call(function))
        status = os.waitpid(pid, 0)[1]
        out.seek(0)
        err.seek(0)
        said = [stream.read().decode() for stream in (out, err)]
    return subprocess.CompletedProcess([function.__qualname__], os.waitstatus_to_exitcode(status), *said)


def _call(function: Callable[[], object]) -> int:
    code = 1
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        try:
            function()
            code = 0
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else exc.code is not None
        except BaseException:
            traceback.print_exc()
    return code


def forget(packages: Iterable[str]) -> None:
    """Let packages be imported anew."""
    names = tuple(packages)
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]

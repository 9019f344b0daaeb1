"""Standard streams of the command line: a closed pipe, a full disk or an ASCII terminal does not end the work.

What is printed is the account of work that is done. So what cannot be printed is left out, and said once, on standard error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, Final, TextIO, cast

from robozarr.schemas.errors import RoboZarrError, SourceError
from robozarr.schemas.visible import visible, visible_lines

__all__ = ["error_text", "prepare_streams", "say", "unwritten"]

GONE: Final = (errno.EPIPE, errno.ECONNRESET)
"""Error numbers for a reader that closed its end, such as ``| head -1``."""


class _Stream:
    """A text stream that continues when it cannot be written; `error` holds the reason."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or drop it after an error."""
        if self.error is None:
            try:
                return self._stream.write(text)
            except OSError as exc:
                self._fail(exc)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush, unless there was an error."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as exc:
                self._fail(exc)

    def _fail(self, exc: OSError) -> None:
        self.error = exc
        with contextlib.suppress(OSError, ValueError):  # what waits in its buffer would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare_streams() -> None:
    """Wrap standard output and error in such streams; called once, before anything is printed or opened.

    A descriptor that is closed is opened on nothing: else the next file that is opened gets its number, and what others print.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            os.set_inheritable(descriptor, True)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _Stream):
            continue
        if stream is None:  # Python found its descriptor closed
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process lives
        with contextlib.suppress(AttributeError, OSError, ValueError):  # a test's stream
            stream.reconfigure(errors="backslashreplace")  # an arrow on an ASCII terminal, half of a surrogate pair
        setattr(sys, name, cast(TextIO, _Stream(stream)))


def unwritten() -> str | None:
    """Why standard output could not be written; None if it was, or if its reader closed it."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.flush()
        error = sys.stdout.error
        if error is not None and error.errno not in GONE:
            return error.strerror or str(error)
    return None


def say(text: str, *, error: bool = False) -> None:
    """Print text to standard output or error, with control characters written out; a terminal's lines break between words."""
    stream, text = sys.stderr if error else sys.stdout, visible_lines(text)
    if stream is not None and stream.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(line if line.startswith("next: ") else _wrapped(line, width) for line in text.split("\n"))
    print(text, file=stream, flush=error)


def _wrapped(line: str, width: int) -> str:
    """Wrap a line for a terminal; names and paths, which people copy, are not broken."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def error_text(error: RoboZarrError) -> str:
    """The text of an error; each problem of a list is on one line, whatever the names in it contain."""
    if isinstance(error, SourceError):
        return "\n".join([error.message, *(f"  {visible(str(problem))}" for problem in error.problems)])
    return str(error)

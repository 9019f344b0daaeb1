"""Show the progress of a conversion or a verification: a live display, or plain lines. Imports rich.

The stages only report counts; they do not know who listens.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from robozarr.schemas.visible import visible

__all__ = ["LineProgress", "LiveProgress", "Progress", "SilentProgress", "progress_for"]

LINE_INTERVAL_S = 5.0
"""Shortest time between two lines of one stage, so that a long run's log stays readable."""


class Progress(Protocol):
    """Receives the progress of the stages."""

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        """Begin a stage of `total` items with `n_bytes` in total, if known."""
        ...

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        """Count `n` items with `n_bytes` as finished."""
        ...

    def note(self, text: str) -> None:
        """Show a message, such as the dashboard's address or what was kept."""
        ...


class SilentProgress:
    """Shows nothing."""

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        """Do nothing."""

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Do nothing."""


class LineProgress(SilentProgress):
    """Prints a line when a stage begins, every few seconds, and when it ends: for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._stage = ""
        self._total = self._done = self._n_bytes = 0
        self._began = self._said = 0.0

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        """Begin a stage."""
        self._stage, self._total, self._done, self._n_bytes = stage, total, 0, 0
        self._began = self._said = time.monotonic()
        if total == 0:
            self._say()

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        """Count, and print a line at most every few seconds."""
        self._done += n
        self._n_bytes += n_bytes
        if self._done == self._total or time.monotonic() - self._said >= LINE_INTERVAL_S:
            self._say()

    def note(self, text: str) -> None:
        """Print a line."""
        print(visible(text), file=self._out, flush=True)

    def _say(self) -> None:
        self._said = time.monotonic()
        seconds = self._said - self._began
        speed = f", {self._n_bytes / 1e6 / max(seconds, 1e-9):,.0f} MB/s" if self._n_bytes else ""
        left = ""
        if 0 < self._done < self._total:
            left = f", {seconds / self._done * (self._total - self._done):.0f} s left"
        print(f"{self._stage}: {self._done}/{self._total} in {seconds:.1f} s{speed}{left}", file=self._out, flush=True)


class LiveProgress:
    """Shows a bar for each stage, with speed and remaining time: for terminals."""

    def __init__(self, console: Console) -> None:
        self._progress = RichProgress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:>10}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._task: TaskID | None = None
        self._n_bytes, self._began = 0, 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        """Begin a stage."""
        self._n_bytes, self._began = 0, time.monotonic()
        self._task = self._progress.add_task(stage, total=total, speed="")

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        """Count."""
        self._n_bytes += n_bytes
        speed = f"{self._n_bytes / 1e6 / max(time.monotonic() - self._began, 1e-9):,.0f} MB/s" if self._n_bytes else ""
        assert self._task is not None
        self._progress.update(self._task, advance=n, speed=speed)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(visible(text), markup=False, highlight=False)


def progress_for(stream: TextIO | None = None) -> LineProgress | LiveProgress:
    """A live display on a terminal, plain lines elsewhere; on standard error, so that standard output holds only the result."""
    stream = sys.stderr if stream is None else stream
    console = Console(file=stream)
    return LiveProgress(console) if console.is_terminal else LineProgress(stream)

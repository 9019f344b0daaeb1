"""Helpers of all commands: exit codes, options, printing of results and errors. Imports only the errors from robozarr."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from robozarr.cli.output import say
from robozarr.schemas.errors import PlanError, RoboZarrError, SourceError, StoreError, WorkerError
from robozarr.schemas.visible import visible_json

__all__ = [
    "EXIT_FINDINGS",
    "EXIT_INTERRUPTED",
    "EXIT_OUTPUT",
    "EXIT_USAGE",
    "EXIT_VERIFY",
    "Chunk",
    "Endpoint",
    "Json",
    "Scheduler",
    "StoreArgument",
    "Workers",
    "check_output",
    "console",
    "errors_as_json",
    "examples",
    "exit_code",
    "needs",
    "print_json",
]

EXIT_SOURCES: Final = 1
EXIT_FINDINGS: Final = 1
"""``report --check`` found problems."""
EXIT_USAGE: Final = 2
EXIT_STORE: Final = 3
EXIT_VERIFY: Final = 4
EXIT_WORKERS: Final = 5
EXIT_OUTPUT: Final = 6
EXIT_INTERRUPTED: Final = 130

StoreArgument = Annotated[str, typer.Argument(help="A store: a folder, s3://bucket/prefix or gs://bucket/prefix.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        min=0,
        help="Worker processes; 0 works in this process, for debugging. [default: the cores that it may use]",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Address of a running Dask cluster that does the work, such as tcp://10.0.0.1:8786; its workers see sources and "
        "store under the same paths.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url",
        help="For a store at s3://…: the service, if it is not Amazon's, such as https://minio.example.org. "
        "[default: AWS_ENDPOINT_URL]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the report, or the error, as JSON to standard output.")]
Chunk = Annotated[int, typer.Option("--chunk", "-c", min=1, help="C: steps of the action chunk, for coverage. 64 is RDT's.")]


def console() -> Console:
    """The console for tables and bars."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = 200  # a pipe has no width: lines stay whole
    return made


def examples(*lines: str) -> str:
    """A command's examples, as the Markdown at the end of its help: one per line."""
    return "Examples:\n\n" + "\n".join(f"- `{line}`" for line in lines)


@contextmanager
def needs(extras: str) -> Iterator[None]:
    """If a package is missing, say which extras bring it, and exit with the code for usage."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.split(".")[0] == "robozarr":
            raise
        say(f"robozarr: this needs {exc.name}; install it with: pip install '.[{extras}]' in a clone of robozarr", error=True)
        raise typer.Exit(EXIT_USAGE) from exc


def check_output(output: Path) -> None:
    """Refuse an output whose folder is not writable, before hours of work."""
    if not output.parent.is_dir():
        raise typer.BadParameter(f"--output: there is no folder {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        raise typer.BadParameter(
            f"--output: the folder {output.parent.absolute()} cannot be written to; name a file in another folder"
        )


def print_json(value: dict[str, Any]) -> None:
    """Print a report for machines."""
    print(visible_json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


@contextmanager
def errors_as_json(wanted: bool) -> Iterator[None]:
    """Also print an error as JSON, for machines; people read it on standard error."""
    try:
        yield
    except RoboZarrError as error:
        if wanted:
            problems = [asdict(problem) for problem in error.problems] if isinstance(error, SourceError) else []
            print_json({"ok": False, "error": type(error).__name__, "message": str(error), "problems": problems})
        raise


def exit_code(error: RoboZarrError) -> int:
    """The documented exit code of an error."""
    if isinstance(error, PlanError):
        return EXIT_USAGE
    if isinstance(error, WorkerError):
        return EXIT_WORKERS
    return EXIT_STORE if isinstance(error, StoreError) else EXIT_SOURCES

"""The command ``robozarr report``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from robozarr.cli.output import say
from robozarr.cli.shared import (
    EXIT_FINDINGS,
    Chunk,
    Endpoint,
    StoreArgument,
    check_output,
    errors_as_json,
    examples,
    needs,
    print_json,
)
from robozarr.view.words import printable, size_words

if TYPE_CHECKING:
    from robozarr.view.findings import Finding

__all__ = ["EXAMPLES", "report"]

EXAMPLES: Final = examples(
    "robozarr report libero.zarr",
    "robozarr report libero.zarr -o /tmp/libero.html --chunk 16",
    "robozarr report libero.zarr --check  # in CI: exit code 1 if there are problems",
    "robozarr report libero.zarr --check --fail-on notice --json",
)


class FailOn(StrEnum):
    """Choices of ``--fail-on``."""

    problem = "problem"
    notice = "notice"


def report(
    store: StoreArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            dir_okay=False,
            help="The HTML file to write; an existing one is replaced. [default: report.html, with --check none]",
        ),
    ] = None,
    chunk: Chunk = 64,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Print findings instead of a page, and exit with 1 if there are problems: a linter for data."
        ),
    ] = False,
    fail_on: Annotated[
        FailOn,
        typer.Option("--fail-on", help="With --check: the findings that give exit code 1; notice means problems and notices."),
    ] = FailOn.problem,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github",
            help="With --check: print GitHub annotations, ::error and ::warning. [default: where GITHUB_ACTIONS is true]",
        ),
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: print the findings, or the error, as JSON.")] = False,
) -> None:
    """Write one HTML page that shows a store: pictures, distributions, problems, coverage. Needs no network, no server."""
    if not check and (as_json or github or fail_on != FailOn.problem):
        raise typer.BadParameter("--json, --github and --fail-on go with --check")
    output = output or (None if check else Path("report.html"))
    if output is not None:
        _write(store, output, chunk, endpoint_url, quiet=as_json)
    if check:
        annotate = os.environ.get("GITHUB_ACTIONS") == "true" if github is None else github
        _check(store, endpoint_url, fail_on, as_json=as_json, annotate=annotate and not as_json)


def _write(store: str, output: Path, chunk: int, endpoint_url: str | None, *, quiet: bool) -> None:
    with needs("view"):
        from robozarr.view.report import write_report
    from robozarr.store.opened import open_store

    check_output(output)
    with Console(stderr=True).status("reading the store"):
        n_bytes = write_report(open_store(store, endpoint_url), output, chunk=chunk)
    if not quiet:
        say(f"{output}: {size_words(n_bytes)}; open it in a browser")


def _check(store: str, endpoint_url: str | None, fail_on: FailOn, *, as_json: bool, annotate: bool) -> None:
    """Print the findings; exit with 1 if one of them has the level that fails."""
    from robozarr.store.opened import open_store
    from robozarr.view.problems import find_problems

    with errors_as_json(as_json):
        found = find_problems(open_store(store, endpoint_url))
    counts = {level: sum(finding.level == level for finding in found) for level in ("problem", "notice", "good")}
    failed = counts["problem"] > 0 or (fail_on == FailOn.notice and counts["notice"] > 0)
    if as_json:
        print_json(_as_json(store, found, ok=not failed))
    else:
        for finding in found:
            if annotate and finding.level != "good":
                say(annotation(finding, store))
            elif not annotate:
                mark = {"problem": "✖ problem", "notice": "! notice", "good": "✓ in order"}[finding.level]
                say(f"{mark}: {printable(finding.title)}: {printable(finding.detail)}")
        say(f"{store}: {counts['problem']} problems, {counts['notice']} notices, {counts['good']} in order")
    if failed:
        raise typer.Exit(EXIT_FINDINGS)


def _as_json(store: str, found: Sequence[Finding], *, ok: bool) -> dict[str, Any]:
    findings = [{"level": finding.level, "title": finding.title, "detail": finding.detail} for finding in found]
    return {"ok": ok, "store": store, "findings": findings}


def annotation(finding: Finding, store: str) -> str:
    """A finding as a workflow command of GitHub Actions, with special characters escaped.

    >>> from robozarr.view.findings import Finding
    >>> print(annotation(Finding(level="notice", title="A: b", detail="50% of it"), "a.zarr"))
    ::warning title=A%3A b::a.zarr: 50%25 of it
    """

    def escaped(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    title = escaped(printable(finding.title)).replace(":", "%3A").replace(",", "%2C")
    kind = "error" if finding.level == "problem" else "warning"
    return f"::{kind} title={title}::{escaped(printable(f'{store}: {finding.detail}'))}"

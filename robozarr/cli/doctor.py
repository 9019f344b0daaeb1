"""The command ``robozarr doctor``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from robozarr.cli.output import say
from robozarr.cli.shared import EXIT_FINDINGS, Endpoint, Json, examples, print_json
from robozarr.view.words import printable

__all__ = ["EXAMPLES", "doctor"]

EXAMPLES: Final = examples(
    "robozarr doctor",
    "robozarr doctor /data/stores s3://robots/libero.zarr",
    "robozarr doctor --json",
)


def doctor(
    places: Annotated[
        list[str] | None,
        typer.Argument(help="Folders and URLs where stores are or will be: locks, rights and access are tried."),
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Check this installation and machine, and say what is wrong and what to do. Exit code 1 if there are problems."""
    from robozarr.view.doctor import diagnose

    say("robozarr: checking; the first time the reader is compiled, which takes some 15 s …", error=True)
    found = []
    for one in diagnose(places or (), endpoint_url):
        found.append({"level": one.level, "title": one.title, "detail": one.detail})
        if not as_json:
            mark = {"problem": "✖ problem", "notice": "! notice", "good": "✓ good"}[one.level]
            say(f"{mark}: {printable(one.title)}: {printable(one.detail)}")
    n_problems = sum(one["level"] == "problem" for one in found)
    if as_json:
        print_json({"ok": not n_problems, "findings": found})
    else:
        say(f"{n_problems} problem{'s' * (n_problems > 1)}" if n_problems else "nothing is wrong")
    if n_problems:
        raise typer.Exit(EXIT_FINDINGS)

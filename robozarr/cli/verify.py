"""The command ``robozarr verify``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from robozarr.cli.output import say
from robozarr.cli.shared import EXIT_VERIFY, Endpoint, Json, StoreArgument, Workers, errors_as_json, examples, print_json
from robozarr.schemas.visible import visible
from robozarr.schemas.words import counted
from robozarr.view.words import size_words

__all__ = ["EXAMPLES", "verify"]

EXAMPLES: Final = examples(
    "robozarr verify libero.zarr",
    "robozarr verify libero.zarr --source data/libero_spatial --json",
    "robozarr verify s3://robots/libero.zarr --endpoint-url https://minio.example.org",
)


def verify(
    store: StoreArgument,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="The HDF5 files, folders or patterns it was made from: compare bit for bit. May be repeated.",
        ),
    ] = None,
    workers: Workers = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Read back every byte of a store, check every rule of its format, and compare it with its sources."""
    from robozarr.convert import verify as verify_store
    from robozarr.convert.workers.progress import progress_for

    with errors_as_json(as_json), progress_for() as progress:
        report = verify_store(store, sources=source or None, workers=workers, endpoint_url=endpoint_url, progress=progress)
    if as_json:
        print_json(report.to_json())
    else:
        for violation in report.violations:
            say(visible(str(violation)))
        against = ", identical to its sources" if report.compared_with_source else ""
        if report.ok:
            say(
                f"{store}: OK{against}: {counted(report.n_episodes, 'episode')}, {counted(report.n_steps, 'step')}, "
                f"{counted(report.n_arrays, 'array')}, {counted(report.n_shards, 'shard')}, {size_words(report.n_bytes)} read "
                f"back in {report.seconds:.1f} s"
            )
        else:
            say(
                f"{store}: {counted(len(report.violations), 'violation')}; FORMAT.md explains the rules by their number",
                error=True,
            )
    if not report.ok:
        raise typer.Exit(EXIT_VERIFY)

"""The command ``robozarr coverage``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from robozarr.cli.output import say
from robozarr.cli.shared import Chunk, Endpoint, Json, StoreArgument, check_output, console, examples, needs, print_json

__all__ = ["EXAMPLES", "coverage"]

EXAMPLES: Final = examples(
    "robozarr coverage libero.zarr",
    "robozarr coverage libero.zarr --chunk 16 --epochs 1,9 -o a.png",
    "robozarr coverage libero.zarr --draws 100000 --weights equal --json",
)


class FileWeights(StrEnum):
    """Choices of ``--weights``."""

    steps = "steps"
    demos = "demos"
    equal = "equal"


def coverage(
    store: StoreArgument,
    chunk: Chunk = 64,
    draws: Annotated[
        int | None, typer.Option("--draws", "-n", min=1, help="Windows drawn per epoch. [default: the store's steps]")
    ] = None,
    epochs: Annotated[
        str, typer.Option("--epochs", help="Epochs after which shares are shown, comma-separated, ascending.")
    ] = "1,2,5,10",
    weights: Annotated[
        FileWeights, typer.Option("--weights", help="How the random sampler weights files; steps is RDT's rule.")
    ] = FileWeights.steps,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of both simulations.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Also draw it: a .png, .svg or .pdf file.")
    ] = None,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Show what random sampling sees of a store, and in how many episodes no window begins at the last gripper command."""
    from robozarr.store.opened import open_store
    from robozarr.view.coverage import measure_coverage
    from robozarr.view.tails import measure_tails
    from robozarr.view.terminal import print_coverage, print_tails

    looks = [int(part) if part.strip().isdecimal() else 0 for part in epochs.split(",")]
    if looks[0] < 1 or looks != sorted(set(looks)):
        raise typer.BadParameter(f"--epochs is ascending numbers from 1 on, such as 1,2,5,10; got {epochs}")
    if output is not None:
        if output.suffix not in (".png", ".svg", ".pdf"):
            raise typer.BadParameter(f"--output ends in .png, .svg or .pdf; got {output}")
        check_output(output)
    opened = open_store(store, endpoint_url)
    tails = measure_tails(opened, chunk=chunk)
    found = measure_coverage(opened, chunk=chunk, draws=draws, epochs=looks, weights=weights.value, seed=seed)
    if output is not None:
        with needs("view"):
            from robozarr.view.charts import coverage_chart
        coverage_chart(found, tails).save(output)
    if as_json:
        return print_json({"tails": tails.to_json()} | found.to_json())
    print_tails(tails, console())
    print_coverage(found, console())
    return say(f"plot: {output}") if output is not None else None

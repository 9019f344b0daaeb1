"""The command ``robozarr export``: files that training repositories keep beside their code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from robozarr.cli.output import say
from robozarr.cli.shared import Json, StoreArgument, examples, print_json

__all__ = ["EXAMPLES", "export_rdt"]

EXAMPLES: Final = examples(
    "robozarr export rdt libero.zarr --configs RoboticsDiffusionTransformer/configs --name libero",
    "robozarr export rdt libero.zarr --configs configs --name libero --dry-run",
)


def export_rdt(
    store: StoreArgument,
    configs: Annotated[Path, typer.Option("--configs", help="The folder `configs` of an RDT checkout.")],
    name: Annotated[str, typer.Option("--name", help="Name of the data set, as passed to RDTDataset.")] = "libero",
    low: Annotated[
        int | None, typer.Option("--epsd-len-thresh-low", min=1, help="Leave out episodes with fewer steps. [default: none]")
    ] = None,
    skip_still: Annotated[bool, typer.Option("--skip-still", help="Leave out steps before the arm first moves.")] = False,
    control_freq: Annotated[
        float | None, typer.Option("--control-freq", min=0, help="Steps per second. [default: the store's]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace entries of this name that differ.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Add a data set to RDT's configs: dataset_stat, dataset_control_freq, finetune_datasets and pretrain_datasets."""
    try:
        from robozarr.loader.adapters.rdt import dataset as rdt
        from robozarr.loader.adapters.rdt import export as rdt_export
        from robozarr.store.opened import open_store
    except ModuleNotFoundError as exc:
        raise typer.BadParameter(
            f"this needs {exc.name}; install it with: pip install '.[train]' in a clone of robozarr"
        ) from exc

    opened = open_store(store)
    config = replace(rdt.config_for(opened), cameras={}, epsd_len_thresh_low=low, skip_still=skip_still)
    dataset = rdt.RDTDataset(opened, name=name, config=config)
    done = rdt_export.export_rdt(dataset, configs, control_freq=control_freq, overwrite=overwrite, dry_run=dry_run)
    left_out = [str(entry) for entry in dataset.windows.left_out]
    if as_json:
        return print_json({"name": name, "files": done, "windows": len(dataset), "left_out": left_out, "dry_run": dry_run})
    for file, what in done.items():
        say(f"{configs / file}: {'would be ' if dry_run and what != 'unchanged' else ''}{what}")
    say(f"{len(dataset)} windows{'; left out: ' + ', '.join(left_out) if left_out else ''}")
    return None

"""The command ``robozarr export``: files that training repositories keep beside their code."""

from __future__ import annotations

import os
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from robozarr.cli.output import say
from robozarr.cli.shared import Json, StoreArgument, check_output, examples, needs, print_json
from robozarr.schemas.words import counted
from robozarr.view.words import size_words

if TYPE_CHECKING:
    from robozarr.loader.adapters.diffusion_policy.export import ReplayBufferExport
    from robozarr.loader.adapters.lerobot.export import LeRobotExport

__all__ = [
    "EXAMPLES", "EXAMPLES_DIFFUSION_POLICY", "EXAMPLES_LEROBOT", "export_diffusion_policy", "export_lerobot", "export_rdt",
]  # fmt: skip

EXAMPLES: Final = examples(
    "robozarr export rdt libero.zarr --configs RoboticsDiffusionTransformer/configs --name libero",
    "robozarr export rdt libero.zarr --configs configs --name libero --dry-run",
)
EXAMPLES_DIFFUSION_POLICY: Final = examples(
    "robozarr export diffusion-policy libero.zarr --output libero.zarr.zip --keys agentview_rgb,ee_pos",
)
EXAMPLES_LEROBOT: Final = examples(
    "robozarr export lerobot libero.zarr --output libero_lerobot",
    "robozarr export lerobot libero.zarr --output libero_lerobot --turn rotate --video",
)


class TurnName(StrEnum):
    """Choices of ``--turn``."""

    none = "none"
    rotate = "rotate"
    upright = "upright"


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
    with needs("train"):
        from robozarr.loader.adapters.rdt import dataset as rdt
        from robozarr.loader.adapters.rdt import export as rdt_export
        from robozarr.store.opened import open_store

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


def export_lerobot(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make; it must not be there yet.")],
    state: Annotated[
        str | None,
        typer.Option("--state", help="Keys that make observation.state, with commas. [default: by the layout of the sources]"),
    ] = None,
    images: Annotated[str | None, typer.Option("--images", help="Cameras, with commas. [default: all]")] = None,
    keys: Annotated[
        str | None, typer.Option("--keys", help="Other keys to write, with commas; '' for none. [default: all]")
    ] = None,
    turn: Annotated[
        TurnName,
        typer.Option(help="Turn pictures: upright, or by 180° (rotate), as LIBERO's LeRobot data sets are; none: as stored."),
    ] = TurnName.none,
    fps: Annotated[float | None, typer.Option("--fps", min=0, help="Steps per second. [default: the store's]")] = None,
    causal: Annotated[
        bool,
        typer.Option("--causal", help="Pair observations with the actions that follow them. [default: as recorded]"),
    ] = False,
    video: Annotated[
        bool, typer.Option("--video", help="Write cameras as videos (AV1): many times smaller, and not exact.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a store as a LeRobot data set (version 3.0): Parquet with exact pictures, or videos."""
    with needs("lerobot,train"):
        import av as _av  # noqa: F401 - before hours of work
        import pyarrow as _pyarrow  # noqa: F401

        from robozarr.loader.adapters.lerobot.export import export_lerobot as export

    os.environ.setdefault("SVT_LOG", "1")  # the encoder tells each video's settings otherwise
    with needs("convert"):
        from robozarr.convert.workers.progress import progress_for
    check_output(output)
    with progress_for() as progress:
        report = export(
            store, output, state=_listed(state), images=_listed(images), keys=_listed(keys), turn=turn.value, fps=fps,
            causal=causal, video=video, progress=progress,
        )  # fmt: skip
    if as_json:
        return print_json(report.to_json())
    for name, why in report.left_out.items():
        say(f"not exported: {name}: {why}")
    for name, ratio in report.psnr.items():
        say(f"{name}: video, not exact: PSNR {ratio:.1f} dB")
    exact = "" if report.psnr else ", pictures exact"
    say(_written(output, report) + exact)
    return None


def export_diffusion_policy(
    store: StoreArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="What to make: a file that ends in .zarr.zip, or else a folder; not there yet."),
    ],
    keys: Annotated[str | None, typer.Option("--keys", help="Keys to write, with commas. [default: all]")] = None,
    float32: Annotated[
        bool, typer.Option("--float32", help="Write float64 as float32, rounded: upstream's data set for robomimic needs it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a store as diffusion policy's ReplayBuffer (Zarr v2), exact."""
    with needs("convert,train"):
        from robozarr.convert.workers.progress import progress_for
        from robozarr.loader.adapters.diffusion_policy.export import export_replay_buffer
    check_output(output)
    with progress_for() as progress:
        report = export_replay_buffer(store, output, keys=_listed(keys), float32=float32, progress=progress)
    if as_json:
        return print_json(report.to_json())
    for name, why in report.left_out.items():
        say(f"not exported: {name}: {why}")
    say(_written(output, report) + (", float64 as float32" if float32 else ", exact"))
    return None


def _written(output: Path, report: LeRobotExport | ReplayBufferExport) -> str:
    steps = f"{counted(report.n_episodes, 'episode')}, {counted(report.n_steps, 'step')}"
    return f"{output}: {steps}, {size_words(report.n_bytes)}"


def _listed(names: str | None) -> list[str] | None:
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]

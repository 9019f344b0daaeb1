"""The command ``robozarr convert``."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from robozarr.cli.output import say
from robozarr.cli.shared import Endpoint, Json, Scheduler, Workers, errors_as_json, examples, print_json
from robozarr.schemas.errors import Problem
from robozarr.schemas.visible import visible
from robozarr.schemas.words import counted
from robozarr.view.words import printable, size_words

__all__ = ["EXAMPLES", "convert"]

EXAMPLES: Final = examples(
    "robozarr convert data/libero_spatial --store libero_spatial.zarr",
    "robozarr convert 'data/libero_*/*.hdf5' --store libero.zarr --profile compact --workers 8",
    "robozarr convert more --store libero.zarr --append",
    "robozarr convert data --store libero.zarr --dry-run",
    "robozarr convert data --store s3://robots/libero.zarr",
)

N_REMARKS: Final = 20
"""Most remarks on instructions, and on lengths, that are printed; ``--json`` has all."""


class ProfileName(StrEnum):
    """Choices of ``--profile``."""

    fast = "fast"
    raw = "raw"
    lean = "lean"
    compact = "compact"


class OnErrorName(StrEnum):
    """Choices of ``--on-error``."""

    stop = "stop"
    skip = "skip"


def profile_words(profile: str, stored_bytes: int, would_take: dict[str, int]) -> list[str]:
    """Say who can read the store, and how large it would be with keyframes."""
    with_keyframes = "robozarr, and zarr-python with robozarr installed"
    lines = [f"{profile}: read by {with_keyframes if profile in ('lean', 'compact') else 'any Zarr v3 reader'}"]
    for other, n_bytes in would_take.items():
        if other != profile and n_bytes < stored_bytes:
            less = f"{stored_bytes / max(1, n_bytes):.1f} times less"
            lines.append(f"{other} would take about {size_words(n_bytes)} ({less}); read by {with_keyframes}")
    return lines if would_take else []


def convert(
    source: Annotated[
        list[str],
        typer.Argument(help="HDF5 files, folders (searched for .hdf5 and .h5) or patterns; several suites at once are fine."),
    ],
    store: Annotated[
        str, typer.Option("--store", "-s", help="Folder that becomes the store, or s3://bucket/prefix, gs://bucket/prefix.")
    ],
    profile: Annotated[
        ProfileName | None,
        typer.Option(
            help="fast: Blosc-LZ4; raw: no codec, largest and fastest to read; lean: keyframes, much smaller, read as fast; "
            "compact: keyframes, smallest. Any Zarr reader opens fast and raw. [default: fast]",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=9,
            help="Level of Blosc: higher is smaller and slower. In lean and compact it is that of low-dim keys: pictures have "
            "no level. [default: 5 of fast and lean, 1 of compact]",
        ),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store; refuses to replace anything else.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the sources that the store does not hold yet; its data stay unchanged.")
    ] = False,
    on_error: Annotated[
        OnErrorName,
        typer.Option("--on-error", help="stop: a problem is an error; skip: leave such demos out and list them in the store."),
    ] = OnErrorName.stop,
    keys: Annotated[
        str | None,
        typer.Option(
            "--keys",
            help="Keys to keep, comma-separated, by name or by path in a demo; actions are always kept. [default: all]",
        ),
    ] = None,
    layout: Annotated[
        list[str] | None,
        typer.Option(
            "--layout", help="TOML file that describes files of an unknown layout; `robozarr layouts` lists the known ones."
        ),
    ] = None,
    gripper: Annotated[
        str | None,
        typer.Option(
            "--gripper",
            help="Element of the actions whose sign opens and closes the gripper, such as 6; or none. "
            "[default: as the files' layout says]",
        ),
    ] = None,
    without: Annotated[
        str | None,
        typer.Option(
            "--without",
            help="Keys to leave out, comma-separated, by name, by path in a demo, or a group's path for all below it.",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction", help="The instruction of every episode, whatever the files say; recorded as given by hand."
        ),
    ] = None,
    instructions: Annotated[
        Path | None,
        typer.Option(
            "--instructions",
            dir_okay=False,
            help="Instructions by file, or by file and demo: a .csv (columns file, instruction, perhaps demo), .json or .toml.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Scan and plan, and say what would be written; write nothing.")
    ] = False,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Convert HDF5 demonstrations into a Zarr store, bit for bit. If interrupted, run the same command again to continue."""
    from robozarr.convert import convert as convert_sources
    from robozarr.convert.workers.progress import progress_for

    wanted = None if keys is None else [key.strip() for key in keys.split(",") if key.strip()]
    if gripper not in (None, "none") and not str(gripper).removeprefix("-").isdecimal():
        raise typer.BadParameter("--gripper is the number of an element, such as 6 or -1, or none")
    if wanted == []:
        raise typer.BadParameter("--keys names one key or more, such as agentview_rgb,joint_states")
    unwanted = [key.strip() for key in (without or "").split(",") if key.strip()]
    if without is not None and not unwanted:
        raise typer.BadParameter("--without names one key or more, such as agentview_depth")
    if scheduler is not None and workers is not None:
        raise typer.BadParameter("--scheduler's cluster has its own workers: leave out --workers")
    with errors_as_json(as_json), progress_for() as progress:
        report = convert_sources(
            source,
            store,
            profile=None if profile is None else profile.value,
            level=level,
            workers=workers,
            scheduler=scheduler,
            overwrite=overwrite,
            append=append,
            on_error=on_error.value,
            keys=wanted,
            layout=layout or None,
            gripper=None if gripper is None else "none" if gripper == "none" else int(gripper),
            without=unwanted,
            instruction=instruction,
            instructions=instructions,
            dry_run=dry_run,
            endpoint_url=endpoint_url,
            progress=progress,
        )
    if as_json:
        return print_json(report.to_json())
    if append and not report.n_appended:
        say(f"nothing to append: {store} already holds all of these sources ({counted(report.n_episodes, 'episode')})")
        return None
    verb = "would convert" if dry_run else "converted"
    if append:
        verb = f"{'would append' if dry_run else 'appended'} {counted(report.n_appended, 'file')}: the store has"
    size = (
        f"{size_words(report.source_bytes)} of source"
        if dry_run
        else f"{size_words(report.source_bytes)} → {size_words(report.stored_bytes)}"
    )
    say(
        f"{verb} {counted(report.n_episodes, 'episode')} of {counted(report.n_tasks, 'task')}, "
        f"{counted(report.n_steps, 'step')}, {counted(len(report.keys), 'key')} from {counted(report.n_sources, 'file')}: "
        f"{size}, {counted(report.n_partitions, 'partition')}, {report.seconds:.1f} s"
    )
    say(f"keys: {', '.join(report.keys)}")
    if report.other_actions:
        say(
            f"actions: the key actions does not hold all of them; more are in {', '.join(report.other_actions)} → name in a "
            "window those that a policy should learn"
        )
    for line in profile_words(report.profile, report.stored_bytes, report.would_take):
        say(line)
    for problem in report.left_out:
        say(f"left out: {visible(str(Problem(**problem)))}")
    for line in _not_stored(report.not_stored):
        say(visible(line))
    for remark in report.length_remarks[:N_REMARKS]:
        say(f"lengths: {printable(remark)}")
    if len(report.length_remarks) > N_REMARKS:
        say(f"lengths: … and {len(report.length_remarks) - N_REMARKS} more remarks: --json lists all")
    for remark in report.remarks[:N_REMARKS]:
        say(f"instructions: {printable(remark)}")
    if len(report.remarks) > N_REMARKS:
        say(f"instructions: … and {len(report.remarks) - N_REMARKS} more remarks: --json lists all")
    if not dry_run:
        words = ["robozarr", "verify", store, *(word for name in source for word in ("--source", name))]
        words += [] if endpoint_url is None else ["--endpoint-url", endpoint_url]
        say(f"next: {shlex.join(words)}")
    return None


def _not_stored(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for what is not stored for one reason, of however many files."""
    from robozarr.schemas.metadata import LEFT_OUT

    alike: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        if not entry["reason"].startswith(LEFT_OUT):  # said above, with the remedy
            alike.setdefault((entry["path"], entry["reason"]), []).append(entry)
    for (path, reason), found in alike.items():
        n_demos = sum(entry["n_demos"] for entry in found)
        where = f" in {counted(n_demos, 'demo')}" if n_demos else ""
        more = f" and {counted(len(found) - 1, 'more file')}" if len(found) > 1 else ""
        yield f"not stored: {path}{where} of {found[0]['source']}{more}: {reason}"

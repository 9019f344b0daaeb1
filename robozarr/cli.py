"""Owns the command line: arguments in, one call of the API, a report out. No logic of its own.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 sources are bad, 2 usage,
3 store exists or is unusable, 4 verification failed, 5 workers cannot be had or died, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robozarr import __version__
from robozarr.schemas.errors import PlanError, Problem, RoboZarrError, SourceError, StoreError, WorkerError

__all__ = ["app", "run"]

EXIT_SOURCES, EXIT_USAGE, EXIT_STORE, EXIT_VERIFY, EXIT_WORKERS, EXIT_INTERRUPTED = 1, 2, 3, 4, 5, 130

app = typer.Typer(
    name="robozarr",
    help="LIBERO robot demonstrations: from HDF5 into verified Zarr stores.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


class ProfileName(StrEnum):
    """Choices of ``--profile``."""

    fast = "fast"
    raw = "raw"
    compact = "compact"


class OnErrorName(StrEnum):
    """Choices of ``--on-error``."""

    stop = "stop"
    skip = "skip"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"robozarr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        min=0,
        help="Worker processes; 0 works in this process, for debugging. [default: the cores of this machine]",
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
Json = Annotated[bool, typer.Option("--json", help="Print the report, or the error, as JSON to standard output.")]


@app.command(
    epilog="Examples: `robozarr convert data/libero_spatial --store libero_spatial.zarr` · "
    "`robozarr convert 'data/libero_*/*.hdf5' --store libero.zarr --profile compact --workers 8` · "
    "`robozarr convert more --store libero.zarr --append` · `robozarr convert data --store libero.zarr --dry-run`"
)
def convert(
    source: Annotated[
        list[str],
        typer.Argument(help="HDF5 files, folders (searched for .hdf5 and .h5) or patterns; several suites at once are fine."),
    ],
    store: Annotated[Path, typer.Option("--store", "-s", help="Folder that becomes the store.")],
    profile: Annotated[
        ProfileName | None,
        typer.Option(
            help="fast: Blosc-LZ4; raw: no codec, largest and fastest to read; compact: Blosc-zstd, smallest. [default: fast]",
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(min=1, max=9, help="Level of the codec: higher is smaller and slower. [default: 5 of fast, 1 of compact]"),
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a store that is there already; replaces nothing else.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add the sources that the store does not hold yet; what is there stays.")
    ] = False,
    on_error: Annotated[
        OnErrorName,
        typer.Option("--on-error", help="stop: a problem is an error; skip: leave such demos out and list them in the store."),
    ] = OnErrorName.stop,
    keys: Annotated[
        str | None,
        typer.Option(
            "--keys",
            help="Keys to keep, comma-separated, by name or by path in a demo; actions always is. [default: all]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Scan and plan, say what would be written, write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert HDF5 demonstrations into a Zarr store, bit for bit. Interrupted, the same command goes on where it was."""
    from robozarr.convert import convert as convert_sources
    from robozarr.convert.progress import progress_for

    wanted = None if keys is None else [key.strip() for key in keys.split(",") if key.strip()]
    if wanted == []:
        raise typer.BadParameter("--keys names one key or more, such as agentview_rgb,joint_states")
    if scheduler is not None and workers is not None:
        raise typer.BadParameter("--scheduler's cluster has its own workers: leave out --workers")
    with _errors_as_json(as_json), progress_for() as progress:
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
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        return _print_json(report.to_json())
    if append and not report.n_appended:
        print(f"nothing to append: {store} holds all of these sources already ({report.n_episodes} episodes)")
        return None
    verb = "would convert" if dry_run else "converted"
    if append:
        verb = f"{'would append' if dry_run else 'appended'} {report.n_appended} files: the store has"
    size = (
        f"{_size(report.source_bytes)} of source" if dry_run else f"{_size(report.source_bytes)} → {_size(report.stored_bytes)}"
    )
    print(
        f"{verb} {report.n_episodes} episodes of {report.n_tasks} tasks, {report.n_steps} steps, {len(report.keys)} keys "
        f"from {report.n_sources} files: {size}, {report.n_partitions} partitions, {report.seconds:.1f} s"
    )
    print(f"keys: {', '.join(report.keys)}")
    for problem in report.left_out:
        print(f"left out: {Problem(**problem)}")
    for entry in report.not_stored:
        where = f" in {entry['n_demos']} demos" if entry["n_demos"] else ""
        print(f"not stored: {entry['path']}{where} of {entry['source']}: {entry['reason']}")
    if not dry_run:
        words = ["robozarr", "verify", str(store), *(word for name in source for word in ("--source", name))]
        print(f"next: {shlex.join(words)}")
    return None


@app.command(
    epilog="Examples: `robozarr verify libero.zarr` · `robozarr verify libero.zarr --source data/libero_spatial --json`"
)
def verify(
    store: Annotated[Path, typer.Argument(help="A store.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="The HDF5 files, folders or patterns it was made from: compare bit for bit. May be repeated.",
        ),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Read back every byte of a store, check every rule of its format, and compare it with its sources."""
    from robozarr.convert import verify as verify_store
    from robozarr.convert.progress import progress_for

    with _errors_as_json(as_json), progress_for() as progress:
        report = verify_store(store, sources=source or None, workers=workers, progress=progress)
    if as_json:
        _print_json(report.to_json())
    else:
        for violation in report.violations:
            print(violation)
        against = "bit for bit what its sources hold, and " if report.compared_with_source else ""
        if report.ok:
            print(
                f"{store}: {against}good: {report.n_episodes} episodes, {report.n_steps} steps, {report.n_arrays} arrays, "
                f"{report.n_shards} shards, {_size(report.n_bytes)} read back in {report.seconds:.1f} s"
            )
        else:
            print(
                f"{store}: {len(report.violations)} violation(s); FORMAT.md explains the rules by their number",
                file=sys.stderr,
            )
    if not report.ok:
        raise typer.Exit(EXIT_VERIFY)


@app.command(epilog="Examples: `robozarr info libero.zarr` · `robozarr info libero.zarr --json`")
def info(store: Annotated[Path, typer.Argument(help="A store.")], as_json: Json = False) -> None:
    """Show what a store holds."""
    from robozarr.loader.store import open_store
    from robozarr.loader.summary import summarise

    summary = summarise(open_store(store))
    if as_json:
        return _print_json(summary.to_json())
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width: lines stay whole
    frequency = "differs" if summary.control_freq is None else f"{summary.control_freq:g} Hz"
    console.print(
        f"[bold]{escape(summary.path)}[/]  format {summary.format_version}, {escape(summary.software)}, "
        f"profile {summary.profile} (codec {summary.codec})"
    )
    ratio = summary.decoded_bytes / max(1, summary.stored_bytes)
    console.print(
        f"{summary.n_tasks} tasks, {summary.n_episodes} episodes, {summary.n_steps} steps at {frequency}; "
        f"{_size(summary.stored_bytes)} on disk for {_size(summary.decoded_bytes)} of data (ratio {ratio:.2f})"
    )
    for title, counts in (
        ("flagged steps", summary.flags),
        ("alignment", summary.alignment),
        ("image convention", summary.image_convention),
        ("success", summary.success),
        ("splits", summary.splits),
    ):
        if counts:
            console.print(
                f"{title}: " + ", ".join(f"{escape(name)} {n}" for name, n in counts.items() if n or title == "flagged steps")
            )
    table = Table("key", "role", "dtype", "shape", "unit", "size", "ratio", box=None, header_style="bold", pad_edge=False)
    for key in summary.keys:
        shape = "ragged" if key.shape is None else "×".join(map(str, key.shape)) or "scalar"
        table.add_row(
            escape(key.name), key.role, key.dtype, shape, escape(key.unit), _size(key.stored_bytes), f"{key.ratio:.2f}"
        )
    console.print(table)
    table = Table("suite", "instruction", "episodes", "steps", box=None, header_style="bold", pad_edge=False)
    for task in summary.tasks:
        table.add_row(escape(task.suite), escape(task.instruction), str(task.n_episodes), str(task.n_steps))
    console.print(table)
    table = Table("source", "size", "demos", box=None, header_style="bold", pad_edge=False)
    for entry in summary.sources:
        table.add_row(escape(entry["name"]), _size(entry["size"]), str(entry["n_demos"]))
    console.print(table)
    for entry in summary.not_stored:
        console.print(escape(f"not stored: {entry['path']} of {entry['source']}: {entry['reason']}"))
    return None


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@contextlib.contextmanager
def _errors_as_json(wanted: bool) -> Iterator[None]:
    """Print an error as JSON too, for machines; people still read it on standard error."""
    try:
        yield
    except RoboZarrError as error:
        if wanted:
            problems = [asdict(problem) for problem in error.problems] if isinstance(error, SourceError) else []
            _print_json({"ok": False, "error": type(error).__name__, "message": str(error), "problems": problems})
        raise


def _size(n_bytes: int) -> str:
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _exit_code(error: RoboZarrError) -> int:
    if isinstance(error, PlanError):
        return EXIT_USAGE
    if isinstance(error, WorkerError):
        return EXIT_WORKERS
    return EXIT_STORE if isinstance(error, StoreError) else EXIT_SOURCES


def _on_terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="robozarr", standalone_mode=False)
    except RoboZarrError as error:
        print(f"robozarr: {error}", file=sys.stderr)
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:  # before Typer took over
        code = EXIT_INTERRUPTED
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the parser
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", EXIT_USAGE))
    if code == EXIT_INTERRUPTED:  # Typer turns a KeyboardInterrupt into this
        print(
            "robozarr: interrupted; a store that was begun is not complete: run the same command again to go on with it",
            file=sys.stderr,
        )
    sys.exit(code if isinstance(code, int) else 0)

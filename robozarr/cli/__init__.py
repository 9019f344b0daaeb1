"""The command line: arguments in, one call of the API, a report out. No logic of its own; one file per command.

Read first: ``convert.convert``.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 sources are bad (of
``report --check``: problems were found), 2 usage, 3 store exists or is unusable, 4 verification failed, 5 workers cannot be had
or died, 6 what was asked for cannot be printed, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from robozarr.cli import convert, coverage, doctor, export, info, layouts, report, verify
from robozarr.cli.output import error_text, prepare_streams, say, unwritten
from robozarr.cli.shared import EXIT_INTERRUPTED, EXIT_OUTPUT, EXIT_USAGE, exit_code
from robozarr.schemas.errors import RoboZarrError
from robozarr.version import __version__

__all__ = ["app", "run"]

app = typer.Typer(
    name="robozarr",
    help="LIBERO robot demonstrations: from HDF5 into verified Zarr stores.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command(epilog=convert.EXAMPLES)(convert.convert)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command(epilog=info.EXAMPLES)(info.info)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=coverage.EXAMPLES)(coverage.coverage)
app.command(epilog=layouts.EXAMPLES)(layouts.layouts)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)
exports = typer.Typer(no_args_is_help=True, help="Write files that training repositories read, or keep beside their code.")
exports.command("diffusion-policy", epilog=export.EXAMPLES_DIFFUSION_POLICY)(export.export_diffusion_policy)
exports.command("lerobot", epilog=export.EXAMPLES_LEROBOT)(export.export_lerobot)
exports.command("rdt", epilog=export.EXAMPLES)(export.export_rdt)
app.add_typer(exports, name="export")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"robozarr {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _on_terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    prepare_streams()
    signal.signal(signal.SIGTERM, _on_terminate)
    if (hang_up := getattr(signal, "SIGHUP", None)) and signal.getsignal(hang_up) is not signal.SIG_IGN:
        signal.signal(hang_up, _on_terminate)  # the terminal was closed, without nohup: files on their way are removed
    code = _run(arguments)
    if reason := unwritten():
        say(f"robozarr: standard output cannot be written: {reason}", error=True)
        command = (sys.argv[1:] if arguments is None else arguments)[:1]
        if code == 0 and command and command[0] in ("info", "coverage"):  # there is nothing else to be done
            code = EXIT_OUTPUT
    sys.stderr.flush()
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="robozarr", standalone_mode=False)
    except RoboZarrError as error:
        say(f"robozarr: {error_text(error)}", error=True)
        return exit_code(error)
    except KeyboardInterrupt:  # before Typer took over
        code = EXIT_INTERRUPTED
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the parser
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", EXIT_USAGE))
    if code == EXIT_INTERRUPTED:  # Typer turns a KeyboardInterrupt into this
        begun = "; the store is unfinished: run the same command again to continue"
        converting = "convert" in (sys.argv[1:2] if arguments is None else arguments[:1])
        say(f"robozarr: interrupted{begun if converting else ''}", error=True)
    return code if isinstance(code, int) else 0

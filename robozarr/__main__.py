"""The console script: run the command line if it is installed, or say how to install it. No logic."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``robozarr``."""
    try:
        from robozarr.cli import run
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.split(".")[0] == "robozarr":
            from robozarr import _no_link

            if said := _no_link(exc.name):
                print(f"robozarr: {said}", file=sys.stderr)
                raise SystemExit(2) from exc
            raise
        print(
            f"robozarr: the command line needs {exc.name}; install it with: pip install '.[convert]' in a clone of robozarr",
            file=sys.stderr,
        )
        raise SystemExit(2) from exc
    run()


if __name__ == "__main__":
    main()

"""The command line: ``make experiment``, or ``PYTHONPATH=experiments python -m tail``."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs" / "experiments"


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tail", description="What dropping the tail costs, in a simulator.")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="two rows, one seed, ten states: three minutes; not into docs/")
    size.add_argument("--full", action="store_true", help="eleven more rows; adds to what the default run found")
    parser.add_argument("--libero", type=Path, metavar="PATH", help="a checkout of LIBERO: its own task, not the boxes")
    parser.add_argument(
        "--work", type=Path, help="keeps everything; an interrupted run goes on here [default: beside the code]"
    )
    parser.add_argument("--page", type=Path, help="where page and figures go [default: docs/experiments; of others: --work]")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--seeds", type=int, help="training seeds, in place of the size's")
    parser.add_argument("--states", type=int, help="initial states, in place of the size's")
    return parser.parse_args()


def main() -> None:
    """Run it and write the page."""
    options = parse()
    from tail.page import write_page
    from tail.plan import DEFAULT, FULL, QUICK
    from tail.run import run

    size = QUICK if options.quick else FULL if options.full else DEFAULT
    more = {"n_seeds": options.seeds, "n_states": options.states}
    size = replace(size, **{name: n for name, n in more.items() if n is not None})
    name = ("quick" if options.quick else "run") + ("-libero" if options.libero else "")
    work = options.work or HERE / "work" / name
    page = options.page or (work if options.quick or options.libero else DOCS)
    began = time.monotonic()
    results = run(size, work, libero=options.libero, workers=options.workers, say=lambda line: print(line, flush=True))
    path = write_page(results, page)
    minutes = (time.monotonic() - began) / 60
    print(f"{os.path.relpath(path)} and its figures, after {minutes:.1f} minutes; {os.path.relpath(work)} keeps the rest")


if __name__ == "__main__":
    main()

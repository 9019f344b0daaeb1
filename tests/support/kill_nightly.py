"""Kill converters at random moments, hundreds of times, and compare what their reruns end in with an undisturbed store.

    python tests/support/kill_nightly.py [--kills 1000] [--seed 0] [--minutes 0]

Each turn takes a way to convert by chance (inline, with two workers, as an append) and a profile, kills the converter
with all of its processes at moments between its start and its end, runs the same command again after each kill, and compares
every byte. Exits with 1 at the first difference, and leaves the store where it is.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from killing import convert_command, files_of, kill_until_done, same_bytes, write_sources

from robozarr.convert import convert
from robozarr.schemas.layout import Profile

PROFILES: tuple[Profile, ...] = ("raw", "fast", "lean", "compact")
WAYS = ("inline", "2 workers", "append")
MOST = 12
"""Kills in one turn: then the converter is left to end."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="kills of a converter at work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0, help="end after this time too; 0: no limit")
    options = parser.parse_args()
    rng, folder = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="kill-nightly-"))
    sources = write_sources(folder / "s")
    for profile in PROFILES:
        convert(sources, folder / f"{profile}.zarr", profile=profile, workers=0)
        convert(sources[:2], folder / f"{profile}-half.zarr", profile=profile, workers=0)
    n_killed: Counter[str] = Counter()
    began, n_turns = time.monotonic(), 0
    while n_killed.total() < options.kills and not 0 < options.minutes * 60 < time.monotonic() - began:
        way, profile, store = rng.choice(WAYS), rng.choice(PROFILES), folder / "turn.zarr"
        arguments: list[str | Path] = [*sources, "--store", store, "-w", "2" if way == "2 workers" else "0"]
        if way == "append":
            shutil.copytree(folder / f"{profile}-half.zarr", store)
            arguments += ["--append"]
        else:
            arguments += ["--profile", profile]
        longest_s = 2.5 if way == "2 workers" else 1.5
        n_killed[way] += kill_until_done(convert_command(*arguments), rng, longest_s, store.parent, most=rng.randint(1, MOST))
        n_turns += 1
        left = [name for name in files_of(store) if name.endswith("robozarr-tmp")]
        if left or not same_bytes(store, folder / f"{profile}.zarr"):
            print(
                f"turn {n_turns}, {way}, {profile}, seed {options.seed}: {store} is not {folder / profile}.zarr; left: {left}"
            )
            sys.exit(1)
        shutil.rmtree(store)
        print(f"\r{n_killed.total()} kills in {n_turns} turns", end="", file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    ways = ", ".join(f"{way} {n_killed[way]}" for way in WAYS)
    print(
        f"\n{n_killed.total()} kills ({ways}) in {n_turns} turns, {time.monotonic() - began:.0f} s: the same bytes every time"
    )


if __name__ == "__main__":
    main()

"""Change bytes of small HDF5 files at random and convert them: a clear error, or exactly what h5py reads; never anything else.

    python tests/support/fuzz_hdf5.py [--runs 10000] [--seed 0] [--minutes 0] [--keep FOLDER]

Every run changes a copy of one of several files (old and new format, contiguous, chunked and compressed) at a few places, most
of them in its metadata, and converts it in a child process with an end to its time and its memory. Where HDF5 itself crashes or
hangs, which takes the child down, a conversion with a worker has to report that file (``--deaths`` of them are tried). A file
over which anything else happens is kept, with what happened; then the exit code is 1. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import few_keys
import h5py
from fuzz_attempt import attempt

import synthetic
from robozarr.convert import convert, stages
from robozarr.convert.workers.child_process import ChildDied, ChildProcess
from robozarr.schemas.errors import SourceError

__all__ = ["Outcome", "fuzz"]

LIMIT_S: Final = 4.0
"""A run that takes longer hangs: these files take a tenth of a second. On a busy machine, ``--limit-s 60``."""
MARKS: Final = (b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"OCHK", b"FRHP", b"BTHD", b"FADB", b"FAHD", b"EAHD")
"""Where HDF5's structures begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of some runs."""

    kinds: Counter[str]
    """refused, exact, died."""
    wrong: list[str]
    """What must not be, each with the file that was kept."""


def write_sources(folder: Path) -> list[Path]:
    """The files that are changed: two demos of 3 and 2 steps, pictures of 8×8."""
    old = synthetic.write_libero(
        folder / "old_demo.hdf5", lengths=(3, 2), size=8, model_file_bytes=100, drop_keys=few_keys.OF_LIBERO
    )
    packed = synthetic.write_robomimic(
        folder / "packed.hdf5", lengths=(3, 2), size=8, next_obs=False, drop_keys=few_keys.OF_ROBOMIMIC
    )
    made = [old, packed]
    for name, source, options in (
        ("new_demo.hdf5", old, {}),
        ("newpacked_demo.hdf5", old, {"chunks": True, "compression": "gzip", "shuffle": True, "fletcher32": True}),
    ):
        with h5py.File(source) as there, h5py.File(folder / name, "w", libver="latest") as here:
            copy(there, here, options)
        made.append(folder / name)
    return made


def copy(there: Any, here: Any, options: dict[str, Any]) -> None:
    """A group, its attributes and all below."""
    for name, value in there.attrs.items():
        here.attrs[name] = value
    for name, item in there.items():
        if isinstance(item, h5py.Dataset):
            here.create_dataset(name, data=item[()], **(options if item.ndim else {}))
        else:
            copy(item, here.create_group(name), options)


@cache
def structures(data: bytes) -> list[int]:
    """Where HDF5's structures begin in a file."""
    return [at for mark in MARKS for at in range(len(data)) if data.startswith(mark, at)]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with some of them changed."""
    changed, marks = bytearray(data), structures(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        where = rng.random()
        if where < 0.2:
            at = rng.randrange(min(len(changed), 2048))
        elif where < 0.7 and marks:
            at = min(len(changed) - 1, rng.choice(marks) + rng.randrange(96))
        else:
            at = rng.randrange(len(changed))
        kind = rng.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.randrange(256)
        elif kind in (2, 3):
            n = rng.choice((1, 2, 4, 8))
            changed[at : at + n] = (b"\xff" if kind == 2 else b"\0") * len(changed[at : at + n])
        elif kind == 4:
            n = rng.randrange(1, 64)
            changed[at : at + n] = bytes(len(changed[at : at + n]))
        elif kind == 5:
            n, other = rng.randrange(1, 128), rng.randrange(len(changed))
            part = changed[other : other + n]
            changed[at : at + len(part)] = part[: len(changed) - at]
        elif rng.random() < 0.2:
            del changed[max(8, at) :]
    return bytes(changed)


def fuzz(
    runs: Iterator[int], seed: int, keep: Path, n_deaths: int, say: Callable[[str], None], limit_s: float = LIMIT_S
) -> Outcome:
    """Do numbered runs; files that something wrong happened over go to `keep`."""
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    shm = Path("/dev/shm")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # the child's
    with tempfile.TemporaryDirectory(prefix="fuzz-hdf5-", dir=shm if shm.is_dir() else None) as name, ChildProcess() as guard:
        folder = Path(name)
        sources = [path.read_bytes() for path in write_sources(folder)]
        for number in runs:
            rng = random.Random(f"{seed}/{number}")
            path, store = folder / "s" / f"mutant{number}_demo.hdf5", folder / "store.zarr"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(mutate(rng.choice(sources), rng))
            shutil.rmtree(store, ignore_errors=True)
            try:
                found = guard.call(attempt, str(path), str(store), limit_s=limit_s)
            except ChildDied as exc:
                found = "died"
                say(f"run {number}: {exc.how}")
                if kinds["died"] < n_deaths:
                    found = with_a_worker(path, folder / "worker.zarr", exc.how, limit_s)
            except Exception as exc:
                found = f"wrong: {exc!r}"
            kinds[found.partition(":")[0]] += 1
            if found.startswith("wrong"):
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep)
                wrong.append(f"{keep / path.name} (seed {seed}, run {number}): {found}")
                say(wrong[-1])
            path.unlink()
    return Outcome(kinds=kinds, wrong=wrong)


def with_a_worker(path: Path, store: Path, how: str, most_s: float) -> str:
    """A file that took the child down, converted as users do: it has to be named, whatever HDF5 does to the workers."""
    limit_s, stages.LIMIT_S = stages.LIMIT_S, most_s
    shutil.rmtree(store, ignore_errors=True)
    try:
        convert(path, store, workers=1, profile="raw")
    except SourceError as error:
        return "died" if all(problem.file == str(path) for problem in error.problems) else f"wrong: {error}"
    except Exception as exc:
        return f"wrong: {exc!r} after {how}"
    finally:
        stages.LIMIT_S = limit_s
    return "died"  # it happened after the conversion, or does not happen every time


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--first", type=int, default=0, help="number of the first run: to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds after which a run hangs")
    parser.add_argument("--minutes", type=float, default=0, help="end after this time too; 0: no limit")
    parser.add_argument("--deaths", type=int, default=10, help="files that crash or hang HDF5 and are converted with a worker")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-hdf5"), help="folder for files that something is wrong with")
    options = parser.parse_args()
    began = time.monotonic()

    def numbers() -> Iterator[int]:
        for number in range(options.first, options.first + options.runs):
            if 0 < options.minutes * 60 < time.monotonic() - began:
                return
            yield number
            if number % 100 == 99:
                print(f"\r{number + 1} runs", end="", file=sys.stderr, flush=True)

    outcome = fuzz(
        numbers(), options.seed, options.keep, options.deaths, lambda text: print(f"\n{text}", flush=True), options.limit_s
    )
    counts = ", ".join(f"{kind} {n}" for kind, n in sorted(outcome.kinds.items()))
    print(f"\n{outcome.kinds.total()} runs in {time.monotonic() - began:.0f} s: {counts}")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()

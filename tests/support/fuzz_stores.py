"""Change documents, tables and files of a small store at random, with right checksums: a clear error, or what was written.

    python tests/support/fuzz_stores.py [--runs 3000] [--seed 0] [--keep FOLDER]

Every changed store is loaded, looked at, appended to (as far as planning), and verified, in a child process that is ended when
it takes too long, under a memory limit. A store over which anything else happens than values that were written or an error of
robozarr is kept, and the exit code is 1. The same seed gives the same stores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import format_breaks
import format_writer
import numpy as np
from hostile import limited_attempt, seal

from robozarr.convert.workers.child_process import ChildDied, ChildProcess

__all__ = ["Outcome", "fuzz"]

LIMIT_S: Final = 60.0
"""A store that takes longer hangs: it takes a second. On a busy machine, ``--limit-s 600``."""
CALLS: Final = 500
"""Of one child process."""
NUMBERS: Final = (
    0, 1, -1, 2, 3, 7, 19, 20, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**64, 10**40, 10**400,
    -(2**31), -(2**62), 0.5, 1.0, 1e300,
)  # fmt: skip
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, "", "x", "NaN", "../..", "/etc", "a\\b", "offsets", "actions", "\0", "\ud800", "é" * 300, "uint8", "<f8",
    "O", "float64", "big", "little", "gzip", "zstd", "blosc", "bytes", [], {}, [0], [[]], {"name": "crc32c"}, ["a", "a"],
    [1] * 70,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of some runs."""

    kinds: Counter[str]
    """good, refused, crashes, hangs, wrong values, raw errors: one a look."""
    wrong: list[str]
    """What must not be, each with the store that was kept."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    """Every path to a part of a JSON value."""
    yield path
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, name))


def change_document(store: Path, rng: random.Random) -> str:
    """Another value somewhere in a document, a field more or less, or bytes that are none."""
    files = sorted(store.rglob("zarr.json"))
    file = rng.choice([store / "zarr.json", rng.choice(files), store / "steps" / rng.choice(list(KEYS)) / "zarr.json"])
    document = json.loads(file.read_text())
    for _ in range(rng.choice((1, 1, 2))):
        *above, last = rng.choice([path for path in places(document) if path])
        part = document
        for step in above:
            part = part[step]
        kind = rng.randrange(5)
        if kind == 0:
            del part[last]
        elif kind == 1 and isinstance(part, dict):
            part[rng.choice(("extra", "name", "shape", "identity"))] = rng.choice(VALUES)
        else:
            part[last] = rng.choice((*NUMBERS, *VALUES) if kind < 4 else (*NUMBERS,))
        if not part:
            break
    text = json.dumps(document).encode()
    kind = rng.randrange(40)
    if kind == 0:
        text = text.replace(b'"zarr_format"', b'"zarr_format": 2, "zarr_format"')
    elif kind == 1:
        text = b"[" * 10**5
    elif kind == 2:
        text = text[: rng.randrange(len(text))]
    elif kind == 3:
        text = rng.choice((b"\xff\xfe" + text.decode().encode("utf-16-le"), b"\xef\xbb\xbf" + text, text[:-1] + b"\xff"))
    elif kind == 4:
        text = text.replace(b": 3", b": NaN", 1)
    format_breaks.replace(file, text)
    return f"document {file.relative_to(store)}"


KEYS: Final = [key.name for key in format_writer.keys()]
TABLES: Final = [path for path in format_breaks.GOOD if not path.startswith("steps/")]


def change_table(store: Path, rng: random.Random) -> str:
    """Other numbers in a table, of any size, with right checksums."""
    counted = [path for path in TABLES if path.split("/")[-1] in ("offsets", "length", "start", "task", "source", "episode")]
    path = rng.choice([rng.choice(TABLES), rng.choice(counted)])
    values = format_breaks.GOOD[path][0].copy()
    if values.size == 0:
        return "nothing"
    flat = values.reshape(-1)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(flat.size)
        if values.dtype.kind == "f":
            flat[at] = rng.choice((np.nan, np.inf, -np.inf, 1e308, -1.0, 0.0))
        elif values.dtype == bool:
            flat.view(np.uint8)[at] = rng.choice((0, 1, 2, 255))
        else:
            info = np.iinfo(values.dtype)
            number = rng.choice((rng.choice([n for n in NUMBERS if isinstance(n, int)]), info.min, info.max, int(flat[at]) + 1))
            flat[at] = min(max(number, info.min), info.max)
    if path == "episodes/length" and rng.random() < 0.7:  # a sum that wraps to what it was
        values[0] = np.int64(rng.choice((2**62, 2**63 - 1, -5)))
        with np.errstate(over="ignore"):
            values[-1] = np.int64(19) - values[:-1].sum()
        if rng.random() < 0.5:
            with np.errstate(over="ignore"):
                format_breaks.write(store, "episodes/start", np.cumsum(values) - values)
    format_breaks.write(store, path, values)
    return f"table {path}"


def change_file(store: Path, rng: random.Random) -> str:
    """Something else in the place of a file or a folder."""
    there = [path for path in sorted(store.rglob("*")) if path.is_dir() or path.name == "zarr.json" or "c" in path.parts]
    path = rng.choice(there)
    kind = rng.choice(("fifo", "device", "link to nowhere", "link to itself", "linked away", "folder", "gone", "empty", "huge"))
    away = store.with_name("away")
    if kind == "linked away":
        shutil.rmtree(away) if away.is_dir() else away.unlink(missing_ok=True)
        shutil.move(path, away)
        path.symlink_to(away)
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to(rng.choice(("/dev/zero", "/dev/null")))
        elif kind.startswith("link"):
            path.symlink_to("nowhere" if kind.endswith("nowhere") else path)
        elif kind == "folder":
            path.mkdir()
        elif kind in ("empty", "huge"):
            path.touch()
            os.truncate(path, 2**40 if kind == "huge" else 0)
    return f"{kind}: {path.relative_to(store)}"


def change_size(store: Path, rng: random.Random) -> str:
    """An array that claims other sizes, all in agreement with each other."""
    path = rng.choice(list(format_breaks.GOOD))
    file = store / path / "zarr.json"
    document = json.loads(file.read_text())
    sharding = document["codecs"][0]["configuration"]
    n = rng.choice((1, 2, 2**10, 2**20, 2**24, 2**30, 2**31, 2**40, 2**53))
    kind = rng.randrange(3)
    if kind < 2:
        document["chunk_grid"]["configuration"]["chunk_shape"][0] = n
        sharding["chunk_shape"][0] = n if kind else 1
    else:
        n_steps = json.loads((store / "zarr.json").read_text())
        n_steps["attributes"]["robozarr"]["n_steps"] = n
        format_breaks.replace(store / "zarr.json", json.dumps(n_steps).encode())
        for other in sorted(store.rglob("zarr.json")):
            claims = json.loads(other.read_text())
            if claims["node_type"] == "array" and claims["dimension_names"][0] in ("step", "step_edge"):
                claims["shape"][0] = n + (claims["dimension_names"][0] == "step_edge")
                format_breaks.replace(other, json.dumps(claims).encode())
        return f"n_steps {n}"
    format_breaks.replace(file, json.dumps(document).encode())
    return f"sizes of {path}: {n}"


CHANGES: Final = (change_document, change_document, change_table, change_table, change_file, change_size)


def fuzz(runs: Iterable[int], seed: int, keep: Path, say: Callable[[str], None], limit_s: float = LIMIT_S) -> Outcome:
    """Do numbered runs; stores that something wrong happened over go to `keep`."""
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])  # the child's
    shm = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-stores-", dir=shm if shm.is_dir() else None) as name,
        ChildProcess() as guard,
    ):
        good, store = Path(name) / "good.zarr", Path(name) / "store.zarr"
        format_writer.write_by_hand(good, "fast")
        said = guard.call(limited_attempt, str(good), limit_s=10 * limit_s)
        assert set(said.values()) == {""}, said
        for done, number in enumerate(runs, 1):
            if done % CALLS == 0:
                guard.close()  # memory that a fresh process has
            rng = random.Random(f"{seed}/{number}")
            shutil.rmtree(store, ignore_errors=True)
            format_breaks.linked(good, store)
            change = rng.choice(CHANGES)
            what = change(store, rng)
            if change is not change_file and rng.random() < 0.9:
                seal(store)
            try:
                found = guard.call(limited_attempt, str(store), limit_s=limit_s)
            except ChildDied as exc:
                found = {"all": f"hangs: {exc.how}" if exc.how.startswith("no answer") else f"crashes: {exc.how}"}
            kinds.update(text.partition(":")[0] or "good" for text in found.values())
            if bad := {look: text for look, text in found.items() if text and not text.startswith("refused")}:
                kept = keep / f"store{number}.zarr"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(store, kept, symlinks=True, ignore=not_regular)
                wrong.append(f"{kept} (seed {seed}, run {number}): {what}: {bad}")
                say(wrong[-1])
            if number % 100 == 99:
                print(f"\r{number + 1} stores", end="", file=sys.stderr, flush=True)
    return Outcome(kinds=kinds, wrong=wrong)


def not_regular(folder: str, names: list[str]) -> list[str]:
    """What of a folder cannot be copied."""
    paths = [Path(folder) / name for name in names]
    return [
        path.name
        for path in paths
        if not (path.is_symlink() or path.is_dir() or path.is_file()) or path.lstat().st_size > 2**30
    ]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0, help="number of the first run: to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-stores"), help="folder for stores that something is wrong with")
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, help="seconds after which a store hangs")
    options = parser.parse_args()
    began, runs = time.monotonic(), range(options.first, options.first + options.runs)
    outcome = fuzz(runs, options.seed, options.keep, lambda text: print(text, flush=True), options.limit_s)
    counts = {kind: 0 for kind in ("crashes", "hangs", "wrong values", "raw error")} | outcome.kinds
    words = ", ".join(f"{kind} {n}" for kind, n in counts.items())
    print(f"stores: {options.runs}, {outcome.kinds.total()} looks in {time.monotonic() - began:.0f} s: {words}")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()

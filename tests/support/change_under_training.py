"""A store that is replaced, appended to, cut and removed while it is trained from: windows of the first store, or an error.

    python tests/support/change_under_training.py [--megabytes 1000] [--scratch FOLDER] [--only folder|bucket]

Each way of training meets each change, made by another process while batches are read, in a folder and in a bucket of a
service that speaks S3. It prints how many windows were served, how many of them were not those of the store that was opened
(must be 0), and what was said: nothing, where the files that were open, or the memory, held all. The exit code is 1 if a window
was wrong, or if workers that opened a changed store said nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import remote
import torch
from torch.utils.data import DataLoader

import robozarr as rz
from robozarr.convert import convert
from robozarr.schemas.errors import RoboZarrError
from robozarr.store.concurrent import run_concurrently
from robozarr.store.locate import place_of
from robozarr.store.place import Place

__all__ = ["CHANGES", "WAYS", "Outcome", "Stores", "made_stores", "try_out"]

SPEC: Final[dict[str, Any]] = {"agentview_rgb": [-1, 0], "actions": range(16)}
BATCH: Final = 64
DEMOS, STEPS = 8, 60
"""Of a source file."""
PAUSE_S: Final = 0.05
"""Between batches from the second epoch on, as of a model that is trained: else most of the machine goes into reading."""
Sums = dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """What a run is made of."""

    sources: Path
    """Of the store that is trained from."""
    other: Path
    """Of the one that comes in its place, of the same shape."""
    store: Path
    """Of `sources`; it is copied for each try."""
    windows: Sums
    """What its windows are."""
    others: Sums
    """What those of a store of `other` are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one way of training that met one change."""

    place: str
    change: str
    way: str
    served: int
    """Windows, those of all epochs."""
    wrong: int
    """Windows that are not those of the store that was opened, or, of who opens it afterwards, of the one that is there."""
    said: str

    @property
    def right(self) -> bool:
        """No wrong window; and an error where an epoch after the change begins with new processes, which open the store."""
        return self.wrong == 0 and (self.way != "2 workers" or self.said != "nothing")


def write_source(path: Path, seed: int, size: int) -> None:
    """A file of demos whose pictures are all different, quickly made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (STEPS + DEMOS, size, size, 3), np.uint8)
    with h5py.File(path, "w") as file:
        for number in range(DEMOS):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = rng.normal(size=(STEPS, 7))
            demo["states"] = rng.normal(size=(STEPS, 9))
            demo["obs/joint_states"] = rng.normal(size=(STEPS, 7))
            demo["obs/agentview_rgb"] = noise[number : number + STEPS] + np.uint8(7 * number)


def made_stores(folder: Path, megabytes: float, size: int) -> Stores:
    """Two sets of sources of so many megabytes of pictures, and a store of the first."""
    n_files = max(1, round(megabytes * 1e6 / (DEMOS * STEPS * size * size * 3)))
    sums = []
    for name, first in (("sources", 0), ("other", 10**6)):
        for number in range(n_files):
            write_source(folder / name / f"{name}{number}_demo.hdf5", first + number, size)
        convert(folder / name, folder / f"{name}.zarr", profile="raw", workers=1 if megabytes > 100 else 0)
        sums.append(sums_of(rz.WindowLoader(dataset_of(place_of(folder / f"{name}.zarr")), 256, shuffle=False)))
    shutil.rmtree(folder / "other.zarr")
    names = (folder / "sources", folder / "other", folder / "sources.zarr")
    return Stores(sources=names[0], other=names[1], store=names[2], windows=sums[0], others=sums[1])


def sums_of(batches: Iterable[Any]) -> Sums:
    """A checksum of each window, by episode and step."""
    return {where: checksum for batch in batches for where, checksum in windows_of(batch)}


def windows_of(batch: Any) -> Iterator[tuple[tuple[int, int], int]]:
    """Where each window of a batch is from, and its checksum."""
    arrays = [batch[name].numpy() for name in SPEC]
    for i, where in enumerate(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)):
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(array[i], checksum)
        yield where, checksum


def dataset_of(place: Place, **options: Any) -> rz.WindowDataset:
    """The windows of a store."""
    return rz.WindowDataset(rz.open_store(place, **options), rz.WindowSpec(SPEC))


def workers(place: Place, cache: Path) -> Callable[[], Iterable[Any]]:
    """Two worker processes of a DataLoader, new ones each epoch."""
    dataset = dataset_of(place)
    method = "fork" if place.folder is not None else "forkserver"
    options: dict[str, Any] = {"num_workers": 2, "collate_fn": dataset.collate, "multiprocessing_context": method}
    return lambda: DataLoader(dataset, BATCH, shuffle=True, **options)


def threads(place: Place, cache: Path) -> Callable[[], Iterable[Any]]:
    """Threads of this process."""
    loader = rz.WindowLoader(dataset_of(place), BATCH, seed=1)
    return lambda: loader


def in_memory(place: Place, cache: Path) -> Callable[[], Iterable[Any]]:
    """Everything is read before the first batch."""
    loader = rz.WindowLoader(dataset_of(place), BATCH, seed=1, cache="host")
    return lambda: loader


def cached(place: Place, cache: Path) -> Callable[[], Iterable[Any]]:
    """Threads, and a folder that keeps what comes from a bucket."""
    loader = rz.WindowLoader(dataset_of(place, cache_dir=cache), BATCH, seed=1)
    return lambda: loader


WAYS: Final[dict[str, Callable[[Place, Path], Callable[[], Iterable[Any]]]]] = {
    "2 workers": workers, "threads": threads, "cache=host": in_memory, "cache_dir": cached,
}  # fmt: skip


def command(stores: Stores, place: Place, *options: str | Path) -> None:
    """``robozarr convert`` in a process of its own."""
    endpoint = [] if place.folder is not None else ["--endpoint-url", place.endpoint_url]  # type: ignore[attr-defined]
    arguments = [sys.executable, "-m", "robozarr", "convert", *options, "--store", place.url, *endpoint, "-w", "0"]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)


def cut(stores: Stores, place: Place) -> None:
    """Every shard ends in its middle: of a folder in place, so that open files see it too."""
    shards = [name for name in place.names() if "/c/" in name]
    if place.folder is not None:
        for name in shards:
            os.truncate(place.folder / name, (place.folder / name).stat().st_size // 2)
    else:
        run_concurrently(lambda name: place.write(name, [(stores.store / name).read_bytes()[:-1000]]), shards)


def remove(stores: Stores, place: Place) -> None:
    """Nothing is left."""
    place.remove(place.names())


CHANGES: Final[dict[str, Callable[[Stores, Place], None]]] = {
    "replaced": lambda stores, place: command(stores, place, stores.other, "--overwrite", "--profile", "raw"),
    "appended to": lambda stores, place: command(stores, place, stores.sources, stores.other, "--append"),
    "cut": cut,
    "removed": remove,
}


def try_out(stores: Stores, place: Place, change: str, way: str, cache: Path) -> Outcome:
    """Train one way, and change the store after two batches; the epoch after the change is the last."""
    restore(stores, place)
    wrong, served, said = 0, 0, "nothing"
    failed: list[BaseException] = []

    def act() -> None:
        try:
            CHANGES[change](stores, place)
        except BaseException as exc:
            failed.append(exc)

    changing = threading.Thread(target=act)
    try:
        batches = WAYS[way](place, cache)
        for epoch in count():
            over = epoch > 0 and not changing.is_alive()
            for number, batch in enumerate(batches()):
                for where, checksum in windows_of(batch):
                    served, wrong = served + 1, wrong + (stores.windows[where] != checksum)
                if (epoch, number) == (0, 1):
                    changing.start()
                elif epoch > 0 and not over:
                    time.sleep(PAUSE_S)
            if over:
                break
    except RoboZarrError as exc:
        said = f"{type(exc).__name__}: {str(exc).splitlines()[-1]}"
    changing.join()
    if failed:
        raise failed[0]
    wrong += n_wrong_afterwards(stores, place, change, cache if way == "cache_dir" else None)
    kind = "folder" if place.folder is not None else "bucket"
    return Outcome(place=kind, change=change, way=way, served=served, wrong=wrong, said=said)


def n_wrong_afterwards(stores: Stores, place: Place, change: str, cache: Path | None) -> int:
    """Windows that whoever opens the store after a conversion is served, and that are not those of what it holds now."""
    if change not in ("replaced", "appended to"):
        return 0
    expected = stores.others if change == "replaced" else stores.windows
    dataset = dataset_of(place, **({} if cache is None else {"cache_dir": cache}))
    found = dict(windows_of(dataset.read(range(0, len(dataset), max(1, len(dataset) // 200)))))
    return sum(expected.get(where, checksum) != checksum for where, checksum in found.items())


def restore(stores: Stores, place: Place) -> None:
    """The first store, as it was made; in a folder copied, as some changes are made in place."""
    place.remove(place.names())
    if place.folder is not None:
        shutil.copytree(stores.store, place.folder, dirs_exist_ok=True)
        return
    names = place_of(stores.store).names()
    run_concurrently(
        lambda name: place.write(name, [(stores.store / name).read_bytes()]),
        sorted(names, key=lambda name: name == "zarr.json"),
    )


@contextmanager
def bucket() -> Iterator[Place]:
    """A place in a bucket; the environment holds its credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(remote.CREDENTIALS)
    with remote.served() as url:
        yield remote.new_place(url)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=float, default=1000, help="of pictures in the store")
    parser.add_argument("--picture", type=int, default=128, help="pixels of a picture's side")
    parser.add_argument("--scratch", type=Path, help="folder for sources and stores [default: the system's]")
    parser.add_argument("--only", choices=("folder", "bucket"), help="one kind of place; default: both")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="change-", dir=options.scratch) as name, ExitStack() as stack:
        folder = Path(name)
        began = time.monotonic()
        stores = made_stores(folder, options.megabytes, options.picture)
        size = sum(path.stat().st_size for path in stores.store.rglob("*") if path.is_file())
        print(f"a store of {size / 1e6:.0f} MB, {len(stores.windows)} windows, made in {time.monotonic() - began:.0f} s")
        places: dict[str, Place] = {}
        if options.only != "bucket":
            places["folder"] = place_of(folder / "store.zarr")
        if options.only != "folder":
            places["bucket"] = stack.enter_context(bucket())
        for kind, place in places.items():
            for change in CHANGES:
                for way in [way for way in WAYS if way != "cache_dir" or kind == "bucket"]:
                    began = time.monotonic()
                    cache = folder / f"cache-{change}"
                    found = try_out(stores, place, change, way, cache)
                    shutil.rmtree(cache, ignore_errors=True)
                    bad += not found.right
                    words = found.said.replace(place.url, "STORE").replace(str(folder), "…")
                    print(
                        f"{kind:6}  {change:11}  {way:10}  served {found.served:6}  wrong {found.wrong}  "
                        f"{time.monotonic() - began:4.0f} s  said: {words[:150]}",
                        flush=True,
                    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()

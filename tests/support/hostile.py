"""Everything that looks into a store, tried on one that nobody should believe: values that were written, or a clear error.

`attempt` is for a store that ``format_writer`` wrote and somebody changed since. `fuzz_stores` calls it in a child process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

import format_writer
import numpy as np
from memory_limit import limit_memory
from numpy.typing import NDArray

import robozarr as rz
from robozarr.convert import verify
from robozarr.convert.verifying.base import read_base
from robozarr.schemas.errors import RoboZarrError
from robozarr.store.locate import place_of
from robozarr.store.summary import summarise
from robozarr.view.coverage import measure_coverage
from robozarr.view.rows import read_episode

__all__ = ["LOOKS", "attempt", "limited_attempt", "seal"]

SPEC: Final = rz.WindowSpec(
    {"agentview_rgb": [0, 1], "agentview_depth": [0], "actions": [0, 2], "joint_states": [0], "ee_matrix": [0], "dones": [0]}
)


@cache
def truth() -> dict[str, NDArray[Any]]:
    """Every key's steps."""
    return {key.name: key.steps for key in format_writer.keys()}


def windows(path: str) -> None:
    """Load every window; AssertionError if a value is not the one of its row."""
    dataset = rz.WindowDataset(rz.open_store(path), SPEC)
    episodes = dataset.store.episodes
    batch = dataset.read(range(len(dataset)))
    rows = episodes.start[batch["episode"].numpy()] + batch["step"].numpy()
    for name, values in truth().items():
        got = batch[name].numpy()[:, 0]
        assert np.array_equal(got, values[rows]), f"other values of {name}"


def tables(path: str) -> None:
    """Look at every table."""
    store = rz.open_store(path)
    _ = store.index, store.tasks, store.episodes
    for name in truth():
        store.stats(name), store.episode_stats(name), store.checksums(name)
        if store.keys[name].frame:
            store.histogram(name)
    for episode in range(store.n_episodes):
        store.model_file(episode), store.init_state(episode), store.episode_attributes(episode)
    for source in range(len(store.metadata.sources)):
        store.source_attributes(source)
    ragged = store.ragged("states")
    for row in range(len(ragged)):
        assert ragged[row].dtype == np.float64, "another type of states"


def rows(path: str) -> None:
    """Look at one episode as a viewer does."""
    store = rz.open_store(path)
    for name, values in truth().items():
        start, stop = int(store.episodes.start[1]), int(store.episodes.start[1] + store.episodes.length[1])
        assert np.array_equal(read_episode(store, name, 1), values[start:stop]), f"other values of {name}"


def plain(path: str) -> None:
    """Slice by way of zarr, once every document is believed."""
    store = rz.open_store(path)
    for name, values in truth().items():
        array = store.array(name)
        assert array.shape == (store.n_steps, *values.shape[1:]), "another shape"
        assert np.array_equal(np.asarray(array[1:5]), values[: store.n_steps][1:5]), f"other values of {name}"
    summarise(store)


LOOKS: Final[dict[str, Callable[[str], Any]]] = {
    "windows": windows,
    "tables": tables,
    "rows": rows,
    "plain": plain,
    "coverage": lambda path: measure_coverage(rz.open_store(path), chunk=3),
    "append": lambda path: read_base(place_of(Path(path))),
    "verify": lambda path: verify(path, workers=0),
}


def attempt(path: str) -> dict[str, str]:
    """What comes of each look: "" where all is well, "refused: …", "wrong values: …", "raw error: …"."""
    found = {}
    for name, look in LOOKS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                report = look(path)
            violations = getattr(report, "violations", ())
            found[name] = f"refused: {violations[0]}" if violations else ""
        except RoboZarrError as exc:
            found[name] = f"refused: {exc}" if len(str(exc)) < 3000 and str(exc).isprintable() else f"raw error: words {exc!r}"
        except AssertionError as exc:
            found[name] = f"wrong values: {exc!r}"
        except (Exception, SystemError) as exc:
            found[name] = f"raw error: {exc!r}"
    if found["verify"] == "":  # what verify calls good is good for everybody, though it may lack a key
        refused = {
            name: said for name, said in found.items() if said.startswith("refused") and "a key of the store" not in said
        }
        found |= {name: f"raw error: verify says good, {said}" for name, said in refused.items() if "no key" not in said}
    return found


def seal(path: Path) -> None:
    """Bind a changed store's tables and documents anew (M23), so that what was changed is met; not where it is too broken."""
    with suppress(LookupError, ValueError, TypeError, OSError, RecursionError, AttributeError, OverflowError, MemoryError):
        format_writer.seal(path)


def limited_attempt(path: str) -> dict[str, str]:
    """The same, with an end to memory."""
    limit_memory()
    return attempt(path)

"""Options are checked where they are given, and the text lists the choices; what stands naturally for something is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Subset, random_split

import robozarr as rz
from robozarr.loader.stream import PART_BYTES
from robozarr.schemas.errors import WindowError

SPEC = {"joint_states": [0], "actions": range(4)}


@pytest.fixture(scope="module")
def store(sample_store: Path) -> rz.Store:
    return rz.open_store(sample_store)


@pytest.fixture(scope="module")
def dataset(store: rz.Store) -> rz.WindowDataset:
    return rz.WindowDataset(store, rz.WindowSpec(SPEC))


Make = Callable[[rz.WindowDataset], Any]
SCALINGS = "'mean_std', 'min_max' or 'q01_q99'"
REFUSED: dict[str, tuple[Make, str]] = {
    "minmax": (lambda ds: rz.Normalise(keys={"actions": "minmax"}), f"actions: {SCALINGS}; got 'minmax'"),  # type: ignore[dict-item]
    "another case": (lambda ds: rz.Normalise(keys={"actions": "Mean_Std"}), f"{SCALINGS}; got 'Mean_Std'"),  # type: ignore[dict-item]
    "no scaling": (lambda ds: rz.Normalise(keys={"actions": None}), f"{SCALINGS}; got None"),  # type: ignore[dict-item]
    "unhashable": (lambda ds: rz.Normalise(keys={"actions": ["min_max"]}), "got ['min_max']"),  # type: ignore[dict-item]
    "a list of keys": (lambda ds: rz.Normalise(keys=["actions"]), "a mapping from a key"),  # type: ignore[arg-type]
    "scope": (lambda ds: rz.Normalise(scope="window"), "scope: 'store' or 'windows'; got 'window'"),  # type: ignore[arg-type]
    "normalise dtype": (lambda ds: rz.Normalise(dtype="float32"), "normalise · dtype: torch.float32"),  # type: ignore[arg-type]
    "integers": (lambda ds: rz.Normalise(dtype=torch.int64), "normalise · dtype: torch.float32"),
    "images dtype": (lambda ds: rz.Images(dtype="float16"), "torch.float64, or None for as stored; got 'float16'"),  # type: ignore[arg-type]
    "numpy's dtype": (lambda ds: rz.Images(dtype=np.float32), "images · dtype: torch.float32"),  # type: ignore[arg-type]
    "upright": (lambda ds: rz.Images(upright="yes"), "images · upright: True or False; got 'yes'"),  # type: ignore[arg-type]
    "images=True": (lambda ds: rz.WindowLoader(ds, 4, images=True), "pass images=rz.Images()"),  # type: ignore[arg-type]
    "a dict to normalise": (lambda ds: rz.WindowLoader(ds, 4, normalise={"actions": "min_max"}), "rz.Normalise(keys="),  # type: ignore[arg-type]
    "a key that is not there": (
        lambda ds: next(iter(rz.WindowLoader(ds, 4, normalise=rz.Normalise(keys={"action": "min_max"})))),
        "got action",
    ),
    "transform": (lambda ds: rz.WindowLoader(ds, 4, transform=True), "transform: a function of a batch; got True"),  # type: ignore[arg-type]
    "cache": (lambda ds: rz.WindowLoader(ds, 4, cache="ram"), '"device", "host" or None; got \'ram\''),  # type: ignore[arg-type]
    "device": (lambda ds: rz.WindowLoader(ds, 4, device="gpu"), '"cpu", "cuda", "cuda:1", …; got \'gpu\''),
    "threads": (lambda ds: rz.WindowLoader(ds, 4, threads=0), "threads: a whole number, 1 or more, or None; got 0"),
    "prefetch": (lambda ds: rz.WindowLoader(ds, 4, prefetch=1.5), "prefetch: a whole number"),  # type: ignore[arg-type]
    "hold_bytes": (lambda ds: rz.WindowLoader(ds, 4, hold_bytes=-1), "hold_bytes: a whole number, 0 or more"),
    "cache_bytes": (lambda ds: rz.WindowLoader(ds, 4, cache_bytes="1GB"), "cache_bytes: a whole number"),  # type: ignore[arg-type]
    "a store for a dataset": (lambda ds: rz.WindowLoader(ds.store, 4), "a WindowDataset, or a list of them; got Store"),  # type: ignore[arg-type]
    "a path for a dataset": (lambda ds: rz.WindowLoader("x.zarr", 4), "a WindowDataset, or a list of them; got str"),  # type: ignore[arg-type]
    "numbers": (lambda ds: rz.WindowLoader([1, 2], 4), "a WindowDataset, or a list of them; got int"),  # type: ignore[list-item]
    "a list for a store": (lambda ds: rz.WindowDataset([ds.store], ds.spec), "a Store, or its path; got list"),  # type: ignore[arg-type]
    "a list for a window": (lambda ds: rz.WindowDataset(ds.store, ["actions"]), "a WindowSpec, or offsets by key; got"),  # type: ignore[arg-type]
    "a slice": (lambda ds: ds[0:3], "one number; got slice(0, 3, None) → dataset.read([0, 1, 2])"),  # type: ignore[index]
    "a list of windows": (lambda ds: ds[[0, 1]], "one number; got [0, 1] → dataset.read([0, 1, 2])"),  # type: ignore[index]
    "a float": (lambda ds: ds[1.5], "one number; got 1.5"),  # type: ignore[index]
    "a name": (lambda ds: ds["actions"], "one number; got 'actions'"),  # type: ignore[index]
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, dataset: rz.WindowDataset) -> None:
    """lerobot#821, robots#1204, and a newcomer's first walk."""
    make, text = REFUSED[case]
    with pytest.raises(WindowError, match=re.escape(text)):
        make(dataset)


def test_paths_and_mappings_are_taken(sample_store: Path, dataset: rz.WindowDataset) -> None:
    for given in (sample_store, str(sample_store)):
        made = rz.WindowDataset(given, SPEC)
        assert len(made) == len(dataset)
        assert torch.equal(made[3]["actions"], dataset[3]["actions"])
    for index in (np.int64(3), torch.tensor(3), 3 - len(dataset)):
        assert torch.equal(dataset[index]["actions"], dataset[3]["actions"])  # type: ignore[index]


# lists of windows


def served(loader: rz.WindowLoader, of: rz.WindowDataset) -> list[int]:
    """Windows of a dataset that a loader serves, by number."""
    anchors = of.table.anchors(np.arange(len(of)))
    number = {at: window for window, at in enumerate(zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True))}
    out = []
    for batch in loader:
        windows = [number[at] for at in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)]
        assert torch.equal(batch["actions"], of.read(windows)["actions"])
        out += windows
    return out


def test_subset_random_split_and_concat(dataset: rz.WindowDataset) -> None:
    """They are lists of windows: each of them once, and no other."""
    train, held_out = random_split(dataset, [0.7, 0.3], generator=torch.Generator().manual_seed(1))
    for part in (train, held_out):
        assert sorted(served(rz.WindowLoader(part, 8), dataset)) == sorted(part.indices)  # type: ignore[arg-type]
    nested = Subset(Subset(dataset, [9, 3, 30, 5]), [0, 2])  # positions in the inner one, whose order is its own
    assert sorted(served(rz.WindowLoader(nested, 8), dataset)) == [9, 30]  # type: ignore[arg-type]
    assert served(rz.WindowLoader(Subset(dataset, range(5, 20, 3)), 2, shuffle=False), dataset) == [5, 8, 11, 14, 17]  # type: ignore[arg-type]
    both: ConcatDataset[Any] = ConcatDataset([dataset, Subset(dataset, [1, 2])])
    assert sorted(served(rz.WindowLoader(both, 8), dataset)) == sorted([*range(len(dataset)), 1, 2])  # type: ignore[arg-type]
    of_both = Subset(both, [0, len(dataset) + 1, 7])
    assert sorted(served(rz.WindowLoader(of_both, 8), dataset)) == [0, 2, 7]  # type: ignore[arg-type]
    assert sorted(served(rz.WindowLoader([train, held_out], 8), dataset)) == list(range(len(dataset)))  # type: ignore[list-item]
    small = dataset.only(np.array([4, 40]))
    assert len(small) == 2
    assert small.windows.reader is dataset.windows.reader  # what lies in memory is shared
    assert small.left_out[-1].reason == "subset"
    assert len(dataset) == 44


def test_orders_and_repeats_that_a_loader_does_not_keep(dataset: rz.WindowDataset) -> None:
    cases: list[tuple[Any, str]] = [
        (Subset(dataset, [5, 3]), "in the store's order; got a Subset in another one → pass Subset(dataset, sorted("),
        (ConcatDataset([dataset, dataset]), "got a ConcatDataset in another one"),
        (Subset(dataset, [3, 3]), "each window once; got some twice"),
    ]
    for given, text in cases:
        with pytest.raises(WindowError, match=re.escape(text)):
            rz.WindowLoader(given, 4, shuffle=False)


def test_a_batch_size_stays(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 4)
    with pytest.raises(AttributeError, match="batch_size"):
        loader.batch_size = 8  # type: ignore[misc]
    batches = iter(loader)
    next(batches)
    del batches
    loader.schedule.batch_size = 8  # batches that are larger than their memory
    with pytest.raises(WindowError, match="has room for 4 windows; got 8"):
        list(loader)


@pytest.mark.parametrize(
    ("bytes_of_batch", "threads", "parts"), [(0.9, 4, 1), (1.9, 4, 1), (2.1, 4, 2), (9.0, 4, 4), (9.0, 1, 1)]
)
def test_threads_share_a_batch_by_its_bytes(store: rz.Store, bytes_of_batch: float, threads: int, parts: int) -> None:
    """Of small windows or large ones; each has at least ``PART_BYTES``."""
    for offsets in (range(1), range(7)):
        dataset = rz.WindowDataset(store, rz.WindowSpec({"agentview_rgb": offsets, "actions": range(4)}))
        window_bytes = sum(field.window_bytes for field in dataset.windows.fields)
        loader = rz.WindowLoader(dataset, round(bytes_of_batch * PART_BYTES / window_bytes), threads=threads)
        assert loader._parts == parts
        assert loader._ahead == -(-threads // parts) + 1

"""Which windows and how often, through the loaders: filters, splits, weights, mixtures; many datasets of one store as one."""

from __future__ import annotations

import copy
import gc
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_store import assert_same, gather
from torch.utils.data import DataLoader

import robozarr as rz
from robozarr.convert import convert
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

SPEC = rz.WindowSpec({"agentview_rgb": [-1, 0], "joint_states": [0], "actions": range(4)})
LENGTHS = {"open_it": (11, 3, 7), "close_it": (9, 8), "push_it": (5, 6, 4, 9)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """62 steps in 9 episodes of 3 tasks."""
    folder = tmp_path_factory.mktemp("which")
    for seed, (name, lengths) in enumerate(LENGTHS.items()):
        write_libero(folder / f"s/{name}_demo.hdf5", lengths=lengths, size=8, seed=seed, instruction=f"please {name}")
    convert(folder / "s", folder / "a.zarr", workers=0)
    return folder / "a.zarr"


@pytest.fixture(scope="module")
def store(path: Path) -> rz.Store:
    return rz.open_store(path)


@pytest.fixture(scope="module")
def dataset(store: rz.Store) -> rz.WindowDataset:
    return rz.WindowDataset(store, SPEC)


def anchors(dataset: rz.WindowDataset) -> list[tuple[int, int]]:
    found = dataset.table.anchors(np.arange(len(dataset)))
    return list(zip(found.episode.tolist(), found.step.tolist(), strict=True))


def served(batches: Any) -> list[tuple[int, int]]:
    return [at for batch in batches for at in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)]


# --- which ---


def test_filters(store: rz.Store, dataset: rz.WindowDataset) -> None:
    everything = anchors(dataset)
    length = store.episodes.length
    assert anchors(rz.WindowDataset(store, SPEC, stride=3)) == [(e, t) for e, t in everything if t % 3 == 0]
    whole = [(e, t) for e, t in everything if 1 <= t <= length[e] - 4]
    assert anchors(rz.WindowDataset(store, SPEC, padded=False)) == whole
    assert anchors(rz.WindowDataset(store, SPEC, max_padding=0)) == whole
    some = rz.WindowDataset(store, SPEC, max_padding={"actions": 1})
    assert anchors(some) == [(e, t) for e, t in everything if t <= length[e] - 3]
    assert str(some.left_out[0]) == f"{len(everything) - len(some)} by padding"
    mask = np.zeros(store.n_steps, bool)
    mask[[2, 5, 40]] = True
    masked = rz.WindowDataset(store, SPEC, windows=mask)
    assert (masked.table.anchors(np.arange(3)).row).tolist() == [2, 5, 40]
    numbered = rz.WindowDataset(store, SPEC, stride=3, windows=[4, 0])
    assert anchors(numbered) == [anchors(rz.WindowDataset(store, SPEC, stride=3))[i] for i in (0, 4)]
    name = f"{store.metadata.sources[store.episodes.source[1]].name}/{store.episodes.demo[1]}"
    ranged = rz.WindowDataset(store, SPEC, windows={0: [(0, 2)], name: [(1, 3)]})
    assert anchors(ranged) == [(0, 0), (0, 1), (1, 1), (1, 2)]


def test_they_are_served_as_they_are(store: rz.Store) -> None:
    dataset = rz.WindowDataset(store, SPEC, stride=2, max_padding=2, tasks=["please open_it", "please push_it"])
    assert_same(gather(rz.WindowLoader(dataset, 4, seed=1)), gather([dataset.read(range(len(dataset)))]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"padded": False, "max_padding": 3}, "False allows no padding, and max_padding=3 does"),
        ({"padded": 0}, "padded: True or False"),
        ({"windows": [0, 0]}, "each window once"),
        ({"windows": [62]}, r"integers in \[0, 62\)"),
        ({"windows": []}, "no window is left.*62 by windows"),
        ({"windows": np.zeros(62, bool)}, "62 by windows"),
        ({"windows": np.ones(61, bool)}, "one bool for each of the store's 62 steps"),
        ({"windows": [0.5]}, "numbers of windows, a mask"),
        ({"windows": {"nobody": [(0, 1)]}}, "no episode has this name"),
        ({"max_padding": 0, "windows": {1: [(0, 1)]}}, r"no window is left.* by padding, \d+ by windows"),
    ],
)
def test_what_is_no_selection(store: rz.Store, options: dict[str, Any], says: str) -> None:
    with pytest.raises(WindowError, match=says):
        rz.WindowDataset(store, SPEC, **options)


def test_split(store: rz.Store, dataset: rz.WindowDataset) -> None:
    train, held_out = dataset.split(0.67, seed=3)
    assert not set(train.episodes.tolist()) & set(held_out.episodes.tolist())
    assert sorted(anchors(train) + anchors(held_out)) == anchors(dataset)
    task = store.episodes.task
    assert np.bincount(task[held_out.episodes], minlength=3).tolist() in ([1, 1, 1], [1, 0, 2], [1, 1, 1])
    assert [str(entry) for entry in train.left_out] == [f"{len(held_out)} by split 0.67"]
    assert train.windows.reader is dataset.windows.reader
    again = rz.WindowDataset(store, SPEC, stride=2).split(0.67, seed=3)
    assert again[0].episodes.tolist() == train.episodes.tolist()  # of other windows of the same episodes: the same parts
    tasks = dataset.split(0.6, by="task", seed=1)
    assert not set(task[tasks[0].episodes].tolist()) & set(task[tasks[1].episodes].tolist())
    first, rest = dataset.split(0.5)
    assert len(rest.split(0.5)) == 2
    for episode in range(store.n_episodes):
        steps = [t for e, t in anchors(train) if e == episode]
        assert [anchors(train)[w] for w in train.windows_of(episode)] == [(episode, t) for t in steps]
    with pytest.raises(WindowError, match="by: 'episode' or 'task'; got 'window'"):
        dataset.split(0.9, by="window")  # type: ignore[arg-type]
    with pytest.raises(WindowError, match="at least two episodes"):
        rz.WindowDataset(store, SPEC, episodes=[0]).split(0.9)
    with pytest.raises(WindowError, match="windows_of"):
        dataset.windows_of(9)
    assert first.episodes.dtype == np.int64


# --- how often ---


def test_balance_by_task(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 8, balance="task", seed=1)
    counts = sum(np.bincount(np.concatenate([batch["task"] for batch in loader]), minlength=3) for _ in range(6))
    assert np.abs(counts - 6 * 62 / 3).max() < 3
    share = loader.expected_coverage()
    assert share == pytest.approx(np.mean([min(1, 62 / 3 / n) for n in (21, 17, 24) for _ in range(n)]))
    assert share < 1 == loader.expected_coverage(3) == rz.WindowLoader(dataset, 8).expected_coverage()
    covering = rz.WindowLoader(dataset, 8, balance="task", cover=True)
    assert set(served(covering)) == set(anchors(dataset))
    assert covering.expected_coverage() == 1


@pytest.mark.parametrize("kind", ["WindowLoader", "WindowDataLoader", "WindowSampler"])
def test_weights_resume_exactly_in_other_batches_and_on_other_ranks(dataset: rz.WindowDataset, kind: str) -> None:
    options: dict[str, Any] = {"weights": {"task": {"open_it": 3.0}, "flag": {rz.StepFlag.KEY_MOMENT: 0.4}}, "seed": 5}
    options["weights"]["task"] = {"please open_it": 3.0}
    whole = [served(rz.WindowLoader(dataset, 4, **options))]
    loader = rz.WindowLoader(dataset, 4, **options)
    whole += [served(loader), served(loader)][1:]
    if kind == "WindowSampler":
        sampler = rz.WindowSampler(dataset, 4, **options)
        loader_of_torch = DataLoader(dataset, batch_size=4, sampler=sampler, collate_fn=dataset.collate)
        assert served(loader_of_torch) == whole[0]
        assert served(loader_of_torch) == whole[1]
        return
    make: Any = getattr(rz, kind)
    begun = make(dataset, 4, **options)
    batches = iter(begun)
    first = served([next(batches) for _ in range(3)])
    state = json.loads(json.dumps(begun.state_dict()))
    assert first == whole[0][:12]
    together: list[tuple[int, int]] = []
    for rank in range(2):
        resumed = make(dataset, 5, rank=rank, world_size=2, **options)
        resumed.load_state_dict(state)
        together += served(resumed)
    assert sorted(first + together) == sorted(whole[0])
    assert begun.expected_coverage() < 1
    for other in ({"seed": 5}, options | {"weights": {"task": {0: 2.0}}}, options | {"cover": True}):
        with pytest.raises(WindowError, match="belongs to this order"):
            make(dataset, 4, **other).load_state_dict(state)


def test_drop_last_is_in_the_coverage(dataset: rz.WindowDataset) -> None:
    assert rz.WindowLoader(dataset, 16, drop_last=True).expected_coverage() == pytest.approx(48 / 62)
    assert rz.WindowLoader(dataset, 16, drop_last=True, shuffle=False).expected_coverage(9) == pytest.approx(48 / 62)
    assert rz.WindowLoader(dataset, 16, drop_last=True).expected_coverage(20) > 0.99


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"repeat": {rz.StepFlag.NOOP: 2}, "balance": "task"}, "order · repeat: alone"),
        ({"weights": {"task": {"please opne_it": 2}}}, "did you mean 'please open_it'"),
        ({"weights": [1.0] * 61}, "a number for each of 62 windows"),
        ({"cover": 1}, "cover: True or False"),
        ({"balance": True}, "balance: 'task', 'episode' or None"),
    ],
)
def test_what_is_no_weighting(dataset: rz.WindowDataset, options: dict[str, Any], says: str) -> None:
    with pytest.raises(WindowError, match=says):
        rz.WindowLoader(dataset, 4, **options)


def test_weights_of_several_datasets(store: rz.Store, dataset: rz.WindowDataset) -> None:
    parts = [rz.WindowDataset(store, SPEC, tasks=[task]) for task in range(3)]
    loader = rz.WindowLoader(parts, 8, weights=[None, {"episode": {3: 4.0}}, np.linspace(1, 2, 24)])
    assert loader.expected_coverage() < 1
    for weights, says in (([None], "one for each of 3 datasets; got 1"), (np.ones(3), "of 3 datasets, a list")):
        with pytest.raises(WindowError, match=says):
            rz.WindowLoader(parts, 8, weights=weights)


# --- mixtures, and many datasets of one store ---


def test_a_mixture_by_shares(store: rz.Store) -> None:
    parts = [rz.WindowDataset(store, SPEC, tasks=[task]) for task in range(3)]
    loader = rz.WindowLoader(parts, 8, mixture=[0.5, 0.3, 0.2], seed=2)
    found = np.concatenate([batch["store"] for batch in loader])
    assert np.abs(np.bincount(found) - len(found) * np.array([0.5, 0.3, 0.2])).max() < 1
    assert loader.expected_coverage() == 1
    tasks = np.concatenate([batch["task"] for batch in loader])
    stores = np.concatenate([batch["store"] for batch in loader])
    assert len(tasks) == len(stores)


@pytest.mark.parametrize("cache", [None, "host", "device"])
def test_thirty_datasets_cost_one_stores_columns_and_serve_the_same(store: rz.Store, cache: Any) -> None:
    parts = [rz.WindowDataset(store, SPEC, episodes=[e], stride=s) for e in range(9) for s in (1, 2, 3)]
    reader = parts[0].windows.reader
    assert all(part.windows.reader is reader for part in parts)
    loader = rz.WindowLoader(parts, 16, seed=3, cache=cache, images=rz.Images())
    assert len(loader._readers) == 1
    n = 0
    for batch in loader:
        for i, number in enumerate(batch["store"].tolist()):
            part = parts[number]
            window = anchors(part).index((int(batch["episode"][i]), int(batch["step"][i])))
            alone = rz.WindowLoader(part.only([window]), 1, images=rz.Images())
            expected = next(iter(alone))
            for name in ("agentview_rgb", "actions", "actions_is_pad", "joint_states", "task"):
                assert torch.equal(batch[name][i], expected[name][0]), name
            assert batch["instruction"][i] == expected["instruction"][0]
            n += 1
            if n > 40:
                return


def test_columns_are_shared_whatever_the_keys(path: Path) -> None:
    store = rz.open_store(path)
    one = rz.WindowDataset(store, {"actions": [0], "joint_states": [0]})
    other = rz.WindowDataset(store, {"actions": range(3), "ee_states": [0]})
    assert np.shares_memory(one.windows.reader.column("actions"), other.windows.reader.column("actions"))
    assert (one.windows.reader._memory.n_bytes, other.windows.reader._memory.n_bytes) == (2 * 3520, 3008)
    by_path = [rz.WindowDataset(path, {"actions": [0]}) for _ in range(2)]
    assert by_path[0].store is by_path[1].store
    fresh = rz.WindowDataset(rz.open_store(path), {"actions": [0]})  # opened by hand: by itself
    assert not np.shares_memory(fresh.windows.reader.column("actions"), one.windows.reader.column("actions"))
    copied = pickle.loads(pickle.dumps(copy.copy(other)))
    assert torch.equal(copied.read([3])["actions"], other.read([3])["actions"])


def test_what_nobody_uses_is_gone(path: Path) -> None:
    from robozarr.loader.frames.sharing import shared_of

    store = rz.open_store(path)
    dataset = rz.WindowDataset(store, SPEC)
    shared = shared_of(store)
    assert {name for name, _ in shared.columns} == {"joint_states", "actions"}
    assert {name for name, _ in shared.frames} == {"agentview_rgb"}
    del dataset
    gc.collect()
    assert not shared.columns
    assert not shared.frames
    assert not shared.readers


def test_two_stores_and_two_windows_are_read_apart(store: rz.Store, path: Path, tmp_path: Path) -> None:
    write_libero(tmp_path / "s/b_demo.hdf5", lengths=(6,), size=8, seed=9)
    convert(tmp_path / "s", tmp_path / "b.zarr", workers=0)
    other = rz.WindowDataset(tmp_path / "b.zarr", SPEC)
    parts = [rz.WindowDataset(store, SPEC, tasks=[0]), other, rz.WindowDataset(store, SPEC, tasks=[1, 2])]
    loader = rz.WindowLoader(parts, 7, images=rz.Images())
    assert loader._together.group_of == [0, 1, 0]
    counts = np.zeros(3, int)
    for batch in loader:
        for i, number in enumerate(batch["store"].tolist()):
            whole = parts[number].store
            row = whole.episodes.start[int(batch["episode"][i])] + int(batch["step"][i])
            picture = np.asarray(whole.array("agentview_rgb")[int(row)])[::-1].transpose(2, 0, 1) / np.float32(255)
            assert np.abs(batch["agentview_rgb"][i, 1].numpy() - picture).max() < 1e-6
            counts[number] += 1
    assert counts.tolist() == [len(part) for part in parts]

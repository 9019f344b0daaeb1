"""Coverage and resume of whole runs: every selected window exactly once, whatever the ranks, batches, stops and frameworks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import accelerate
import hypothesis
import pytest
import torch
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.windows.share import Share
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

SPEC = rz.WindowSpec({"agentview_rgb": [0], "actions": range(4)})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[rz.Store]:
    """One of 38 steps in 5 episodes of 2 tasks, one of 9 steps."""
    folder = tmp_path_factory.mktemp("runs")
    for name, lengths in (("a/open", (11, 3, 7)), ("a/close", (9, 8)), ("b/push", (9,))):
        write_libero(folder / f"{name}_demo.hdf5", lengths=lengths, size=8, instruction=name)
    for name in "ab":
        convert(folder / name, folder / f"{name}.zarr", workers=0)
    return [rz.open_store(folder / f"{name}.zarr") for name in "ab"]


def seen(batches: Iterable[dict[str, Any]]) -> Counter[tuple[int, ...]]:
    """How often each anchor was served: (store, episode, step)."""
    count: Counter[tuple[int, ...]] = Counter()
    for batch in batches:
        store = batch.get("store", torch.zeros_like(batch["step"]))
        count.update(zip(store.tolist(), batch["episode"].tolist(), batch["step"].tolist(), strict=True))
    return count


def once(dataset: rz.WindowDataset) -> Counter[tuple[int, ...]]:
    return seen(dataset.read([window]) for window in range(len(dataset)))


filters = st.sampled_from(
    [{}, {"tasks": [1]}, {"episodes": [0, 3]}, {"exclude_flags": rz.StepFlag.NOOP}, {"only_flags": rz.StepFlag.STILL}]
)


@examples(40)
@given(
    options=filters, world=st.integers(1, 8), size=st.integers(1, 12), seed=st.integers(0, 99), epoch=st.integers(0, 9),
    drop_last=st.booleans(), locality=st.sampled_from([None, (4, 2), (3, 100)]), shuffle=st.booleans(),
)  # fmt: skip
def test_each_window_once_over_all_ranks(
    stores: list[rz.Store], options: dict[str, Any], world: int, size: int, seed: int, epoch: int, drop_last: bool,
    locality: tuple[int, int] | None, shuffle: bool,
) -> None:  # fmt: skip
    dataset = rz.WindowDataset(stores[0], SPEC, **options)
    total: Counter[tuple[int, ...]] = Counter()
    for rank in range(world):
        loader = rz.WindowLoader(
            dataset, size, seed=seed, rank=rank, world_size=world, drop_last=drop_last, threads=1,
            locality=locality if shuffle else None, shuffle=shuffle,
        )  # fmt: skip
        loader.set_epoch(epoch)
        share = Share(batch_size=size, world_size=world, drop_last=drop_last, even=True)
        if not share.n_batches(len(dataset)) or not share.ends_evenly(len(dataset)):  # nothing to serve, or ranks would wait
            with pytest.raises(WindowError, match=r"drop_last=False$|equally many batches for each of"):
                len(loader)
            return
        n_batches = len(loader)
        batches = [{name: batch[name].clone() for name in ("episode", "step")} for batch in loader]
        assert len(batches) == n_batches == share.n_batches(len(dataset))
        n_full = len(batches) if drop_last else len(batches) - 1 - (0 < len(dataset) % (size * world) < world)
        assert all(len(batch["step"]) == size for batch in batches[:n_full])
        assert all(len(batch["step"]) > 0 for batch in batches)
        total += seen(batches)
    expected = once(dataset)
    if drop_last:  # the tail of less than a global batch is left out; nothing is served twice
        assert not total - expected
        assert total.total() == len(dataset) // (world * size) * world * size
    else:
        assert total == expected


def test_each_epoch_has_another_order_and_follows_by_itself(stores: list[rz.Store]) -> None:
    dataset = rz.WindowDataset(stores[0], SPEC)
    loader = rz.WindowLoader(dataset, 5, seed=3)
    epochs = [[int(step) for batch in loader for step in batch["step"]] for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert loader.state_dict()["epoch"] == 3
    again = rz.WindowLoader(dataset, 5, seed=3)
    again.set_epoch(2)
    assert [int(step) for batch in again for step in batch["step"]] == epochs[2]


def test_repeats_and_mixtures(stores: list[rz.Store]) -> None:
    datasets = [rz.WindowDataset(store, SPEC) for store in stores]
    repeated = rz.WindowLoader(datasets[0], 7, repeat={rz.StepFlag.STILL: 3})
    flags = stores[0].index.flags
    expected = sum(3 if flag & rz.StepFlag.STILL else 1 for flag in flags.tolist())
    count = seen(repeated)
    assert count.total() == expected > len(datasets[0])
    assert set(count.values()) == {1, 3}
    by_size = seen(rz.WindowLoader(datasets, 7))  # as often as any other
    assert set(by_size.values()) == {1}
    assert by_size.total() == len(datasets[0]) + len(datasets[1])
    alike = seen(rz.WindowLoader(datasets, 7, mixture=(1, 1)))
    per_store = Counter(store for store, *_ in alike.elements())
    assert per_store[0] == per_store[1] == len(datasets[0])
    assert all(alike[0, e, t] == 1 for _, e, t in once(datasets[0]))
    other = rz.WindowDataset(stores[1], rz.WindowSpec({"actions": range(4)}))
    with pytest.raises(WindowError, match="loader · mixture: all datasets have the same fields"):
        rz.WindowLoader([datasets[0], other], 7)


def test_mixtures_hold_the_right_values(stores: list[rz.Store]) -> None:
    datasets = [rz.WindowDataset(store, SPEC) for store in stores]
    for cache in (None, "device"):
        for batch in rz.WindowLoader(datasets, 6, cache=cache, images=rz.Images(dtype=None, scale=False)):
            for i, (store, episode, step) in enumerate(zip(batch["store"], batch["episode"], batch["step"], strict=True)):
                row = int(stores[store].episodes.start[episode] + step)
                wanted = datasets[store].read([row])
                assert torch.equal(batch["actions"][i], wanted["actions"][0])
                assert torch.equal(batch["agentview_rgb"][i], wanted["agentview_rgb"][0].flip(1).movedim(-1, -3))
                assert batch["instruction"][i] == wanted["instruction"][0]


@examples(40)
@given(
    first=st.tuples(st.integers(1, 4), st.integers(1, 9)), second=st.tuples(st.integers(1, 4), st.integers(1, 9)),
    n=st.integers(0, 50), epoch=st.integers(0, 3), mixed=st.booleans(),
)  # fmt: skip
def test_a_run_resumes_exactly_on_other_worlds_and_batches(
    stores: list[rz.Store], first: tuple[int, int], second: tuple[int, int], n: int, epoch: int, mixed: bool
) -> None:
    """Stop after n batches of each rank, save, go on with another world size and batch size: the union is the epoch."""
    dataset = [rz.WindowDataset(store, SPEC) for store in stores] if mixed else [rz.WindowDataset(stores[0], SPEC)]

    def loaders(world: int, size: int) -> list[rz.WindowLoader]:
        return [rz.WindowLoader(dataset, size, seed=1, rank=rank, world_size=world, threads=1) for rank in range(world)]

    total: Counter[tuple[int, ...]] = Counter()
    state: dict[str, Any] = {}
    n_windows = sum(len(each) for each in dataset)
    for world, size in (first, second):
        hypothesis.assume(Share(batch_size=size, world_size=world, even=True).ends_evenly(n_windows))
    n = min(n, len(loaders(*first)[0]) - 1)  # whole global batches, as a run that is stopped has consumed
    for loader in loaders(*first):
        loader.set_epoch(epoch)
        state = state or loader.state_dict()
        for number, batch in enumerate(loader):
            if number == n:
                break
            total += seen([batch])
            if loader.schedule.share.rank == 0:
                state = json.loads(json.dumps(loader.state_dict()))
    served = Counter(total)
    whole = not Share(world_size=second[0], batch_size=second[1], even=True).ends_evenly(n_windows, state["consumed"])
    for loader in loaders(*second):
        loader.load_state_dict(state)
        n_left = loader.n_batches_left
        batches = [{name: value.clone() for name, value in batch.items() if torch.is_tensor(value)} for batch in loader]
        assert len(batches) == n_left
        total += seen(batches)
        assert loader.state_dict()["epoch"] == epoch + 1
        assert loader.state_dict()["consumed"] == 0
    expected = sum((once_with(number, each) for number, each in enumerate(dataset)), Counter[tuple[int, ...]]())
    assert total == (served + expected if whole else expected)  # whole: fewer were left than there are ranks


def once_with(number: int, dataset: rz.WindowDataset) -> Counter[tuple[int, ...]]:
    return Counter({(number, e, t): n for (_, e, t), n in once(dataset).items()})


def test_a_state_of_another_run_is_refused(stores: list[rz.Store]) -> None:
    state = rz.WindowLoader(rz.WindowDataset(stores[0], SPEC), 4).state_dict()
    with pytest.raises(WindowError, match="seed: saved 0, now 1"):
        rz.WindowLoader(rz.WindowDataset(stores[0], SPEC), 4, seed=1).load_state_dict(state)
    with pytest.raises(WindowError, match="n_windows: saved 38, now 17"):
        rz.WindowLoader(rz.WindowDataset(stores[0], SPEC, tasks=[0]), 4).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_torch_dataloader_has_the_same_order_and_resumes(stores: list[rz.Store], workers: int) -> None:
    dataset = rz.WindowDataset(stores[0], SPEC)
    order = [int(step) for batch in rz.WindowLoader(dataset, 4, seed=2) for step in batch["step"]]

    def loader() -> rz.WindowDataLoader:
        context = "fork" if workers else None
        return rz.WindowDataLoader(dataset, 4, order={"seed": 2}, num_workers=workers, multiprocessing_context=context)

    assert [int(step) for batch in loader() for step in batch["step"]] == order
    stopped, got = loader(), []
    for number, batch in enumerate(stopped):
        got += batch["step"].tolist()
        if number == 2:
            state = stopped.state_dict()  # whatever the workers have prefetched
            break
    resumed = loader()
    resumed.load_state_dict(state)
    assert resumed.schedule.n_batches_left == len(resumed) - 3 == -(-len(dataset) // 4) - 3
    got += [int(step) for batch in resumed for step in batch["step"]]
    assert got == order
    sampler = rz.WindowSampler(dataset, 4, seed=2)
    assert len(sampler) == len(dataset)
    windows = list(sampler)
    sampler.load_state_dict(sampler.state_dict(n_batches=3))
    assert list(sampler) == windows[12:]


def test_through_accelerate(stores: list[rz.Store], tmp_path: Path) -> None:
    """`register_for_checkpointing`, save_state, load_state: what accelerate's own skipping of batches gets wrong."""
    dataset = rz.WindowDataset(stores[0], SPEC)

    def start() -> tuple[accelerate.Accelerator, rz.WindowLoader]:
        accelerator = accelerate.Accelerator(cpu=True)
        loader = rz.WindowLoader(dataset, 4, seed=9)
        accelerator.register_for_checkpointing(loader)
        return accelerator, loader

    accelerator, loader = start()
    runs, got = [], []
    for _ in range(3):
        runs += [batch["step"].tolist() for batch in loader]
    accelerator, loader = start()
    for _ in range(3):  # stopped in the second epoch, where resuming commonly goes back to the first one's order
        for batch in loader:
            got.append(batch["step"].tolist())
            if len(got) == 14:
                accelerator.save_state(str(tmp_path / "state"))
                break
        if len(got) == 14:
            break
    accelerator.free_memory()
    accelerator, loader = start()
    accelerator.load_state(str(tmp_path / "state"))
    while len(got) < len(runs):
        got += [batch["step"].tolist() for batch in loader]
    assert got == runs

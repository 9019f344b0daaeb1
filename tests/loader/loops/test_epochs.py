"""Epochs move on: iterations that are left early, epochs of N steps, options in torch's spelling, resume; none is starved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from served import KINDS, SIZE, every, make, windows
from torch.utils.data import DataLoader

import robozarr as rz
from robozarr.loader.schedule import Schedule
from robozarr.loader.windows.share import Share
from robozarr.schemas.errors import WindowError


def kinds(dataset: rz.WindowDataset, **order: Any) -> dict[str, Any]:
    """The loaders that this package gives a training loop, and a plain DataLoader with its sampler."""
    return {kind: make(kind, dataset, **order) for kind in KINDS}


def robomimic_epoch(loader: Any, n_steps: int, iterator: Iterator[Any] | None = None) -> list[list[int]]:
    """robomimic/utils/train_utils.py: run_epoch, with what a step is served in the place of the step."""
    data_loader_iter, served = iter(loader), []
    for _ in range(n_steps):
        try:
            batch = next(data_loader_iter)
        except StopIteration:  # reset for next dataset pass
            data_loader_iter = iter(loader)
            batch = next(data_loader_iter)
        served.append(windows(batch))
    return served


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_steps", [1, 3, 7])
def test_robomimic_epoch_every_n_steps_serves_every_window(dataset: rz.WindowDataset, kind: str, n_steps: int) -> None:
    """Also pytorch-lightning#2630, #7364: each epoch served the same first N batches."""
    loader = kinds(dataset, seed=4)[kind]
    epochs = [robomimic_epoch(loader, n_steps) for _ in range(-(-10 // n_steps))]
    in_order = list(chain.from_iterable(chain.from_iterable(epochs)))
    assert sorted(in_order[:38]) == every(dataset)  # none comes again before all have come
    more = [robomimic_epoch(loader, n_steps) for _ in range(30)]
    assert all(len(epoch) == n_steps for epoch in more)
    assert len({str(epoch) for epoch in epochs + more}) > 25  # other orders, epoch after epoch
    count = Counter(chain.from_iterable(chain.from_iterable(more)))
    assert set(count) == set(every(dataset))


@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_31771_an_epoch_leads_to_the_next_by_itself(dataset: rz.WindowDataset, kind: str) -> None:
    for drop_last in (False, True):
        loader = kinds(dataset, seed=4, drop_last=drop_last)[kind]
        epochs = [[windows(batch) for batch in loader] for _ in range(4)]
        assert len({str(epoch) for epoch in epochs}) == 4
        assert all(len(epoch) == len(loader) == (9 if drop_last else 10) for epoch in epochs)
        assert set(chain.from_iterable(chain.from_iterable(epochs))) == set(every(dataset))


def test_pytorch_31771_torchs_spelling_goes_through_the_order(dataset: rz.WindowDataset) -> None:
    spelt = rz.WindowDataLoader(dataset, 16, drop_last=True, shuffle=False)
    assert (len(spelt), spelt.drop_last, spelt.batch_size) == (2, False, 16)
    assert [windows(batch) for batch in spelt] == [
        windows(batch) for batch in rz.WindowDataLoader(dataset, 16, order={"drop_last": True, "shuffle": False})
    ]
    with pytest.raises(WindowError, match="WindowDataLoader · drop_last: given once; got True, and False in order="):
        rz.WindowDataLoader(dataset, 16, drop_last=True, order={"drop_last": False})
    for option in ({"sampler": range(3)}, {"batch_sampler": [[0]]}):
        with pytest.raises(WindowError, match=r"Trainer\(use_distributed_sampler=False\)"):
            rz.WindowDataLoader(dataset, 16, **option)
    with pytest.raises(WindowError, match="in_order: True"):
        rz.WindowDataLoader(dataset, 16, in_order=False, num_workers=1)
    with pytest.raises(WindowError, match="drop_last: True or False; got 'yes'"):
        rz.WindowLoader(dataset, 16, drop_last="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_peek_costs_the_next_iteration_nothing(dataset: rz.WindowDataset, kind: str) -> None:
    """Lightning's sanity check of a validation loader, a look at shapes: the iteration after it is whole."""
    loader = kinds(dataset)[kind]
    first = windows(next(iter(loader)))
    served = [windows(batch) for batch in loader]
    assert len(served) == len(loader) == loader.schedule.n_batches
    assert sorted(chain.from_iterable(served)) == every(dataset)
    assert list(chain.from_iterable(served))[-4:] == first  # what had been served comes last


@pytest.mark.parametrize("kind", KINDS)
def test_without_shuffle_each_iteration_begins_at_the_first_window(dataset: rz.WindowDataset, kind: str) -> None:
    loader = kinds(dataset, shuffle=False)[kind]
    next(iter(loader))
    assert list(chain.from_iterable(windows(batch) for batch in loader)) == windows(dataset.read(range(38)))


def test_iterators_that_somebody_still_holds_do_not_stop_the_epochs(dataset: rz.WindowDataset) -> None:
    loader, held, served = rz.WindowLoader(dataset, SIZE, threads=1), [], list[int]()
    for _ in range(10):
        iterator = iter(loader)
        held.append(iterator)
        served += windows(next(iterator))
    assert sorted(served[:38]) == every(dataset)
    state = loader.state_dict()
    next(held[0])  # of several the one that began last counts
    assert loader.state_dict() == state


def test_set_epoch_goes_to_an_order_whatever_was_left(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, SIZE, seed=1)
    expected = []
    for epoch in range(3):
        fresh = rz.WindowLoader(dataset, SIZE, seed=1)
        fresh.set_epoch(epoch)
        expected.append([windows(batch) for batch in islice(fresh, 3)])
    for epoch in (2, 0, 1):
        loader.set_epoch(epoch)
        assert [windows(batch) for batch in islice(loader, 3)] == expected[epoch]


def test_forever_goes_around_until_the_loop_ends(dataset: rz.WindowDataset) -> None:
    for loader in (rz.WindowLoader(dataset, SIZE, seed=1), rz.WindowDataLoader(dataset, SIZE, seed=1)):
        batches = [windows(batch) for batch in islice(loader.forever(), 25)]
        epochs = [batches[:10], batches[10:20]]
        assert all(sorted(chain.from_iterable(epoch)) == every(dataset) for epoch in epochs)
        assert epochs[0] != epochs[1]
        again = rz.WindowLoader(dataset, SIZE, seed=1).forever()
        again.load_state_dict(json.loads(json.dumps(loader.forever().state_dict())))
        rest = [windows(batch) for batch in islice(again, 5)]
        assert sorted(chain.from_iterable(batches[20:] + rest)) == every(dataset)
        assert not hasattr(loader.forever(), "__len__")


def test_a_batch_size_that_leaves_nothing_is_refused(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 64, drop_last=True)
    for ask in (lambda: len(loader), lambda: next(iter(loader))):
        with pytest.raises(WindowError, match=r"38 windows are no full batch of 64 .* nothing would be served"):
            ask()
    with pytest.raises(WindowError, match=r"last 2 of 38 windows .* in batches of 1 → pass drop_last=True"):
        len(rz.WindowLoader(dataset, 1, rank=0, world_size=4))
    with pytest.raises(WindowError, match="use fewer ranks or a wider selection"):
        len(rz.WindowLoader(dataset, 4, rank=0, world_size=50))


def test_kempnerforge_57_a_sampler_of_another_batch_size_is_refused(dataset: rz.WindowDataset) -> None:
    for size in (1, 8, 16):
        loader = DataLoader(dataset, size, sampler=rz.WindowSampler(dataset, SIZE), collate_fn=dataset.collate)
        with pytest.raises(WindowError, match=f"the sampler has 4, the DataLoader {size},"):
            next(iter(loader))
    with pytest.raises(WindowError, match="an iteration has begun; got n_batches=3"):
        rz.WindowSampler(dataset, SIZE).state_dict(3)


# --- any order of what a run does ---

Steps = st.lists(
    st.one_of(
        st.tuples(st.just("iterate"), st.integers(0, 12)),
        st.tuples(st.just("resume"), st.integers(1, 4), st.integers(2, 9)),
        st.tuples(st.just("set_epoch"), st.integers(0, 5)),
    ),
    min_size=1,
    max_size=12,
)


class Run:
    """Ranks of a run that do the same: what they served since the place where an epoch began."""

    def __init__(self, dataset: rz.WindowDataset, world: int, size: int, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.ranks = self.start(world, size)

    def start(self, world: int, size: int) -> list[Schedule]:
        return [Schedule([self.dataset], size, seed=self.seed, rank=rank, world_size=world) for rank in range(world)]

    def iterate(self, n_batches: int) -> tuple[list[int], bool]:
        """Windows of up to so many batches of each rank, and whether the iteration came to its end."""
        served, ended = list[int](), set[bool]()
        for rank in self.ranks:
            began = rank.begin()
            for number, batch in enumerate(islice(rank.batches(began), n_batches), 1):
                served += batch.parts[0][1].tolist()
                rank.consume(began, number)
            ended.add(began.n_batches <= n_batches)
        assert len(ended) == 1  # none waits for another
        return served, ended.pop()

    def resume(self, world: int, size: int) -> None:
        states = [json.loads(json.dumps(rank.state_dict())) for rank in self.ranks]
        assert all(state == states[0] for state in states)
        self.ranks = self.start(world, size)
        for rank in self.ranks:
            rank.load_state_dict(states[0])


@examples(300)
@given(steps=Steps, world=st.integers(1, 4), size=st.integers(2, 9), seed=st.integers(0, 9))
def test_any_order_of_begin_break_resume_set_epoch_serves_each_window_once_an_epoch(
    dataset: rz.WindowDataset, steps: list[Any], world: int, size: int, seed: int
) -> None:
    """Since an epoch began, no window comes a second time before every window has come; and a whole iteration is whole."""
    run, n = Run(dataset, world, size, seed), len(dataset)
    served, resumed = Counter[int](), False
    for step in steps:
        state = run.ranks[0].state
        if step[0] == "resume":
            run.resume(*step[1:])
            resumed = True
        elif step[0] == "set_epoch":
            for rank in run.ranks:
                rank.set_epoch(step[1])
            if step[1] != state.epoch:
                served, resumed = Counter(), False
        else:
            rest = resumed and run.ranks[0].share.ends_evenly(n, state.consumed)
            if len(served) == n and not rest:  # the next epoch
                served = Counter()
            got, ended = run.iterate(step[1])
            assert not ended or sorted(got) == list(range(n)) or (rest and len(got) == n - state.consumed)
            again = len([window for window in got if window in served])
            served.update(got)
            assert not again or len(served) == n  # a window comes again when all have come
            assert len(set(got)) == len(got)
            resumed = False


@examples(200)
@given(n=st.integers(1, 300), start=st.integers(0, 299), world=st.integers(1, 9), size=st.integers(1, 20))
def test_even_ends_lose_nothing_and_no_rank_waits(n: int, start: int, world: int, size: int) -> None:
    shares = [Share(rank=rank, world_size=world, batch_size=size, even=True) for rank in range(world)]
    if start >= n or not shares[0].ends_evenly(n, start):
        assert start >= n or n - start < world or size == 1
        return
    per_rank = [
        [share.positions(n, start=start, batch=i, n_batches=1).tolist() for i in range(share.n_batches(n, start))]
        for share in shares
    ]
    assert len({len(batches) for batches in per_rank}) == 1
    assert all(0 < len(batch) <= size for batches in per_rank for batch in batches)
    assert sorted(chain.from_iterable(chain.from_iterable(per_rank))) == list(range(start, n))
    for number, share in enumerate(shares):
        assert share.sizes(n, start=start).tolist() == [len(batch) for batch in per_rank[number]]
    for done in range(len(per_rank[0]) + 1):  # what all have consumed is a prefix, so that a state is a number
        taken = sorted(chain.from_iterable(chain.from_iterable(batches[:done] for batches in per_rank)))
        assert taken == list(range(start, shares[0].consumed(n, start, done)))

"""Any order of begin, break, resume, set_epoch and other world sizes, of the loaders themselves: each window once an epoch.

``test_epochs`` has the same of the schedule that they share; here every loader that a training loop is given reads batches.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import windows
from torch.utils.data import DataLoader

import robozarr as rz
from robozarr.convert import convert
from synthetic import write_libero

SPEC = rz.WindowSpec({"joint_states": [0], "actions": range(4)})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> rz.WindowDataset:
    """27 windows."""
    folder = tmp_path_factory.mktemp("any_order")
    write_libero(folder / "a/open_demo.hdf5", lengths=(11, 3, 7, 6), size=8)
    convert(folder / "a", folder / "a.zarr", workers=0)
    return rz.WindowDataset(rz.open_store(folder / "a.zarr"), SPEC)


class Ranks:
    """The loaders of all ranks of a run, each in its turn."""

    def __init__(self, dataset: rz.WindowDataset, kind: str, world: int, size: int, seed: int) -> None:
        self.dataset, self.kind, self.seed = dataset, kind, seed
        self.start(world, size)

    def start(self, world: int, size: int) -> None:
        if self.kind == "WindowSampler":  # which refuses ends that a DataLoader cannot cut evenly
            world = 1
        self.loaders = [self.make(rank, world, size) for rank in range(world)]

    def make(self, rank: int, world: int, size: int) -> Any:
        order: dict[str, Any] = {"seed": self.seed, "rank": rank, "world_size": world}
        if self.kind == "WindowLoader":
            return rz.WindowLoader(self.dataset, size, threads=1, **order)
        if self.kind == "WindowDataLoader":
            return rz.WindowDataLoader(self.dataset, size, **order)
        sampler = rz.WindowSampler(self.dataset, size, **order)
        return DataLoader(self.dataset, size, sampler=sampler, collate_fn=self.dataset.collate)

    def owners(self) -> list[Any]:
        """What has the state."""
        return [loader.sampler if self.kind == "WindowSampler" else loader for loader in self.loaders]

    def iterate(self, n_batches: int) -> tuple[list[int], bool]:
        """Windows of up to so many batches of each rank, and whether the iteration came to its end."""
        served, counts = list[int](), list[int]()
        ends = [owner.schedule.n_batches_left for owner in self.owners()]
        for loader in self.loaders:
            got = [windows(batch) for batch in islice(loader, n_batches)]
            served += [window for batch in got for window in batch]
            counts.append(len(got))
        assert len(set(ends)) == len(set(counts)) == 1  # none waits for another
        return served, ends[0] <= n_batches

    def resume(self, world: int, size: int) -> None:
        states = [json.loads(json.dumps(owner.state_dict())) for owner in self.owners()]
        assert all(state == states[0] for state in states)
        self.start(world, size)
        for owner in self.owners():
            owner.load_state_dict(states[0])


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("iterate"), st.integers(1, 9)),
        st.tuples(st.just("resume"), st.integers(1, 3), st.integers(3, 8)),
        st.tuples(st.just("set_epoch"), st.integers(0, 3)),
    ),
    min_size=2,
    max_size=8,
)


@pytest.mark.parametrize("kind", ["WindowLoader", "WindowDataLoader", "WindowSampler"])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=Steps, world=st.integers(1, 3), size=st.integers(3, 8), seed=st.integers(0, 9))
def test_each_window_once_an_epoch(
    dataset: rz.WindowDataset, kind: str, steps: list[Any], world: int, size: int, seed: int
) -> None:
    """Since an epoch began, no window comes a second time before every window has come; and a whole iteration is whole."""
    run, every = Ranks(dataset, kind, world, size, seed), sorted(windows(dataset.read(range(len(dataset)))))
    n, served, resumed = len(every), Counter[int](), False
    for step in steps:
        state = run.owners()[0].schedule.state
        if step[0] == "resume":
            run.resume(*step[1:])
            resumed = True
        elif step[0] == "set_epoch":
            for owner in run.owners():
                owner.set_epoch(step[1])
            if step[1] != state.epoch:
                served, resumed = Counter(), False
        else:
            share = run.owners()[0].schedule.share
            rest = resumed and share.ends_evenly(n, state.consumed)
            if len(served) == n and not rest:  # the next epoch
                served = Counter()
            got, ended = run.iterate(step[1])
            assert not ended or sorted(got) == every or (rest and len(got) == n - state.consumed)
            again = len([window for window in got if window in served])
            served.update(got)
            assert not again or len(served) == n  # a window comes again when all have come
            assert len(set(got)) == len(got)
            resumed = False

"""Shares of ranks, batches and resume against naive versions; what orders, shares and states refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_cases import (
    epochs,
    localities,
    make,
    naive_batches,
    quick,
    seeds,
)

from robozarr.loader.windows.order import Mixture, Order, OrderState, Share
from robozarr.schemas.errors import WindowError

I64 = npt.NDArray[np.int64]


# --- ranks, batches, resume ---


@quick
@given(
    n=st.integers(0, 200),
    start=st.integers(0, 210),
    world=st.integers(1, 8),
    size=st.integers(1, 17),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_shares_equal_the_naive_version(
    n: int, start: int, world: int, size: int, drop_last: bool, data: st.DataObject
) -> None:
    taken: list[int] = []
    counts = []
    for rank in range(world):
        share = Share(rank=rank, world_size=world, batch_size=size, drop_last=drop_last)
        batches = naive_batches(n, start, rank, world, size, drop_last)
        counts.append(share.n_batches(n, start))
        assert counts[-1] == len(batches)
        singly = [share.positions(n, start=start, batch=i, n_batches=1).tolist() for i in range(len(batches) + 1)]
        assert singly == [*batches, []]
        first = data.draw(st.integers(0, len(batches)))
        assert share.positions(n, start=start, batch=first).tolist() == list(chain.from_iterable(batches[first:]))
        taken += chain.from_iterable(batches)
    left = max(0, n - start) % (world * size) if drop_last else 0
    assert sorted(taken) == list(range(start, n - left))
    assert counts[0] == max(counts)
    assert max(counts) - min(counts) <= (0 if drop_last else 1)


@quick
@given(
    selected=st.lists(st.booleans(), max_size=300),
    seed=seeds,
    epoch=epochs,
    world=st.integers(1, 8),
    size=st.integers(1, 40),
    locality=localities,
)
def test_each_selected_window_once_over_all_ranks(
    selected: list[bool], seed: int, epoch: int, world: int, size: int, locality: tuple[int, int] | None
) -> None:
    selection = np.flatnonzero(selected)
    order = make(len(selection), seed, locality)
    seen = []
    for rank in range(world):
        share = Share(rank=rank, world_size=world, batch_size=size)
        for batch in range(share.n_batches(order.n_positions)):
            positions = share.positions(order.n_positions, batch=batch, n_batches=1)
            seen += selection[order.windows(positions, epoch)].tolist()
    assert sorted(seen) == selection.tolist()


legs = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 9), st.integers(0, 4)), max_size=5)


@quick
@given(n=st.integers(1, 400), seed=seeds, epoch=epochs, legs=legs, drop_last=st.booleans())
def test_resume_is_exact_on_other_worlds_and_batches(
    n: int, seed: int, epoch: int, legs: list[tuple[int, int, int]], drop_last: bool
) -> None:
    order = make(n, seed)
    state = OrderState(epoch=epoch)
    seen: list[int] = []
    for world, size, n_batches in [*legs, (3, 1, 10**9)]:
        shares = [Share(rank=r, world_size=world, batch_size=size, drop_last=drop_last) for r in range(world)]
        n_batches = min(n_batches, shares[0].n_batches(n, state.consumed))
        for share in shares:
            positions = share.positions(n, start=state.consumed, n_batches=n_batches)
            seen += order.windows(positions, state.epoch).tolist()
        state = state.after(order, shares[0], n_batches)
        # what was consumed is the first positions of the epoch, whoever took them
        assert sorted(seen) == sorted(order.windows(np.arange(state.consumed), epoch).tolist())
        state = OrderState.load_state_dict(json.loads(json.dumps(state.state_dict(order))), make(n, seed))
    assert len(set(seen)) == len(seen)
    assert n - len(seen) < (3 if drop_last else 1)  # the last leg leaves out (n - consumed) mod (3·1)


# --- refusals ---


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (Order(n_windows=101, seed=5), "n_windows: saved 100, now 101"),
        (Order(n_windows=100, seed=6), "seed: saved 5, now 6"),
        (Order(n_windows=100, seed=5, shuffle=False), "shuffle: saved True, now False"),
        (Order(n_windows=100, seed=5, block=4, group=2), "block: saved None, now 4; group: saved None, now 2"),
        (Order(n_windows=100, seed=5, weights=[2] * 100), "weights_crc: saved None, now"),
    ],
)
def test_a_state_of_another_order_is_refused(changed: Order, text: str) -> None:
    saved = OrderState(epoch=1, consumed=64).state_dict(Order(n_windows=100, seed=5))
    with pytest.raises(WindowError, match=text):
        OrderState.load_state_dict(saved, changed)


def test_a_damaged_state_is_refused() -> None:
    order = Order(n_windows=10)
    saved = OrderState(consumed=4).state_dict(order)
    for damaged, text in [
        (saved | {"version": 2}, "version 1"),
        ({"epoch": 1}, "version 1"),
        (saved | {"consumed": 11}, r"consumed: an integer in \[0, 10\]; got 11"),
        (saved | {"epoch": -1}, "epoch: an integer"),
        (saved | {"order": {}}, "seed: saved nothing, now 0"),
        (saved | {"order": None}, "version 1"),
    ]:
        with pytest.raises(WindowError, match=text):
            OrderState.load_state_dict(damaged, order)


def test_arguments_are_refused() -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: Order(n_windows=-1), "n_windows: an integer"),
        (lambda: Order(n_windows=3, seed=-1), "seed: an integer"),
        (lambda: Order(n_windows=3, block=2), "block and group go together"),
        (lambda: Order(n_windows=3, block=2, group=2, shuffle=False), "block and group go together"),
        (lambda: Order(n_windows=3, block=0, group=2), "block: an integer"),
        (lambda: Order(n_windows=2, weights=[1, 0]), "weights: an integer of at least 1 .* least 0"),
        (lambda: Order(n_windows=2, weights=[1.0, 2.0]), "got float64"),
        (lambda: Order(n_windows=2, weights=[1]), r"got int64 \[1\]"),
        (lambda: Order(n_windows=3).windows([3]), r"integers in \[0, 3\)"),
        (lambda: Order(n_windows=3).windows([-1]), "from -1"),
        (lambda: Order(n_windows=3).windows([0.5]), "got float64"),
        (lambda: Share(batch_size=0), "batch_size: an integer"),
        (lambda: Share(batch_size=1, rank=2, world_size=2), r"rank: an integer in \[0, 1\]; got 2"),
        (lambda: Mixture(orders=(), weights=()), "one weight per order"),
        (lambda: Mixture(orders=(Order(n_windows=3),) * 2, weights=(1, 1)), "no two with the same seed and stream"),
        (lambda: Mixture(orders=(Order(n_windows=0),), weights=(1,)), "no order empty"),
        (lambda: Mixture(orders=(Order(n_windows=1),), weights=(0,)), "mixture weight: an integer"),
    ]
    for build, text in cases:
        with pytest.raises(WindowError, match=text):
            build()

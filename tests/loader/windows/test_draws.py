"""Weights with fractions, and mixtures by them: what is served is what was asked for, by chi-squared and to less than one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from table_cases import make

from robozarr.loader.windows.cycles import Cycles
from robozarr.loader.windows.draws import Draws
from robozarr.loader.windows.order import Mixture, Order
from robozarr.loader.windows.share import Share
from robozarr.loader.windows.state import OrderState
from robozarr.loader.windows.table import WindowTable
from robozarr.loader.windows.weights import weights_of_windows
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec

weights = st.lists(st.floats(0.01, 50), min_size=1, max_size=60)


def counts_of(order: Order, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.bincount(order.windows(np.arange(order.n_positions), epoch), minlength=order.n_windows)


@examples(60)
@given(weights, st.booleans(), st.booleans(), st.integers(0, 99))
def test_each_epoch_serves_the_rate_rounded_up_or_down(given_: list[float], cover: bool, shuffle: bool, seed: int) -> None:
    draws = Draws.by(given_, None if cover else len(given_))
    order = Order(n_windows=len(given_), seed=seed, shuffle=shuffle, draws=draws)
    expected: np.ndarray[Any, np.dtype[np.float64]] = np.array(given_) / np.sum(given_) * order.n_positions
    assert np.allclose(draws.rates(), expected, rtol=1e-9, atol=1e-9)
    total = np.zeros(len(given_))
    for epoch in range(5):
        counts = counts_of(order, epoch)
        assert counts.sum() == order.n_positions
        assert (counts >= np.floor(expected - 1e-6)).all()
        assert (counts <= np.ceil(expected + 1e-6)).all()
        assert counts.min() >= 1 or not cover
        total += counts
    assert np.abs(total - 5 * expected).max() < 3  # the golden ratio keeps sums near, too


def test_weights_match_their_expectation_by_chi_squared() -> None:
    rng = np.random.default_rng(5)
    given_ = rng.random(200) + 0.05
    order = Order(n_windows=200, seed=3, draws=Draws.by(given_, 200))
    counts = sum(counts_of(order, epoch) for epoch in range(400))
    expected = given_ / given_.sum() * 400 * 200
    chi_squared = float(np.sum((counts - expected) ** 2 / expected))
    assert chi_squared < 233  # 95% of 199 degrees of freedom; drawing with replacement would have about 199, this has far less
    flat = float(np.sum((counts - 400) ** 2 / 400))
    assert flat > 5000  # the test can tell


def test_nothing_waits_long_for_its_turn() -> None:
    given_ = np.ones(1000)
    given_[:500] = 0.1
    order = Order(n_windows=1000, draws=Draws.by(given_, 1000))
    rate = float(order.draws.rates()[0]) if order.draws else 0
    served = np.array([counts_of(order, epoch)[:500] > 0 for epoch in range(200)])
    longest = max(int(np.diff(np.flatnonzero(column), prepend=-1, append=200).max()) for column in served.T)
    assert longest <= 3 / rate  # by chance alone some of 500 would wait for more than twice as long


@settings(max_examples=20)
@given(weights, st.integers(1, 8))
def test_expected_coverage_is_what_epochs_serve(given_: list[float], n_epochs: int) -> None:
    draws = Draws.by(given_, len(given_))
    found = []
    for seed in range(200):
        first, epochs = seed * draws.unit // 200, np.arange(n_epochs)
        windows = draws.windows(np.tile(np.arange(draws.n_positions), n_epochs), first, np.repeat(epochs, draws.n_positions))
        found.append(len(np.unique(windows)) / len(given_))
    assert draws.expected_coverage(n_epochs) == pytest.approx(np.mean(found), abs=0.02)


def test_shares_of_ranks_and_batches_are_of_one_order() -> None:
    order = Order(n_windows=50, seed=1, draws=Draws.by(np.linspace(0.2, 3, 50), 50))
    whole = order.windows(np.arange(50), 3)
    for world_size in (1, 3):
        parts = [Share(batch_size=4, rank=rank, world_size=world_size).positions(50) for rank in range(world_size)]
        assert sorted(np.concatenate(parts).tolist()) == list(range(50))
        for part in parts:
            assert order.windows(part, 3).tolist() == whole[part].tolist()


@examples(60)
@given(weights, st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 4)), max_size=4), st.booleans())
def test_an_epoch_is_the_same_whatever_it_is_resumed_as(
    given_: list[float], legs: list[tuple[int, int, int]], mixed: bool
) -> None:
    single = Order(n_windows=len(given_), seed=2, draws=Draws.by(given_, len(given_)))
    other = Order(n_windows=7, seed=2, stream=1)
    order: Order | Mixture = Mixture(orders=(single, other), weights=(0.61, 0.39), seed=2) if mixed else single

    def windows(positions: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        found: Any = order.windows(positions, 3)
        return np.stack(found, axis=-1) if mixed else found[:, None]

    n, state, served = order.n_positions, OrderState(epoch=3), []
    for world_size, batch_size, n_batches in [*legs, (1, 3, n)]:  # each leg on another number of ranks, in other batches
        shares = [Share(batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
        for share in shares:
            served += share.positions(n, start=state.consumed, n_batches=n_batches).tolist()
        state = OrderState.load_state_dict(state.after(order, shares[0], n_batches).state_dict(order), order)
    assert sorted(served) == list(range(n))
    assert np.array_equal(np.concatenate([windows([position]) for position in served]), windows(np.arange(n))[served])


# --- mixtures ---


@examples(60)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 5)), min_size=1, max_size=5), st.integers(0, 99))
def test_a_mixture_has_its_shares_to_less_than_one_draw(parts: list[tuple[int, float]], seed: int) -> None:
    orders = tuple(Order(n_windows=n, seed=seed, stream=i) for i, (n, _) in enumerate(parts))
    mixture = Mixture(orders=orders, weights=tuple(w for _, w in parts), seed=seed)
    shares = np.array([w for _, w in parts]) / sum(w for _, w in parts)
    n = mixture.n_positions
    for epoch in range(2):
        store, window = mixture.windows(np.arange(n), epoch)
        counts = np.bincount(store, minlength=len(parts))
        assert np.abs(counts - n * shares).max() < 1 + 1e-6
        for i, (size, _) in enumerate(parts):
            own = np.bincount(window[store == i], minlength=size)
            assert own.min() >= 1  # each store is covered
            assert own.max() - own.min() <= 1
    again = mixture.windows(np.arange(n)[::-1], 1)
    assert again[0][::-1].tolist() == store.tolist()
    assert again[1][::-1].tolist() == window.tolist()


def test_cycles_of_whole_numbers_are_as_before() -> None:
    cycles = Cycles.by((4, np.int64(2)))
    assert (cycles.length, cycles.weights, cycles.before(np.array([3])).tolist()) == (3, (2, 1), [[6, 3]])


@pytest.mark.parametrize(
    "given_", [(1.0, 0.0), (1.0, float("nan")), (1.0, -2), (1.0, "2"), (True, 1.0), (1.0, float("inf")), (1, 0)]
)
def test_what_is_no_weight_of_a_mixture(given_: Any) -> None:
    with pytest.raises(WindowError, match="mixture weight"):
        Cycles.by(given_)


def test_a_store_that_would_hardly_be_drawn() -> None:
    with pytest.raises(WindowError, match="at least 1e-06 of all together"):
        Cycles.by((1.0, 1e-9))


# --- weights by kind ---

CASE = make([3, 2, 4], task=[0, 1, 1], flags=[0, 4, 0, 4, 0, 0, 1, 5, 0])
TABLE = CASE.table(WindowSpec({"actions": [0]}))


def found(weights: Any = None, balance: Any = None, table: WindowTable = TABLE) -> list[float]:
    def rows(name: str) -> list[int]:
        return {"one": [0], "both": [0, 1]}[name]

    values = weights_of_windows(table, CASE.episodes.task, weights, balance, lambda: CASE.flags, rows)
    assert values is not None
    return [float(round(value, 9)) for value in values]


def test_weights_by_kind_are_multiplied() -> None:
    assert found([1, 2, 3, 4, 5, 6, 7, 8, 9]) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert found({"episode": {2: 0.5}}) == [1] * 5 + [0.5] * 4
    assert found({"episode": [1, 2, 3.5]}) == [1] * 3 + [2] * 2 + [3.5] * 4
    assert found({"task": {"one": 3, 1: 2}}) == [3] * 3 + [2] * 6
    assert found({"task": {"both": 3}}) == [3] * 9
    assert found({"flag": {StepFlag.KEY_MOMENT: 4, StepFlag.NOOP: 0.5}}) == [1, 4, 1, 4, 1, 1, 0.5, 2, 1]
    assert found({"task": {0: 2}, "episode": {0: 3}, "window": np.arange(1, 10)}) == [6, 12, 18, 4, 5, 6, 7, 8, 9]


def test_balance() -> None:
    by_task, by_episode = found(balance="task"), found(balance="episode")
    assert sum(by_task[:3]) == pytest.approx(sum(by_task[3:]))
    assert [sum(by_episode[a:b]) for a, b in ((0, 3), (3, 5), (5, 9))] == pytest.approx([1, 1, 1])
    twice = found({"task": {0: 2}}, balance="task")
    assert sum(twice[:3]) == pytest.approx(2 * sum(twice[3:]))


@pytest.mark.parametrize(
    ("weights", "balance", "says"),
    [
        ([1, 2], None, r"a number for each of 9 windows; got int64 \[2\]"),
        ([1] * 8 + [0], None, r"window 8: a finite number above 0; got .*0\.0.* never by weight"),
        ([1] * 8 + [float("nan")], None, "window 8"),
        ({"episode": {0: -1}}, None, "episode 0: a finite number above 0; got -1"),
        ({"episode": {3: 1}}, None, r"in \[0, 3\), rows of the store's episode table; got 3"),
        ({"episode": {"one": 1}}, None, "got 'one'"),
        ({"tasks": {0: 1}}, None, "by window, episode, task, flag; got 'tasks'"),
        ({"flag": {8: 1}}, None, "flags of StepFlag; got 8"),
        ({"flag": [1]}, None, "a mapping of StepFlag"),
        ({"task": {0: True}}, None, "got True"),
        (None, "tasks", "balance: 'task', 'episode' or None; got 'tasks'"),
    ],
)
def test_what_is_no_weight(weights: Any, balance: Any, says: str) -> None:
    with pytest.raises(WindowError, match=says):
        found(weights, balance)


@pytest.mark.parametrize("least", [1e-17, 1e-30])
def test_what_would_never_be_served_is_refused(least: float) -> None:
    with pytest.raises(WindowError, match="weights: "):
        Draws.by([1.0, least, 1.0], 3)

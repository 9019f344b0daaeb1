"""Intervals on outcomes whose truth is known: how often they hold it, and what is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tail.intervals import Interval, paired_difference, wilson

Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 90, 0.0, 0.0409),  # Wilson 1927: z² / (n + z²)
        (90, 90, 0.9591, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),
        (68, 90, 0.6575, 0.8327),
    ],
)  # fmt: skip
def test_wilson_by_hand(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((k / n, low, high), abs=1e-4)


@given(st.integers(1, 300), st.data())
def test_wilson_solves_its_equation(n: int, data: st.DataObject) -> None:
    """The limits are the shares from which the observed one is z standard deviations away."""
    k = data.draw(st.integers(0, n))
    found = wilson(k, n, 1.96)
    for limit in (found.low, found.high):
        if 0 < limit < 1 and limit != found.value:
            assert abs(k / n - limit) == pytest.approx(1.96 * np.sqrt(limit * (1 - limit) / n), rel=1e-6)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3, 0.5, 0.8, 0.97])
def test_wilson_holds_the_truth_in_about_95_of_100(p: float) -> None:
    hits = [
        found.low <= p <= found.high for found in (wilson(int(k), 90) for k in np.random.default_rng(0).binomial(90, p, 4000))
    ]
    assert 0.91 <= np.mean(hits) <= 0.99


@pytest.mark.parametrize("bad", [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_count(bad: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="0 ≤ successes ≤ trials"):
        wilson(*bad)


def simulated(rng: np.random.Generator, *, n_seeds: int = 3, seed_sd: float, state_sd: float, gain: float = 0.0) -> Pair:
    """Two schemes' outcomes from 30 states: each scheme has good and bad seeds, and states that suit it."""

    def one(mean: float) -> NDArray[np.bool_]:
        p = mean + rng.normal(0, seed_sd, (n_seeds, 1)) + rng.normal(0, state_sd, (1, 30))
        return rng.random((n_seeds, 30)) < p

    return one(0.5 - gain / 2), one(0.5 + gain / 2)


@pytest.mark.parametrize(
    ("seed_sd", "state_sd", "n_seeds", "least"),
    [
        (0.0, 0.0, 3, 0.95),  # nothing but chance: too wide, as is known of this bootstrap (Owen 2007)
        (0.05, 0.15, 3, 0.95),
        (0.1, 0.15, 3, 0.93),
        (0.1, 0.15, 12, 0.95),
        (0.2, 0.15, 3, 0.85),  # three seeds that differ by 20 points say little about a fourth: too narrow
        (0.2, 0.15, 12, 0.93),
    ],
)
@pytest.mark.parametrize("gain", [0.0, pytest.param(0.2, marks=pytest.mark.slow(reason="all again for schemes that differ"))])
def test_the_paired_interval_holds_the_truth(seed_sd: float, state_sd: float, n_seeds: int, least: float, gain: float) -> None:
    rng, hits = np.random.default_rng(2), []
    for repeat in range(200):
        pair = simulated(rng, n_seeds=n_seeds, seed_sd=seed_sd, state_sd=state_sd, gain=gain)
        found = paired_difference(*pair, n_resamples=300, seed=repeat)
        hits.append(found.low <= gain <= found.high)
    assert np.mean(hits) >= least


def test_a_difference_that_is_there_is_seen() -> None:
    """At the size of the experiment: 3 seeds of 30 states, 40 points apart."""
    rng = np.random.default_rng(6)
    pairs = [simulated(rng, seed_sd=0.05, state_sd=0.15, gain=0.4) for _ in range(100)]
    assert np.mean([paired_difference(*pair, n_resamples=300).low > 0 for pair in pairs]) >= 0.9


def test_what_both_share_cancels() -> None:
    """States that are hard for both schemes widen each one's own interval, and not that of the difference."""
    rng = np.random.default_rng(3)
    hard = rng.random((3, 30)) < 0.5
    found = paired_difference(hard, hard)
    assert found == Interval(0.0, 0.0, 0.0)
    apart = paired_difference(hard, rng.permuted(hard, axis=1))
    assert apart.high - apart.low > 0.15


def test_bad_seeds_widen_it() -> None:
    """Ninety outcomes of which each seed's are alike are three outcomes, not ninety."""
    a = np.zeros((3, 30))
    one_seed_fails, spread = np.array([[1.0], [1.0], [0.0]]) * np.ones((3, 30)), np.zeros((3, 30))
    spread.flat[np.random.default_rng(4).permutation(90)[:60]] = 1
    by_seed, mixed = paired_difference(a, one_seed_fails), paired_difference(a, spread)
    assert by_seed.value == mixed.value == pytest.approx(2 / 3)
    assert by_seed.high - by_seed.low > 2 * (mixed.high - mixed.low)


def test_the_same_numbers_each_time() -> None:
    a, b = simulated(np.random.default_rng(5), seed_sd=0.1, state_sd=0.1, gain=0.3)
    assert paired_difference(a, b) == paired_difference(a, b)
    # two seeds may agree: the ends of an interval are multiples of a ninetieth
    assert len({paired_difference(a, b, seed=seed) for seed in range(8)}) > 1
    back = paired_difference(b, a)
    assert back.value == pytest.approx(-paired_difference(a, b).value)


@pytest.mark.parametrize("shapes", [((3, 30), (3, 29)), ((30,), (30,)), ((0, 3), (0, 3))])
def test_arrays_that_do_not_pair_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"two arrays \[seeds, states\] alike"):
        paired_difference(*map(np.zeros, shapes))

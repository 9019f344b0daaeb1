"""The statistics of the shuffle.

Every statistic is a z-score that is standard normal (nearly) for a uniform shuffle. Seeds are fixed, so a run is
deterministic; the threshold |z| < 4 would fail 1 in 16,000 honest statistics if they were not.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from effort import some
from order_cases import (
    make,
)

from robozarr.loader.windows import permutation as module

I64 = npt.NDArray[np.int64]
Z_MAX = 4.0
N_EPOCHS = {5: 20_000, 10: 20_000, 100: 2_000, 1_000: 400, 100_000: 40, 1_000_000: 12}
FEWER = some(1, 4)
"""By how much: with fewer numbers a statistic sees less, and is as exact."""


def chi_square_z(counts: npt.NDArray[np.int64], expected: float, n_free: int, scale: float = 1.0) -> float:
    """Turn a chi-square statistic into a z-score (Wilson and Hilferty)."""
    ratio = scale * float(((counts - expected) ** 2).sum()) / expected / n_free
    spread = 2 / (9 * n_free)
    return float((ratio ** (1 / 3) - (1 - spread)) / spread**0.5)


@lru_cache(maxsize=1)
def shuffles(n: int) -> I64:
    """Return int32 [n_epochs, n]: the first epochs of one seed."""
    n_epochs = N_EPOCHS[n] // FEWER
    order, rows = make(n, 2024), np.arange(n)
    if n <= 1_000:
        flat = order.windows(np.tile(rows, n_epochs), np.repeat(np.arange(n_epochs), n))
        return flat.reshape(n_epochs, n)
    return np.stack([order.windows(rows, epoch) for epoch in range(n_epochs)])


MILLION = pytest.param(1_000_000, marks=pytest.mark.slow(reason="a million numbers, twelve times"))
by_n = pytest.mark.parametrize("n", [*list(N_EPOCHS)[:-1], MILLION])


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("over", ["seeds", "epochs"])
def test_all_permutations_are_equally_frequent(n: int, over: str) -> None:
    every = {p: i for i, p in enumerate(permutations(range(n)))}
    if over == "seeds":
        each = some(60, 20)
        drawn = np.array([make(n, seed).windows(range(n)) for seed in range(each * len(every))])
    else:
        each = 500
        n_epochs = each * len(every)
        drawn = make(n, 9).windows(np.tile(np.arange(n), n_epochs), np.repeat(np.arange(n_epochs), n)).reshape(-1, n)
    counts = np.bincount([every[tuple(row)] for row in drawn.tolist()], minlength=len(every))
    assert abs(chi_square_z(counts, each, len(every) - 1)) < Z_MAX


@by_n
def test_every_value_comes_to_every_position(n: int) -> None:
    drawn = shuffles(n)
    n_bins = min(n, 10)
    to_bin = np.arange(n) * n_bins // n
    table = np.bincount((to_bin[None, :] * n_bins + to_bin[drawn]).ravel(), minlength=n_bins**2)
    # Positions and values are each used once: cells spread n/(n-1) times (n_bins-1)², not n_bins²-1.
    z = chi_square_z(table, drawn.size / n_bins**2, (n_bins - 1) ** 2, scale=(n - 1) / n)
    assert abs(z) < Z_MAX


@by_n
def test_neighbours_are_uncorrelated(n: int) -> None:
    values = shuffles(n) - (n - 1) / 2
    lags = {1, 2, 64 % n, module._domain(n)[1] % n} - {0}
    for lag in lags:
        serial = (values * np.roll(values, lag, axis=1)).mean(axis=1) / ((n * n - 1) / 12)
        # A uniform shuffle has mean -1/(n-1), and spread about 1/√n: taken from the sample.
        z = (serial.mean() + 1 / (n - 1)) / serial.std(ddof=1) * len(serial) ** 0.5
        assert abs(z) < Z_MAX, lag
        assert 0.3 < serial.std(ddof=1) * n**0.5 < 2, lag


@by_n
def test_steps_between_neighbours_are_uniform(n: int) -> None:
    drawn = shuffles(n)
    for lag in {1, module._domain(n)[1] % n} - {0}:
        # In [1, n), each as likely. In a short row steps hang together: the first one only.
        step = (drawn[:, lag:] - drawn[:, :-lag])[:, : n if n > 100 else 1] % n
        n_bins = min(n - 1, 50)
        counts = np.bincount(((step - 1) * n_bins // (n - 1)).ravel(), minlength=n_bins)
        sizes = np.bincount(np.arange(n - 1) * n_bins // (n - 1))
        z = chi_square_z(counts * (sizes.mean() / sizes), step.size / n_bins, n_bins - 1)
        assert abs(z) < Z_MAX, lag


@by_n
def test_fixed_points_are_as_frequent_as_by_chance(n: int) -> None:
    drawn = shuffles(n)
    fixed = (drawn == np.arange(n)).sum(axis=1)  # mean 1, variance 1 for every n ≥ 2
    assert abs(fixed.sum() - len(fixed)) / len(fixed) ** 0.5 < Z_MAX


@by_n
def test_epochs_are_uncorrelated(n: int) -> None:
    drawn = shuffles(n)
    values = drawn - (n - 1) / 2
    products = (values[1:] * values[:-1]).mean(axis=1) / ((n * n - 1) / 12)  # mean 0, variance 1/(n-1)
    assert abs(products.mean()) * (len(products) * (n - 1)) ** 0.5 < Z_MAX
    same = (drawn[1:] == drawn[:-1]).sum(axis=1)
    assert abs(same.sum() - len(same)) / len(same) ** 0.5 < Z_MAX


@pytest.mark.parametrize("n", [4_096, 1 << 16])
def test_one_bit_of_the_seed_changes_everything(n: int) -> None:
    base = make(n, 77).windows(np.arange(n))
    n_bits = n.bit_length() - 1
    same, flips = 0, np.zeros(n_bits)
    for bit in range(64):
        other = make(n, 77 ^ (1 << bit)).windows(np.arange(n))
        same += int((base == other).sum())
        flips += [((base ^ other) >> i & 1).mean() for i in range(n_bits)]
    assert abs(same - 64) / 8 < Z_MAX
    # over the values of a permutation a bit is set exactly n/2 times, so flips have variance about 1/(4n) a seed
    assert np.abs(flips / 64 - 0.5).max() / (0.5 / (64 * n) ** 0.5) < Z_MAX


@pytest.mark.parametrize("n", [4_097, 5_000])
def test_the_smallest_networks_are_even_half_the_time(n: int) -> None:
    """A Feistel network could be confined to even permutations; one of 4,097 elements is the first that is used."""
    n_orders, n_even = 100, 0
    for seed in range(n_orders):
        image = make(n, seed).windows(np.arange(n)).tolist()
        n_cycles, seen = 0, bytearray(n)
        for i in range(n):
            n_cycles += not seen[i]
            while not seen[i]:
                seen[i] = 1
                i = image[i]
        n_even += (n - n_cycles) % 2 == 0
    assert abs(n_even - n_orders / 2) / (n_orders / 4) ** 0.5 < Z_MAX


@pytest.mark.parametrize("n", [4_097, 1_000_000])
def test_pairs_of_positions_are_uniform_over_seeds(n: int) -> None:
    n_keys, n_bins = 100_000, 8
    order = make(n, 5)
    for pair in ((0, 1), (0, module._domain(n)[1]), (n // 2, n - 1)):
        first, second = (order.windows(np.full(n_keys, p), np.arange(n_keys)) * n_bins // n for p in pair)
        counts = np.bincount(first * n_bins + second, minlength=n_bins**2)
        assert abs(chi_square_z(counts, n_keys / n_bins**2, n_bins**2 - 1)) < Z_MAX, pair


def test_blocks_of_a_group_are_any_blocks() -> None:
    """Locality mode: over epochs every block, the short last one included, comes to every place."""
    order, n_epochs = make(103, 3, (10, 1)), 8_000  # 11 blocks, the last of 3 windows
    windows = order.windows(np.tile(np.arange(103), n_epochs), np.repeat(np.arange(n_epochs), 103))
    blocks = windows.reshape(n_epochs, 103) // 10
    for column in (0, 102):
        assert abs(chi_square_z(np.bincount(blocks[:, column], minlength=11), n_epochs / 11, 10)) < Z_MAX

"""Order of an epoch: permutations and mixtures against naive versions, and their size."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from math import gcd

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_cases import (
    MASK,
    epochs,
    localities,
    make,
    naive_key,
    naive_local,
    naive_mix,
    naive_permute,
    quick,
    seeds,
)

from robozarr.loader.windows import permutation as module
from robozarr.loader.windows.order import Mixture, Order, OrderState, Share
from robozarr.schemas.errors import WindowError

I64 = npt.NDArray[np.int64]


# --- permutations ---


@quick
@given(n=st.integers(0, 300) | st.integers(4090, 6000), seed=seeds, epoch=epochs, locality=localities)
def test_an_epoch_is_a_permutation(n: int, seed: int, epoch: int, locality: tuple[int, int] | None) -> None:
    order = make(n, seed, locality)
    windows = order.windows(np.arange(n), epoch)
    assert windows.dtype == np.int64
    assert np.array_equal(np.sort(windows), np.arange(n))
    cut = n // 3
    pieces = [order.windows(np.arange(cut), epoch), order.windows(np.arange(cut, n), epoch)]
    assert np.array_equal(np.concatenate(pieces), windows)
    assert np.array_equal(order.windows(np.arange(n)[::-1], np.full(n, epoch)), windows[::-1])


LARGE = [pytest.param(n, marks=pytest.mark.slow(reason="a million numbers, three times")) for n in (1_000_000, 1 << 20)]


@pytest.mark.parametrize("n", [*range(40), 4095, 4096, 4097, 65_537, 99_991, *LARGE, 1_234_567])
def test_an_epoch_is_a_permutation_at_every_kind_of_n(n: int) -> None:
    for order in (make(n), make(n, locality=(64, 100)), make(n, locality=(3, 2))):
        for epoch in range(3 if n < 100 else 1):
            assert np.array_equal(np.bincount(order.windows(np.arange(n), epoch), minlength=n), np.ones(n))


@quick
@given(n=st.integers(1, 60) | st.integers(4097, module.N_MAX), seed=seeds, epoch=epochs, data=st.data())
def test_windows_equal_the_naive_version(n: int, seed: int, epoch: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
    key = naive_key(naive_key(seed, 0, epoch), 0)
    assert make(n, seed).windows(positions, epoch).tolist() == [naive_permute(p, n, key) for p in positions]


@quick
@given(n=st.integers(1, 90), seed=seeds, epoch=epochs, block=st.integers(1, 12), group=st.integers(1, 6))
def test_locality_equals_the_naive_version(n: int, seed: int, epoch: int, block: int, group: int) -> None:
    windows = make(n, seed, (block, group)).windows(np.arange(n), epoch)
    assert windows.tolist() == naive_local(n, seed, epoch, block, group)


def test_locality_equals_the_naive_version_beyond_the_tables() -> None:
    n, locality = 13_007, (50, 90)
    assert make(n, 7, locality).windows(np.arange(0, n, 97), 1).tolist() == naive_local_at(n, 7, 1, *locality)


def naive_local_at(n: int, seed: int, epoch: int, block: int, group: int) -> list[int]:
    key = naive_key(seed, 0, epoch)
    blocks = [naive_permute(i, n // block, naive_key(key, 1)) for i in range(n // block)]
    blocks.insert(naive_key(key, 2) % (n // block + 1), n // block)
    groups = [blocks[i : i + group] for i in range(0, len(blocks), group)]
    inside = [[w for b in g for w in range(b * block, min(n, (b + 1) * block))] for g in groups]
    where = [(g, i) for g, windows in enumerate(inside) for i in range(len(windows))]
    small: dict[int, list[int]] = {}  # sort a small group once
    out = []
    for g, i in where[::97]:
        size = len(inside[g])
        if size <= module.TABLE_MAX and g not in small:
            hashes = [naive_mix((naive_key(key, 3, g) + 0x9E3779B97F4A7C15 * (j + 1)) & MASK) for j in range(size)]
            small[g] = sorted(range(size), key=hashes.__getitem__)
        out.append(inside[g][small[g][i] if g in small else naive_permute(i, size, naive_key(key, 3, g))])
    return out


@quick
@given(n=st.integers(1, 20_000), seed=seeds, locality=st.tuples(st.integers(1, 300), st.integers(1, 40)))
def test_a_group_holds_whole_blocks_only(n: int, seed: int, locality: tuple[int, int]) -> None:
    block, group = locality
    touched = make(n, seed, locality).windows(np.arange(n)) // block
    first, last = np.full(-(-n // block), n), np.zeros(-(-n // block), np.int64)
    np.minimum.at(first, touched, np.arange(n))
    np.maximum.at(last, touched, np.arange(n))
    assert (last - first < block * group).all()


def test_the_order_never_changes() -> None:
    """A changed value here breaks the resume of every saved run: raise the version of the state."""
    assert make(10, 1).windows(range(10), 2).tolist() == [5, 7, 8, 1, 4, 6, 9, 0, 3, 2]
    assert make(10**9, 1).windows(range(4), 2).tolist() == [896606979, 663477128, 227272065, 749230635]
    assert make(10**9, 1, (64, 256)).windows(range(4), 2).tolist() == [119344425, 872583342, 43248909, 191702317]


def test_without_shuffle_windows_ascend() -> None:
    order = Order(n_windows=7, shuffle=False)
    assert order.windows(range(7), 3).tolist() == list(range(7))


@quick
@given(weights=st.lists(st.integers(1, 5), max_size=50), seed=seeds, locality=localities)
def test_weights_repeat_and_never_drop(weights: list[int], seed: int, locality: tuple[int, int] | None) -> None:
    order = replace(make(len(weights), seed, locality), weights=np.array(weights, np.uint8))
    windows = order.windows(np.arange(order.n_positions), 1)
    assert np.bincount(windows, minlength=len(weights)).tolist() == weights
    assert replace(order, seed=seed ^ 1).n_positions == sum(weights)
    again: Order = pickle.loads(pickle.dumps(order))
    assert again == order
    assert np.array_equal(again.windows(np.arange(order.n_positions), 1), windows)


# --- mixtures ---


@quick
@given(
    parts=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=4),
    seed=seeds,
    epoch=st.integers(0, 1 << 30),
)
def test_mixture_equals_the_naive_version(parts: list[tuple[int, int]], seed: int, epoch: int) -> None:
    orders = tuple(Order(n_windows=n, seed=seed, stream=i) for i, (n, _) in enumerate(parts))
    mixture = Mixture(orders=orders, weights=tuple(w for _, w in parts), seed=seed)
    common = gcd(*(weight for _, weight in parts))
    weights = [weight // common for _, weight in parts]
    n_cycles = max(-(-n // weight) for (n, _), weight in zip(parts, weights, strict=True))
    length = sum(weights)
    assert mixture.n_positions == n_cycles * length
    positions = np.arange(mixture.n_positions)
    store, window = mixture.windows(positions, epoch)
    _, draw = mixture.draws(positions, epoch)
    for cycle in range(n_cycles):
        assert Counter(store[cycle * length : (cycle + 1) * length].tolist()) == dict(enumerate(weights))
    for i, order in enumerate(orders):
        weight = weights[i]
        assert sorted(draw[store == i].tolist()) == list(range(n_cycles * weight))
        assert set(window[store == i].tolist()) == set(range(order.n_windows))
        n_passes = -(-n_cycles * weight // order.n_windows)
        for d, w in zip(draw[store == i].tolist(), window[store == i].tolist(), strict=True):
            naive = order.windows([d % order.n_windows], epoch * n_passes + d // order.n_windows)
            assert w == naive[0]
    half = len(positions) // 2
    assert np.array_equal(mixture.windows(positions[half:], epoch)[1], window[half:])


def test_mixture_by_size_is_each_window_once_and_gives_every_rank_every_store() -> None:
    sizes = (300, 200, 100)
    mixture = Mixture(orders=tuple(Order(n_windows=n, stream=i) for i, n in enumerate(sizes)), weights=sizes)
    store, window = mixture.windows(np.arange(mixture.n_positions))
    assert mixture.weights == (3, 2, 1)
    every = [(i, w) for i, n in enumerate(sizes) for w in range(n)]
    assert sorted(zip(store.tolist(), window.tolist(), strict=True)) == every
    for world in range(1, 9):
        assert all(set(store[rank::world].tolist()) == {0, 1, 2} for rank in range(world))


def test_mixture_resumes_and_refuses_another() -> None:
    mixture = Mixture(orders=(Order(n_windows=9), Order(n_windows=4, stream=1)), weights=(2, 1))
    state = OrderState(epoch=1).after(mixture, Share(batch_size=4), 2)
    saved = json.loads(json.dumps(state.state_dict(mixture)))
    assert OrderState.load_state_dict(saved, mixture) == state
    with pytest.raises(WindowError, match=r"weights: saved \[2, 1\], now \[1, 1\]"):
        OrderState.load_state_dict(saved, replace(mixture, weights=(1, 1)))


# --- size ---


@pytest.mark.parametrize("locality", [None, (256, 64), (64, 16)])
def test_a_billion_windows_need_no_memory_per_window(locality: tuple[int, int] | None) -> None:
    n = 10**9
    order = make(n, 11, locality)
    order.windows(np.arange(10), 1)
    tracemalloc.start()
    try:
        for start in range(0, n, n // 20):
            order.windows(np.arange(start, start + 4096), 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    # far apart, each position of a small group costs a sort of its group: fewer of them
    sample = order.windows(np.arange(0, n, 2_003 if locality is None else 500_009), 1)
    assert sample.min() >= 0
    assert sample.max() < n
    assert len(np.unique(sample)) == len(sample)

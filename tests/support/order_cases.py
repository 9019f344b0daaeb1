"""Naive versions of orders and shares, one position at a time, in Python's integers; and what to draw for both."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from effort import examples
from hypothesis import strategies as st

from robozarr.loader.windows import permutation as module
from robozarr.loader.windows.order import Order

I64 = npt.NDArray[np.int64]
MASK = (1 << 64) - 1

quick = examples(60)
seeds = st.integers(0, MASK)
epochs = st.integers(0, 1 << 40)
localities = st.none() | st.tuples(st.integers(1, 40), st.integers(1, 12))


def make(n: int, seed: int = 0, locality: tuple[int, int] | None = None) -> Order:
    block, group = locality or (None, None)
    return Order(n_windows=n, seed=seed, block=block, group=group)


def naive_mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def naive_key(*words: int) -> int:
    key = 0
    for word in words:
        key = naive_mix((key + 0x9E3779B97F4A7C15 + word) & MASK)
    return key


def naive_permute(position: int, n: int, key: int) -> int:
    if n <= module.TABLE_MAX:
        hashes = [naive_mix((key + 0x9E3779B97F4A7C15 * (i + 1)) & MASK) for i in range(n)]
        return sorted(range(n), key=hashes.__getitem__)[position]
    sides = module._domain(n)
    while True:
        a, b = divmod(position, sides[1])
        for i in range(8):
            h = (b + key + naive_key(i, 1)) * 0x9E3779B97F4A7C15 & MASK
            h = (h ^ (h >> 32)) * (naive_key(i, 2) | 1) & MASK
            a, b = b, (a + ((h >> 32) * sides[i % 2] >> 32)) % sides[i % 2]
        position = a * sides[1] + b
        if position < n:
            return position


def naive_local(n: int, seed: int, epoch: int, block: int, group: int) -> list[int]:
    key = naive_key(seed, 0, epoch)
    full = n // block
    blocks = [naive_permute(i, full, naive_key(key, 1)) for i in range(full)]
    if n % block:
        blocks.insert(naive_key(key, 2) % (full + 1), full)
    order = []
    for g in range(-(-len(blocks) // group)):
        inside = [w for b in blocks[g * group : (g + 1) * group] for w in range(b * block, min(n, (b + 1) * block))]
        order += [inside[naive_permute(i, len(inside), naive_key(key, 3, g))] for i in range(len(inside))]
    return order


def naive_batches(n: int, start: int, rank: int, world: int, size: int, drop_last: bool) -> list[list[int]]:
    batches = []
    for begin in range(start, n, world * size):
        positions = list(range(begin, min(n, begin + world * size)))
        mine = [p for p in positions if (p - start) % world == rank]
        if len(positions) == world * size or (mine and not drop_last):
            batches.append(mine)
    return batches

"""The order of an epoch: position → window, and mixtures of stores; imports neither torch nor zarr.

Everything is a pure function of (seed, epoch), evaluated for arrays of positions; the permutation is
``loader.windows.permutation``'s, shares of ranks are ``loader.windows.share``'s, a run's position ``loader.windows.state``'s.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from robozarr.loader.windows.cycles import Cycles
from robozarr.loader.windows.draws import Draws
from robozarr.loader.windows.permutation import N_MAX, hash_key, key_at, permute
from robozarr.loader.windows.share import Share, check_integer
from robozarr.loader.windows.state import OrderState
from robozarr.schemas.errors import WindowError

__all__ = ["Mixture", "Order", "OrderState", "Share"]

U64: TypeAlias = npt.NDArray[np.uint64]
I64: TypeAlias = npt.NDArray[np.int64]

_WINDOWS, _BLOCKS, _SHORT, _GROUPS, _CYCLES, _DRAWS = range(6)  # last word of a key: what it is used for


def _as_positions(positions: npt.ArrayLike, n: int) -> U64:
    array = np.atleast_1d(np.asarray(positions))
    if array.size == 0:
        return np.empty(0, np.uint64)
    if array.dtype.kind not in "iu" or array.ndim != 1 or array.min() < 0 or array.max() >= n:
        raise WindowError(
            f"order · positions: integers in [0, {n}), one axis; got {array.dtype} {list(array.shape)} "
            f"from {array.min()} to {array.max()} → take them from Share.positions of this order's n_positions"
        )
    return array.astype(np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order in which an epoch visits the selected windows of one store.

    >>> order = Order(n_windows=6, seed=3)
    >>> sorted(order.windows(range(6), epoch=0).tolist())
    [0, 1, 2, 3, 4, 5]
    >>> Order(n_windows=3, shuffle=False, weights=[1, 2, 1]).windows(range(4), epoch=0).tolist()
    [0, 1, 1, 2]
    """

    n_windows: int
    """Number of selected windows; a window here is its index in that selection, in [0, n_windows)."""
    seed: int = 0
    """In [0, 2⁶⁴). The same on every rank."""
    stream: int = 0
    """Distinguishes orders that share a seed, as the orders of a mixture must."""
    shuffle: bool = True
    """False: windows in ascending order, every epoch."""
    block: int | None = None
    """Number of neighbouring windows that stay together, for slow storage. None: all windows are shuffled, which mixes best."""
    group: int | None = None
    """With `block`: number of blocks whose windows are shuffled together. block · group windows are in use at a time."""
    weights: npt.ArrayLike | None = field(default=None, repr=False, compare=False)
    """int [n_windows], at least 1: how often an epoch repeats each window. None: once each, and no array is held."""
    draws: Draws | None = field(default=None, repr=False, compare=False)
    """How often an epoch serves each window, where that is no whole number. Not together with `weights`."""
    weights_crc: int | None = field(default=None, init=False)
    """Replaces `weights` where orders are compared, and in a state."""
    _ends: I64 | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_integer("n_windows", self.n_windows, 0, N_MAX)
        check_integer("seed", self.seed, 0, (1 << 64) - 1)
        check_integer("stream", self.stream, 0, N_MAX)
        if (self.block is None) != (self.group is None) or (self.block is not None and not self.shuffle):
            raise WindowError(
                f"order · locality: block and group go together, with shuffle; got block={self.block}, "
                f"group={self.group}, shuffle={self.shuffle} → pass both, such as block=256, group=64, or neither"
            )
        if self.block is not None and self.group is not None:
            check_integer("block", self.block, 1, 1 << 30)
            check_integer("group", self.group, 1, 1 << 30)
        if self.draws is not None:
            if self.weights is not None or len(self.draws.ends) != self.n_windows:
                raise WindowError(
                    f"order · draws: of {self.n_windows} windows, and without weights; they are of {len(self.draws.ends)} → "
                    "pass one of the two"
                )
            object.__setattr__(self, "weights_crc", self.draws.crc)
        if self.weights is not None:
            weights = np.array(self.weights)
            bad = weights.size > 0 and (weights.dtype.kind not in "iu" or weights.min() < 1)
            if bad or weights.shape != (self.n_windows,) or weights.sum(dtype=np.float64) > N_MAX:
                raise WindowError(
                    f"order · weights: an integer of at least 1 for each of {self.n_windows} windows, their sum at "
                    f"most {N_MAX}; got {weights.dtype} {list(weights.shape)}, least "
                    f"{weights.min() if weights.size else None} → leave windows out by a filter, never by weight"
                )
            ends = np.cumsum(weights, dtype=np.int64)
            weights.flags.writeable = ends.flags.writeable = False
            object.__setattr__(self, "weights", weights)
            object.__setattr__(self, "_ends", ends)
            object.__setattr__(self, "weights_crc", zlib.crc32(ends.astype("<i8").tobytes()))

    @property
    def n_positions(self) -> int:
        """Positions of an epoch: n_windows, or the sum of the weights."""
        if self.draws is not None:
            return self.draws.n_positions
        return self.n_windows if self._ends is None else int(self._ends[-1]) if self._ends.size else 0

    def windows(self, positions: npt.ArrayLike, epoch: int | npt.NDArray[Any] = 0) -> I64:
        """Map positions of an epoch to windows; over all positions, each occurs exactly once (`weights` times, or by `draws`).

        Parameters
        ----------
        positions : int [m], in [0, n_positions)
            In any order and number; blocks of 4,096 and more are fast.
        epoch : int, or int [m] for one epoch a position

        Returns
        -------
        int64 [m], in [0, n_windows)

        Raises
        ------
        WindowError
            A position is outside the epoch.

        >>> Order(n_windows=10, seed=1).windows([0, 1]).shape
        (2,)
        """
        virtual = _as_positions(positions, self.n_positions)
        if self.block is not None and virtual.size:
            virtual = self._shuffled_in_groups(virtual, epoch)
        elif self.shuffle and virtual.size:
            virtual = permute(virtual, self.n_positions, hash_key(hash_key(self.seed, self.stream, epoch), _WINDOWS))
        if self.draws is not None:
            return self.draws.windows(virtual, int(hash_key(self.seed, self.stream, _DRAWS)[0]), epoch)
        windows = virtual.astype(np.int64)
        return windows if self._ends is None else np.searchsorted(self._ends, windows, side="right").astype(np.int64)

    def _shuffled_in_groups(self, positions: U64, epoch: int | npt.NDArray[Any]) -> U64:
        """Shuffle blocks, then the windows inside each group of blocks that came to lie side by side.

        The last block may be short. It goes to a random place among the shuffled full blocks; its group has less.
        """
        size, group = int(self.block or 1), int(self.group or 1)
        length = size * group
        n_full, n_blocks = self.n_positions // size, -(-self.n_positions // size)
        gap = n_blocks * size - self.n_positions  # what the short block lacks
        key = hash_key(self.seed, self.stream, epoch)
        # place and group of the short block; past the end where none is short
        short: U64 = hash_key(key, _SHORT) % n_blocks if gap else np.array([n_blocks], np.uint64)
        g_short = short // group
        # number positions as if every block were full: skip the gap after the short block's group …
        full = positions.copy()
        full[positions >= (g_short + 1) * length - gap] += gap
        g = full // length
        n_inside = np.minimum(length, n_blocks * size - g * length)
        n_inside[g == g_short] -= gap
        inside = full - g * length
        keys = hash_key(key, _GROUPS, g)
        for n in np.unique(n_inside):  # at most three: the usual group, the last one, the one with the short block
            where = np.flatnonzero(n_inside == n)
            inside[where] = permute(inside[where], int(n), keys[where])
        # … and, inside that group, after the short block
        inside[(g == g_short) & (inside >= (short + 1) * size - gap - g * length)] += gap
        place = g * group + inside // size
        block: U64 = np.full_like(place, n_full)
        where = np.flatnonzero(place != short)
        rank = place[where]
        rank[rank > key_at(short, where)] -= 1
        block[where] = permute(rank, n_full, key_at(hash_key(key, _BLOCKS), where))
        windows: U64 = block * size + inside % size
        return windows

    def expected_coverage(self, n_epochs: float = 1) -> float:
        """The share of windows that `n_epochs` epochs are expected to serve at least once."""
        if self.draws is not None:
            return self.draws.expected_coverage(n_epochs)
        return min(1.0, n_epochs)

    def fingerprint(self) -> dict[str, Any]:
        """What decides the order, as JSON values: orders with equal fingerprints are the same function."""
        names = ("n_windows", "seed", "stream", "shuffle", "block", "group", "weights_crc")
        values = {name: getattr(self, name) for name in names}
        if self.draws is not None:
            values["n_positions"] = self.draws.n_positions
        return {name: int(value) if isinstance(value, np.integer) else value for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """One order over several stores, that draws from them by weights.

    Positions come in cycles (``loader.windows.cycles``). Of whole weights a cycle holds weights[i] draws of store i; of weights
    with fractions, what their shares come to so far. Each cycle is shuffled (a fixed pattern would give a store to always the
    same ranks). The draws of a store run through its own order; a store that ends begins anew, in the order of its next epoch.
    The mixture's epoch ends with the first whole cycle by which every store has been covered; each epoch begins every store
    anew. Weights that are the stores' sizes give each window exactly once.

    >>> mixture = Mixture(orders=(Order(n_windows=4), Order(n_windows=1, stream=1)), weights=(2, 1))
    >>> store, window = mixture.windows(range(mixture.n_positions))
    >>> sorted(zip(store.tolist(), window.tolist()))
    [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 0)]
    """

    orders: tuple[Order, ...]
    """One for each store, none empty; no two share seed and stream."""
    weights: tuple[int, ...] | tuple[float, ...]
    """Whole ones, at least 1 each: draws of each store in a cycle; common factors are taken out. Else shares of all draws."""
    seed: int = 0
    """Shuffles the cycles."""
    _cycles: Cycles = field(init=False, repr=False, compare=False)
    _n_cycles: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_integer("seed", self.seed, 0, (1 << 64) - 1)
        apart = len({(order.seed, order.stream) for order in self.orders}) == len(self.orders) == len(self.weights) > 0
        if not apart or not all(order.n_positions for order in self.orders):
            raise WindowError(
                "order · mixture: one weight per order, no order empty, and no two with the same seed and stream; got "
                f"weights {self.weights} for {self.orders} → leave empty stores out, and give the orders stream=0, 1, …"
            )
        cycles = Cycles.by(self.weights)
        object.__setattr__(self, "_cycles", cycles)
        object.__setattr__(self, "weights", cycles.weights)
        object.__setattr__(self, "_n_cycles", cycles.n_to_cover([order.n_positions for order in self.orders]))
        check_integer("mixture positions", self.n_positions, 1, N_MAX)

    @property
    def n_positions(self) -> int:
        """Positions of an epoch."""
        return self._n_cycles * self._cycles.length

    @property
    def n_windows(self) -> int:
        """Windows of all stores."""
        return sum(order.n_windows for order in self.orders)

    def draws(self, positions: npt.ArrayLike, epoch: int = 0) -> tuple[I64, I64]:
        """Map positions of an epoch to stores and to positions in the stream of each; arguments as in `windows`.

        A store's stream is its order's epochs end to end, as far as the mixture's epoch needs them.

        >>> Mixture(orders=(Order(n_windows=4),), weights=(1,)).draws([0, 3])[1].tolist()
        [0, 3]
        """
        at = _as_positions(positions, self.n_positions)
        length = self._cycles.length
        cycle, slot = np.divmod(at, np.uint64(length))
        slot = permute(slot, length, hash_key(self.seed, epoch, _CYCLES, cycle)).astype(np.int64)
        each, which = np.unique(cycle.astype(np.int64), return_inverse=True)
        before = self._cycles.before(each)
        ends = np.cumsum(self._cycles.before(each + 1) - before, axis=1)
        store = (slot[:, None] >= ends[which]).sum(axis=1)
        begins = np.where(store > 0, ends[which, store - 1], 0)
        return store, before[which, store] + slot - begins

    def windows(self, positions: npt.ArrayLike, epoch: int = 0) -> tuple[I64, I64]:
        """Map positions of an epoch to stores and windows.

        Parameters
        ----------
        positions : int [m], in [0, n_positions)
        epoch : int

        Returns
        -------
        store : int64 [m], which of `orders`
        window : int64 [m], of that store

        Raises
        ------
        WindowError
            A position is outside the epoch.

        >>> Mixture(orders=(Order(n_windows=4, shuffle=False),), weights=(1,)).windows([0, 3])[1].tolist()
        [0, 3]
        """
        store, draw = self.draws(positions, epoch)
        window = np.empty_like(draw)
        n_draws = self._cycles.before(np.array([self._n_cycles]))[0]
        for i, order in enumerate(self.orders):
            where = np.flatnonzero(store == i)
            passed, position = np.divmod(draw[where], order.n_positions)
            n_passes = -(-int(n_draws[i]) // order.n_positions)
            window[where] = order.windows(position, epoch * n_passes + passed)
        return store, window

    def expected_coverage(self, n_epochs: float = 1) -> float:
        """The share of windows that `n_epochs` epochs are expected to serve at least once."""
        n_draws = self._cycles.before(np.array([self._n_cycles]))[0]
        covered = [
            order.n_windows * order.expected_coverage(n_epochs * n / order.n_positions)
            for order, n in zip(self.orders, n_draws.tolist(), strict=True)
        ]
        return sum(covered) / self.n_windows

    def fingerprint(self) -> dict[str, Any]:
        """What decides the order, as JSON values: mixtures with equal fingerprints are the same function."""
        own = {"seed": int(self.seed), "weights": list(self.weights)}
        return own | {f"store {i}": order.fingerprint() for i, order in enumerate(self.orders)}

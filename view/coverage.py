"""Compute what random sampling sees compared with enumeration: by formula, checked by a simulation. Pure numpy.

The usual fine-tuning loader draws a file by weight, a demo of it, and a step t in [0, T - C), with C the length of the action
chunk. So the last C steps of an episode are never the anchor of a window, and drawing with replacement misses windows by
chance. Demos of T ≤ C steps have no such step: here they are never drawn, and a file without longer ones neither (the loader
fails on them, or drops them). Enumeration is this package's: every step is an anchor, each once an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import lgamma
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.windows.order import Order
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag
from robozarr.store.opened import Store

__all__ = ["MEASURES", "Coverage", "Sampler", "Weights", "measure_coverage"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]

Weights = Literal["steps", "demos", "equal"]
"""How files are drawn: by number of steps (RDT's rule), by number of demos, or all alike."""

MEASURES: Final = {
    "windows": "windows seen, of all",
    "episode tails": "windows seen, of those that begin in the last C steps of an episode",
    "key moments": "windows seen, of those that begin near a change of the gripper's command",
    "actions in a chunk": "actions read in the chunk of any window seen, of all steps",
}
"""Names of the measures. The last one favours random sampling most: a chunk also reads actions that are no window's anchor."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampler:
    """The random sampler for a store's episodes.

    >>> import numpy as np
    >>> sampler = Sampler.build(np.array([5, 2]), np.array([0, 0]), chunk=3, weights="steps")
    >>> sampler.probability.tolist()
    [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    """

    start: I64
    """int64 [n_episodes]: first row of each episode."""
    length: I64
    """int64 [n_episodes]: steps of each episode."""
    chunk: int
    """Steps of the action chunk, C."""
    order: I64
    """int64 [n_drawable]: episodes longer than C, by file."""
    first: I64
    """int64 [n_files]: where each file begins in `order`."""
    count: I64
    """int64 [n_files]: episodes of each file that can be drawn."""
    weight: F64
    """float64 [n_files]: probability of drawing each file; zero if it has no drawable episode."""

    @classmethod
    def build(cls, length: I64, source: NDArray[np.integer[Any]], *, chunk: int, weights: Weights) -> Self:
        """Make the sampler for episodes of `length` steps [n_episodes] from files `source` [n_episodes]."""
        length, n_files = np.asarray(length, np.int64), int(source.max()) + 1 if len(source) else 0
        drawable = np.flatnonzero(length > chunk)
        order = drawable[np.argsort(source[drawable], kind="stable")]
        count = np.bincount(source[order], minlength=n_files)
        each = {"steps": length.astype(np.float64), "demos": np.ones(len(length)), "equal": np.ones(len(length))}[weights]
        weight = np.asarray(np.bincount(source, weights=each, minlength=n_files), np.float64)
        weight = np.where(count > 0, np.ones(n_files) if weights == "equal" else weight, 0.0)
        return cls(
            start=np.cumsum(length) - length,
            length=length,
            chunk=chunk,
            order=order,
            first=np.cumsum(count) - count,
            count=count,
            weight=weight / weight.sum() if weight.any() else weight,
        )

    @property
    def probability(self) -> F64:
        """Probability that one draw has its anchor at each step of the store: float64 [n_steps]."""
        out = np.zeros(int(self.length.sum()))
        for file, (first, count) in enumerate(zip(self.first.tolist(), self.count.tolist(), strict=True)):
            for episode in self.order[first : first + count].tolist():
                steps, at = int(self.length[episode]) - self.chunk, int(self.start[episode])
                out[at : at + steps] = self.weight[file] / count / steps
        return out

    def draw(self, n: int, rng: np.random.Generator) -> I64:
        """Draw n anchors as the usual loader does: file, demo, step; none if no demo is longer than C."""
        if not self.order.size:
            return np.empty(0, np.int64)
        file = rng.choice(len(self.weight), size=n, p=self.weight)
        episode = self.order[self.first[file] + rng.integers(0, self.count[file])]
        drawn: I64 = self.start[episode] + rng.integers(0, self.length[episode] - self.chunk)
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Shares seen after some epochs, in [0, 1], by measure and epoch; NaN if a measure has no steps."""

    chunk: int
    draws: int
    """Draws per epoch."""
    weights: Weights
    seed: int
    n_steps: int
    epochs: tuple[int, ...]
    members: dict[str, int]
    """Number of steps of each measure."""
    random: dict[str, tuple[float, ...]]
    """Random sampling, computed."""
    random_simulated: dict[str, tuple[float, ...]]
    """Random sampling, simulated with the seed."""
    enumerated: dict[str, tuple[float, ...]]
    """Enumeration, computed."""
    enumerated_simulated: dict[str, tuple[float, ...]]
    """Enumeration, simulated in the loader's real order for the seed."""
    never: dict[str, float]
    """Share that random sampling can never see, however long it draws."""

    def to_json(self) -> dict[str, Any]:
        """The coverage as JSON values; null if a measure has no steps."""

        def clean(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: clean(item) for name, item in value.items()}
            if isinstance(value, list | tuple):
                return [clean(item) for item in value]
            return None if isinstance(value, float) and np.isnan(value) else value

        value: dict[str, Any] = clean(asdict(self))
        return value


def measure_coverage(
    store: Store,
    *,
    chunk: int = 64,
    draws: int | None = None,
    epochs: Sequence[int] = (1, 2, 5, 10),
    weights: Weights = "steps",
    seed: int = 0,
) -> Coverage:
    """Compare random sampling with enumeration on a store.

    Parameters
    ----------
    store : Store
    chunk : int
        C, steps of the action chunk; 64 is RDT's.
    draws : int, optional
        Draws an epoch. Default: as many as the store has steps, which is one epoch of enumeration.
    epochs : ascending ints
        After how many epochs to look.
    weights : "steps", "demos" or "equal"
        What a file is drawn by.
    seed : int
        Random seed of both simulations.

    Returns
    -------
    Coverage

    Raises
    ------
    WindowError
        If a number is out of range.
    """
    n = store.n_steps
    draws = n if draws is None else draws
    looks = tuple(epochs)
    if chunk < 1 or draws < 1 or not looks or looks[0] < 1 or list(looks) != sorted(set(looks)) or seed < 0:
        raise WindowError(
            f"coverage: chunk and draws of at least 1, epochs ascending from 1 on, a seed of at least 0; got chunk={chunk}, "
            f"draws={draws}, epochs={looks}, seed={seed} → pass numbers in these ranges"
        )
    sampler = Sampler.build(store.episodes.length, store.episodes.source, chunk=chunk, weights=weights)
    key = (store.index.flags & int(StepFlag.KEY_MOMENT)) != 0
    groups = {"windows": np.ones(n, np.bool_), "episode tails": tails(sampler), "key moments": key}
    p = sampler.probability
    p_read = read_by(sampler, p)
    rng, order = np.random.default_rng(seed), Order(n_windows=n, seed=seed)
    return Coverage(
        chunk=chunk,
        draws=draws,
        weights=weights,
        seed=seed,
        n_steps=n,
        epochs=looks,
        members={**{name: int(group.sum()) for name, group in groups.items()}, "actions in a chunk": n},
        random=_shares(groups, [(_seen_of(p, draws * e), _seen_of(p_read, draws * e)) for e in looks]),
        random_simulated=_shares(groups, _simulate(sampler, looks, lambda _: sampler.draw(draws, rng))),
        enumerated=_shares(groups, [_enumerated(sampler, draws * e) for e in looks]),
        enumerated_simulated=_shares(groups, _simulate(sampler, looks, lambda e: _in_order(order, e * draws, draws))),
        never=_never(groups, p > 0, read_by(sampler, p > 0) > 0.5),
    )


def tails(sampler: Sampler) -> Bool:
    """The last C steps of every episode: bool [n_steps]."""
    left = np.repeat(sampler.start + sampler.length, sampler.length) - np.arange(int(sampler.length.sum()))
    return left <= sampler.chunk


def read_by(sampler: Sampler, anchors: NDArray[Any]) -> F64:
    """For each step, the sum of `anchors` [n_steps] whose chunk reads it: those at most C - 1 steps before it."""
    running = np.concatenate([[0.0], np.cumsum(anchors, dtype=np.float64)])
    row = np.arange(len(anchors))
    low = np.maximum(row - sampler.chunk + 1, np.repeat(sampler.start, sampler.length))
    sums: F64 = np.maximum(running[row + 1] - running[low], 0.0)
    return sums


def _seen_of(probability: F64, n: int) -> F64:
    """Probability that each step is seen by n draws with replacement."""
    with np.errstate(divide="ignore"):
        seen: F64 = -np.expm1(n * np.log1p(-np.minimum(probability, 1.0)))
    return seen


def _enumerated(sampler: Sampler, n: int) -> tuple[F64, F64]:
    """Probability that each step is an anchor, or is read, after the first n windows of a permutation of all steps."""
    total = int(sampler.length.sum())
    if n >= total:
        return np.ones(total), np.ones(total)
    m = np.rint(read_by(sampler, np.ones(total))).astype(np.int64)  # anchors that read each step
    missed = np.array([_none_of(total, n, k) for k in range(int(m.max(initial=0)) + 1)])
    return np.full(total, n / total), 1 - missed[m]


def _none_of(total: int, n: int, k: int) -> float:
    """Probability that n of `total`, taken without replacement, include none of k."""
    if n + k > total:
        return 0.0
    return float(np.exp(lgamma(total - k + 1) + lgamma(total - n + 1) - lgamma(total - k - n + 1) - lgamma(total + 1)))


def _in_order(order: Order, first: int, n: int) -> I64:
    """The windows at positions first … first + n - 1 of an endless sequence of epochs."""
    position = np.arange(first, first + n)
    epoch, inside = np.divmod(position, order.n_windows)
    parts = [order.windows(inside[epoch == e], epoch=int(e)) for e in np.unique(epoch)]
    return np.concatenate(parts).astype(np.int64)


def _simulate(sampler: Sampler, looks: Sequence[int], draw: Any) -> list[tuple[F64, F64]]:
    """Which steps were anchors and which were read (0 or 1) after each of `looks`; `draw(epoch)` returns an epoch's anchors."""
    seen, out = np.zeros(int(sampler.length.sum()), np.bool_), []
    for epoch in range(looks[-1]):
        seen[draw(epoch)] = True
        if epoch + 1 in looks:
            out.append((seen.astype(np.float64), (np.rint(read_by(sampler, seen)) > 0).astype(np.float64)))
    return out


def _shares(groups: dict[str, Bool], looks: Sequence[tuple[F64, F64]]) -> dict[str, tuple[float, ...]]:
    shares = {name: tuple(_mean(anchors[group]) for anchors, _ in looks) for name, group in groups.items()}
    return {**shares, "actions in a chunk": tuple(_mean(read) for _, read in looks)}


def _never(groups: dict[str, Bool], drawable: Bool, readable: Bool) -> dict[str, float]:
    never = {name: _mean(1.0 - drawable[group]) for name, group in groups.items()}
    return {**never, "actions in a chunk": _mean(1.0 - readable)}


def _mean(values: NDArray[np.floating[Any]]) -> float:
    return float(values.mean()) if values.size else float("nan")

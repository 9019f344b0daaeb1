"""Intervals of success rates and of their differences. Pure numpy."""

from __future__ import annotations

from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Z95", "Interval", "paired_difference", "wilson"]

Z95: Final = 1.959963984540054


class Interval(NamedTuple):
    """An estimate and its 95% interval."""

    value: float
    low: float
    high: float


def wilson(n_success: int, n: int, z: float = Z95) -> Interval:
    """A share and Wilson's score interval, which is right near 0 and 1 too.

    >>> [round(x, 3) for x in wilson(0, 90)]
    [0.0, 0.0, 0.041]
    >>> [round(x, 3) for x in wilson(68, 90)]
    [0.756, 0.658, 0.833]
    """
    if not 0 <= n_success <= n or n < 1:
        raise ValueError(f"wilson: 0 ≤ successes ≤ trials, one trial at least; got {n_success} of {n}")
    p = n_success / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(p, min(max(0.0, centre - half), p), max(min(1.0, centre + half), p))


def paired_difference(a: NDArray[np.generic], b: NDArray[np.generic], *, n_resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of b − a and its 95% interval, by bootstrap over training seeds and over initial states.

    Both are drawn anew with replacement, each on its own: outcomes of one seed go together, and so do outcomes from one initial
    state. The rows are paired: both policies of a pair begin from the same states. This bootstrap is wide where outcomes are
    mere chance (Owen 2007, "The pigeonhole bootstrap"), and narrow where three seeds differ very much: see the tests.

    Parameters
    ----------
    a, b : bool or float [n_seeds, n_states]
        Outcomes: 1 for success.
    n_resamples : int
    seed : int
        Of the resampling.

    >>> import numpy as np
    >>> [round(x, 3) for x in paired_difference(np.zeros((3, 30)), np.ones((3, 30)))]
    [1.0, 1.0, 1.0]
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 2 or not np.size(a):
        raise ValueError(f"paired_difference: two arrays [seeds, states] alike; got {np.shape(a)} and {np.shape(b)}")
    difference = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    rng = np.random.default_rng(seed)
    n_seeds, n_states = difference.shape
    # how often each seed and each state is in a resample
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), n_resamples) / n_seeds
    states = rng.multinomial(n_states, np.full(n_states, 1 / n_states), n_resamples) / n_states
    means = np.einsum("rs,st,rt->r", seeds, difference, states, optimize=True)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(difference.mean()), float(low), float(high))

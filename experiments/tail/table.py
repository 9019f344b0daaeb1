"""From outcomes to the rows of the table: shares with their intervals, paired differences. Pure; draws and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tail.intervals import Interval, paired_difference, wilson
from tail.plan import PolicyPlan, Row
from tail.results import Results

__all__ = ["RowOutcome", "differences", "outcome_of", "outcomes", "words_of"]

Entry = dict[str, Any]

OVER: Final = 0.03
"""How near to the plate's middle, m, counts as over it: LIBERO's limit."""

WORDS: Final = {
    "A": "A · random t in [0, L − C): the usual loader's",
    "B": "B · every t in [0, L − C), each once",
    "C": "C · every t, padded, masked: robozarr's",
    "D": "D · random t in [0, L), padded, masked",
}
PAIRS: Final[tuple[tuple[PolicyPlan, PolicyPlan, int], ...]] = (
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="C"), 16),
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="B"), 16),
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="D"), 16),
    (PolicyPlan(scheme="D"), PolicyPlan(scheme="C"), 16),
    (PolicyPlan(scheme="C", mask=False), PolicyPlan(scheme="C"), 16),
    (PolicyPlan(scheme="A", chunk=16), PolicyPlan(scheme="C", chunk=16), 16),
    (PolicyPlan(scheme="A", chunk=32), PolicyPlan(scheme="C", chunk=32), 16),
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="C"), 64),
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="C"), 8),
    (PolicyPlan(scheme="A", n_demos=10), PolicyPlan(scheme="C", n_demos=10), 16),
    (PolicyPlan(scheme="C"), PolicyPlan(scheme="C", exclude_noops=True), 16),
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="A", exclude_noops=True), 16),
    (PolicyPlan(scheme="C"), PolicyPlan(scheme="C", repeat=3), 16),
    (PolicyPlan(scheme="A"), PolicyPlan(scheme="A", repeat=3), 16),
    (PolicyPlan(scheme="C", causal=False), PolicyPlan(scheme="C"), 16),
)
"""What is compared: from, to, actions executed of a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOutcome:
    """A row of the table."""

    row: Row
    n: int
    """Rollouts."""
    released: Interval
    """Placed and let go."""
    on_plate: Interval
    """LIBERO's criterion at any step."""
    lifted: float
    over: float
    """Lifted, came over the plate, never released."""
    by_seed: tuple[float, ...]
    """Placed and let go, by training seed."""
    cpu_s: float
    """Training and rollouts, all seeds."""


def words_of(plan: PolicyPlan) -> str:
    """A policy in words.

    >>> words_of(PolicyPlan(scheme="C", mask=False))
    'C · every t, padded, NOT masked'
    >>> words_of(PolicyPlan(scheme="A", n_demos=10))
    "A · random t in [0, L − C): the usual loader's, 10 demos"
    """
    words = "C · every t, padded, NOT masked" if plan.scheme == "C" and not plan.mask else WORDS[plan.scheme]
    more = [f"{plan.n_demos} demos"] * (plan.n_demos is not None) + ["no-ops left out"] * plan.exclude_noops
    more += [f"key moments {plan.repeat} times"] * (plan.repeat > 1) + ["actions as recorded"] * (not plan.causal)
    return ", ".join([words, *more])


def outcomes(results: Results) -> list[RowOutcome]:
    """The rows of the table, in the order of the plan."""
    return [outcome_of(row, results) for row in results.size.rows]


def outcome_of(row: Row, results: Results) -> RowOutcome:
    """One row of the table."""
    of = _entries(row, results.rollouts)
    n = len(of)
    seeds = sorted({entry["seed"] for entry in of})
    training = sum(entry["cpu_s"] for entry in results.policies if entry["policy"] == row.policy.name)
    return RowOutcome(
        row=row,
        n=n,
        released=wilson(sum(entry["released"] for entry in of), n),
        on_plate=wilson(sum(entry["on_plate"] for entry in of), n),
        lifted=sum(entry["lifted"] for entry in of) / n,
        over=sum(_over(entry) and not entry["released"] for entry in of) / n,
        by_seed=tuple(float(np.mean([entry["released"] for entry in of if entry["seed"] == seed])) for seed in seeds),
        cpu_s=training + sum(entry["cpu_s"] for entry in of),
    )


def differences(results: Results) -> list[tuple[Row, Row, Interval]]:
    """Paired differences of what was run: from, to, and how much more often the second one places and releases."""
    found = []
    for a, b, executed in PAIRS:
        rows = Row(policy=a, executed=executed), Row(policy=b, executed=executed)
        if all(row in results.size.rows for row in rows):
            first, second = (_matrix(_entries(row, results.rollouts), lambda entry: entry["released"]) for row in rows)
            found.append((*rows, paired_difference(first, second)))
    return found


def _entries(row: Row, rollouts: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in rollouts if (entry["policy"], entry["executed"]) == (row.policy.name, row.executed)]


def _over(entry: Entry) -> bool:
    return entry["nearest"] is not None and entry["nearest"] < OVER


def _matrix(entries: Sequence[Entry], outcome: Callable[[Entry], bool]) -> NDArray[np.float64]:
    """Outcomes as float64 [n_seeds, n_states]."""
    seeds, states = (sorted({entry[name] for entry in entries}) for name in ("seed", "state"))
    out = np.full((len(seeds), len(states)), np.nan)
    for entry in entries:
        out[seeds.index(entry["seed"]), states.index(entry["state"])] = outcome(entry)
    return out

"""The table and the page, from outcomes that are known; and that they say what the outcomes say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tail.intervals import Interval
from tail.page import write_page
from tail.plan import DEFAULT, FULL, QUICK, PolicyPlan, Row, Size
from tail.results import Results
from tail.table import differences, outcomes, words_of

A, C, D = (Row(policy=PolicyPlan(scheme=scheme)) for scheme in ("A", "C", "D"))


def made_up(size: Size, released: dict[Row, float]) -> Results:
    """Each row releases in a share of the states; where it does not, the bowl is over the plate, and LIBERO's rule holds."""
    rollouts: list[dict[str, Any]] = []
    for row in size.rows:
        for seed in range(size.n_seeds):
            for state in range(1, size.n_states + 1):
                free = state <= released[row] * size.n_states
                entry = {"policy": row.policy.name, "executed": row.executed, "seed": seed, "state": state, "released": free}
                rollouts.append(entry | {"on_plate": True, "lifted": True, "nearest": 0.01, "n_steps": 100, "cpu_s": 1.0})
    held_out = {"error": [0.5] * 20, "gripper": [0.1] * 19 + [None]}
    served = {"anchors": 0.5, "tails": 0.0, "releases": 0.0}
    policies = [
        {"policy": plan.name, "seed": seed, "cpu_s": 10.0, "served": served, "held_out": held_out}
        for plan in size.policies
        for seed in range(size.n_seeds)
    ]
    demos = {"lengths": [120, 200], "steps_after_release": [12, 23], "n_failed": 1, "cpu_s": 5.0}
    cpu_s = {"demonstrations": 5.0, "training": 10.0, "rollouts": 20.0}
    return Results(
        size=size, task="a task", demos=demos, policies=policies, rollouts=rollouts, cpu_s=cpu_s, libraries={"mujoco": "1"}
    )


def test_rows_count_what_happened() -> None:
    size = Size(name="default", rows=(A, C), n_seeds=3, n_states=10)
    results = made_up(size, {A: 0.0, C: 0.8})
    first, second = outcomes(results)
    assert first.n == second.n == 30
    assert first.released == pytest.approx((0, 0, 0.1135), abs=1e-4)
    assert second.released.value == pytest.approx(0.8)
    assert second.by_seed == pytest.approx((0.8, 0.8, 0.8))
    assert first.on_plate.value == 1.0
    assert (first.over, second.over) == pytest.approx((1.0, 0.2))
    assert first.cpu_s == 3 * 10 + 30
    ((of, to, found),) = differences(results)
    assert (of, to) == (A, C)
    assert found.value == pytest.approx(0.8)
    assert 0.4 < found.low < 0.8 < found.high <= 1


def test_a_bowl_that_was_never_lifted_is_not_over_the_plate() -> None:
    size = Size(name="default", rows=(A,), n_seeds=1, n_states=4)
    results = made_up(size, {A: 0.0})
    for entry in results.rollouts[:3]:
        entry["nearest"] = None
    assert outcomes(results)[0].over == 0.25


@pytest.mark.parametrize("size", [DEFAULT, QUICK], ids=lambda size: size.name)
def test_the_page_of_every_size(size: Size, tmp_path: Path) -> None:
    size = replace(size, n_states=10, n_seeds=2)
    released = dict.fromkeys(size.rows, 0.5) | {A: 0.0, C: 0.8, D: 0.7}
    page = write_page(made_up(size, released), tmp_path / "docs").read_text()
    assert "the release of 100% of the demonstrations never begins a window" in page
    assert "Trained on those windows (A) the policy places the bowl and lets go in 0% [0, 16] of the rollouts" in page
    assert "trained on all windows (C) in 80% [58, 92]" in page
    assert "and in 100% it brings it over the plate and never lets go" in page
    if size is not QUICK and D in size.rows:
        assert "do not differ as far as these rollouts can tell: C − D is +10" in page
    table = [line for line in page.splitlines() if line.startswith("| ") and "**" in line]
    assert len(table) == len(size.rows)
    assert all(len(line.split("|")) == 12 for line in table)
    for name in ("tail-success.png", "tail-error.png"):
        assert f"({name})" in page
        assert (tmp_path / "docs" / name).read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "docs/tail-rollouts.jsonl").read_text().splitlines()
    assert len(lines) == 20 * len(size.rows)
    assert json.loads(lines[0])["policy"] == "A64"


def test_sizes_hold_what_they_should() -> None:
    """The rows that were promised, each policy once, and names that tell all apart."""
    assert len(DEFAULT.rows) == 9
    assert len(DEFAULT.policies) == 7
    assert set(DEFAULT.rows) < set(FULL.rows)
    for size in (DEFAULT, FULL, QUICK):
        assert len({row.name for row in size.rows}) == len(size.rows) == len(set(size.rows))
        assert len({plan.name for plan in size.policies}) == len(size.policies)
        assert len({(words_of(row.policy), row.policy.chunk, row.executed) for row in size.rows}) == len(size.rows)
    assert DEFAULT.n_seeds == 3
    assert {row.executed for row in FULL.rows} == {8, 16, 64}
    assert {plan.chunk for plan in FULL.policies} == {16, 32, 64}


def test_intervals_are_printed_in_percent() -> None:
    from tail.page import _points, _share

    assert _share(Interval(0.756, 0.657, 0.833)) == "76% [66, 83]"
    assert _points(Interval(-0.05, -0.11, 0.02)) == "-5 [-11, +2]"

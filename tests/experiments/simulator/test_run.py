"""The whole experiment, very small: the same numbers twice, and after interruptions; and the quick one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tail.plan import PolicyPlan, Row, Size
from tail.results import Results
from tail.run import run

ROOT = Path(__file__).parents[3]
TINY = Size(
    name="tiny",
    rows=(Row(policy=PolicyPlan(scheme="A")), Row(policy=PolicyPlan(scheme="C"), executed=8)),
    n_demos=3, n_held_out=1, n_seeds=2, n_states=2, n_steps=30, batch_size=16, max_steps=30,
)  # fmt: skip


def numbers(results: Results) -> Any:
    """What was found, without what it took."""
    strip = [{name: value for name, value in entry.items() if name != "cpu_s"} for entry in results.policies + results.rollouts]
    return results.demos | {"cpu_s": 0}, strip


def test_the_same_numbers_twice_and_after_interruptions(tmp_path: Path) -> None:
    said: list[str] = []
    first = run(TINY, tmp_path / "a", workers=1, say=said.append)
    assert len(first.rollouts) == 2 * 2 * 2
    assert any(line.startswith("training: 4 of 4") for line in said)
    assert numbers(run(TINY, tmp_path / "b", workers=2, say=said.append)) == numbers(first)
    # nothing is done again …
    said.clear()
    assert numbers(run(TINY, tmp_path / "a", workers=1, say=said.append)) == numbers(first)
    assert not said
    # … but for what is missing, or half written
    for name, keep in (("policies.jsonl", 1), ("rollouts.jsonl", 3)):
        lines = (tmp_path / "a" / name).read_text().splitlines(keepends=True)
        (tmp_path / "a" / name).write_text("".join(lines[:keep]) + lines[keep][:20])
    assert numbers(run(TINY, tmp_path / "a", workers=1, say=said.append)) == numbers(first)
    assert len([line for line in said if line.startswith("training")]) == 3
    with pytest.raises(SystemExit, match=r"holds a run of .*'n_steps': 30.*pass another --work"):
        run(Size(name="other", rows=TINY.rows, n_steps=31), tmp_path / "a")


@pytest.mark.slow(reason="three minutes: demonstrations, two trainings, twenty rollouts")
def test_the_quick_run_shows_what_dropping_the_tail_costs(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "experiments")}
    command = [sys.executable, "-m", "tail", "--quick", "--work", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[robosuite WARNING]" not in done.stderr
    rollouts = [json.loads(line) for line in (tmp_path / "tail-rollouts.jsonl").read_text().splitlines()]
    released = {name: sum(entry["released"] for entry in rollouts if entry["policy"] == name) for name in ("A64", "C64")}
    assert released["A64"] <= 1
    assert released["C64"] >= 3
    page = (tmp_path / "tail.md").read_text()
    assert "the release of 100% of the demonstrations never begins a window" in page

"""Writes docs/experiments/tail.md, its two figures, and the outcomes of all rollouts, from what a run found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tail.figures import error_chart, success_chart
from tail.intervals import Interval
from tail.observation import HELD_FREE
from tail.plan import DEFAULT, FULL, QUICK, PolicyPlan, Row, Size
from tail.results import Results
from tail.table import RowOutcome, differences, outcomes, words_of

__all__ = ["write_page"]


def write_page(results: Results, folder: Path) -> Path:
    """Write the page, two pictures and two files of outcomes into a folder; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = outcomes(results)
    success_chart(rows).save(folder / "tail-success.png")
    error_chart(results).save(folder / "tail-error.png")
    for name, entries in (("rollouts", results.rollouts), ("policies", results.policies)):
        (folder / f"tail-{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    page = folder / "tail.md"
    page.write_text("\n".join(_page(results, rows)) + "\n")
    return page


def _page(results: Results, rows: Sequence[RowOutcome]) -> Iterator[str]:
    size = results.size
    yield "# What dropping the tail costs"
    yield ""
    yield (
        f"Written by `{_command(size)}`; do not edit. A policy is trained on windows chosen in four ways, and then has to do "
        f"the task in a simulator: {results.task}, robosuite's Panda, {size.n_demos} scripted demonstrations, a policy on "
        f"states, {size.n_steps:,} gradient steps for every row; {_count(size.n_seeds, 'training seed')} × "
        f"{size.n_states} initial states a row."
    )
    yield ""
    yield from _in_short(results, rows)
    yield from _success(rows)
    yield from _differences(results)
    yield from _served(results)
    yield from _method(results)


def _command(size: Size) -> str:
    """What writes the page again.

    >>> from dataclasses import replace
    >>> _command(DEFAULT), _command(replace(FULL, n_seeds=1))
    ('make experiment', 'make experiment ARGS="--full --seeds 1"')
    """
    whole = next(known for known in (DEFAULT, FULL, QUICK) if known.name == size.name)
    words = [f"--{size.name}"] * (size.name != DEFAULT.name)
    words += [f"--seeds {size.n_seeds}"] * (size.n_seeds != whole.n_seeds)
    words += [f"--states {size.n_states}"] * (size.n_states != whole.n_states)
    return "make experiment" + (f' ARGS="{" ".join(words)}"' if words else "")


def _in_short(results: Results, rows: Sequence[RowOutcome]) -> Iterator[str]:
    by = {row.row: row for row in rows}
    a, c = by.get(Row(policy=PolicyPlan(scheme="A"))), by.get(Row(policy=PolicyPlan(scheme="C")))
    length, after = np.array(results.demos["lengths"]), np.array(results.demos["steps_after_release"])
    yield "## In short"
    yield ""
    yield (
        f"The demonstrations have {length.min()} to {length.max()} steps; the hand lets go {after.min()} to {after.max()} "
        f"steps before the end. With chunks of 64 actions the usual sampler takes t in [0, L − 64), so the release of "
        f"{np.mean(after < 64):.0%} of the demonstrations never begins a window."
    )
    if a and c:
        yield (
            f"Trained on those windows (A) the policy places the bowl and lets go in {_share(a.released)} of the rollouts; "
            f"trained on all windows (C) in {_share(c.released)}. A lifts the bowl in {a.lifted:.0%}, and in {a.over:.0%} it "
            "brings it over the plate and never lets go."
        )
    for first, _, found in differences(results):
        if first.policy == PolicyPlan(scheme="D") and first.executed == 16:
            verdict = "differ" if found.low > 0 or found.high < 0 else "do not differ as far as these rollouts can tell"
            yield f"Random draws (D) and enumeration (C) over *all* steps {verdict}: C − D is {_points(found)} points."
    yield ""


def _success(rows: Sequence[RowOutcome]) -> Iterator[str]:
    yield "## Success"
    yield ""
    yield (
        f"*Placed and released*: the bowl is on the plate, touched by no finger, for {HELD_FREE / 20:g} s. *LIBERO's "
        "criterion*: bowl and plate touch, within 3 cm of each other's middle, at any step; a bowl that is still held counts. "
        "Brackets: Wilson's 95% interval. CPU: training and rollouts of the row, all seeds (a policy that two rows share "
        "counts in both)."
    )
    yield ""
    yield (
        "| windows | chunk | executed | n | placed and released | by seed | LIBERO's criterion | lifted | over the plate, "
        "never released | CPU (s) |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        plan = row.row.policy
        by_seed = " ".join(f"{share:.0%}" for share in row.by_seed)
        yield (
            f"| {words_of(plan)} | {plan.chunk} | {row.row.executed} | {row.n} | **{_share(row.released)}** | {by_seed} | "
            f"{_share(row.on_plate)} | {row.lifted:.0%} | {row.over:.0%} | {row.cpu_s:.0f} |"
        )
    yield ""
    yield "![Success by the windows that were trained on](tail-success.png)"
    yield ""


def _differences(results: Results) -> Iterator[str]:
    found = differences(results)
    yield "## Differences"
    yield ""
    yield (
        "Of *placed and released*, in percentage points. Both rows begin from the same states and have the same seeds; the "
        "95% interval is a bootstrap over seeds and over states. In simulated experiments it held the truth in 95 to 100 "
        "of 100, and in 85 to 90 where training seeds differ by 20 points, of which three say little. Where both rows always "
        "fail it has no width: the intervals above say then what can be known."
        + (" **Only one seed was run: the intervals say nothing of other seeds.**" if results.size.n_seeds == 1 else "")
    )
    yield ""
    yield "| from | to | chunk | executed | difference |"
    yield "| --- | --- | --- | --- | --- |"
    for first, second, interval in found:
        chunk = first.policy.chunk
        yield f"| {words_of(first.policy)} | {words_of(second.policy)} | {chunk} | {first.executed} | {_points(interval)} |"
    yield ""


def _served(results: Results) -> Iterator[str]:
    yield "## What was served, and where the error lies"
    yield ""
    yield (
        "Windows that were an anchor at least once in a training: of all, of the last C of each episode, and of those whose "
        "first action is the release."
    )
    yield ""
    yield "| policy | all windows | last C | releases |"
    yield "| --- | --- | --- | --- |"
    for plan in results.size.policies:
        of = [entry["served"] for entry in results.policies if entry["policy"] == plan.name]
        shares = (np.mean([entry[name] for entry in of]) for name in ("anchors", "tails", "releases"))
        yield f"| {words_of(plan)}, chunk {plan.chunk} | " + " | ".join(f"{share:.1%}" for share in shares) + " |"
    yield ""
    yield "![Where in an episode the first 16 actions of a chunk are wrong](tail-error.png)"
    yield ""


def _method(results: Results) -> Iterator[str]:
    size, cpu = results.size, results.cpu_s
    yield "## How"
    yield ""
    yield (
        "- Demonstrations are recorded in the simulator, written as a file of LIBERO, and converted by `robozarr convert`. "
        f"{size.n_held_out} more are held out. Attempts that failed, and are not used: {results.demos['n_failed']}."
    )
    yield (
        "- L is the number of windows of an episode: its steps but the last one, after whose observation there is no action. "
        "C is the chunk's length. Every window is served by `WindowLoader` from one dataset: C as it is, B on a part of it, "
        "A and D by other orders (`experiments/tail/schemes.py`). The loss of padded actions is masked, unless the row says so."
    )
    yield (
        "- The policy sees two steps of hand, fingers, bowl and plate (no pictures) and has three hidden layers of 256; L1 "
        f"loss, AdamW, batches of {size.batch_size}. All rows have the same normalisation, seeds and number of gradient steps."
    )
    yield (
        "- A rollout ends when the bowl was released on the plate, or after "
        f"{size.max_steps} control steps. Physics and control law are robosuite's (`stepper.py` computes them faster; tested "
        "against robosuite's own `step`)."
    )
    total = sum(cpu.values())
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in cpu.items())
    yield f"- CPU time: {total / 60:.0f} minutes ({parts}). Other work on the machine makes it more: two idle cores need less."
    libraries = ", ".join(f"{name} {number}" for name, number in results.libraries.items())
    yield (
        f"- {libraries}. Demonstrations, training and rollouts are seeded. Another kind of processor rounds sums otherwise, so "
        "that its policies are others of the same kind."
    )
    yield (
        "- One task, one kind of policy, scripted demonstrations: it shows what a dropped tail can cost, not what it costs "
        "everywhere. Outcomes: `tail-rollouts.jsonl`, `tail-policies.jsonl`."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _share(found: Interval) -> str:
    """A share with its interval.

    >>> _share(Interval(0.756, 0.66, 0.83))
    '76% [66, 83]'
    """
    return f"{found.value:.0%} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def _points(found: Interval) -> str:
    return f"{100 * found.value:+.0f} [{100 * found.low:+.0f}, {100 * found.high:+.0f}]"

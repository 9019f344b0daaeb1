"""The two figures: success by scheme, and where in an episode the held-out error lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from robozarr.view.theme import BLUE, GREEN, INK, ORANGE, SKY, VERMILLION, Chart, new_axes, styled
from tail.held_out import BIN
from tail.plan import PolicyPlan
from tail.results import Results
from tail.table import RowOutcome, words_of

__all__ = ["error_chart", "success_chart"]

COLOURS: Final = {"A": VERMILLION, "B": ORANGE, "C": BLUE, "D": SKY}
MARKS: Final = {"A": "o", "B": "s", "C": "^", "D": "D"}


def label_of(row: RowOutcome) -> str:
    """The row's name on an axis."""
    plan = row.row.policy
    words = words_of(plan).replace(": the usual loader's", "").replace(": robozarr's", "")
    return f"{words}\nchunk {plan.chunk}, {row.row.executed} executed"


@styled()
def success_chart(rows: Sequence[RowOutcome]) -> Chart:
    """A dot and its 95% interval for both criteria, a row each."""
    figure, (axes,) = new_axes(7.2, 1.0 + 0.48 * len(rows))
    for place, row in enumerate(rows):
        for found, shift, colour, mark, label in (
            (row.released, 0.14, BLUE, "o", "placed and released"),
            (row.on_plate, -0.14, ORANGE, "D", "LIBERO's criterion (a bowl that is held counts)"),
        ):
            low, high = 100 * (found.value - found.low), 100 * (found.high - found.value)
            axes.errorbar(
                100 * found.value, -place + shift, xerr=[[low], [high]], fmt=mark, color=colour, markersize=5, capsize=2,
                elinewidth=1.5, label=label if place == 0 else None,
            )  # fmt: skip
    axes.set_yticks([-place for place in range(len(rows))], [label_of(row) for row in rows], fontsize=7.5)
    axes.set(xlabel="rollouts (%), with Wilson's 95% interval", xlim=(-3, 103), ylim=(-len(rows) + 0.4, 0.6))
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return Chart(figure, "Success by the windows that were trained on")


@styled()
def error_chart(results: Results) -> Chart:
    """Held-out error and wrong gripper commands by windows left until the end, for the schemes with the longest chunk."""
    plans = [plan for plan in results.size.policies if plan == PolicyPlan(scheme=plan.scheme)]
    figure, panels = new_axes(7.2, 5.2, rows=2, share_x=True)
    after = results.demos["steps_after_release"]
    for axes, name, factor, label in (
        (panels[0], "error", 1.0, "error of the actions\n(mean, normalised)"),
        (panels[1], "gripper", 100.0, "gripper commands\nof the wrong sign (%)"),
    ):
        for plan in plans:
            of = [entry["held_out"][name] for entry in results.policies if entry["policy"] == plan.name]
            values = np.array(of, np.float64)
            left = (np.arange(values.shape[1]) + 0.5) * BIN
            mean = factor * values.mean(0)
            axes.plot(left, mean, color=COLOURS[plan.scheme], marker=MARKS[plan.scheme], markersize=3.5, label=plan.scheme)
            axes.fill_between(
                left, factor * values.min(0), factor * values.max(0), color=COLOURS[plan.scheme], alpha=0.15, linewidth=0
            )
        axes.axvline(64, color=INK, linestyle="--", linewidth=1)
        axes.axvspan(min(after), max(after), color=GREEN, alpha=0.15, linewidth=0)
        axes.set_ylabel(label)
        axes.set_ylim(0, None)
    panels[0].annotate("C = 64", (64, 0.97), xycoords=("data", "axes fraction"), fontsize=8, ha="right", va="top", rotation=90)
    panels[0].annotate("releases", (max(after), 0.97), xycoords=("data", "axes fraction"), fontsize=8, ha="left", va="top")
    panels[1].set_xlabel("windows left until the end of the episode (the end is at the right)")
    panels[1].invert_xaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(plans), fontsize=8)
    seen = "line: mean of the seeds, band: all of them"
    return Chart(figure, f"Where in an episode of a held-out demonstration the first 16 actions of a chunk are wrong ({seen})")

"""Charts of a whole store: lengths, actions, brightness, coverage. Numbers in, ``Chart`` out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from robozarr.store.opened import Store
from robozarr.view.coverage import MEASURES, Coverage
from robozarr.view.problems import SATURATED_SHARE, saturation
from robozarr.view.tails import Tails
from robozarr.view.theme import BLUE, CYCLE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, Chart, new_axes, seconds_above, styled

__all__ = ["actions_chart", "brightness_chart", "coverage_chart", "lengths_chart", "median_length"]


def median_length(length: NDArray[np.integer[Any]]) -> int:
    """The length that half of the episodes do not exceed: the length of a real episode, never half a step.

    >>> median_length(np.array([121, 122, 90, 200]))
    121
    """
    return int(np.median(length) if len(length) % 2 else np.sort(length)[len(length) // 2 - 1])


@styled()
def lengths_chart(length: NDArray[np.integer[Any]], hz: float | None) -> Chart:
    """Number of episodes by length; with a second axis in seconds if the frequency is known."""
    figure, (axes,) = new_axes(4.6, 2.9)
    low, high, median = int(length.min()), int(length.max()), median_length(length)
    width = math.ceil((high - low + 1) / 40)  # of a bar, whole steps
    bins = np.arange(low, high + width + 1, width) - 0.5
    axes.hist(length, bins=list(bins), color=BLUE, edgecolor="none")
    axes.axvline(median, color=VERMILLION, linestyle="--", label=f"median: {median:,} steps")
    axes.set(xlabel="length of an episode (steps)", ylabel="episodes")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower right", fontsize=8)  # over the bars it would hide some
    if hz:
        seconds_above(axes, hz, "length (s)")
    span = f"{low} to {high}" if high > low else f"{low}"
    return Chart(figure, f"Episodes last {span} steps; bars that stand alone are episodes to look at")


@styled()
def actions_chart(actions: NDArray[Any]) -> Chart:
    """A histogram for each element of the actions, with its share at the limits."""
    n = actions.shape[1]
    columns = min(n, 3)
    rows = math.ceil(n / columns)
    figure, panels = new_axes(4.6, 0.5 + 1.35 * rows, rows=rows, columns=columns)
    share = saturation(actions)
    for i, axes in enumerate(panels):
        if i >= n:
            axes.set_axis_off()
            continue
        column = actions[:, i].astype(np.float64)
        low, high = float(column.min()), float(column.max())
        bins = np.linspace(low, high, 31) if high > low else np.linspace(low - 0.5, low + 0.5, 31)
        full = share[i] >= SATURATED_SHARE
        axes.hist(column, bins=list(bins), weights=np.full(len(column), 100 / len(column)), color=ORANGE if full else BLUE)
        name = "gripper" if i == n - 1 else f"element {i}"
        axes.set_title(f"{name} · {share[i]:.0%}" if full else name, fontsize=8)
        axes.tick_params(labelsize=7)
    figure.supxlabel("command", fontsize=9, color=INK)
    figure.supylabel("share of steps (%)", fontsize=9, color=INK)
    n_full = int((share >= SATURATED_SHARE).sum())
    what = (
        f"{n_full} of {n} elements of the actions are saturated (orange, with their share at the limits)"
        if n_full
        else "No element of the actions is saturated"
    )
    return Chart(figure, f"{what}: tall bars at both ends mean that commands were clipped")


@styled()
def brightness_chart(store: Store, names: list[str]) -> Chart:
    """Histogram of the values of each uint8 camera, all channels together."""
    figure, (axes,) = new_axes(4.6, 2.6)
    for i, name in enumerate(names):
        counts = store.histogram(name).reshape(-1, 256).sum(axis=0)
        axes.plot(
            np.arange(256), 100 * counts / counts.sum(), color=CYCLE[i], linestyle=("-", "--", "-.", ":")[i % 4], label=name
        )
    axes.set(xlabel="value of a pixel (0 black, 255 white)", ylabel="share of values (%)", xlim=(0, 255), yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(fontsize=8)
    return Chart(figure, "Brightness by camera: a peak at 0 or 255 means pictures that are too dark or too bright")


def _draw_tails(axes: Axes, tails: Tails) -> None:
    """Draw the histogram of steps left into axes."""
    high = max(*tails.left, tails.chunk)
    width = math.ceil((high + 1) / 40)  # of a bar, whole steps
    axes.hist(tails.left, bins=list(np.arange(0, high + width + 1, width) - 0.5), color=BLUE, edgecolor="none")
    axes.axvline(tails.chunk - 0.5, color=VERMILLION, linestyle="--")
    side = "right" if tails.chunk > high / 2 else "left"
    text, at = f" left of C = {tails.chunk}: never begins a window ", (tails.chunk - 0.5, 0.97)
    axes.annotate(text, at, xycoords=("data", "axes fraction"), fontsize=8, color=VERMILLION, ha=side, va="top")
    axes.set(xlabel=f"steps left after the {tails.moment}", ylabel="episodes", xlim=(-0.5, high + width))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


@styled()
def coverage_chart(coverage: Coverage, tails: Tails | None = None) -> Chart:
    """Share seen by random sampling per epoch: lines are computed, marks are simulated; with enumeration for comparison.

    With `tails`, where the last key moments lie comes first, in a panel above.
    """
    above = tails if tails is not None and tails.left else None
    figure, panels = new_axes(4.6, 3.3 if above is None else 5.9, rows=1 if above is None else 2)
    axes = panels[-1]
    if above is not None:
        _draw_tails(panels[0], above)
    marks = dict(zip(MEASURES, ("o", "s", "^", "D"), strict=True))
    colours = dict(zip(MEASURES, (BLUE, VERMILLION, PURPLE, SKY), strict=True))
    for name in MEASURES:
        values = 100 * np.array(coverage.random[name])
        if np.isnan(values).all():
            continue
        axes.plot(coverage.epochs, values, color=colours[name], label=f"random: {name}")
        axes.plot(
            coverage.epochs, 100 * np.array(coverage.random_simulated[name]), marks[name], color=colours[name], markersize=4
        )
    axes.plot(
        coverage.epochs,
        100 * np.array(coverage.enumerated["windows"]),
        color=GREEN,
        linestyle="--",
        label="enumerated: all of these",
    )
    axes.plot(coverage.epochs, 100 * np.array(coverage.enumerated_simulated["windows"]), "x", color=GREEN, markersize=5)
    axes.set(xlabel=f"epochs of {coverage.draws:,} draws", ylabel="seen (%)", ylim=(-4, 104), xlim=(0.8, None))
    axes.set_xscale("log")
    axes.set_xticks(coverage.epochs, [str(e) for e in coverage.epochs], minor=False)
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    share = coverage.random["windows"][-1]
    count = coverage.epochs[-1]
    first = f"{above.warning[0].upper()}{above.warning[1:]}. " if above is not None and above.warning else ""
    return Chart(
        figure,
        f"{first}After {count} epoch{'s' * (count > 1)} random sampling has seen {share:.0%} of the windows and "
        f"{coverage.random['episode tails'][-1]:.0%} of episode tails, enumeration {coverage.enumerated['windows'][-1]:.0%} "
        "of both (lines: by formula; marks: simulated)",
    )

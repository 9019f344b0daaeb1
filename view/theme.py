"""The look of charts: colours, axes, and SVG for light and dark pages. Knows nothing of stores.

Figures are made without pyplot, so that drawing leaves no global state behind. Colours are Okabe and Ito's, which people with
any colour vision tell apart; where two lie side by side, their marks differ as well.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robozarr.store.whole_file import whole_file

__all__ = [
    "BLUE",
    "CYCLE",
    "GREEN",
    "INK",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "Chart",
    "new_axes",
    "seconds_above",
    "styled",
]

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
CYCLE: Final = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, "#8c8c8c")
INK: Final = "#1a1a1b"
"""Colour of lines and letters. In SVG it becomes the page's text colour."""

_STYLE: Final[dict[Any, Any]] = {
    "text.parse_math": False,  # a key called $x$ is called that
    "svg.fonttype": "none",  # letters stay letters: searchable, and in the page's font
    "svg.hashsalt": "robozarr",  # the same store gives the same bytes
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.0,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the common style of all charts; used as a context or a decorator."""
    with matplotlib.rc_context(_STYLE):
        yield


def seconds_above(axes: Axes, hz: float, label: str) -> None:
    """Add an axis in seconds above the axis in steps."""
    seconds = axes.secondary_xaxis("top", functions=(partial(np.multiply, 1 / hz), partial(np.multiply, hz)))
    seconds.set_xlabel(label)
    seconds.tick_params(colors=INK)


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure and the sentence that explains it; shows itself in a notebook."""

    figure: Figure
    title: str
    """What the chart shows, as a sentence."""

    def svg(self) -> str:
        """The chart as an ``<svg>`` element that adopts the width and text colour of its surroundings."""
        return self._svg

    @cached_property
    def _svg(self) -> str:  # once: drawn a second time, the layout differs in the last digits
        buffer = StringIO()
        nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with styled():
            self.figure.savefig(buffer, format="svg", facecolor="none", metadata=nothing)
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r' id="(?![phm][0-9a-f]{10})[^"]*"', "", text)  # only clips, hatches and marks are referred to
        text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", "system-ui, sans-serif")
        width, height = self.figure.get_size_inches()
        head = (
            f'<svg role="img" aria-label="{html.escape(self.title)}" style="width:100%;max-width:{width * 100:.0f}px;'
            f'height:auto" viewBox="0 0 {width * 72:g} {height * 72:g}" xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink">'
        )
        return head + text[text.index(">") + 1 :].strip()

    def save(self, file: str | Path | BytesIO, *, format: str | None = None) -> None:
        """Save the chart with its title above; the file's ending chooses the type, such as ``.png`` or ``.svg``."""
        with styled():
            self.figure.suptitle("\n".join(textwrap.wrap(self.title, int(self.figure.get_figwidth() * 11))), ha="left", x=0.01)
            try:
                if isinstance(file, BytesIO):
                    self.figure.savefig(file, format=format, dpi=150, facecolor="white")
                else:
                    kind = format or Path(file).suffix.removeprefix(".")
                    with whole_file(file if kind else f"{file}.png") as temporary:
                        self.figure.savefig(temporary, format=kind or "png", dpi=150, facecolor="white")
            finally:
                self.figure.suptitle("")

    def _repr_html_(self) -> str:
        caption = f'<figcaption style="font-weight:600;margin:.3em 0">{html.escape(self.title)}</figcaption>'
        return f'<figure style="margin:.5em 0">{caption}{self.svg()}</figure>'


def new_axes(
    width: float,
    height: float,
    *,
    rows: int = 1,
    columns: int = 1,
    ratios: Sequence[float] | None = None,
    share_x: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of `width` × `height` inches in this style, and its axes by row."""
    with styled():
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, height_ratios=ratios)
    return figure, [axes for row in grid for axes in row]

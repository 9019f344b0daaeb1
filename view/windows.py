"""Draw one window: its frames, its action chunk, its pad masks. Takes a dataset's sample, or reads it without torch."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import ImageConvention
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store
from robozarr.view.pictures import cameras, image_tag, orientation, to_rgb
from robozarr.view.rows import read_rows
from robozarr.view.theme import CYCLE, INK, Chart, new_axes, styled

__all__ = ["WindowView", "read_window", "show_window"]

N_FRAMES_MAX = 16
"""Most frames shown per camera; of more, this many are chosen evenly."""


class Windows(Protocol):
    """What a dataset must provide; ``loader.dataset.WindowDataset`` does."""

    @property
    def store(self) -> Store: ...
    @property
    def spec(self) -> WindowSpec: ...
    @property
    def upright(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, window: int) -> Mapping[str, Any]: ...


def show_window(dataset: Windows, window: int) -> WindowView:
    """Show one window of a dataset as it is served: frames, action chunk, masks; called by ``WindowDataset.show``."""
    sample = {name: value if isinstance(value, str) else np.asarray(value) for name, value in dataset[window].items()}
    return WindowView(dataset.store, dataset.spec, window, sample, dataset.upright)


def read_window(store: Store, spec: WindowSpec, window: int) -> WindowView:
    """Read one of all windows of a store without torch; the same as ``WindowDataset(store, spec).show(window)``.

    Raises
    ------
    WindowError
        If the store cannot serve `spec`, or has fewer windows.
    """
    table = WindowTable.build(store.metadata, store.episodes, spec)
    if not -len(table) <= window < len(table):
        raise WindowError(f"window {window}: there are {len(table)}, from 0 on → pass one in this range")
    anchors, keys = table.plan([window % len(table)])
    episode = int(anchors.episode[0])
    sample: dict[str, Any] = {
        "episode": np.array(episode),
        "step": np.array(int(anchors.step[0])),
        "instruction": store.episodes.instruction[episode],
    }
    for name, wanted in keys.items():
        values = read_rows(store, name, wanted.rows[0])
        if wanted.padding == "zero":
            values[wanted.is_pad[0]] = 0
        sample[name], sample[f"{name}_is_pad"] = values, wanted.is_pad[0]
    return WindowView(store, spec, window % len(table), sample)


class WindowView:
    """One drawn window; shows itself in a notebook. ``sample`` holds the drawn values as numpy arrays."""

    def __init__(
        self, store: Store, spec: WindowSpec, window: int, sample: Mapping[str, Any], upright: Sequence[str] = ()
    ) -> None:
        self.store, self.spec, self.window, self.sample = store, spec, window, sample
        self._upright = upright
        self.episode, self.step = int(sample["episode"]), int(sample["step"])

    def __repr__(self) -> str:
        pads = ", ".join(
            f"{key.name} {int(self.sample[f'{key.name}_is_pad'].sum())}/{len(key.offsets)}" for key in self.spec.keys
        )
        return f"WindowView({self.window}: episode {self.episode}, step {self.step}; padded: {pads})"

    def frames(self) -> str:
        """HTML with the frames of every camera of the window, upright; padded ones are dimmed and labelled."""
        convention = int(self.store.episodes.image_convention[self.episode])
        shown = [key for key in self.spec.keys if key.name in cameras(self.store)]
        if not shown:
            return "<p>This window holds no pictures.</p>"
        rows = []
        for key in shown:
            chosen = np.unique(np.linspace(0, len(key.offsets) - 1, min(len(key.offsets), N_FRAMES_MAX)).round().astype(int))
            stored = ImageConvention.OPENCV if key.name in self._upright else convention
            pictures = to_rgb(self.store, key.name, self.sample[key.name][chosen], int(stored))
            cells = []
            for i, frame in zip(chosen.tolist(), pictures, strict=True):
                pad = bool(self.sample[f"{key.name}_is_pad"][i])
                text = f"{key.offsets[i]:+d}" + (" · padding" if pad else "")
                style = "opacity:.45;outline:2px dashed currentColor" if pad else ""
                tag = image_tag(frame, f"{key.name}, offset {text}", width=128)
                cells.append(f'<td style="text-align:center"><div style="{style}">{tag}</div><small>{text}</small></td>')
            rows.append(f'<tr><th style="text-align:left">{html.escape(key.name)}</th>{"".join(cells)}</tr>')
        return (
            f'<div style="overflow-x:auto"><table>{"".join(rows)}</table></div><p><small>Offsets are steps from t. '
            f"Pictures are {orientation(convention)}.</small></p>"
        )

    @styled()
    def plot(self) -> Chart:
        """Plot the window's low-dim keys by offset, with the pad mask of every key below."""
        plain = [key for key in self.spec.keys if key.name not in cameras(self.store) and not self.store.keys[key.name].frame]
        plain.sort(key=lambda key: key.name != "actions")
        drawn = [key for key in plain if len(key.offsets) > 1][:3]
        ratios = [3.0] * len(drawn) + [0.4 + 0.35 * len(self.spec.keys)]
        figure, panels = new_axes(7.2, 0.7 * sum(ratios) + 0.6, rows=len(ratios), ratios=ratios, share_x=True)
        for axes, key in zip(panels, drawn, strict=False):
            values = self.sample[key.name].reshape(len(key.offsets), -1)
            pad = self.sample[f"{key.name}_is_pad"]
            for i in range(values.shape[1]):
                colour, dash = CYCLE[i % len(CYCLE)], ("-", "--", ":")[i // len(CYCLE) % 3]
                axes.plot(
                    key.offsets,
                    np.where(pad, np.nan, values[:, i]),
                    color=colour,
                    linestyle=dash,
                    label=str(i),
                    marker=".",
                    markersize=3,
                )
                axes.plot(np.array(key.offsets)[pad], values[pad, i], "x", color=colour, markersize=3, alpha=0.5)
            unit = self.store.keys[key.name].unit
            axes.set_title(f"{key.name}: {_n(len(key.offsets), 'step')}; × is padding")
            axes.set_ylabel(
                "command" if self.store.keys[key.name].role == "action" else unit if 0 < len(unit) < 20 else "value"
            )
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, title="element", title_fontsize=7)
        _draw_masks(panels[-1], self)
        padded = sum(int(self.sample[f"{key.name}_is_pad"].sum()) for key in self.spec.keys)
        length = int(self.store.episodes.length[self.episode])
        title = f"Window {self.window}: t = {self.step} of {length} steps of episode {self.episode}; " + (
            f"{padded} rows lie outside the episode and are padding (hollow)" if padded else "no row is padding"
        )
        return Chart(figure, title)

    def _repr_html_(self) -> str:
        task = html.escape(str(self.sample["instruction"]))
        return (
            f"<div><h3>Window {self.window}</h3><p>{task}; episode {self.episode}, t = {self.step}</p>"
            f"{self.frames()}{self.plot()._repr_html_()}</div>"
        )


def _draw_masks(axes: Any, view: WindowView) -> None:
    """Draw a row of marks per key: filled for data, hollow for padding."""
    for y, key in enumerate(view.spec.keys):
        offsets: NDArray[np.int64] = np.array(key.offsets)
        pad = view.sample[f"{key.name}_is_pad"]
        axes.plot(offsets[~pad], np.full((~pad).sum(), y), "s", color=INK, markersize=4)
        axes.plot(
            offsets[pad], np.full(pad.sum(), y), "s", color=INK, markersize=4, markerfacecolor="none", markeredgewidth=0.7
        )
    axes.set_yticks(range(len(view.spec.keys)), [key.name for key in view.spec.keys])
    axes.set_ylim(len(view.spec.keys) - 0.5, -0.5)
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    axes.set_title("Masks: full is data, hollow is padding")
    axes.set_xlabel("offset from t (steps)")


def _n(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"

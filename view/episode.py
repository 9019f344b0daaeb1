"""Show one episode: filmstrip, plots, video. Reads only that episode's data."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError
from robozarr.schemas.index import Alignment, StepFlag
from robozarr.store.opened import Store
from robozarr.view.pictures import Video, animate, cameras, image_tag, orientation, to_rgb
from robozarr.view.rows import read_episode, read_rows
from robozarr.view.theme import CYCLE, INK, SKY, Chart, new_axes, seconds_above, styled

__all__ = ["Episode", "open_episode"]

DEFAULT_HZ: Final = 20.0
"""LIBERO's frequency, used for stores whose sources differ."""
STATE_KEYS: Final = ("joint_states", "robot0_joint_pos", "ee_pos", "robot0_eef_pos")
"""Keys to plot as the state by default: the first of these, else the first vector with role "state"."""
_LEGENDS: Final = {7: ("x", "y", "z", "roll", "pitch", "yaw", "gripper")}
"""Names of the elements of LIBERO's and robomimic's end-effector commands."""


class Episode:
    """One episode of a store; shows itself in a notebook. Made by ``store.episode(i)``."""

    def __init__(self, store: Store, number: int) -> None:
        self.store, self.number = store, number
        episodes = store.episodes
        self.start, self.length = int(episodes.start[number]), int(episodes.length[number])
        self.task = int(episodes.task[number])
        self.instruction = episodes.instruction[number]
        self.demo = episodes.demo[number]
        self.source = store.metadata.sources[int(episodes.source[number])].name
        self.hz = store.metadata.control_freq or DEFAULT_HZ
        self.convention = int(episodes.image_convention[number])
        self.alignment = Alignment(int(episodes.alignment[number]))

    def __repr__(self) -> str:
        return f"Episode({self.number}: {self.instruction!r}, {self.demo} of {self.source}, {self.length} steps)"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, name: str) -> NDArray[Any]:
        """All steps of a key, as stored: the key's type [length, …]."""
        return read_episode(self.store, name, self.number)

    @cached_property
    def flags(self) -> NDArray[np.uint8]:
        """Bits of ``StepFlag`` [length]."""
        return self.store.index.flags[self.start : self.start + self.length]

    def frames(self, name: str, steps: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Pictures of a camera, upright: uint8 [n, y, x, 3]; `steps` of the episode, or all."""
        rows = np.arange(self.length) if steps is None else np.asarray(steps, np.int64)
        if rows.size and not (0 <= rows.min() and rows.max() < self.length):
            raise StoreError(f"episode {self.number}: steps in [0, {self.length}); got {steps} → pass steps in this range")
        return to_rgb(self.store, name, read_rows(self.store, name, rows + self.start), self.convention)

    def filmstrip(self, n: int = 8) -> str:
        """HTML: n moments of every camera, evenly spread from the first step to the last."""
        names = cameras(self.store)
        if not names:
            return "<p>This store holds no pictures.</p>"
        steps = np.unique(np.linspace(0, self.length - 1, n).round().astype(int)).tolist()
        cells = "".join(f'<th style="text-align:left">t = {t}<br><small>{t / self.hz:.2f} s</small></th>' for t in steps)
        rows = [f"<tr><th></th>{cells}</tr>"]
        for name in names:
            pictures = zip(steps, self.frames(name, steps), strict=True)
            tags = "".join(
                f"<td>{image_tag(frame, f'{name}, episode {self.number}, step {t}', width=128)}</td>" for t, frame in pictures
            )
            rows.append(f'<tr><th style="text-align:left">{html.escape(name)}</th>{tags}</tr>')
        return (
            f'<div style="overflow-x:auto"><table style="border-spacing:2px">{"".join(rows)}</table></div>'
            f"<p><small>Pictures are {orientation(self.convention)}.</small></p>"
        )

    def plot(self, state: str | None = None) -> Chart:
        """Actions, the gripper, and a state over time, with no-op steps and key moments marked.

        Parameters
        ----------
        state : str, optional
            A key to plot as the state. Default: the joints, or whatever comes closest.
        """
        with styled():
            return self._plot(state or _state_key(self.store))

    def _plot(self, state: str | None) -> Chart:
        n = 3 if state else 2
        figure, panels = new_axes(7.2, 1.8 * n, rows=n, ratios=[3, 1.2, 3][:n], share_x=True)
        actions = self["actions"]
        t = np.arange(self.length)
        labels = _LEGENDS.get(actions.shape[1], ())
        _lines(panels[0], t, actions[:, :-1], labels or [f"actions[{i}]" for i in range(actions.shape[1] - 1)])
        panels[0].set(ylabel="command", title="Arm command")
        panels[1].step(t, actions[:, -1], where="mid", color=INK)
        panels[1].set(ylabel="command", title="Gripper command (−1 opens, +1 closes)")
        if state:
            values = self[state].reshape(self.length, -1)
            unit = self.store.keys[state].unit
            _lines(panels[2], t, values, [f"{state}[{i}]" for i in range(values.shape[1])])
            panels[2].set(ylabel=f"{state}\n({unit})" if unit and len(unit) < 20 else state, title=f"State: {state}")
        for axes in panels:
            _mark(axes, (self.flags & int(StepFlag.NOOP)) != 0, INK, "//", "no-op")
            _mark(axes, (self.flags & int(StepFlag.KEY_MOMENT)) != 0, SKY, "", "key moment")
            axes.set_xlim(-0.5, self.length - 0.5)
        panels[-1].set_xlabel("step t")
        seconds_above(panels[0], self.hz, "time (s)")
        handles, names = panels[1].get_legend_handles_labels()
        if handles:
            panels[1].legend(handles, names, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        n_noop, n_key = (int(((self.flags & int(flag)) != 0).sum()) for flag in (StepFlag.NOOP, StepFlag.KEY_MOMENT))
        title = (
            f"Episode {self.number}, {self.length} steps: {n_noop} do nothing (hatched), {n_key} lie near a change of the "
            "gripper (shaded)"
        )
        return Chart(figure, title)

    def video(self, kind: Literal["webp", "gif"] = "webp", *, speed: float = 1.0) -> Video:
        """Every step of every camera side by side, above a moving bar that shows key moments.

        Parameters
        ----------
        kind : "webp" or "gif"
            What is written. Both are encoded by Pillow and play in any browser; WebP is a fraction of the size.
        speed : float
            2 plays twice as fast as recorded.
        """
        names = cameras(self.store)
        if not names:
            raise StoreError(
                f"{self.store.path}: an episode's video needs pictures; this store holds none → plot() shows the rest"
            )
        if kind not in ("webp", "gif") or not speed > 0:
            raise StoreError(f"video: kind is 'webp' or 'gif', speed above 0; got {kind!r}, {speed!r} → pass one of these")
        parts = [self.frames(name) for name in names]
        height = max(part.shape[1] for part in parts)
        padded = [np.pad(part, ((0, 0), (0, height - part.shape[1]), (0, 0), (0, 0))) for part in parts]
        frames = np.concatenate(padded, axis=2)
        frames = np.concatenate([frames, self._bar(frames.shape[2])], axis=1)
        caption = (
            f"Episode {self.number}: {self.instruction or 'no instruction'}; {', '.join(names)}; "
            f"pictures are {orientation(self.convention)}; {self.hz * speed:g} steps per second; blue in the bar: key moments"
        )
        return animate(frames, self.hz * speed, kind, caption)

    def _bar(self, width: int) -> NDArray[np.uint8]:
        """Draw a bar of 6 pixels below each frame: uint8 [length, 6, width, 3]."""
        at = (np.arange(width) * self.length // width).clip(0, self.length - 1)
        key = (self.flags[at] & int(StepFlag.KEY_MOMENT)) != 0
        colours = np.array([[70, 70, 70], [0, 114, 178], [200, 200, 200], [86, 180, 233]], np.uint8)
        played = at[None] <= np.arange(self.length)[:, None]
        bar = colours[played * 2 + key]
        return np.repeat(bar[:, None], 6, axis=1)

    def _repr_html_(self) -> str:
        rows = {
            "instruction": self.instruction or "none: no source states one",
            "from": f"{self.demo} of {self.source}",
            "length": f"{self.length} steps, {self.length / self.hz:.2f} s at {self.hz:g} Hz",
            "recorded": {
                Alignment.AFTER: "observations after the action of the same step: obs[t] shows what actions[t] led to",
                Alignment.BEFORE: "observations before the action of the same step",
                Alignment.UNKNOWN: "it is not known whether observations are from before or after the action",
            }[self.alignment],
        }
        facts = "".join(
            f'<div style="overflow-wrap:anywhere"><b>{name}</b> {html.escape(text)}</div>' for name, text in rows.items()
        )
        return f"<div><h3>Episode {self.number}</h3>{facts}{self.filmstrip()}{self.plot()._repr_html_()}</div>"


def open_episode(store: Store, number: int) -> Episode:
    """Open the episode with a number, counted from the end if negative; StoreError if there is none."""
    n = store.n_episodes
    if not isinstance(number, int | np.integer) or not -n <= number < n:
        raise StoreError(f"{store.path}: episodes are 0 … {n - 1}; got {number!r} → store.episodes lists them")
    return Episode(store, int(number) % n)


def _state_key(store: Store) -> str | None:
    vectors = [key.name for key in store.metadata.keys if key.role == "state" and len(key.shape) == 1 and not key.ragged]
    return next((name for name in STATE_KEYS if name in vectors), vectors[0] if vectors else None)


def _lines(axes: Axes, t: NDArray[np.int64], values: NDArray[Any], labels: Sequence[str]) -> None:
    dashes = ("-", "--", "-.", ":")
    for i in range(values.shape[1]):
        label = labels[i] if i < len(labels) else str(i)
        axes.plot(
            t, values[:, i], color=CYCLE[i % len(CYCLE)], linestyle=dashes[i // len(CYCLE) % 4], label=label, linewidth=1.1
        )
    if 0 < values.shape[1] <= 10:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)


def _mark(axes: Axes, where: NDArray[np.bool_], colour: str, hatch: str, label: str) -> None:
    """Shade runs of steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    for k, (start, stop) in enumerate(edges.reshape(-1, 2).tolist()):
        face, edge = "none" if hatch else (colour, 0.4), (colour, 0.35)
        axes.axvspan(
            start - 0.5, stop - 0.5, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0, zorder=0,
            label=label if k == 0 else None,
        )  # fmt: skip

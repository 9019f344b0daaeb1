"""The input of every contender of ``bench_load``: windows to read, demos to read them from, memory to fill.

Nothing here measures time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.layout import Profile
from robozarr.store.opened import Store
from scale_store import window

__all__ = ["CAMERAS", "I64", "OFFSETS", "SMALL", "Arrays", "Buffers", "Contender", "Demos", "Role", "Task"]

I64 = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]
CAMERAS: Final = ("agentview_rgb", "eye_in_hand_rgb")
OFFSETS: Final = {name: np.array(offsets, np.int64) for name, offsets in window().offsets.items()}
SMALL: Final = tuple(name for name in OFFSETS if name not in CAMERAS)

Role = Literal["seed", "h5py", "zarr-python", "TensorStore", "DataLoader", "robozarr", "limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Batches of windows to read: int64 [b] each, in WindowLoader's order from the start of an epoch."""

    epoch: int
    batches: Sequence[I64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One row of the benchmark."""

    name: str
    role: Role
    read: Callable[[Task], Iterable[Mapping[str, Any]]]
    """The code that is timed; yields batches whose arrays may be overwritten by the next one."""
    profile: Profile | None = None
    threads: int | None = None
    slow: bool = False
    """Whether it reads fewer batches."""
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demos:
    """The sources, episode by episode in the order of the stores, with their small keys in memory."""

    paths: Sequence[tuple[Path, str]]
    """File, and the demo's path inside it."""
    sources: Mapping[str, str]
    """The dataset's path inside a demo, by key."""
    start: I64
    stop: I64
    small: Arrays
    """Values [n_steps, …], by key."""

    @classmethod
    def of(cls, store: Store, files: Sequence[Path]) -> Demos:
        """Match the episodes of a store with its source files."""
        names = [entry.name for entry in store.metadata.sources]
        by_name = {name: next(file for file in files if str(file.resolve()).endswith(name)) for name in names}
        episodes = store.episodes
        paths = [
            (by_name[names[source]], f"data/{demo}")
            for source, demo in zip(episodes.source.tolist(), episodes.demo, strict=True)
        ]
        sources = {name: store.keys[name].source for name in OFFSETS}
        small: Arrays = {}
        for name in SMALL:
            parts = []
            for path, demo in paths:
                with h5py.File(path) as file:
                    parts.append(file[demo][sources[name]][()])
            small[name] = np.concatenate(parts)
        return cls(paths=paths, sources=sources, start=episodes.start, stop=episodes.start + episodes.length, small=small)

    def plan(self, windows: I64) -> tuple[I64, dict[str, I64], Arrays]:
        """Episode [b] of windows (every row is the anchor of one), rows [b, n_offsets] by key, and masks."""
        episode = np.searchsorted(self.stop, windows, side="right")
        low, high = self.start[episode][:, None], self.stop[episode][:, None] - 1
        rows, masks = {}, {}
        for name, offsets in OFFSETS.items():
            wanted = windows[:, None] + offsets
            rows[name] = np.clip(wanted, low, high)
            masks[f"{name}_is_pad"] = rows[name] != wanted
        return episode, rows, masks


@dataclass(slots=True)
class Buffers:
    """A batch's arrays, made once."""

    demos: Demos
    picture: tuple[int, ...]
    arrays: Arrays = field(default_factory=dict)

    def of(self, n: int) -> Arrays:
        """Make arrays for n windows."""
        for name, offsets in OFFSETS.items():
            if len(self.arrays.get(name, ())) < n:
                small = self.demos.small.get(name)
                shape = self.picture if small is None else small.shape[1:]
                self.arrays[name] = np.empty((n, len(offsets), *shape), np.uint8 if small is None else small.dtype)
        return {name: array[:n] for name, array in self.arrays.items()}

    def small(self, rows: Mapping[str, I64], out: Arrays) -> None:
        """Fill in the small keys."""
        for name in SMALL:
            np.take(self.demos.small[name], rows[name], axis=0, out=out[name], mode="clip")

"""Check the cameras: one colour, frozen, or frozen for a while. Reads fingerprints, and few single frames.

Frames are compared by their stored fingerprints (FORMAT.md, M21), so that every episode is looked at without its pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.index import StepFlag
from robozarr.store.opened import Store
from robozarr.view.findings import Finding, listed
from robozarr.view.lone_frames import check_lone_frames
from robozarr.view.rows import read_rows

__all__ = ["check_cameras"]

FROZEN_SHARE: Final = 0.5
"""A camera is frozen in an episode if more than this share of its frames equal the previous one."""
STRETCH_STEPS: Final = 5
"""A camera is frozen for a while if its picture stays the same for this many steps in which the arm should move: a quarter
of
a second in LIBERO. While nothing moves, a simulator rightly renders the same picture."""
N_FRAMES_READ: Final = 64
"""Most frames that are read to see whether a stretch has one colour."""


class Stretch(NamedTuple):
    """Steps [start, stop) of an episode with the same picture from a camera."""

    episode: int
    start: int
    stop: int

    def __str__(self) -> str:
        return f"episode {self.episode} (steps {self.start} to {self.stop - 1})"


def check_cameras(store: Store) -> Iterator[Finding]:
    """Findings about every key with pictures."""
    frames = [key.name for key in store.metadata.keys if key.picture_axes]
    found = [finding for name in frames for finding in _check_camera(store, name)]
    yield from found
    if frames and not found:
        yield Finding(
            level="good", title="Cameras show something, and it moves",
            detail=f"{', '.join(frames)}: neither one colour nor frozen, in {store.n_episodes} episodes, not for "
            f"{STRETCH_STEPS} steps on end in which the arm is told to move either",
        )  # fmt: skip
    if not frames:
        yield Finding(level="notice", title="No pictures", detail="no key of this store is a picture")


def _check_camera(store: Store, name: str) -> Iterator[Finding]:
    start, length = store.episodes.start, store.episodes.length
    stats, sums = store.episode_stats(name), store.fingerprints(name)
    blank = (stats["min"] == stats["max"]).reshape(store.n_episodes, -1).all(axis=1)
    if blank.any():
        yield Finding(
            level="problem", title=f"Constant camera: {name} is one colour",
            detail=f"every pixel has the same value throughout episodes {listed(np.flatnonzero(blank))} → the camera was "
            "not rendered; leave these episodes or this key out",
        )  # fmt: skip
    repeats = np.concatenate([[False], sums[1:] == sums[:-1]])
    repeats[start] = False
    share = np.add.reduceat(repeats, start) / np.maximum(length - 1, 1)
    frozen = (share > FROZEN_SHARE) & ~blank
    if frozen.any():
        yield Finding(
            level="problem", title=f"Constant camera: {name} is frozen",
            detail=f"more than {FROZEN_SHARE:.0%} of the frames equal the frame before them in episodes "
            f"{listed(np.flatnonzero(frozen))} → the camera did not run, or the robot did not move; look at them",
        )  # fmt: skip
    yield from _check_stretches(store, name, repeats, ~(blank | frozen))
    yield from check_lone_frames(store, name, ~(blank | frozen))


def _check_stretches(store: Store, name: str, repeats: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> Iterator[Finding]:
    """Stretches inside the `wanted` episodes; `repeats`: rows whose frame equals the previous one of their episode."""
    edges = np.diff(np.concatenate([[False], repeats, [False]]).astype(np.int8))
    first, stop = np.flatnonzero(edges == 1) - 1, np.flatnonzero(edges == -1)  # rows [first, stop) show the same
    kept = wanted[store.index.episode[first]]
    first, stop = first[kept], stop[kept]
    dark = _of_one_colour(store, name, first, stop)
    if dark.any():
        yield Finding(
            level="problem", title=f"Stretches of one colour: {name}",
            detail=f"all pixels of all frames have one value in {_stretches(store, first[dark], stop[dark])} → the camera "
            "failed there; leave these steps or episodes out",
        )  # fmt: skip
    flags = (store.index.flags & int(StepFlag.NOOP | StepFlag.STILL)) == 0
    moving = np.concatenate([[0], np.cumsum(flags)])
    still = (moving[stop] - moving[first] >= STRETCH_STEPS) & ~dark
    if still.any():
        yield Finding(
            level="problem", title=f"Frozen stretches: {name}",
            detail=f"the frame stays the same while the arm is told to move, for at least {STRETCH_STEPS} such steps, in "
            f"{_stretches(store, first[still], stop[still])} → the camera hung; look at them",
        )  # fmt: skip


def _of_one_colour(store: Store, name: str, first: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which stretches have one colour; the longest are read, each picture once."""
    dark = np.zeros(len(first), np.bool_)
    sums = store.fingerprints(name)[first]
    known: dict[int, bool] = {}
    for number in np.argsort(first - stop, kind="stable").tolist():
        code = int(sums[number])
        if code not in known:
            if len(known) == N_FRAMES_READ:
                continue
            frame: NDArray[Any] = read_rows(store, name, [int(first[number])])[0]
            axes = store.keys[name].picture_axes
            frame = np.moveaxis(frame, [axes.index("y"), axes.index("x")], [0, 1])
            pixels = frame.reshape(*frame.shape[:2], -1)
            known[code] = bool((pixels == pixels[:1, :1]).all())
        dark[number] = known[code]
    return dark


def _stretches(store: Store, first: NDArray[np.int64], stop: NDArray[np.int64]) -> str:
    episode = store.index.episode[first]
    begin = store.episodes.start[episode]
    columns = (episode.tolist(), (first - begin).tolist(), (stop - begin).tolist())
    return listed([Stretch(*row) for row in zip(*columns, strict=True)])

"""Demonstrations that nobody made, for tests of the experiment: the right shapes and rotations, random values otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robozarr.convert import convert
from robozarr.store.opened import Store, open_store
from tail.demos import Demo, write_hdf5
from tail.observation import OBS

__all__ = ["make_demo", "make_store"]


def make_demo(seed: int, n_steps: int, *, release_left: int = 3) -> Demo:
    """One that closes the hand at its third step and opens it with `release_left` steps after that."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(n_steps + 1, 30))
    for name in ("ee_rot", "bowl_rot"):
        x, y = rng.normal(size=(2, n_steps + 1, 3))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y -= (x * y).sum(1, keepdims=True) * x
        obs[:, OBS[name]] = np.concatenate([x, y / np.linalg.norm(y, axis=1, keepdims=True)], 1)
    actions = rng.uniform(-1, 1, (n_steps, 7))
    actions[:, 6] = -1
    actions[2 : n_steps - 1 - release_left, 6] = 1
    # time, the joints before each action, and the rest of what a simulator holds
    states = np.concatenate([np.arange(n_steps)[:, None] * 0.05, obs[:-1, OBS["joints"]], rng.normal(size=(n_steps, 36))], 1)
    return Demo(seed=seed, obs=obs, actions=actions, states=states)


def make_store(folder: Path, lengths: Sequence[int]) -> tuple[Store, list[Demo]]:
    """Demonstrations of these lengths, and the store that they were converted into."""
    demos = [make_demo(seed, n) for seed, n in enumerate(lengths)]
    write_hdf5(demos, folder / "put_the_bowl_on_the_plate_demo.hdf5")
    convert(folder / "put_the_bowl_on_the_plate_demo.hdf5", folder / "demos.zarr", workers=0)
    return open_store(folder / "demos.zarr"), demos

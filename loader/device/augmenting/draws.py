"""Draw the numbers for augmentation: a pure function of (seed, epoch, window, camera, frame). Numpy on the host.

Not torch's generators: their numbers depend on the device, and on what was drawn before. Some bytes per window go to it,
so that a CPU and a GPU do the same.
"""

from __future__ import annotations

import zlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.windows.permutation import hash_key

__all__ = ["keys_of_pictures", "keys_of_windows", "uniform"]

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]

_AUGMENT = 101
"""Tells these numbers apart from those of the order, which come from the same seed."""


def keys_of_windows(seed: int, epoch: int, dataset: I64 | int, episode: I64, step: I64) -> U64:
    """A key for each window: uint64 [n].

    Parameters
    ----------
    seed, epoch : int
    dataset : int64 [n], or int
        Number of the dataset.
    episode, step : int64 [n]
        The anchor.
    """
    return hash_key(_AUGMENT, seed, epoch, dataset, episode, step)


def keys_of_pictures(keys: U64, camera: str, n_frames: int | None) -> U64:
    """A key for each picture of a camera: uint64 [n] for all frames of a window alike (None), or [n · n_frames]."""
    of_camera = hash_key(keys, zlib.crc32(camera.encode()))
    if n_frames is None:
        return of_camera
    return hash_key(np.repeat(of_camera, n_frames), np.tile(np.arange(n_frames), len(keys)))


def uniform(keys: U64, purpose: int, n: int = 1) -> NDArray[np.float64]:
    """Numbers in [0, 1) for each key, other ones for each purpose: float64 [len(keys), n].

    >>> uniform(keys_of_windows(0, 0, 0, np.array([3]), np.array([5])), 1).shape
    (1, 1)
    """
    drawn = [hash_key(keys, purpose, number) >> np.uint64(11) for number in range(n)]
    return np.stack(drawn, axis=1) / float(1 << 53)

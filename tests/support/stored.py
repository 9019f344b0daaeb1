"""What a store holds of one episode, read by plain zarr and by rows: for tests that compare it with h5py."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import robozarr
from robozarr.schemas.metadata import Key

__all__ = ["column", "stored_values"]


def stored_values(store: robozarr.Store, key: Key, start: int, length: int) -> NDArray[Any]:
    """Values of a key, ragged or not, of the rows from `start` on: [length, …]."""
    if key.ragged:
        ragged = store.ragged(key.name)
        return np.stack([ragged[row] for row in range(start, start + length)])
    return np.asarray(store.array(key.name)[start : start + length])


def column(store: robozarr.Store, key: str) -> NDArray[Any]:
    """All values of a key that is not ragged: [n_steps, …]."""
    return np.asarray(store.array(key)[:])

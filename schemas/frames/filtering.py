"""Filter frames, reversibly, so that they compress better. Pure numpy.

Planes G, R - G, B - G; then each row minus the row above it, the first row minus the pixel to its left. All modulo 256.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["apply_filter", "can_filter", "undo_filter"]


def can_filter(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bool:
    """Whether frames of this shape and type have a filter: uint8 [y, x, 3]."""
    return dtype == np.uint8 and len(shape) == 3 and shape[2] == 3


def apply_filter(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Filter frames.

    Parameters
    ----------
    frames : uint8 [n, y, x, 3]

    Returns
    -------
    uint8 [n, 3, y, x]

    >>> frames = np.arange(2 * 5 * 4 * 3, dtype=np.uint8).reshape(2, 5, 4, 3) ** 2
    >>> bool((undo_filter(apply_filter(frames)) == frames).all())
    True
    """
    planes = np.empty((len(frames), 3, *frames.shape[1:3]), np.uint8)
    planes[:, 0] = frames[..., 1]
    np.subtract(frames[..., 0], frames[..., 1], out=planes[:, 1])
    np.subtract(frames[..., 2], frames[..., 1], out=planes[:, 2])
    planes[:, :, 1:] -= planes[:, :, :-1].copy()
    planes[:, :, 0, 1:] -= planes[:, :, 0, :-1].copy()
    return planes


def undo_filter(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo `apply_filter`: uint8 [n, 3, y, x] → uint8 [n, y, x, 3]."""
    sums = planes.copy()
    np.cumsum(sums[:, :, 0], axis=-1, dtype=np.uint8, out=sums[:, :, 0])
    np.cumsum(sums, axis=2, dtype=np.uint8, out=sums)
    frames = np.empty((len(planes), *planes.shape[2:], 3), np.uint8)
    frames[..., 1] = sums[:, 0]
    np.add(sums[:, 1], sums[:, 0], out=frames[..., 0])
    np.add(sums[:, 2], sums[:, 0], out=frames[..., 2])
    return frames

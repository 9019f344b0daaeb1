"""Write RDT's vectors of a batch, compiled: in one pass, where a fill and a scatter would take two."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled

__all__ = ["write_vectors"]


@compiled
def write_vectors(table: NDArray[Any], rows: NDArray[np.int64], slots: NDArray[np.int64], out: NDArray[Any]) -> None:
    """Rows of `table` [n_steps, n] into their slots of `out` [m, 128], and zeros elsewhere; rows int64 [m], slots int64 [n]."""
    n_slots, width = uint64(len(slots)), uint64(out.shape[1])
    for i in range(uint64(len(rows))):
        row = uint64(rows[i])
        for k in range(width):
            out[i, k] = 0
        for k in range(n_slots):
            out[i, uint64(slots[k])] = table[row, k]

"""Owns reading a low-dim key back by blocks of its elements, for statistics over all steps. Imports no Zarr library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.reading import read_shard

__all__ = ["column_blocks"]

COLUMN_BLOCK_BYTES = 128 * 2**20
"""Bytes of a low-dim key held at once."""


def column_blocks(store: Path, layout: ArrayLayout) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks of a low-dim key's elements over all rows: (slice of elements, values [step, element])."""
    n_elements = max(1, layout.row_bytes // np.dtype(layout.dtype).itemsize)
    width = max(1, COLUMN_BLOCK_BYTES // max(1, layout.shape[0] * np.dtype(layout.dtype).itemsize))
    for start in range(0, n_elements, width):
        block = slice(start, min(n_elements, start + width))
        shards = (read_shard(store, layout, shard) for shard in range(layout.n_shards))
        yield block, np.concatenate([shard.reshape(len(shard), -1)[:, block] for shard in shards])

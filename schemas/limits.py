"""Limits on what a store or a source may claim, checked before memory is taken; imports nothing.

Each is far above what robozarr writes, and a store that needs more can be cut into several.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "MOST_CHUNKS",
    "MOST_CHUNK_BYTES",
    "MOST_DOCUMENT_BYTES",
    "MOST_ROWS",
    "MOST_SHARDS",
    "MOST_SHARD_BYTES",
    "MOST_STEP_BYTES",
]

MOST_DOCUMENT_BYTES: Final = 2**26
"""Largest ``zarr.json``. The root's is the largest: about 200 bytes per source file."""
MOST_ROWS: Final = 2**40
"""Most rows of an array: 1,700 years at 20 per second."""
MOST_SHARDS: Final = 2**24
"""Most shards of an array: 512 TiB of frames as robozarr divides them."""
MOST_CHUNKS: Final = 2**20
"""Most chunks of a shard: an index of 16 MiB. robozarr writes at most 4,096."""
MOST_CHUNK_BYTES: Final = 2**30
"""Largest decoded chunk, of a store and of a source: HDF5 and Zarr unpack a chunk whole. Blosc cannot hold twice as much."""
MOST_STEP_BYTES: Final = 2**26
"""Largest step of a key in a source: 16 are a chunk. An RGB picture of 4,700 × 4,700."""
MOST_SHARD_BYTES: Final = 2**32
"""Largest shard, decoded or encoded. robozarr writes at most 32 MiB, or one frame."""

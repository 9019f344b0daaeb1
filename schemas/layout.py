"""The layout of each array of a store: shape, chunks, shards, codecs, dimension names.

Imports neither zarr nor h5py: the converter creates arrays from these layouts, ``verify`` compares arrays with them.
Every array of a store is sharded along its first axis only, so one encoder and one checker serve all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from robozarr.schemas.errors import PlanError
from robozarr.schemas.limits import MOST_CHUNK_BYTES

__all__ = [
    "DTYPES",
    "FRAMES_PER_CHUNK",
    "FRAME_CODECS",
    "PROFILES",
    "ArrayLayout",
    "CodecName",
    "Effort",
    "Profile",
    "is_frame",
    "layout_of_table",
    "layout_of_values",
]

Profile = Literal["raw", "fast", "lean", "compact"]
CodecName = Literal["none", "blosc-lz4", "blosc-zstd", "zstd", "frames-lean", "frames-compact"]
Effort = Literal["lean", "compact"]
"""How frames are encoded with keyframes. lean: LZ4, fast both ways. compact: smaller, and decoded at a good speed."""

PROFILES: Final[dict[Profile, tuple[CodecName, int]]] = {
    "raw": ("none", 0),
    "fast": ("blosc-lz4", 5),  # 486 MB/s a thread to encode, 19 µs a frame to decode (docs/format.md)
    "lean": ("blosc-lz4", 5),
    "compact": ("blosc-zstd", 1),  # 181 MB/s, 64 µs, a third smaller
}
"""Codec and level of ``steps/`` and ``ragged/``, by profile; for frames see also `FRAME_CODECS`."""

FRAME_CODECS: Final[dict[Profile, CodecName]] = {"lean": "frames-lean", "compact": "frames-compact"}
"""Codec of frames in the profiles with keyframes: ``robozarr.frames``."""
FRAMES_PER_CHUNK: Final = 16
"""Rows per chunk of that codec: with fewer there are more keyframes, with more they differ more from their frames."""

DTYPES: Final = (
    "bool",
    *(f"{kind}{8 * size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)),
    "float16",
    "float32",
    "float64",
)
"""Types of arrays: the numeric ones of Zarr's core, by their names there."""

TABLE_CODEC: Final[tuple[CodecName, int]] = ("zstd", 3)
"""Codec of everything else (index, tables, text): small, read once, and text must be compressed in all profiles."""

FRAME_SHARD_BYTES: Final = 32 * 2**20
"""Largest shard of frames, uncompressed: tens of MB, so that a worker stays small and a request is worth its latency."""
CHUNK_BYTES: Final = 512 * 2**10
"""Largest chunk of low-dim rows: they are read once into RAM, so few large chunks are best."""
ROWS_PER_CHUNK: Final = 4096
CHUNKS_PER_SHARD: Final = 16
TABLE_CHUNK_ROWS: Final = 1 << 16
TEXT_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayLayout:
    """One array: what its ``zarr.json`` must state.

    >>> layout = layout_of_values("steps/actions", (1448, 7), "float64", ("step", "actions_i"), "fast")
    >>> layout.chunk_rows, layout.shard_rows, layout.n_shards, layout.rows_of_shard(0)
    (4096, 65536, 1, (0, 1448))
    """

    path: str
    """Path inside the store, such as ``steps/actions``."""
    shape: tuple[int, ...]
    """Full shape; only the first axis is divided."""
    dtype: str
    """numpy name of a bool, integer or float type, such as ``uint8``."""
    dims: tuple[str, ...]
    """Dimension names, one per axis."""
    chunk_rows: int
    """Rows of an inner chunk."""
    shard_rows: int
    """Rows of a shard: a multiple of ``chunk_rows``."""
    codec: CodecName
    """Codec of the inner chunks. A crc32c follows it, unless it is a codec of frames, which has its checksums inside."""
    level: int
    """Level of the compressor; 0 without one, and for frames."""
    step_a_chunk: bool = field(default=False, compare=False)
    """Whether each row must be readable alone (M6); this follows from the key, not from the disk."""

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.dims) or not self.shape:
            raise PlanError(f"{self.path}: {len(self.shape)} axes but dimension names {self.dims}")
        if self.dtype not in DTYPES:
            raise PlanError(f"{self.path}: arrays hold bool, integers and floats only, got {self.dtype}")
        if self.chunk_rows < 1 or self.shard_rows < 1 or self.shard_rows % self.chunk_rows:
            raise PlanError(f"{self.path}: a shard of {self.shard_rows} rows is no multiple of {self.chunk_rows} rows")
        if self.effort is not None and (self.chunk_rows != FRAMES_PER_CHUNK or len(self.shape) < 2):
            raise PlanError(
                f"{self.path}: chunks of frames hold {FRAMES_PER_CHUNK} rows with axes of their own, got {self.chunk_rows} of "
                f"{self.shape[1:]}"
            )

    @property
    def effort(self) -> Effort | None:
        """How frames are encoded with keyframes (codec ``robozarr.frames``); None for any other codec."""
        return "lean" if self.codec == "frames-lean" else "compact" if self.codec == "frames-compact" else None

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def row_bytes(self) -> int:
        """Size of one row, decoded, in bytes."""
        return self.itemsize * math.prod(self.shape[1:])

    @property
    def shuffle(self) -> Literal["noshuffle", "shuffle"]:
        """Blosc's shuffle, always stated: left to the library, uint8 gets bitshuffle, which doubles the decode time."""
        return "noshuffle" if np.dtype(self.dtype).itemsize == 1 else "shuffle"

    @property
    def n_shards(self) -> int:
        """Number of shards; every one of them must exist."""
        return -(-self.shape[0] // self.shard_rows)

    @property
    def chunks_per_shard(self) -> int:
        """Entries of a shard's index."""
        return self.shard_rows // self.chunk_rows

    def rows_of_shard(self, shard: int) -> tuple[int, int]:
        """Half-open row range that shard number `shard` covers."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.shape[0])

    def shard_path(self, shard: int) -> str:
        """Path of a shard inside the store (default chunk key encoding, ``/`` as separator)."""
        return "/".join([self.path, "c", str(shard), *("0" for _ in self.shape[1:])])


def is_frame(shape: tuple[int, ...]) -> bool:
    """Whether one step of a key is a picture: two spatial axes of 8 pixels or more, and at most one axis of channels.

    >>> is_frame((128, 128, 3)), is_frame((84, 84)), is_frame((7,)), is_frame((4, 4))
    (True, True, False, False)
    """
    return len(shape) in (2, 3) and min(shape[:2]) >= 8


def _power_of_two_at_most(n: float, lowest: int, highest: int) -> int:
    return min(highest, max(lowest, 1 << max(0, int(n).bit_length() - 1)))


def layout_of_values(
    path: str,
    shape: tuple[int, ...],
    dtype: str,
    dims: tuple[str, ...],
    profile: Profile,
    *,
    step_a_chunk: bool = False,
    keyframes: bool = True,
) -> ArrayLayout:
    """Layout of source data: ``steps/<key>`` and the values of ``ragged/<key>``.

    Frames, and what else has `step_a_chunk`, get one-row chunks (random access), or chunks with keyframes where the profile has
    these; a power of two of rows in a shard of at most 32 MiB, but at least a chunk. Everything else gets large chunks, because
    a loader holds it in RAM. Neither depends on the number of rows, so a store can grow. Without `keyframes` (version 1 of the
    format) no profile has any.
    """
    row_bytes = max(1, np.dtype(dtype).itemsize * math.prod(shape[1:]))
    step_a_chunk = step_a_chunk or is_frame(shape[1:])
    codec = PROFILES[profile]
    if step_a_chunk:
        chunk_rows = 1
        if keyframes and profile in FRAME_CODECS and row_bytes * FRAMES_PER_CHUNK <= MOST_CHUNK_BYTES:
            chunk_rows, codec = FRAMES_PER_CHUNK, (FRAME_CODECS[profile], 0)
        shard_rows = _power_of_two_at_most(FRAME_SHARD_BYTES / row_bytes, chunk_rows, 4096)
    else:
        most = ROWS_PER_CHUNK if len(shape) > 1 else TABLE_CHUNK_ROWS
        chunk_rows = _power_of_two_at_most(CHUNK_BYTES / row_bytes, 1, most)
        shard_rows = CHUNKS_PER_SHARD * chunk_rows
    layout = _layout(path, shape, dtype, dims, (chunk_rows, shard_rows), codec)
    return replace(layout, step_a_chunk=step_a_chunk)


def layout_of_table(
    path: str, shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], *, whole: bool = False
) -> ArrayLayout:
    """Layout of derived data: index, tables, text, statistics (`whole`: one chunk for all rows)."""
    row_bytes = max(1, np.dtype(dtype).itemsize * math.prod(shape[1:]))
    if whole:
        chunk_rows = shard_rows = max(1, shape[0])
    else:
        most = TEXT_CHUNK_BYTES if dtype == "uint8" and len(shape) == 1 else TABLE_CHUNK_ROWS
        chunk_rows = _power_of_two_at_most(TEXT_CHUNK_BYTES / row_bytes, 1, most)
        shard_rows = CHUNKS_PER_SHARD * chunk_rows
    return _layout(path, shape, dtype, dims, (chunk_rows, shard_rows), TABLE_CODEC)


def _layout(
    path: str,
    shape: tuple[int, ...],
    dtype: str,
    dims: tuple[str, ...],
    rows: tuple[int, int],
    codec: tuple[CodecName, int],
) -> ArrayLayout:
    return ArrayLayout(
        path=path,
        shape=shape,
        dtype=dtype,
        dims=dims,
        chunk_rows=rows[0],
        shard_rows=rows[1],
        codec=codec[0],
        level=codec[1],
    )

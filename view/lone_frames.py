"""Find single frames of one colour: a camera that dropped out for one step. Reads few pictures.

A compressed frame of one colour takes next to nothing; an uncompressed one has one of few checksums. Frames that could be of
one colour are read and checked; no frame is reported without that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.key import Key
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import read_index
from robozarr.store.opened import Store
from robozarr.view.findings import Finding, listed
from robozarr.view.rows import _open_shard, read_rows

__all__ = ["check_lone_frames", "is_one_colour"]

READ_BYTES: Final = 2**30
"""Bytes of pixels that are read of a key, at most, in blocks of BLOCK_BYTES."""
BLOCK_BYTES: Final = 2**25
SMALL: Final = 64
"""A frame may be of one colour if its chunk is smaller than its pixels by this factor, or of so few bytes more: LZ4 packs a
colour by about 250, zstd by more; no camera's picture comes near."""
FEW_BYTES: Final = 256
UNCOMPRESSED: Final = 192
"""A chunk of so few bytes may not be compressed at all: Blosc leaves less than 128 bytes as they are, and adds 20."""


def check_lone_frames(store: Store, name: str, wanted: NDArray[np.bool_]) -> Iterator[Finding]:
    """Findings about single frames of one colour in the episodes that are `wanted`.

    Of a camera they are a problem: no view has one colour. A mask, or a depth, may rightly have one value in a frame: a notice.

    Stretches of several frames are found by ``picture_checks``, and left out here.
    """
    key, sums, episode = store.keys[name], store.fingerprints(name), store.index.episode
    rows = np.flatnonzero(_may_be_one_colour(store, key, sums) & wanted[episode])
    most = READ_BYTES // max(1, store.layout(f"steps/{name}").row_bytes)
    block = max(1, BLOCK_BYTES // max(1, store.layout(f"steps/{name}").row_bytes))
    flat = [is_one_colour(read_rows(store, name, rows[at : at + block]), key) for at in range(0, min(len(rows), most), block)]
    found = rows[: len(np.concatenate(flat))][np.concatenate(flat)] if flat else rows[:0]
    same = np.concatenate([[False], (sums[1:] == sums[:-1]) & (episode[1:] == episode[:-1]), [False]])
    lone = found[~same[found] & ~same[found + 1]]
    if lone.size:
        axes = key.picture_axes
        colours = int(np.prod([size for letter, size in zip(axes, key.shape, strict=True) if letter not in "yx"])) >= 3
        at = [f"episode {episode[row]} (step {row - store.episodes.start[episode[row]]})" for row in lone.tolist()]
        yield Finding(
            level="problem" if colours else "notice", title=f"Frames of one colour: {name}",
            detail=f"all pixels of a single frame have one value in {listed(at)} → the camera dropped out for a step; look at "
            "them, and leave the episodes out if they matter",
        )  # fmt: skip
    if len(rows) > most:
        yield Finding(
            level="notice", title=f"Not all frames looked at: {name}",
            detail=f"{len(rows) - most:,} of {len(sums):,} frames could be of one colour, and were not read",
        )  # fmt: skip


def is_one_colour(frames: NDArray[Any], key: Key) -> NDArray[np.bool_]:
    """Which pictures [n, …] of a key have the same value, or the same colour, in all their pixels: bool [n]."""
    axes = key.picture_axes
    frames = np.moveaxis(frames, [1 + axes.index("y"), 1 + axes.index("x")], [-2, -1])
    found: NDArray[np.bool_] = (frames == frames[..., :1, :1]).reshape(len(frames), -1).all(axis=1)
    return found


def _may_be_one_colour(store: Store, key: Key, sums: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Rows whose frame could be of one colour, by what is known without reading pixels; all where nothing is."""
    layout = store.layout(f"steps/{key.name}")
    if layout.codec == "none" or layout.effort is not None:  # the fingerprints are crc32c of the pixels
        return _in_span(sums, key)
    if layout.chunk_rows != 1:
        return np.ones(len(sums), np.bool_)
    small = min(layout.row_bytes // SMALL + FEW_BYTES, max(layout.row_bytes // 2, UNCOMPRESSED))
    return np.concatenate([_sizes(store, layout, shard) <= small for shard in range(layout.n_shards)])


def _sizes(store: Store, layout: ArrayLayout, shard: int) -> NDArray[np.int64]:
    with _open_shard(store.place, layout.shard_path(shard)) as data:
        return read_index(data, layout, shard)[:, 1].astype(np.int64)


def _in_span(sums: NDArray[np.uint32], key: Key) -> NDArray[np.bool_]:
    """Whether checksums of uncompressed frames are those of a colour.

    A crc32c is linear in its bits: those of all colours are the exclusive ors of few. Of 2^32 checksums a colour of 24 bits has
    one in 256, so that one picture in 256 is read in vain. A colour of more bits could have any checksum: only black is known.
    """
    dtype = np.dtype(key.dtype).newbyteorder("<")
    black = np.zeros(key.shape, dtype)
    zero = google_crc32c.value(black.tobytes())
    axes = key.picture_axes
    places = [slice(None) if letter in "yx" else 0 for letter in axes]
    channels = np.ndindex(*(size for letter, size in zip(axes, key.shape, strict=True) if letter not in "yx"))
    basis: list[int] = []
    at = [number for number, letter in enumerate(axes) if letter not in "yx"]
    for channel in channels:
        for number, index in zip(at, channel, strict=True):
            places[number] = index
        for bit in range(8 * dtype.itemsize):
            pixel = np.frombuffer((1 << bit).to_bytes(dtype.itemsize, "little"), dtype)
            frame = black.copy()
            frame[tuple(places)] = pixel
            basis.append(google_crc32c.value(frame.tobytes()) ^ zero)
        if len(basis) > 24:
            black_only: NDArray[np.bool_] = sums == np.uint32(zero)
            return black_only
    left = sums ^ np.uint32(zero)
    for vector in _reduced(basis):
        highest = np.uint32(1 << (vector.bit_length() - 1))
        left = np.where(left & highest != 0, left ^ np.uint32(vector), left)
    found: NDArray[np.bool_] = left == 0
    return found


def _reduced(vectors: list[int]) -> list[int]:
    """Vectors of the same span with a highest bit of their own each, the highest first."""
    found: list[int] = []
    for vector in vectors:
        for one in found:
            vector = min(vector, vector ^ one)
        if vector:
            found.append(vector)
            found.sort(reverse=True)
    return found

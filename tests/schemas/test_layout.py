"""Layouts: shards tile the rows, sizes stay in their bounds, and neither depends on how many rows there are."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robozarr.schemas.errors import PlanError
from robozarr.schemas.layout import (
    CHUNK_BYTES,
    CHUNKS_PER_SHARD,
    FRAME_CODECS,
    FRAME_SHARD_BYTES,
    FRAMES_PER_CHUNK,
    PROFILES,
    TABLE_CHUNK_ROWS,
    TEXT_CHUNK_BYTES,
    ArrayLayout,
    Profile,
    is_frame,
    layout_of_table,
    layout_of_values,
)
from robozarr.schemas.limits import MOST_CHUNK_BYTES

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
dtypes = st.sampled_from(DTYPES)
profiles = st.sampled_from(sorted(PROFILES))
shapes = st.lists(st.integers(1, 300), max_size=3).map(tuple)
rows = st.integers(0, 10**7)


def values(n: int, inner: tuple[int, ...], dtype: str, profile: Profile = "fast") -> ArrayLayout:
    return layout_of_values("steps/a", (n, *inner), dtype, ("step", *map(str, inner)), profile)


def table(n: int, inner: tuple[int, ...], dtype: str, whole: bool = False) -> ArrayLayout:
    return layout_of_table("episodes/a", (n, *inner), dtype, ("episode", *map(str, inner)), whole=whole)


@given(n=rows, inner=shapes, dtype=dtypes, profile=profiles, whole=st.booleans())
def test_shards_tile_the_rows(n: int, inner: tuple[int, ...], dtype: str, profile: Profile, whole: bool) -> None:
    for layout in (values(n, inner, dtype, profile), table(n, inner, dtype, whole)):
        numbers = (
            range(layout.n_shards) if layout.n_shards < 1000 else [*range(9), *range(layout.n_shards - 9, layout.n_shards)]
        )
        ranges = [layout.rows_of_shard(shard) for shard in numbers]
        assert all(start < stop <= start + layout.shard_rows for start, stop in ranges)
        assert [ranges[0][0], ranges[-1][1]] == [0, n] if n else not ranges
        assert all(a[1] == b[0] for (i, a), (j, b) in pairwise(zip(numbers, ranges, strict=True)) if j == i + 1)
        assert layout.chunks_per_shard * layout.chunk_rows == layout.shard_rows


@given(n=rows, inner=shapes, dtype=dtypes, profile=profiles)
def test_values_lie_as_the_format_says(n: int, inner: tuple[int, ...], dtype: str, profile: Profile) -> None:
    layout = values(n, inner, dtype, profile)
    row_bytes = np.dtype(dtype).itemsize * math.prod(inner)
    assert layout.row_bytes == row_bytes
    frame_codec = FRAME_CODECS.get(profile) if is_frame(inner) and FRAMES_PER_CHUNK * row_bytes <= MOST_CHUNK_BYTES else None
    assert (layout.codec, layout.level) == (PROFILES[profile] if frame_codec is None else (frame_codec, 0))
    if is_frame(inner):
        least = 1 if frame_codec is None else FRAMES_PER_CHUNK
        assert layout.chunk_rows == least
        assert layout.shard_rows.bit_count() == 1
        assert layout.shard_rows * row_bytes <= FRAME_SHARD_BYTES or layout.shard_rows == least
        assert 2 * layout.shard_rows * row_bytes > FRAME_SHARD_BYTES or layout.shard_rows == 4096
    else:
        assert layout.chunk_rows * row_bytes <= CHUNK_BYTES or layout.chunk_rows == 1
        assert layout.chunks_per_shard == CHUNKS_PER_SHARD


@given(n=rows, inner=shapes, dtype=dtypes)
def test_tables_lie_in_bounds(n: int, inner: tuple[int, ...], dtype: str) -> None:
    layout = table(n, inner, dtype)
    assert layout.chunk_rows * layout.row_bytes <= TEXT_CHUNK_BYTES or layout.chunk_rows == 1
    assert layout.chunk_rows <= (TEXT_CHUNK_BYTES if dtype == "uint8" and not inner else TABLE_CHUNK_ROWS)
    whole = table(n, inner, dtype, whole=True)
    assert (whole.n_shards, whole.chunks_per_shard) == (min(n, 1), 1)


@given(n=rows, m=rows, inner=shapes, dtype=dtypes, profile=profiles)
def test_a_store_can_grow(n: int, m: int, inner: tuple[int, ...], dtype: str, profile: Profile) -> None:
    for one, other in (
        (values(n, inner, dtype, profile), values(m, inner, dtype, profile)),
        (table(n, inner, dtype), table(m, inner, dtype)),
    ):
        assert (one.chunk_rows, one.shard_rows) == (other.chunk_rows, other.shard_rows)


@pytest.mark.parametrize(
    ("inner", "dtype", "shard_rows"),
    [
        ((128, 128, 3), "uint8", 512),  # LIBERO: 24 MiB
        ((256, 256, 3), "uint8", 128),  # OpenVLA: 24 MiB
        ((84, 84, 3), "uint8", 1024),  # robomimic: 21 MiB
        ((128, 128, 1), "float32", 512),  # depth: exactly 32 MiB
        ((8, 8), "uint8", 4096),  # no more than 4,096
        ((4096, 4096, 3), "uint8", 1),  # one frame is beyond the bound already
    ],
)
def test_shards_of_pictures(inner: tuple[int, ...], dtype: str, shard_rows: int) -> None:
    assert values(1, inner, dtype).shard_rows == shard_rows


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ((128, 128, 3), True),
        ((84, 84), True),
        ((8, 8, 1), True),
        ((7, 8, 3), False),
        ((3, 128, 128), False),  # channels first: not what LIBERO writes
        ((2, 128, 128, 3), False),
        ((64,), False),
        ((), False),
    ],
)
def test_what_a_picture_is(shape: tuple[int, ...], frame: bool) -> None:
    assert is_frame(shape) is frame


@pytest.mark.parametrize(
    ("dtype", "shuffle"), [("uint8", "noshuffle"), ("bool", "noshuffle"), ("uint16", "shuffle"), ("float64", "shuffle")]
)
def test_shuffle_is_for_wide_types(dtype: str, shuffle: str) -> None:
    assert values(1, (), dtype).shuffle == shuffle


def test_a_shard_has_the_name_that_zarr_gives_it() -> None:
    assert values(10, (128, 128, 3), "uint8").shard_path(7) == "steps/a/c/7/0/0/0"
    assert values(10, (), "uint8").shard_path(0) == "steps/a/c/0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": ("step",)}, r"a/b: 2 axes but dimension names \('step',\)"),
        ({"shape": (), "dims": ()}, r"a/b: 0 axes but dimension names \(\)"),
        ({"dtype": "U5"}, "a/b: arrays hold bool, integers and floats only, got U5"),
        ({"dtype": "complex64"}, "a/b: arrays hold bool, integers and floats only, got complex64"),
        ({"dtype": "datetime64[s]"}, "a/b: arrays hold bool, integers and floats only, got datetime64"),
        ({"chunk_rows": 0}, "a/b: a shard of 8 rows is no multiple of 0 rows"),
        ({"chunk_rows": 3}, "a/b: a shard of 8 rows is no multiple of 3 rows"),
        ({"shard_rows": 0}, "a/b: a shard of 0 rows"),
        ({"shard_rows": -4}, "a/b: a shard of -4 rows"),
    ],
)
def test_a_layout_refuses(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "path": "a/b", "shape": (9, 3), "dtype": "int32", "dims": ("x", "y"), "chunk_rows": 4, "shard_rows": 8,
        "codec": "zstd", "level": 3,
    }  # fmt: skip
    ArrayLayout(**good)
    with pytest.raises(PlanError, match=message):
        ArrayLayout(**good | changes)

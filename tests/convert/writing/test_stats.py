"""Statistics against plain numpy and Python integers; the same bits however the frames are cut into runs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from robozarr.convert.writing.stats import (
    FrameMoments,
    MomentsOfKey,
    episode_statistics,
    frame_moments,
    quantiles_of_histogram,
    store_statistics,
)
from robozarr.schemas.metadata import EPISODE_STATISTICS, STORE_STATISTICS, Key

Floats = NDArray[np.float64]


def assert_close(got: NDArray[Any], expected: NDArray[Any], tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def key_of(shape: tuple[int, ...], dtype: str) -> Key:
    return Key(name="k", source="obs/k", dtype=dtype, shape=shape, role="state", unit="")


def reduce(frames: NDArray[Any], lengths: list[int], cuts: list[int], key: Key) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Per episode, histogram and whole store, from partitions that end at `cuts`, taken last first."""
    ends = np.cumsum([0, *lengths]).tolist()
    moments = MomentsOfKey(key)
    for shard, (low, high) in reversed(list(enumerate(pairwise(sorted({0, len(frames), *cuts}))))):
        overlaps = [(e, max(a, low), min(b, high)) for e, (a, b) in enumerate(pairwise(ends))]
        runs = [(e, start - low, stop - low) for e, start, stop in overlaps if start < stop]
        moments.add(shard, frame_moments(frames[low:high], runs, key))
    table, histogram = moments.combine(np.array(lengths))
    return table, histogram, store_statistics(key, table, np.array(lengths), histogram=histogram, quantiles=None)


def plain(values: Floats) -> dict[str, Floats]:
    """Statistics over the first axis, in float64."""
    return {
        "mean": values.mean(axis=0), "std": values.std(axis=0), "rms": np.sqrt(np.square(values).mean(axis=0)),
        "min": values.min(axis=0), "max": values.max(axis=0),
    }  # fmt: skip


@st.composite
def clips(draw: st.DrawFn, dtype: str) -> tuple[NDArray[Any], list[int], Key]:
    """Frames [n, y, x(, c)], episode lengths, key."""
    lengths = draw(st.lists(st.integers(1, 40 if dtype == "uint8" else 8), min_size=1, max_size=4))
    channels = draw(st.sampled_from([(), (1,), (2,), (3,), (4,), (5,)]))
    shape = (draw(st.integers(8, 11)), draw(st.integers(8, 11)), *channels)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = (sum(lengths), *shape)
    if dtype == "uint8":
        low = draw(st.integers(0, 255))
        return rng.integers(low, draw(st.integers(low, 255)), size, np.uint8, endpoint=True), lengths, key_of(shape, dtype)
    return rng.normal(draw(st.sampled_from([0.0, 0.9, -50.0])), 0.1, size).astype(dtype), lengths, key_of(shape, dtype)


@given(clip=clips("uint8"), cuts=st.lists(st.integers(0, 160), max_size=6))
def test_pictures_are_counted_exactly(clip: tuple[NDArray[np.uint8], list[int], Key], cuts: list[int]) -> None:
    frames, lengths, key = clip
    table, histogram, whole = reduce(frames, lengths, [cut for cut in cuts if cut < len(frames)], key)
    channels = frames.reshape(len(frames), -1, math.prod(key.channel_shape))
    ends = np.cumsum([0, *lengths]).tolist()
    flat_table, flat_whole = table.reshape(*table.shape[:2], -1), whole.reshape(len(whole), -1)
    for c in range(channels.shape[2]):
        assert histogram[c].tolist() == np.bincount(channels[:, :, c].ravel(), minlength=256).tolist()
        for episode, (start, stop) in enumerate(pairwise(ends)):
            assert flat_table[episode, :, c].tolist() == exact(channels[start:stop, :, c])
        n, mean, std, low, high, q01, q99 = flat_whole[:, c].tolist()
        e_mean, e_std, _, e_low, e_high = exact(channels[:, :, c])
        assert (n, mean, std, low, high) == (channels[:, :, c].size, e_mean, e_std, e_low, e_high)
        assert (q01, q99) == tuple(exact_quantile(channels[:, :, c], percent) for percent in (1, 99))
    assert table.shape == (len(lengths), len(EPISODE_STATISTICS), *key.channel_shape)
    assert whole.shape == (len(STORE_STATISTICS), *key.channel_shape)


def exact(pixels: NDArray[np.uint8]) -> list[float]:
    values = [int(x) for x in pixels.ravel()]
    n, total, squares = len(values), sum(values), sum(x * x for x in values)
    return [total / n, math.sqrt((n * squares - total**2) / n**2), math.sqrt(squares / n), min(values), max(values)]


def exact_quantile(values: NDArray[Any], percent: int) -> float:
    """The smallest value with at least `percent` in a hundred values below or at it."""
    ordered = np.sort(values, axis=None)
    return float(ordered[max(0, -(-percent * len(ordered) // 100) - 1)])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@examples(40)
@given(data=st.data())
def test_no_cut_changes_a_bit(dtype: str, data: st.DataObject) -> None:
    frames, lengths, key = data.draw(clips(dtype))
    cuts = data.draw(st.lists(st.integers(0, len(frames)), max_size=6))
    whole, every = reduce(frames, lengths, [], key), reduce(frames, lengths, list(range(len(frames))), key)
    some, view = reduce(frames, lengths, cuts, key), reduce(np.asfortranarray(frames), lengths, cuts, key)
    for one, two, three, four in zip(whole, every, some, view, strict=True):
        assert one.tobytes() == two.tobytes() == three.tobytes()
        assert_close(one, four)


@examples(40)
@given(clip=clips("float32"))
def test_depth_equals_plain_numpy(clip: tuple[NDArray[np.float32], list[int], Key]) -> None:
    frames, lengths, key = clip
    table, histogram, whole = reduce(frames, lengths, [len(frames) // 2], key)
    ends = np.cumsum([0, *lengths]).tolist()
    for episode, (start, stop) in enumerate(pairwise(ends)):
        expected = plain(frames[start:stop].astype(np.float64).reshape(-1, *key.channel_shape))
        assert_close(table[episode], np.stack([expected[name] for name in EPISODE_STATISTICS]))
    values = frames.astype(np.float64).reshape(-1, *key.channel_shape)
    expected = plain(values)
    assert_close(whole[1:5], np.stack([expected[name] for name in ("mean", "std", "min", "max")]))
    assert (whole[0] == len(values)).all()
    assert (histogram.sum(axis=1) == len(values)).all()
    for c, column in enumerate(frames.reshape(len(values), -1).T):
        for row, percent in ((5, 1), (6, 99)):
            value = exact_quantile(column, percent)
            edge = whole[row].reshape(-1)[c]
            assert edge <= value <= edge + 2**-7 * abs(edge)  # 7 bits of the mantissa


@pytest.mark.parametrize("values", [[-np.inf, -3.4e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.5, 3.4e38, np.inf, np.nan]])
def test_bins_of_floats_are_in_order(values: list[float]) -> None:
    frames = np.array(values, np.float32)
    bins = []
    for value in frames:
        histogram = frame_moments_of(np.full((1, 8, 8), value)).histogram
        (number,) = np.flatnonzero(histogram[0])
        bins.append(int(number))
    assert bins == sorted(bins)
    assert len(set(bins)) >= len(bins) - 2


def frame_moments_of(frames: NDArray[np.float32]) -> FrameMoments:
    with np.errstate(invalid="ignore"):
        return frame_moments(frames, [(0, 0, len(frames))], key_of(frames.shape[1:], "float32"))


@pytest.mark.parametrize(
    ("odd", "statistics"), [(np.nan, ["mean", "std", "rms", "min", "max"]), (np.inf, ["std", "mean", "rms", "max"])]
)
def test_what_is_not_finite_in_depth_shows_and_is_no_alarm(odd: float, statistics: list[str]) -> None:
    frames = np.ones((3, 8, 8, 1), np.float32)
    frames[1, 4, 4] = odd
    table, _, whole = reduce(frames, [1, 1, 1], [], key_of((8, 8, 1), "float32"))
    assert np.isfinite(table[[0, 2]]).all()
    assert {name for name, value in zip(EPISODE_STATISTICS, table[1, :, 0], strict=True) if not np.isfinite(value)} == set(
        statistics
    )
    assert not np.isfinite(whole[1:3]).any()


@pytest.mark.parametrize("dtype", ["bool", "int16", "uint16", "float16", "float64"])
def test_pictures_of_other_types(dtype: str) -> None:
    frames = (np.random.default_rng(0).uniform(0, 2, (5, 9, 8, 2)) * (1 if dtype == "bool" else 50)).astype(dtype)
    table, histogram, whole = reduce(frames, [2, 3], [1, 4], key_of((9, 8, 2), dtype))
    expected = plain(frames.astype(np.float64).reshape(-1, 2))
    assert_close(whole[1:5], np.stack([expected[name] for name in ("mean", "std", "min", "max")]))
    assert histogram.sum() == frames.size
    assert table.shape == (2, 5, 2)


# --- low-dim keys ---

STEP_SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (4, 4)]


@pytest.mark.parametrize("shape", STEP_SHAPES)
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
@examples(15, 5)
@given(data=st.data())
def test_low_dim_keys_equal_plain_numpy(shape: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    lengths = np.array(data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=6)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = (rng.uniform(0, 100, (int(lengths.sum()), *shape)) - (0 if dtype == "uint8" else 50)).astype(dtype)
    table = episode_statistics(values, lengths)
    wide = values.astype(np.float64)
    for number, (start, stop) in enumerate(pairwise(np.cumsum([0, *lengths]).tolist())):
        expected = plain(wide[start:stop])
        assert_close(table[number], np.stack([expected[name] for name in EPISODE_STATISTICS]))
    quantiles = np.quantile(wide, (0.01, 0.99), axis=0)
    whole = store_statistics(key_of(shape, dtype), table, lengths, histogram=None, quantiles=quantiles)
    expected = plain(wide) | {"n": np.full(shape, float(lengths.sum())), "q01": quantiles[0], "q99": quantiles[1]}
    assert_close(whole, np.stack([expected[name] for name in STORE_STATISTICS]), 1e-9)


@given(lengths=st.lists(st.integers(1, 20), min_size=2, max_size=6), seed=st.integers(0, 2**32))
def test_appending_changes_no_episode(lengths: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(sum(lengths), 3))
    table = episode_statistics(values, np.array(lengths))
    fewer = episode_statistics(values[: -lengths[-1]], np.array(lengths[:-1]))
    assert table[:-1].tobytes() == fewer.tobytes()


@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e200])
def test_what_is_not_finite_shows_and_is_no_alarm(odd: float) -> None:
    values, lengths = np.ones((4, 2)), np.array([2, 2])
    values[3, 1] = odd
    table = episode_statistics(values, lengths)
    whole = store_statistics(key_of((2,), "float64"), table, lengths, histogram=None, quantiles=np.zeros((2, 2)))
    assert np.isfinite(table[0]).all()
    assert np.isfinite(table[1, :, 0]).all()
    assert not np.isfinite([table[1, 1, 1], whole[2, 1]]).any()
    assert np.isfinite(whole[:, 0]).all()


# --- quantiles ---


@given(counts=st.lists(st.integers(0, 5000), min_size=1, max_size=256).filter(any))
def test_quantiles_of_a_histogram_are_those_of_its_values(counts: list[int]) -> None:
    histogram = np.zeros((1, 256), np.int64)
    histogram[0, : len(counts)] = counts
    values = np.repeat(np.arange(256), histogram[0])
    assert quantiles_of_histogram(histogram, exact=True).ravel().tolist() == [
        exact_quantile(values, 1),
        exact_quantile(values, 99),
    ]


def test_quantiles_are_exact_at_every_round_count() -> None:
    """n a multiple of 100, where 0.01 n in floats may come out above n / 100."""
    for n in range(100, 200_000, 100):
        low, high = quantiles_of_histogram(np.array([[n // 100, n - 2 * (n // 100), n // 100]]), exact=True).ravel().tolist()
        assert (low, high) == (0.0, 1.0), n

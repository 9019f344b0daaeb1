"""Frames with keyframes: what three readers read is what the sources hold, bit for bit, whatever the frames are like.

Ours (the one that people look with), zarr-python with the codec (slices, integers, fancy, xarray), and one that was made from
the words of FORMAT.md alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import format_reader
import format_writer
import h5py
import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.writing.shard import encode_chunks
from robozarr.schemas.frame_chunk import ENTRY
from robozarr.schemas.layout import ArrayLayout, Profile, layout_of_values
from robozarr.schemas.zarr_json import array_document, document_bytes
from robozarr.view.rows import read_rows

PROFILES: tuple[Profile, ...] = ("lean", "compact")
SOME = [
    pytest.param(profile, marks=[pytest.mark.slow(reason="the same on another profile")] if profile == "compact" else [])
    for profile in PROFILES
]
"""Both; compact, which differs in the encoder alone, only where there is time."""
SEED = 17


def assert_same(found: NDArray[Any], expected: NDArray[Any], what: object = "") -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    assert found.tobytes() == expected.tobytes(), what


def read_by_zarr(array: zarr.Array[Any], expected: NDArray[Any]) -> None:
    """Whole, slices, integers, fancy."""
    n = len(expected)
    rows = np.random.default_rng(SEED).integers(0, n, 9)
    assert_same(np.asarray(array[...]), expected)
    for selection in (0, n - 1, -1, slice(n // 2, n // 2 + 3), slice(n // 3, n, 5), slice(0, 0)):
        assert_same(np.asarray(array[selection]), expected[selection], selection)
    assert_same(np.asarray(array.oindex[rows]), expected[rows], rows)
    third = np.arange(n) % 3 == 1
    assert_same(np.asarray(array.oindex[third]), expected[third], third)
    one = tuple(rows % size for size in expected.shape)
    assert_same(np.asarray(array.vindex[one]), expected[one], "vindex")


def read_by_three(path: Path, key: str, expected: NDArray[Any]) -> None:
    """Every step of a key of a store."""
    store = robozarr.open_store(path)
    assert store.layout(f"steps/{key}").effort is not None
    assert_same(read_rows(store, key, range(len(expected))), expected, key)
    for row in (0, len(expected) // 2, len(expected) - 1):
        assert_same(read_rows(store, key, [row])[0], expected[row], key)
    array = zarr.open_group(path, mode="r")[f"steps/{key}"]
    assert isinstance(array, zarr.Array)
    read_by_zarr(array, expected)
    opened = xarray.open_zarr(path / "steps", consolidated=False)[key]
    assert_same(opened[1:7].values, expected[1:7], key)
    assert_same(format_reader.read_frames(path, key), expected, key)


def keys_of(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Frame keys of a store, and what its one source holds."""
    store = robozarr.open_store(path)
    for key in store.metadata.keys:
        if key.frame:
            yield (
                key.name,
                np.concatenate([source_rows(path, store, episode, key.source) for episode in range(store.n_episodes)]),
            )


def source_rows(path: Path, store: robozarr.Store, episode: int, dataset: str) -> NDArray[Any]:
    name = store.metadata.sources[int(store.episodes.source[episode])].name
    (file,) = (path.parent / "s").rglob(name.split("/")[-1])
    with h5py.File(file) as opened:
        rows: NDArray[Any] = opened[f"data/{store.episodes.demo[episode]}/{dataset}"][...]
        return rows


def test_the_reader_uses_nothing_of_robozarr() -> None:
    lines = Path(format_reader.__file__).read_text().splitlines()
    assert [line for line in lines if line.lstrip().startswith(("import ", "from ")) and "robozarr" in line] == []


@pytest.mark.parametrize("profile", SOME)
def test_what_the_other_writer_writes(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every mode that the format has, alone and with a keyframe."""
    keys = [key._replace(steps=smooth(key.steps)) if key.frame else key for key in format_writer.keys()]
    monkeypatch.setattr(format_writer, "keys", lambda: keys)
    format_writer.write_by_hand(tmp_path / "a.zarr", profile)
    assert verify(tmp_path / "a.zarr", workers=0).violations == ()
    modes = set()
    for key in (key for key in keys if key.frame):
        read_by_three(tmp_path / "a.zarr", key.name, key.steps)
        for start in range(0, len(key.steps), 16):
            part = key.steps[start : start + 16]
            entries = np.frombuffer(format_writer.pack_frames(part, start), ENTRY, len(part))
            alone = (entries["keyframe"] == np.arange(len(part))).tolist()
            modes |= set(zip(entries["mode"].tolist(), alone, strict=True))
    assert modes >= {(0, True), (4, True), *((mode, alone) for mode in (1, 2, 5, 6) for alone in (True, False))}


def smooth(frames: NDArray[Any]) -> NDArray[Any]:
    """Frames that can be compressed, each a little unlike the one before."""
    still = np.repeat(np.full_like(frames[:1], 3), len(frames), axis=0)
    still[np.arange(len(frames)), np.arange(len(frames)) % 8, 2] = 7
    return still


@pytest.mark.parametrize("profile", SOME)
def test_synthetic_stores(profile: Profile, tmp_path: Path) -> None:
    """Several episodes a chunk, depth in float32, uint16 beside uint8, 84 px."""

    def extra(n: int, rng: np.random.Generator) -> NDArray[Any]:
        return np.cumsum(rng.integers(0, 9, (n, 12, 17)), axis=0).astype(np.uint16)

    synthetic.write_libero(
        tmp_path / "s/a_demo.hdf5", lengths=(5, 18, 2, 9), size=84, depth=True, seed=3, extra={"obs/heat": extra}
    )
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0, profile=profile)
    found = dict(keys_of(tmp_path / "a.zarr"))
    assert {str(rows.dtype) for rows in found.values()} == {"uint8", "uint16", "float32"}
    for key, expected in found.items():
        read_by_three(tmp_path / "a.zarr", key, expected)


@pytest.mark.slow(reason="every frame of every file, one by one, in Python")
@pytest.mark.parametrize("profile", PROFILES)
def test_every_real_file(profile: Profile, real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to(real_data)
    convert(real_data, tmp_path / "a.zarr", workers=0, profile=profile)
    assert verify(tmp_path / "a.zarr", sources=real_data, workers=0).violations == ()
    store = robozarr.open_store(tmp_path / "a.zarr")
    for key in ("agentview_rgb", "eye_in_hand_rgb"):
        from_words = format_reader.read_frames(tmp_path / "a.zarr", key)
        plain = zarr.open_group(tmp_path / "a.zarr", mode="r")[f"steps/{key}"]
        assert isinstance(plain, zarr.Array)
        for episode, (start, length) in enumerate(
            zip(store.episodes.start.tolist(), store.episodes.length.tolist(), strict=True)
        ):
            expected = rows_of_real(real_data, store, episode, f"obs/{key}")
            rows = slice(start, start + length)
            assert_same(from_words[rows], expected, (key, episode))
            assert_same(np.asarray(plain[rows]), expected, (key, episode))
            assert_same(read_rows(store, key, range(start, start + length)), expected, (key, episode))


def rows_of_real(folder: Path, store: robozarr.Store, episode: int, dataset: str) -> NDArray[Any]:
    name = store.metadata.sources[int(store.episodes.source[episode])].name
    with h5py.File(folder / name if (folder / name).exists() else next(folder.rglob(name))) as opened:
        rows: NDArray[Any] = opened[f"data/{store.episodes.demo[episode]}/{dataset}"][...]
        return rows


KINDS = ("constant", "noise", "still", "cut", "one pixel", "moving")
SHAPES = ((1, 1, 3), (1, 1), (5, 7, 3), (9, 7), (8, 8, 1), (33, 21, 4), (84, 84, 3), (2, 3, 6, 5), (13,))
LARGE = ((256, 256, 3), (150, 331), (1024, 40, 3))


def pictures(kind: str, n: int, shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    """Frames [n, …] of any bits: NaN, -0.0 too."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (n, int(np.prod(shape)) * np.dtype(dtype).itemsize), np.uint8)
    if dtype == "bool":
        noise &= 1
    data = np.repeat(noise[:1], n, axis=0)
    if kind == "constant":
        data[:] = 1
    if kind == "noise":
        data = noise
    if kind == "cut":
        data[n // 3 :], data[2 * n // 3 :] = noise[n // 3], noise[0]
    if kind == "one pixel":
        data[np.arange(n), rng.integers(0, data.shape[1], n)] ^= 1
    if kind == "moving":
        data = np.stack([np.roll(noise[0], 3 * i) for i in range(n)])
    return np.ascontiguousarray(data).view(dtype).reshape(n, *shape)


def write_array(folder: Path, frames: NDArray[Any], begins: list[int], profile: Profile) -> ArrayLayout:
    """An array of frames as the converter writes it, alone."""
    dims = tuple(f"d{axis}" for axis in range(frames.ndim))
    layout = layout_of_values("steps/key", frames.shape, frames.dtype.name, dims, profile, step_a_chunk=True)
    (folder / "steps/key").mkdir(parents=True)
    (folder / "steps/key/zarr.json").write_bytes(document_bytes(array_document(layout)))
    for shard in range(layout.n_shards):
        start, stop = layout.rows_of_shard(shard)
        path = folder / layout.shard_path(shard)
        path.parent.mkdir(parents=True)
        mine = [row - start for row in begins if start <= row < stop]
        path.write_bytes(b"".join(encode_chunks(frames[start:stop], layout, mine)))
    return layout


def check_array(frames: NDArray[Any], begins: list[int], profile: Profile) -> None:
    with TemporaryDirectory() as folder:
        write_array(Path(folder), frames, begins, profile)
        assert_same(format_reader.read_frames(Path(folder), "key"), frames)
        read_by_zarr(zarr.open_array(f"{folder}/steps/key", mode="r"), frames)


@settings(max_examples=15)
@given(
    kind=st.sampled_from(KINDS), n=st.integers(1, 40), shape=st.sampled_from(SHAPES), seed=st.integers(0, 99),
    dtype=st.sampled_from(["uint8", "uint16", "float32", "float64", "bool", "int8"]), profile=st.sampled_from(PROFILES),
    begins=st.lists(st.integers(0, 39), max_size=6),
)  # fmt: skip
def test_frames_of_any_kind(
    kind: str, n: int, shape: tuple[int, ...], seed: int, dtype: str, profile: Profile, begins: list[int]
) -> None:
    check_array(pictures(kind, n, shape, dtype, seed), sorted({0, *(row for row in begins if row < n)}), profile)


@pytest.mark.slow(reason="large frames")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_large_frames(shape: tuple[int, ...], dtype: str, profile: Profile) -> None:
    for kind in KINDS:
        check_array(pictures(kind, 18, shape, dtype, SEED), [0, 17], profile)


@pytest.mark.slow(reason="three megapixels a frame, encoded and decoded in Python")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("dtype", "kind"), [("uint8", "noise"), ("uint8", "one pixel"), ("float32", "one pixel")])
def test_very_large_frames(dtype: str, kind: str, profile: Profile) -> None:
    check_array(pictures(kind, 2, (1024, 1024, 3), dtype, SEED), [0], profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_frames_of_several_strips(profile: Profile) -> None:
    check_array(pictures("one pixel", 5, (140, 131, 3), "uint8", SEED), [0, 3], profile)

"""Chunks of frames: every kind of picture comes back bit for bit, by our decoder and by zarr-python; damage is an error."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray
import zarr
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from robozarr.schemas.frame_chunk import ENTRY, FILTERED, Coding, FrameChunkError
from robozarr.schemas.frames.decode import FrameDecoder
from robozarr.schemas.frames.splice import decode_lz4, decode_zstd
from robozarr.schemas.layout import Effort
from robozarr.store.frames.encode import encode_frames
from robozarr.store.frames.zarr_codec import FramesCodec

EFFORTS: tuple[Effort, ...] = ("lean", "compact")
KINDS = ("noise", "constant", "still", "one pixel", "moving", "cut")
SHAPES = [(1, 1, 3), (5, 7, 3), (9, 7), (8, 8, 1), (33, 21, 4), (40, 32, 3)]


def pictures(kind: str, n: int, shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 255, (n, *shape)).astype(dtype)
    if kind == "noise":
        return noise
    if kind == "constant":
        return np.full((n, *shape), 7, dtype)
    still = np.repeat(noise[:1], n, axis=0)
    if kind == "one pixel":
        still.reshape(n, -1)[np.arange(n), rng.integers(0, still[0].size, n)] += 1
    if kind == "moving":
        still = np.stack([np.roll(noise[0], i, axis=1) for i in range(n)])
    if kind == "cut":
        still[n // 2 :] = noise[-1]
    return still


def decoded(chunk: bytes, like: NDArray[Any], n_rows: int = 16) -> NDArray[Any]:
    decoder = FrameDecoder(chunk, n_rows, like.shape[1:], like.dtype)
    assert decoder.n_present == len(like)
    return decoder.rows(range(len(like)))


@examples(150)
@given(
    st.sampled_from(KINDS), st.integers(1, 16), st.sampled_from(SHAPES),
    st.sampled_from(["uint8", "uint16", "float32", "bool"]), st.integers(0, 99), st.sampled_from(EFFORTS),
    st.lists(st.booleans(), min_size=16, max_size=16),
)  # fmt: skip
def test_every_picture_comes_back(
    kind: str, n: int, shape: tuple[int, ...], dtype: str, seed: int, effort: Effort, begins: list[bool]
) -> None:
    frames = pictures(kind, n, shape, "uint8", seed).astype(dtype)
    chunk = encode_frames(frames, 16, effort, begins=begins[:n])
    assert np.array_equal(decoded(chunk, frames), frames)
    decoder = FrameDecoder(chunk, 16, shape, frames.dtype)
    for row in range(n - 1, -1, -1):  # each with its keyframe alone
        assert np.array_equal(decoder.rows([row])[0], frames[row])
    table = np.frombuffer(chunk[: 16 * ENTRY.itemsize], ENTRY)[:n]
    first = np.maximum.accumulate(np.where([row == 0 or begins[row] for row in range(n)], np.arange(n), 0))
    assert (table["keyframe"] >= first).all(), "an episode reads no other's keyframe"


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("shape", [(256, 256, 3), (200, 300), (1024, 40, 3)])
def test_frames_of_several_strips(shape: tuple[int, ...], effort: Effort) -> None:
    for kind in ("noise", "still", "one pixel"):
        frames = pictures(kind, 5, shape, "uint8", 1)
        assert np.array_equal(decoded(encode_frames(frames, 16, effort), frames), frames)


def test_floats_keep_their_bits() -> None:
    frames = np.array([[[np.nan, -0.0], [np.inf, 1e-40]]], "float32")
    frames.view("uint32")[0, 0, 0] = 0x7FC12345
    assert decoded(encode_frames(frames, 16, "compact"), frames).tobytes() == frames.tobytes()


@pytest.mark.parametrize("effort", EFFORTS)
def test_real_files(real_data: Path, effort: Effort) -> None:
    sizes: dict[str, list[int]] = {}
    for path in sorted((real_data / "libero").glob("*/*.hdf5")):
        with h5py.File(path) as file:
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                frames = file[f"data/demo_0/obs/{camera}"][:48]
                chunks = [encode_frames(frames[at : at + 16], 16, effort) for at in range(0, 48, 16)]
                assert np.array_equal(np.concatenate([decoded(c, frames[:16]) for c in chunks]), frames)
                sizes.setdefault(camera, []).append(frames.nbytes)
                sizes.setdefault(f"{camera} coded", []).append(sum(map(len, chunks)))
    ratio = {camera: sum(sizes[camera]) / sum(sizes[f"{camera} coded"]) for camera in ("agentview_rgb", "eye_in_hand_rgb")}
    least = {"lean": (3.8, 1.4), "compact": (6.0, 2.6)}[effort]
    assert ratio["agentview_rgb"] > least[0]
    assert ratio["eye_in_hand_rgb"] > least[1]


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_byte_changed(effort: Effort) -> None:
    """The right pixels, or an error: never others."""
    frames = pictures("one pixel", 5, (6, 5, 3), "uint8", 3)
    frames[2:] = pictures("noise", 3, (6, 5, 3), "uint8", 4)
    good = encode_frames(frames, 8, effort, begins=[False, False, False, True, False])
    n_refused = 0
    for at in range(len(good)):
        for change in (0xFF, 1, 0x80):
            bad = bytearray(good)
            bad[at] ^= change
            try:
                got = decoded(bytes(bad), frames, 8)
            except (FrameChunkError, AssertionError):
                n_refused += 1
            else:
                assert np.array_equal(got, frames), at
    assert n_refused == 3 * len(good)  # nothing in a chunk is without meaning
    for size in range(len(good)):
        with pytest.raises((FrameChunkError, AssertionError)):
            decoded(good[:size], frames, 8)


HOSTILE = {
    "keyframe behind": {"keyframe": [1, 1, 0, 0]},
    "keyframe of a keyframe": {"keyframe": [0, 0, 1, 1]},
    "an unknown mode": {"mode": [3, 1, 1, 1]},
    "a filtered frame with an unfiltered keyframe": {"mode": [1, 1 | FILTERED, 1, 1]},
    "a stored frame with a keyframe": {"mode": [1, Coding.STORED, 1, 1]},
    "a row is absent before others": {"keyframe": [0, 255, 0, 0]},
    "all rows are absent": {"keyframe": [255, 255, 255, 255]},
    "an offset elsewhere": {"offset": [0, 1, 2, 3]},
    "a length that wraps": {"length": [2**32 - 1, 1, 1, 1]},
    "a length of nothing": {"length": [0, 1, 1, 1]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_tables_that_say_what_may_not_be(name: str) -> None:
    frames = pictures("still", 4, (16, 16, 3), "uint8", 0)
    chunk = bytearray(encode_frames(frames, 4, "lean"))
    table = np.frombuffer(chunk, ENTRY, 4).copy()
    for field, values in HOSTILE[name].items():
        table[field] = values
    chunk[: table.nbytes] = table.tobytes()
    with pytest.raises(FrameChunkError):
        decoded(bytes(chunk), frames, 4)


@examples(300)
@given(st.binary(max_size=80), st.binary(max_size=40), st.integers(0, 200))
def test_bytes_of_any_kind_are_refused_or_decode(block: bytes, dictionary: bytes, size: int) -> None:
    for decode in (decode_lz4, decode_zstd):
        try:
            assert len(decode(block, size, dictionary)) == size
        except (ValueError, RuntimeError):
            continue


SELECTIONS: tuple[Any, ...] = (3, -1, slice(5, 9), slice(14, 40, 3), (7, slice(3, 9)), (slice(2, 20), slice(None), 5, 1), ...)


@pytest.mark.parametrize("effort", EFFORTS)
def test_zarr_python_reads_and_writes_it(tmp_path: Path, effort: Effort) -> None:
    frames = pictures("one pixel", 50, (24, 20, 3), "uint8", 5)
    options: dict[str, Any] = {"serializer": FramesCodec(effort), "compressors": None, "filters": None}
    zarr.create_group(tmp_path / "g").create_array(
        "a", shape=frames.shape, dtype="uint8", chunks=(16, 24, 20, 3), shards=(32, 24, 20, 3),
        dimension_names=["step", "y", "x", "c"], **options,
    )[:] = frames  # fmt: skip
    array = zarr.open_group(tmp_path / "g", mode="r")["a"]
    assert isinstance(array, zarr.Array)
    assert np.array_equal(array[:], frames)
    for selection in SELECTIONS:
        assert np.array_equal(array[selection], frames[selection]), selection
    rows, columns = np.array([1, 2, 17, 33], np.int64), np.array([4, 8], np.int64)
    assert np.array_equal(array.oindex[rows], frames[rows])
    assert np.array_equal(array.oindex[rows, :, columns], frames[rows][:, :, [4, 8]])
    assert np.array_equal(array.vindex[[1, 40], [2, 3], [4, 5], [0, 1]], frames[[1, 40], [2, 3], [4, 5], [0, 1]])
    assert np.array_equal(xarray.open_zarr(tmp_path / "g", consolidated=False)["a"][7:20].values, frames[7:20])


def test_a_configuration_that_is_not_the_formats_is_refused() -> None:
    for entry in ({"effort": "tiny"}, {"effort": "lean", "level": 3}):
        with pytest.raises(ValueError, match="effort"):
            FramesCodec.from_dict({"name": "robozarr.frames", "configuration": entry})

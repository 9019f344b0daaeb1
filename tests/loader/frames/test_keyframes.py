"""Chunks of frames in compiled code: what numcodecs decodes, or a code; damage is never other pixels."""

from typing import Any

import numpy as np
import pytest
from effort import examples, some
from frame_shards import decode_in_memory
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from robozarr.loader.frames.shards import FOREIGN
from robozarr.schemas.frame_chunk import ENTRY, FrameChunkError, FrameTable, frame_checksum
from robozarr.schemas.frames.decode import FrameDecoder
from robozarr.schemas.layout import Effort
from robozarr.store.frames.encode import encode_frames

EFFORTS: tuple[Effort, ...] = ("lean", "compact")
NO_SUMS = np.empty(0, np.uint32)


def compiled(chunk: bytes, rows: list[int], like: NDArray[Any], n_rows: int, sums: NDArray[np.uint32] = NO_SUMS) -> Any:
    """Rows of a chunk, or the code and the row that failed."""
    return decode_in_memory(chunk, rows, like, n_rows, sums)


def camera(n: int, shape: tuple[int, ...], seed: int, moving: float) -> NDArray[np.uint8]:
    """A picture in which a share of the pixels changes with each frame."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(0, 60, (1, *shape)).astype(np.uint8), n, axis=0)
    for row in range(1, n):
        frames[row] = np.where(rng.random(shape) < moving, rng.integers(0, 255, shape), frames[row - 1]).astype(np.uint8)
    return frames


@examples(60, 10)
@given(
    st.integers(1, 16), st.sampled_from([(1, 1, 3), (7, 5, 3), (16, 9), (9, 8, 1), (130, 130, 3)]), st.integers(0, 9),
    st.sampled_from([0.0, 0.001, 0.3, 1.0]), st.sampled_from(EFFORTS), st.lists(st.booleans(), min_size=16, max_size=16),
    st.data(),
)  # fmt: skip
def test_any_rows_are_what_was_encoded(
    n: int, shape: tuple[int, ...], seed: int, moving: float, effort: Effort, begins: list[bool], data: st.DataObject
) -> None:
    frames = camera(n, shape, seed, moving)
    chunk = encode_frames(frames, 16, effort, begins=begins[:n])
    rows = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    sums = np.frombuffer(chunk[: 16 * ENTRY.itemsize], ENTRY)["crc32c"][:n]
    got = compiled(chunk, rows, frames, 16, sums)
    assert isinstance(got, np.ndarray)
    assert np.array_equal(got, frames[rows])


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_depth(dtype: str) -> None:
    frames = np.arange(5 * 40 * 30).reshape(5, 40, 30).astype(dtype)
    assert np.array_equal(compiled(encode_frames(frames, 16, "compact"), [0, 2, 4], frames, 16), frames[[0, 2, 4]])


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_byte_changed(effort: Effort) -> None:
    frames = np.concatenate([camera(4, (9, 8, 3), 1, 0.02), camera(4, (9, 8, 3), 2, 1.0)])
    good = encode_frames(frames, 8, effort, begins=[row == 4 for row in range(8)])
    for at in range(0, len(good), some(1, 3)):
        bad = bytearray(good)
        bad[at] ^= 0x41
        for rows in ([0], [3], [1, 2, 6], [7]):
            got = compiled(bytes(bad), rows, frames, 8)
            assert isinstance(got, tuple) or np.array_equal(got, frames[rows]), (at, rows)
        assert isinstance(compiled(bytes(bad), list(range(8)), frames, 8), tuple), at  # nothing is without meaning
    for size in range(0, len(good), some(3, 10)):
        assert isinstance(compiled(good[:size], list(range(8)), frames, 8), tuple)


def test_another_frame_in_its_place_is_noticed() -> None:
    """M21: the entry's checksum is right for itself, and is not this row's."""
    frames = camera(4, (9, 8, 3), 3, 1.0)
    chunk = encode_frames(frames, 4, "lean")
    sums = np.frombuffer(chunk[: 4 * ENTRY.itemsize], ENTRY)["crc32c"].copy()
    other = encode_frames(camera(4, (9, 8, 3), 4, 1.0), 4, "lean")
    assert compiled(other, [0], frames, 4, sums) == (FOREIGN, 0)


def sealed(chunk: bytearray, n_rows: int) -> bytes:
    """With every checksum made right, so that only what the fields say is in question."""
    table = np.frombuffer(chunk, ENTRY, n_rows).copy()
    for row, entry in enumerate(table):
        payload = bytes(chunk[int(entry["offset"]) :][: int(entry["length"])])
        table[row]["crc32c"] = frame_checksum(row, int(entry["mode"]), int(entry["keyframe"]), payload)
    return table.tobytes() + bytes(chunk[table.nbytes :])


@examples(400, 40)
@given(
    st.integers(0, 3), st.sampled_from(["offset", "length", "mode", "keyframe", "zero", "payload"]),
    st.integers(0, 2**32 - 1), st.sampled_from(EFFORTS),
)  # fmt: skip
def test_both_decoders_agree_or_refuse(row: int, field: str, value: int, effort: Effort) -> None:
    """Fields and payloads of any kind, with right checksums: never one picture from one decoder and another from the other."""
    frames = camera(4, (9, 8, 3), 5, 0.05)
    chunk = bytearray(encode_frames(frames, 4, effort))
    table = np.frombuffer(chunk, ENTRY, 4).copy()
    if field == "payload":
        begin, length = int(table[row]["offset"]), int(table[row]["length"])
        chunk[begin + value % length] ^= 1 + value % 255
    else:
        size = {"mode": 8, "keyframe": 8, "zero": 3}.get(field)
        table[row][field] = value if size is None else value % size
        chunk[: table.nbytes] = table.tobytes()
    hostile = sealed(chunk, 4)
    try:
        FrameTable.of(np.frombuffer(hostile, np.uint8), 4, frames[0].nbytes)
        expected = FrameDecoder(hostile, 4, frames.shape[1:], frames.dtype).rows(range(4))
    except FrameChunkError:
        expected = None
    got = compiled(hostile, [0, 1, 2, 3], frames, 4)
    if expected is None:
        assert isinstance(got, tuple)
    else:
        assert np.array_equal(got, expected)

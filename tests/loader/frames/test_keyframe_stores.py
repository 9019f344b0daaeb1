"""Chunks of frames, as the loader reads them from files: exact, keyframes kept, damage named, nothing believed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lz4.block
import numpy as np
import pytest
import torch
from effort import some
from frame_shards import ByHand, chunks_of, decode_in_memory, layout_of, sums_of, write_shards
from numpy.typing import NDArray
from small_store import gather

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.loader.frames import read as read_module
from robozarr.loader.frames.buffers import ThreadBuffers
from robozarr.loader.frames.read import FrameReader
from robozarr.schemas.errors import CorruptChunkError, RoboZarrError, StoreChangedError
from robozarr.schemas.frame_chunk import ENTRY, Coding, frame_checksum
from robozarr.schemas.layout import Effort, Profile
from robozarr.schemas.shard import read_index

EFFORTS: tuple[Effort, ...] = ("lean", "compact")
LENGTHS = (7, 20, 13, 3)
STEP = some(37, 149)
"""Bytes from one that is changed to the next; 1: all are."""
SPEC = {"agentview_rgb": [-1, 0], "eye_in_hand_rgb": [-2, 0], "agentview_depth": [0], "actions": range(3)}


def camera(n: int, shape: tuple[int, ...], seed: int, moving: float) -> NDArray[np.uint8]:
    """A picture in which a share of the pixels changes with each frame."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(0, 60, (1, *shape)).astype(np.uint8), n, axis=0)
    for row in range(1, n):
        frames[row] = np.where(rng.random(shape) < moving, rng.integers(0, 255, shape), frames[row - 1]).astype(np.uint8)
    return frames


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """43 steps of noise: chunks hold two episodes, the last one is short."""
    path = tmp_path_factory.mktemp("source") / "s" / "a_demo.hdf5"
    return synthetic.write_libero(path, lengths=LENGTHS, size=(12, 10), depth=True)


@pytest.fixture(scope="module")
def raw(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "raw.zarr"
    convert([source], path, profile="raw", workers=0)
    return path


@pytest.fixture(scope="module", params=EFFORTS)
def store(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "a.zarr"
    profile: Profile = request.param
    convert([source], path, profile=profile, workers=0)
    return path


def windows(path: Path, **options: Any) -> rz.WindowDataset:
    return rz.WindowDataset(rz.open_store(path), rz.WindowSpec(SPEC), **options)


def assert_same(got: Any, expected: Any) -> None:
    for name, values in expected.items():
        assert got[name] == values if isinstance(values, list) else torch.equal(got[name], values), name


def test_windows_are_those_of_the_raw_store(store: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = windows(raw).read(range(43))
    assert_same(windows(store).read(range(43)), expected)
    one_by_one = windows(store)
    for window in (42, 0, 17, 16, 15, 42):
        assert_same(one_by_one.read([window]), windows(raw).read([window]))
    for options in ({"threads": 3, "prefetch": 3}, {"cache": "host"}, {"cache": "device"}):
        loader = rz.WindowLoader(windows(store), 5, seed=1, **options)
        assert_same(gather(loader), expected)
    monkeypatch.setattr(read_module, "_free_fds", lambda: np.array([0]))  # each use opens and closes
    assert_same(windows(store).read([20, 3, 40, 20]), windows(raw).read([20, 3, 40, 20]))


def test_padding_by_zeros_and_rows_outside(store: Path, raw: Path) -> None:
    spec = rz.WindowSpec({"agentview_rgb": [-3, 0, 2]}, padding={"agentview_rgb": "zero"})
    got, expected = (rz.WindowDataset(rz.open_store(path), spec).read(range(43)) for path in (store, raw))
    assert_same(got, expected)
    reader = windows(store).windows.reader
    for row in (43, 47, 48, 2**40, 2**62):
        with pytest.raises(RoboZarrError, match=r"rows in \[0, 43\)"):
            reader.read("agentview_rgb", np.array([[0, row]]), np.array([0]), np.zeros((1, 2, 360), np.uint8))


@pytest.mark.parametrize("key", ["agentview_rgb", "agentview_depth"])
def test_every_byte_of_a_shard(store: Path, key: str, tmp_path: Path) -> None:
    """The right pixels, or an error that names array, shard, chunk, frame, episode."""
    opened = rz.open_store(store)
    layout, rows = opened.layout(f"steps/{key}"), np.arange(43)
    copied = tmp_path / "b.zarr"
    shutil.copytree(store, copied)
    file = copied / layout.shard_path(0)
    data = file.read_bytes()
    index = read_index(data, layout, 0)
    starts = np.cumsum([0, *LENGTHS])

    sums, free_fds, buffers = opened.checksums(key), np.array([100]), ThreadBuffers()

    def frames(store: rz.Store, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        """By a reader that has seen nothing yet."""
        buffers.forget()
        out = np.full((len(wanted), 1, layout.row_bytes), 0xAA, np.uint8)
        reader = FrameReader(store, layout, sums, free_fds)
        reader.read(wanted[:, None], np.arange(len(wanted)), out, buffers, (0, 1))
        return out[:, 0]

    damaged = rz.open_store(copied)
    good, n_errors, n_right = frames(opened, rows), 0, 0
    for at in range(0, len(data), STEP):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        chunk = int(np.searchsorted(index.sum(axis=1), at, side="right"))
        with pytest.raises(CorruptChunkError) as said:
            frames(damaged, rows)
        assert f"steps/{key} · shard 0 (steps/{key}/c/0" in str(said.value)
        assert " · episode " in str(said.value) or "(episode " in str(said.value)
        if chunk < len(index):
            assert f"chunk {chunk} (rows {16 * chunk} to {min(16 * chunk + 16, 43)})" in str(said.value)
            in_chunk = at - int(index[chunk, 0]) - 16 * ENTRY.itemsize
            if in_chunk >= 0:  # of a frame: it is the one that is named
                table = np.frombuffer(data, ENTRY, 16, int(index[chunk, 0]))
                row = int(np.searchsorted(np.cumsum(table["length"]), in_chunk, side="right"))
                assert f"frame {row} (row {16 * chunk + row})" in str(said.value)
                episode = int(np.searchsorted(starts, 16 * chunk + row, side="right")) - 1
                assert f"episode {episode} (demo_{episode}), step {16 * chunk + row - starts[episode]}" in str(said.value)
        for row in (chunk * 16 % 43, 20):  # alone: what is not needed does no harm
            try:
                assert np.array_equal(frames(damaged, rows[row : row + 1]), good[row : row + 1]), (at, row)
                n_right += 1
            except CorruptChunkError:
                n_errors += 1
    assert min(n_errors, n_right) > 50 * 37 // STEP


def test_chunks_and_frames_in_others_places(store: Path, tmp_path: Path) -> None:
    """M21: whole in themselves, and not what was written for these rows."""
    copied = tmp_path / "b.zarr"
    shutil.copytree(store, copied)
    layout = rz.open_store(store).layout("steps/agentview_rgb")
    file = copied / layout.shard_path(0)
    other = copied / rz.open_store(store).layout("steps/eye_in_hand_rgb").shard_path(0)
    mine, others = file.read_bytes(), other.read_bytes()
    file.write_bytes(others)
    other.write_bytes(mine)
    with pytest.raises(CorruptChunkError, match=r"agentview_rgb · shard 0 .*frame 0 \(row 0\).*another row's"):
        windows(copied).read([0])


def test_keyframes_are_kept(tmp_path: Path) -> None:
    """Across the windows of a batch, and for the next one: what was decoded of a keyframe is used after its file is damaged."""
    frames = camera(48, (40, 40, 3), 1, 0.01)
    layout = layout_of(frames, "lean", 32)
    chunks = chunks_of(frames, layout, "lean")
    write_shards(tmp_path, layout, chunks)
    by_hand = ByHand(tmp_path, layout, sums_of(chunks, layout))
    assert np.array_equal(by_hand.read([[3, 4]]), frames[[[3, 4]]])
    file = tmp_path / layout.shard_path(0)
    data = bytearray(file.read_bytes())
    data[int(np.frombuffer(data, ENTRY, 1)["offset"][0]) + 7] ^= 1
    file.write_bytes(data)
    assert np.array_equal(by_hand.read([[5, 4], [9, 15]]), frames[[[5, 4], [9, 15]]])
    assert np.array_equal(by_hand.read([[20], [17]]), frames[[[20], [17]]])
    assert np.array_equal(by_hand.read([[6]]), frames[[[6]]])  # after another chunk's
    with pytest.raises(AttributeError):  # explaining needs a store around it: anew, the keyframe is damaged
        ByHand(tmp_path, layout, sums_of(chunks, layout)).read([[6]])


def many_keyframes(frames: NDArray[np.uint8]) -> bytes:
    """A chunk whose rows 8 to 15 are coded with rows 0 to 7: more keyframes than a thread keeps, none in turn."""
    pixels = [frame.tobytes() for frame in frames]
    table, payloads, at = np.zeros(16, ENTRY), [], 16 * ENTRY.itemsize
    for row in range(16):
        key = row if row < 8 else (row * 5) % 8
        options = {} if key == row else {"dict": pixels[key]}
        payload = lz4.block.compress(pixels[row], store_size=False, **options)
        table[row] = (at, len(payload), Coding.LZ4, key, 0, frame_checksum(row, Coding.LZ4, key, payload))
        payloads.append(payload)
        at += len(payload)
    return table.tobytes() + b"".join(payloads)


def test_more_keyframes_than_are_kept(tmp_path: Path) -> None:
    frames = camera(16, (20, 5, 3), 2, 0.05).repeat(8, axis=2)  # LZ4 makes noise larger than a payload may be
    chunk, layout = many_keyframes(frames), layout_of(frames, "lean", 16)
    write_shards(tmp_path, layout, [chunk])
    by_hand = ByHand(tmp_path, layout, sums_of([chunk], layout))
    for rows in (list(range(16)), [15, 8, 3], [8, 9, 10, 11, 12, 13, 14, 15], [14]):
        assert np.array_equal(by_hand.read(np.array(rows)[:, None])[:, 0], frames[rows])
        assert np.array_equal(decode_in_memory(chunk, rows, frames, 16, sums_of([chunk], layout)), frames[rows])


@pytest.mark.parametrize("moving", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("effort", EFFORTS)
def test_large_frames(tmp_path: Path, effort: Effort, moving: float) -> None:
    """Larger than what is read by one call, in strips."""
    frames = camera(19, (310, 290, 3), 3, moving)
    layout = layout_of(frames, effort, 16)
    chunks = chunks_of(frames, layout, effort, begins=[5])
    write_shards(tmp_path, layout, chunks)
    by_hand = ByHand(tmp_path, layout, sums_of(chunks, layout))
    rows = np.random.default_rng(0).permutation(19)[:, None]
    assert np.array_equal(by_hand.read(rows), frames[rows])
    over = np.arange(19, dtype=np.uint8) % 2
    turned = ByHand(tmp_path, layout, sums_of(chunks, layout), over=over).read(np.array([[7, 2], [8, 8], [0, 18], [7, 16]]))
    for got, row in zip(turned.reshape(8, *frames.shape[1:]), [7, 2, 8, 8, 0, 18, 7, 16], strict=True):
        assert np.array_equal(got, frames[row][::-1] if over[row] else frames[row])


def test_appended_rows(source: Path, tmp_path: Path) -> None:
    """A partial last chunk is written again: the loader of the grown store reads all of it, one opened before says why not."""
    more = synthetic.write_libero(tmp_path / "s" / "b_demo.hdf5", lengths=(5, 30), size=(12, 10), depth=True, seed=4)
    convert([source], tmp_path / "a.zarr", profile="lean", workers=0)
    before = windows(tmp_path / "a.zarr")
    convert([more], tmp_path / "a.zarr", workers=0, append=True)
    convert([source, more], tmp_path / "raw.zarr", profile="raw", workers=0)
    expected = windows(tmp_path / "raw.zarr").read(range(78))
    assert_same(windows(tmp_path / "a.zarr").read(range(78)), expected)
    with pytest.raises(StoreChangedError, match="append"):  # its shard has a new file under the old name
        before.read(range(43))

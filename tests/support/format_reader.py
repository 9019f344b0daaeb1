"""A reader of arrays in `robozarr.frames`, made from the words of schemas/FORMAT.md alone. It must not import robozarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import google_crc32c
import lz4.block
import numpy as np
import zstandard
from numpy.typing import NDArray

__all__ = ["read_frames"]

STRIP = 49152


def read_frames(store: Path, key: str) -> NDArray[Any]:
    """Every step of a frame key [n_steps, …], each decoded with its keyframe alone."""
    document = json.loads((store / "steps" / key / "zarr.json").read_text())
    shape, dtype = document["shape"], np.dtype(document["data_type"]).newbyteorder("<")
    shard_rows = document["chunk_grid"]["configuration"]["chunk_shape"][0]
    sharding = document["codecs"][0]["configuration"]
    assert [codec["name"] for codec in sharding["codecs"]] == ["robozarr.frames"]
    assert sharding["chunk_shape"] == [16, *shape[1:]]
    n_entries = shard_rows // 16
    steps: list[NDArray[Any]] = []
    for shard in range(-(-shape[0] // shard_rows)):
        data = (store / "steps" / key / "c" / "/".join([str(shard), *["0"] * (len(shape) - 1)])).read_bytes()
        index = data[-16 * n_entries - 4 : -4]
        assert google_crc32c.value(index) == int.from_bytes(data[-4:], "little")
        for at, size in np.frombuffer(index, "<u8").reshape(-1, 2).tolist():
            if at == 2**64 - 1:
                break
            steps += read_chunk(data[at : at + size], tuple(shape[1:]), dtype)
    assert len(steps) == shape[0]
    return np.stack(steps)


def read_chunk(chunk: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> list[NDArray[Any]]:
    steps, end = [], 256
    for row in range(16):
        entry = chunk[16 * row : 16 * row + 16]
        if entry[9] == 255:
            break
        end += int.from_bytes(entry[4:8], "little")
        steps.append(np.frombuffer(read_step(chunk, row, shape, dtype)[1], dtype).reshape(shape))
    assert end == len(chunk)
    return steps


def read_step(chunk: bytes, row: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[bytes, bytes]:
    """The coded bytes of a step, and its values."""
    entry = chunk[16 * row : 16 * row + 16]
    offset, length = (int.from_bytes(entry[at : at + 4], "little") for at in (0, 4))
    mode, keyframe, payload = entry[8], entry[9], chunk[offset : offset + length]
    assert google_crc32c.value(bytes([row, mode, keyframe]) + payload) == int.from_bytes(entry[12:], "little")
    below = b""
    if keyframe != row:
        coded_of_key, values_of_key = read_step(chunk, keyframe, shape, dtype)
        below = coded_of_key if mode & 4 else values_of_key
    n = int(np.prod(shape)) * dtype.itemsize
    n_strips, at = -(-n // STRIP), 0
    sizes = [length] if n_strips == 1 else np.frombuffer(payload[: 4 * n_strips], "<u4").tolist()
    at = 0 if n_strips == 1 else 4 * n_strips
    coded = b""
    for strip, size in enumerate(sizes):
        start, stop = strip * STRIP, min((strip + 1) * STRIP, n)
        coded += decode(payload[at : at + size], mode & 3, stop - start, below[start:stop])
        at += size
    assert at == length
    return coded, unfiltered(coded, shape) if mode & 4 else coded


def decode(strip: bytes, coding: int, n: int, dictionary: bytes) -> bytes:
    if coding == 0:
        return strip
    if coding == 1:
        options = {"dict": dictionary} if dictionary else {}
        return bytes(lz4.block.decompress(strip, uncompressed_size=n, **options))
    if not dictionary:
        return zstandard.ZstdDecompressor().decompress(strip)
    raw = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return zstandard.ZstdDecompressor(dict_data=raw).decompress(strip)


def unfiltered(coded: bytes, shape: tuple[int, ...]) -> bytes:
    height, width, _ = shape
    planes = np.frombuffer(coded, np.uint8).reshape(3, height, width).astype(np.int64)
    planes[:, 0] = np.cumsum(planes[:, 0], axis=-1)
    planes = np.cumsum(planes, axis=1)
    green = planes[0]
    frame = np.stack([planes[1] + green, green, planes[2] + green], axis=-1) % 256
    return frame.astype(np.uint8).tobytes()

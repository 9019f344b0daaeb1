"""Shards: rows come back bit for bit, other libraries read the same, and no damaged byte goes unnoticed."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import google_crc32c
import numcodecs.blosc
import numcodecs.zstd
import numpy as np
import pytest
import tensorstore
import zarr
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from robozarr.convert.writing.shard import encode_shard
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.layout import ArrayLayout, CodecName
from robozarr.schemas.shard import CRC_BYTES, decode_shard
from robozarr.schemas.zarr_json import array_document, document_bytes

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
CODECS: list[CodecName] = ["none", "blosc-lz4", "blosc-zstd", "zstd"]
CODECS_WITH_LEVEL = [("none", 0), ("blosc-lz4", 5), ("blosc-zstd", 1), ("zstd", 3)]


def layout_of(
    shape: tuple[int, ...], dtype: str, chunk_rows: int, chunks: int, codec: CodecName, level: int | None = None
) -> ArrayLayout:
    return ArrayLayout(
        path="steps/key", shape=shape, dtype=dtype, dims=tuple(f"d{axis}" for axis in range(len(shape))), chunk_rows=chunk_rows,
        shard_rows=chunk_rows * chunks, codec=codec, level=dict(CODECS_WITH_LEVEL)[codec] if level is None else level,
    )  # fmt: skip


@st.composite
def arrays(draw: st.DrawFn) -> tuple[ArrayLayout, NDArray[Any]]:
    """A layout of one to some shards, and all its rows; any bits, so NaN payloads and -0.0 too."""
    shape = (draw(st.integers(1, 40)), *draw(st.lists(st.integers(1, 6), max_size=3)))
    dtype, codec = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(CODECS))
    level = 0 if codec == "none" else draw(st.integers(1, 9))
    layout = layout_of(shape, dtype, draw(st.integers(1, 12)), draw(st.integers(1, 5)), codec, level)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    data = rng.integers(0, draw(st.sampled_from([2, 256])), int(np.prod(shape)) * np.dtype(dtype).itemsize, np.uint8)
    return layout, (data > 0 if dtype == "bool" else data.view(dtype)).reshape(shape)


def shards_of(layout: ArrayLayout, rows: NDArray[Any]) -> list[bytes]:
    return [encode_shard(rows[slice(*layout.rows_of_shard(shard))], layout) for shard in range(layout.n_shards)]


def put_on_disk(folder: str, layout: ArrayLayout, shards: list[bytes]) -> None:
    root = Path(folder, layout.path)
    root.mkdir(parents=True)
    (root / "zarr.json").write_bytes(document_bytes(array_document(layout)))
    for number, data in enumerate(shards):
        path = Path(folder, layout.shard_path(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@given(array=arrays())
def test_rows_come_back(array: tuple[ArrayLayout, NDArray[Any]]) -> None:
    layout, rows = array
    for shard, data in enumerate(shards_of(layout, rows)):
        expected = rows[slice(*layout.rows_of_shard(shard))]
        for kind in (bytes, memoryview):
            decoded = decode_shard(kind(data), layout, shard)
            assert (decoded.dtype, decoded.shape) == (expected.dtype, expected.shape)
            assert decoded.tobytes() == expected.tobytes()


@settings(max_examples=30)
@given(array=arrays())
def test_zarr_and_tensorstore_read_the_same(array: tuple[ArrayLayout, NDArray[Any]]) -> None:
    layout, rows = array
    with TemporaryDirectory() as folder:
        put_on_disk(folder, layout, shards_of(layout, rows))
        plain = np.asarray(zarr.open_array(f"{folder}/steps/key", mode="r", zarr_format=3)[...])
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/steps/key/"}}
        other = tensorstore.open(spec, read=True).result()
        assert plain.dtype == other.dtype.numpy_dtype == rows.dtype
        assert plain.tobytes() == other.read().result().tobytes() == rows.tobytes()
        assert list(other.domain.labels) == list(layout.dims)


@given(array=arrays())
def test_the_same_rows_give_the_same_bytes(array: tuple[ArrayLayout, NDArray[Any]]) -> None:
    layout, rows = array
    shards = shards_of(layout, rows)
    assert shards_of(layout, np.asfortranarray(rows)) == shards
    assert shards_of(layout, np.repeat(rows, 2, axis=0)[::2]) == shards
    read_only = rows.copy()
    read_only.flags.writeable = False
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(shards_of, layout, read_only).result() == shards


@pytest.mark.parametrize("codec", CODECS)
def test_large_chunks_give_the_same_bytes(codec: CodecName) -> None:
    """Of many Blosc blocks, which threads would end in any order."""
    layout = layout_of((300_000,), "float64", 300_000, 1, codec)
    rows = np.random.default_rng(0).normal(size=300_000).round(2)
    numcodecs.blosc.set_nthreads(8)
    assert len({encode_shard(rows, layout) for _ in range(4)}) == 1


# --- damage ---


def small(codec: CodecName) -> tuple[ArrayLayout, bytes]:
    """Three chunks of two rows, the last half full, one chunk absent."""
    layout = layout_of((5, 3, 2), "uint16", 2, 4, codec)
    return layout, encode_shard(np.arange(30, dtype=np.uint16).reshape(5, 3, 2), layout)


@pytest.mark.parametrize("codec", CODECS)
def test_every_changed_byte_is_noticed(codec: CodecName) -> None:
    layout, data = small(codec)
    assert len(decode_shard(data, layout, 0)) == 5
    for at in range(len(data)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            damaged = bytearray(data)
            damaged[at] ^= change
            with pytest.raises(CorruptChunkError, match=r"^steps/key · shard 0 \(steps/key/c/0/0/0\).*; found "):
                decode_shard(bytes(damaged), layout, 0)


@pytest.mark.parametrize("codec", CODECS)
def test_every_other_length_is_noticed(codec: CodecName) -> None:
    layout, data = small(codec)
    for length in range(len(data)):
        for damaged in (
            data[:length],
            data[length + 1 :],
            data[:length] + data[length + 1 :],
            data[:length] + bytes(len(data) - length),
        ):
            if damaged != data:
                with pytest.raises(CorruptChunkError, match=r"^steps/key · shard 0 .* → restore the shard from a copy"):
                    decode_shard(damaged, layout, 0)
    for extra in (b"\0", b"\xff", bytes(64), data):
        with pytest.raises(CorruptChunkError, match="steps/key · shard 0"):
            decode_shard(data + extra, layout, 0)


@examples(300)
@given(
    data=st.binary(max_size=200) | st.binary(min_size=4).map(lambda body: body + struct.pack("<I", google_crc32c.value(body)))
)
def test_no_bytes_at_all_are_trusted(data: bytes) -> None:
    for codec in CODECS:
        with pytest.raises(CorruptChunkError, match="steps/key · shard 0"):
            decode_shard(data, small(codec)[0], 0)


def crc(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def shard_from(chunks: list[bytes], ranges: list[tuple[int, int]] | None = None) -> bytes:
    """A shard with right checksums, whatever is in it."""
    bodies = [crc(chunk) for chunk in chunks]
    if ranges is None:
        ends = np.cumsum([len(body) for body in bodies]).tolist()
        ranges = [(end - len(body), len(body)) for end, body in zip(ends, bodies, strict=True)]
        ranges += [(2**64 - 1, 2**64 - 1)] * (4 - len(ranges))
    return b"".join(bodies) + crc(b"".join(struct.pack("<QQ", *pair) for pair in ranges))


FULL = np.arange(12, dtype=np.uint16)
HALF = np.where(np.arange(12) < 6, FULL, 0).astype(np.uint16)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("chunk", [FULL[:-1], np.tile(FULL, 2), FULL[:0], np.zeros(3000, np.uint16)])
def test_a_chunk_of_another_size_is_noticed(codec: CodecName, chunk: NDArray[np.uint16]) -> None:
    def compress(values: NDArray[np.uint16]) -> bytes:
        if codec == "none":
            return values.tobytes()
        if codec == "zstd":
            return bytes(numcodecs.zstd.compress(values.tobytes(), 1))
        name = codec.removeprefix("blosc-").encode()
        return bytes(numcodecs.blosc.compress(values, name, 1, 1))

    layout, good = small(codec)[0], [compress(FULL), compress(FULL), compress(HALF)]
    assert decode_shard(shard_from(good), layout, 0).ravel().tolist() == [*FULL, *FULL, *HALF[:6]]
    with pytest.raises(CorruptChunkError, match=r"shard 0 .* chunk 1 \(rows 2 to 4\): ") as caught:
        decode_shard(shard_from([good[0], compress(chunk), good[2]]), layout, 0)
    assert caught.value.rule in ("M8", "M10")


def test_what_no_codec_understands_is_noticed() -> None:
    for codec in CODECS:
        for nonsense in (b"x", bytes(24), b"\xff" * 24, b"\x02\x01\x21\x02" + struct.pack("<III", 24, 24, 40) + bytes(24)):
            if codec != "none" or len(nonsense) != 24:
                with pytest.raises(
                    CorruptChunkError, match=r"chunk 0 \(rows 0 to 2\): the chunk must decode to 24 bytes; found"
                ):
                    decode_shard(shard_from([nonsense] * 3), small(codec)[0], 0)


RAW = [FULL.tobytes(), FULL.tobytes(), HALF.tobytes()]
ABSENT = (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize(
    ("chunks", "ranges", "rule", "message"),
    [
        (RAW, [(28, 28), (0, 28), (56, 28), ABSENT], "M8", r"chunk 0 .*follow each other from byte 0; found 28 \+ 28"),
        (RAW, [(0, 28), (0, 28), (56, 28), ABSENT], "M8", r"chunk 1 .*follow each other"),
        (RAW, [(0, 28), (28, 28), ABSENT, ABSENT], "M8", r"chunk 2 \(rows 4 to 5\): the index's ranges must follow each other"),
        (RAW, [(0, 28), (28, 2**40), (56, 28), ABSENT], "M8", "chunk 1 .*follow each other"),
        (RAW, [(0, 28), (28, 4), (32, 28), ABSENT], "M8", "chunk 1 .*follow each other"),
        (RAW, [(0, 28), (28, 28), (56, 29), ABSENT], "M8", "chunk 2 .*follow each other"),
        (RAW, [(0, 28), (28, 28), (56, 27), ABSENT], "M8", "chunk 2 .*nothing may lie between the last chunk and"),
        (RAW, [(0, 28), (28, 28), (56, 28), (56, 28)], "M8", "chunks behind the last row must be absent; found a byte range"),
        ([*RAW, FULL.tobytes()], [(0, 28), (28, 28), (56, 28), ABSENT], "M8", "nothing may lie between the last chunk and"),
        ([RAW[0], RAW[1], RAW[1]], None, "M10", "chunk 2 .*: rows behind the last must be zero; found other values"),
        ([RAW[1][:-1], RAW[1], RAW[2]], None, "M10", "chunk 0 .*: the chunk must decode to 24 bytes; found 23 bytes"),
    ],
)  # fmt: skip
def test_right_checksums_do_not_make_a_shard(
    chunks: list[bytes], ranges: list[tuple[int, int]] | None, rule: str, message: str
) -> None:
    assert decode_shard(shard_from(RAW), small("none")[0], 0).shape == (5, 3, 2)
    with pytest.raises(CorruptChunkError, match=message) as caught:
        decode_shard(shard_from(chunks, ranges), small("none")[0], 0)
    assert caught.value.rule == rule


def test_errors_count_from_the_first_shard() -> None:
    layout = layout_of((11, 2), "uint8", 2, 2, "none")
    data = bytearray(encode_shard(np.ones((3, 2), np.uint8), layout))
    data[4 + CRC_BYTES] ^= 1
    with pytest.raises(CorruptChunkError, match=r"^steps/key · shard 2 \(steps/key/c/2/0\) · chunk 1 \(rows 10 to 11\): "):
        decode_shard(bytes(data), layout, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.empty((0, 2), np.uint8), r"steps/key: uint8 \(0, 2\) is no shard of uint8 \(11, 2\)"),
        (np.empty((5, 2), np.uint8), r"steps/key: uint8 \(5, 2\) is no shard"),
        (np.empty((4, 3), np.uint8), r"steps/key: uint8 \(4, 3\) is no shard"),
        (np.empty(4, np.uint8), r"steps/key: uint8 \(4,\) is no shard"),
        (np.empty((4, 2), np.int8), r"steps/key: int8 \(4, 2\) is no shard"),
    ],
)
def test_what_does_not_fit_is_not_encoded(rows: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_shard(rows, layout_of((11, 2), "uint8", 2, 2, "none"))

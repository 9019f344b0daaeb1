"""Arrays of frames with keyframes, written by hand: the shards of one key, and a reader of them without a store around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.buffers import ThreadBuffers
from robozarr.loader.frames.frame_chunks import decode_frames, frames_needed
from robozarr.loader.frames.keyframes import FrameBuffers, FrameMemory
from robozarr.loader.frames.prepare import take_table
from robozarr.loader.frames.read import FrameReader
from robozarr.loader.frames.rows import BatchRows, group_rows
from robozarr.loader.frames.shards import ABSENT, OK, TABLE, shards_of
from robozarr.schemas.frame_chunk import ENTRY
from robozarr.schemas.layout import ArrayLayout
from robozarr.store.frames.encode import Effort, encode_frames


def layout_of(frames: NDArray[Any], effort: Effort, shard_rows: int) -> ArrayLayout:
    """Of frames [n, …] at ``steps/camera``."""
    dims = ("step", *(f"camera_{i}" for i in range(frames.ndim - 1)))
    codec: Any = f"frames-{effort}"
    return ArrayLayout(
        path="steps/camera", shape=frames.shape, dtype=frames.dtype.name, dims=dims, chunk_rows=16,
        shard_rows=shard_rows, codec=codec, level=0,
    )  # fmt: skip


def chunks_of(frames: NDArray[Any], layout: ArrayLayout, effort: Effort, begins: Sequence[int] = ()) -> list[bytes]:
    """The chunks of all rows; `begins` are first rows of episodes."""
    first = np.isin(np.arange(len(frames)), list(begins))
    at = range(0, len(frames), layout.chunk_rows)
    n = layout.chunk_rows
    return [encode_frames(frames[i : i + n], n, effort, begins=first[i : i + n].tolist()) for i in at]


def sums_of(chunks: Sequence[bytes], layout: ArrayLayout) -> NDArray[np.uint32]:
    """What M21 promises of each row."""
    tables = [np.frombuffer(chunk[: ENTRY.itemsize * layout.chunk_rows], ENTRY)["crc32c"] for chunk in chunks]
    return np.concatenate(tables)[: layout.shape[0]].astype(np.uint32)


def write_shards(folder: Path, layout: ArrayLayout, chunks: Sequence[bytes]) -> None:
    """Put chunks into the shard files of an array below `folder`."""
    n = layout.shard_rows // layout.chunk_rows
    for shard in range(layout.n_shards):
        mine = chunks[shard * n : (shard + 1) * n]
        sizes = [len(chunk) for chunk in mine]
        index = np.full((n, 2), 2**64 - 1, "<u8")
        index[: len(mine), 0], index[: len(mine), 1] = np.cumsum([0, *sizes[:-1]]), sizes
        tail = index.tobytes()
        file = folder / layout.shard_path(shard)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(mine) + tail + google_crc32c.value(tail).to_bytes(4, "little"))


class ByHand:
    """Reads rows of an array that was written by hand."""

    def __init__(self, folder: Path, layout: ArrayLayout, sums: NDArray[np.uint32], **options: Any) -> None:
        self.layout, self.buffers = layout, ThreadBuffers()
        store: Any = SimpleNamespace(path=str(folder))
        self.reader = FrameReader(store, layout, sums, np.array([1000]), **options)

    def read(self, rows: Any) -> NDArray[Any]:
        """Rows [b, n_offsets] → frames [b, n_offsets, …]."""
        rows = np.asarray(rows, np.int64)
        out = np.full((*rows.shape, self.layout.row_bytes), 0xAA, np.uint8)
        self.reader.read(rows, np.arange(len(rows)), out, self.buffers, (0, 1))
        return out.view(self.layout.dtype).reshape(*rows.shape, *self.layout.shape[1:])


BUFFERS = ThreadBuffers()


@cache
def _memory(row_bytes: int, height: int, filters: bool) -> FrameMemory:
    _kept.append(FrameBuffers(row_bytes, height, filters))
    return _kept[-1].memory


_kept: list[FrameBuffers] = []


def decode_in_memory(
    chunk: bytes, rows: Sequence[int], like: NDArray[Any], chunk_rows: int, sums: NDArray[np.uint32], **options: Any
) -> NDArray[Any] | tuple[int, int]:
    """Rows of one chunk by compiled code, as those of a bucket are decoded; or the code and the row that failed.

    `like` has as many frames as the chunk; `options` are those of ``shards_of``.
    """
    layout, sums = layout_of(like, "lean", 16), sums.copy()
    sums.flags.writeable = False  # as a store's, for which the code is compiled already
    table = np.empty((1, ENTRY.itemsize * chunk_rows), np.uint8)
    shards = shards_of(layout, sums, "", "", ABSENT, **options)._replace(
        chunk_rows=chunk_rows, shard_rows=chunk_rows, tables=table
    )
    shards.edges[:2] = 0, len(chunk)
    data, fault = np.frombuffer(chunk, np.uint8).copy(), np.zeros(1, np.int64)
    code = TABLE
    if len(data) >= ENTRY.itemsize * chunk_rows:
        code = take_table(shards, 0, data[: ENTRY.itemsize * chunk_rows], fault)
    if code != OK:
        return code, int(fault[0])
    wanted, at = np.array(rows, np.int64)[:, None], np.arange(len(rows))
    batch_rows = BatchRows(np.empty(len(rows), np.int64), np.empty(len(rows) + 1, np.int64), np.empty(len(rows), np.int64))
    n = group_rows(wanted, at, batch_rows)
    needed, of_todo = np.empty(2 * n, np.int64), np.empty(2 * n, np.int64)
    m = frames_needed(shards, batch_rows.row[:n], needed, of_todo)
    out = np.full((len(rows), layout.row_bytes), 0xAA, np.uint8)
    mine, memory = BUFFERS.of(layout.row_bytes), _memory(layout.row_bytes, shards.height, shards.filters)
    memory.key_row[:] = -1
    spans, which = np.array([[data.ctypes.data, 0, len(data)]]), np.zeros(m, np.int64)
    code = decode_frames(shards, batch_rows, np.arange(n), needed[:m], of_todo[:m], which, spans, out, mine, memory)
    return (code, int(mine.fault[0])) if code != OK else out.view(like.dtype).reshape(len(rows), *like.shape[1:])

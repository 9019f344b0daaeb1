"""Stores for zarr-python, which read and write through a place; zarr can invent no value.

zarr's own stores let obstore's errors through, wait for ever after a fork, follow links, and return zeros for a shard that is
missing. They compare nothing either: what is read here is the store that was opened, chunk for chunk, or an error.

Imports no obstore.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from robozarr.schemas.errors import BucketError, CorruptChunkError, StoreError
from robozarr.schemas.frame_chunk import entries_of
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import (
    CRC_BYTES,
    INDEX_ENTRY_BYTES,
    corrupt_chunk,
    parse_index,
    shard_sum,
    step_checksums,
)
from robozarr.store.bucket import BucketPlace
from robozarr.store.folder import FolderPlace
from robozarr.store.reading import check_bound, read_shard_bytes, shard_bytes_max

if TYPE_CHECKING:
    from robozarr.store.checked_files import CheckedFiles

__all__ = ["CheckedStoreOfZarr", "PlaceOfZarr"]

SHARD: Final = re.compile(r"(?P<array>.+)/c/(?P<shard>[0-9]+)(/[0-9]+)*")
DOCUMENT: Final = "/zarr.json"
SHARDS_REMEMBERED: Final = 256
"""Whose chunks are known, of a store: some kilobytes each."""


class PlaceOfZarr(Store):
    """A place as a store of zarr; raises what the place raises.

    Parameters
    ----------
    place : FolderPlace or BucketPlace
    read_only : bool
    """

    def __init__(self, place: FolderPlace | BucketPlace, *, read_only: bool = True) -> None:
        super().__init__(read_only=read_only)
        self._place = place

    def with_read_only(self, read_only: bool = False) -> PlaceOfZarr:
        """The same place."""
        return PlaceOfZarr(self._place, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and isinstance(other, PlaceOfZarr)
            and (self._place, self.read_only) == (other._place, other.read_only)
        )

    def __str__(self) -> str:
        return self._place.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._place, self.read_only)

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        """Bytes of a file; None if there is none."""
        try:
            return self._bytes(key, wanted)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _bytes(self, key: str, wanted: ByteRequest | None) -> bytes:
        if isinstance(wanted, RangeByteRequest):
            if wanted.end <= wanted.start:
                return b""
            (part,) = self._place.read_ranges(key, [wanted.start], [wanted.end])
            return bytes(part)
        if isinstance(wanted, SuffixByteRequest):
            return bytes(self._place.read_end(key, wanted.suffix)[0])
        data = self._place.read(key)
        return data[wanted.offset :] if isinstance(wanted, OffsetByteRequest) else data

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of a file; None if there is none."""
        data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Bytes of several files, at the same time."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is a file."""
        return await asyncio.to_thread(self._place.exists, key)

    @property
    def supports_writes(self) -> bool:
        """Yes: task embeddings are written so."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Write a file."""
        self._check_writable()
        await asyncio.to_thread(self._place.write, key, [value.to_bytes()])

    @property
    def supports_deletes(self) -> bool:
        """Yes."""
        return True

    async def delete(self, key: str) -> None:
        """Remove a file, if there is one."""
        self._check_writable()
        await asyncio.to_thread(self._place.remove, [key])

    @property
    def supports_listing(self) -> bool:
        """Yes."""
        return True

    async def _names(self, prefix: str) -> list[str]:
        folder = prefix.rstrip("/")
        if not folder:
            return await asyncio.to_thread(self._place.names)
        return [f"{folder}/{name}" for name in await asyncio.to_thread(self._place.below(folder).names)]

    async def list(self) -> AsyncIterator[str]:
        """Every file."""
        for name in await self._names(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every file below a folder."""
        for name in await self._names(prefix):
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """What lies in a folder: files and folders."""
        skip = len(prefix.rstrip("/")) + 1 if prefix.rstrip("/") else 0
        for name in sorted({name[skip:].split("/")[0] for name in await self._names(prefix)}):
            yield name

    async def getsize(self, key: str) -> int:
        """Bytes of a file; FileNotFoundError if there is none."""
        return await asyncio.to_thread(self._place.size, key)


class Chunks(NamedTuple):
    """What is known of the chunks of a shard."""

    ranges: NDArray[np.uint64]
    """Offset and length [n, 2], checksum included."""
    sums: NDArray[np.uint32]
    """The checksum that each must end in [n]; with keyframes, the one that its table states for each row of the shard."""


class CheckedStoreOfZarr(PlaceOfZarr):
    """An open robozarr store as a read-only store of zarr: every chunk is the one that was written for it, or an error.

    A chunk is compared with what the root document of the store binds: chunks of frames with ``checksums/`` (M21), those of all
    other arrays with the shard's own checksum (M23), for which the shard is read whole once.

    Parameters
    ----------
    files : CheckedFiles
        The open store.
    """

    def __init__(self, files: CheckedFiles) -> None:
        assert isinstance(files.place, FolderPlace | BucketPlace)
        super().__init__(files.place)
        self._files = files
        self._layouts: dict[str, ArrayLayout | None] = {}
        self._known: dict[tuple[str, int], Chunks] = {}

    def with_read_only(self, read_only: bool = False) -> PlaceOfZarr:
        """The same store; for writing, its place without the checks."""
        return self if read_only else PlaceOfZarr(self._place, read_only=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckedStoreOfZarr, (self._files,)

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        """Bytes of a file; None for an optional file that is not there.

        Raises
        ------
        CorruptChunkError
            If a shard is missing, or a chunk of it is not what was written.
        StoreChangedError
            If the store was replaced, appended to or removed since it was opened.
        """
        shard = SHARD.fullmatch(key)
        array = shard["array"] if shard is not None else key.removesuffix(DOCUMENT)
        described = self._files.describes(array)
        with self._files.reading(), self._robozarrs_errors(key):
            if shard is None or not described:
                data = super()._read(key, wanted)
                if described and data is not None and key.endswith(DOCUMENT) and not self._files.foreign_codecs:
                    check_bound(self._files.metadata, array, None, google_crc32c.value(data), key)
                return data
            data = self._shard(array, int(shard["shard"]), key, wanted)
        if (changed := self._files.changed()) is not None:
            raise changed
        return data

    async def getsize(self, key: str) -> int:
        """Bytes of a file; StoreError if there is none."""
        with self._files.reading(), self._robozarrs_errors(key):
            return await asyncio.to_thread(self._place.size, key)

    @contextmanager
    def _robozarrs_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except BucketError:
            raise
        except OSError as exc:
            raise StoreError(
                f"{self._place.at(key)}: cannot be read: {exc.strerror or exc} → run: robozarr verify {self._place}"
            ) from exc
        except MemoryError as exc:
            raise StoreError(f"{self._place.at(key)}: larger than the memory → run: robozarr verify {self._place}") from exc

    def _shard(self, array: str, shard: int, key: str, wanted: ByteRequest | None) -> bytes:
        if array not in self._layouts:
            self._layouts[array] = self._files.layout_or_why(array)[0]
        layout = self._layouts[array]
        try:
            if layout is None:  # in foreign codecs
                return self._bytes(key, wanted)
            return self._checked(layout, shard, key, wanted)
        except (FileNotFoundError, NotADirectoryError) as exc:  # zarr would return zeros
            raise CorruptChunkError(
                f"{self._place.at(key)}: every expected shard must exist; it is missing → restore it from a copy, or convert "
                "again",
                "M7",
            ) from exc

    def _checked(self, layout: ArrayLayout, shard: int, key: str, wanted: ByteRequest | None) -> bytes:
        if isinstance(wanted, SuffixByteRequest) and wanted.suffix == _index_bytes(layout):
            known = self._known.get((layout.path, shard))
            tail, size = self._place.read_end(key, wanted.suffix)
            if known is None or not np.array_equal(known.ranges, parse_index(tail, size, layout, shard)):
                self._learn(layout, shard)
            return bytes(tail)
        if isinstance(wanted, RangeByteRequest):
            known = self._known.get((layout.path, shard)) or self._learn(layout, shard)
            data = self._bytes(key, wanted)
            if _are_chunks(known, layout, shard, wanted.start, data):
                return data
        data = read_shard_bytes(self._place, layout, shard)
        self._take(layout, shard, data)
        return _part_of(data, wanted)

    def _learn(self, layout: ArrayLayout, shard: int) -> Chunks:
        """What the chunks of a shard must be."""
        key = layout.shard_path(shard)
        sums = self._files.frame_sums(layout)
        if sums is None:
            return self._take(layout, shard, self._place.read(key, shard_bytes_max(layout)))
        tail, size = self._place.read_end(key, _index_bytes(layout))
        start, stop = layout.rows_of_shard(shard)
        return self._remember(layout, shard, Chunks(parse_index(tail, size, layout, shard), sums[start:stop]))

    def _take(self, layout: ArrayLayout, shard: int, data: bytes) -> Chunks:
        """What the chunks of a whole shard must be, after comparing it with what the root document binds."""
        found, sums = step_checksums(data, layout, shard), self._files.frame_sums(layout)
        check_bound(self._files.metadata, layout.path, shard, shard_sum(data, layout, shard), layout.shard_path(shard))
        start, stop = layout.rows_of_shard(shard)
        index = parse_index(data[-_index_bytes(layout) :], len(data), layout, shard)
        chunks = Chunks(index, found if sums is None else sums[start:stop])
        if sums is not None:
            _are_chunks(chunks, layout, shard, 0, data)
        return self._remember(layout, shard, chunks)

    def _remember(self, layout: ArrayLayout, shard: int, chunks: Chunks) -> Chunks:
        while len(self._known) >= SHARDS_REMEMBERED:
            self._known.pop(next(iter(self._known), (layout.path, shard)), None)
        self._known[layout.path, shard] = chunks
        return chunks


def _index_bytes(layout: ArrayLayout) -> int:
    return layout.chunks_per_shard * INDEX_ENTRY_BYTES + CRC_BYTES


def _part_of(data: bytes, wanted: ByteRequest | None) -> bytes:
    if isinstance(wanted, RangeByteRequest):
        return data[wanted.start : wanted.end]
    if isinstance(wanted, OffsetByteRequest):
        return data[wanted.offset :]
    return data if wanted is None else data[-wanted.suffix :]


def _are_chunks(chunks: Chunks, layout: ArrayLayout, shard: int, start: int, data: bytes) -> bool:
    """Whether bytes of a shard from `start` on are whole chunks; each of these is then checked.

    Raises
    ------
    CorruptChunkError
        If one of them does not end in the checksum that it must have (M21).
    """
    ends = chunks.ranges.sum(axis=1).astype(np.int64)
    first = int(np.searchsorted(chunks.ranges[:, 0], start))
    last = int(np.searchsorted(ends, start + len(data), "right"))
    if first >= last or int(chunks.ranges[first, 0]) != start:
        return False
    for chunk in range(first, last):
        begin, end = int(chunks.ranges[chunk, 0]) - start, int(ends[chunk]) - start
        if layout.effort is None:
            found, expected = np.frombuffer(data, "<u4", 1, end - CRC_BYTES), chunks.sums[chunk : chunk + 1]
        else:
            expected = chunks.sums[chunk * layout.chunk_rows : (chunk + 1) * layout.chunk_rows]
            found = entries_of(memoryview(data)[begin:end], layout.chunk_rows)["crc32c"][: len(expected)]
        if not np.array_equal(found, expected):
            rule = "the chunk must have the checksum that the store states for it"
            raise corrupt_chunk("M21", layout, shard, chunk, rule, "another chunk")
    return int(ends[last - 1]) == start + len(data)


def _make(place: FolderPlace | BucketPlace, read_only: bool) -> PlaceOfZarr:
    return PlaceOfZarr(place, read_only=read_only)

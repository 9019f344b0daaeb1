"""Let zarr-python read a bucket through the place's own requests, retries and errors. Imports no obstore.

zarr's own store for buckets lets obstore's errors through, waits for ever after a fork, and knows no missing shard.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from robozarr.schemas.errors import CorruptChunkError
from robozarr.store.bucket import BucketPlace

__all__ = ["BucketOfZarr"]

SHARD: Final = re.compile(r"/c(/[0-9]+)+$")


class BucketOfZarr(Store):
    """A place in a bucket as a store of zarr; raises the place's errors.

    Parameters
    ----------
    place : BucketPlace
    read_only : bool
    """

    def __init__(self, place: BucketPlace, *, read_only: bool = True) -> None:
        super().__init__(read_only=read_only)
        self._place = place

    def with_read_only(self, read_only: bool = False) -> BucketOfZarr:
        """The same place."""
        return BucketOfZarr(self._place, read_only=read_only)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketOfZarr) and (self._place, self.read_only) == (other._place, other.read_only)

    def __str__(self) -> str:
        return self._place.url

    def __repr__(self) -> str:
        return f"BucketOfZarr({self._place.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._place, self.read_only)

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes | None:
        try:
            if wanted is None:
                return self._place.read(key)
            if isinstance(wanted, RangeByteRequest):
                (part,) = self._place.read_ranges(key, [wanted.start], [wanted.end])
                return bytes(part)
            if isinstance(wanted, SuffixByteRequest):
                return bytes(self._place.read_end(key, wanted.suffix)[0])
            assert isinstance(wanted, OffsetByteRequest)
            return self._place.read(key)[wanted.offset :]
        except FileNotFoundError as exc:
            if SHARD.search(key) is not None and not key.startswith("tasks/embedding/"):
                raise CorruptChunkError(  # zarr would return zeros
                    f"{self._place.at(key)}: every expected shard exists; it is missing → restore it from a copy, or convert "
                    "again",
                    "M7",
                ) from exc
            return None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read an object; None if there is none."""
        data = await asyncio.to_thread(self._read, key, byte_range)
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read several objects at the same time."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether an object exists."""
        return await asyncio.to_thread(self._place.exists, key)

    @property
    def supports_writes(self) -> bool:
        """True: task embeddings are written in this way."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        self._check_writable()
        await asyncio.to_thread(self._place.write, key, [value.to_bytes()])

    @property
    def supports_deletes(self) -> bool:
        """True."""
        return True

    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        self._check_writable()
        await asyncio.to_thread(self._place.remove, [key])

    @property
    def supports_listing(self) -> bool:
        """True."""
        return True

    async def _names(self, prefix: str) -> list[str]:
        folder = prefix.rstrip("/")
        if not folder:
            return await asyncio.to_thread(self._place.names)
        return [f"{folder}/{name}" for name in await asyncio.to_thread(self._place.below(folder).names)]

    async def list(self) -> AsyncIterator[str]:
        """Every object."""
        for name in await self._names(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every object below a folder."""
        for name in await self._names(prefix):
            yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The objects and folders in a folder."""
        skip = len(prefix.rstrip("/")) + 1 if prefix.rstrip("/") else 0
        for name in sorted({name[skip:].split("/")[0] for name in await self._names(prefix)}):
            yield name

    async def getsize(self, key: str) -> int:
        """Size of an object; FileNotFoundError if there is none."""
        return await asyncio.to_thread(self._place.size, key)


def _make(place: BucketPlace, read_only: bool) -> BucketOfZarr:
    return BucketOfZarr(place, read_only=read_only)

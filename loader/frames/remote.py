"""Read frames of a store in an object store: choose the bytes to ask for, and keep some of them. Imports no torch.

A batch asks for the indexes of shards that it meets first, then for byte ranges, of all its keys at once, and waits. Ranges lie
in memory for a while: what another batch has asked for already is not asked for again, and neighbours that are going to be
wanted soon come along in one request. With a ``cache_dir`` the files there come first. What the bytes mean is
``loader.frames.kernel``'s, the same as for files.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.buffers import ThreadBuffers
from robozarr.loader.frames.faults import episode_of, explain
from robozarr.loader.frames.frame_chunks import decode_frames, frames_needed, read_frames
from robozarr.loader.frames.kernel import decode_rows, read_chunks
from robozarr.loader.frames.prepare import take_table, try_tables
from robozarr.loader.frames.ranges import Held, byte_ranges, claim_rows, note_rows, whole_chunks
from robozarr.loader.frames.requests import Requests
from robozarr.loader.frames.rows import BatchRows, group_rows, part_of_rows
from robozarr.loader.frames.shards import (
    ABSENT,
    CLOSED,
    ENTRY_BYTES,
    FRAMES,
    INDEX,
    OK,
    OUTSIDE,
    READ,
    TABLE,
    begin_of,
    close_shards,
    index_bytes,
    shards_of,
    take_index,
)
from robozarr.schemas.errors import BucketError, RoboZarrError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import corrupt_chunk
from robozarr.store.cache_dir import CachedArray, CacheDir
from robozarr.store.opened import Store
from robozarr.store.threads import ThreadJob

__all__ = ["BucketReader"]

I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]

GAP_BYTES: Final = 128 * 2**10
"""Between two ranges that become one: what a link carries in the time that a request takes a processor."""
WHOLE_BYTES: Final = 2 * GAP_BYTES
"""A chunk of frames up to this is fetched whole: its table first, and then some of its frames, are two or three requests."""
MOST_BYTES: Final = 4 * 2**20
"""Of a range of several rows."""
KEPT_BYTES: Final = 2**29
"""Encoded rows of one key that stay in memory, the last ones."""
ATTEMPTS: Final = 3
"""At bytes that come whole, and are not what was written: on the way, perhaps."""
TOUCH_S: Final = 600
"""How often files of the cache are marked as in use."""


class Range:
    """Neighbouring rows, requested as one byte range."""

    __slots__ = ("begin", "bytes", "end", "error", "first", "job", "number", "stop")

    def __init__(self, number: int, first: int, stop: int, begin: int, end: int) -> None:
        self.number, self.first, self.stop, self.begin, self.end = number, first, stop, begin, end
        self.bytes: U8 | None = None
        self.error: BaseException | None = None
        self.job: ThreadJob | None = None


class BucketReader:
    """Rows of a key of frames, in an object store."""

    def __init__(
        self,
        store: Store,
        layout: ArrayLayout,
        sums: NDArray[np.uint32],
        requests: Requests,
        cache: CacheDir | None,
        free_fds: I64,
        over: U8 | None = None,
    ) -> None:
        self._store, self._layout, self._requests, self._free_fds = store, layout, requests, free_fds
        self._cached: CachedArray | None = None
        if cache is not None:
            name = f"{store.path.rpartition('/')[2]}-{layout.path.rpartition('/')[2]}"
            sizes = (layout.shape, layout.dtype, layout.chunk_rows, layout.shard_rows)
            self._cached = cache.array(name, (store.identity, layout.path, *sizes, layout.codec), sums)
        n_rows, n_shards = layout.shape[0], layout.n_shards
        prefix = "" if self._cached is None else self._cached.prefix
        self._shards = shards_of(layout, sums, prefix, CachedArray.suffix, ABSENT, over=over)
        self._held = Held(owner=np.full(n_rows, -1, np.int32), soon=np.zeros(n_rows, np.int32), gap=GAP_BYTES, most=MOST_BYTES)
        self._lock = threading.Lock()
        self._flight, self._next, self._n_kept = 2, 0, 0
        self._ranges: dict[int, Range] = {}
        self._whole: deque[Range] = deque()
        self._indexes: dict[int, ThreadJob] = {}
        self._gone: list[int] = []
        """Open files that were removed from the cache."""
        self._used, self._touched = np.zeros(n_shards, bool), time.monotonic()

    def announce(self, rows: I64) -> None:
        """Announce rows that will be read soon: neighbours among them are requested together. -1 is skipped."""
        self._requests.check_process()
        with self._lock:
            self._flight += 1
            note_rows(self._held, rows, self._flight)

    def read(self, rows: I64, at: I64, out: U8, thread_buffers: ThreadBuffers, part: tuple[int, int]) -> Iterator[None]:
        """Like ``KeyReader.read``, in steps, between which bytes are on their way.

        Raises
        ------
        CorruptChunkError
            If a row cannot be read exactly; the text names array, shard, chunk and episode.
        BucketError
            If the bucket cannot be reached, or refuses; the text names the object.
        """
        self._requests.check_process()
        batch_rows = BatchRows(np.empty(rows.size, np.int64), np.empty(rows.size + 1, np.int64), np.empty(rows.size, np.int64))
        low, high = part_of_rows(batch_rows, group_rows(rows, at, batch_rows), *part, self._layout.chunk_rows)
        mine = batch_rows.row[low:high]
        if mine.size and mine[-1] >= self._layout.shape[0]:
            raise self._explain(OUTSIDE, int(mine[-1]))
        yield from self._load_indexes(mine[mine >= 0])
        flat, buffers = out.reshape(-1, self._layout.row_bytes), thread_buffers.of(self._layout.row_bytes)
        missed = np.empty(high - low + 1, np.int64)
        if self._shards.codec == FRAMES:
            with self._lock:
                try_tables(self._shards, mine[mine >= 0], buffers.fault)
            memory = thread_buffers.frames(self, self._shards)
            read_frames(self._shards, batch_rows, low, high, flat, buffers, memory, missed)
        else:
            read_chunks(self._shards, batch_rows, low, high, flat, buffers, missed)
        todo = missed[1 : 1 + missed[0]]
        tries: Counter[int] = Counter()
        while todo.size:
            wanted = batch_rows.row[todo]
            if self._shards.codec == FRAMES:
                wanted, of_todo = yield from self._know_tables(wanted, tries)
            ranges, which = self._claim(wanted)
            yield
            spans = yield from self._spans(ranges)
            buffers = thread_buffers.of(self._layout.row_bytes)  # others have used them meanwhile
            if self._shards.codec == FRAMES:
                memory = thread_buffers.frames(self, self._shards)
                code = decode_frames(
                    self._shards, batch_rows, todo, wanted, of_todo, which, spans, flat, buffers, memory
                )  # fmt: skip
            else:
                code = decode_rows(self._shards, batch_rows, todo, which, spans, flat, buffers)
            if code == OK:
                return
            row = int(buffers.fault[0])
            self._try_again(code, row, tries, ranges[which[np.searchsorted(wanted, row)]])
            todo = todo[np.searchsorted(batch_rows.row[todo], row) :]

    def _try_again(self, code: int, row: int, tries: Counter[int], one: Range) -> None:
        """Forget a range that arrived complete, but is not what was written; raises at the last attempt."""
        tries[row] += 1
        if tries[row] == ATTEMPTS:
            raise self._explain(code, row)
        with self._lock:
            self._forget(one)

    def _spans(self, ranges: list[Range]) -> Generator[None, None, I64]:
        """Wait for ranges: where their bytes lie, [n, 3] as ``kernel.decode_rows`` takes them."""
        spans = np.empty((len(ranges), 3), np.int64)
        for number, one in enumerate(ranges):
            while one.job is not None and not one.job.wait_a_little():
                yield
            spans[number] = self._address(one), one.begin, one.end
        return spans

    def _know_tables(self, rows: I64, tries: Counter[int]) -> Generator[None, None, tuple[I64, I64]]:
        """Make sure that the tables of these rows' chunks are known; returns ``frame_chunks.frames_needed``."""
        shards = self._shards
        while True:
            chunks = np.unique(rows // shards.chunk_rows)
            chunks = chunks[shards.known[chunks] == 0]
            if not chunks.size:
                break
            with self._lock:
                whole = whole_chunks(shards, self._held, chunks, rows, self._flight - 1, WHOLE_BYTES)
            tables = [self._ask_table(chunk) for chunk in chunks[~whole].tolist()]
            ranges, which = self._claim(chunks[whole] * shards.chunk_rows)
            yield
            yield from self._spans([*ranges, *tables])
            of_whole = [ranges[number] for number in which.tolist()]
            for chunk, one in zip([*chunks[whole].tolist(), *chunks[~whole].tolist()], [*of_whole, *tables], strict=True):
                self._take_table(chunk, one, tries)
        needed, of_row = np.empty(2 * len(rows), np.int64), np.empty(2 * len(rows), np.int64)
        n = frames_needed(shards, rows, needed, of_row)
        return needed[:n], of_row[:n]

    def _ask_table(self, chunk: int) -> Range:
        """Request only the table of a chunk of frames; if others request it at the same time, it comes twice."""
        begin, first = int(begin_of(self._shards, chunk)), chunk * self._shards.chunk_rows
        one = Range(-1, first, first, begin, begin + ENTRY_BYTES * self._shards.chunk_rows)
        one.job = self._requests.submit(lambda: self._fetch(first // self._layout.shard_rows, [one]))
        return one

    def _take_table(self, chunk: int, one: Range, tries: Counter[int]) -> None:
        """Check and keep the table of a chunk whose bytes have arrived; a bad one will be requested again."""
        at, fault = int(begin_of(self._shards, chunk)) - one.begin, np.full(1, chunk * self._shards.chunk_rows)
        with self._lock:
            if self._shards.known[chunk]:
                return
            code = READ
            if one.bytes is not None and 0 <= at <= len(one.bytes) - ENTRY_BYTES * self._shards.chunk_rows:
                table = one.bytes[at:][: ENTRY_BYTES * self._shards.chunk_rows].copy()  # not read-only, as compiled for files
                code = take_table(self._shards, chunk, table, fault)
        if code != OK:
            self._try_again(code if code != READ else TABLE, int(fault[0]), tries, one)

    def _load_indexes(self, rows: I64) -> Iterator[None]:
        """Load the index of every shard that rows lie in, and open its file in the cache, once."""
        shards = np.unique(rows // self._layout.shard_rows)
        if self._cached is not None:
            self._used[shards] = True
            if time.monotonic() > self._touched + TOUCH_S:
                self._touch()
        absent = shards[self._shards.loaded[shards] == 0].tolist()
        if not absent:
            return
        with self._lock:
            for shard in absent:
                if shard not in self._indexes:
                    self._indexes[shard] = self._requests.submit(lambda shard=shard: self._load_index(shard))  # type: ignore[misc]
            jobs = [self._indexes[shard] for shard in absent]
        yield
        for shard, job in zip(absent, jobs, strict=True):
            while not job.wait_a_little():
                yield
            if not self._shards.loaded[shard]:
                with self._lock:
                    self._indexes.pop(shard, None)
                row = int(rows[np.searchsorted(rows, shard * self._layout.shard_rows)])
                raise self._explain(INDEX, row) if job.error is None else self._said(job.error, row)

    def _load_index(self, shard: int) -> None:
        """Load a shard's index, if it is good: from the cache, else from the bucket."""
        shards = self._shards
        if self._cached is not None and self._open(self._cached, shard):
            return
        for _ in range(ATTEMPTS):
            tail, size = self._requests.end(self._layout.shard_path(shard), index_bytes(shards))
            if take_index(shards, shard, tail, size) == OK:
                if self._cached is not None and self._cached.make(shard, size, tail):
                    self._open(self._cached, shard)
                shards.loaded[shard] = 1
                break

    def _open(self, cached: CachedArray, shard: int) -> bool:
        """Open a shard's file in the cache; False if there is none, or none with a good index."""
        shards = self._shards
        if (fd := cached.open(shard)) is None:
            return False
        end = cached.read_end(fd, shard, index_bytes(shards))
        good = end is not None and take_index(shards, shard, *end) == OK
        if good and self._free_fds[0] > 0:
            self._free_fds[0] -= 1
            shards.fds[shard] = fd
        else:
            os.close(fd)
            shards.fds[shard] = CLOSED if good else ABSENT
        shards.loaded[shard] |= good
        return good

    def _claim(self, rows: I64) -> tuple[list[Range], I64]:
        """Find the ranges that hold rows, and the range of each row; what nobody has requested yet is requested."""
        which, new = np.empty(len(rows), np.int64), np.full((len(rows), 2), -1)
        with self._lock:
            try:
                n = claim_rows(self._shards, self._held, rows, self._flight - 1, self._next, new, which)
                parts = zip(new[:n].tolist(), byte_ranges(self._shards, new[:n]).tolist(), strict=True)
                made = [Range(self._next + i, *of_rows, *of_bytes) for i, (of_rows, of_bytes) in enumerate(parts)]
                self._next += n
                self._ranges |= {one.number: one for one in made}
                self._ask(made)
            except BaseException:  # Ctrl-C: rows do not belong to a range that nobody asks for
                for first, stop in new[new[:, 0] >= 0].tolist():
                    self._held.owner[first:stop] = -1
                raise
            numbers = np.unique(which)
            ranges = [self._ranges[number] for number in numbers.tolist()]
        return ranges, np.searchsorted(numbers, which)

    def _ask(self, ranges: list[Range]) -> None:
        """Request ranges, those of one shard together."""
        by_shard: dict[int, list[Range]] = {}
        for one in ranges:
            by_shard.setdefault(one.first // self._layout.shard_rows, []).append(one)
        for shard, of_shard in by_shard.items():
            for piece in self._requests.pieces(len(of_shard)):
                some = of_shard[piece]
                job = self._requests.submit(lambda shard=shard, some=some: self._fetch(shard, some))  # type: ignore[misc]
                for one in some:
                    one.job = job

    def _fetch(self, shard: int, ranges: list[Range]) -> None:
        """Bring ranges of a shard into memory, and into the cache."""
        try:
            wanted = np.array([(one.begin, one.end) for one in ranges], np.int64)
            found = self._requests.ranges(self._layout.shard_path(shard), wanted)
        except BaseException as exc:
            with self._lock:
                for one in ranges:
                    one.error = exc
                    self._forget(one)
            return
        for one, data in zip(ranges, found, strict=True):
            one.bytes = data
        if self._cached is not None and self._shards.fds[shard] != ABSENT:
            starts = wanted[:, 0].tolist()
            if not self._cached.write(shard, found, starts) and self._make_again(self._cached, shard):
                self._cached.write(shard, found, starts)
        with self._lock:
            self._whole.extend(ranges)
            self._n_kept += sum(one.end - one.begin for one in ranges)
            while self._n_kept > KEPT_BYTES and len(self._whole) > len(ranges):
                oldest = self._whole.popleft()
                self._n_kept -= oldest.end - oldest.begin
                self._forget(oldest)

    def _make_again(self, cached: CachedArray, shard: int) -> bool:
        """Make the cached file of a shard again after it was removed, and use it; False if that is not possible now."""
        try:
            tail, size = self._requests.end(self._layout.shard_path(shard), index_bytes(self._shards))
        except (OSError, BucketError):  # the bytes that were asked for are there all the same
            return False
        if not cached.make(shard, size, tail):
            return False
        with self._lock:
            fd = int(self._shards.fds[shard])
            made = self._open(cached, shard)
            if 0 <= fd != self._shards.fds[shard]:  # unless the new file is gone, too
                self._gone.append(fd)  # others may be reading it
            return made

    def _forget(self, one: Range) -> None:
        """Drop a range; whoever is using it keeps it until they finish."""
        if self._ranges.pop(one.number, None) is not None:
            owner = self._held.owner[one.first : one.stop]
            owner[owner == one.number] = -1

    def _address(self, one: Range) -> int:
        """Address of the bytes of a range that has arrived."""
        if one.bytes is None:
            raise self._said(one.error, one.first)
        return int(one.bytes.ctypes.data)

    def _said(self, error: BaseException | None, row: int) -> BaseException:
        """The error of a requesting thread, as an error of a row."""
        gone = isinstance(error, FileNotFoundError) or (isinstance(error, BucketError) and error.short)
        if gone and (changed := self._store.changed()) is not None:
            return changed
        if isinstance(error, FileNotFoundError):
            shard, chunk = divmod(row, self._layout.shard_rows)
            rule, within = "every expected shard must exist and be readable", episode_of(self._store, row)
            return corrupt_chunk("M7", self._layout, shard, chunk, rule, str(error), within=within)
        if isinstance(error, BucketError):
            shard = row // self._layout.shard_rows
            where = f"{self._layout.path} · shard {shard} ({self._layout.shard_path(shard)}) · {episode_of(self._store, row)}"
            said = BucketError(f"{where}: {error}")
            said.__cause__ = error
            return said
        return error or StoreError(f"{self._layout.path}: row {row} was not asked for")

    def _explain(self, code: int, row: int) -> RoboZarrError:
        return explain(self._store, self._layout, code, row, self._requests.read)

    def _touch(self) -> None:
        self._touched = time.monotonic()
        used = np.flatnonzero(self._used)
        self._used[:] = False
        if self._cached is not None:
            self._cached.touch(used.tolist())

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends() and (shards := getattr(self, "_shards", None)):  # then modules are taken apart already
            close_shards(shards, self._free_fds)
            for fd in self._gone:
                os.close(fd)
                self._free_fds[0] += 1

"""Read rows of a store into a caller's buffer; the only reader of frames. Imports no torch.

A key is read in one of three ways. Low-dim keys, and frames if asked for, lie in memory that processes share. Frames are read
chunk by chunk by compiled code. Frames in a codec that this code does not know are read by zarr, with a warning.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from multiprocessing import context
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.buffers import ThreadBuffers
from robozarr.loader.frames.faults import explain
from robozarr.loader.frames.foreign import ForeignArray, ZarrReader
from robozarr.loader.frames.frame_chunks import read_frames
from robozarr.loader.frames.kernel import read_chunks
from robozarr.loader.frames.memory import SharedArrays
from robozarr.loader.frames.prepare import prepare_shards
from robozarr.loader.frames.remote import BucketReader
from robozarr.loader.frames.requests import Requests
from robozarr.loader.frames.rows import BatchRows, copy_rows, first_other, group_rows, part_of_rows, part_of_windows
from robozarr.loader.frames.shards import CLOSED, FRAMES, OK, close_shards, shards_of
from robozarr.loader.frames.sharing import shared_of
from robozarr.schemas.errors import CorruptChunkError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.store.bucket import BucketPlace
from robozarr.store.opened import REMOTE_THREADS, Store
from robozarr.store.reading import MANY_SHARDS, check_claim, memory_for, shard_bytes_max
from robozarr.store.threads import ThreadTeam

__all__ = ["Reader"]

I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]

BLOCK: Final = 1024
"""Frames put into memory by one call."""
LOADING_THREADS: Final = 4
"""That read shards of low-dim keys into memory, each holding one."""
NONE_MISSED: Final = np.empty(0, np.int64)
OPEN_FILES_SHARE: Final = 4
"""Shards that all readers together keep open: this part of the files a process may open. Others are opened for each use."""


class KeyReader(Protocol):
    """One way to read a key."""

    def read(self, rows: I64, at: I64, out: U8, thread_buffers: ThreadBuffers, part: tuple[int, int]) -> Iterator[None] | None:
        """Put rows into a batch: at once, or in steps that the caller goes through, between which bytes are on their way.

        Parameters
        ----------
        rows : int64 [b, n_offsets]
            Inside the key; -1: zeros.
        at : int64 [b]
            Where in the batch each window goes.
        out : uint8 [batch, n_offsets, row_bytes], written
        thread_buffers : ThreadBuffers
            The thread's.
        part : (i, n)
            Do the i-th of n parts of the work, that together are all of it.
        """
        ...


class MemoryReader:
    """Rows of a key that lies in memory."""

    def __init__(self, column: NDArray[Any]) -> None:
        self._column = column.reshape(len(column), -1).view(np.uint8)

    def read(self, rows: I64, at: I64, out: U8, thread_buffers: ThreadBuffers, part: tuple[int, int]) -> None:
        """Like ``KeyReader.read``."""
        low, high = part_of_windows(len(rows), part)
        if (row := copy_rows(self._column, rows[low:high], at[low:high], out)) >= 0:
            raise StoreError(f"row {row} of a key of {len(self._column)} rows was asked for → ask for rows of the store")


class FrameReader:
    """Rows of a key of frames, by compiled code."""

    def __init__(
        self, store: Store, layout: ArrayLayout, sums: NDArray[np.uint32], free_fds: I64, over: U8 | None = None
    ) -> None:
        self._store, self._layout, self._free_fds = store, layout, free_fds
        self._locks: dict[int, threading.Lock] = {}
        root = str(Path(store.path).absolute())
        prefix, _, suffix = f"{root}/{layout.shard_path(0)}".rpartition("/c/0")
        self._shards = shards_of(layout, sums, f"{prefix}/c/", suffix, CLOSED, root, over)

    def read(self, rows: I64, at: I64, out: U8, thread_buffers: ThreadBuffers, part: tuple[int, int]) -> None:
        """Like ``KeyReader.read``.

        Raises
        ------
        CorruptChunkError
            If a row cannot be read exactly; the text names array, shard, chunk and episode.
        """
        batch_rows = BatchRows(np.empty(rows.size, np.int64), np.empty(rows.size + 1, np.int64), np.empty(rows.size, np.int64))
        low, high = part_of_rows(batch_rows, group_rows(rows, at, batch_rows), *part, self._layout.chunk_rows)
        buffers, flat = thread_buffers.of(self._layout.row_bytes), out.reshape(-1, self._layout.row_bytes)
        # a lock for each process: a fork may find it held by a thread that the child does not have
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            code = prepare_shards(self._shards, batch_rows.row[low:high], self._free_fds, buffers.fault)
        if code == OK and self._shards.codec == FRAMES:
            memory = thread_buffers.frames(self, self._shards)
            code = read_frames(self._shards, batch_rows, low, high, flat, buffers, memory, NONE_MISSED)
        elif code == OK:
            code = read_chunks(self._shards, batch_rows, low, high, flat, buffers, NONE_MISSED)
        if code != OK:
            most = shard_bytes_max(self._layout)
            raise explain(
                self._store, self._layout, code, int(buffers.fault[0]), lambda path: self._store.place.read(path, most)
            )

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends() and (shards := getattr(self, "_shards", None)):  # then modules are taken apart already
            close_shards(shards, self._free_fds)


class Reader:
    """Reads rows of some keys of a store; safe to use from several threads, after a fork, and in processes started anew.

    Parameters
    ----------
    store : Store
    keys : names
        Not ragged ones.
    in_memory : bool
        Keep frames in memory too: they are read once, by this call.
    run : callable
        Like ``map``: what reads frames into memory, in this thread or in several.
    memory : SharedArrays
        What another process has read already.
    over : mapping of key to uint8 [n_steps], optional
        Where it is 1, pictures of frame keys are turned over, their last line first, while they are put into a batch.
    """

    def __init__(
        self,
        store: Store,
        keys: Sequence[str],
        *,
        in_memory: bool = False,
        run: Callable[..., Iterable[Any]] = map,
        memory: SharedArrays | None = None,
        over: Mapping[str, U8] | None = None,
    ) -> None:
        self.store, self._names, self._in_memory, self._over = store, tuple(keys), in_memory, dict(over or {})
        self._error: StoreError | None = None
        self._local = threading.local()
        free_fds = _free_fds()
        held = [name for name in keys if in_memory or not store.keys[name].frame]
        self._readers: dict[str, KeyReader] = {}
        self._requests = Requests(store.place) if isinstance(store.place, BucketPlace) else None
        if memory is None:
            columns = shared_of(store).columns
            there = {name: column for name in held if (column := columns.get((name, name in self._over))) is not None}
            held = [name for name in held if name not in there]
            kinds = {name: ((store.n_steps, *store.keys[name].shape), store.keys[name].dtype) for name in held}
            with memory_for(f"{store.path}: {', '.join(held)}"):
                memory = SharedArrays(kinds, borrowed=there)
            for name in held:
                if store.keys[name].frame:
                    self._load_frames(name, memory[name], free_fds, run)
            self._map(lambda name: self._load(name, memory[name]), [name for name in held if not store.keys[name].frame])
            columns.update({(name, name in self._over): memory for name in held})
        self._memory = memory

        def make(name: str) -> KeyReader:
            return MemoryReader(memory[name]) if name in memory else self._frame_reader(name, free_fds)

        self._readers = dict(zip(keys, self._map(make, keys), strict=True))
        self._compile()

    def _compile(self) -> None:
        """Compile all that reading calls, now: later there are threads, and forks beside them."""
        for name in self._names:
            key, nothing = self.store.keys[name], np.empty(0, np.int64)
            row_bytes = int(np.prod(key.shape, dtype=np.int64)) * np.dtype(key.dtype).itemsize
            if not isinstance(self._readers[name], ZarrReader):
                self.read(name, nothing.reshape(0, 1), nothing, np.empty((0, 1, row_bytes), np.uint8))

    def _map(self, function: Callable[[str], Any], names: Sequence[str]) -> list[Any]:
        """Results of a function for each key; keys of a bucket are done at the same time."""
        if self.store.remote and names:
            return ThreadTeam(min(len(names), REMOTE_THREADS)).map(function, names)
        return [function(name) for name in names]

    def _frame_reader(self, name: str, free_fds: I64) -> KeyReader:
        layout, why = self.store.layout_or_why(f"steps/{name}")
        over = self._over.get(name)
        if layout is None:
            return ZarrReader(self.store, self.store.keys[name], why, over)
        frames, kind = shared_of(self.store).frames, (name, over is not None)
        if (found := frames.get(kind)) is not None:
            there: KeyReader = found
            return there
        check_claim(self.store.place, layout)
        sums = self.store.checksums(name)
        with memory_for(f"{self.store.path}/{layout.path}"):
            if self._requests is None:
                frames[kind] = reader = FrameReader(self.store, layout, sums, free_fds, over)
                return reader
            return BucketReader(self.store, layout, sums, self._requests, self.store.cache, free_fds, over)

    def _load_frames(self, name: str, out: NDArray[Any], free_fds: I64, run: Callable[..., Iterable[Any]]) -> None:
        """Read all frames of a key into memory."""
        self._readers[name] = self._frame_reader(name, free_fds)

        def load(start: int) -> None:
            part = out[start : start + BLOCK]
            rows, at = np.arange(start, start + len(part))[:, None], np.arange(len(part))
            self.read(name, rows, at, part.reshape(len(part), 1, -1).view(np.uint8))

        list(run(load, range(0, len(out), BLOCK)))

    def _load(self, name: str, out: NDArray[Any]) -> None:
        """Read a whole low-dim key into memory."""
        layout, _ = self.store.layout_or_why(f"steps/{name}")
        if layout is None:
            out[:] = ForeignArray(self.store, name).read(0, len(out)) if len(out) else 0
        else:

            def load_shard(shard: int) -> None:
                start, stop = layout.rows_of_shard(shard)
                out[start:stop] = self.store.read_shard(layout, shard, bound=False)

            # reading, decoding and the first touch of fresh memory hold no GIL: half of the time on two cores
            n_threads = REMOTE_THREADS if self.store.remote else LOADING_THREADS
            team = ThreadTeam(min(layout.n_shards, n_threads))
            check_claim(self.store.place, layout)
            for first in range(0, layout.n_shards, MANY_SHARDS):
                team.map(load_shard, range(first, min(first + MANY_SHARDS, layout.n_shards)))
        self._check(name, out)

    def _check(self, name: str, column: NDArray[Any]) -> None:
        """M21: check that each episode's rows are those that were written for it."""
        sums, ends = self.store.checksums(name), np.cumsum(self.store.episodes.length)
        if len(sums) != len(ends) or int(ends[-1:].sum()) != len(column):
            raise CorruptChunkError(f"checksums/{name}: one for each of {len(ends)} episodes; found {len(sums)}", "M21")
        episode = first_other(column.reshape(len(column), -1).view(np.uint8), ends, sums)
        if episode >= 0:
            if (changed := self.store.changed()) is not None:
                raise changed
            raise CorruptChunkError(
                f"steps/{name} · episode {episode} ({self.store.episodes.demo[episode]}): its rows must have the checksum that "
                "was stored; found another: shards were mixed up → restore them from a copy, or convert again",
                "M21",
            )

    def read(self, name: str, rows: I64, at: I64, out: U8, part: tuple[int, int] = (0, 1)) -> None:
        """Put rows of a key into a batch; as ``KeyReader.read``."""
        for _ in self.begin(name, rows, at, out, part) or ():
            pass

    def begin(self, name: str, rows: I64, at: I64, out: U8, part: tuple[int, int] = (0, 1)) -> Iterator[None] | None:
        """Like `read`, but a key that has to wait for bytes returns the remaining steps, so that several keys wait together."""
        if self._error is not None:
            raise self._error
        try:
            thread_buffers: ThreadBuffers = self._local.thread_buffers
        except AttributeError:
            thread_buffers = self._local.thread_buffers = ThreadBuffers()
        rows = rows.view()
        rows.flags.writeable = False  # of all rows alike, so that everything is compiled for one kind of array
        return self._readers[name].read(rows, at, out, thread_buffers, part)

    def announce(self, rows: Mapping[str, I64]) -> None:
        """Announce rows that will be read soon; where the store is remote, neighbours are fetched together."""
        for name, of_key in rows.items():
            if isinstance(reader := self._readers[name], BucketReader):
                reader.announce(of_key)

    def column(self, name: str) -> NDArray[Any]:
        """A key that lies in memory: [n_steps, …], not to be written to."""
        return self._memory[name]

    @classmethod
    def of(
        cls,
        store: Store,
        keys: Sequence[str],
        *,
        in_memory: bool = False,
        run: Callable[..., Iterable[Any]] = map,
        over: Mapping[str, U8] | None = None,
    ) -> Reader:
        """A reader that others of the same open store and keys use too; parameters as for the class."""
        readers = shared_of(store).readers
        kind = (tuple(keys), in_memory, tuple(sorted(over or {})))
        if (found := readers.get(kind)) is None:
            found = readers[kind] = cls(store, keys, in_memory=in_memory, run=run, over=over)
        reader: Reader = found
        return reader

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in ("store", "_names", "_in_memory", "_over")}
        if (
            context.get_spawning_popen() is not None
        ):  # for a process of this program, which shares memory; else it is read again
            state["_memory"] = self._memory
        return state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        memory = state.get("_memory")
        try:
            names, in_memory = state["_names"], state["_in_memory"]
            self.__init__(state["store"], names, in_memory=in_memory, memory=memory, over=state["_over"])  # type: ignore[misc]
        except StoreError as exc:
            if memory is None:
                raise
            self._error = exc  # a worker says it with its first batch: if it died here, its parent would not know why


@cache
def _free_fds() -> I64:
    """int64 [1]: shards that may still be kept open in this process, by whichever reader; a mixture has many."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return np.array([limit // OPEN_FILES_SHARE if limit > 0 else 1 << 16], np.int64)

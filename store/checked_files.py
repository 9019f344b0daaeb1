"""Read the files of one store with every check: layouts, shards, tables, texts; and notice if the store changed.

Imports no torch. What the files mean, as tables and keys, is the business of ``store.opened``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.documents import parse_json
from robozarr.schemas.errors import BucketError, CorruptChunkError, StoreChangedError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import StoreMetadata, fixed_layouts, layout_of_variable
from robozarr.store.foreign import foreign_codecs_of
from robozarr.store.identity import Watch, find_identity
from robozarr.store.place import Place
from robozarr.store.reading import read_array, read_layout, read_metadata, read_shard
from robozarr.store.table_rules import BrokenRule, broken_layout, broken_offsets, broken_texts, texts_between
from robozarr.store.threads import ThreadTeam

__all__ = ["REMOTE_THREADS", "CheckedFiles", "parts_of_texts"]

REMOTE_THREADS: Final = 16
"""Threads that wait for a bucket while a store is opened, or low-dim keys are read."""


Kept: TypeAlias = dict[str, tuple[ArrayLayout, dict[int, NDArray[Any]]]]
"""Of each array its layout, and the shard that was read last: rows near to each other are read once."""


class CheckedFiles:
    """The files of one store.

    Parameters
    ----------
    place : Place
    metadata : StoreMetadata
    foreign_codecs : names
        Codecs that FORMAT.md does not know, and that keys may be in all the same.
    identity : str, optional
        What the store must be. Default: what it is.
    """

    def __init__(
        self, place: Place, metadata: StoreMetadata, foreign_codecs: frozenset[str] = frozenset(), identity: str | None = None
    ) -> None:
        self.place, self.foreign_codecs = place, foreign_codecs
        self.path = self.place.url
        self.metadata = metadata
        self.identity = find_identity(self.place, metadata) if identity is None else identity
        """Digest of all that the store holds: 32 hexadecimal digits; it changes with every conversion and append."""
        self._changed: StoreError | None = None
        self._watch = Watch(self.place, metadata, self.identity)
        self._frame_sums: dict[str, NDArray[np.uint32]] = {}

    @property
    def remote(self) -> bool:
        """Whether the store is in a bucket."""
        return self.place.folder is None

    def changed(self) -> StoreError | None:
        """The error if the store was replaced, appended to or removed since it was opened; None if it is the same.

        Looks at its root document, and reads that where it may be another. Every error of reading asks this first; ask
        yourself, say, once an epoch.
        """
        return self._changed or self._watch.changed()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """If something fails, say whether the store was changed meanwhile."""
        if self._changed is not None:
            raise self._changed
        try:
            yield
        except StoreChangedError:
            raise
        except StoreError as exc:
            if (changed := self.changed()) is not None:
                raise changed from exc
            raise

    def describes(self, path: str) -> bool:
        """Whether an array is the store's own, and not one that users added."""
        variable = layout_of_variable(self.metadata, path, 0)
        return path in self._expected or (variable is not None and variable.path == path)

    def frame_sums(self, layout: ArrayLayout) -> NDArray[np.uint32] | None:
        """The checksum of each step of a frame key (``checksums/``): uint32 [n_steps]; None for other arrays."""
        name = layout.path.removeprefix("steps/")
        if (layout.chunk_rows != 1 and layout.effort is None) or name == layout.path or not self.metadata.key(name).frame:
            return None
        if name not in self._frame_sums:
            self._frame_sums[name] = self._read(f"checksums/{name}")
        return self._frame_sums[name]

    def layout(self, path: str) -> ArrayLayout:
        """Layout of an array on disk.

        Raises
        ------
        StoreError
            If its ``zarr.json`` is missing, says what FORMAT.md does not allow, or disagrees with the store's attributes.
        """
        with self.reading():
            layout, expected = read_layout(self.place, path, self.metadata), self._expected.get(path)
            if expected is None:
                expected = layout_of_variable(self.metadata, path, layout.shape[0])
            if expected is not None:
                self._refuse(broken_layout(layout, expected))
        return layout

    def read_shard(self, layout: ArrayLayout, shard: int, *, bound: bool = True) -> NDArray[Any]:
        """The rows of one shard; use `bound` False for a key whose rows the caller compares with ``checksums``.

        Raises
        ------
        CorruptChunkError
            If it is not what was written for this store; the text names array, shard and chunk.
        StoreChangedError
            If the store was replaced, appended to or removed since it was opened.
        """
        with self.reading():
            return read_shard(self.place, layout, shard, bound=self.metadata if bound else None)

    def layout_or_why(self, path: str) -> tuple[ArrayLayout | None, str]:
        """Layout of a key; or None and the reason, if its codecs were allowed by `open_store`. Raises as `layout` does."""
        try:
            return self.layout(path), ""
        except (BucketError, StoreChangedError):
            raise
        except StoreError as exc:
            expected = self._expected.get(path)
            codecs = None if expected is None else foreign_codecs_of(self.place, expected)
            if codecs and codecs <= self.foreign_codecs:
                return None, str(exc)
            if codecs:
                named = f"open_store(…, foreign_codecs={sorted(codecs)}) reads such a key by zarr-python"
                raise StoreError(f"{exc}; {named}") from exc
            raise

    def _refuse(self, *broken: Iterable[BrokenRule]) -> None:
        """Raise an error for the first broken rule."""
        for rule, text in chain(*broken):
            raise CorruptChunkError(f"{self.path}: {text} → run: robozarr verify {self.path}, then convert again", rule)

    @cached_property
    def _expected(self) -> dict[str, ArrayLayout]:
        return {layout.path: layout for layout in fixed_layouts(self.metadata)}

    def _read(self, path: str) -> NDArray[Any]:
        layout = self.layout(path)
        with self.reading():
            found = read_array(self.place, layout, self._map if layout.n_shards > 1 else map, self.metadata)
            if self.metadata.format_version == 1 and read_metadata(self.place, allow_incomplete=True) != self.metadata:
                # version 1 binds no tables: at least the root is still the same
                raise StoreError(f"{self.path}: the root document has changed")
        return found

    def _read_all(self, paths: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read several arrays by path; those of a bucket at the same time, because each takes two requests in turn."""
        return dict(zip(paths, self._map(self._read, paths), strict=True))

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        """Like ``map``; for a remote store with threads that wait for it."""
        if not (self.remote and items):
            return map(function, items)
        return ThreadTeam(min(len(items), REMOTE_THREADS)).map(function, items)

    def _rows(self, path: str, start: int, stop: int, kept: Kept | None = None) -> NDArray[Any]:
        """Read rows of an array through the shards that hold them; the last one stays in `kept`."""
        layout, known = self._array_of(path, {} if kept is None else kept)
        if start >= stop:
            return np.empty((0, *layout.shape[1:]), layout.dtype)
        first, last = start // layout.shard_rows, (stop - 1) // layout.shard_rows
        shards = [known[shard] if shard in known else self.read_shard(layout, shard) for shard in range(first, last + 1)]
        known.clear()
        known[last] = shards[-1]
        at = first * layout.shard_rows
        return np.concatenate(shards)[start - at : stop - at]

    def _array_of(self, path: str, kept: Kept) -> tuple[ArrayLayout, dict[int, NDArray[Any]]]:
        if path not in kept:
            kept[path] = self.layout(path), {}
        return kept[path]

    def _texts(self, path: str, found: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
        offsets, data = found[f"{path}/offsets"], found[f"{path}/bytes"]
        self._refuse(broken_offsets(path, offsets, len(data)))
        texts = texts_between(offsets, data)
        self._refuse(broken_texts(path, texts))
        known: dict[bytes, str] = {}  # what many rows say is held once
        return tuple(known[text] if text in known else known.setdefault(text, text.decode()) for text in texts)

    def _text(self, path: str, row: int) -> str:
        return bytes(self._between(path, "bytes", row)).decode("utf-8", "replace")

    def _attributes(self, path: str, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        kept: Kept = {}
        for row in rows:
            text = bytes(self._between(path, "bytes", row, kept))
            try:
                yield parse_json(text, foreign_bytes=True)
            except ValueError as exc:
                self._refuse([BrokenRule("M17", f"{path}: text {row}: {exc}")])
                raise

    def _between(self, path: str, what: str, row: int, kept: Kept | None = None) -> NDArray[Any]:
        n = self._expected[f"{path}/offsets"].shape[0] - 1
        if not 0 <= row < n:
            raise IndexError(f"row {row} of {n}")
        kept = {} if kept is None else kept
        offsets = self._rows(f"{path}/offsets", row, row + 2, kept)
        layout, _ = self._array_of(f"{path}/{what}", kept)
        self._refuse(broken_offsets(path, offsets, layout.shape[0], whole=False))
        return self._rows(f"{path}/{what}", int(offsets[0]), int(offsets[1]), kept)


def parts_of_texts(path: str) -> tuple[str, str]:
    """The arrays of a text column."""
    return f"{path}/offsets", f"{path}/bytes"

"""Open a store: typed access to its attributes, index, tables, statistics and arrays.

Everything is read when it is first asked for, with every check of FORMAT.md; ``Store.array`` is an array of zarr, for whoever
likes to slice. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from multiprocessing import context
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError
from robozarr.schemas.metadata import (
    EPISODE_STATISTICS,
    STORE_STATISTICS,
    TASK_TEXTS,
    Key,
    StoreMetadata,
)
from robozarr.schemas.source import SOURCE_SUFFIXES
from robozarr.store.cache_dir import DEFAULT_BYTES, CacheDir
from robozarr.store.checked_files import REMOTE_THREADS, CheckedFiles, parts_of_texts
from robozarr.store.identity import changed_since, check_identity
from robozarr.store.locate import place_of
from robozarr.store.misspelt import did_you_mean
from robozarr.store.place import Place
from robozarr.store.reading import read_metadata
from robozarr.store.table_rules import (
    broken_codes,
    broken_flags,
    broken_index,
    broken_lengths,
    broken_offsets,
)
from robozarr.store.tables import Episodes, Ragged, StepIndex, Tasks, instructions_of_tasks
from robozarr.store.viewer import Episode, html_of, viewer
from robozarr.store.zarr_group import zarr_array, zarr_group

__all__ = ["REMOTE_THREADS", "Episodes", "Ragged", "StepIndex", "Store", "Tasks", "open_store"]


class Store(CheckedFiles):
    """An open store; made by ``open_store``.

    ``metadata`` holds the attributes (``StoreMetadata``); ``group`` is the zarr group, for anything not offered here.
    """

    def __init__(
        self,
        place: str | Place,
        group: zarr.Group | None,
        metadata: StoreMetadata,
        cache: CacheDir | None = None,
        foreign_codecs: frozenset[str] = frozenset(),
        identity: str | None = None,
    ) -> None:
        super().__init__(place_of(place), metadata, foreign_codecs, identity)
        self.cache = cache
        if group is not None:
            self.group = group

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        # another process opens it again: nothing that was read travels along. A worker that multiprocessing starts says what is
        # wrong with its first batch, for if it died its parent would not know why
        later = context.get_spawning_popen() is not None
        return _reopen, (self.place, self.cache, self.foreign_codecs, self.metadata, self.identity, later)

    @cached_property
    def group(self) -> zarr.Group:
        """The zarr group, read-only."""
        return zarr_group(self)

    def __repr__(self) -> str:
        return f"Store({self.path!r}: {self.n_tasks} tasks, {self.n_episodes} episodes, {self.n_steps} steps)"

    def _repr_html_(self) -> str | None:
        return html_of(lambda: viewer("notebook").store_html(self))

    def episode(self, number: int) -> Episode:
        """One episode to look at, with ``filmstrip()``, ``plot()``, ``video()``; it shows itself in a notebook.

        Reads that episode and nothing else of the data. Needs ``pip install '.[view]'``.

        Raises
        ------
        StoreError
            If there is no such episode; negative numbers count from the end.
        """
        episode: Episode = viewer("episode").open_episode(self, number)
        return episode

    @property
    def n_steps(self) -> int:
        """Number of rows of every key."""
        return self.metadata.n_steps

    @property
    def n_episodes(self) -> int:
        """Number of episodes."""
        return self.metadata.n_episodes

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return self.metadata.n_tasks

    @property
    def keys(self) -> dict[str, Key]:
        """Every key by name, including ragged ones."""
        return {key.name: key for key in self.metadata.keys}

    def array(self, name: str) -> zarr.Array[Any]:
        """The array [n_steps, …] of a key that is not ragged, as zarr slices it.

        What a slice reads is compared with what was written: it raises CorruptChunkError, also for a missing shard, and
        StoreChangedError once the store is another.

        Raises
        ------
        StoreError
            If there is no such key, or it is ragged.
        """
        self._check_plain(name)
        return self._array(f"steps/{name}")

    def _check_plain(self, name: str) -> None:
        if self.metadata.key(name).ragged:
            raise StoreError(f"key {name!r} is ragged: its width differs between episodes; use store.ragged({name!r})")

    def ragged(self, name: str) -> Ragged:
        """A ragged key.

        Raises
        ------
        StoreError
            If there is no such key, or it is not ragged.
        """
        if not self.metadata.key(name).ragged:
            raise StoreError(f"key {name!r} is not ragged; use store.array({name!r})")
        values, offsets = f"ragged/{name}/values", self._read(f"ragged/{name}/offsets")
        self._refuse(broken_offsets(f"ragged/{name}", offsets, self.layout(values).shape[0]))
        return Ragged(self._array(values), offsets, partial(self._rows, values))

    @cached_property
    def index(self) -> StepIndex:
        """The step index, in memory: 9 bytes per step."""
        found = self._read_all([f"index/{name}" for name in ("episode", "step", "flags")])
        episodes = self.episodes
        found |= {"episodes/start": episodes.start, "episodes/length": episodes.length}
        self._refuse(broken_index(self.metadata, found), broken_flags(found["index/flags"]))
        return StepIndex(episode=found["index/episode"], step=found["index/step"], flags=found["index/flags"])

    @cached_property
    def episodes(self) -> Episodes:
        """The episode table."""
        columns = ("start", "length", "task", "source", "success", "alignment", "image_convention")
        more, texts = [f"splits/{name}" for name in self.metadata.splits], ["episodes/demo"]
        if self.metadata.format_version > 1:
            more, texts = [*more, "instruction_source"], [*texts, "episodes/instruction"]
        parts = [part for path in texts for part in parts_of_texts(path)]
        found = self._read_all([*(f"episodes/{name}" for name in (*columns, *more)), *parts])
        self._refuse(broken_lengths(self.metadata, found), broken_codes(self.metadata, found))
        table: dict[str, Any] = {name: found[f"episodes/{name}"] for name in columns}
        return Episodes(
            demo=self._texts("episodes/demo", found),
            splits={name: found[f"episodes/splits/{name}"] for name in self.metadata.splits},
            **(table | self._instructions(table["task"], found)),
        )

    def _instructions(self, task: NDArray[np.int32], found: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """The instruction of each episode; in a store of version 1, that of its task."""
        if self.metadata.format_version > 1:
            texts = self._texts("episodes/instruction", found)
            return {"instruction": texts, "instruction_source": found["episodes/instruction_source"]}
        return instructions_of_tasks(self.tasks, task)

    @cached_property
    def tasks(self) -> Tasks:
        """The task table."""
        found = self._read_all([part for name in TASK_TEXTS for part in parts_of_texts(f"tasks/{name}")])
        return Tasks(**{name: self._texts(f"tasks/{name}", found) for name in TASK_TEXTS})

    def stats(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Statistics of a key over the whole store: per channel for pictures, else per element.

        ``n``, ``mean``, ``std`` (population), ``min``, ``max``, ``q01``, ``q99``.
        """
        self._check_plain(name)
        return dict(zip(STORE_STATISTICS, self._read(f"stats/{name}"), strict=True))

    def episode_stats(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Statistics of a key per episode: ``mean``, ``std``, ``rms``, ``min``, ``max``, each [n_episodes, …]."""
        self._check_plain(name)
        table = self._read(f"episodes/stats/{name}")
        return {statistic: table[:, number] for number, statistic in enumerate(EPISODE_STATISTICS)}

    def histogram(self, name: str) -> NDArray[np.int64]:
        """Counts of a frame key's values over the whole store (FORMAT.md, M19): int64 [channel…, bin]; 256 bins of uint8."""
        self._check_plain(name)
        return self._read(f"histograms/{name}")

    def checksums(self, name: str) -> NDArray[np.uint32]:
        """Required checksums of the data (FORMAT.md, M21): uint32, one per step of a frame key, else one per episode."""
        return self._read(f"checksums/{name}")

    def fingerprints(self, name: str) -> NDArray[np.uint32]:
        """A checksum of each step's values: uint32 [n_steps]; equal frames have equal ones (FORMAT.md, M21).

        Raises
        ------
        StoreError
            If there is no such key, or it is no frame key.
        """
        if not self.metadata.key(name).frame:
            raise StoreError(f"key {name!r} has no fingerprints: only frame keys have them")
        alone = not self.metadata.has_fingerprints or self.layout(f"steps/{name}").effort is None
        return self.checksums(name) if alone else self._read(f"fingerprints/{name}")

    def model_file(self, episode: int) -> str:
        """The simulator's XML of an episode; "" if the source has none."""
        return self._text("episodes/model_file", episode)

    def init_state(self, episode: int) -> NDArray[np.float64]:
        """The simulator's initial state of an episode [n]; empty if the source has none."""
        return self._between("episodes/init_state", "values", episode)

    def episode_attributes(self, episode: int) -> dict[str, Any]:
        """Every other attribute of an episode's demo: path inside the demo → name → dtype, shape, value."""
        return next(self.attributes_of_episodes([episode]))

    def attributes_of_episodes(self, episodes: Iterable[int]) -> Iterator[dict[str, Any]]:
        """``episode_attributes`` of each; in their order it reads each shard once."""
        return self._attributes("episodes/attributes", episodes)

    def source_attributes(self, source: int) -> dict[str, Any]:
        """Attributes of a source outside its demos: path → name → dtype, shape, value."""
        return next(self.attributes_of_sources([source]))

    def attributes_of_sources(self, sources: Iterable[int]) -> Iterator[dict[str, Any]]:
        """``source_attributes`` of each; in their order it reads each shard once."""
        return self._attributes("sources/attributes", sources)

    def _array(self, path: str) -> zarr.Array[Any]:
        if (changed := self.changed()) is not None:  # zarr reads values later, and compares them with nothing
            raise changed
        self.layout_or_why(path)  # zarr believes documents that no reader should, and makes up what is missing
        return zarr_array(self.group, self.path, path)


def open_store(
    path: str | Path | Place,
    endpoint_url: str | None = None,
    *,
    cache_dir: str | Path | None = None,
    cache_dir_bytes: int = DEFAULT_BYTES,
    foreign_codecs: Iterable[str] = (),
    expect: str | None = None,
) -> Store:
    """Open a store whose conversion has finished.

    Parameters
    ----------
    path : path or URL
        Folder of the store, or a prefix of a bucket: ``s3://bucket/prefix``, ``gs://bucket/prefix``.
    endpoint_url : str, optional
        Of a service that speaks S3, for a store in a bucket. Default: what the environment says.
    cache_dir : path, optional
        For a store in a bucket: a folder of its own on a local disk that keeps the frames that were read, for later epochs and
        runs, and for every process of the machine.
    cache_dir_bytes : int
        What that folder may hold, of all stores together. What does not fit is read from the bucket.
    foreign_codecs : names, optional
        Codecs of Zarr that FORMAT.md does not know, such as ``gzip``, and that keys may be in all the same: they are read by
        zarr-python, slowly, with a warning. Default: such a key is an error.
    expect : str, optional
        The identity that the store must have, as ``robozarr info`` and ``store.identity`` show it: to name the data of a paper,
        or of a run. Default: whichever it has.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        If there is no store at `path`; the text says what to run. If it is another than was expected.
    IncompleteStoreError
        If its conversion has not ended.
    FormatVersionError
        If it is of a version of the format that this robozarr does not know.
    BucketError
        If a bucket cannot be reached, or refuses.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     store = open_store(f"{folder}/sample.zarr")
    ...     again = open_store(f"{folder}/sample.zarr", expect=store.identity)
    ...     print(store.array("agentview_rgb").shape[1:], store.tasks.suite)
    (128, 128, 3) ('libero_goal', 'libero_spatial')
    """
    place = place_of(path, endpoint_url)
    if place.folder is not None:
        if cache_dir is not None:
            raise StoreError(f"{path}: cache_dir= is for a store in a bucket; this one lies in a folder → leave it out")
        place = place_of(place.folder.absolute())  # wherever the process goes
    cache = None if cache_dir is None else CacheDir(cache_dir, cache_dir_bytes)
    store = _open(place, cache, frozenset(foreign_codecs))
    if expect is not None and expect != store.identity:
        raise StoreError(
            f"{path}: the store with identity {expect} is expected; found {store.identity} → open the one that was meant, or "
            "convert its sources again with the same robozarr"
        )
    return store


def _open(place: Place, cache: CacheDir | None, foreign_codecs: frozenset[str]) -> Store:
    path = place.url
    try:
        metadata = read_metadata(place)  # before zarr, which believes what it finds
    except StoreError as exc:
        if not isinstance(getattr(exc.__cause__, "__cause__", None), FileNotFoundError | NotADirectoryError):
            raise
        raise StoreError(f"{path}: no store there{_instead(place)}") from exc
    check_identity(metadata, place.url)
    return Store(place, None, metadata, cache, foreign_codecs)


def _instead(place: Place) -> str:
    """What to do if no store is there: convert the files that are, or those of a source; or correct the path."""
    at = place.folder
    files = [] if at is None else [*at.glob("*"), *at.glob("*/*")] if at.is_dir() else [at] if at.is_file() else []
    if any(file.suffix.lower() in SOURCE_SUFFIXES for file in files):
        return f", but HDF5; convert it, and open what comes out: robozarr convert {at} --store {Path(place.url).stem}.zarr"
    return f"; make one with: robozarr convert SOURCE --store {place.url}{did_you_mean(at) if at is not None else ''}"


def _reopen(
    place: Place, cache: CacheDir | None, foreign_codecs: frozenset[str], metadata: StoreMetadata, identity: str, later: bool
) -> Store:
    """Open a store that another process had open.

    Raises
    ------
    StoreChangedError
        If it is no longer the same; with `later`, whoever reads from it first gets that.
    """
    changed: StoreError | None = None
    try:
        store = _open(place, cache, foreign_codecs)
        if store.identity != identity:
            changed = changed_since(place, metadata, identity)
    except StoreError as exc:
        changed = changed_since(place, metadata, identity) or exc
    if changed is None:
        return store
    if not later:
        raise changed
    store = Store(place, None, metadata, cache, foreign_codecs, identity)
    store._changed = changed
    return store

"""``WindowDataset``: every window of a store as an ordinary map-style dataset of torch."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import Dataset, default_collate

from robozarr.loader.arguments import (
    check_fits,
    chosen_rows,
    embeddings_of,
    max_padding_of,
    numbers_of,
    spec_of,
    store_of,
    task_rows,
)
from robozarr.loader.batch import Batch, WindowReader
from robozarr.loader.consumers import thread_reads
from robozarr.loader.frames.upright import check_conventions, upright_keys
from robozarr.loader.relative import Relative
from robozarr.loader.statistics import Statistics
from robozarr.loader.warm import compile_reader
from robozarr.loader.windows.nothing_left import check_not_empty, check_reach
from robozarr.loader.windows.selection import LeftOut, Selection
from robozarr.loader.windows.splitting import SplitBy, in_second_part
from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store
from robozarr.store.viewer import viewer

__all__ = ["Sample", "WindowDataset"]

# now: later there are threads, and a fork of a thread that compiles waits for ever. Keyframes when a dataset has some
compile_reader(("fast",))

Sample: TypeAlias = dict[str, Any]
"""Field → tensor of one window; ``instruction`` is text."""


class _Samples(list[Sample]):
    """Samples that lie side by side in a batch, so that `WindowDataset.collate` returns the batch as it is."""

    def __init__(self, samples: Iterable[Sample], batch: Sample) -> None:
        super().__init__(samples)
        self.batch = batch


class WindowDataset(Dataset[Sample]):
    """Every window of a store, each once: one window per step that passes the filters.

    Map-style and picklable: it works in ``DataLoader`` with any number of forked or spawned workers, in Lightning and in
    Accelerate; pass ``collate_fn=dataset.collate`` there, which copies nothing. ``WindowLoader`` is faster than workers are.
    Of a store in a bucket workers must not be forked: ``multiprocessing_context="forkserver"``.

    Low-dim keys are read into memory when the dataset is made, and shared between processes: their size is that of the window's
    low-dim keys over all steps. Frames are read when they are asked for.

    Parameters
    ----------
    store : Store, or a path
    spec : WindowSpec, or its offsets
        The window.
    tasks : rows of the task table, or names or instructions, optional
        Filters: an anchor must pass every one that is given. Default: all.
    episodes : rows of the episode table, optional
    split : name, optional
    success : bool, optional
    unknown_success : bool
        With `success`: keep episodes of unknown success as well, which all of LIBERO's are.
    exclude_flags, only_flags : StepFlag
        Leave out anchors with any of these, or without any of these.
    stride : int, optional
        Anchors at steps 0, stride, 2 · stride, … of each episode. Default: at every step.
    padded : bool
        False: leave out windows of which a row lies outside the episode.
    max_padding : int, or mapping of key to int, optional
        Leave out windows with more offsets of a key outside the episode; of every key, or of those that are named. Diffusion
        policy's ``pad_after=7`` is ``{"actions": 7}``. Default: any number.
    windows : optional
        A mask of the store's steps, bool [n_steps]; or half-open ranges of steps by episode, as openpi's DROID
        filter has them: ``{3: [(0, 100), (200, 300)]}``, where episodes are rows of the table or names ("file/demo"), and those
        that are not mentioned have no windows; or numbers of windows, as they are without this filter.
    task_embeddings : mapping of field to array [n_tasks, …], or names of arrays in ``tasks/embedding``, optional
        What each sample carries of its task, such as an encoded instruction.
    frames_in_memory : bool
        Read all frames into (shared) memory too, now.
    upright : bool, or keys
        Turn the pictures of all cameras, or of these, upright while they are read, by each episode's recorded convention. That
        costs less than turning a batch. ``Images`` and the adapters turn none a second time. False: as stored.

    Raises
    ------
    WindowError
        If the store cannot serve the window, a filter names what is not there (the text lists what is), no window is left (the
        text counts what each filter left out), or a key's offsets lie beyond every episode.
    CorruptChunkError
        If something cannot be read exactly; here for low-dim keys, later for frames.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> from robozarr.store.opened import open_store
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     store = open_store(f"{folder}/sample.zarr")
    ...     dataset = WindowDataset(store, WindowSpec({"agentview_rgb": [-1, 0], "actions": range(64)}))
    ...     sample = dataset[0]
    >>> len(dataset) == store.n_steps, sample["agentview_rgb"].shape, sample["agentview_rgb_is_pad"].tolist()
    (True, torch.Size([2, 128, 128, 3]), [True, False])
    """

    def __init__(
        self,
        store: Store | str | Path,
        spec: WindowSpec | Mapping[str, Iterable[int]],
        *,
        tasks: Sequence[int | str] | None = None,
        episodes: Sequence[int] | None = None,
        split: str | None = None,
        success: bool | None = None,
        unknown_success: bool = False,
        exclude_flags: StepFlag = StepFlag(0),  # noqa: B008 - an immutable constant
        only_flags: StepFlag = StepFlag(0),  # noqa: B008
        stride: int | None = None,
        padded: bool = True,
        max_padding: int | Mapping[str, int] | None = None,
        windows: ArrayLike | Mapping[Any, Iterable[Sequence[int]]] | None = None,
        task_embeddings: Mapping[str, ArrayLike] | Sequence[str] | None = None,
        frames_in_memory: bool = False,
        upright: bool | Sequence[str] = False,
    ) -> None:
        store, spec = store_of(store), spec_of(spec)
        rows, numbers = chosen_rows(store, windows)
        self.selection = Selection(
            tasks=None if tasks is None else task_rows(store, tasks),
            episodes=episodes,
            split=split,
            success=success,
            unknown_success=unknown_success,
            exclude_flags=exclude_flags,
            only_flags=only_flags,
            stride=stride,
            max_padding=max_padding_of(padded, max_padding),
            rows=rows,
        )
        flags = store.index.flags if self.selection.needs_flags else None
        table = WindowTable.build(store.metadata, store.episodes, spec, selection=self.selection, flags=flags)
        check_reach(spec, table)
        if numbers is not None:
            table = _only(table, numbers, "windows")
        check_not_empty(table)
        embeddings = embeddings_of(store, task_embeddings)
        if frames_in_memory:
            check_fits(store, spec)
        turned = upright_keys(store, spec.offsets, upright)
        if turned:
            check_conventions(store, table.served)
        self.windows = WindowReader(
            store, spec, table, embeddings=embeddings, frames_in_memory=frames_in_memory, upright=turned
        )  # fmt: skip

    @property
    def store(self) -> Store:
        """The store."""
        return self.windows.store

    @property
    def spec(self) -> WindowSpec:
        """The window."""
        return self.windows.spec

    @property
    def table(self) -> WindowTable:
        """The numbered windows, and where each one is."""
        return self.windows.table

    @property
    def upright(self) -> tuple[str, ...]:
        """The keys whose pictures are turned upright while they are read."""
        return self.windows.upright

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Steps that have no window, by reason; together with the windows they add up to the store's steps."""
        return self.table.left_out

    def __len__(self) -> int:
        return self.table.n_windows

    def __repr__(self) -> str:
        return f"WindowDataset({self.store.path!r}, {self.spec!r}: {self.table!r})"

    def __getitem__(self, window: int) -> Sample:
        try:
            number = operator.index(window)
        except TypeError:
            raise WindowError(
                f"dataset · window: one number; got {window!r} → dataset.read([0, 1, 2]) gives several as a batch, in any order"
            ) from None
        return self.__getitems__(numbers_of([number], len(self)))[0]

    def __getitems__(self, windows: Sequence[int]) -> list[Sample]:
        """Samples of several windows, read together; called by ``DataLoader``."""
        batch = self.read(windows)
        samples = [{name: values[i] for name, values in batch.items()} for i in range(len(windows))]
        return _Samples(samples, batch)

    def read(self, windows: ArrayLike) -> Sample:
        """Read one batch of windows into new memory.

        Parameters
        ----------
        windows : int [b], in [0, len)

        Returns
        -------
        dict
            Per key of the window ``key [b, n_offsets, …]`` as in the store, ``key_is_pad`` bool [b, n_offsets]; ``episode``,
            ``step``, ``task`` int64 [b]; the embeddings; ``instruction``, a list of text.
        """
        thread_reads()
        planned = self.windows.plan(windows)
        batch = Batch(self.windows.fields, len(planned.episode))
        self.windows.fill(batch, planned)
        tensors: Sample = {name: torch.from_numpy(array) for name, array in batch.arrays.items()}
        return tensors | {"instruction": self.windows.instructions_of(planned)}

    def only(self, windows: ArrayLike, reason: str = "subset") -> WindowDataset:
        """The same dataset with some of its windows, renumbered in the store's order; it shares the keys in memory.

        Parameters
        ----------
        windows : int [n], in [0, len), each once
        reason : str
            What `left_out` calls the others.

        Raises
        ------
        WindowError
            If a window is not there, or named twice.
        """
        return self._with(_only(self.table, windows, reason))

    def split(self, share: float, *, by: SplitBy = "episode", seed: int = 0) -> tuple[WindowDataset, WindowDataset]:
        """Two datasets without an episode in common, such as training and validation; they share what lies in memory.

        Parameters
        ----------
        share : float, between 0 and 1
            Of the first one: ``dataset.split(0.9)``.
        by : "episode" or "task"
            "episode": of n episodes that have windows ``round((1 - share) · n)`` go into the second part, at least one and not
            all, and of each task its share, but for less than one episode. "task": whole tasks.
        seed : int
            The parts are a pure function of it and of the episodes that have windows.

        Raises
        ------
        WindowError
            If there are fewer than two episodes (tasks) to share out, or an option is none.
        """
        episodes = self.episodes
        second = in_second_part(episodes, self.store.episodes.task[episodes].astype(np.int64), share, by, seed)
        of_window = np.isin(self.table.episode_of_windows(), episodes[second])
        told = f"split {float(share):g}"
        parts = (_only(self.table, np.flatnonzero(part), told) for part in (~of_window, of_window))
        first_part, second_part = (self._with(table) for table in parts)
        return first_part, second_part

    def statistics(
        self,
        keys: Iterable[str] | None = None,
        *,
        quantiles: Sequence[float] = (0.01, 0.99),
        per_offset: Iterable[str] = (),
        relative: Relative | None = None,
        padding: bool = False,
    ) -> Statistics:
        """Statistics of these windows for normalisation, to be kept with the model, and handed to every loader that serves it.

        Parameters
        ----------
        keys : names, optional
            Default: all low-dim keys of the window.
        quantiles : floats in [0, 1]
            As numpy's, by linear interpolation.
        per_offset : names
            Keys of which each offset has statistics of its own, [n_offsets, dim].
        relative : Relative, optional
            As of the loader: statistics of what it serves then.
        padding : bool
            Count what stands for steps outside of the episode too, as openpi does.

        Raises
        ------
        WindowError
            If a key is not in the window, or holds frames; or an offset lies outside of every episode.
        """
        return Statistics.of(
            [self.windows], keys, quantiles=quantiles, per_offset=per_offset, relative=relative, padding=padding
        )

    @property
    def episodes(self) -> NDArray[np.int64]:
        """Episodes that have windows: int64 [n], rows of the store's episode table, ascending."""
        return np.flatnonzero(self.table.served)

    def windows_of(self, episode: int) -> range:
        """The windows of one episode, in the order of its steps; empty where the filters leave none.

        They are numbered one after the other, so that an episode is ``dataset.read(dataset.windows_of(3))``.

        Raises
        ------
        WindowError
            If the store has no such episode.
        """
        return self.table.windows_of(episode)

    def _with(self, table: WindowTable) -> WindowDataset:
        made = copy.copy(self)
        made.windows = copy.copy(self.windows)
        made.windows.table = table
        return made

    @staticmethod
    def collate(samples: list[Sample]) -> Sample:
        """Make a batch from samples; those that were read together already are one. A ``collate_fn`` for ``DataLoader``."""
        batch: Sample = samples.batch if isinstance(samples, _Samples) else default_collate(samples)
        return batch

    def show(self, window: int) -> Any:
        """Draw one window: its frames, its action chunk, its masks. Needs ``pip install '.[view]'``."""
        return viewer("windows").show_window(self, window)


def _only(table: WindowTable, windows: ArrayLike, reason: str) -> WindowTable:
    """Some windows of a table, each named once."""
    numbers = np.asarray(windows)
    numbers = numbers.astype(np.int64) if not numbers.size else numbers
    anchors = table.anchors(numbers)
    others = np.ones(int(table.stop[-1]) if table.stop.size else 0, bool)
    others[anchors.row] = False
    if np.count_nonzero(~others) < len(anchors.episode):
        raise WindowError("dataset · only: each window once; got some twice → name each once; weights= serves some more often")
    return table.without(reason, others)

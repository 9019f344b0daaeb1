"""``WindowDataset``: every window of a store as an ordinary map-style dataset of torch."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.utils.data import ConcatDataset, Dataset, Subset, default_collate

from robozarr.loader.batch import Batch, WindowReader
from robozarr.loader.frames.free_memory import free_memory
from robozarr.loader.frames.upright import check_conventions, upright_keys
from robozarr.loader.windows.nothing_left import check_not_empty, check_reach
from robozarr.loader.windows.selection import LeftOut, Selection, did_you_mean
from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec
from robozarr.store.embedding import read_task_embedding
from robozarr.store.opened import Store, open_store
from robozarr.store.viewer import viewer

__all__ = ["Sample", "WindowDataset", "datasets_of"]

TASKS_TOLD = 40
"""Most tasks that an error lists: all of a LIBERO suite, but not all 130."""

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
        task_embeddings: Mapping[str, ArrayLike] | Sequence[str] | None = None,
        frames_in_memory: bool = False,
        upright: bool | Sequence[str] = False,
    ) -> None:
        store, spec = _store_of(store), _spec_of(spec)
        self.selection = Selection(
            tasks=None if tasks is None else _task_rows(store, tasks),
            episodes=episodes,
            split=split,
            success=success,
            unknown_success=unknown_success,
            exclude_flags=exclude_flags,
            only_flags=only_flags,
        )
        flags = store.index.flags if self.selection.needs_flags else None
        table = WindowTable.build(store.metadata, store.episodes, spec, selection=self.selection, flags=flags)
        check_reach(spec, table)
        check_not_empty(table)
        embeddings = _embeddings(store, task_embeddings)
        if frames_in_memory:
            _check_fits(store, spec)
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
        n = len(self)
        try:
            number = operator.index(window)
        except TypeError:
            raise WindowError(
                f"dataset · window: one number; got {window!r} → dataset.read([0, 1, 2]) gives several as a batch, in any order"
            ) from None
        if not -n <= number < n:
            raise IndexError(f"window {number} of {n}")
        return self.__getitems__([number % n])[0]

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
        numbers = np.asarray(windows)
        numbers = numbers.astype(np.int64) if not numbers.size else numbers
        anchors = self.table.anchors(numbers)
        others = np.ones(self.store.n_steps, bool)
        others[self.table.start[anchors.episode] + anchors.step] = False
        if np.count_nonzero(~others) < len(anchors.episode):
            raise WindowError(
                "dataset · only: each window once; got some twice → name each once; repeat= serves some more often"
            )
        made = copy.copy(self)
        made.windows = copy.copy(self.windows)
        made.windows.table = self.table.without(reason, others)
        return made

    @staticmethod
    def collate(samples: list[Sample]) -> Sample:
        """Make a batch from samples; those that were read together already are one. A ``collate_fn`` for ``DataLoader``."""
        batch: Sample = samples.batch if isinstance(samples, _Samples) else default_collate(samples)
        return batch

    def show(self, window: int) -> Any:
        """Draw one window: its frames, its action chunk, its masks. Needs ``pip install 'robozarr[view]'``."""
        return viewer("windows").show_window(self, window)


def datasets_of(given: Any, shuffle: bool = True) -> list[WindowDataset]:
    """The datasets in a loader's argument: one, several, or torch's ``Subset`` and ``ConcatDataset`` of them.

    Raises
    ------
    WindowError
        If it is something else, names a window twice, or promises an order that a loader does not keep.
    """
    if isinstance(given, WindowDataset):
        return [given]
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping, Dataset)):
        return [one for part in list(given) for one in datasets_of(part, shuffle)]
    datasets, number, windows = _windows_of(given)
    if not shuffle and ((np.diff(windows) < 0).any() or len(np.unique(number)) > 1):
        raise WindowError(
            f"loader · dataset: without shuffling, windows of one dataset in the store's order; got a {type(given).__name__} "
            "in another one → pass Subset(dataset, sorted(subset.indices)), a list of the datasets, which take turns, or "
            "shuffle=True"
        )
    return [dataset.only(windows[number == n]) for n, dataset in enumerate(datasets) if (number == n).any()]


def _windows_of(given: Any) -> tuple[list[WindowDataset], NDArray[np.int64], NDArray[np.int64]]:
    """The datasets in a tree of ``Subset`` and ``ConcatDataset``; and for each index its dataset and window."""
    if isinstance(given, WindowDataset):
        return [given], np.zeros(len(given), np.int64), np.arange(len(given))
    if isinstance(given, Subset):
        datasets, number, windows = _windows_of(given.dataset)
        at = np.asarray(given.indices, np.int64)
        return datasets, number[at], windows[at]
    if isinstance(given, ConcatDataset):
        parts = [_windows_of(part) for part in given.datasets]
        before = np.cumsum([0, *(len(part[0]) for part in parts)]).tolist()
        return (
            [dataset for part in parts for dataset in part[0]],
            np.concatenate([part[1] + n for n, part in zip(before, parts, strict=False)]),
            np.concatenate([part[2] for part in parts]),
        )
    raise WindowError(
        f"loader · dataset: a WindowDataset, or a list of them; got {type(given).__name__} → "
        "pass rz.WindowDataset(rz.open_store(PATH), rz.WindowSpec({…}))"
    )


def _store_of(given: Any) -> Store:
    if isinstance(given, (str, Path)):
        return open_store(given)
    if not isinstance(given, Store):
        raise WindowError(f"dataset · store: a Store, or its path; got {type(given).__name__} → pass rz.open_store(PATH)")
    return given


def _spec_of(given: Any) -> WindowSpec:
    if isinstance(given, Mapping):
        return WindowSpec(given)
    if not isinstance(given, WindowSpec):
        raise WindowError(
            f"dataset · spec: a WindowSpec, or offsets by key; got {given!r} → pass, for example, "
            'rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(64)})'
        )
    return given


def _check_fits(store: Store, spec: WindowSpec) -> None:
    """Refuse frames that do not fit into memory; raises WindowError with both sizes."""
    keys = [key for key in (store.keys.get(key.name) for key in spec.keys) if key is not None and key.frame]
    wanted = store.n_steps * sum(prod(key.shape) * np.dtype(key.dtype).itemsize for key in keys)
    if wanted > (free := free_memory() // 2):
        raise WindowError(
            f"dataset · frames_in_memory: frames that fit into half of what is free, {free / 1e9:.2f} GB; they take "
            f"{wanted / 1e9:.2f} GB → leave cameras out, or do without it"
        )


def _task_rows(store: Store, tasks: Sequence[int | str]) -> list[int]:
    """Rows of the task table that match numbers, names or instructions."""
    if isinstance(tasks, str):
        raise WindowError(f"filter · tasks: a list; got the text {tasks!r} → pass [{tasks!r}]")
    columns = (store.tasks.name, store.tasks.instruction, store.tasks.instruction_from_name)
    rows: list[int] = []
    for task in tasks:
        if not isinstance(task, str):
            rows.append(task)
            continue
        found = [row for row in range(store.n_tasks) if task and task in (column[row] for column in columns)]
        if not found:
            raise WindowError(
                f"filter · tasks: a task of the store; got {task!r}, it has {_tasks_of(store)} → take one of these, by either "
                f"wording{did_you_mean(task, [text for column in columns for text in column])}"
            )
        rows += found
    return rows


def _tasks_of(store: Store) -> str:
    """The tasks of a store in a message: name, and instructions if they differ from it."""
    tasks, texts = store.tasks, []
    for name, *wordings in zip(tasks.name, tasks.instruction, tasks.instruction_from_name, strict=True):
        others = dict.fromkeys(text for text in wordings if text and text != name)
        texts.append(f"{name!r} ({', '.join(map(repr, others))})" if others else repr(name))
    more = f" and {len(texts) - TASKS_TOLD} more" if len(texts) > TASKS_TOLD else ""
    return ", ".join(texts[:TASKS_TOLD]) + more


def _embeddings(store: Store, given: Mapping[str, ArrayLike] | Sequence[str] | None) -> dict[str, NDArray[Any]]:
    if given is None:
        return {}
    if isinstance(given, str):
        raise WindowError(f"window · task_embeddings: a mapping, or a list of names; got {given!r} → pass [{given!r}]")
    arrays = (
        {name: np.asarray(array) for name, array in given.items()}
        if isinstance(given, Mapping)
        else {name: read_task_embedding(store, name) for name in given}
    )
    for name, array in arrays.items():
        if array.ndim < 1 or len(array) != store.n_tasks or array.dtype.kind not in "biuf":
            raise WindowError(
                f"window · task_embeddings · {name}: numbers [{store.n_tasks}, …], one row per task; got {array.dtype} "
                f"{list(array.shape)} → stack them in the order of store.tasks.instruction"
            )
    return arrays

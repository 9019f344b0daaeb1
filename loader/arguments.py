"""Check the arguments of a dataset and look them up: stores by path, tasks by name, the forms of windows. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robozarr.loader.windows.narrowing import mask_of_ranges
from robozarr.loader.windows.selection import did_you_mean
from robozarr.schemas.errors import WindowError
from robozarr.schemas.window import WindowSpec
from robozarr.store.embedding import read_task_embedding
from robozarr.store.limits import free_memory
from robozarr.store.opened import Store, open_store

__all__ = ["check_fits", "chosen_rows", "embeddings_of", "max_padding_of", "numbers_of", "spec_of", "store_of", "task_rows"]

TASKS_TOLD: Final = 40
"""Most tasks that an error lists: all of a LIBERO suite, but not all 130."""


_OPEN: WeakValueDictionary[str, Store] = WeakValueDictionary()
"""Stores in folders that datasets opened by their paths, as long as one of them is there."""


def store_of(given: Any) -> Store:
    """An open store, or the one at a path: the same for all datasets, as long as it has not changed."""
    if isinstance(given, (str, Path)):
        if "://" in str(given):
            return open_store(given)
        path = str(Path(given).absolute())
        store = _OPEN.get(path)
        if store is None or store.changed() is not None:
            store = _OPEN[path] = open_store(given)
        return store
    if not isinstance(given, Store):
        raise WindowError(f"dataset · store: a Store, or its path; got {type(given).__name__} → pass rz.open_store(PATH)")
    return given


def spec_of(given: Any) -> WindowSpec:
    """A window, or the one with these offsets."""
    if isinstance(given, Mapping):
        return WindowSpec(given)
    if not isinstance(given, WindowSpec):
        raise WindowError(
            f"dataset · spec: a WindowSpec, or offsets by key; got {given!r} → pass, for example, "
            'rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(64)})'
        )
    return given


def numbers_of(given: Sequence[int], n: int, what: str = "window") -> list[int]:
    """Numbers of n things from 0 on; negative ones count from the end, as in a list. Raises IndexError.

    >>> numbers_of([0, -1], 5)
    [0, 4]
    """
    if bad := [number for number in given if not -n <= number < n]:
        raise IndexError(f"{what} {bad[0]} of {n}")
    return [int(number) % n for number in given]


def check_fits(store: Store, spec: WindowSpec) -> None:
    """Refuse frames that do not fit into memory; raises WindowError with both sizes."""
    keys = [key for key in (store.keys.get(key.name) for key in spec.keys) if key is not None and key.frame]
    wanted = store.n_steps * sum(prod(key.shape) * np.dtype(key.dtype).itemsize for key in keys)
    if wanted > (free := free_memory() // 2):
        raise WindowError(
            f"dataset · frames_in_memory: frames must fit into half of the free memory, {free / 1e9:.2f} GB; they take "
            f"{wanted / 1e9:.2f} GB → leave cameras out, or do without it"
        )


def task_rows(store: Store, tasks: Sequence[int | str]) -> list[int]:
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


def embeddings_of(store: Store, given: Mapping[str, ArrayLike] | Sequence[str] | None) -> dict[str, NDArray[Any]]:
    """The fields that samples carry of their task; checked against the store."""
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


def max_padding_of(padded: Any, max_padding: Any) -> Any:
    """Combine `padded` and `max_padding`: how many offsets of a key may lie outside the episode.

    Raises
    ------
    WindowError
        If they contradict each other.
    """
    if not isinstance(padded, bool | np.bool_):
        raise WindowError(f"filter · padded: True or False; got {padded!r} → pass one of these, or max_padding=7")
    if padded:
        return max_padding
    if max_padding not in (None, 0):
        raise WindowError(
            f"filter · padded: False allows no padding, and max_padding={max_padding!r} does → pass one of the two"
        )
    return 0


def chosen_rows(store: Store, windows: Any) -> tuple[NDArray[np.bool_] | None, NDArray[np.int64] | None]:
    """Read ``windows=``: a mask of the store's steps, or numbers of windows, or neither.

    Returns
    -------
    mask : bool [n_steps], or None
    numbers : int64 [n], or None
        Of the windows that the other filters leave.

    Raises
    ------
    WindowError
        If it is none of the forms; ranges name what is not there.
    """
    if windows is None:
        return None, None
    if isinstance(windows, Mapping):
        episodes = store.episodes
        return mask_of_ranges(windows, episodes.start, episodes.length, _names_of_episodes(store)), None
    given = np.asarray(windows)
    if given.dtype == bool:
        return given, None
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise WindowError(
            "filter · windows: numbers of windows, a mask with one bool per step of the store, or ranges {episode: [(start, "
            f"stop), …]}}; got {given.dtype} {list(given.shape)} → pass one of these"
        )
    return None, given.astype(np.int64)


def _names_of_episodes(store: Store) -> dict[str, list[int]]:
    """Names of the episodes: file and demo; or the file alone, where it holds one."""
    names: dict[str, list[int]] = {}
    sources = store.metadata.sources
    for row, (source, demo) in enumerate(zip(store.episodes.source.tolist(), store.episodes.demo, strict=True)):
        names.setdefault(f"{sources[source].name}/{demo}", []).append(row)
        names.setdefault(sources[source].name, []).append(row)
    return names

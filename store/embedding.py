"""Arrays that users add to a store: facts about each task, such as its encoded instruction. Imports no torch.

The episodes of a task share one instruction; tasks of different suites or scenes may share it too, so that encoding each
distinct instruction once (`distinct_instructions`) is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from robozarr.schemas.errors import StoreError, WindowError
from robozarr.schemas.source import is_array_name
from robozarr.store.opened import Store
from robozarr.store.zarr_group import writable_group

__all__ = ["distinct_instructions", "instruction_of_task", "read_task_embedding", "write_task_embedding"]


def instruction_of_task(store: Store) -> tuple[str, ...]:
    """The instruction that the episodes of each task share; "" if there is none."""
    words = [""] * store.n_tasks
    for task, text in zip(store.episodes.task.tolist(), store.episodes.instruction, strict=True):
        words[task] = text
    return tuple(words)


def distinct_instructions(store: Store) -> tuple[str, ...]:
    """Every instruction of a store once, in the order of its tasks, without "": the texts to encode."""
    return tuple(dict.fromkeys(text for text in instruction_of_task(store) if text))


def write_task_embedding(
    store: Store, name: str, embedding: ArrayLike | Mapping[str, ArrayLike], *, overwrite: bool = False
) -> None:
    """Write ``tasks/embedding/<name>`` into a store, for ``WindowDataset(task_embeddings=[name])``.

    Parameters
    ----------
    store : Store
    name : str
        Also the field of a sample.
    embedding : number [n_tasks, …], or mapping of instruction to number […]
        One row per task, in the order of ``store.tasks.instruction``; or one for each of `distinct_instructions`.
    overwrite : bool
        Replace one of this name.

    Raises
    ------
    WindowError
        If the array has not one row per task, the mapping lacks an instruction, or the name cannot be an array's.
    StoreError
        If there is one already, or the store cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> from robozarr.store.opened import open_store
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     store = open_store(f"{folder}/sample.zarr")
    ...     write_task_embedding(store, "encoded", np.zeros((store.n_tasks, 16), "float32"))
    ...     print(read_task_embedding(store, "encoded").shape)
    (2, 16)
    """
    array = _by_task(store, name, embedding) if isinstance(embedding, Mapping) else np.asarray(embedding)
    if array.ndim < 1 or len(array) != store.n_tasks or array.dtype.kind not in "biuf" or not is_array_name(name):
        raise WindowError(
            f"tasks/embedding/{name}: numbers [{store.n_tasks}, …], one row per task; a name without /; got {array.dtype} "
            f"{list(array.shape)} → stack them in the order of store.tasks.instruction"
        )
    try:
        group = writable_group(store.place).require_group("tasks/embedding")
        if name in group and not overwrite:
            raise StoreError(f"{store.path}: tasks/embedding/{name} is there already; pass overwrite=True to replace it")
        written = group.create_array(
            name, shape=array.shape, dtype=array.dtype, chunks=array.shape, overwrite=overwrite,
            compressors=[ZstdCodec(level=3), Crc32cCodec()], config={"write_empty_chunks": True},
        )  # fmt: skip
        written[...] = array
    except OSError as exc:
        raise StoreError(f"{store.path}: cannot be written: {exc.strerror or exc}; change the rights") from exc


def _by_task(store: Store, name: str, embedding: Mapping[str, ArrayLike]) -> NDArray[Any]:
    """One row per task, found by its instruction."""
    words = instruction_of_task(store)
    if missing := sorted({text for text in words if text not in embedding}):
        what = "a task without an instruction: map '' too, or give the words when converting" if missing[0] == "" else "add it"
        raise WindowError(
            f"tasks/embedding/{name}: one for each instruction of the store; got none for {missing[0]!r} → {what}"
        )
    rows = [np.asarray(embedding[text]) for text in words]
    if len({row.shape for row in rows}) > 1:
        shapes = ", ".join(map(str, sorted({row.shape for row in rows})))
        raise WindowError(f"tasks/embedding/{name}: arrays of one shape; got {shapes} → pad them to the longest")
    return np.stack(rows)


def read_task_embedding(store: Store, name: str) -> NDArray[Any]:
    """Read ``tasks/embedding/<name>``: number [n_tasks, …].

    Raises
    ------
    WindowError
        If there is none; the text lists those there are.
    """
    group = store.group.get("tasks/embedding")
    there = sorted(group.array_keys()) if isinstance(group, zarr.Group) else []
    if not isinstance(group, zarr.Group) or name not in there:
        raise WindowError(
            f"tasks/embedding/{name}: an array of the store; it has {', '.join(there) or 'none'} → write it with "
            "robozarr.store.embedding.write_task_embedding"
        )
    array = group[name]
    if not isinstance(array, zarr.Array) or array.nchunks_initialized != array.nchunks:  # zarr would return zeros
        raise StoreError(f"{store.path}: tasks/embedding/{name}: a chunk is missing → write it again")
    return np.asarray(array[...])

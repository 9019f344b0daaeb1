"""One run of ``fuzz_hdf5``: what happens in the child_calls child, which imports this by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from memory_limit import limit_memory
from numpy.typing import NDArray

import robozarr
from robozarr.convert import convert
from robozarr.schemas.errors import RoboZarrError, SourceError
from robozarr.schemas.metadata import Key
from robozarr.schemas.source import demo_number

__all__ = ["attempt"]


def attempt(path: str, store: str) -> str:
    """Convert one file and compare; runs in the child_calls child. What is raised is none of the errors that are expected."""
    limit_memory()
    try:
        convert(path, store, workers=0, profile="raw")
    except SourceError as error:
        if not error.problems:
            return f"wrong: no problem is listed: {error}"
        for problem in error.problems:
            if problem.file != path or not (problem.rule and problem.value and problem.remedy):
                return f"wrong: not all is said: {problem!r}"
        return "refused"
    except RoboZarrError as error:
        return f"wrong: {error!r}"
    finally:
        left = [name for name in Path(store).rglob(".*robozarr-tmp") if name.name != ".convert.robozarr-tmp"]
    return f"wrong: left behind: {left}" if left else compare(path, robozarr.open_store(store))


def compare(path: str, store: robozarr.Store) -> str:
    """Whether a store holds what h5py reads, as plain zarr reads it."""
    with h5py.File(path) as file:
        names = [name for name in file["data"] if isinstance(file["data"].get(name), h5py.Group)]
        names.sort(key=lambda name: (demo_number(name), name))
        if list(store.episodes.demo) != names:
            return f"wrong: demos {store.episodes.demo}, h5py finds {names}"
        group = zarr.open_group(store.path, mode="r")
        for key in store.metadata.keys:
            read = rows_of(group, key)
            for name, start, length in zip(names, store.episodes.start.tolist(), store.episodes.length.tolist(), strict=True):
                values = file[f"data/{name}/{key.source}"][()]
                got = read[start : start + length]
                if len(got) != len(values) or any(
                    one.shape != other.shape or one.tobytes() != other.astype(one.dtype).tobytes()
                    for one, other in zip(got, values, strict=True)
                ):
                    return f"wrong: {name}/{key.source} is not what h5py reads"
    return "exact"


def rows_of(group: zarr.Group, key: Key) -> list[NDArray[Any]]:
    """Every row of a key, ragged or not."""

    def whole(path: str) -> NDArray[Any]:
        array = group[path]
        assert isinstance(array, zarr.Array)
        return np.asarray(array[...])

    if not key.ragged:
        return list(whole(f"steps/{key.name}"))
    return np.split(whole(f"ragged/{key.name}/values"), whole(f"ragged/{key.name}/offsets")[1:-1])

"""Compute which elements the mappings of a virtual dataset cover. Opens no file.

A mapping says: these elements of the virtual dataset are those of a dataset in a file. What no mapping covers reads as the
fill value. Selections are kept as runs of indices, so that a claimed size takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from robozarr.convert.sources.links import name_text

__all__ = ["Mapping", "TooFineError", "first_uncovered_row", "mappings_of"]

UNLIMITED: Final = 2**64 - 1
"""Marks a count or block of a selection that grows with its dataset."""
MOST_RUNS: Final = 2**20
"""Most runs per axis, and most blocks of a name pattern, that are followed; real files have some thousand."""
MOST_CELLS: Final = 2**27
"""Most cells for deciding coverage: bytes of memory."""
Runs = NDArray[np.int64]
"""Selected indices of one axis, as [run, (start, stop)], sorted and disjoint."""
Axes = tuple[Runs, ...]
"""Runs of each axis; the selection is their product."""


class TooFineError(Exception):
    """A selection has too many runs to follow: damaged, or made to exhaust memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """One mapping of a virtual dataset; if a pattern gives each block its own file, one block of it."""

    file: str
    """Name of the source file as stated in the dataset; ``.`` is the virtual dataset's own file."""
    dataset: str
    """Path of the source dataset in it."""
    target: Any
    """Selection in the virtual dataset, as HDF5's space."""
    source: Any
    """Selection in the source dataset, as HDF5's space."""
    block: int | None = None
    """Number of the block of `target`; None means all of it."""

    def covered(self, shape: tuple[int, ...], source_shape: tuple[int, ...]) -> list[Axes] | None:
        """What the mapping covers of a virtual dataset of `shape`; None if the source is too small for it."""
        grows = _growing_axis(self.target)
        if grows is None:
            covered = list(_selected(self.target, shape))
            whole = self.source.get_select_type() == h5py.h5s.SEL_ALL
            fits = math.prod(source_shape) == sum(map(_size, covered)) if whole else _fits(self.source, source_shape)
            return covered if fits else None
        axes = _regular_axes(self.target, shape)
        if self.block is not None:
            start, stride, _, block = (int(values[grows]) for values in self.target.get_regular_hyperslab())
            first = start + self.block * stride
            axes[grows] = np.array([[first, min(shape[grows], first + block)]])
            return [tuple(axes)] if _fits(self.source, source_shape) else None
        of_source = _growing_axis(self.source)
        if of_source is None or len(source_shape) != len(self.source.get_regular_hyperslab()[0]):
            return None
        axes[grows] = _first_of(axes[grows], _length(_regular_axes(self.source, source_shape)[of_source]))
        return [tuple(axes)]


def mappings_of(made: Any, shape: tuple[int, ...]) -> Iterator[Mapping]:
    """Mappings of a virtual dataset, from its creation properties.

    Raises
    ------
    TooFineError
        If a pattern names more files than can be looked for.
    """
    for i in range(made.get_virtual_count()):
        file, name = name_text(made.get_virtual_filename(i)), name_text(made.get_virtual_dsetname(i))
        target, source = made.get_virtual_vspace(i), made.get_virtual_srcspace(i)
        grows = _growing_axis(target)
        if grows is None or _growing_axis(source) is not None:
            yield Mapping(file=_named(file, None), dataset=_named(name, None), target=target, source=source)
            continue
        start, stride, _, _ = (int(values[grows]) for values in target.get_regular_hyperslab())
        n_blocks = max(0, -(-(shape[grows] - start) // stride))
        if n_blocks > MOST_RUNS:
            raise TooFineError(f"{n_blocks} files that {file} names")
        for block in range(n_blocks):
            yield Mapping(file=_named(file, block), dataset=_named(name, block), target=target, source=source, block=block)


def _named(pattern: str, block: int | None) -> str:
    """A name pattern with ``%b`` replaced by a block's number, and ``%%`` by a per cent sign."""
    parts = (part if block is None else part.replace("%b", str(block)) for part in pattern.split("%%"))
    return "%".join(parts)


def first_uncovered_row(covered: Sequence[Axes], shape: tuple[int, ...]) -> int | None:
    """The first row of a dataset that the given products of runs do not cover completely; None if they cover all.

    Raises
    ------
    TooFineError
        If they are too many to tell.

    >>> first_uncovered_row([(np.array([[0, 3]]), np.array([[0, 2]])), (np.array([[3, 5]]), np.array([[0, 1]]))], (5, 2))
    3
    """
    if 0 in shape:
        return None
    # between the ends of runs nothing changes: a cell of each axis is all that is there from one end to the next
    edges = [
        np.unique(np.concatenate([[0, size], *(axes[axis].ravel() for axes in covered)])) for axis, size in enumerate(shape)
    ]
    n_cells = [len(ends) - 1 for ends in edges]
    if max(math.prod(n_cells), max(n_cells) * len(covered)) > MOST_CELLS:
        raise TooFineError(f"{len(covered)} parts, cut at {n_cells} places")
    there = np.zeros(n_cells, np.bool_)
    for axes in covered:
        cells = [_cells(runs, ends) for runs, ends in zip(axes, edges, strict=True)]
        there[np.ix_(*cells)] = True
    missing = np.flatnonzero(~there.reshape(n_cells[0], -1).all(axis=1))
    return int(edges[0][missing[0]]) if len(missing) else None


def _cells(runs: Runs, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the cells inside the runs."""
    first, last = np.searchsorted(ends, runs[:, 0]), np.searchsorted(ends, runs[:, 1])
    return np.concatenate([np.arange(0), *(np.arange(low, high) for low, high in zip(first, last, strict=True))])


def _length(runs: Runs) -> int:
    return int((runs[:, 1] - runs[:, 0]).sum())


def _size(axes: Axes) -> int:
    return math.prod(_length(runs) for runs in axes)


def _first_of(runs: Runs, n: int) -> Runs:
    """The first `n` indices of some runs."""
    lengths = runs[:, 1] - runs[:, 0]
    before = np.cumsum(lengths) - lengths
    kept: Runs = runs[before < n].copy()
    if len(kept):
        kept[-1, 1] = min(kept[-1, 1], kept[-1, 0] + n - before[len(kept) - 1])
    return kept


def _growing_axis(space: Any) -> int | None:
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    _, _, count, block = space.get_regular_hyperslab()
    return next((axis for axis, pair in enumerate(zip(count, block, strict=True)) if UNLIMITED in pair), None)


def _selected(space: Any, shape: tuple[int, ...]) -> Iterator[Axes]:
    kind = space.get_select_type()
    if kind == h5py.h5s.SEL_ALL:
        yield tuple(np.array([[0, size]]) for size in shape)
    elif kind == h5py.h5s.SEL_HYPERSLABS and space.is_regular_hyperslab():
        yield tuple(_regular_axes(space, shape))
    elif kind == h5py.h5s.SEL_HYPERSLABS:
        for low, high in space.get_select_hyper_blocklist():
            ends = zip(low.tolist(), high.tolist(), shape, strict=True)
            yield tuple(np.array([[min(first, size), min(last + 1, size)]]) for first, last, size in ends)


def _regular_axes(space: Any, shape: tuple[int, ...]) -> list[Runs]:
    return [_runs(*map(int, axis)) for axis in zip(*space.get_regular_hyperslab(), shape, strict=True)]


def _runs(start: int, stride: int, count: int, block: int, size: int) -> Runs:
    """Blocks of a selection along one axis, up to the end of the axis."""
    if start >= size:
        return np.empty((0, 2), np.int64)
    n = min(count, -(-(size - start) // stride))
    if n == 1 or block >= stride:
        stop = size if UNLIMITED in (count, block) else min(size, start + (n - 1) * stride + block)
        return np.array([[start, stop]])
    if n > MOST_RUNS:
        raise TooFineError(f"{n} blocks on one axis")
    starts = start + stride * np.arange(n)
    return np.stack([starts, np.minimum(starts + block, size)], axis=1)


def _fits(space: Any, shape: tuple[int, ...]) -> bool:
    """Whether a selection lies within a dataset."""
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return True
    _, high = space.get_select_bounds()
    return len(high) == len(shape) and all(last < size for last, size in zip(high, shape, strict=True))

"""Read windows of several datasets of one open store together.

Datasets of one store with the same window have the same rows, and differ in which of them are anchors. Their windows are
planned together and read by one call, whichever dataset they are of: thirty tasks cost what one costs. Imports no torch.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.batch import Field, PlannedWindows, WindowReader
from robozarr.loader.schedule import WindowsOfBatch
from robozarr.schemas.errors import CorruptChunkError, WindowError

__all__ = ["Part", "Planned", "Together", "common_fields"]

I64: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """Windows of a batch that one reader reads."""

    group: int
    """Number of the reader."""
    windows: PlannedWindows
    at: I64 | None
    """Where in the batch each goes; None: in order."""


class Planned(NamedTuple):
    """A batch before it is read."""

    n_windows: int
    epoch: int
    dataset: NDArray[np.int64] | None
    """Number of the dataset of each window; None where there is one."""
    parts: list[Part]
    """By reader."""


class Together:
    """The readers of datasets, joined where they can be.

    Parameters
    ----------
    readers : sequence of WindowReader
        Of each dataset, with the same fields.
    """

    def __init__(self, readers: Sequence[WindowReader]) -> None:
        self._tables = [reader.table for reader in readers]
        self.group_of: list[int] = []
        """By dataset: number of its reader in `readers`."""
        members: list[list[WindowReader]] = []
        for reader in readers:
            number = next((n for n, group in enumerate(members) if _alike(group[0], reader)), len(members))
            members[number:number] = [[]] if number == len(members) else []
            members[number].append(reader)
            self.group_of.append(number)
        self.readers = [_joined(group) for group in members]
        """One for each group; its table has the windows of all datasets in it."""
        self._groups = np.array(self.group_of)

    @contextlib.contextmanager
    def naming(self, group: int) -> Iterator[None]:
        """Say of which of several stores something cannot be read: arrays and shards have the same names in each."""
        try:
            yield
        except CorruptChunkError as exc:
            place = str(self.readers[group].store.path)
            if len(self.readers) == 1 or place in exc.message:
                raise
            raise CorruptChunkError(f"{place} · {exc.message}", exc.rule) from exc

    def plan(self, group: int, dataset: I64 | None, windows: I64) -> tuple[PlannedWindows, I64 | None]:
        """Find the rows of those windows that belong to a group.

        Parameters
        ----------
        group : int
        dataset : int64 [n], or None where there is one
            Number of the dataset of each.
        windows : int64 [n]

        Returns
        -------
        planned : PlannedWindows
            Of m windows.
        where : int64 [m], or None for all
            Which of the n these are, ascending.
        """
        reader = self.readers[group]
        if dataset is None:
            return reader.plan(windows), None
        where = np.flatnonzero(self._groups[dataset] == group)
        row, of_dataset = np.empty(len(where), np.int64), dataset[where]
        for number in np.unique(of_dataset).tolist():
            own = of_dataset == number
            row[own] = self._tables[number].anchors(windows[where[own]]).row
        return reader.plan_at(reader.table.anchors_at(row)), where

    def planned(self, batches: Iterator[WindowsOfBatch], epoch: int, several: int) -> Iterator[Planned]:
        """Batches with the rows of their windows, which are found for `several` batches at once.

        Rows that are wanted together are announced, where a store is remote.
        """
        while block := list(islice(batches, several)):
            edges = np.cumsum([0, *(len(batch.windows) for batch in block)])
            windows = np.concatenate([batch.windows for batch in block])
            numbers = [batch.dataset for batch in block if batch.dataset is not None]
            dataset = np.concatenate(numbers) if numbers else None
            planned = [self.plan(group, dataset, windows) for group in range(len(self.readers))]
            for reader, (whole, _) in zip(self.readers, planned, strict=True):
                if reader.store.remote:
                    reader.announce(whole)
            cuts = [edges if where is None else np.searchsorted(where, edges) for _, where in planned]
            for number, batch in enumerate(block):
                parts = []
                for group, (whole, where) in enumerate(planned):
                    part = slice(*cuts[group][number : number + 2].tolist())
                    if part.start < part.stop:
                        at = None if where is None else where[part] - edges[number]
                        parts.append(Part(group, whole.part(part), at))
                yield Planned(len(batch.windows), epoch, batch.dataset, parts)


def _alike(one: WindowReader, other: WindowReader) -> bool:
    """Whether windows of `other` are read in the same way as windows of `one`."""
    if one.reader is not other.reader or one.spec != other.spec or list(one.spec.offsets) != list(other.spec.offsets):
        return False
    if one.embeddings.keys() != other.embeddings.keys():
        return False
    return all(_same(array, other.embeddings[name]) for name, array in one.embeddings.items())


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one is other or (one.dtype == other.dtype and np.array_equal(one, other))


def _joined(group: Sequence[WindowReader]) -> WindowReader:
    if len(group) == 1:
        return group[0]
    reader = copy.copy(group[0])
    reader.table = reader.table.joined([other.table for other in group[1:]])
    return reader


def common_fields(readers: Sequence[WindowReader]) -> tuple[Field, ...]:
    """The fields of a batch, which all datasets share; with several also ``store``. Raises WindowError if they differ."""
    fields = readers[0].fields
    for number, reader in enumerate(readers[1:], 1):
        if reader.fields != fields:
            mine = {(field.name, field.shape, str(field.dtype)) for field in reader.fields}
            first = {(field.name, field.shape, str(field.dtype)) for field in fields}
            raise WindowError(
                f"loader · mixture: all datasets have the same fields; dataset {number} and the first differ in "
                f"{sorted(mine ^ first)} → use the same window, and stores of one resolution"
            )
    if len(kinds := {", ".join(sorted(reader.upright)) or "none" for reader in readers}) > 1:
        raise WindowError(
            f"loader · mixture: the same keys are read upright in all datasets; got {' and '.join(sorted(kinds))} → pass the "
            "same upright= to each"
        )
    if len(readers) > 1:
        fields = (*fields, Field(name="store", shape=(), dtype=np.dtype(np.int64)))
    return fields

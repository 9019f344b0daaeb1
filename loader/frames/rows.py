"""Compiled: which rows a batch asks for, and rows that go from memory to memory: copied, turned over, compared.

Serial functions that hold no GIL; they read no files. Imports neither zarr nor torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.compiling import compiled, compiled_inside, compiled_making_arrays
from robozarr.loader.frames.native import address, crc32c, memcpy, memset
from robozarr.loader.frames.shards import Number, Shards

__all__ = ["BatchRows", "copy_rows", "first_other", "group_rows", "part_of_rows", "part_of_windows", "put_row", "spread_row"]


class BatchRows(NamedTuple):
    """The distinct rows of one key that a batch asks for, and where in the batch they go; made by `group_rows`."""

    row: NDArray[np.int64]
    """int64 [n], of which the first are distinct and ascend; -1: zeros."""
    first: NDArray[np.int64]
    """int64 [n + 1]"""
    place: NDArray[np.int64]
    """int64 [n]: ``place[first[j] : first[j + 1]]`` are the positions in the batch that want ``row[j]``."""


@compiled_making_arrays
def group_rows(rows: NDArray[np.int64], at: NDArray[np.int64], batch_rows: BatchRows) -> int:
    """Sort the rows that a batch asks for and find each distinct one, so that it is read and decoded once.

    Parameters
    ----------
    rows : int64 [b, n_offsets]
        -1 for one that is filled with zeros.
    at : int64 [b]
        Where in the batch each window goes.
    batch_rows : BatchRows, written
        Of ``b * n_offsets`` positions.

    Returns
    -------
    int
        How many distinct rows there are.
    """
    flat, n_offsets = rows.ravel(), rows.shape[1]
    order = np.argsort(flat, kind="mergesort")
    n = 0
    for i in range(len(order)):
        row = flat[order[i]]
        if i == 0 or row != batch_rows.row[n - 1]:
            batch_rows.row[n], batch_rows.first[n] = row, i
            n += 1
        batch_rows.place[i] = at[order[i] // n_offsets] * n_offsets + order[i] % n_offsets
    batch_rows.first[n] = len(order)
    return n


@compiled
def part_of_rows(batch_rows: BatchRows, n: int, number: int, parts: int, chunk_rows: int) -> tuple[int, int]:
    """The distinct rows [low, high) of n that are part `number` of `parts`; rows of one chunk are in one part."""
    low, high = n * number // parts, n * (number + 1) // parts
    return _to_chunk(batch_rows, low, n, chunk_rows), _to_chunk(batch_rows, high, n, chunk_rows)


@compiled_inside
def _to_chunk(batch_rows: BatchRows, j: int, n: int, chunk_rows: int) -> int:
    """The first distinct row from number j on that begins a chunk's rows."""
    while 0 < j < n and batch_rows.row[j] // chunk_rows == batch_rows.row[j - 1] // chunk_rows:
        j += 1
    return j


@compiled_inside
def put_row(shards: Shards, row: Number, source: Number, target: Number) -> None:
    """Copy a row from one address to another, turned over if ``shards.over`` says so."""
    if len(shards.over) > 0 and shards.over[row] != 0:
        line_bytes = shards.row_bytes // shards.height
        for y in range(shards.height):
            memcpy(address(target + (shards.height - 1 - y) * line_bytes), address(source + y * line_bytes), line_bytes)
    else:
        memcpy(address(target), address(source), shards.row_bytes)


@compiled_inside
def spread_row(shards: Shards, batch_rows: BatchRows, j: Number, out: NDArray[np.uint8]) -> None:
    """Copy distinct row j from the first position in the batch that wants it to all others."""
    target = out.ctypes.data + batch_rows.place[batch_rows.first[j]] * shards.row_bytes
    for i in range(batch_rows.first[j] + 1, batch_rows.first[j + 1]):
        memcpy(address(out.ctypes.data + batch_rows.place[i] * shards.row_bytes), address(target), shards.row_bytes)


@compiled
def copy_rows(column: NDArray[np.uint8], rows: NDArray[np.int64], at: NDArray[np.int64], out: NDArray[np.uint8]) -> int:
    """Copy rows of a key that lies in memory into a batch.

    Parameters
    ----------
    column : uint8 [n_steps, row_bytes]
    rows : int64 [b, n_offsets]
        Rows of the column; -1: zeros.
    at : int64 [b]
        Where in the batch each window goes.
    out : uint8 [batch, n_offsets, row_bytes], written

    Returns
    -------
    int
        A row that the column does not have, at which this ended; -1: all went well.
    """
    row_bytes, n = column.shape[1], rows.shape[1]
    for b in range(rows.shape[0]):
        o = 0
        while o < n:
            row, k = rows[b, o], o + 1
            target = out.ctypes.data + (at[b] * n + o) * row_bytes
            if row < 0:
                memset(address(target), 0, row_bytes)
            else:
                while k < n and rows[b, k] == rows[b, k - 1] + 1:
                    k += 1
                if rows[b, k - 1] >= len(column):
                    return int(rows[b, k - 1])
                memcpy(address(target), address(column.ctypes.data + row * row_bytes), (k - o) * row_bytes)
            o = k
    return -1


@compiled
def first_other(column: NDArray[np.uint8], ends: NDArray[np.int64], sums: NDArray[np.uint32]) -> int:
    """The first episode whose rows of a key have another checksum than they should; -1 if there is none.

    Parameters
    ----------
    column : uint8 [n_steps, row_bytes]
    ends : int64 [n_episodes]
        Row after each episode's last.
    sums : uint32 [n_episodes]
    """
    start = 0
    for episode in range(len(ends)):
        if ends[episode] < start or ends[episode] > len(column) or episode >= len(sums):
            return episode
        n_bytes = (ends[episode] - start) * column.shape[1]
        if crc32c(address(column.ctypes.data + start * column.shape[1]), n_bytes) != sums[episode]:
            return episode
        start = ends[episode]
    return -1


def part_of_windows(n: int, part: tuple[int, int]) -> tuple[int, int]:
    """The windows of one of several parts of a batch of `n`: half-open; `part` is its number, and how many there are."""
    number, parts = part
    return n * number // parts, n * (number + 1) // parts

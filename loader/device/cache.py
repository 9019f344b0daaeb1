"""Keep all frames on the device or in memory, within a memory budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.batch import Batch, Field, PlannedWindows, WindowReader
from robozarr.loader.device.batch_slots import wait_for_device
from robozarr.schemas.errors import WindowError
from robozarr.store.limits import free_memory
from robozarr.store.threads import ThreadTeam

__all__ = ["DeviceFrames", "check_budget"]

BLOCK: Final = 256
"""Frames that are copied to the device together."""


def check_budget(
    readers: Sequence[WindowReader], cache: Literal["device", "host"], device: torch.device, n_bytes: int | None
) -> None:
    """Refuse a cache that would not fit; raises WindowError with both sizes."""
    if cache == "device":
        wanted = sum(reader.frame_bytes * len(_rows(reader)) for reader in readers)
        free = torch.cuda.mem_get_info(device)[0] * 4 // 5 if device.type == "cuda" else free_memory() // 2
    else:
        wanted, free = sum(reader.frame_bytes * reader.store.n_steps for reader in readers), free_memory() // 2
    allowed = free if n_bytes is None else n_bytes
    if wanted > allowed:
        raise WindowError(
            f"loader · cache: frames must fit into {allowed / 1e9:.2f} GB on the {cache}; they take {wanted / 1e9:.2f} GB "
            "→ filter tasks or episodes, leave cameras out, pass cache_bytes= if you know better, or do without a cache"
        )


def _rows(reader: WindowReader) -> NDArray[np.int64]:
    """Rows of the episodes that have windows."""
    table = reader.table
    return np.flatnonzero(np.repeat(table.served, table.stop - table.start))


class DeviceFrames:
    """All frames that windows need, from one store or several, on a device.

    A batch is then rows, sent there, and one gather; the host never waits for the device.

    Parameters
    ----------
    readers : sequence of WindowReader
        Of the same fields.
    device : torch.device
    team : ThreadTeam
        Threads that read.
    """

    def __init__(self, readers: Sequence[WindowReader], device: torch.device, team: ThreadTeam) -> None:
        spec, keys = readers[0].spec, readers[0].store.keys
        self._names = [key.name for key in spec.keys if keys[key.name].frame]
        self.low_dim = [key.name for key in spec.keys if key.name not in self._names]
        """Keys that still come from the host."""
        self._padded_by_zeros = {key.name for key in spec.keys if key.padding == "zero"}
        rows = [_rows(reader) for reader in readers]
        ends = np.cumsum([len(part) for part in rows])
        self._shifts = []
        """By store and episode, the number that turns a row of the store into a row here."""
        for reader, begin in zip(readers, [0, *ends.tolist()], strict=False):
            length = np.where(reader.table.served, reader.table.stop - reader.table.start, 0)
            self._shifts.append(begin + np.cumsum(length) - length - reader.table.start)
        self._frames: dict[str, torch.Tensor] = {}
        for name in self._names:
            kind = torch.from_numpy(np.empty(0, keys[name].dtype)).dtype
            self._frames[name] = torch.empty((int(ends[-1]), *keys[name].shape), dtype=kind, device=device)
        wait_for_device(device)  # the threads' streams write to memory that this one's may have used before
        for name, frames in self._frames.items():
            for reader, part, end in zip(readers, rows, ends.tolist(), strict=True):
                _load(reader, name, part, frames[end - len(part) : end], team)

    def fields(self, fields: Iterable[Field]) -> tuple[Field, ...]:
        """Fields that the host fills instead of frames: their rows."""
        return tuple(
            Field(name=_rows_of(field.name), shape=field.shape[:1], dtype=np.dtype(np.int64))
            if field.name in self._names
            else field
            for field in fields
        )

    def place(
        self, number: int, batch: Batch, windows: PlannedWindows, at: NDArray[np.int64] | None, part: tuple[int, int]
    ) -> None:
        """Put the rows of one store's frames into a batch; -1 means zeros."""
        if part[0] == 0:
            shift = self._shifts[number][windows.episode][:, None]
            for name in self._names:
                rows = windows.rows[name]
                batch[_rows_of(name)][slice(len(rows)) if at is None else at] = np.where(rows < 0, -1, rows + shift)

    def gather(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A batch on the device with frames in place of their rows, in new memory there."""
        out = {}
        for name, tensor in batch.items():
            key = name.removeprefix(_rows_of(""))
            if key == name:
                out[name] = tensor
                continue
            frames = self._frames[key].index_select(0, tensor.clamp_min(0).view(-1))
            out[key] = frames.view(*tensor.shape, *frames.shape[1:])
            if key in self._padded_by_zeros:
                out[key].masked_fill_((tensor < 0).view(*tensor.shape, *[1] * (out[key].dim() - 2)), 0)
        return out


def _load(reader: WindowReader, name: str, rows: NDArray[np.int64], frames: torch.Tensor, team: ThreadTeam) -> None:
    """Read rows of a key into `frames` [len(rows), …], block by block; returns when all of them are there."""

    def load(start: int) -> None:
        block = rows[start : start + BLOCK]
        out = np.empty((len(block), *frames.shape[1:]), reader.store.keys[name].dtype)
        reader.reader.read(name, block[:, None], np.arange(len(block)), out.reshape(len(block), 1, -1).view(np.uint8))
        frames[start : start + BLOCK].copy_(torch.from_numpy(out))
        wait_for_device(frames.device)

    team.map(load, range(0, len(rows), BLOCK))


def _rows_of(name: str) -> str:
    return f"rows of {name}"

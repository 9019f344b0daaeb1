"""Owns the memory that batches are filled in, and their way to the device: the only code that knows CUDA.

A slot is one block of memory, pinned if there is a GPU, of which every field of a batch is a view. So a batch crosses the bus
by one copy, and no memory is allocated for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.batch import Batch, Field

__all__ = ["Copier", "Slot"]

ALIGN: Final = 128
"""Bytes: fields begin where a GPU reads best."""


class Slot:
    """Memory for one batch on the host, and on the device if that is a GPU."""

    def __init__(self, fields: Sequence[Field], batch_size: int, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        sizes = [batch_size * int(np.prod(field.shape, dtype=np.int64)) * field.dtype.itemsize for field in fields]
        starts = np.cumsum([0, *(-(-size // ALIGN) * ALIGN for size in sizes)]).tolist()
        self._host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=on_gpu)
        self._device = torch.empty(starts[-1], dtype=torch.uint8, device=device) if on_gpu else self._host
        block = self._host.numpy()
        arrays: dict[str, NDArray[Any]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        """By field, [batch_size, …], on the device."""
        for field, start, size in zip(fields, starts, sizes, strict=False):
            arrays[field.name] = block[start : start + size].view(field.dtype).reshape(batch_size, *field.shape)
            kind = torch.from_numpy(np.empty(0, field.dtype)).dtype
            self.tensors[field.name] = self._device[start : start + size].view(kind).view(batch_size, *field.shape)
        self.batch = Batch(fields, batch_size, arrays)
        """The same on the host."""
        self._copied = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        self._released: torch.cuda.Event | None = None

    def release(self) -> None:
        """Say, from the consumer's thread, that what it has queued on the device so far was the last use of this slot."""
        if self._copied is not None:
            self._released = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._released.record(torch.cuda.current_stream(self._device.device))

    def wait_until_free(self) -> None:
        """Wait until the last batch has left the host's memory, which is going to be written to."""
        if self._copied is not None:
            self._copied.synchronize()

    def send(self, copier: Copier) -> None:
        """Begin the copy to the device, behind the last use of its memory there; from any thread."""
        if self._copied is not None and copier.stream is not None:
            with torch.cuda.stream(copier.stream):
                if self._released is not None:
                    copier.stream.wait_event(self._released)
                self._device.copy_(self._host, non_blocking=True)
                self._copied.record(copier.stream)

    def receive(self) -> None:
        """Let the consumer's stream wait for the copy; the host does not wait."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device.device).wait_event(self._copied)


class Copier:
    """A stream of its own for copies, beside whatever the training computes."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

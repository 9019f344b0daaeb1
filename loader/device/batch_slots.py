"""Memory for filling batches, and their copy to the device; the only code that knows CUDA.

A batch never changes while somebody holds any part of it. On the CPU the consumer gets the memory that was filled: large fields
are lent (``loader.device.leases``), small ones lie in new memory. For a GPU, pinned memory is filled over and over, and copied
to new memory of torch's allocator. A large field has memory of its own, so that keeping the steps of all batches does not keep
their pictures.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.batch import Batch, Field
from robozarr.loader.device.leases import Leases, Pool
from robozarr.schemas.errors import WindowError

__all__ = ["BatchSlot", "BatchSlots", "Copier", "device_of", "wait_for_device"]

ALIGN: Final = 128
"""Alignment of fields in bytes, for fast reads by a GPU."""
LARGE: Final = 32 * 2**10
"""Smallest field, in bytes, whose memory is lent. Below that, new memory costs less than tracking its holders."""
COOLING: Final = 1
"""Pinned slots whose last copy may still be running; they are skipped while there are others."""


class Copier:
    """A separate stream for copies, beside the training's own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._thread = threading.local()

    @property
    def enter_thread(self) -> Callable[[], None] | None:
        """Select the device and the stream, once in a thread that only sends: for each batch that took as long as sending."""
        return None if self.stream is None else self._enter

    def _enter(self) -> None:
        assert self.stream is not None
        torch.cuda.set_device(self.device)
        torch.cuda.set_stream(self.stream)
        self._thread.entered = True

    def selected(self) -> contextlib.AbstractContextManager[object]:
        """Within it the stream is selected, in whichever thread."""
        return contextlib.nullcontext() if hasattr(self._thread, "entered") else torch.cuda.stream(self.stream)


class BatchSlot(Protocol):
    """Memory for one batch. Used in this order: `wait_until_free`, filling, `send` (threads), `receive` (consumer's thread)."""

    batch: Batch
    """The batch to fill, on the host."""

    def wait_until_free(self) -> None:
        """Wait until the last batch has left the host's memory, so that it can be written; from any thread."""
        ...

    def send(self) -> None:
        """Begin the copy to the device; from any thread."""
        ...

    def receive(self) -> dict[str, torch.Tensor]:
        """The windows by field, on the device; the consumer may hold them for ever. The host does not wait."""
        ...

    def give_back(self) -> None:
        """Return the memory of a batch that nobody received and that no thread uses any longer."""
        ...


class BatchSlots:
    """Makes slots; as many are in use as batches are read ahead.

    Parameters
    ----------
    fields : sequence of Field
    batch_size : int
    copier : Copier
    leases : Leases
        Of the loader.
    """

    def __init__(self, fields: Sequence[Field], batch_size: int, copier: Copier, leases: Leases) -> None:
        self._fields, self._batch_size, self._copier = tuple(fields), batch_size, copier
        large = [field for field in self._fields if batch_size * field.window_bytes > LARGE]
        self._pools = {field.name: leases.pool(field.name, (batch_size, *field.shape), field.dtype) for field in large}
        self.pinned: deque[PinnedSlot] = deque()
        """Slots of a GPU that are ready for their next batch."""

    def take(self, n: int) -> BatchSlot:
        """Memory for a batch of n windows that nobody holds; called from the consumer's thread.

        Raises
        ------
        WindowError
            If batches are held that take as much memory as they may.
        """
        if self._copier.stream is None:
            return HostSlot(self._fields, self._batch_size, self._pools, n)
        try:
            slot = self.pinned.popleft() if len(self.pinned) > COOLING else self._make_pinned()
        except IndexError:  # another thread took it
            slot = self._make_pinned()
        slot.ask(n)
        return slot

    def _make_pinned(self) -> PinnedSlot:
        return PinnedSlot(self._fields, self._batch_size, self._copier, self)


class HostSlot:
    """Memory for one batch on the host that is handed to the consumer: large fields are lent, small ones are new."""

    def __init__(self, fields: Sequence[Field], batch_size: int, pools: Mapping[str, Pool], n: int) -> None:
        self._pools, self._n = pools, n
        arrays = {
            field.name: pools[field.name].take() if field.name in pools else np.empty((batch_size, *field.shape), field.dtype)
            for field in fields
        }
        self.batch = Batch(fields, batch_size, arrays)

    def wait_until_free(self) -> None:
        """Return at once: nobody holds the memory."""

    def send(self) -> None:
        """Do nothing: the batch is already on the host."""

    def receive(self) -> dict[str, torch.Tensor]:
        """Like ``BatchSlot.receive``."""
        pools, n = self._pools, self._n
        return {
            name: pools[name].lend(array, n) if name in pools else torch.from_numpy(array[:n])
            for name, array in self.batch.arrays.items()
        }

    def give_back(self) -> None:
        """Like ``BatchSlot.give_back``."""
        for name, pool in self._pools.items():
            pool.give_back(self.batch.arrays[name])


class PinnedSlot:
    """Reused pinned memory for one batch, and new device memory for each batch.

    The device's memory is torch's: made on the copier's stream, told of the consumer's stream, and not used again before
    both have done what was queued when the last tensor of it went.
    """

    def __init__(self, fields: Sequence[Field], batch_size: int, copier: Copier, slots: BatchSlots) -> None:
        self._copier, self._slots = copier, weakref.ref(slots)
        # small fields first, in one part; each large one is a part: a part is one copy, and one block on the device
        ordered = sorted(fields, key=lambda field: batch_size * field.window_bytes > LARGE)
        sizes = [batch_size * field.window_bytes for field in ordered]
        starts = np.cumsum([0, *(-(-size // ALIGN) * ALIGN for size in sizes)]).tolist()
        host = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)
        block = host.numpy()
        arrays: dict[str, NDArray[Any]] = {}
        self._places: dict[str, tuple[int, torch.dtype, int, tuple[int, ...], tuple[int, ...]]] = {}
        """By field: its part, dtype, first element in it, shape of a window, strides."""
        n_small = sum(size <= LARGE for size in sizes)
        edges = [0] * (n_small > 0) + starts[n_small:]
        self._host = [host[start:stop] for start, stop in pairwise(edges)]
        """Pinned memory by part."""
        for number, (field, start, size) in enumerate(zip(ordered, starts, sizes, strict=False)):
            arrays[field.name] = block[start : start + size].view(field.dtype).reshape(batch_size, *field.shape)
            part = 0 if number < n_small else number - n_small + (n_small > 0)
            kind = torch.from_numpy(np.empty(0, field.dtype)).dtype
            strides = tuple(step // field.dtype.itemsize for step in arrays[field.name].strides)
            self._places[field.name] = (part, kind, (start - edges[part]) // field.dtype.itemsize, field.shape, strides)
        self._kinds = {place[:2] for place in self._places.values()}
        self.batch = Batch(fields, batch_size, {field.name: arrays[field.name] for field in fields})
        self._device: list[torch.Tensor] = []
        self._tensors: dict[str, torch.Tensor] = {}
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._asked = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def ask(self, n: int) -> None:
        """Record the consumer's progress; the next copy waits for it, so that copies cannot run ahead without limit."""
        self._n, self._stream = n, torch.cuda.current_stream(self._copier.device)
        self._asked.record(self._stream)

    def wait_until_free(self) -> None:
        """Like ``BatchSlot.wait_until_free``."""
        self._copied.synchronize()

    def send(self) -> None:
        """Like ``BatchSlot.send``; all that can be done here is, as the consumer's thread has no time for it.

        Each call of torch's gives Python's lock back and waits for it again: on the way to a GPU that is most of what a batch
        costs. So there are as few as can be.
        """
        copier = self._copier
        assert copier.stream is not None
        with copier.selected():  # memory that is made here may be used again, before it is told of other streams
            copier.stream.wait_event(self._asked)
            self._device = [part.to(copier.device, non_blocking=True, copy=True) for part in self._host]
            self._copied.record(copier.stream)
        self._tell(self._stream)
        parts = {(part, kind): self._device[part].view(kind) for part, kind in self._kinds}
        for name in self.batch.arrays:
            part, kind, begin, shape, strides = self._places[name]
            self._tensors[name] = parts[part, kind].as_strided((self._n, *shape), strides, begin)

    def receive(self) -> dict[str, torch.Tensor]:
        """Like ``BatchSlot.receive``."""
        stream = torch.cuda.current_stream(self._copier.device)
        stream.wait_event(self._copied)
        if stream != self._stream:  # it is not the one in which this batch was asked for
            self._tell(stream)
        tensors = self._tensors
        self.give_back()
        return tensors

    def give_back(self) -> None:
        """Like ``BatchSlot.give_back``; the pinned memory is written again only after its copy has ended."""
        self._device, self._tensors = [], {}
        if (slots := self._slots()) is not None:
            slots.pinned.append(self)

    def _tell(self, stream: torch.cuda.Stream) -> None:
        for part in self._device:
            part.record_stream(stream)


def device_of(device: torch.device | str | int | None) -> torch.device:
    """The device that is meant, with its number.

    Raises
    ------
    WindowError
        If it is neither the CPU nor a CUDA device that is there.
    """
    try:
        wanted = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as exc:
        raise WindowError(f'loader · device: "cpu", "cuda", "cuda:1", …; got {device!r} → pass one of these') from exc
    if wanted.type == "cpu":
        return wanted
    if wanted.type != "cuda":
        raise WindowError(
            f"loader · device: the CPU or a CUDA device; got {wanted} → leave it out, and move batches in transform="
        )
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (wanted.index or 0) >= n_devices:
        raise WindowError(
            f"loader · device: a CUDA device that is there; got {wanted} of {n_devices}, torch {torch.__version__} → install a "
            "torch with CUDA, look at nvidia-smi and CUDA_VISIBLE_DEVICES, or leave device= out"
        )
    return torch.device("cuda", torch.cuda.current_device()) if wanted.index is None else wanted


def wait_for_device(device: torch.device) -> None:
    """Wait on the host for all that this thread's stream has queued; other threads' streams may then continue from there."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()

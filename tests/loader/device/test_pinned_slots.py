"""The way of a batch to a GPU, on a stand-in for CUDA that does at once what is queued: values, order of steps, memory.

tests/test_gpu.py has the real one.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from robozarr.loader.batch import Field
from robozarr.loader.device import batch_slots
from robozarr.loader.device.batch_slots import BatchSlots, Copier, PinnedSlot
from robozarr.loader.device.leases import Leases

FIELDS = [
    Field(name="pictures", shape=(2, 64, 64, 3), dtype=np.dtype("uint8")),
    Field(name="step", shape=(), dtype=np.dtype("int64")),
    Field(name="actions", shape=(200, 7), dtype=np.dtype("float64")),
    Field(name="actions_is_pad", shape=(200,), dtype=np.dtype(bool)),
]


class Stream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_event(self, event: Event) -> None:
        self.log.append(f"{self.name} waits")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Event:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record(self, stream: Stream) -> None:
        self.log.append(f"record in {stream.name}")

    def synchronize(self) -> None:
        self.log.append("host waits")


class Cuda:
    """Streams and events, whose calls are noted."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.consumer = Stream(log, "consumer")

    def Event(self) -> Event:
        return Event(self.log)

    def current_stream(self, device: Any = None) -> Stream:
        return self.consumer

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.log.append("enter")
        yield
        self.log.append("leave")

    def set_device(self, device: Any) -> None:
        self.log.append("set device")

    def set_stream(self, stream: Stream) -> None:
        self.log.append(f"set {stream.name}")


class Torch:
    """Torch, whose CUDA is the stand-in."""

    def __init__(self, log: list[str]) -> None:
        self.cuda = Cuda(log)

    def empty(self, *arguments: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        return torch.empty(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log: list[str] = []
    monkeypatch.setattr(batch_slots, "torch", Torch(log))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(f"memory is told of {stream.name}"))
    return log


def slots_of(log: list[str]) -> BatchSlots:
    copier = Copier(torch.device("cpu"))
    copier.stream = Stream(log, "copier")  # type: ignore[assignment]
    return BatchSlots(FIELDS, 8, copier, Leases())


def fill(slot: Any, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    for field in FIELDS:
        slot.batch[field.name][...] = rng.integers(0, 2 if field.dtype == bool else 100, (8, *field.shape))
    return {field.name: slot.batch[field.name].copy() for field in FIELDS}


def test_values_steps_and_memory(log: list[str]) -> None:
    slots, kept, wanted = slots_of(log), [], []
    for seed in range(6):
        slot = slots.take(8 if seed < 5 else 3)
        slot.wait_until_free()
        wanted.append(fill(slot, seed))
        slot.send()
        kept.append(slot.receive())
        assert list(kept[-1]) == [field.name for field in FIELDS]
    assert log[:14] == [
        "record in consumer",  # how far the consumer is
        "host waits",  # for the last copy out of this pinned memory
        "enter", "copier waits", "record in copier", "leave",  # memory is made, and filled, in the copier's stream
        *["memory is told of consumer"] * 3,  # small fields together, and two large ones
        "consumer waits",
        "record in consumer", "host waits", "enter", "copier waits",
    ]  # fmt: skip
    for number, (batch, values) in enumerate(zip(kept, wanted, strict=True)):
        for name, value in values.items():
            assert np.array_equal(batch[name].numpy(), value[:3] if number == 5 else value), name
    places = [batch["pictures"].data_ptr() for batch in kept]
    assert len(set(places)) == len(places)
    assert len(slots.pinned) == 2  # one that is cooling, and the one that was used in turn


def test_slots_that_nobody_received(log: list[str]) -> None:
    slots = slots_of(log)
    slot = slots.take(8)
    fill(slot, 1)
    slot.send()
    slot.give_back()
    assert isinstance(slot, PinnedSlot)
    assert (slot._device, slot._tensors) == ([], {})
    again = [slots.take(8) for _ in range(2)]
    assert slot not in again  # it is cooling
    for one in again:
        one.give_back()
    pinned = weakref.ref(slot)
    del slot, one, again
    gc.disable()
    try:
        del slots
        assert pinned() is None  # pinned memory goes with its loader, not when rubbish is collected
    finally:
        gc.enable()


def test_a_thread_that_only_sends_selects_the_stream_once(log: list[str]) -> None:
    slots = slots_of(log)
    begin = slots._copier.enter_thread
    assert begin is not None

    def send_two() -> None:
        begin()
        for _ in range(2):
            slot.send()

    slot = slots.take(8)
    thread = threading.Thread(target=send_two)
    thread.start()
    thread.join()
    assert (log.count("set device"), log.count("set copier"), log.count("enter")) == (1, 1, 0)
    slot.send()  # a thread that does other things too leaves the stream again
    assert log.count("enter") == log.count("leave") == 1


def test_a_batch_may_be_received_in_another_stream(log: list[str]) -> None:
    """Then its memory is not used again before that stream is done with it either."""
    slots = slots_of(log)
    slot = slots.take(8)
    slot.send()
    batch_slots.torch.cuda.consumer = Stream(log, "another")  # type: ignore[attr-defined]
    slot.receive()
    assert log[-4:] == ["another waits", *["memory is told of another"] * 3]

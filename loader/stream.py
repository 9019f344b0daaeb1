"""``WindowLoader``: batches of every window, read ahead by threads into memory that nobody holds, then sent to the device."""

from __future__ import annotations

import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.consumers import Consumer
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.device.augmenting.draws import keys_of_windows
from robozarr.loader.device.augmenting.of_cameras import AUGMENT_KEYS, Augments, told_augment
from robozarr.loader.device.batch_slots import BatchSlot, BatchSlots, Copier, device_of
from robozarr.loader.device.cache import DeviceFrames, check_budget
from robozarr.loader.device.leases import Leases
from robozarr.loader.device.transform import Images, Normalise, check_keys, check_steps, make_transform
from robozarr.loader.following import follow_training
from robozarr.loader.given import datasets_of
from robozarr.loader.relative import Relative
from robozarr.loader.schedule import Iteration, Schedule, remote_locality
from robozarr.loader.taken_apart import TakenApart
from robozarr.loader.together import Planned, Together, common_fields
from robozarr.loader.windows.weights import Balance, Weights
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag
from robozarr.store.limits import usable_cores
from robozarr.store.threads import ThreadJob, ThreadTeam

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["WindowLoader"]

PLANNED: Final = 1024
"""Windows whose rows are computed together, at a tenth of the cost of single batches. For a store in a bucket it is one
group of `remote_locality`, so that neighbouring rows are fetched together."""
IN_FLIGHT: Final = 8
"""Batches that wait for a bucket at the same time: 8 fill a link of 20 ms (make bench-remote)."""
PART_BYTES: Final = 12 << 20
"""What one thread reads of a batch, at least. Each part takes Python's lock some ten times, for which all threads wait; but a
large batch is split, so that a few batches read ahead keep all threads busy: they take memory."""


class WindowLoader(TakenApart):
    """Batches of every window of one or more stores, each window exactly once per epoch.

    A batch is a dict: per key of the window ``key [b, n_offsets, …]`` and ``key_is_pad`` bool [b, n_offsets], ``episode``,
    ``step``, ``task`` int64 [b], the embeddings, ``instruction`` (a list of text), and ``store`` int64 [b] of several.
    **A batch is yours**: it never changes while you hold any part of it (a slice, an array, what autograd saved), and what you
    change in it is seen by nobody else. Memory is used again when nothing of it is held; a large field, such as a camera's
    pictures, has memory of its own, so that keeping ``batch["step"]`` keeps nothing else.

    Parameters
    ----------
    dataset : WindowDataset, or a sequence of them
        Several must have the same fields. They are mixed by their numbers of windows, or by `mixture`. torch's ``Subset`` of
        one (``random_split``) is its windows, ``ConcatDataset`` is the sequence.
    batch_size : int
        Windows in a batch of one rank.
    shuffle : bool
        True: each epoch in another order. An iteration that is left early is followed by a whole one that begins where it was
        left. False: each iteration in the order of the store, from its first window.
    seed : int
        The order is a pure function of it and the epoch.
    rank, world_size : int, optional
        Ranks share an epoch without overlap. Default: what torch.distributed says when an iteration begins, else 0 of 1; if it
        says something else than was given, that is an error.
    group : ProcessGroup, optional
        Ranks that share windows, where they are not all: the data-parallel group beside tensor parallel, say.
    drop_last : bool
        False: each window once. All ranks have equally many batches; the last ones may be short. True: only whole batches.
    locality : (block, group), or False, optional
        For slow storage: shuffle blocks of neighbouring windows, and the windows inside groups of blocks; (256, 64), say.
        Default: for a store in a bucket (32, 128), or fewer blocks of pictures larger than 128×128; a block is one request
        then. False: none there either.
    repeat : mapping of StepFlag to int, optional
        ``{StepFlag.KEY_MOMENT: 2}``: serve such anchors that often an epoch. Nothing is ever left out.
    weights : optional
        How often windows are served beside the others: a number for each window, or numbers by kind, which are multiplied:
        ``{"task": {"open the drawer": 2.0}, "episode": {3: 0.5}, "flag": {StepFlag.KEY_MOMENT: 4}, "window": […]}``. Of several
        datasets a list with one entry for each, or a mapping that holds for all. An epoch has as many windows as without; each
        is served as often as its weight says, rounded up or down, and exactly so over epochs. `expected_coverage` says which
        share of them an epoch serves.
    balance : "task" or "episode", optional
        Serve each task (episode) equally often, whatever it has of windows; `weights` count beside.
    cover : bool
        With weights: make epochs so long that each serves every window at least once.
    mixture : sequence of numbers, optional
        How often each dataset is drawn from. Whole numbers are draws in a cycle, numbers with fractions shares of all draws. An
        epoch ends when each dataset has been covered.
    device : device, optional
        Where batches go; with a GPU, through pinned memory, beside whatever it computes. Default: the CPU.
    images : Images, optional
        Pictures upright, as floats, channels first; done on the device. Default: as stored.
    augment : Augment, or mapping of camera to Augment, optional
        Random crops, colours and so on, after `images`, done on the device for the whole batch at once: a pure function of
        (seed, epoch, window).
    relative : Relative, optional
        Actions relative to the state at the anchor, float64; done on the device, before `normalise`.
    normalise : Normalise, optional
        By statistics of the store or of the windows, or those that are handed over; done on the device.
    transform : function of a batch, optional
        Called last, on the device, in the consumer's thread and stream.
    cache : "device", "host", or None
        Keep all frames on the device (a batch is one gather there) or in memory. The first iteration reads them. The
        batches and their order are the same.
    cache_bytes : int, optional
        What a cache may take. Default: 80% of what is free on the device, half of what is free in memory, where a container's
        limit (cgroup) counts.
    threads : int, optional
        That read and decode. Default: the cores that this process may use, at most 8. Of an object store at least `prefetch`:
        each waits for one batch.
    prefetch : int, optional
        Batches read ahead. Default: as many as keep the threads busy, and one; 8 of an object store, all on their way at once.
    hold_bytes : int, optional
        What batches that you keep may take in memory, all together; past it, an error says who keeps them. On a GPU, torch says
        when its memory is full. Default: half of what is free when you first keep more than a loop does.
    copy : bool, optional
        Without meaning, and deprecated: batches are yours to keep.

    Raises
    ------
    WindowError
        If options do not fit each other, the datasets, or a cache its budget; when an iteration begins, if rank and world size
        are not torch.distributed's, or no batch would be served.
    CorruptChunkError
        While iterating, if something cannot be read exactly.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> from robozarr.store.opened import open_store
    >>> from robozarr.schemas.window import WindowSpec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     dataset = WindowDataset(open_store(f"{folder}/sample.zarr"), WindowSpec.act(chunk=8))
    ...     loader = WindowLoader(dataset, batch_size=16, seed=1)
    ...     n = sum(len(batch["step"]) for batch in loader)
    >>> n == len(dataset)
    True
    """

    def __init__(
        self,
        dataset: WindowDataset | Sequence[WindowDataset],
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        group: ProcessGroup | None = None,
        drop_last: bool = False,
        locality: tuple[int, int] | Literal[False] | None = None,
        repeat: Mapping[StepFlag, int] | None = None,
        weights: Weights | Sequence[Weights | None] | None = None,
        balance: Balance | None = None,
        cover: bool = False,
        mixture: Sequence[float] | None = None,
        device: torch.device | str | int | None = None,
        images: Images | None = None,
        augment: Augments | None = None,
        relative: Relative | None = None,
        normalise: Normalise | None = None,
        transform: Callable[[Sample], Sample] | None = None,
        cache: Literal["device", "host"] | None = None,
        cache_bytes: int | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
        hold_bytes: int | None = None,
        copy: bool | None = None,
    ) -> None:
        if copy is not None:
            warnings.warn(
                "WindowLoader · copy: has no effect: a batch never changes while you hold any part of it → leave it out",
                DeprecationWarning,
                stacklevel=2,
            )
        datasets = datasets_of(dataset, shuffle)
        check_steps(images, normalise, transform, augment, relative)
        _check_counts(threads=threads, prefetch=prefetch, cache_bytes=cache_bytes, hold_bytes=hold_bytes)
        self.schedule = Schedule(
            datasets, batch_size, shuffle=shuffle, seed=seed, rank=rank, world_size=world_size, group=group,
            drop_last=drop_last, locality=locality, repeat=repeat, weights=weights, balance=balance, cover=cover,
            mixture=mixture, augment=told_augment(augment),
        )  # fmt: skip
        self._seed = seed
        self.device = device_of(device)
        self._fields = common_fields([dataset.windows for dataset in datasets])
        self._together = Together([dataset.windows for dataset in datasets])
        self._readers = self._together.readers
        self._transform, self._images, self._normalise = transform, images, normalise
        self._augment, self._relative = augment, relative
        check_keys(self._readers, images, normalise, augment, relative)
        self.leases = Leases(hold_bytes)
        """The host memory that is lent to batches."""
        self._threads = default_threads() if threads is None else threads
        self._remote = any(reader.store.remote for reader in self._readers)
        # frames that lie on the device leave little to read: a batch is one thread's work
        batch_bytes = batch_size * sum(field.window_bytes for field in self._fields)
        self._parts = 1 if self._remote or cache == "device" else max(1, min(self._threads, batch_bytes // PART_BYTES))
        default_ahead = IN_FLIGHT if self._remote else -(-self._threads // self._parts) + 1
        self._ahead = default_ahead if prefetch is None else prefetch
        if self._remote:
            self._threads = max(self._threads, self._ahead)
        if cache not in (None, "device", "host"):
            raise WindowError(f'loader · cache: "device", "host" or None; got {cache!r} → pass one of these')
        self._cache = cache
        if cache is not None:
            check_budget(self._readers, cache, self.device, cache_bytes)
        self._reset()

    def _reset(self) -> None:
        """Forget state that cannot be passed to another process."""
        self._process = os.getpid()
        self.leases.reset()
        self._team: ThreadTeam | None = None
        self._slots: BatchSlots | None = None
        self._frames: DeviceFrames | None = None
        self._prepare: Callable[[Sample], Sample] | None = None

    def __getstate__(self) -> dict[str, Any]:
        own = ("_process", "_team", "_copier", "_slots", "_frames", "_prepare")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def batch_size(self) -> int:
        """Windows in a batch of one rank; it cannot be changed, as with torch's loaders."""
        return self.schedule.batch_size

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch, as with torch's loaders; a resumed iteration has ``n_batches_left``."""
        return self.schedule.n_batches

    def __repr__(self) -> str:
        n, rank = self.schedule.order.n_positions, self.schedule.told_rank()
        return f"WindowLoader({n:,} windows per epoch in batches of {self.batch_size}, {rank}, on {self.device})"

    def __iter__(self) -> Iterator[Sample]:
        self._start()
        getpid, ends = os.getpid, sys.is_finalizing  # an iteration may be left at the program's end, when modules are gone
        process = getpid()
        follow_training(self.schedule)
        began = self.schedule.begin()
        batches = self._planned(began)
        assert self._slots is not None
        slots = self._slots
        pending: deque[tuple[BatchSlot, Planned, ThreadJob]] = deque()
        n_batches, n_asked, n_done = began.n_batches, 0, 0
        consumer, whole = Consumer(), True
        try:
            self.leases.begin(pending)
            while n_done < n_batches:
                consumer.comes()
                if os.getpid() != process:
                    raise WindowError(
                        "loader: an iteration must end in the process that began it; this process is a fork of "
                        "it → start a new iteration here"
                    )
                while n_asked < n_done + self._ahead and (batch := next(batches, None)) is not None:
                    slot = slots.take(batch.n_windows)
                    pending.append((slot, batch, self._submit(slot, batch)))
                    n_asked += 1
                slot, batch, job = pending[0]
                job.result()
                pending.popleft()
                n_done += 1
                handed = [self._hand_out(slot, batch)]
                self.schedule.consume(began, n_done)
                yield handed.pop()  # nothing here holds a batch while its consumer does not
            if n_batches == 0:
                self.schedule.consume(began, 0)
        except GeneratorExit:
            raise
        except BaseException:
            whole = False  # memory is not used again: Ctrl-C may come between handing a slot to the threads and noting that
            raise
        finally:
            # break, an error, Ctrl-C: nobody writes to the slots any more when they are given back.
            # The threads that read did not come along into a fork, which would wait for ever.
            if not ends() and getpid() == process:
                for *_, job in pending:
                    job.cancel()
                for *_, job in pending:
                    job.wait()
                for slot, *_ in pending if whole else ():
                    slot.give_back()
                self.leases.end(pending)

    def _planned(self, began: Iteration) -> Iterator[Planned]:
        """The batches of an iteration, with the rows of their windows, which are found for many batches at once."""
        groups = [prod(remote_locality(reader.store)) for reader in self._readers if reader.store.remote]
        several = max(1, min(groups, default=PLANNED) // self.batch_size)
        return self._together.planned(self.schedule.batches(began), began.state.epoch, several)

    def _start(self) -> None:
        """Make the threads and device objects, in the process that iterates."""
        if self._process != os.getpid():  # a fork carries no threads along
            self._reset()
        if self._team is None:
            self._copier = Copier(self.device)
            self._prepare = make_transform(
                self._readers,
                self._images,
                self._normalise,
                self.device,
                self._together.group_of,
                self._augment,
                self._relative,
            )
            self._team = ThreadTeam(self._threads, self._copier.enter_thread)
        if self._cache == "host":
            for group, reader in enumerate(self._readers):
                with self._together.naming(group):
                    self._readers[group] = reader if reader.holds_frames else reader.with_frames(self._team)
        if self._cache == "device" and self._frames is None:
            self._frames = DeviceFrames(self._readers, self.device, self._team)
        if self._slots is None:
            fields = self._fields if self._frames is None else self._frames.fields(self._fields)
            self._slots = BatchSlots(fields, self.batch_size, self._copier, self.leases)

    def _submit(self, slot: BatchSlot, batch: Planned) -> ThreadJob:
        """Let the team read a batch in parts; the last part to end sends it to the device."""
        assert self._team is not None

        def fill(part: int) -> None:
            slot.wait_until_free()
            self._fill(slot, batch, (part, self._parts), lambda: job.cancelled)

        job = ThreadJob(fill, self._parts, slot.send)
        self._team.submit(job)
        return job

    def _fill(self, slot: BatchSlot, batch: Planned, part: tuple[int, int], cancelled: Callable[[], bool]) -> None:
        for group, windows, at in ((one.group, one.windows, one.at) for one in batch.parts):
            keys = None
            if self._frames is not None:
                keys = self._frames.low_dim
                self._frames.place(group, slot.batch, windows, at, part)
            with self._together.naming(group):
                self._readers[group].fill(slot.batch, windows, at, part, keys, cancelled)
        if batch.dataset is not None and part[0] == 0:
            slot.batch["store"][: batch.n_windows] = batch.dataset

    def _hand_out(self, slot: BatchSlot, batch: Planned) -> Sample:
        """Hand a finished batch to the consumer."""
        assert self._prepare is not None
        n = batch.n_windows
        tensors = slot.receive()
        if self._frames is not None:
            tensors = self._frames.gather(tensors)
        texts: list[str] = [""] * n
        for part in batch.parts:
            found = self._readers[part.group].instructions_of(part.windows)
            if part.at is None:
                texts = found
            else:
                for place, text in zip(part.at.tolist(), found, strict=True):
                    texts[place] = text
        if self._augment is not None:
            tensors[AUGMENT_KEYS] = self._keys_of(batch)  # type: ignore[assignment]
        sample = self._prepare(tensors | {"instruction": texts})
        return sample if self._transform is None else self._transform(sample)

    def _keys_of(self, batch: Planned) -> NDArray[np.uint64]:
        """Seeds of the augmentation: one key for each window."""
        anchors = np.empty((2, batch.n_windows), np.int64)
        for part in batch.parts:
            where = slice(None) if part.at is None else part.at
            anchors[0, where], anchors[1, where] = part.windows.episode, part.windows.step
        dataset = 0 if batch.dataset is None else batch.dataset
        return keys_of_windows(int(self._seed), batch.epoch, dataset, *anchors)


def _check_counts(**counts: Any) -> None:
    """Refuse invalid counts; raises WindowError."""
    for name, count in counts.items():
        least = 0 if name.endswith("_bytes") else 1
        if count is not None and (isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < least):
            raise WindowError(f"loader · {name}: a whole number, {least} or more, or None; got {count!r} → leave it out")


def default_threads() -> int:
    """Number of cores that this process may use, at most 8: more threads would wait for memory."""
    return min(usable_cores(), 8)

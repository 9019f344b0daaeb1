"""Serve windows through ``torch.utils.data.DataLoader``: the same order, and a state that counts consumed batches.

Frameworks take a loader apart: they look at its samplers, wrap them, or make a loader anew. What they find here says that it is
sharded by rank already, moves on to the next epoch by itself, and refuses what would serve a share of a share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import replace
from typing import Any, Final
from weakref import ref

from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler

from robozarr.loader.asking import Ahead, ahead_of_training, asks_batches, told_by
from robozarr.loader.consumers import Consumer
from robozarr.loader.dataset import WindowDataset
from robozarr.loader.device.augmenting.of_cameras import Augments, augmented_batches, check_augment, told_augment
from robozarr.loader.endless import Endless
from robozarr.loader.following import follow_training
from robozarr.loader.ranks import refuse_second_sharding
from robozarr.loader.schedule import Iteration, Schedule
from robozarr.schemas.errors import WindowError

__all__ = ["WindowBatchSampler", "WindowDataLoader", "WindowSampler"]

ORDER_OPTIONS: Final = (
    "shuffle", "seed", "rank", "world_size", "group", "drop_last", "locality", "repeat", "weights", "balance", "cover",
)  # fmt: skip
"""Options of the order, with the same names in ``WindowDataLoader`` and ``WindowLoader``."""


def _nobody() -> None:
    """Stand in for a loader that is not known."""


class _Sharded(DistributedSampler[int]):
    """A sampler that divides windows among ranks itself; Lightning, Fabric and Ray leave a ``DistributedSampler`` alone.

    Nothing of the base class is used: rank and world size are looked up when an iteration begins.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.began: Iteration | None = None
        self.ahead: Ahead | None = None
        """Of `began`; None where something else counts what is consumed."""
        self.tell_epoch: Callable[[int], None] | None = None
        """Called with the epoch of an iteration when it begins, before its first windows are asked for."""
        self._told: tuple[int, Callable[[], Any]] | None = None
        self._just_told = False

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Rank of this process, at this moment."""
        return self.schedule.share.rank

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """World size at this moment."""
        return self.schedule.share.world_size

    def _batches(self) -> Iterator[tuple[Iteration, list[int]]]:
        """Batches of this rank. A batch counts as consumed when the next is asked for; `count` corrects that."""
        refuse_second_sharding(self.schedule.share.world_size)
        self.count()
        follow_training(self.schedule)
        holder = self._told[1] if self._told is not None and self._just_told else _nobody
        self.ahead, ahead, self._just_told = None, ahead_of_training(holder), False
        self.began = began = self.schedule.begin()
        if self.tell_epoch is not None:
            self.tell_epoch(began.state.epoch)
        for number, batch in enumerate(self.schedule.batches(began), 1):
            ahead.asked = number
            if began is self.began:
                self.ahead = ahead
            yield began, batch.windows.tolist()
            self.schedule.consume(began, number)
        self.schedule.consume(began, began.n_batches)

    def count(self) -> None:
        """Count the batches that have reached the training as consumed, and none that is still on its way."""
        if self.began is not None and self.ahead is not None:
            self.schedule.consume(self.began, self.ahead.handed_out(self.began.n_batches))

    def __iter__(self) -> Iterator[int]:
        for _, batch in self._batches():
            yield from batch

    def __len__(self) -> int:
        """Windows of this rank in a whole epoch."""
        return self.schedule.n_windows

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: trainers call this with their own counts; the loader has its own ``set_epoch``."""

    def go_to(self, epoch: int) -> None:
        """Move to an epoch; if Lightning or accelerate call it for their next iteration, continue where the order is.

        Their epochs may be shorter than a pass over the windows, and would always begin with the first part of one.
        """
        teller, before = told_by(), self._told
        if teller is None:
            self.count()
            self.schedule.set_epoch(epoch)
            return
        if teller == "Lightning" and follow_training(self.schedule):
            return
        told: tuple[int, Callable[[], Any]] = epoch, _nobody if isinstance(teller, str) else ref(teller)
        again = before is not None and before[1]() is told[1]()
        if before is not None and again and not self._just_told and self.ahead is not None:
            self.ahead.left_early = epoch == before[0]
        self.count()
        counts_on = before is not None and again and epoch in (before[0], before[0] + 1) and self.began is not None
        if not counts_on and not self.schedule.resumed:
            self.schedule.set_epoch(epoch)
        self._told, self._just_told = told, True

    def __getstate__(self) -> dict[str, Any]:
        self.count()
        # an iteration goes on where it began, not in a copy
        return self.__dict__ | {"began": None, "ahead": None, "_told": None}


class WindowBatchSampler(BatchSampler):
    """Batches of windows of this rank, as ``WindowDataLoader`` reads them; frameworks find it as ``batch_sampler``."""

    def __init__(self, sampler: _Sharded, batch_size: int | None = None, drop_last: bool | None = None) -> None:
        self.sampler: _Sharded = sampler  # the others are its own; frameworks that make this anew pass them
        self.schedule = sampler.schedule
        self.batch_size, self.drop_last = self.schedule.batch_size, self.schedule.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        for _, batch in self.sampler._batches():
            yield batch

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self.schedule.n_batches

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch. Accelerate counts iterations, not epochs: for it the order continues where it is."""
        self.sampler.go_to(epoch)


class WindowSampler(_Sharded):
    """The order of ``WindowLoader``, as a sampler: this rank's windows, batch after batch.

    Parameters
    ----------
    dataset : WindowDataset
    batch_size : int
        The same as the DataLoader's, which is checked: ranks take turns by batch, and a state counts batches.
    **options
        ``shuffle``, ``seed``, ``rank``, ``world_size``, ``group``, ``drop_last``, ``locality``, ``repeat``, ``weights``,
        ``balance``, ``cover`` of ``WindowLoader``.

    Notes
    -----
    A finished epoch leads to the next by itself; `set_epoch` is not needed. After one left early the next goes on where
    it was, in the loops of Lightning and accelerate too. A DataLoader asks for windows ahead of what the training consumes;
    `state_dict` looks how far its workers are. torchdata's ``StatefulDataLoader`` keeps `state_dict` with each batch, and needs
    nothing else.

    Raises
    ------
    WindowError
        When it is iterated, if the DataLoader's batch size is another one, a framework shards it a second time, or ranks
        would not have equally many batches.
    """

    def __init__(self, dataset: WindowDataset, batch_size: int, **options: Any) -> None:
        super().__init__(Schedule([dataset], batch_size, even=False, **options))

    def __iter__(self) -> Iterator[int]:
        self._check_batch_size()
        for number, (began, batch) in enumerate(self._batches(), 1):
            if number == 1:
                self._check_tail(began)
            yield from batch[:-1]
            self.schedule.consume(began, number)  # with the batch's last window: whoever keeps a state with it, keeps this one
            yield batch[-1]

    def _check_batch_size(self) -> None:
        """Check the batch sampler that asks for windows: only it knows the size of its batches."""
        size = getattr(asks_batches(2), "batch_size", None)
        if isinstance(size, int) and size != self.schedule.batch_size:
            raise WindowError(
                f"sampler · batch_size: that of the DataLoader; the sampler has {self.schedule.batch_size}, the DataLoader "
                f"{size}, so that a state would count other windows than were served → give both the same, or use "
                "WindowDataLoader"
            )

    def _check_tail(self, began: Iteration) -> None:
        """Refuse uneven tails: a DataLoader cuts its own batches, and all but the last are full."""
        share, n = began.share, self.schedule.order.n_positions
        fewest = replace(share, rank=share.world_size - 1).n_batches(n, began.consumed)
        if fewest < replace(share, rank=0).n_batches(n, began.consumed):
            raise WindowError(
                f"sampler · ranks: equally many batches for each of {share.world_size} ranks, or training would wait for ever; "
                f"a DataLoader cannot cut {n - began.consumed:,} windows so in batches of {share.batch_size} → pass "
                "drop_last=True to the sampler and to the DataLoader, or use WindowDataLoader, which can"
            )

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch. Lightning and accelerate count iterations: for them the order continues where it is."""
        self.go_to(epoch)

    def state_dict(self, n_batches: int | None = None) -> dict[str, Any]:
        """State of the run after training consumed `n_batches` batches of the present iteration.

        Default: after those that the DataLoader has handed out, whatever its workers have prefetched.
        """
        if n_batches is None:
            self.count()
        elif self.began is not None:
            self.schedule.consume(self.began, n_batches)
            self.ahead = None
        elif n_batches:
            raise WindowError(f"sampler · state: an iteration has begun; got n_batches={n_batches} before it → pass 0")
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; like ``Schedule.load_state_dict``."""
        self.ahead = None
        self.schedule.load_state_dict(state)


class WindowDataLoader(DataLoader[Any]):
    """A torch DataLoader over a ``WindowDataset``, with this project's order and exact resume.

    For code that insists on a DataLoader; ``WindowLoader`` is faster. Its state counts the batches that were handed out,
    whatever its workers have prefetched. Each finished epoch leads to the next one; after an iteration that was left early the
    next one goes on where it was.

    Parameters
    ----------
    dataset : WindowDataset, or an adapter's data set with `windows`
    batch_size : int
    windows : WindowDataset, optional
        Whose windows are enumerated, where `dataset` makes something else of each. Default: `dataset`.
    order : mapping, optional
        ``shuffle``, ``seed``, ``rank``, ``world_size``, ``group``, ``drop_last``, ``locality``, ``repeat``, ``weights``,
        ``balance``, ``cover`` of ``WindowLoader``.
        They may be given by themselves as well, as torch spells it: ``WindowDataLoader(dataset, 16, drop_last=True)``.
    augment : Augment, or mapping of camera to Augment, optional
        As ``WindowLoader`` does, a whole batch at once, where the batch is: in memory, in the process that iterates.
    **options
        What DataLoader takes: ``num_workers``, ``pin_memory``, ``persistent_workers``, ``multiprocessing_context``, …

    Raises
    ------
    WindowError
        If an option would serve other windows than the order says: a sampler, or batches out of order; and when it is
        iterated, if a framework shards it a second time.
    """

    def __init__(
        self,
        dataset: WindowDataset | Dataset[Any],
        batch_size: int,
        *,
        windows: WindowDataset | None = None,
        order: Mapping[str, Any] | None = None,
        augment: Augments | None = None,
        **options: Any,
    ) -> None:
        _refuse_samplers(options)
        check_augment(augment)
        own = {name: options.pop(name) for name in ORDER_OPTIONS if name in options}
        if twice := [name for name in own if name in (order or {}) and own[name] != (order or {})[name]]:
            raise WindowError(
                f"WindowDataLoader · {twice[0]}: given once; got {own[twice[0]]!r}, and {(order or {})[twice[0]]!r} in order= "
                "→ leave one out"
            )
        enumerated = dataset if windows is None else windows
        if not isinstance(enumerated, WindowDataset):
            raise WindowError(
                f"WindowDataLoader · dataset: a WindowDataset; got {type(enumerated).__name__} → pass one, or windows= the "
                "WindowDataset whose windows it makes something of"
            )
        if isinstance(dataset, Sized) and len(dataset) != len(enumerated):
            raise WindowError(
                f"WindowDataLoader · windows: those that dataset makes something of; it has {len(dataset):,}, windows= has "
                f"{len(enumerated):,}, so that others would be served → pass the WindowDataset that this dataset reads"
            )
        if augment is not None and windows is not None:
            raise WindowError(
                "WindowDataLoader · augment: of the batches of a WindowDataset; by windows= dataset makes others of them "
                "→ leave it out, and call an Augment on what the batches hold"
            )
        self.schedule = Schedule([enumerated], batch_size, augment=told_augment(augment), **(dict(order or {}) | own))
        self._own: Iteration | None = None
        self._augmented = augmented_batches(enumerated.windows, augment, self.schedule.order.seed)
        options.setdefault("collate_fn", enumerated.collate if windows is None else None)
        batches = WindowBatchSampler(_Sharded(self.schedule))
        super().__init__(dataset, batch_size=batch_size, sampler=batches.sampler, **options)
        # DataLoader would cut batches itself; it keeps batch_size and sampler, which frameworks look at
        object.__setattr__(self, "batch_sampler", batches)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        began, n_batches, consumer = None, 0, Consumer()
        sampler: _Sharded = self.batch_sampler.sampler  # type: ignore[union-attr]
        try:
            for batch in super().__iter__():
                began = self._own = began or sampler.began
                assert began is not None
                n_batches += 1
                self.schedule.consume(began, n_batches)
                yield batch if self._augmented is None else self._augmented(batch, began.state.epoch)
                consumer.comes()
        finally:
            if began is sampler.began:
                sampler.ahead = self._own = None  # it is counted here

    def __len__(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self.schedule.n_batches

    def expected_coverage(self, n_epochs: float = 1) -> float:
        """The share of windows that `n_epochs` epochs should serve at least once, over all ranks; 1 without weights."""
        return self.schedule.expected_coverage(n_epochs)

    def forever(self) -> Endless:
        """Run epoch after epoch without an end, for loops that count steps."""
        return Endless(self)

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch. Not needed: each finished epoch leads to the next; a resumed one keeps its position."""
        self.schedule.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """State of the run; the batch that was handed out last counts as consumed."""
        sampler: _Sharded = self.batch_sampler.sampler  # type: ignore[union-attr]
        if self._own is not sampler.began:  # a DataLoader that accelerate made of its sampler iterates
            sampler.count()
        return self.schedule.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state; like ``Schedule.load_state_dict``."""
        self.schedule.load_state_dict(state)


def _refuse_samplers(options: Mapping[str, Any]) -> None:
    """Refuse options that would change this order, including those that a framework passes when it rebuilds a loader."""
    if options.get("sampler") is not None or options.get("batch_sampler") is not None:
        raise WindowError(
            "WindowDataLoader · sampler: it has its own, which serves each window once over all ranks → leave sampler and "
            "batch_sampler out; if a trainer passes one, tell it not to: Lightning's Trainer(use_distributed_sampler=False), "
            "and WindowLoader for predict() and overfit_batches"
        )
    if options.get("in_order") is False:
        raise WindowError("WindowDataLoader · in_order: True; a state counts batches in their order → leave it out")

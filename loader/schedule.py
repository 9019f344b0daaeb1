"""The epochs of a run: the windows of each batch, the run's position, saving and resuming it.

``loader.windows.order`` says what the order is, as a pure function; here it is kept for one run, and evaluated in blocks, which
is cheap. ``WindowLoader`` and ``WindowSampler`` share this, so that both have the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.arguments import task_rows
from robozarr.loader.frames.remote import KEPT_BYTES
from robozarr.loader.ranks import Ranks, refuse_workers
from robozarr.loader.windows.draws import Draws
from robozarr.loader.windows.nothing_left import check_not_empty
from robozarr.loader.windows.order import Mixture, Order
from robozarr.loader.windows.same import check_same_windows, fingerprint
from robozarr.loader.windows.share import Share
from robozarr.loader.windows.state import OrderState
from robozarr.loader.windows.weights import Balance, Weights, weights_of_windows
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import StepFlag

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from robozarr.loader.dataset import WindowDataset
    from robozarr.store.opened import Store

__all__ = ["REMOTE_LOCALITY", "Iteration", "Schedule", "WindowsOfBatch", "remote_locality"]

I64: TypeAlias = NDArray[np.int64]

BLOCK: Final = 4096
"""Positions of an epoch that are mapped together: the permutation takes 0.03 µs each in such blocks, 1 µs in blocks of 64."""

REMOTE_LOCALITY: Final = (32, 128)
"""Default locality for a store in a bucket: a block of 128×128 pictures is about 1 MB, worth a request; a batch of 64 comes
from some 50 places of the store. With larger pictures, groups have fewer blocks, so that a group still fits into memory."""


@dataclass(frozen=True, slots=True)
class WindowsOfBatch:
    """The windows of one batch."""

    dataset: I64 | None
    """Number of the dataset of each, int64 [n]; None where there is one."""
    windows: I64
    """int64 [n], of its dataset."""

    @property
    def parts(self) -> tuple[tuple[int, I64, I64 | None], ...]:
        """By dataset: (its number, its windows, where in the batch they go; None: in order)."""
        if self.dataset is None:
            return ((0, self.windows, None),)
        where = [(number, np.flatnonzero(self.dataset == number)) for number in np.unique(self.dataset).tolist()]
        return tuple((number, self.windows[at], at) for number, at in where)


@dataclass(frozen=True, slots=True, eq=False)
class Iteration:
    """One pass over the windows as it was when it began; later events do not change it."""

    state: OrderState
    share: Share
    n_batches: int
    """Number of this rank's batches."""

    @property
    def consumed(self) -> int:
        """Position in the epoch before this pass."""
        return self.state.consumed


class Schedule:
    """The batches of a rank, epoch after epoch.

    An iteration serves every window once. One that runs to its end leads to the next epoch, in another order. One that is left
    early is followed by one that begins where it was left, and has what was served already at its end; so loops of N steps
    serve every window before any comes again. Without `shuffle` each iteration begins at the first window.

    Parameters
    ----------
    datasets : sequence of WindowDataset
    batch_size : int
        Windows in a batch of one rank.
    shuffle, seed, drop_last, locality, repeat, weights, balance, cover, mixture, rank, world_size, group
        As for ``WindowLoader``.
    augment : str, optional
        What changes the pictures, in words (``told_augment``): a state of another one is refused.
    even : bool
        All ranks have equally many batches; False, for whoever sees to that.

    Raises
    ------
    WindowError
        If the options do not fit each other or the datasets.
    """

    def __init__(
        self,
        datasets: Sequence[WindowDataset],
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
        augment: str | None = None,
        even: bool = True,
    ) -> None:
        if not datasets:
            raise WindowError("order · datasets: at least one; got none → pass a WindowDataset")
        for name, value in (("shuffle", shuffle), ("drop_last", drop_last), ("cover", cover)):
            if not isinstance(value, bool | np.bool_):
                raise WindowError(f"order · {name}: True or False; got {value!r} → pass one of these")
        for dataset in datasets:
            check_not_empty(dataset.table)
        self._ranks = Ranks(rank, world_size, group)
        self.drop_last, self.shuffle, self.batch_size, self._even = bool(drop_last), bool(shuffle), batch_size, even
        Share(batch_size=batch_size, rank=rank or 0, world_size=1 + (rank or 0) if world_size is None else world_size)
        if repeat and (weights is not None or balance is not None):
            raise WindowError(
                "order · repeat: alone, or weights= and balance= instead; got both → {'flag': {StepFlag.KEY_MOMENT: 2.0}} in "
                "weights= says the same"
            )
        orders = []
        for number, (dataset, of_dataset) in enumerate(zip(datasets, _of_each(weights, len(datasets)), strict=True)):
            chosen = remote_locality(dataset.store) if locality is None and shuffle and dataset.store.remote else locality
            block, blocks = chosen if chosen else (None, None)
            repeats = dataset.table.weights(dataset.store.index.flags, repeat) if repeat else None
            order = Order(
                n_windows=len(dataset), seed=seed, stream=number, shuffle=shuffle, block=block, group=blocks,
                weights=repeats, draws=_draws(dataset, of_dataset, balance, cover),
            )  # fmt: skip
            orders.append(order)
        if mixture is None and len(orders) > 1:
            mixture = [order.n_positions for order in orders]  # each window as often as any other
        self.order: Order | Mixture = (
            orders[0] if mixture is None else Mixture(orders=tuple(orders), weights=tuple(mixture), seed=seed)
        )
        self._windows_of = [
            fingerprint(dataset.spec, dataset.table) | {"store": dataset.store.identity} for dataset in datasets
        ]
        self.augment = augment
        self.state = OrderState()
        self._resumed = False
        self._latest: Iteration | None = None
        self.positioned = False
        """Whether an iteration began, or a position was set."""
        self.counts: Callable[[], Any] | None = None
        """Gives the training loop whose counts this run follows since its beginning, while that is there."""

    @property
    def resumed(self) -> bool:
        """Whether a state was loaded, and no iteration has begun since."""
        return self._resumed

    @property
    def share(self) -> Share:
        """The share of this rank, by the rank and world size at this moment."""
        rank, world_size = self._ranks.here()
        return Share(batch_size=self.batch_size, rank=rank, world_size=world_size, drop_last=self.drop_last, even=self._even)

    def told_rank(self) -> str:
        """The rank of this process at this moment, in words."""
        try:
            return f"rank {self.share.rank} of {self.share.world_size}"
        except WindowError:
            return "rank not known"

    @property
    def n_batches(self) -> int:
        """Batches of this rank in a whole epoch."""
        return self._whole(self.share)

    @property
    def n_batches_left(self) -> int:
        """Batches of this rank in the next iteration: fewer than in an epoch if a state was loaded."""
        share = self.share
        return share.n_batches(self.order.n_positions, self._next(share).consumed) if self._whole(share) else 0

    @property
    def n_windows(self) -> int:
        """Windows of this rank in a whole epoch."""
        share = self.share
        self._whole(share)
        return len(share.positions(self.order.n_positions))

    def _whole(self, share: Share) -> int:
        """Batches of a whole epoch; an error if there are none, or if ranks would have different numbers."""
        n, per_batch = self.order.n_positions, share.batch_size * share.world_size
        n_batches = share.n_batches(n)
        if not n_batches:
            raise WindowError(
                f"order · drop_last: leaves full batches; {n:,} windows are no full batch of {share.batch_size} for each of "
                f"{share.world_size} ranks, so that nothing would be served → pass a smaller batch_size, or drop_last=False"
            )
        if not share.ends_evenly(n):
            tail = n % per_batch
            remedy = "pass drop_last=True, which leaves them out" if n > per_batch else "use fewer ranks or a wider selection"
            if share.batch_size == 1 and n > share.world_size:
                remedy += " (others each epoch), or a larger batch_size"
            raise WindowError(
                f"order · ranks: equally many batches for each of {share.world_size} ranks, or training would wait for ever; "
                f"the last {tail} of {n:,} windows cannot be shared so in batches of {share.batch_size} → {remedy}"
            )
        return n_batches

    def expected_coverage(self, n_epochs: float = 1) -> float:
        """The share of windows that `n_epochs` epochs in a row are expected to serve at least once, over all ranks.

        1 where every window is served each epoch. Less by weights below the average, where it follows exactly from them; and by
        ``drop_last``, which leaves out other windows each epoch.
        """
        if not isinstance(n_epochs, int | float | np.integer | np.floating) or isinstance(n_epochs, bool) or not n_epochs > 0:
            raise WindowError(f"order · n_epochs: a number above 0; got {n_epochs!r} → pass 1")
        share, n = self.share, self.order.n_positions
        per_batch = share.batch_size * share.world_size
        taken = n // per_batch * per_batch / n if share.drop_last else 1.0
        if self.shuffle or taken == 1:
            missed = 1 - taken if self.order.expected_coverage() == 1 else 0
            return (1 - missed**n_epochs) if missed else self.order.expected_coverage(n_epochs * taken)
        return self.order.expected_coverage(1) * taken

    def set_epoch(self, epoch: int) -> None:
        """Move to the beginning of an epoch; the present epoch is left as it is, so that a resumed run keeps its position."""
        self.positioned = True
        if epoch != self.state.epoch:
            self.state, self._resumed, self._latest = OrderState(epoch=epoch), False, None

    def go_to(self, n_epochs: int, per_epoch: int, n_batches: int = 0) -> None:
        """Move to where another counter says that the run is, counted from its beginning.

        Parameters
        ----------
        n_epochs, per_epoch : int
            So many iterations were made, each with so many batches of every rank; fewer than there are if each was left early.
        n_batches : int
            Of the iteration that is to go on; 0 if a new one is to begin.
        """
        share, whole = self.share, self.n_batches
        self.state, self._resumed, self._latest, self.positioned = OrderState(), False, None, True
        if per_epoch == whole:
            self.state = OrderState(epoch=n_epochs)
        else:
            for _ in range(n_epochs):
                self.state = self._next(share).after(self.order, share, per_epoch)
        if n_batches:
            self.state = self._next(share)
            left = n_batches < share.n_batches(self.order.n_positions, self.state.consumed)
            self.state = self.state.after(self.order, share, n_batches) if left else OrderState(epoch=self.state.epoch + 1)
            self._resumed = left

    def begin_anew(self) -> None:
        """Let the next iteration serve all windows, beginning with those that a loaded state has left."""
        self._resumed = False

    def _next(self, share: Share) -> OrderState:
        """Where the next iteration begins."""
        # a loaded state's rest; fewer windows than ranks would leave some ranks waiting: they come first in a whole pass
        if (self._resumed and share.ends_evenly(self.order.n_positions, self.state.consumed)) or not self.state.consumed:
            return self.state
        return self.state.following(self.order) if self.shuffle else OrderState(epoch=self.state.epoch)

    def begin(self) -> Iteration:
        """Begin an iteration: the rest of a loaded state, or all windows."""
        refuse_workers(divided=self._ranks.world_size is not None, positioned=self.positioned)
        share = self.share
        self._whole(share)
        self.state, self._resumed, self.positioned = self._next(share), False, True
        self._latest = Iteration(self.state, share, share.n_batches(self.order.n_positions, self.state.consumed))
        return self._latest

    def consume(self, began: Iteration, n_batches: int) -> None:
        """Count the batches handed out since an iteration began; the last one leads to the next epoch.

        Of several iterations at the same time the one that began last counts.
        """
        if began is not self._latest:
            return
        if n_batches < began.n_batches:
            self.state = began.state.after(self.order, began.share, n_batches)
        else:
            self.state = OrderState(epoch=began.state.epoch + 1)

    def batches(self, began: Iteration) -> Iterator[WindowsOfBatch]:
        """List this rank's batches of an iteration."""
        n, share, state = self.order.n_positions, began.share, began.state
        per_block = max(1, BLOCK // share.batch_size)
        for first in range(0, began.n_batches, per_block):
            positions = share.positions(n, start=state.consumed, batch=first, n_batches=per_block)
            ends = np.cumsum(share.sizes(n, start=state.consumed, batch=first, n_batches=per_block)).tolist()
            store, windows = self._windows((positions + state.start) % n, state.epoch)
            for at, end in zip([0, *ends], ends, strict=False):
                part = slice(at, end)
                yield WindowsOfBatch(None if store is None else store[part], windows[part])

    def _windows(self, positions: I64, epoch: int) -> tuple[I64 | None, I64]:
        if isinstance(self.order, Mixture):
            return self.order.windows(positions, epoch)
        return None, self.order.windows(positions, epoch)

    def state_dict(self) -> dict[str, Any]:
        """State of the run as JSON values; the batch that was handed out last counts as consumed."""
        return self.state.state_dict(self.order) | {"windows": self._windows_of, "augment": self.augment}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; batch size and world size may differ.

        Raises
        ------
        WindowError
            If the state belongs to another order, store, window, filter or augmentation; the text says what differs.
        """
        if not isinstance(state, Mapping):
            raise WindowError(f"order · state: what state_dict returned; got {state!r} → pass that")
        beside = ("windows", "augment")  # states of earlier versions lack them
        loaded = OrderState.load_state_dict({name: state[name] for name in state if name not in beside}, self.order)
        if "windows" in state:
            check_same_windows(state["windows"], self._windows_of)
        if state.get("augment", self.augment) != self.augment:
            raise WindowError(
                f"order · state: of this augmentation; saved with {state['augment']}, now {self.augment} → pass the same "
                "augment=, or take 'augment' out of the state to go on with another"
            )
        self.state, self._resumed, self._latest, self.positioned = loaded, True, None, True

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None, "counts": None}  # an iteration goes on where it began, not in a copy


def _of_each(weights: Any, n: int) -> list[Any]:
    """The weights of each dataset: one for all, or a list with one for each."""
    if n > 1 and isinstance(weights, list | tuple) and not all(isinstance(one, int | float | np.number) for one in weights):
        if len(weights) != n:
            raise WindowError(
                f"weights: one for each of {n} datasets; got {len(weights)} → pass None where nothing is weighted"
            )
        return list(weights)
    if n > 1 and weights is not None and not isinstance(weights, Mapping):
        raise WindowError(
            f"weights: of {n} datasets, a list with one entry for each, or a mapping that holds for all; got "
            f"{type(weights).__name__} → mixture= says how often each dataset is drawn from"
        )
    return [weights] * n


def _draws(dataset: WindowDataset, weights: Any, balance: Balance | None, cover: bool) -> Draws | None:
    """How often the windows of a dataset are drawn; None: once each."""
    store = dataset.store
    found = weights_of_windows(
        dataset.table, store.episodes.task, weights, balance, lambda: store.index.flags, lambda name: task_rows(store, [name])
    )
    if found is None or (found == found[0]).all():
        return None
    return Draws.by(found, None if cover else len(found))


def remote_locality(store: Store) -> tuple[int, int]:
    """Default `locality` for a store in a bucket; it depends only on the store, so that a run can be resumed."""
    block, group = REMOTE_LOCALITY
    sizes = [np.dtype(key.dtype).itemsize * int(np.prod(key.shape)) for key in store.metadata.keys if key.frame]
    most = KEPT_BYTES // 2 // (block * max(sizes, default=1))
    return block, min(group, 1 << max(0, most.bit_length() - 1))

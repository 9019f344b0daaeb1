"""A run's position in its epochs: three integers that hold for any world size and batch size. Imports no torch, no zarr."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from robozarr.loader.windows.permutation import N_MAX
from robozarr.loader.windows.share import Share, check_integer
from robozarr.schemas.errors import WindowError

__all__ = ["OrderState"]

KEYS = {"version", "epoch", "consumed", "order"}


class AnyOrder(Protocol):
    """``Order`` or ``Mixture``."""

    @property
    def n_positions(self) -> int: ...
    def fingerprint(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """A run's position in its order.

    An iteration serves all n positions of an epoch: start, start + 1, …, n - 1, 0, …, start - 1. `start` is 0, unless the
    iteration before it was left early: then it is where that one was left.

    >>> from robozarr.loader.windows.order import Order
    >>> order = Order(n_windows=100, seed=5)
    >>> state = OrderState(epoch=2).after(order, Share(world_size=4, batch_size=8), n_batches=3)
    >>> state.consumed, OrderState.load_state_dict(state.state_dict(order), order) == state
    (96, True)
    >>> state.following(order), OrderState(epoch=2, start=96, consumed=8).following(order)
    (OrderState(epoch=2, consumed=0, start=96), OrderState(epoch=3, consumed=0, start=0))
    """

    epoch: int = 0
    consumed: int = 0
    """Positions of the iteration that all ranks together have consumed: handed out, not prefetched."""
    start: int = 0
    """Position of the epoch at which the iteration began."""

    def __post_init__(self) -> None:
        check_integer("epoch", self.epoch, 0, 1 << 40)
        check_integer("consumed", self.consumed, 0, N_MAX)
        check_integer("start", self.start, 0, N_MAX)

    def after(self, order: AnyOrder, share: Share, n_batches: int) -> Self:
        """The state after each rank consumed more batches, under one `Share`; the epoch stays."""
        return replace(self, consumed=share.consumed(order.n_positions, self.consumed, n_batches))

    def following(self, order: AnyOrder) -> Self:
        """Where the next iteration begins after this one was left: with what it did not serve, or with the next epoch."""
        served = self.start + self.consumed
        return replace(self, start=served, consumed=0) if served < order.n_positions else type(self)(epoch=self.epoch + 1)

    def state_dict(self, order: AnyOrder) -> dict[str, Any]:
        """Return the state as JSON values, with what `load_state_dict` needs to refuse another order."""
        state = {"version": 1, "epoch": int(self.epoch), "consumed": int(self.consumed), "order": order.fingerprint()}
        return state | ({"start": int(self.start)} if self.start else {})

    @classmethod
    def load_state_dict(cls, state: Mapping[str, Any], order: AnyOrder) -> Self:
        """Read a state that `state_dict` returned.

        Raises
        ------
        WindowError
            The state is of another version, lacks a key, or belongs to another order: the text says what differs.
        """
        known = isinstance(state, Mapping) and set(state) - {"start"} == KEYS and isinstance(state["order"], Mapping)
        if not known or state["version"] != 1:
            raise WindowError(
                f"order · state: version 1 with epoch, consumed and order; got {state!r} "
                "→ resume with the robozarr that saved it"
            )
        here = order.fingerprint()
        missing = dict.fromkeys([*here, *state["order"]], "nothing")
        saved, now = missing | state["order"], missing | here
        differs = [f"{name}: saved {saved[name]}, now {now[name]}" for name in missing if saved[name] != now[name]]
        if differs:
            raise WindowError(
                f"order · state: belongs to this order; differs in {'; '.join(differs)} "
                "→ resume with the same store, filters, weights, seed and shuffle, or start a new run"
            )
        check_integer("consumed", state["consumed"], 0, order.n_positions)
        check_integer("start", state.get("start", 0), 0, max(0, order.n_positions - 1))
        return cls(epoch=state["epoch"], consumed=state["consumed"], start=state.get("start", 0))

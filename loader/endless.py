"""Run epoch after epoch without an end, for loops that count steps instead of epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from robozarr.schemas.errors import WindowError

__all__ = ["Endless"]


class Loader(Protocol):
    """The loader that is repeated: ``WindowLoader`` or ``WindowDataLoader``."""

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
    def set_epoch(self, epoch: int) -> None: ...


class Endless:
    """A loader's epochs one after the other. It has no length: a loop over it ends when the loop says so.

    Each epoch has another order, and every window once. `itertools.cycle` would keep all batches of the first epoch in memory,
    and serve them in the same order for ever.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        while True:
            n_batches = 0
            for batch in self.loader:
                n_batches += 1
                yield batch
            if not n_batches:
                raise WindowError("loader · forever: an epoch has batches; this one has none → use a smaller batch_size")

    def set_epoch(self, epoch: int) -> None:
        """Set the loader's epoch."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the loader's state."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the loader's state."""
        self.loader.load_state_dict(state)

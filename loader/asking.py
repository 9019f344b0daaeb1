"""Find out which framework asks a sampler for windows, from the call stack. Imports no torch.

A sampler has to know what no framework tells it: whether somebody shards its windows again, whose count an epoch is, how many
of the batches that were asked for have reached the training, and how far a run came that is resumed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

__all__ = ["SHARD", "Ahead", "Counted", "ahead_of_training", "asking", "asks_batches", "counted_by", "told_by"]

FRAMEWORKS: Final = ("accelerate", "pytorch_lightning", "lightning", "lightning_fabric")
TORCH: Final = "torch.utils.data.dataloader"
BATCHING: Final = ("torch.utils.data.sampler", "torchdata.stateful_dataloader.sampler")
SHARD: Final = "DataLoaderShard"
"""Accelerate's loader around a torch DataLoader, of one process as well."""


def asking() -> Iterator[str]:
    """Classes (or functions) of known frameworks whose code is running now, the caller's caller first.

    By the names of functions: to look at their variables would keep alive what those hold.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] in (*FRAMEWORKS, "torchdata"):
            yield frame.f_code.co_qualname.partition(".")[0]
        frame = frame.f_back


def told_by() -> Any:
    """Which framework's loader sets an epoch by its own count of iterations: accelerate's loader, "Lightning", or None."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name, module = frame.f_code.co_qualname, str(frame.f_globals.get("__name__", ""))
        if name == "_set_sampler_epoch" and module.startswith(FRAMEWORKS):
            return "Lightning"
        if name == f"{SHARD}.set_epoch" and module.startswith(FRAMEWORKS):
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


@dataclass(frozen=True, slots=True)
class Counted:
    """How far a training has come, by the counts of the loop that asks for windows."""

    loop: Any
    """The loop: Lightning's, or Trainer."""
    n_epochs: int
    """Its finished epochs."""
    n_batches: int | None = None
    """Batches of all its epochs together that were trained on; None of Trainer, which skips batches by itself."""
    n_of_this_epoch: int = 0
    """Those of an epoch that is not finished; 0 where the next one begins."""
    limit: int | float = 1.0
    """Batches of an epoch of it: so many, or this part of the loader's."""


def counted_by() -> Counted | None:
    """What Lightning's or Trainer's training loop has counted, if it asks for windows now; None of their validation.

    Lightning loads a loader's state only if its checkpoint is from the middle of an epoch, and none of a plain DataLoader;
    Trainer loads none at all, and tells a plain DataLoader's sampler no epoch. Both keep these counts in their checkpoints.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module, name = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        if module.startswith(FRAMEWORKS) and ".loops." in module:
            if module.endswith(("evaluation_loop", "prediction_loop")):
                return None
            if module.endswith("fit_loop"):
                return _counted_by_lightning(frame.f_locals.get("self"))
        if module == "transformers.trainer" and name != "get_batch_samples":
            return _counted_by_trainer(frame)
        frame = frame.f_back
    return None


def _counted_by_lightning(loop: Any) -> Counted:
    """`batch_progress` counts a batch as processed before the hooks that save checkpoints are called."""
    progress, n_epochs = loop.epoch_loop.batch_progress, int(loop.epoch_progress.current.processed)
    total, latest = int(progress.total.processed), int(progress.current.processed)
    ended = n_epochs > 0 and total == n_epochs * latest  # the latest batches are of an epoch that is counted already
    return Counted(loop, n_epochs, total, 0 if ended else latest, loop.trainer.limit_train_batches)


def _counted_by_trainer(frame: FrameType) -> Counted | None:
    """The counts of a resumed run, found by variables that only Trainer's loop over epochs has."""
    there = frame.f_locals if frame.f_code.co_name in ("_run_epoch", "_inner_training_loop") else {}
    if not there.get("resume_from_checkpoint") or "epoch" not in there:
        return None
    return Counted(there["self"], int(there["epoch"]))


def asks_batches(depth: int) -> Any:
    """The batch sampler that asks for windows, `depth` frames above the caller; None if something else does."""
    frame = sys._getframe(depth + 1)
    return frame.f_locals.get("self") if frame.f_globals.get("__name__") in BATCHING else None


@dataclass(slots=True)
class Ahead:
    """Batches of one iteration that were asked for and have not reached the training yet."""

    in_workers: Sized
    """Torch's record of batches that its workers have: an entry goes when its batch is handed out."""
    holds_one: bool
    """Whether accelerate's loader asks: it keeps one batch back, until it knows which is the last."""
    holder: Callable[[], Any]
    """That loader, while it is there."""
    asked: int = 0
    left_early: bool | None = None
    """Of accelerate's loader, whether its iteration was left before the last batch; None: ask it."""

    def handed_out(self, n_batches: int) -> int:
        """Batches that have reached the training, of an iteration of `n_batches`."""
        arrived = self.asked - len(self.in_workers)
        if not self.holds_one or not arrived:
            return arrived
        left_early = self.left_early
        if left_early is None:
            left_early = not getattr(self.holder(), "end_of_dataloader", True)
        return arrived - (arrived < n_batches or left_early)


def ahead_of_training(holder: Callable[[], Any]) -> Ahead:
    """Look, as an iteration begins, at the torch DataLoader that asks, if one does; `holder` gives accelerate's around it."""
    nothing: Sized = ()
    frame, below = sys._getframe(1), ""
    while frame is not None:
        if frame.f_code.co_name == "_next_index":
            if "BatchSampler" not in below:  # single windows are asked for, which no count of batches tells of
                return Ahead(in_workers=nothing, holds_one=False, holder=holder)
            iterator = frame.f_locals.get("self")
            if type(iterator).__module__ == TORCH:  # torchdata's keeps a state with each batch that it asks for
                in_workers = getattr(iterator, "_task_info", nothing)
                return Ahead(in_workers=in_workers, holds_one=SHARD in asking(), holder=holder)
        frame, below = frame.f_back, frame.f_code.co_qualname  # type: ignore[assignment]
    return Ahead(in_workers=nothing, holds_one=SHARD in asking(), holder=holder)

"""Follow a resumed training: move a schedule to where it is, by a loaded state, or by the counts of Lightning or Trainer.

Both count epochs and batches in their checkpoints. Lightning loads a loader's state only if it was saved in the middle of an
epoch; Trainer loads none, and skips batches of the epoch that it is in.
"""

from __future__ import annotations

from weakref import ref

from robozarr.loader.asking import SHARD, Counted, asking, counted_by
from robozarr.loader.schedule import Schedule
from robozarr.schemas.errors import WindowError

__all__ = ["follow_training"]


def follow_training(schedule: Schedule) -> bool:
    """Move to where the training is whose loop begins an iteration now, unless the schedule is there already.

    Returns
    -------
    bool
        Whether a loop of Lightning's training is followed, which needs to set no epoch.

    Raises
    ------
    WindowError
        If batches of an epoch would be skipped that nobody named, or once more than a loaded state skips them; or if accelerate
        keeps the position by torchdata, which counts batches of a batch sampler and knows no epoch.
    """
    names = set(asking())
    counted, skips = counted_by(), "SkipBatchSampler" in names
    if SHARD in names and any(name.startswith("_Stateful") for name in names):
        raise WindowError(
            "order · use_stateful_dataloader: off; with it accelerate would resume in the order of epoch 0, and an iteration "
            "left early would lose what was read ahead → leave it out, and save the position by "
            "accelerator.register_for_checkpointing(loader), of a plain DataLoader (sampler)"
        )
    if skips and schedule.resumed and schedule.state.consumed:
        raise WindowError(
            "order · state: loaded, or batches skipped, and not both; this loader is at the position of its state, and "
            "skip_first_batches leaves out as many batches once more → do not load the state, or do not skip (Trainer: "
            "ignore_data_skip=True)"
        )
    if skips and counted is None and not schedule.positioned:
        raise WindowError(
            "order · epoch: known, where a resumed run skips its batches; nobody called set_epoch, so that those of epoch 0 "
            "would be skipped, whatever the epoch was → call set_epoch(epoch) of the loader, or of the sampler, before "
            "skip_first_batches"
        )
    if counted is None:
        return False
    if counted.n_batches is None:
        if not schedule.resumed:
            schedule.set_epoch(counted.n_epochs)
        return False
    followed = schedule.counts is not None and schedule.counts() is counted.loop
    schedule.counts = ref(counted.loop)
    if counted.n_batches and not followed:
        whole = schedule.n_batches
        per_epoch = min(counted.limit, whole) if isinstance(counted.limit, int) else int(whole * counted.limit)
        if not schedule.resumed:
            _follow(schedule, counted, counted.n_batches, per_epoch)
        if not 0 < counted.n_of_this_epoch < per_epoch:  # an epoch of it begins, with what a loaded state has left first
            schedule.begin_anew()
    return True


def _follow(schedule: Schedule, counted: Counted, n_batches: int, per_epoch: int) -> None:
    """Move to the end of so many epochs and batches, or to an epoch's beginning if they were of another size."""
    n_epochs, latest = counted.n_epochs, counted.n_of_this_epoch
    if n_batches - latest == n_epochs * per_epoch:
        schedule.go_to(n_epochs, per_epoch, latest)
    elif per_epoch == schedule.n_batches:  # counted with another batch size or world size
        schedule.go_to(n_epochs, per_epoch)
    else:  # with other epochs: nothing is left out, if less than an epoch is served twice
        n_passes, rest = divmod(n_batches, schedule.n_batches)
        schedule.go_to(n_passes, schedule.n_batches, rest)
        schedule.begin_anew()

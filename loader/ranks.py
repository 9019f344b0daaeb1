"""Find this process's rank and world size, and detect a second sharding of windows. Imports torch.

Both are asked when an iteration begins, never when a loader is made: a process group often comes later than the loader.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from robozarr.loader.asking import asking
from robozarr.schemas.errors import WindowError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Ranks", "refuse_second_sharding", "refuse_workers"]

SHARDERS: Final = {
    "BatchSamplerShard": (
        "Accelerate's prepare() → do not prepare this loader: loader.set_epoch, state_dict and the batches' device "
        '(device=accelerator.device) are its own; save its position by accelerator.register_for_checkpointing(loader)'
    ),
    "DataLoaderDispatcher": (
        "Accelerate's prepare() with dispatch_batches → do not prepare this loader; save its position by "
        "accelerator.register_for_checkpointing(loader)"
    ),
    "DistributedSamplerWrapper": "Lightning's sampler → pass Trainer(use_distributed_sampler=False)",
}  # fmt: skip
"""Classes that take a share of a sampler's windows → what to write instead."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Source of rank and world size: given numbers, a process group, or torch.distributed as a whole."""

    rank: int | None = None
    world_size: int | None = None
    group: ProcessGroup | None = None

    def here(self) -> tuple[int, int]:
        """Rank and world size of this process, at this moment.

        Raises
        ------
        WindowError
            If what was given is not what torch.distributed says, or torchrun started several processes and nobody says which
            of them this is.
        """
        given = (self.rank, self.world_size)
        found = _of_group(self.group)
        if found is None:
            if given == (None, None):
                _refuse_torchrun_without_a_group()
            found = (0, 1)
        elif (given[0] not in (None, found[0])) or given[1] not in (None, found[1]):
            whose = "torch.distributed" if self.group is None else "group="
            raise WindowError(
                f"order · rank, world_size: as torch.distributed has them; given {_told(given)}, {whose} says rank "
                f"{found[0]} of {found[1]} → leave both out: they are looked up when an iteration begins; where ranks share "
                "windows in smaller groups (data parallel beside tensor parallel), pass group= that process group"
            )
        return found[0] if given[0] is None else given[0], found[1] if given[1] is None else given[1]


def _of_group(group: ProcessGroup | None) -> tuple[int, int] | None:
    import torch.distributed as distributed

    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(group), distributed.get_world_size(group)
    return None


def _refuse_torchrun_without_a_group() -> None:
    import torch.distributed as distributed

    # torchrun's own protocol with the processes that it starts; not a setting of this package
    started = os.environ.get("WORLD_SIZE", "1")
    if distributed.is_available() and distributed.is_torchelastic_launched() and started not in ("", "1"):
        raise WindowError(
            f"order · rank: torchrun started {started} processes, and torch.distributed is not in use yet, so that each would "
            "serve every window → call torch.distributed.init_process_group() before iterating, or pass rank=0, world_size=1 "
            "if each process is to have them all"
        )


def _told(given: tuple[int | None, int | None]) -> str:
    return " and ".join(
        f"{name}={value}" for name, value in zip(("rank", "world_size"), given, strict=True) if value is not None
    )


def refuse_second_sharding(world_size: int) -> None:
    """Refuse to serve a share of a share; called when windows are handed out for iteration.

    Raises
    ------
    WindowError
        If a framework takes its share of what is this rank's share already; the text says what to write.
    """
    owner = next((name for name in asking() if name in SHARDERS), None) if world_size > 1 else None
    if owner is not None:
        raise WindowError(
            f"order · ranks: each of {world_size} ranks gets its share once; this loader takes turns by rank itself, "
            f"and is sharded a second time by {SHARDERS[owner]}"
        )


def refuse_workers(*, divided: bool, positioned: bool) -> None:
    """Refuse to iterate in a DataLoader's worker, where nobody divides windows among workers, or says which epoch it is.

    Parameters
    ----------
    divided : bool
        Whether somebody gave `world_size`, and so can have counted the workers.
    positioned : bool
        Whether somebody set the epoch. What a worker has served, the process that made it does not know.

    Raises
    ------
    WindowError
        The text says how many workers there are, and what to write.
    """
    from torch.utils.data import get_worker_info

    worker = get_worker_info()
    if worker is None or ((divided or worker.num_workers == 1) and positioned):
        return
    what = "each would serve every window" if worker.num_workers > 1 and not divided else "each epoch would be epoch 0 again"
    raise WindowError(
        f"order · workers: a loader is iterated in the process that trains; this is worker {worker.id} of {worker.num_workers} "
        f"of a DataLoader, and {what} → num_workers=0 (WindowLoader has threads of its own), or WindowDataLoader(dataset, "
        "batch_size, num_workers=…)"
    )

"""Helpers for OpenVLA's and openpi's samples of LIBERO: pairing, no-ops, the 8-D state, turning pictures."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.adapters.instructions import Wording, warn_without_words, wordings
from robozarr.loader.adapters.turning import (
    Turn,
    channels_last,
    check_pictures,
    check_turn,
    lines_first,
    turn_pictures,
    upside_down,
)
from robozarr.loader.arguments import numbers_of
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.windows.selection import rows_of
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store, open_store

__all__ = ["LiberoWindows", "gripper_open", "pictures", "proprio_of"]

I64: TypeAlias = NDArray[np.int64]

STATES = ("ee_pos", "ee_ori", "gripper_states")


class LiberoWindows:
    """Windows with one picture per camera, the state at that step, and a chunk of the actions chosen after it was seen.

    Parameters
    ----------
    store : Store or path
    chunk : int
    drop_noops : bool
        Leave out anchors whose action is a no-op, and no-ops inside chunks.
    wording : "file" or "name"
        The instruction as the file states it, or as the file's name words it; the other where there is none of it.
    turn : "rotate", "upright" or "none"
    images : keys, optional
        Exterior and wrist camera.
    **filters
        Of ``WindowDataset``.
    """

    def __init__(
        self,
        store: Store | str | Path,
        *,
        chunk: int,
        drop_noops: bool,
        wording: Wording,
        turn: Turn,
        images: Sequence[str] = ("agentview_rgb", "eye_in_hand_rgb"),
        **filters: Any,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self.images, self.chunk = tuple(images), chunk
        offsets: dict[str, Any] = {key: [0] for key in (*images, *STATES, "actions")}
        if drop_noops:
            filters["exclude_flags"] = filters.get("exclude_flags", StepFlag(0)) | StepFlag.NOOP
        # offset 0 of a causal window is the action chosen after the picture was seen
        upright = lines_first(self.store, self.images) if turn == "upright" else ()
        self.dataset = WindowDataset(self.store, WindowSpec(offsets, causal=True), upright=upright, **filters)
        flags = self.store.index.flags
        kept = (flags & int(StepFlag.NOOP)) == 0 if drop_noops else np.ones(len(flags), bool)
        self._kept: I64 = np.flatnonzero(kept)
        self._kept_number: I64 = np.cumsum(kept) - 1  # row → its number among those that are kept
        self._texts = wordings(self.store, wording)
        warn_without_words(self.store, self._texts, self.dataset.table.served, "prompt")
        check_pictures(self.dataset, self.images)
        check_turn(turn)
        self.turn = turn
        n_episodes = self.store.n_episodes
        later = turn == "rotate" or (turn == "upright" and len(upright) < len(self.images))
        self.upside_down = upside_down(self.dataset) if later else np.zeros(n_episodes, bool)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def actions(self) -> NDArray[np.float64]:
        """float64 [n_steps, 7], as recorded."""
        return self.dataset.windows.reader.column("actions").astype(np.float64)

    def split(self, share: float, **options: Any) -> tuple[Self, Self]:
        """Two parts without an episode in common; `share` and `options` are those of ``WindowDataset.split``."""
        parts = copy(self), copy(self)
        for part, dataset in zip(parts, self.dataset.split(share, **options), strict=True):
            part.dataset = dataset
        return parts

    def instructions(self, batch: Sample) -> list[str]:
        """One instruction per window; "" where there is none."""
        return [self._texts[episode] for episode in batch["episode"].tolist()]

    def read(self, windows: Sequence[int]) -> Sample:
        """Read one batch into new memory; IndexError for a window that does not exist."""
        return self.dataset.read(numbers_of(windows, len(self)))

    def rows(self, batch: Sample) -> tuple[I64, I64, NDArray[np.bool_]]:
        """Rows of the anchors [b], of their actions [b, chunk] among the kept ones, and which actions lie after the end.

        Those behind the end are the episode's last kept action again.
        """
        table = self.dataset.table
        episode, step = batch["episode"].cpu().numpy(), batch["step"].cpu().numpy()
        row = table.start[episode] + step
        place = self._kept_number[row + table.shift[episode]][:, None] + np.arange(self.chunk)
        last = self._kept_number[table.stop[episode] - 1][:, None]
        return row, self._kept[np.minimum(place, last)], place > last

    def anchor_rows(self) -> I64:
        """Rows of all anchors."""
        return rows_of(self.dataset.table.runs)

    def action_rows(self) -> I64:
        """Rows of the first action of each window."""
        rows = self.anchor_rows()
        episode, _ = self.dataset.table.locate(rows)
        return rows + self.dataset.table.shift[episode]


def gripper_open(command: NDArray[np.float64]) -> NDArray[np.float64]:
    """LIBERO's gripper command (-1 opens, +1 closes) in OpenVLA's form: 1 open, 0 closed (oxe/transforms.py).

    >>> gripper_open(np.array([-1.0, 1.0, 0.25])).tolist()
    [1.0, 0.0, 0.75]
    """
    return 1 - np.clip(command, 0, 1)


def proprio_of(windows: LiberoWindows) -> NDArray[np.float64]:
    """float64 [n_steps, 8]: end-effector position, axis-angle, two fingers (oxe/configs.py: EEF_state, gripper_state)."""
    column = windows.dataset.windows.reader.column
    return np.concatenate([column(name) for name in STATES], axis=1, dtype=np.float64)


def pictures(batch: Sample, windows: LiberoWindows, names: Sequence[str]) -> Sample:
    """Pictures of a batch under other names, turned: uint8 [b, 1, y, x, 3]."""
    over = windows.upside_down[batch["episode"].cpu().numpy()]
    return {
        name: turn_pictures(
            channels_last(batch[key], windows.dataset, key),
            over & (key not in windows.dataset.upright),  # those were turned while they were read
            windows.turn == "rotate",
        )
        for key, name in zip(windows.images, names, strict=False)
    }

"""Refuse empty selections, and keys that would be nothing but padding. Imports no zarr, no torch."""

from __future__ import annotations

import numpy as np

from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.window import WindowSpec

__all__ = ["check_not_empty", "check_reach"]

REMEDIES = {
    "success": "unknown_success=True keeps episodes whose success is not recorded, which all of LIBERO's are",
    "causal": "a causal window needs an action after its observation: use offsets inside the episodes, or causal=False",
    "only_flags": "only_flags= keeps steps that have one of these flags; leave it out to keep all",
}


def check_not_empty(table: WindowTable) -> None:
    """Refuse a selection without windows; the text says which filter left out how many steps.

    >>> from types import SimpleNamespace as Table
    >>> from robozarr.loader.windows.selection import Selection
    >>> episodes = Table(start=np.array([0]), length=np.array([3]), alignment=np.array([1]), success=np.array([-1]), splits={})
    >>> store = Table(keys=(Table(name="actions", ragged=False, role="action"),), n_steps=3)
    >>> check_not_empty(WindowTable.build(store, episodes, WindowSpec({"actions": [0]}), selection=Selection(success=True)))
    Traceback (most recent call last):
    robozarr.schemas.errors.WindowError: filter · windows: no window is left; of 3 steps, left out: 3 by success → unknown_success=True keeps episodes whose success is not recorded, which all of LIBERO's are
    """  # noqa: E501 - what it prints
    if table.n_windows:
        return
    n_steps = int(table.stop[-1]) if table.stop.size else 0
    reasons = [entry.reason for entry in table.left_out]
    remedies = [REMEDIES[reason] for reason in reasons if reason in REMEDIES]
    raise WindowError(
        f"filter · windows: no window is left; of {n_steps:,} steps, left out: "
        f"{', '.join(map(str, table.left_out)) or 'none'} → {'; '.join(remedies) or 'take back one of these filters'}"
    )


def check_reach(spec: WindowSpec, table: WindowTable) -> None:
    """Refuse a key whose offsets all lie outside every episode, counted from any step."""
    served = table.served if table.n_windows else np.ones(len(table.stop), bool)
    length, shift = (table.stop - table.start)[served], table.shift[served]
    for key, (name, group, _) in zip(spec.keys, table.keys, strict=True):
        offsets, moves = table.groups[group]
        near = np.abs(offsets[:, None] + (shift if moves else 0)) < length
        if length.size and not near.any():
            raise WindowError(
                f"window · {name}: steps inside an episode; all of its offsets, {min(key.offsets)} to {max(key.offsets)}, lie "
                f"beyond every episode, of which the longest has {length.max()} steps: it would be nothing but padding "
                "→ offsets are relative to step t of the window: range(64) is t and the 63 steps after it"
            )

"""Weights of windows, with fractions: by window, episode, task, flag, or balanced. Imports no torch.

``loader.windows.order`` makes an order of them. A weight says how often a window is served beside the others: twice the weight,
twice as often. What is 0 would be left out without a word: it is refused, filters are for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robozarr.loader.windows.selection import flags_at_anchors, rows_of
from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import FLAG_MASK, StepFlag

__all__ = ["Balance", "Weights", "weights_of_windows"]

F64: TypeAlias = NDArray[np.float64]
Balance = Literal["task", "episode"]
Weights: TypeAlias = ArrayLike | Mapping[Any, Any]
"""Float [n_windows]; or by kind: ``{"task": {"open it": 2.0}, "episode": {3: 0.5}, "flag": {StepFlag.KEY_MOMENT: 4}}``."""
KINDS: Final = ("window", "episode", "task", "flag")


def weights_of_windows(
    table: WindowTable,
    task_of_episode: NDArray[np.integer[Any]],
    weights: Weights | None,
    balance: Balance | None,
    flags: Callable[[], NDArray[np.uint8]],
    rows_of_task: Callable[[str], list[int]],
) -> F64 | None:
    """The weight of each window: the product of all that is given.

    Parameters
    ----------
    table : WindowTable
    task_of_episode : int [episode]
    weights : float [n_windows], or a mapping
        ``"window"``: float [n_windows]. ``"episode"``, ``"task"``: float, one for each row of the store's table, or a mapping
        of row (of tasks also name or instruction) to float; what is not mentioned has 1. ``"flag"``: a mapping of flags to
        float, looked up as filters do; where several apply, they are multiplied.
    balance : "task" or "episode", optional
        Divide by the number of windows of the same task (episode): each is served equally often, times its other weights.
    flags : function
        The store's flags, uint8 [n_steps]; called if they are needed.
    rows_of_task : function
        Rows of the tasks that a name means.

    Returns
    -------
    float64 [n_windows], or None where nothing is weighted

    Raises
    ------
    WindowError
        If a weight is not a finite number above 0, or is of nothing that is there.
    """
    if balance not in (None, *get_args(Balance)):
        raise WindowError(f"weights · balance: 'task', 'episode' or None; got {balance!r} → pass one of these")
    if weights is None and balance is None:
        return None
    by_kind = weights if isinstance(weights, Mapping) else {} if weights is None else {"window": weights}
    if unknown := [kind for kind in by_kind if kind not in KINDS]:
        raise WindowError(
            f"weights: by {', '.join(KINDS)}; got {', '.join(map(repr, unknown))} → pass {{'task': {{'open the drawer': "
            "2.0}}, say, or one number for each window"
        )
    episode = table.episode_of_windows()
    task = np.asarray(task_of_episode)[episode]
    n_tasks = int(np.max(task_of_episode, initial=-1)) + 1
    found = np.ones(table.n_windows)
    if "window" in by_kind:
        found *= _array("window", by_kind["window"], table.n_windows)
    if "episode" in by_kind:
        found *= _by_row("episode", by_kind["episode"], len(table.stop), None)[episode]
    if "task" in by_kind:
        found *= _by_row("task", by_kind["task"], n_tasks, rows_of_task)[task]
    if "flag" in by_kind:
        found *= _by_flag(by_kind["flag"], table, flags())
    if balance is not None:
        group = task if balance == "task" else episode
        found /= np.bincount(group)[group]
    return found


def _array(kind: str, given: Any, n: int) -> F64:
    values = np.asarray(given)
    if values.shape != (n,) or values.dtype.kind not in "iuf":
        raise WindowError(
            f"weights · {kind}: a number for each of {n:,} {kind}s; got {values.dtype} {list(values.shape)} → pass as many"
        )
    wanted = values.astype(np.float64)
    if n and not (np.isfinite(wanted) & (wanted > 0)).all():
        at = int(np.flatnonzero(~(np.isfinite(wanted) & (wanted > 0)))[0])
        raise _not_above_zero(f"{kind} {at}", given=wanted[at])
    return wanted


def _not_above_zero(what: str, given: Any) -> WindowError:
    return WindowError(
        f"weights · {what}: a finite number above 0; got {given!r} → leave windows out by a filter (tasks=, episodes=, "
        "windows=), never by weight"
    )


def _number(what: str, given: Any) -> float:
    number = isinstance(given, int | float | np.integer | np.floating) and not isinstance(given, bool)
    if not number or not np.isfinite(given) or given <= 0:
        raise _not_above_zero(what, given)
    return float(given)


def _by_row(kind: str, given: Any, n: int, rows_of_name: Callable[[str], list[int]] | None) -> F64:
    if not isinstance(given, Mapping):
        return _array(kind, given, n)
    values = np.ones(n)
    for name, weight in given.items():
        whole = isinstance(name, int | np.integer) and not isinstance(name, bool)
        rows = [int(name)] if whole else rows_of_name(name) if isinstance(name, str) and rows_of_name is not None else [-1]
        if not all(0 <= row < n for row in rows):
            raise WindowError(
                f"weights · {kind}: in [0, {n}), rows of the store's {kind} table; got {name!r} → look them up there"
            )
        values[rows] *= _number(f"{kind} {name!r}", weight)
    return values


def _by_flag(given: Any, table: WindowTable, flags: NDArray[np.uint8]) -> F64:
    values = np.ones(table.n_windows)
    if not isinstance(given, Mapping):
        raise WindowError(
            f"weights · flag: a mapping of StepFlag to numbers; got {given!r} → pass {{rz.StepFlag.KEY_MOMENT: 4.0}}"
        )
    at_anchors = flags_at_anchors(flags, table.stop, table.shift)[rows_of(table.runs)]
    for flag, weight in given.items():
        known = isinstance(flag, int | np.integer) and not isinstance(flag, bool) and 0 < int(flag) <= FLAG_MASK
        if not known:
            raise WindowError(f"weights · flag: flags of StepFlag; got {flag!r} → pass StepFlag.KEY_MOMENT")
        values[(at_anchors & int(flag)) != 0] *= _number(f"flag {StepFlag(int(flag))!r}", weight)
    return values

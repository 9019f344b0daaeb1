"""Choose the rows that are anchors: filters, the causal rule, and what they leave out. Pure numpy; imports no zarr, no torch.

Every step of every selected episode is an anchor. What a filter or ``causal`` leaves out is counted under exactly one
reason and can be listed, so windows and what is left out always add up to the store's steps.

Rows are held as *runs*, int64 [n_runs, 2]: half-open ranges of rows, ascending, neither empty nor touching. A whole store is
one run; memory grows with the gaps between anchors, never with the steps.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.windows.narrowing import check_max_padding, check_stride
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import FLAG_MASK, StepFlag
from robozarr.schemas.window import ACTION_FLAGS

__all__ = [
    "EpisodeColumns",
    "LeftOut",
    "Selection",
    "choose_anchors",
    "choose_episodes",
    "did_you_mean",
    "flags_at_anchors",
    "mask_of_runs",
    "narrow",
    "rows_of",
    "runs_of",
    "runs_of_episodes",
]

I64: TypeAlias = NDArray[np.int64]
U8: TypeAlias = NDArray[np.uint8]
Bool: TypeAlias = NDArray[np.bool_]

NO_FLAGS: Final = StepFlag(0)


class EpisodeColumns(Protocol):
    """The columns of the episode table that are needed; ``store.opened.Episodes`` has them. Every column is [n_episodes]."""

    @property
    def length(self) -> I64: ...  # noqa: D102
    @property
    def start(self) -> I64: ...  # noqa: D102
    @property
    def task(self) -> NDArray[np.int32]: ...  # noqa: D102
    @property
    def success(self) -> NDArray[np.int8]: ...  # noqa: D102
    @property
    def alignment(self) -> NDArray[np.int8]: ...  # noqa: D102
    @property
    def splits(self) -> Mapping[str, Bool]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filters of windows: an anchor must pass every filter that is given. The default selects all.

    >>> Selection(tasks=[0, 3], exclude_flags=StepFlag.NOOP | StepFlag.STILL).needs_flags
    True
    """

    tasks: Sequence[int] | None = None
    """Rows of the task table; the caller has looked up names and instructions."""
    episodes: Sequence[int] | None = None
    """Rows of the episode table."""
    split: str | None = None
    """Name of a split; its members are kept."""
    success: bool | None = None
    """Keep episodes recorded as a success (True) or as a failure (False)."""
    unknown_success: bool = False
    """With `success`: also keep episodes of unknown success, which all of LIBERO's are."""
    exclude_flags: StepFlag = NO_FLAGS
    """Leave out anchors with any of these flags."""
    only_flags: StepFlag = NO_FLAGS
    """Anchors without any of these are left out; 0 for no such filter."""
    stride: int | None = None
    """Anchors at steps 0, stride, 2 · stride, … of each episode; None for every step."""
    max_padding: int | Mapping[str, int] | None = None
    """How many offsets of a key, each one or those that are named, may lie outside the episode; None for any number."""
    rows: Bool | None = field(default=None, repr=False, compare=False)
    """Bool [n_steps]: rows of the store that may be anchors; None for all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", check_stride(self.stride))
        object.__setattr__(self, "max_padding", check_max_padding(self.max_padding))
        for name in ("tasks", "episodes"):
            value = getattr(self, name)
            if value is None:
                continue
            rows = tuple(value) if isinstance(value, Iterable) else (None,)
            if not all(isinstance(row, int | np.integer) and not isinstance(row, bool) for row in rows):
                raise WindowError(
                    f"filter · {name}: a list of rows of the {name[:-1]} table; got {value!r} → look them up there"
                )
            object.__setattr__(self, name, tuple(int(row) for row in rows))
        for name in ("exclude_flags", "only_flags"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= FLAG_MASK:
                raise WindowError(
                    f"filter · {name}: flags of StepFlag; got {value!r} → pass, for example, StepFlag.NOOP | StepFlag.STILL"
                )
            object.__setattr__(self, name, StepFlag(int(value)))

    @property
    def needs_flags(self) -> bool:
        """Whether ``index/flags`` has to be read."""
        return bool(self.exclude_flags | self.only_flags)


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Anchors that were left out for one reason: the first that applies, in the order that `reason` lists."""

    reason: str
    """``tasks``, ``episodes``, ``split``, ``success``, ``causal``, ``exclude_flags NOOP`` (or another), ``only_flags``,
    ``stride 5`` (or another), ``padding``, ``windows``, ``split 0.9`` (what is in the other part)."""
    runs: I64
    """int64 [n_runs, 2]: half-open ranges of rows of the store."""

    @property
    def n_anchors(self) -> int:
        """Number of anchors that were left out."""
        return int((self.runs[:, 1] - self.runs[:, 0]).sum())

    def rows(self) -> I64:
        """Rows of the store that were left out: int64 [n_anchors], ascending; ``WindowTable.locate`` gives episode and step."""
        return rows_of(self.runs)

    def __str__(self) -> str:
        return f"{self.n_anchors:,} by {self.reason}"


def choose_episodes(episodes: EpisodeColumns, selection: Selection) -> tuple[Bool, dict[str, Bool]]:
    """Choose the episodes that pass the filters about episodes.

    Returns
    -------
    chosen : bool [episode]
    left_out : bool [episode] by reason
        Each episode that is not chosen is left out for one reason, the first that applies.

    Raises
    ------
    WindowError
        If a filter names a task, an episode or a split that is not there.
    """
    n = len(episodes.length)
    passes: dict[str, Bool] = {}
    if selection.tasks is not None:
        _exist("tasks", selection.tasks, int(episodes.task.max(initial=-1)) + 1)
        passes["tasks"] = np.isin(episodes.task, selection.tasks)
    if selection.episodes is not None:
        _exist("episodes", selection.episodes, n)
        passes["episodes"] = np.isin(np.arange(n), selection.episodes)
    if selection.split is not None:
        if selection.split not in episodes.splits:
            raise WindowError(_no_such_split(selection.split, list(episodes.splits)))
        passes["split"] = np.asarray(episodes.splits[selection.split], bool)
    if selection.success is not None:
        wanted = [int(selection.success)] + [-1] * selection.unknown_success
        passes["success"] = np.isin(episodes.success, wanted)
    chosen, left_out = np.ones(n, bool), {}
    for reason, passing in passes.items():
        left_out[reason] = chosen & ~passing
        chosen = chosen & passing
    return chosen, left_out


def _no_such_split(got: str, there: list[str]) -> str:
    if not there:
        return (
            f"filter · split: a split of the store; got {got!r}, and this store has no splits, as LIBERO's files have none "
            "→ leave split= out, and choose by tasks= or episodes="
        )
    meant = did_you_mean(str(got), there)
    return f"filter · split: a split of the store; it has {', '.join(there)}; got {got!r} → take one of these{meant}"


def did_you_mean(got: str, there: Iterable[str]) -> str:
    """Suggest the name that was probably meant, as the end of a sentence; "" if none is similar.

    >>> did_you_mean("libero_gaol", ["libero_goal", "libero_10"]), did_you_mean("x", ["train"])
    ("; did you mean 'libero_goal'?", '')
    """
    folded = {name.lower(): name for name in there if name}
    near = difflib.get_close_matches(got.lower(), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _exist(name: str, rows: Sequence[int], n: int) -> None:
    if bad := [row for row in rows if not 0 <= row < n]:
        raise WindowError(
            f"filter · {name}: in [0, {n}), rows of the store's {name[:-1]} table; got {bad} → look them up there"
        )


def choose_anchors(
    start: I64, length: I64, shift: I64, chosen: Bool, deciding: tuple[int, ...], selection: Selection, flags: U8 | None
) -> tuple[I64, list[LeftOut]]:
    """Divide the rows of the chosen episodes into anchors and others.

    Parameters
    ----------
    start, length, shift : int64 [episode]
    chosen : bool [episode]
    deciding : tuple of int
        ``WindowSpec.deciding_offsets``: an anchor has at least one of these, shifted, inside its episode. Empty: no such rule.
    selection : Selection
        Its filters about flags.
    flags : uint8 [step]
        As ``flags_at_anchors`` returns them; None if the selection needs none.

    Returns
    -------
    runs : int64 [n_runs, 2]
    left_out : list of LeftOut
        By the causal rule and by flags.
    """
    runs, left_out = runs_of_episodes(start, length, chosen), []
    if deciding:
        kept = _with_an_action(start[chosen], length[chosen], shift[chosen], np.array(deciding, np.int64))
        left_out.append(LeftOut("causal", _xor(runs, kept)))
        runs = kept
    if flags is not None and selection.needs_flags:
        anchor = mask_of_runs(runs, len(flags))
        for flag in selection.exclude_flags:
            flagged = anchor & ((flags & int(flag)) != 0)
            left_out.append(LeftOut(f"exclude_flags {flag.name}", runs_of(flagged)))
            anchor &= ~flagged
        if selection.only_flags:
            lacking = anchor & ((flags & int(selection.only_flags)) == 0)
            left_out.append(LeftOut("only_flags", runs_of(lacking)))
            anchor &= ~lacking
        runs = runs_of(anchor)
    return runs, left_out


def _with_an_action(start: I64, length: I64, shift: I64, offsets: I64) -> I64:
    """Rows t of episodes for which t + shift + offset lies inside the episode for at least one of the ascending offsets.

    Offset o serves the steps [-o - shift, length - o - shift). Offsets no further apart than the shortest episode is long
    serve one range together; only across wider gaps is there more than one.
    """
    if not start.size:
        return np.empty((0, 2), np.int64)
    done, runs = np.zeros_like(length), []
    for near in reversed(np.split(offsets, np.flatnonzero(np.diff(offsets) > length.min()) + 1)):
        first = np.clip(-near[-1] - shift, done, length)
        done = np.clip(length - near[0] - shift, first, length)
        runs.append(np.stack([start + first, start + done], axis=1))
    return _xor(*runs)


def flags_at_anchors(flags: U8 | None, stop: I64, shift: I64) -> U8:
    """Flags of each row as an anchor: flags about actions come from its first action, `shift` rows later, inside the episode.

    Parameters
    ----------
    flags : uint8 [step]
    stop, shift : int64 [episode]

    Raises
    ------
    WindowError
        If the flags are not there, or not those of these episodes.
    """
    n_steps = int(stop[-1]) if stop.size else 0
    if flags is None or flags.shape != (n_steps,) or flags.dtype != np.uint8:
        got = "nothing" if flags is None else f"{flags.dtype} {list(flags.shape)}"
        raise WindowError(f"filter · flags: uint8 [{n_steps}], one per step; got {got} → pass flags=store.index.flags")
    if not shift.any():
        return flags
    length = np.diff(stop, prepend=0)
    at = np.minimum(np.arange(n_steps) + np.repeat(shift, length), np.repeat(stop - 1, length))
    return (flags & ~np.uint8(ACTION_FLAGS)) | (flags[at] & np.uint8(ACTION_FLAGS))


def runs_of_episodes(start: I64, length: I64, chosen: Bool) -> I64:
    """Rows of the chosen episodes."""
    return _xor(np.stack([start[chosen], (start + length)[chosen]], axis=1))


def _xor(*runs: I64) -> I64:
    """Rows in an odd number of sets of runs: joins the touching runs of one set, or removes a part from a whole.

    Sorted, the edges of a set of ranges open and close in turn, and an edge that occurs twice does neither.
    """
    edges, n = np.unique(np.concatenate(runs).ravel(), return_counts=True)
    odd: I64 = edges[n % 2 == 1]
    return odd.reshape(-1, 2)


def rows_of(runs: I64) -> I64:
    """The rows of runs, ascending."""
    lengths = runs[:, 1] - runs[:, 0]
    return np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(runs[:, 1] - np.cumsum(lengths), lengths)


def mask_of_runs(runs: I64, n: int) -> Bool:
    """Which of n rows lie in runs: bool [n]."""
    edges = np.zeros(n + 1, np.int8)
    edges[runs[:, 0]], edges[runs[:, 1]] = 1, -1
    inside: Bool = np.cumsum(edges[:-1], dtype=np.int8).astype(bool)
    return inside


def narrow(runs: I64, masks: Iterable[tuple[str, Bool]]) -> tuple[I64, list[LeftOut]]:
    """Anchors that pass filters about steps, and what each leaves out.

    Parameters
    ----------
    runs : int64 [n_runs, 2]
        The anchors.
    masks : of (reason, bool [n_steps])
        What passes. Taken one after the other.
    """
    left_out = []
    for reason, passes in masks:
        anchor = mask_of_runs(runs, len(passes))
        left_out.append(LeftOut(reason, runs_of(anchor & ~passes)))
        runs = runs_of(anchor & passes)
    return runs, left_out


def runs_of(mask: Bool) -> I64:
    """The rows that a mask selects, as half-open ranges: int64 [n_runs, 2]."""
    return np.flatnonzero(np.diff(mask, prepend=False, append=False)).astype(np.int64).reshape(-1, 2)

"""Number the windows: window ids → anchors, rows per key, pad masks. Pure numpy; imports no zarr, no torch.

``loader.windows.selection`` says which rows are anchors; ``schemas.window`` what a window is. Which positions of an epoch are
which windows is ``loader.windows.order``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robozarr.loader.windows.narrowing import little_padding, on_stride
from robozarr.loader.windows.selection import (
    EpisodeColumns,
    LeftOut,
    Selection,
    choose_anchors,
    choose_episodes,
    flags_at_anchors,
    mask_of_runs,
    narrow,
    rows_of,
    runs_of,
    runs_of_episodes,
)
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.schemas.index import FLAG_MASK, StepFlag
from robozarr.schemas.metadata import StoreMetadata
from robozarr.schemas.window import Padding, WindowSpec

__all__ = ["Anchors", "KeyRows", "WindowTable"]

I64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]


class Anchors(NamedTuple):
    """Anchors of windows, one per entry."""

    episode: I64
    """Episode of each anchor: int64 [b]."""
    step: I64
    """Step t inside the episode: int64 [b]."""
    row: I64
    """Row of the store: int64 [b]."""


class KeyRows(NamedTuple):
    """Rows of one key for a batch; the arrays may be shared between keys, so they are read-only."""

    rows: I64
    """int64 [b, n_offsets]: rows of the store, clamped into the anchor's episode."""
    is_pad: Bool
    """bool [b, n_offsets]: whether the step lies outside the episode."""
    padding: Padding
    """What replaces the values where `is_pad`: "edge": the value at `rows`, "zero": zeros."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WindowTable:
    """Every window of a selection, numbered from 0 in the store's order; made by ``build``.

    >>> from types import SimpleNamespace as Table
    >>> episodes = Table(start=np.array([0, 3]), length=np.array([3, 2]), alignment=np.array([1, 1]), splits={})
    >>> keys = (Table(name="actions", ragged=False, role="action"),)
    >>> spec = WindowSpec({"actions": range(3)}, causal=True)
    >>> table = WindowTable.build(Table(keys=keys, n_steps=5), episodes, spec)
    >>> table
    WindowTable(3 windows of 5 steps; left out: 2 by causal)
    >>> anchors, keys = table.plan([0, 2])
    >>> anchors.episode.tolist(), anchors.step.tolist()
    ([0, 1], [0, 0])
    >>> keys["actions"].rows.tolist(), keys["actions"].is_pad.astype(int).tolist()
    ([[1, 2, 2], [4, 4, 4]], [[0, 0, 1], [0, 1, 1]])
    """

    start: I64
    """int64 [n_episodes]: first row."""
    stop: I64
    """int64 [n_episodes]: row after the last."""
    shift: I64
    """int64 [n_episodes]: how far the rows of shifted keys are moved, 0 or 1."""
    runs: I64
    """int64 [n_runs, 2]: rows that are anchors, as half-open ranges."""
    ends: I64
    """int64 [n_runs]: number of windows up to the end of each run."""
    to_row: I64
    """int64 [n_runs]: the number that turns a window of a run into its row."""
    left_out: tuple[LeftOut, ...]
    """Only the reasons that left something out."""
    groups: tuple[tuple[I64, bool], ...]
    """Distinct offsets, int64 [n_offsets], and whether they are shifted; rows are computed once per group."""
    keys: tuple[tuple[str, int, Padding], ...]
    """Name, number of its group, and padding of each key, in the specification's order."""

    @classmethod
    def build(
        cls,
        metadata: StoreMetadata,
        episodes: EpisodeColumns,
        spec: WindowSpec,
        *,
        selection: Selection | None = None,
        flags: NDArray[np.uint8] | None = None,
    ) -> Self:
        """Enumerate the windows from the tables alone.

        Parameters
        ----------
        metadata : StoreMetadata
            Keys and their roles.
        episodes : EpisodeColumns
            ``store.episodes``.
        spec : WindowSpec
        selection : Selection, optional
            Default: everything.
        flags : uint8 [n_steps], optional
            ``store.index.flags``; needed if ``selection.needs_flags``. In a causal window, flags about actions are looked up
            at the anchor's action offset 0, so that leaving out no-ops leaves out the windows that would teach a no-op.

        Returns
        -------
        WindowTable
            Of no windows, if the filters leave none: `left_out` says which did.

        Raises
        ------
        WindowError
            If the store cannot serve the window, a filter names what is not there, or an episode's alignment is not known.
        StoreError
            If the episodes do not stand end to end.
        """
        spec.validate(metadata)
        selection = selection or Selection()
        start, length = np.asarray(episodes.start, np.int64), np.asarray(episodes.length, np.int64)
        n_steps = int(length.sum())
        stop = np.cumsum(length)
        if n_steps != metadata.n_steps or not np.array_equal(start, stop - length) or (length < 1).any():
            raise StoreError(
                f"episodes/start, episodes/length: episodes of at least one step stand end to end, {metadata.n_steps} steps in "
                f"all (FORMAT.md, M11); these have {n_steps} → run: robozarr verify STORE"
            )
        chosen, by_filter = choose_episodes(episodes, selection)
        shift = spec.shifts(episodes.alignment, chosen)
        at_anchors = flags_at_anchors(flags, stop, shift) if selection.needs_flags else None
        deciding = spec.deciding_offsets(metadata)
        runs, by_step = choose_anchors(start, length, shift, chosen, deciding, selection, at_anchors)
        left_out = [LeftOut(name, runs_of_episodes(start, length, mask)) for name, mask in by_filter.items()] + by_step
        shifted = spec.shifted_keys(metadata)
        runs, narrowed = narrow(runs, _masks(start, length, shift, spec, shifted, selection))
        left_out += narrowed
        group = {key.name: (key.offsets, key.name in shifted) for key in spec.keys}
        groups = list(dict.fromkeys(group.values()))
        ends = np.cumsum(runs[:, 1] - runs[:, 0])
        return cls(
            start=start,
            stop=stop,
            shift=shift,
            runs=runs,
            ends=ends,
            to_row=runs[:, 1] - ends,
            left_out=tuple(entry for entry in left_out if entry.n_anchors),
            groups=tuple((np.array(offsets, np.int64), moves) for offsets, moves in groups),
            keys=tuple((key.name, groups.index(group[key.name]), key.padding) for key in spec.keys),
        )

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return int(self.ends[-1]) if self.ends.size else 0

    @property
    def served(self) -> Bool:
        """Bool [n_episodes]: whether an episode has windows."""
        edges = np.zeros(len(self.stop) + 1, np.int64)  # a run opens at its first episode and closes behind its last
        np.add.at(edges, np.searchsorted(self.stop, self.runs[:, 0], side="right"), 1)
        np.add.at(edges, np.searchsorted(self.stop, self.runs[:, 1] - 1, side="right") + 1, -1)
        served: Bool = np.cumsum(edges[:-1]) > 0
        return served

    def __len__(self) -> int:
        return self.n_windows

    def __repr__(self) -> str:
        n_steps = int(self.stop[-1]) if self.stop.size else 0
        left_out = f"; left out: {', '.join(map(str, self.left_out))}" if self.left_out else ""
        return f"WindowTable({self.n_windows:,} windows of {n_steps:,} steps{left_out})"

    def anchor_mask(self) -> Bool:
        """Bool [n_steps]: which rows are anchors."""
        return mask_of_runs(self.runs, int(self.stop[-1]) if self.stop.size else 0)

    def without(self, reason: str, rows: Bool) -> Self:
        """The same windows without some anchors, which are added to `left_out`; windows are renumbered.

        Parameters
        ----------
        reason : str
            What `left_out` calls it.
        rows : bool [n_steps]
            Anchors to leave out; rows that are none already do not count.
        """
        anchor = self.anchor_mask()
        if not (anchor & rows).any():
            return self
        runs = runs_of(anchor & ~rows)
        ends = np.cumsum(runs[:, 1] - runs[:, 0])
        left_out = (*self.left_out, LeftOut(reason, runs_of(anchor & rows)))
        return replace(self, runs=runs, ends=ends, to_row=runs[:, 1] - ends, left_out=left_out)

    def joined(self, others: Iterable[Self]) -> Self:
        """The windows of several tables of one store and window, each anchor once, renumbered; `left_out` is empty."""
        anchor = self.anchor_mask()
        for other in others:
            anchor |= other.anchor_mask()
        runs = runs_of(anchor)
        ends = np.cumsum(runs[:, 1] - runs[:, 0])
        return replace(self, runs=runs, ends=ends, to_row=runs[:, 1] - ends, left_out=())

    def locate(self, rows: I64) -> tuple[I64, I64]:
        """Episode and step of rows of the store: int64 [b] each."""
        episode = np.searchsorted(self.stop, rows, side="right")
        return episode, rows - self.start[episode]

    def anchors(self, windows: ArrayLike) -> Anchors:
        """The anchors of windows.

        Parameters
        ----------
        windows : int [b], in [0, n_windows)
            In any order; a window may occur more than once.

        Returns
        -------
        Anchors
            Episode, step and row, int64 [b] each.

        Raises
        ------
        WindowError
            If a window is outside the table.
        """
        ids = np.atleast_1d(np.asarray(windows))
        if ids.size == 0:
            ids = np.empty(0, np.int64)
        elif ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= self.n_windows:
            raise WindowError(
                f"windows: integers in [0, {self.n_windows}), one axis; got {ids.dtype} {list(ids.shape)} from {ids.min()} to "
                f"{ids.max()} → take them from an Order of n_windows={self.n_windows}"
            )
        ids = ids.astype(np.int64, copy=False)
        row = ids + self.to_row[np.searchsorted(self.ends, ids, side="right")]
        return self.anchors_at(row)

    def anchors_at(self, row: I64) -> Anchors:
        """The anchors at rows of the store, int64 [b], whether or not this table has windows there."""
        return Anchors(*self.locate(row), row)

    def windows_of(self, episode: int) -> range:
        """The windows of an episode, in the order of its steps; they are numbered one after the other.

        Raises
        ------
        WindowError
            If there is no such episode.
        """
        whole = isinstance(episode, int | np.integer) and not isinstance(episode, bool)
        if not whole or not 0 <= episode < len(self.stop):
            raise WindowError(
                f"dataset · windows_of: an episode in [0, {len(self.stop)}), a row of the store's episode table; got "
                f"{episode!r} → dataset.episodes lists those that have windows"
            )
        low, high = (self._windows_before(int(row)) for row in (self.start[episode], self.stop[episode]))
        return range(low, high)

    def _windows_before(self, row: int) -> int:
        """How many windows have their anchor before a row."""
        run = int(np.searchsorted(self.runs[:, 1], row, side="right"))
        before = int(self.ends[run - 1]) if run else 0
        return before + (max(0, row - int(self.runs[run, 0])) if run < len(self.runs) else 0)

    def episode_of_windows(self) -> I64:
        """The episode of each window: int64 [n_windows]."""
        return np.searchsorted(self.stop, rows_of(self.runs), side="right")

    def rows(self, anchors: Anchors, offsets: I64, *, shifted: bool = False) -> tuple[I64, Bool]:
        """Rows at `offsets` from anchors, and which of them are padding.

        Parameters
        ----------
        anchors : Anchors
            Of b windows.
        offsets : int64 [n_offsets]
        shifted : bool
            Whether the offsets count from the first action after the observation (``WindowSpec.shifted_keys``).

        Returns
        -------
        rows : int64 [b, n_offsets]
            Clamped into the anchor's episode: always readable.
        is_pad : bool [b, n_offsets]
            Whether the step lies outside the episode.
        """
        base = anchors.row + self.shift[anchors.episode] if shifted else anchors.row
        wanted = base[:, None] + offsets
        rows = np.maximum(wanted, self.start[anchors.episode][:, None])
        np.minimum(rows, (self.stop[anchors.episode] - 1)[:, None], out=rows)
        return rows, rows != wanted

    def plan(self, windows: ArrayLike) -> tuple[Anchors, dict[str, KeyRows]]:
        """Anchors of a batch of windows, and the rows of every key of the specification; `windows` as in `anchors`."""
        return self.plan_at(self.anchors(windows))

    def plan_at(self, anchors: Anchors) -> tuple[Anchors, dict[str, KeyRows]]:
        """Like `plan`, for anchors that are known."""
        found = [self.rows(anchors, offsets, shifted=shifted) for offsets, shifted in self.groups]
        for rows, is_pad in found:
            rows.flags.writeable = is_pad.flags.writeable = False
        return anchors, {name: KeyRows(*found[group], padding) for name, group, padding in self.keys}

    def weights(self, flags: NDArray[np.uint8], repeats: Mapping[StepFlag, int]) -> NDArray[np.int32] | None:
        """How often an epoch repeats each window, for ``Order(weights=…)``.

        Parameters
        ----------
        flags : uint8 [n_steps]
            ``store.index.flags``; looked up as in `build`.
        repeats : mapping of flags to int
            ``{StepFlag.KEY_MOMENT: 2}``: anchors with any of the flags occur that often, at least 1; where several entries
            apply, the largest counts.

        Returns
        -------
        int32 [n_windows], or None where every weight is 1

        Raises
        ------
        WindowError
            If a weight is below 1, which would leave windows out, or the flags are not this store's.
        """
        for flag, n in repeats.items():
            whole = isinstance(n, int | np.integer) and not isinstance(n, bool)
            if not whole or not 1 <= n < 1 << 31 or not 0 < int(flag) <= FLAG_MASK:
                raise WindowError(
                    f"weights: flags of StepFlag, and an integer of at least 1 for each; got {n!r} for {flag!r} "
                    "→ leave windows out by a filter, never by weight"
                )
        at_anchors = flags_at_anchors(flags, self.stop, self.shift)[rows_of(self.runs)]
        weights = np.ones(self.n_windows, np.int32)
        for flag, n in repeats.items():
            np.maximum(weights, int(n), out=weights, where=(at_anchors & int(flag)) != 0)
        return weights if weights.size and weights.max() > 1 else None


def _masks(
    start: I64, length: I64, shift: I64, spec: WindowSpec, shifted: frozenset[str], selection: Selection
) -> Iterator[tuple[str, Bool]]:
    """The filters about single steps that were given: reason → which steps pass, bool [n_steps]."""
    if selection.stride is not None and selection.stride > 1:
        yield f"stride {selection.stride}", on_stride(start, length, selection.stride)
    most = selection.max_padding
    if most is not None:
        if isinstance(most, Mapping) and (unknown := sorted(set(most) - set(spec.offsets))):
            raise WindowError(
                f"filter · max_padding: keys of the window, which are {', '.join(spec.offsets)}; got {', '.join(unknown)} → "
                "name some of these"
            )
        of_key = most if isinstance(most, Mapping) else dict.fromkeys(spec.offsets, most)
        passes = np.ones(int(length.sum()), bool)
        for name, offsets in spec.offsets.items():
            if name in of_key:
                moved = shift if name in shifted else np.zeros_like(shift)
                passes &= little_padding(start, length, moved, np.array(offsets, np.int64), of_key[name])
        yield "padding", passes
    if selection.rows is not None:
        rows = np.asarray(selection.rows)
        if rows.dtype != bool or rows.shape != (int(length.sum()),):
            raise WindowError(
                f"filter · windows: a mask has one bool for each of the store's {int(length.sum()):,} steps; got {rows.dtype} "
                f"{list(rows.shape)} → numbers of windows are integers: np.flatnonzero(mask)"
            )
        yield "windows", rows

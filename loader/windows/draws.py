"""Draw windows by weights with fractions: position in an epoch → window. Imports neither torch nor zarr.

Lay the windows end to end on a line. Each has as its length how often an epoch is to serve it, such as 1.5. Position p of the
epoch looks at the point p + u, with one u in [0, 1) for the whole epoch. So this window is served once or twice, never less and
never more, and over many epochs 1.5 times. From epoch to epoch u goes on by the golden ratio, so that a window of length 0.1 is
served about every tenth epoch, and not twice in a row by chance and then not for fifty.

Everything is whole numbers: 8 bytes per window, a pure function, and the same on every machine.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from robozarr.loader.windows.permutation import N_MAX
from robozarr.schemas.errors import WindowError

__all__ = ["Draws"]

I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]

BITS: Final = 61
"""Of the length of the line: points and their sums fit into 63."""
GOLDEN: Final = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """How often each window is served, as a line of whole numbers.

    >>> draws = Draws.by([1.0, 3.0], 4)
    >>> draws.windows(np.arange(4), 0, 0).tolist(), draws.rates().tolist()
    ([0, 1, 1, 1], [1.0, 3.0])
    """

    n_positions: int
    """Of an epoch."""
    unit: int
    """The length of 1 on the line; a power of two."""
    ends: I64
    """Where each window ends on the line, int64 [n_windows], ascending."""
    crc: int
    """Stands for all of it where orders are compared."""

    @classmethod
    def by(cls, weights: npt.ArrayLike, n_positions: int | None = None) -> Self:
        """Lay out the line.

        Parameters
        ----------
        weights : float [n_windows], finite, above 0
            How often each window is served beside the others.
        n_positions : int, optional
            Of an epoch. Default: as many as it takes that each window is served at least once.

        Raises
        ------
        WindowError
            If a window would never be served, or the epoch would have no end.
        """
        given = np.asarray(weights, np.float64)
        total, least = float(given.sum()), float(given.min())
        if n_positions is None:
            enough = min(int(np.ceil(total / least * (1 - 1e-12))), N_MAX)
            made = cls.by(given, enough)
            return made if made.rates().min() >= 1 else cls.by(given, enough + 1)  # short by a rounding is short
        if not 0 < n_positions < 1 << 52 or total / least > 1 << 50:
            raise WindowError(
                f"weights: windows that are served now and then; the least, {least:g}, is of {total:g} in all, so that its "
                "windows would hardly ever be → leave them out by a filter, or raise their weight"
            )
        unit = 1 << (BITS - n_positions.bit_length())
        cumulated = np.cumsum(given)
        ends = (cumulated / cumulated[-1] * float(n_positions * unit)).astype(np.int64)
        ends[-1] = n_positions * unit
        if (np.diff(ends, prepend=0) < 1).any():
            raise WindowError(
                f"weights: numbers that can be told apart; the least, {least:g}, is lost beside {total:g} in all → leave these "
                "windows out by a filter, or raise their weight"
            )
        ends.flags.writeable = False
        return cls(n_positions, unit, ends, zlib.crc32(ends.astype("<i8").tobytes()))

    def windows(self, virtual: npt.NDArray[Any], first: int, epoch: int | npt.NDArray[Any]) -> I64:
        """Map positions, in any order, to windows.

        Parameters
        ----------
        virtual : int [m], in [0, n_positions)
        first : int
            Where u begins, before epoch 0: any number.
        epoch : int, or int [m] for one epoch a position
        """
        step = np.uint64(int(self.unit * GOLDEN) | 1)
        passed = np.atleast_1d(np.asarray(epoch)).astype(np.uint64) * step  # arrays wrap around without a word
        u = (passed + np.uint64(first % self.unit)) & np.uint64(self.unit - 1)
        points = virtual.astype(np.int64) * self.unit + u.astype(np.int64)
        return np.searchsorted(self.ends, points, side="right").astype(np.int64)

    def rates(self) -> npt.NDArray[np.float64]:
        """How often an epoch serves each window: float64 [n_windows]; each epoch this, rounded up or down."""
        return np.diff(self.ends, prepend=0) / self.unit

    def expected_coverage(self, n_epochs: float = 1) -> float:
        """The share of windows that `n_epochs` epochs in a row are expected to serve at least once."""
        whole, part = divmod(n_epochs, 1)
        covered = self._covered(int(whole))
        return covered + part * (self._covered(int(whole) + 1) - covered) if part else covered

    def _covered(self, n_epochs: int) -> float:
        # a window shorter than 1 is served if one of the points u, u + golden, … falls into it: it sees each gap between
        # neighbouring points, or its own length where that is less
        points = np.sort(np.arange(n_epochs) * GOLDEN % 1)
        gaps = np.diff(points, append=points[:1] + 1)
        rates = np.minimum(self.rates(), 1)
        served = np.zeros_like(rates)
        for gap, n in zip(*np.unique(np.round(gaps, 12), return_counts=True), strict=True):
            served += n * np.minimum(rates, gap)
        return float(np.minimum(served, 1).mean())

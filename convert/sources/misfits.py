"""Datasets with another number of rows than the demo's steps: an error if as many demos have it right, else no key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from robozarr.schemas.errors import Problem

__all__ = ["AS_MANY", "Misfits"]

AS_MANY = "every dataset of a demo must have as many steps as its actions"
REMEDY = "leave the demo out with --on-error skip, or the key with --keys"


class Misfits:
    """The lengths of the datasets of one file, demo by demo."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._n_fit: dict[str, int] = defaultdict(int)
        self._unlike: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)  # path → demo → rows, steps
        self._observed: set[str] = set()

    def add(self, demo: str, path: str, rows: int, length: int) -> None:
        """Add one numeric dataset: its rows, and the demo's steps."""
        if rows != length:
            self._unlike[path][demo] = rows, length
            return
        self._n_fit[path] += 1
        if path.startswith("obs/"):
            self._observed.add(demo)

    def of_demo(self, demo: str) -> tuple[tuple[str, int], ...]:
        """The misfits of one demo: path and rows."""
        return tuple((path, demos[demo][0]) for path, demos in self._unlike.items() if demo in demos)

    def problems(self) -> list[Problem]:
        """Problems of demos that differ from at least as many others of the file, or that would lose all observations."""
        return [
            Problem(file=self.file, demo=demo, key=path, rule=AS_MANY, value=f"{rows} and {length} steps", remedy=REMEDY)
            for path, demos in self._unlike.items()
            for demo, (rows, length) in demos.items()
            if self._is_wrong(path, demo)
        ]

    def listed(self) -> Iterator[str]:
        """Path of each dataset that is harmless and not a key, once per demo."""
        for path, demos in self._unlike.items():
            yield from (path for demo in demos if not self._is_wrong(path, demo))

    def _is_wrong(self, path: str, demo: str) -> bool:
        if self._n_fit[path] >= len(self._unlike[path]):
            return True
        rows, length = self._unlike[path][demo]
        # observations of one moment more or less than actions: nothing would be left of them
        return path.startswith("obs/") and demo not in self._observed and abs(rows - length) == 1

"""Import ``view`` only when something is shown: training needs no view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Episode", "html_of", "viewer"]


class Episode(Protocol):
    """One episode to look at, as ``store.episode(i)`` gives it; ``robozarr.view.episode`` draws it."""

    number: int
    start: int
    length: int
    task: int
    instruction: str
    demo: str
    source: str
    hz: float
    convention: int

    def __len__(self) -> int: ...

    def _repr_html_(self) -> str: ...

    @property
    def flags(self) -> NDArray[np.uint8]:
        """Bits of ``StepFlag`` [length]."""
        ...

    def __getitem__(self, name: str) -> NDArray[Any]:
        """All steps of a key, as stored: the key's type [length, …]."""
        ...

    def frames(self, name: str, steps: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Pictures of a camera, upright: uint8 [n, y, x, 3]; `steps` of the episode, or all."""
        ...

    def filmstrip(self, n: int = 8) -> str:
        """HTML: n moments of every camera."""
        ...

    def plot(self, state: str | None = None) -> Any:
        """Actions, the gripper, and a state over time."""
        ...

    def video(self, kind: Literal["webp", "gif"] = "webp", *, speed: float = 1.0) -> Any:
        """Every camera side by side, to play or to save."""
        ...


def viewer(module: str) -> Any:
    """Import a module of ``robozarr.view``.

    Raises
    ------
    ImportError
        If what it draws with is not installed; the text says how to install it.
    """
    try:
        return import_module(f"robozarr.view.{module}")
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.split(".")[0] == "robozarr":
            raise
        raise ImportError(
            f"showing needs {exc.name}, which is not installed → pip install '.[view]' in a clone of robozarr", name=exc.name
        ) from exc


def html_of(draw: Callable[[], str]) -> str | None:
    """The HTML that `draw` returns; None if view is not installed, so that a notebook shows plain text."""
    try:
        return draw()
    except ImportError:
        return None

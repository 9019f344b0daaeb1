"""Define the fields of a batch of windows, and fill them from the store. Imports no torch.

A batch is a set of arrays, all of which are written. What goes where is planned with numpy for many batches at once; filling is
compiled code. ``loader.dataset`` and ``loader.stream`` both fill batches through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robozarr.loader.frames.read import Reader
from robozarr.loader.frames.upright import rows_turned_over
from robozarr.loader.windows.table import Anchors, WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.metadata import Key
from robozarr.schemas.window import WindowSpec
from robozarr.store.opened import Store
from robozarr.store.threads import ThreadTeam

__all__ = ["RESERVED", "Batch", "Field", "PlannedWindows", "WindowReader"]

I64: TypeAlias = NDArray[np.int64]

RESERVED: Final = ("episode", "step", "task", "instruction", "store")
"""Fields of a sample that are not keys."""
DONE: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One array of a batch."""

    name: str
    shape: tuple[int, ...]
    """Shape of one window's part."""
    dtype: np.dtype[Any]

    @property
    def window_bytes(self) -> int:
        """Bytes of one window's part."""
        return prod(self.shape) * self.dtype.itemsize


class Batch:
    """Arrays of a batch by field, [batch, …], C-contiguous: in new memory, or given."""

    def __init__(self, fields: Iterable[Field], n: int, arrays: dict[str, NDArray[Any]] | None = None) -> None:
        if arrays is None:
            arrays = {field.name: np.empty((n, *field.shape), field.dtype) for field in fields}
        self.arrays = arrays
        self.as_bytes = {name: _as_bytes(array) for name, array in self.arrays.items() if array.ndim > 1}
        """The same memory, uint8 [batch, n_offsets, row_bytes]."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    row_bytes = prod(array.shape[2:]) * array.itemsize
    return array.reshape(-1).view(np.uint8).reshape(*array.shape[:2], row_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWindows:
    """The rows that windows need, for any number of windows; slices of it are batches."""

    episode: I64
    """Episode of each window: int64 [b]."""
    step: I64
    """Step of each window's anchor: int64 [b]."""
    rows: Mapping[str, I64]
    """By key, int64 [b, n_offsets]; -1 means zeros."""
    is_pad: Mapping[str, NDArray[np.bool_]]
    """By key, bool [b, n_offsets]."""

    def part(self, where: slice) -> PlannedWindows:
        """A slice of the windows."""
        return PlannedWindows(
            episode=self.episode[where],
            step=self.step[where],
            rows={name: rows[where] for name, rows in self.rows.items()},
            is_pad={name: is_pad[where] for name, is_pad in self.is_pad.items()},
        )


class WindowReader:
    """Plans windows of one store, and fills batches with them.

    Parameters
    ----------
    store : Store
    spec : WindowSpec
        Valid for the store.
    table : WindowTable
        The windows.
    embeddings : mapping of field to array [n_tasks, …]
        What a sample carries of its task.
    frames_in_memory, run
        As for ``Reader``.
    upright : names
        Keys whose pictures are turned upright while they are read.
    """

    def __init__(
        self,
        store: Store,
        spec: WindowSpec,
        table: WindowTable,
        *,
        embeddings: Mapping[str, NDArray[Any]] | None = None,
        frames_in_memory: bool = False,
        run: Callable[..., Iterable[Any]] = map,
        upright: Sequence[str] = (),
    ) -> None:
        self.store, self.spec, self.table, self.embeddings = store, spec, table, dict(embeddings or {})
        names = [*(key.name for key in spec.keys), *self.embeddings]
        taken = [*RESERVED, *(f"{key.name}_is_pad" for key in spec.keys)]
        if bad := sorted({name for name in names if name in taken or names.count(name) > 1}):
            raise WindowError(
                f"window · fields: one name each in a sample, which also has {', '.join(taken)}; got {', '.join(bad)} again "
                "→ name embeddings otherwise; a key with such a name has to be renamed in the sources"
            )
        self.holds_frames = frames_in_memory
        self._names = [key.name for key in spec.keys]
        self.upright = tuple(upright)
        over = rows_turned_over(store, self.upright)
        self.reader = Reader.of(store, self._names, in_memory=frames_in_memory, run=run, over=over)
        if store.remote:
            _ = self.store.episodes  # now, and not while the first batch is waited for

    def with_frames(self, team: ThreadTeam) -> WindowReader:
        """The same windows, with all frames read into memory by `team`."""
        return WindowReader(
            self.store, self.spec, self.table, embeddings=self.embeddings, frames_in_memory=True, run=team.map,
            upright=self.upright,
        )  # fmt: skip

    @property
    def frame_bytes(self) -> int:
        """Bytes of one step's frames."""
        keys = (self.store.keys[key.name] for key in self.spec.keys)
        return sum(int(np.prod(key.shape)) * np.dtype(key.dtype).itemsize for key in keys if key.frame)

    @property
    def fields(self) -> tuple[Field, ...]:
        """The arrays of a batch: for each key its values and its mask, then episode, step, task, embeddings."""
        fields = []
        for key in self.spec.keys:
            stored: Key = self.store.keys[key.name]
            shape = (len(key.offsets), *stored.shape)
            fields.append(Field(name=key.name, shape=shape, dtype=np.dtype(stored.dtype)))
            fields.append(Field(name=f"{key.name}_is_pad", shape=(len(key.offsets),), dtype=np.dtype(bool)))
        fields += [Field(name=name, shape=(), dtype=np.dtype(np.int64)) for name in ("episode", "step", "task")]
        fields += [Field(name=name, shape=array.shape[1:], dtype=array.dtype) for name, array in self.embeddings.items()]
        return tuple(fields)

    def plan(self, windows: ArrayLike) -> PlannedWindows:
        """Find the rows of windows.

        Parameters
        ----------
        windows : int [b], in [0, n_windows)

        Raises
        ------
        WindowError
            If a window is outside the table.
        """
        return self.plan_at(self.table.anchors(windows))

    def plan_at(self, anchors: Anchors) -> PlannedWindows:
        """Like `plan`, for anchors that are known."""
        _, keys = self.table.plan_at(anchors)
        rows = {name: np.where(key.is_pad, -1, key.rows) if key.padding == "zero" else key.rows for name, key in keys.items()}
        is_pad = {name: key.is_pad for name, key in keys.items()}
        return PlannedWindows(episode=anchors.episode, step=anchors.step, rows=rows, is_pad=is_pad)

    def fill(
        self,
        batch: Batch,
        windows: PlannedWindows,
        at: I64 | None = None,
        part: tuple[int, int] = (0, 1),
        keys: Iterable[str] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read windows into a batch.

        Parameters
        ----------
        batch : Batch, written
            Of `fields`, and perhaps more.
        windows : PlannedWindows
        at : int64 [b], optional
            Where in the batch each goes. Default: in order.
        part : (i, n)
            Do the i-th of n parts of the work, that together are all of it: parts may run at the same time.
        keys : names, optional
            Read these only. Default: all.
        cancelled : function
            Asked while bytes are waited for: whether nobody wants the batch any more. What is in it then is nothing.

        Raises
        ------
        CorruptChunkError
            If something cannot be read exactly.
        """
        n = len(windows.episode)
        places = np.arange(n) if at is None else at
        if n and (needed := int(places.max()) + 1) > (room := len(batch["episode"])):  # compiled code would write behind it
            raise WindowError(
                f"window · batch: has room for {room} windows; got {needed} → make another loader for another batch size"
            )
        names = self._names if keys is None else keys
        begun = [self.reader.begin(name, windows.rows[name], places, batch.as_bytes[name], part) for name in names]
        waiting = [steps for steps in begun if steps is not None]
        while (
            waiting and not cancelled()
        ):  # each goes on by a step in turn, so that the requests of all keys are on their way together
            waiting = [steps for steps in waiting if next(steps, DONE) is not DONE]
        if part[0] == 0:
            where = slice(n) if at is None else at
            for name, is_pad in windows.is_pad.items():
                batch[f"{name}_is_pad"][where] = is_pad
            batch["episode"][where], batch["step"][where] = windows.episode, windows.step
            batch["task"][where] = task = self.store.episodes.task[windows.episode]
            for name, array in self.embeddings.items():
                batch[name][where] = array[task]

    def announce(self, windows: PlannedWindows) -> None:
        """Announce windows that will be filled soon."""
        self.reader.announce(windows.rows)

    def instructions_of(self, windows: PlannedWindows) -> list[str]:
        """The instruction of each window's episode; "" where its source states none."""
        texts = self.store.episodes.instruction
        return [texts[episode] for episode in windows.episode.tolist()]

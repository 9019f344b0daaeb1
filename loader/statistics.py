"""``Statistics`` of the windows that are served, for normalisation; kept as JSON. Imports no torch.

They are of what the model sees: of each offset's values in each window, as often as an epoch without weights serves them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.batch import WindowReader
from robozarr.loader.relative import Relative
from robozarr.loader.windows.quantiles import quantiles_of_counted
from robozarr.loader.windows.spread import spread_or_one
from robozarr.schemas.errors import WindowError
from robozarr.store.whole_file import whole_file

__all__ = ["KeyStatistics", "Statistics"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

VERSION: Final = 1
VALUES_MAX: Final = 1 << 28
"""Values of one element that are looked at together: 2 GB."""
MOMENTS: Final = ("mean", "std", "min", "max")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeyStatistics:
    """Statistics of one key: each float64 [*shape], or [n_offsets, *shape] by offset."""

    dtype: str
    shape: tuple[int, ...]
    unit: str
    """dtype, shape and unit are the key's: of another key these are no statistics."""
    n: int | tuple[int, ...]
    """Values of each element; by offset, one number for each."""
    mean: F64
    std: F64
    """Of the population."""
    min: F64
    max: F64
    quantiles: Mapping[float, F64]
    """By linear interpolation, as numpy's."""
    offsets: tuple[int, ...] | None = None
    """By these offsets; None: of all offsets together."""
    relative_to: str | None = None
    relative_elements: tuple[int, ...] | None = None
    """The key that this key was relative to, and the elements (None: all)."""

    def to_json(self) -> dict[str, Any]:
        """The statistics as JSON values; Python writes floats so that they come back the same."""
        return {
            "dtype": self.dtype, "shape": list(self.shape), "unit": self.unit,
            "n": self.n if isinstance(self.n, int) else list(self.n),
            **{name: getattr(self, name).tolist() for name in MOMENTS},
            "quantiles": {repr(q): values.tolist() for q, values in self.quantiles.items()},
            "offsets": None if self.offsets is None else list(self.offsets),
            "relative_to": self.relative_to,
            "relative_elements": None if self.relative_elements is None else list(self.relative_elements),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Restore what `to_json` returned."""
        n, offsets, elements = value["n"], value["offsets"], value["relative_elements"]
        made = cls(
            dtype=value["dtype"], shape=tuple(value["shape"]), unit=value["unit"],
            n=n if isinstance(n, int) else tuple(n),
            **{name: np.asarray(value[name], np.float64) for name in MOMENTS},
            quantiles={float(q): np.asarray(values, np.float64) for q, values in value["quantiles"].items()},
            offsets=None if offsets is None else tuple(offsets),
            relative_to=value["relative_to"],
            relative_elements=None if elements is None else tuple(elements),
        )  # fmt: skip
        expected = made.shape if made.offsets is None else (len(made.offsets), *made.shape)
        arrays = [made.mean, made.std, made.min, made.max, *made.quantiles.values()]
        if not all(array.shape == expected and np.isfinite(array).all() for array in arrays):
            raise ValueError(f"numbers of shape {list(expected)} are expected")
        return made


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """Statistics for normalisation: made of windows, kept with the model, handed to every loader that serves the model.

    ``dataset.statistics()`` makes one; ``rz.Normalise(keys=…, statistics=…)`` uses it; `normalise` and `undo` do the same to
    what a robot gives and is given.
    """

    keys: Mapping[str, KeyStatistics]
    stores: tuple[str, ...]
    """Identities of the stores that they are of."""
    n_windows: int

    @classmethod
    def of(
        cls,
        readers: Sequence[WindowReader],
        keys: Iterable[str] | None = None,
        *,
        quantiles: Sequence[float] = (0.01, 0.99),
        per_offset: Iterable[str] = (),
        relative: Relative | None = None,
        padding: bool = False,
    ) -> Self:
        """Statistics of the windows of one dataset or several; parameters as for ``WindowDataset.statistics``."""
        spec, stored = readers[0].spec, readers[0].store.keys
        chosen = [name for name in spec.offsets if not stored[name].frame] if keys is None else list(keys)
        by_offset = list(per_offset)
        if isinstance(keys, str) or (unknown := [name for name in (*chosen, *by_offset) if name not in spec.offsets]):
            got = repr(keys) if isinstance(keys, str) else ", ".join(unknown)
            raise WindowError(
                f"statistics · keys: a list, of the window's {', '.join(spec.offsets)}; got {got} → name some of these"
            )
        if frames := [name for name in chosen if stored[name].frame]:
            raise WindowError(
                f"statistics · keys: of vectors; {', '.join(frames)} are frames → rz.Normalise without statistics= normalises "
                "pictures by the store's"
            )
        wanted = tuple(float(q) for q in quantiles)
        if not all(0 <= q <= 1 for q in wanted):
            raise WindowError(f"statistics · quantiles: numbers from 0 to 1; got {quantiles!r} → pass (0.01, 0.99)")
        if relative is not None:
            for reader in readers:
                relative.check(reader)
        made = {name: _of_key(readers, name, wanted, name in by_offset, relative, padding) for name in dict.fromkeys(chosen)}
        stores = tuple(dict.fromkeys(reader.store.identity for reader in readers))
        return cls(keys=made, stores=stores, n_windows=sum(reader.table.n_windows for reader in readers))

    def to_json(self) -> dict[str, Any]:
        """The statistics as JSON values."""
        return {
            "robozarr_statistics": VERSION,
            "stores": list(self.stores),
            "n_windows": self.n_windows,
            "keys": {name: key.to_json() for name, key in self.keys.items()},
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Restore what `to_json` returned; raises WindowError if it is something else."""
        try:
            if value["robozarr_statistics"] != VERSION:
                raise ValueError(f"version {value['robozarr_statistics']!r}")
            keys = {name: KeyStatistics.from_json(key) for name, key in value["keys"].items()}
            return cls(keys=keys, stores=tuple(value["stores"]), n_windows=int(value["n_windows"]))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise WindowError(
                f"statistics · JSON: what to_json returned, version {VERSION}; it is not: {exc!r} → make them again by "
                "dataset.statistics()"
            ) from exc

    def save(self, path: str | Path) -> None:
        """Write them to a file, as JSON."""
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; raises WindowError if it is something else."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as exc:
            raise WindowError(f"statistics · {path}: JSON, as Statistics.save writes it; found {exc} → pass that file") from exc
        return cls.from_json(value)

    def check(self, reader: WindowReader, names: Iterable[str], relative: Relative | None) -> None:
        """Refuse statistics of other keys than a loader normalises: of another name, dtype, shape, unit, offsets, or relative.

        Raises
        ------
        WindowError
            The text says what differs.
        """
        for name in names:
            if name not in self.keys:
                raise WindowError(
                    f"normalise · statistics: of {name} too; they are of {', '.join(self.keys) or 'no key'} → make them by "
                    f'dataset.statistics(keys=["{name}", …])'
                )
            mine, key = self.keys[name], reader.store.keys[name]
            there = (key.dtype, tuple(key.shape), key.unit)
            if (mine.dtype, mine.shape, mine.unit) != there:
                raise WindowError(
                    f"normalise · statistics · {name}: of this store's key, {_told(*there)}; they are of another, "
                    f"{_told(mine.dtype, mine.shape, mine.unit)} → make them of a store with the same keys"
                )
            if mine.offsets is not None and mine.offsets != tuple(reader.spec.offsets[name]):
                raise WindowError(
                    f"normalise · statistics · {name}: of the window's offsets; they are of {list(mine.offsets)}, it has "
                    f"{list(reader.spec.offsets[name])} → make them for this window, or without per_offset"
                )
            is_relative = None if relative is None else relative.of(name)
            was_relative = None if mine.relative_to is None else (mine.relative_to, mine.relative_elements)
            if is_relative != was_relative:
                raise WindowError(
                    f"normalise · statistics · {name}: of what is served, {_told_relative(is_relative)}; they are of values "
                    f"{_told_relative(was_relative)} → pass the same relative= to dataset.statistics() and to the loader"
                )

    def shift_and_scale(self, name: str, how: str | tuple[float, float]) -> tuple[F64, F64]:
        """Shift and scale that normalise a key: ``(value - shift) / scale``; a constant element is divided by 1.

        Raises
        ------
        WindowError
            If they do not hold a quantile that is asked for.
        """
        key = self.keys[name]
        if how == "mean_std":
            shift, scale = key.mean, key.std
        elif how == "min_max":
            shift, scale = key.min / 2 + key.max / 2, key.max / 2 - key.min / 2
        else:
            pair = (0.01, 0.99) if how == "q01_q99" else how
            if missing := [q for q in pair if q not in key.quantiles]:
                raise WindowError(
                    f"normalise · statistics · {name}: quantiles {list(key.quantiles)}; got {missing} → "
                    f"dataset.statistics(quantiles={pair})"
                )
            low, high = (key.quantiles[float(q)] for q in pair)
            shift, scale = low / 2 + high / 2, high / 2 - low / 2
        return shift, spread_or_one(scale, key.min, key.max, key.dtype)

    def normalise(self, name: str, values: Any, how: str | tuple[float, float] = "mean_std") -> F64:
        """Normalise values [… , *shape] (by offset [… , n_offsets, *shape]) of a key, such as a robot's state."""
        shift, scale = self.shift_and_scale(name, how)
        normal: F64 = (np.asarray(values, np.float64) - shift) / scale
        return normal

    def undo(self, name: str, values: Any, how: str | tuple[float, float] = "mean_std", state: Any = None) -> F64:
        """Undo a normalisation: from a model's output to a robot's action.

        Parameters
        ----------
        name, values, how
            As of `normalise`.
        state : float [… , m], optional
            Needed where the key is relative: the state that the model saw, which is added again.
        """
        shift, scale = self.shift_and_scale(name, how)
        key = self.keys[name]
        out: F64 = np.asarray(values, np.float64) * scale + shift
        if key.relative_to is None:
            return out
        if state is None:
            raise WindowError(f"statistics · undo · {name}: relative to {key.relative_to}; got no state → pass state=")
        width = key.shape[0]
        mask = Relative({name: ""}, None if key.relative_elements is None else {name: key.relative_elements}).mask(name, width)
        base = np.zeros((*np.shape(state)[:-1], width))
        n = min(width, np.shape(state)[-1])
        base[..., :n] = np.asarray(state, np.float64)[..., :n]
        added: F64 = out + (base * mask if out.ndim == base.ndim else (base * mask)[..., None, :])
        return added


def _told(dtype: str, shape: tuple[int, ...], unit: str) -> str:
    return f"{dtype} {list(shape)} in {unit or 'no unit'}"


def _told_relative(relative: tuple[str, Any] | None) -> str:
    if relative is None:
        return "as stored"
    return f"relative to {relative[0]}" + ("" if relative[1] is None else f" in elements {list(relative[1])}")


def _of_key(
    readers: Sequence[WindowReader],
    name: str,
    wanted: tuple[float, ...],
    by_offset: bool,
    relative: Relative | None,
    padding: bool,
) -> KeyStatistics:
    key, offsets = readers[0].store.keys[name], tuple(readers[0].spec.offsets[name])
    of_each = list(_values(readers, name, relative, padding))
    towards = None if relative is None else relative.of(name)
    if by_offset:
        groups = [_summary(name, [values], None, wanted, offset) for offset, values in zip(offsets, of_each, strict=True)]
        n: int | tuple[int, ...] = tuple(group[0] for group in groups)
        arrays = [np.stack([group[1][number] for group in groups]) for number in range(len(MOMENTS) + len(wanted))]
    elif towards is None and readers[0].spec.padding[name] == "edge":
        columns, counts = zip(*(_counted(reader, name, padding) for reader in readers), strict=True)
        n, arrays = _summary(name, list(columns), np.concatenate(counts), wanted, None)
    else:
        n, arrays = _summary(name, of_each, None, wanted, None)
    return KeyStatistics(
        dtype=key.dtype, shape=tuple(key.shape), unit=key.unit, n=n,
        **dict(zip(MOMENTS, arrays, strict=False)),
        quantiles=dict(zip(wanted, arrays[len(MOMENTS) :], strict=True)),
        offsets=offsets if by_offset else None,
        relative_to=None if towards is None else towards[0],
        relative_elements=None if towards is None else towards[1],
    )  # fmt: skip


def _values(readers: Sequence[WindowReader], name: str, relative: Relative | None, padding: bool) -> Iterator[F64]:
    """For each offset of a key, the values that windows have there: float64 [n, *shape]."""
    for number in range(len(readers[0].spec.offsets[name])):
        yield np.concatenate([_at_offset(reader, name, number, relative, padding) for reader in readers])


def _at_offset(reader: WindowReader, name: str, number: int, relative: Relative | None, padding: bool) -> F64:
    table = reader.table
    anchors = table.anchors(np.arange(table.n_windows))
    group = next(group for key, group, _ in table.keys if key == name)
    offsets, shifted = table.groups[group]
    rows, is_pad = (array[:, 0] for array in table.rows(anchors, offsets[number : number + 1], shifted=shifted))
    values: F64 = reader.reader.column(name)[rows].astype(np.float64)
    if padding and reader.spec.padding[name] == "zero":
        values[is_pad] = 0
    towards = None if relative is None else relative.of(name)
    if towards is not None and relative is not None:
        mask = relative.mask(name, values.shape[1])
        width = min(values.shape[1], reader.store.keys[towards[0]].shape[0])
        values[:, :width] -= reader.reader.column(towards[0])[anchors.row][:, :width] * mask[:width]
    return values if padding else values[~is_pad]


def _counted(reader: WindowReader, name: str, padding: bool) -> tuple[F64, I64]:
    """The rows of a key that windows have, float64 [n, *shape], and how often."""
    table = reader.table
    counts = np.zeros(reader.store.n_steps, np.int64)
    anchors = table.anchors(np.arange(table.n_windows))
    group = next(group for key, group, _ in table.keys if key == name)
    offsets, shifted = table.groups[group]
    for number in range(len(offsets)):
        rows, is_pad = (array[:, 0] for array in table.rows(anchors, offsets[number : number + 1], shifted=shifted))
        counts += np.bincount(rows if padding else rows[~is_pad], minlength=len(counts))
    used = np.flatnonzero(counts)
    values: F64 = reader.reader.column(name)[used].astype(np.float64)
    return values, counts[used]


def _summary(
    name: str, parts: Sequence[F64], counts: I64 | None, wanted: tuple[float, ...], offset: int | None
) -> tuple[int, list[F64]]:
    """How many values there are, and their mean, std, min, max and quantiles: of `counts`, where values occur several times."""
    n = sum(len(part) for part in parts)
    if n == 0:
        where = f"offset {offset} lies" if offset is not None else "its offsets lie"
        raise WindowError(
            f"statistics · {name}: values inside the episodes; {where} outside of every one → leave the offset out, or pass "
            "padding=True"
        )
    if n > VALUES_MAX:
        raise WindowError(
            f"statistics · {name}: at most {VALUES_MAX:,} values at a time; the windows have {n:,} → take statistics of every "
            "tenth window: WindowDataset(…, stride=10)"
        )
    shape = parts[0].shape[1:]
    total = n if counts is None else int(counts.sum())
    columns: list[list[Any]] = []
    for element in range(int(np.prod(shape, dtype=np.int64))):
        x = np.concatenate([part.reshape(len(part), -1)[:, element] for part in parts])
        if counts is None:
            mean, std = x.mean(), x.std()
            found = np.quantile(x, wanted) if wanted else np.empty(0)
        else:
            mean = (counts * x).sum() / total
            std = np.sqrt((counts * (x - mean) ** 2).sum() / total)
            found = quantiles_of_counted(x, counts, wanted)
        columns.append([mean, std, x.min(), x.max(), *found])
    table = np.array(columns, np.float64).reshape(-1, len(MOMENTS) + len(wanted)).T
    return total, [np.ascontiguousarray(values.reshape(shape)) for values in table]

"""Shifts and scales for normalising, by statistics of the store or of the served windows. Pure numpy; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.batch import WindowReader
from robozarr.loader.windows.quantiles import quantiles_of_counted
from robozarr.loader.windows.selection import rows_of
from robozarr.loader.windows.spread import spread_or_one
from robozarr.schemas.errors import WindowError

__all__ = ["SCALINGS", "SCOPES", "Scaling", "Scope", "scale_and_shift", "window_statistics"]

F64: TypeAlias = NDArray[np.float64]

Scaling = Literal["mean_std", "min_max", "q01_q99"]
"""Scale to mean 0 and standard deviation 1; or map min and max, or the 1% and 99% quantiles, to -1 and 1."""
Scope = Literal["store", "windows"]
"""Statistics over all steps of the store, or over the anchors of the served windows."""
SCALINGS: Final[tuple[Scaling, ...]] = get_args(Scaling)
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


def window_statistics(windows: WindowReader, name: str) -> dict[str, F64]:
    """Statistics of a key over the windows' anchors, in the form of ``Store.stats``.

    Low-dim keys: exactly over the anchors' steps. Frames: ``n``, ``mean``, ``std``, ``min``, ``max`` over all steps of the
    episodes that have an anchor (their statistics are stored by episode), no quantiles.
    """
    rows = rows_of(windows.table.runs)
    if not windows.store.keys[name].frame:
        values = windows.reader.column(name)[rows].astype(np.float64)
        low, high = np.quantile(values, (0.01, 0.99), axis=0)
        n = np.full(values.shape[1:], float(len(rows)))
        return {
            "n": n, "mean": values.mean(0), "std": values.std(0), "min": values.min(0), "max": values.max(0),
            "q01": low, "q99": high,
        }  # fmt: skip
    episodes = np.flatnonzero(windows.table.served)
    each = {statistic: values[episodes] for statistic, values in windows.store.episode_stats(name).items()}
    share = (windows.table.stop - windows.table.start)[episodes].astype(np.float64)
    share = (share / share.sum()).reshape(-1, *[1] * (each["mean"].ndim - 1))
    mean = (share * each["mean"]).sum(0)
    variance = (share * (each["std"] ** 2 + (each["mean"] - mean) ** 2)).sum(0)
    n = np.full(mean.shape, float((windows.table.stop - windows.table.start)[episodes].sum()))
    return {"n": n, "mean": mean, "std": np.sqrt(variance), "min": each["min"].min(0), "max": each["max"].max(0)}


def _quantiles(reader: WindowReader, name: str, scope: Scope, pair: tuple[float, float]) -> F64 | None:
    """Two quantiles of a key, [2, …], exact; None for frames by window, and for frames of floats."""
    key = reader.store.keys[name]
    if not key.frame:
        rows = rows_of(reader.table.runs) if scope == "windows" else slice(None)
        return np.asarray(np.quantile(reader.reader.column(name)[rows].astype(np.float64), pair, axis=0))
    if scope == "windows" or key.dtype != "uint8":
        return None
    counts = reader.store.histogram(name)
    each = counts.reshape(-1, counts.shape[-1])
    found = [quantiles_of_counted(np.flatnonzero(one).astype(np.float64), one[one > 0], pair) for one in each]
    return np.stack(found, axis=1).reshape(2, *counts.shape[:-1])


def scale_and_shift(
    readers: Sequence[WindowReader], name: str, scaling: Scaling | tuple[float, float], scope: Scope
) -> tuple[F64, F64]:
    """Shift and scale that normalise a key, ``(value - shift) / scale``: float64, per channel of a frame, else per element.

    Several stores count as one, by their numbers of values. An element that is constant, but for rounding, is divided by 1
    (openpi#814).

    Raises
    ------
    WindowError
        If quantiles are asked for where there are none: of several stores, or of the windows' frames.
    """
    found = [reader.store.stats(name) if scope == "store" else window_statistics(reader, name) for reader in readers]
    pair = None if isinstance(scaling, str) or len(readers) > 1 else _quantiles(readers[0], name, scope, scaling)
    if (scaling == "q01_q99" and (len(found) > 1 or "q01" not in found[0])) or (not isinstance(scaling, str) and pair is None):
        raise WindowError(
            f"normalise · {name}: quantiles of one whole store, or of low-dim windows; got {len(found)} store(s), scope "
            f"{scope!r} → use mean_std or min_max, or scope='store'"
        )
    if scaling == "mean_std":
        n = np.stack([each["n"] for each in found])
        share = n / n.sum(0)
        mean = (share * np.stack([each["mean"] for each in found])).sum(0)
        spread = np.stack([each["std"] ** 2 + (each["mean"] - mean) ** 2 for each in found])
        shift, scale = mean, np.sqrt((share * spread).sum(0))
    elif pair is not None:
        shift, scale = pair[0] / 2 + pair[1] / 2, pair[1] / 2 - pair[0] / 2
    else:
        low_name, high_name = ("min", "max") if scaling == "min_max" else ("q01", "q99")
        low = np.stack([each[low_name] for each in found]).min(0)
        high = np.stack([each[high_name] for each in found]).max(0)
        shift, scale = low / 2 + high / 2, high / 2 - low / 2
    least = np.stack([each["min"] for each in found]).min(0)
    most = np.stack([each["max"] for each in found]).max(0)
    return shift, spread_or_one(scale, least, most, readers[0].store.keys[name].dtype)

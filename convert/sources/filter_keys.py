"""Find robomimic's filter keys in an open HDF5 file: the splits ``/mask/<name>``, each with the names of its demos."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from robozarr.convert.records import Fault
from robozarr.convert.sources.integrity import Integrity
from robozarr.convert.sources.links import OtherFiles, dead_link, name_text, resolve

__all__ = ["bad_filter_keys", "demos_in", "filter_keys"]


def filter_keys(file: Any, others: OtherFiles) -> Iterator[tuple[str, Any]]:
    """Text datasets in ``mask``, by name; None for a link that leads nowhere."""
    mask = _mask(file)
    for name in mask if isinstance(mask, h5py.Group) else ():
        item = others.noted(resolve(mask, name))
        if item is None or (isinstance(item, h5py.Dataset) and item.dtype.kind in "SOU"):
            yield name_text(name), item


def demos_in(item: Any) -> list[str]:
    """Names of demos in a filter key."""
    texts = np.atleast_1d(item[()])
    return [text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text) for text in texts]


def bad_filter_keys(file: Any, others: OtherFiles, integrity: Integrity) -> dict[str, Fault]:
    """Filter keys, by path in the file, that lead nowhere or whose names were never written."""
    if "mask" in set(file) and _mask(file) is None:
        return {"mask": dead_link(file, "mask")}
    faults = {
        name: dead_link(file["mask"], name) if item is None else integrity.fault(item)
        for name, item in filter_keys(file, others)
    }
    return {f"mask/{name}": fault for name, fault in faults.items() if fault is not None}


def _mask(file: Any) -> Any:
    return resolve(file, "mask") if "mask" in set(file) else None

"""Tell whether a saved state is about the same windows: the same window, and the same anchors. Imports no zarr, no torch."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError
from robozarr.schemas.window import WindowSpec

__all__ = ["check_same_windows", "fingerprint"]


def fingerprint(spec: WindowSpec, table: WindowTable) -> dict[str, Any]:
    """What decides the windows and their content, apart from the store, as JSON values.

    ``window`` is the specification, keys by name; ``anchors`` a checksum of the rows that the filters left.
    """
    parts = sorted(f"{key.name} {_told(key.offsets)} {key.padding}" for key in spec.keys)
    parts += ["causal"] * spec.causal
    parts += [] if spec.assume_alignment is None else [f"assume_alignment {spec.assume_alignment.name}"]
    return {"window": "; ".join(parts), "anchors": zlib.crc32(table.runs.astype("<i8").tobytes()), "n_windows": table.n_windows}


def check_same_windows(saved: Any, here: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a state of other windows, by comparing each dataset's saved `fingerprint` with the present one.

    Raises
    ------
    WindowError
        The text says which dataset, and what differs.
    """
    remedy = "→ resume with the same window and filters, or start a new run"
    if not isinstance(saved, list | tuple) or len(saved) != len(here) or not all(isinstance(one, Mapping) for one in saved):
        n = len(saved) if isinstance(saved, list | tuple) else repr(saved)
        raise WindowError(f"order · state: of {len(here)} datasets; saved with {n} {remedy}")
    for number, (then, now) in enumerate(zip(saved, here, strict=True)):
        which = f"dataset {number}: " if len(here) > 1 else ""
        if "store" in now and then.get("store", now["store"]) != now["store"]:  # states of earlier versions lack it
            raise WindowError(
                f"order · state: {which}of this store; saved with the store of identity {then['store']}, now {now['store']} "
                "→ resume with the store that it was saved with, or start a new run"
            )
        if then.get("window") != now["window"]:
            raise WindowError(
                f"order · state: {which}of this window; saved with {then.get('window')}, now {now['window']} {remedy}"
            )
        if then.get("anchors") != now["anchors"]:
            raise WindowError(
                f"order · state: {which}of the windows that these filters leave; saved with {then.get('n_windows')} windows of "
                f"other steps or episodes, now {now['n_windows']} {remedy}"
            )


def _told(offsets: tuple[int, ...]) -> str:
    """Offsets in a short form.

    >>> _told((0, 1, 2, 3)), _told((0,)), _told((-1, 0, 4))
    ('0..3', '0', '-1,0,4')
    """
    if len(offsets) > 2 and all(b - a == 1 for a, b in pairwise(offsets)):
        return f"{offsets[0]}..{offsets[-1]}"
    return ",".join(map(str, offsets))

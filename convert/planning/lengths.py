"""Compare what files say of their demos' lengths with the steps that are there. Pure; no I/O.

robomimic, LIBERO and MimicGen write ``num_samples`` beside each demo. Nothing here depends on it, so another number is no
error: a tool that cut the data and kept the attribute leaves a good demo. But so does a recorder that lost its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Final

from robozarr.convert.records import DemoScan, FileScan
from robozarr.schemas.source import source_names
from robozarr.schemas.words import counted

__all__ = ["length_remarks"]

STATED: Final = "num_samples"


def length_remarks(files: Sequence[FileScan]) -> Iterator[str]:
    """One remark on each file whose demos are said to have another number of steps than their actions have."""
    names = source_names([PurePath(file.path) for file in files])
    for name, file in zip(names, files, strict=True):
        found = [(demo, stated) for demo in file.demos if (stated := _stated(demo)) not in (None, demo.length)]
        if found:
            demo, stated = found[0]
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            yield (
                f"{name} · {demo.name}{more}: {STATED} says {stated}, the actions have {counted(demo.length, 'step')}, which "
                "are converted → compare with the original if there is one: an end may have been lost"
            )


def _stated(demo: DemoScan) -> int | None:
    """The number that a demo states; None if it states no whole number."""
    if f'"{STATED}"' not in demo.attributes:  # most demos of a large conversion need no parsing
        return None
    entry = json.loads(demo.attributes).get("", {}).get(STATED, {})
    value = entry.get("value")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return int(value) if isinstance(value, int | float) and value == int(value) else None

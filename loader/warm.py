"""Compile the reader once, ahead of the first dataset: ``python -m robozarr.loader.warm``, for image builds and CI.

Imports no torch. Machine code is kept in the user's cache folder, or in ``NUMBA_CACHE_DIR``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np

from robozarr.loader.frames.buffers import ThreadBuffers
from robozarr.loader.frames.code_cache import cache_folder
from robozarr.loader.frames.read import FrameReader, KeyReader, MemoryReader
from robozarr.loader.frames.rows import first_other
from robozarr.schemas.layout import Profile, layout_of_values

__all__ = ["compile_reader"]

PROFILES: Final[tuple[Profile, ...]] = ("raw", "fast", "lean")
"""One for each kind of code: every codec with one frame per chunk shares it. Chunks with keyframes have code of their own."""


def compile_reader(profiles: Sequence[Profile] = PROFILES) -> float:
    """Compile everything that reading a store in a folder needs, or load it from the cache.

    Parameters
    ----------
    profiles : names
        Profiles of the stores; the code for keyframes takes several times as long as the rest.

    Returns
    -------
    float
        Seconds that it took.
    """
    began = time.perf_counter()
    store: Any = SimpleNamespace(path="/nowhere")
    free = np.zeros(1, np.int64)
    readers: list[tuple[KeyReader, int]] = [(MemoryReader(np.zeros((1, 7))), 56)]
    for profile in profiles:
        layout = layout_of_values("steps/picture", (1, 8, 8, 3), "uint8", ("step", "y", "x", "c"), profile)
        readers.append((FrameReader(store, layout, np.zeros(1, np.uint32), free), layout.row_bytes))
    buffers, rows, at = ThreadBuffers(), np.empty((0, 1), np.int64), np.empty(0, np.int64)
    rows.flags.writeable = False
    for reader, row_bytes in readers:
        reader.read(rows, at, np.empty((0, 1, row_bytes), np.uint8), buffers, (0, 1))
    first_other(np.zeros((0, 8), np.uint8), np.empty(0, np.int64), np.empty(0, np.uint32))
    return time.perf_counter() - began


def main() -> int:
    """Compile, and say where the machine code is kept."""
    seconds = compile_reader()
    place = cache_folder()
    kept = f"kept in {place}" if place else "not kept: no folder can be written to; set NUMBA_CACHE_DIR to one"
    print(f"robozarr: the reader is compiled ({seconds:.1f} s), {kept}")
    return 0 if place else 1


if __name__ == "__main__":
    sys.exit(main())

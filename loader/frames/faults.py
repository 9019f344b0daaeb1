"""Explain errors of the compiled read path: from a code and a row to a text that says what is wrong, and where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robozarr.loader.frames.shards import FOREIGN, OUTSIDE
from robozarr.schemas.errors import CorruptChunkError, StoreError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import Within, corrupt_chunk, decode_rows, read_index
from robozarr.store.opened import Store

__all__ = ["episode_of", "explain"]


def explain(store: Store, layout: ArrayLayout, code: int, row: int, read: Callable[[str], bytes]) -> StoreError:
    """Find out what is wrong with a row's chunk, slowly, and say it; or say that the store was changed since it was opened.

    Parameters
    ----------
    store : Store
    layout : ArrayLayout
        Of the key.
    code, row : int
        What the compiled code said.
    read : function of a path inside the store
        Whole files; raises OSError.
    """
    if code == OUTSIDE:
        return CorruptChunkError(f"{store.path}/{layout.path}: rows in [0, {layout.shape[0]}); row {row} was asked for", "M3")
    if (changed := store.changed()) is not None:
        return changed
    shard, in_shard = divmod(row, layout.shard_rows)
    chunk, in_chunk = divmod(in_shard, layout.chunk_rows)
    within, frame = episode_of(store, row), None if layout.effort is None else row
    try:
        data = read(layout.shard_path(shard))
        index = read_index(data, layout, shard)
        said: Within = within if frame is None else lambda row: episode_of(store, row)  # another frame may be to blame
        decode_rows(data, index, layout, shard, chunk, [in_chunk], within=said)
    except OSError as exc:
        rule, found = "every expected shard must exist and be readable", exc.strerror or str(exc)
        return corrupt_chunk("M7", layout, shard, chunk, rule, found, row=frame, within=within)
    except CorruptChunkError as exc:
        return exc if " · episode " in exc.message else CorruptChunkError(f"{exc.message} ({within})", exc.rule)
    if code == FOREIGN:
        rule, found = "the chunk is the one that was written for this row", "another row's: shards were mixed up"
        return corrupt_chunk("M21", layout, shard, chunk, rule, found, row=frame, within=within)
    rule = "the chunk can be read"
    return corrupt_chunk(
        "M9", layout, shard, chunk, rule, f"code {code}, and nothing wrong a moment later", row=frame, within=within
    )


def episode_of(store: Store, row: int) -> str:
    """Where a row is, in words: its episode, and the step inside it."""
    episode = int(np.searchsorted(store.episodes.start, row, side="right")) - 1
    step = row - int(store.episodes.start[episode])
    return f"episode {episode} ({store.episodes.demo[episode]}), step {step}"

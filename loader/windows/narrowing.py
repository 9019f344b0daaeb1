"""Filters that look at single steps: stride, padding, masks and step ranges. Pure numpy; imports no zarr, no torch.

``loader.windows.selection`` has the filters about episodes and flags, which come first; each of these takes anchors away from
what those leave, and each anchor that goes is counted under one reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import WindowError

__all__ = ["check_max_padding", "check_stride", "little_padding", "mask_of_ranges", "on_stride"]

I64: TypeAlias = NDArray[np.int64]
Bool: TypeAlias = NDArray[np.bool_]


def check_stride(stride: Any) -> int | None:
    """Refuse a stride that is not a number of steps; raises WindowError."""
    if stride is None:
        return None
    if isinstance(stride, bool) or not isinstance(stride, int | np.integer) or stride < 1:
        raise WindowError(
            f"filter · stride: a whole number of steps, 1 or more; got {stride!r} → stride=5 takes every fifth step"
        )
    return int(stride)


def check_max_padding(most: Any) -> int | dict[str, int] | None:
    """Refuse a maximum that is not a number of padded offsets, or one by key; raises WindowError."""
    if most is None:
        return None
    values = most if isinstance(most, Mapping) else {"": most}
    for value in values.values():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise WindowError(
                f"filter · max_padding: how many offsets of a key may lie outside the episode, 0 or more, or that by key; got "
                f'{most!r} → pass, for example, 0 or {{"actions": 7}}'
            )
    return {str(name): int(n) for name, n in most.items()} if isinstance(most, Mapping) else int(most)


def on_stride(start: I64, length: I64, stride: int) -> Bool:
    """Rows whose step in their episode is a multiple of `stride`: bool [n_steps].

    >>> on_stride(np.array([0, 3]), np.array([3, 2]), 2).astype(int).tolist()
    [1, 0, 1, 1, 0]
    """
    mask = np.zeros(int(length.sum()), bool)
    n_each = -(-length // stride)
    number = np.arange(int(n_each.sum())) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    mask[np.repeat(start, n_each) + stride * number] = True
    return mask


def little_padding(start: I64, length: I64, shift: I64, offsets: I64, most: int) -> Bool:
    """Rows at which at most `most` of `offsets` lie outside of the episode: bool [n_steps].

    Parameters
    ----------
    start, length, shift : int64 [episode]
        `shift` is added to the offsets: 0, or 1 for shifted keys.
    offsets : int64 [n_offsets]
    most : int, 0 or more

    >>> one = np.array([0])
    >>> little_padding(one, np.array([5]), one, np.array([-1, 0, 1, 2]), 1).astype(int).tolist()
    [1, 1, 1, 1, 0]
    """
    n_steps = int(length.sum())
    needed = len(offsets) - most
    if needed <= 0:
        return np.ones(n_steps, bool)
    # the offsets inside are neighbours when sorted: `needed` of them, from the j-th on, lie inside for one range of steps
    ordered = np.sort(offsets)
    change = np.zeros(n_steps + 1, np.int32)
    for first, last in zip(ordered[: most + 1], ordered[needed - 1 :], strict=True):
        low = np.clip(-first - shift, 0, length)
        high = np.clip(length - last - shift, low, length)
        np.add.at(change, start + low, 1)
        np.add.at(change, start + high, -1)
    return np.cumsum(change[:-1], dtype=np.int32) > 0


def mask_of_ranges(
    ranges: Mapping[Any, Iterable[Sequence[int]]], start: I64, length: I64, names: Mapping[str, Sequence[int]]
) -> Bool:
    """Rows inside the ranges of steps that are given for each episode: bool [n_steps].

    Parameters
    ----------
    ranges : mapping of episode to (start, stop) pairs
        Half-open, in steps of the episode, as openpi's DROID filter has them ("keep frames 0-99" is (0, 100)). An episode is
        a row of the episode table, or a name. Episodes that are not mentioned have no windows.
    start, length : int64 [episode]
    names : mapping of name to rows
        What episodes may be called.

    Raises
    ------
    WindowError
        If there is no such episode, a name means several, or a range does not lie inside its episode.
    """
    mask = np.zeros(int(length.sum()), bool)
    for given, of_episode in ranges.items():
        episode = _episode_of(given, len(length), names)
        for pair in of_episode:
            bounds = list(pair) if isinstance(pair, Iterable) else [pair]
            whole = all(isinstance(edge, int | np.integer) and not isinstance(edge, bool) for edge in bounds)
            if len(bounds) != 2 or not whole or not 0 <= bounds[0] < bounds[1] <= length[episode]:
                raise WindowError(
                    f"filter · windows · episode {given!r}: ranges (start, stop) of its steps, 0 to {int(length[episode])}; "
                    f"got {pair!r} → pass [(0, {int(length[episode])})] for all of it"
                )
            mask[start[episode] + bounds[0] : start[episode] + bounds[1]] = True
    return mask


def _episode_of(given: Any, n_episodes: int, names: Mapping[str, Sequence[int]]) -> int:
    if isinstance(given, str):
        found = names.get(given, ())
        if len(found) != 1:
            told = "no episode has this name" if not found else f"{len(found)} episodes have this name: {list(found)[:8]}"
            such = f", such as {next(iter(names))!r}" if names else ""
            raise WindowError(
                f"filter · windows: an episode by its row or by its name, file and demo{such}; got {given!r}, and {told} → "
                "take the rows of store.episodes"
            )
        return found[0]
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < n_episodes:
        raise WindowError(
            f"filter · windows: episodes in [0, {n_episodes}), rows of the store's episode table; got {given!r} → look them up "
            "there"
        )
    return int(given)

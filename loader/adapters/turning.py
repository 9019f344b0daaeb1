"""Turn pictures of a batch: upright, or mirrored as some training code expects them; in place on the CPU.

Fresh memory for pictures costs more than turning them, and neither torch nor numpy mirrors pixels of three bytes quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numba import uint64
from numpy.typing import NDArray

from robozarr.loader.dataset import WindowDataset
from robozarr.loader.frames.compiling import compiled
from robozarr.loader.frames.upright import check_conventions
from robozarr.schemas.errors import WindowError
from robozarr.store.opened import Store

__all__ = ["Turn", "channels_last", "check_pictures", "check_turn", "lines_first", "turn_pictures", "upside_down"]

Turn = Literal["rotate", "upright", "none"]
"""How pictures are turned: by 180° from robosuite's rendering (mirrored for a person), upright, or as stored."""


def check_turn(turn: str) -> None:
    """Refuse anything but a ``Turn``; raises WindowError."""
    if turn not in get_args(Turn):
        raise WindowError(f'pictures · turn: "rotate", "upright" or "none"; got {turn!r} → pass one of these')


def check_pictures(windows: WindowDataset, keys: tuple[str, ...]) -> None:
    """Refuse keys that are neither uint8 [y, x, 3] nor [3, y, x]; raises WindowError."""
    for name in keys:
        key = windows.store.keys[name]
        channels = dict(zip(key.picture_axes, key.shape, strict=False)).get("c")
        if key.dtype != "uint8" or key.picture_axes not in ("yxc", "cyx") or channels != 3:
            raise WindowError(
                f"pictures · {name}: colours of uint8, [y, x, 3] or [3, y, x], which is what the policy's code takes; got "
                f"{key.dtype} {list(key.shape)} → name another key, or make such pictures of it before converting"
            )


def channels_last(x: torch.Tensor, windows: WindowDataset, name: str) -> torch.Tensor:
    """Pictures of a key of a batch as uint8 [b, n, y, x, 3]: `x` itself, or new memory where they are stored channels first."""
    if windows.store.keys[name].picture_axes == "yxc":
        return x
    if x.device.type == "cpu":  # by numpy: torch's threads would wait for cores that the loader's threads are reading on
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x.numpy(), -3, -1)))
    return x.movedim(-3, -1).contiguous()


def lines_first(store: Store, keys: Sequence[str]) -> tuple[str, ...]:
    """Those keys whose pictures are [y, x, …]: the reader can turn them while it reads them."""
    return tuple(key for key in keys if store.keys[key].picture_axes.startswith("y"))


def upside_down(windows: WindowDataset) -> NDArray[np.bool_]:
    """Bool [n_episodes]: whether row 0 of an episode's pictures is the bottom row; raises WindowError if that is unknown."""
    return check_conventions(windows.store, windows.table.served)


def turn_pictures(x: torch.Tensor, over: NDArray[np.bool_], mirror: bool) -> torch.Tensor:
    """Reverse the rows of pictures where `over` is true, and the columns of all if `mirror`.

    Parameters
    ----------
    x : uint8 [b, n, y, x, 3], contiguous; written to on the CPU
    over : bool [b]
    mirror : bool

    Returns
    -------
    uint8 [b, n, y, x, 3]
        `x` itself on the CPU, new memory elsewhere.
    """
    if not over.any() and not mirror:
        return x
    if x.device.type == "cpu":
        height, width = x.shape[2:4]
        frames, of_frames = x.numpy().reshape(x.shape[0] * x.shape[1], -1), np.repeat(over, x.shape[1])
        if mirror:
            mirror_frames(frames, of_frames, height, width, np.empty(frames.shape[1], np.uint8))
        else:
            word = np.uint64 if 3 * width % 8 == 0 else np.uint8
            turn_over(frames.reshape(len(frames), height, -1).view(word), of_frames)
        return x
    if over.all():
        return x.flip(2, 3) if mirror else x.flip(2)
    if over.any():
        x = torch.where(torch.from_numpy(over).to(x.device)[:, None, None, None, None], x.flip(2), x)
    return x.flip(3) if mirror else x


@compiled
def mirror_frames(
    frames: NDArray[np.uint8], over: NDArray[np.bool_], height: int, width: int, scratch: NDArray[np.uint8]
) -> None:
    """Mirror frames [n, y · x · 3] in place, with the buffer `scratch` [y · x · 3]; where `over` is true, turn by 180°.

    Unsigned numbers and plain loops throughout: with signed numbers numba looks for negative indices, with slices for overlap,
    and either takes ten times as long.
    """
    one, two, three = uint64(1), uint64(2), uint64(3)
    rows, row_pixels = uint64(height), uint64(width)
    row_bytes, pixels = three * row_pixels, rows * row_pixels
    for i in range(len(frames)):
        frame = frames[i]
        for k in range(three * pixels):
            scratch[uint64(k)] = frame[uint64(k)]
        if over[i]:
            for pixel in range(pixels):
                q, p = three * (pixels - one - uint64(pixel)), three * uint64(pixel)
                frame[p] = scratch[q]
                frame[p + one] = scratch[q + one]
                frame[p + two] = scratch[q + two]
        else:
            for y in range(rows):
                at = uint64(y) * row_bytes
                for pixel in range(row_pixels):
                    q, p = at + three * (row_pixels - one - uint64(pixel)), at + three * uint64(pixel)
                    frame[p] = scratch[q]
                    frame[p + one] = scratch[q + one]
                    frame[p + two] = scratch[q + two]


@compiled
def turn_over(frames: NDArray[Any], over: NDArray[np.bool_]) -> None:
    """Reverse the rows of frames [n, y, words per row] in place, where `over` is true."""
    rows, words, one = uint64(frames.shape[1]), uint64(frames.shape[2]), uint64(1)
    for i in range(len(frames)):
        if over[i]:
            frame = frames[i]
            for y in range(rows // uint64(2)):
                for k in range(words):
                    kept = frame[uint64(y), uint64(k)]
                    frame[uint64(y), uint64(k)] = frame[rows - one - uint64(y), uint64(k)]
                    frame[rows - one - uint64(y), uint64(k)] = kept

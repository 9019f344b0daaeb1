"""Move pixels: crops, shifts, boxes and turns, one for each picture of a batch. Torch only.

All take pictures [n, c, y, x].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["box_of", "crop", "resize", "rotate"]


def crop(x: torch.Tensor, top: torch.Tensor, left: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut out [height, width] from (top, left) of each picture; int64 [n] each. Pixels past an edge repeat the edge."""
    n, channels, h, w = x.shape
    rows = (top[:, None] + torch.arange(height, device=x.device)).clamp_(0, h - 1)
    columns = (left[:, None] + torch.arange(width, device=x.device)).clamp_(0, w - 1)
    across = x.gather(2, rows[:, None, :, None].expand(n, channels, height, w))
    return across.gather(3, columns[:, None, None, :].expand(n, channels, height, width))


def box_of(x: torch.Tensor, box: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cut out a box of each picture and scale it to [height, width], bilinear, with aligned corners.

    As TensorFlow's ``crop_and_resize``: `box` float [n, 4] is y0, x0, y1, x1, in parts of (size - 1).
    """
    ys = _between(box[:, 0], box[:, 2], height)
    xs = _between(box[:, 1], box[:, 3], width)
    grid = torch.stack(
        [xs[:, None, :].expand(-1, height, -1), ys[:, :, None].expand(-1, -1, width)], dim=-1
    )  # grid_sample takes x before y, in [-1, 1]
    return F.grid_sample(x, grid.to(x.dtype) * 2 - 1, mode="bilinear", padding_mode="border", align_corners=True)


def _between(low: torch.Tensor, high: torch.Tensor, n: int) -> torch.Tensor:
    """From low to high in n points, or the middle where n is 1: float [m, n]."""
    part = torch.arange(n, device=low.device, dtype=low.dtype) / (n - 1) if n > 1 else low.new_full((1,), 0.5)
    return low[:, None] + (high - low)[:, None] * part


def resize(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize to [height, width], bilinear with antialiasing, as torchvision and PIL do."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=False, antialias=True)


def rotate(x: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate each picture around its centre, counter-clockwise, bilinear; float [n]. Pixels from outside are black."""
    n, _, h, w = x.shape
    angle = torch.deg2rad(degrees)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(cosine)
    # where each pixel comes from, in [-1, 1] of width and height
    matrix = torch.stack([torch.stack([cosine, -sine * h / w, zero], -1), torch.stack([sine * w / h, cosine, zero], -1)], dim=1)
    grid = F.affine_grid(matrix.to(x.dtype), [n, x.shape[1], h, w], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

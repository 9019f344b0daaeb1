"""Add noise and blur as RDT does (imgaug's augmenters, train/image_corrupt.py). Torch only.

The distributions are imgaug's. Its rounding to bytes after each step and OpenCV's ways at the picture's edge are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar, Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from robozarr.loader.device.augmenting.steps import Drawn

__all__ = ["Corrupt"]

Change: TypeAlias = Callable[[torch.Tensor, Drawn], torch.Tensor]

NOISE: Final = 0.05
"""Largest deviation of gaussian and Laplace noise, largest mean of Poisson noise over 255."""
SIGMA, AVERAGE, MEDIAN, MOTION = 3.0, (2, 7), (3, 11), (3, 36)
"""Largest sigma of a gaussian blur; least and largest size of the others' kernels."""
POISSON_TERMS: Final = 40
"""Of a Poisson variable of mean 12.75 more has a probability of 1e-9."""
REACHES: Final = (5, 10, 20)
"""Pixels either way of the kernels of motion blurs: the least that a picture's own needs."""
GOLDEN, MIX_1, MIX_2 = (n - (1 << 64) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
"""splitmix64's constants, as signed numbers."""


@dataclass(frozen=True, slots=True)
class Corrupt:
    """Noise, and in half of the pictures a blur, in random order: RDT's ``image_corrupt``. Not in evaluation.

    Noise is gaussian, Laplace or Poisson, of each channel or of all alike. The blur is motion in half of the cases, else
    gaussian, average or median.
    """

    n_draws: ClassVar[int] = 10
    keeps_place: ClassVar[bool] = True

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        noise_first = drawn.host[:, 0] < 0.5
        x = _on(x, ~noise_first, drawn, _blurred)
        for number, noise in enumerate((_gaussian, _laplace, _poisson)):
            x = _on(x, (drawn.host[:, 1] * 3).astype(int) == number, drawn, noise)
        return _on(x, noise_first, drawn, _blurred)

    def centre(self) -> None:
        """None: evaluation has no such step."""


def _on(x: torch.Tensor, which: NDArray[np.bool_], drawn: Drawn, change: Change) -> torch.Tensor:
    """Change some of the pictures, all at once."""
    own = np.flatnonzero(which)
    if not len(own):
        return x
    index = torch.from_numpy(own).to(x.device)
    return x.index_copy(0, index, change(x.index_select(0, index), drawn.of(own, index)).to(x.dtype))


# --- noise ---


def _gaussian(x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    u = _of_pixels(x, drawn)
    return (x + _of_each(drawn, 2) * NOISE * sqrt(2) * torch.erfinv(2 * u - 1)).clamp_(0, 1)


def _laplace(x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    v = _of_pixels(x, drawn) - 0.5
    return (x - _of_each(drawn, 2) * NOISE * v.sign() * torch.log1p(-2 * v.abs())).clamp_(0, 1)


def _poisson(x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    mean = _of_each(drawn, 2) * NOISE * 255
    u = _of_pixels(x, drawn)
    sign = torch.where(u < 0.5, -1.0, 1.0)
    left = (2 * u) % 1  # below is the sign's half
    term, count, reached = torch.exp(-mean), torch.zeros_like(x), torch.zeros_like(mean)
    for k in range(POISSON_TERMS):
        reached = reached + term
        count += left > reached
        term = term * mean / (k + 1)
    return (x + sign * count / 255).clamp_(0, 1)


def _of_each(drawn: Drawn, number: int) -> torch.Tensor:
    return drawn.device[:, number].float().view(-1, 1, 1, 1)


def _of_pixels(x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """A number in (0, 1) for each value, or for each pixel of all channels: a hash of the picture's number and the position."""
    _, channels, height, width = x.shape
    place = torch.arange(height * width, device=x.device).view(1, 1, height, width)
    channel = torch.arange(channels, device=x.device).view(1, -1, 1, 1) * height * width
    each = (drawn.device[:, 3] < 0.5).view(-1, 1, 1, 1)
    key = (drawn.device[:, 4] * float(1 << 53)).long().view(-1, 1, 1, 1)
    z = key + (place + channel * each + 1) * GOLDEN  # splitmix64; torch's int64 wraps around
    z = (z ^ _shifted(z, 30)) * MIX_1
    z = (z ^ _shifted(z, 27)) * MIX_2
    z = z ^ _shifted(z, 31)
    return (_shifted(z, 40).to(x.dtype) + 0.5) / float(1 << 24)


def _shifted(z: torch.Tensor, by: int) -> torch.Tensor:
    return (z >> by) & ((1 << (64 - by)) - 1)


# --- blur ---


def _blurred(x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    kind = np.select(
        [drawn.host[:, 5] < 0.5, drawn.host[:, 6] < 0.5], [-1, 3], (drawn.host[:, 7] * 3).astype(int)
    )  # half of the pictures as they are
    for number, kernel in ((0, _gaussian_kernel), (1, _average_kernel)):
        x = _on(x, kind == number, drawn, lambda part, own, kernel=kernel: _convolved(part, kernel(own)))  # type: ignore[misc]
    # a picture's own size decides its kernel's, never what it is in a batch with: the same numbers to the last bit
    needed = np.searchsorted(REACHES, MOTION[0] / 2 + drawn.host[:, 8] * (MOTION[1] - MOTION[0] + 1) / 2)
    for number, reach in enumerate(REACHES):
        own_size = (kind == 3) & (needed == number)
        x = _on(x, own_size, drawn, lambda part, own, reach=reach: _convolved(part, _motion_kernel(own, reach)))  # type: ignore[misc]
    sizes = np.arange(MEDIAN[0], MEDIAN[1] + 1, 2)
    size = sizes[(drawn.host[:, 8] * len(sizes)).astype(int)]
    for k in sizes.tolist():
        x = _on(x, (kind == 2) & (size == k), drawn, lambda part, _, k=k: _median(part, k))  # type: ignore[misc]
    return x


def _convolved(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Each picture convolved with its own kernel, float [n, k, k], k odd; pixels past an edge repeat the edge."""
    n, channels, height, width = x.shape
    reach = kernel.shape[-1] // 2
    padded = F.pad(x, (reach,) * 4, mode="replicate").reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    weight = kernel.to(x.dtype).repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weight, groups=n * channels).reshape(x.shape)


def _axis(drawn: Drawn, reach: int) -> torch.Tensor:
    return torch.arange(-reach, reach + 1, device=drawn.device.device, dtype=torch.float64)


def _gaussian_kernel(drawn: Drawn) -> torch.Tensor:
    sigma = (drawn.device[:, 8] * SIGMA).clamp_min(1e-3)
    line = torch.exp(-0.5 * (_axis(drawn, int(3 * SIGMA)) / sigma[:, None]) ** 2)
    line = line / line.sum(1, keepdim=True)
    return line[:, :, None] * line[:, None, :]


def _average_kernel(drawn: Drawn) -> torch.Tensor:
    size = AVERAGE[0] + (drawn.device[:, 8] * (AVERAGE[1] - AVERAGE[0] + 1)).floor()[:, None]
    at = _axis(drawn, AVERAGE[1] // 2) + (size / 2).floor()
    line = ((at >= 0) & (at < size)).double() / size
    return line[:, :, None] * line[:, None, :]


def _motion_kernel(drawn: Drawn, reach: int) -> torch.Tensor:
    """A line through the middle, of random length and angle, stronger at one end; at most `reach` pixels either way."""
    size = MOTION[0] + (drawn.device[:, 8] * (MOTION[1] - MOTION[0] + 1)).floor()[:, None]
    angle, lean = 2 * pi * drawn.device[:, 9:10], drawn.device[:, 7:8]
    along = _axis(drawn, REACHES[-1]) / REACHES[-1] * (size - 1) / 2
    weight = lean + (1 - 2 * lean) * (along / (size - 1) + 0.5)
    y, x = reach + along * torch.sin(angle), reach + along * torch.cos(angle)
    side = 2 * reach + 2
    kernel = torch.zeros(len(size), side, side, dtype=torch.float64, device=size.device)
    row, column = y.floor().long(), x.floor().long()
    dy, dx = y - row, x - column
    flat = kernel.view(len(size), -1)
    for down, right, share in ((0, 0, (1 - dy) * (1 - dx)), (0, 1, (1 - dy) * dx), (1, 0, dy * (1 - dx)), (1, 1, dy * dx)):
        flat.scatter_add_(1, (row + down) * side + column + right, weight * share)
    kernel = kernel[:, :-1, :-1]
    return kernel / kernel.sum((1, 2), keepdim=True)


def _median(x: torch.Tensor, k: int) -> torch.Tensor:
    padded = F.pad(x, (k // 2,) * 4, mode="replicate")
    return padded.unfold(2, k, 1).unfold(3, k, 1).flatten(-2).median(-1).values

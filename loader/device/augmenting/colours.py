"""Change colours, by one number per picture, as torchvision and as TensorFlow do it. Torch only.

All take pictures float [n, c, y, x] in [0, 1] and factors [n], and return such pictures. torchvision: torchvision/transforms/
_functional_tensor.py (brightness, contrast and saturation are blends with black, with the mean grey, with the grey picture).
TensorFlow: python/ops/image_ops_impl.py and core/kernels (brightness adds, contrast keeps each channel's mean, saturation
scales HSV's s). In both, hue turns HSV's h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import torch

__all__ = ["ADJUST", "Kind", "Space", "adjust_hue"]

Kind = Literal["brightness", "contrast", "saturation", "hue"]
Space = Literal["torchvision", "tensorflow"]
Adjust: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

GREY: Final = (0.2989, 0.587, 0.114)
"""torchvision's (ITU-R 601-2), as rgb_to_grayscale has them."""


def _grey(x: torch.Tensor) -> torch.Tensor:
    red, green, blue = x.unbind(-3)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(-3)


def _of_each(factor: torch.Tensor) -> torch.Tensor:
    return factor.view(-1, 1, 1, 1)


def _blend(x: torch.Tensor, other: torch.Tensor | float, factor: torch.Tensor) -> torch.Tensor:
    share = _of_each(factor)
    return (share * x + (1 - share) * other).clamp_(0, 1)


def _brighter(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (x * _of_each(factor)).clamp_(0, 1)


def _contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blend(x, _grey(x).mean(dim=(-3, -2, -1), keepdim=True), factor)


def _saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blend(x, _grey(x), factor)


def _tf_brighter(x: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    return (x + _of_each(delta)).clamp_(0, 1)


def _tf_contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    mean = x.mean(dim=(-2, -1), keepdim=True)
    return ((x - mean) * _of_each(factor) + mean).clamp_(0, 1)


def _tf_saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    # HSV with s scaled, clipped to [0, 1], and back: each channel's distance from the largest one is scaled by as much
    top, low = x.amax(-3, keepdim=True), x.amin(-3, keepdim=True)
    spread = top - low
    most = torch.where(spread > 0, top / spread.clamp_min(1e-12), torch.ones_like(top))  # where s becomes 1
    return (top - (top - x) * torch.minimum(_of_each(factor), most)).clamp_(0, 1)


def adjust_hue(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the hue; `turn` in parts of the circle, 0.5 is the complementary colour."""
    hue, saturation, value = _to_hsv(x)
    return _from_hsv((hue + turn.view(-1, 1, 1)) % 1.0, saturation, value)


def _to_hsv(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    red, green, blue = x.unbind(-3)
    top, low = x.amax(-3), x.amin(-3)
    spread = top - low
    grey = spread == 0
    saturation = spread / torch.where(top == 0, torch.ones_like(top), top)
    divisor = torch.where(grey, torch.ones_like(top), spread)
    r, g, b = ((top - channel) / divisor for channel in (red, green, blue))
    is_red, is_green = top == red, top == green
    sector = torch.where(is_red, b - g, torch.where(is_green, 2 + r - b, 4 + g - r))
    hue = torch.where(grey, torch.zeros_like(top), (sector / 6) % 1.0)
    return hue, saturation, top


def _from_hsv(hue: torch.Tensor, saturation: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    # each channel is value · (1 - saturation · k), k a ramp over the circle
    channels = []
    for first in (5.0, 3.0, 1.0):
        k = (first + hue * 6) % 6
        channels.append(value * (1 - saturation * torch.minimum(k, 4 - k).clamp_(0, 1)))
    return torch.stack(channels, -3)


ADJUST: Final[dict[Space, dict[Kind, Adjust]]] = {
    "torchvision": {"brightness": _brighter, "contrast": _contrast, "saturation": _saturation, "hue": adjust_hue},
    "tensorflow": {
        "brightness": _tf_brighter, "contrast": _tf_contrast, "saturation": _tf_saturation, "hue": adjust_hue,
    },
}  # fmt: skip
"""By whose rules, and by kind."""

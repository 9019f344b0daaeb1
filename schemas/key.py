"""A key: data with a value at every step; its axes, and the shape of its statistics. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, get_args

from robozarr.schemas.axes import channel_axes, is_axes
from robozarr.schemas.layout import DTYPES, is_frame
from robozarr.schemas.source import Role, is_array_name

__all__ = ["Key"]

DEPTH_BINS: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: data with a value at every step."""

    name: str
    """Name in the store: ``steps/<name>`` or ``ragged/<name>``."""
    source: str
    """Path of the dataset inside a demo, such as ``obs/agentview_rgb``."""
    dtype: str
    """numpy name of the type, as in the source."""
    shape: tuple[int, ...]
    """Shape of one step; empty for a scalar, and for a ragged key, whose width varies."""
    role: Role
    """image, depth, action, state or outcome."""
    unit: str
    """Unit, or "" if it is not known."""
    ragged: bool = False
    """Whether the width of a step differs between episodes (by declaration, schemas/source.py)."""
    axes: str = ""
    """One letter per axis of a step (``schemas.axes``); "" means: derived from the shape, as in format 1."""
    decoded: str = ""
    """Decoder of frames that were encoded in the source, such as "JPEG by Pillow 12.0"; "" if they were not."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not is_array_name(self.name):
            raise ValueError(f"a key cannot be called {self.name!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype of {self.name} must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not all(type(n) is int and n > 0 for n in self.shape):
            raise ValueError(f"shape of {self.name} must be of positive integers, got {self.shape!r}")
        if self.role not in get_args(Role):
            raise ValueError(f"role of {self.name} must be one of {', '.join(get_args(Role))}, got {self.role!r}")
        if self.axes and (self.ragged or not is_axes(self.axes, self.shape)):
            raise ValueError(
                f"axes of {self.name} must be a letter of t, c, y, x, n an axis of {self.shape}, got {self.axes!r}"
            )

    @property
    def frame(self) -> bool:
        """Whether each step has its own chunk: a picture, or a step with very many elements."""
        return not self.ragged and (bool(self.axes) or is_frame(self.shape))

    @property
    def picture_axes(self) -> str:
        """Letters of a picture's axes, such as "yxc" or "cyx"; "" if a step is not a picture."""
        axes = self.axes or ("yxc"[: len(self.shape)] if self.frame else "")
        return axes if "y" in axes else ""

    @property
    def channels(self) -> tuple[int, ...]:
        """Axes of a step that have separate statistics."""
        if self.axes:
            return channel_axes(self.axes, self.shape)
        return tuple(range(2 if self.frame else 0, len(self.shape)))

    @property
    def channel_shape(self) -> tuple[int, ...]:
        """Shape of its statistics: a picture's channels, else all elements of a step, unless there are very many."""
        return tuple(self.shape[axis] for axis in self.channels)

    @property
    def n_pooled(self) -> int:
        """Values of a step that each statistic combines, such as the pixels of a picture."""
        return math.prod(size for axis, size in enumerate(self.shape) if axis not in self.channels)

    @property
    def histogram_bins(self) -> int:
        """Bins of a frame key's histogram: 256 values of uint8, else the upper 16 bits of float32's order-preserving code."""
        return 256 if self.dtype == "uint8" else DEPTH_BINS

    @property
    def step_dims(self) -> tuple[str, ...]:
        """Dimension names of a step's axes, different from those of any other key (xarray needs that)."""
        if self.picture_axes:
            return tuple(f"{self.name}_{axis}" for axis in self.picture_axes)
        if len(self.shape) == 1:
            return (f"{self.name}_i",)
        return tuple(f"{self.name}_{axis}" for axis in range(len(self.shape)))

    @property
    def channel_dims(self) -> tuple[str, ...]:
        """Dimension names of its statistics."""
        return tuple(self.step_dims[axis] for axis in self.channels)

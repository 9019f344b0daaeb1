"""The steps of an augmentation: each draws numbers per picture, and changes all pictures of a batch at once.

A step takes pictures float [n, c, y, x] in [0, 1] and numbers in [0, 1), float64 [n, n_draws], drawn for each picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import log
from typing import Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.device.augmenting import geometry
from robozarr.loader.device.augmenting.colours import ADJUST, Kind, Space
from robozarr.schemas.errors import WindowError

__all__ = [
    "Choice",
    "ColourJitter",
    "Drawn",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomRotation",
    "RandomShift",
    "Resize",
    "Step",
    "run_steps",
]

KINDS: Final[tuple[Kind, ...]] = ("brightness", "contrast", "saturation", "hue")
ORDERS: Final = np.array(list(permutations(range(4))))
Range: TypeAlias = tuple[float, float]


class Drawn(NamedTuple):
    """Numbers in [0, 1) for each picture, [n, n_draws], on the host and on the device."""

    host: NDArray[np.float64]
    device: torch.Tensor

    def part(self, first: int, n: int) -> Drawn:
        """Some of the numbers of each picture."""
        return Drawn(self.host[:, first : first + n], self.device[:, first : first + n])

    def of(self, pictures: NDArray[np.int64], index: torch.Tensor) -> Drawn:
        """The numbers of some pictures."""
        return Drawn(self.host[pictures], self.device.index_select(0, index))


@runtime_checkable
class Step(Protocol):
    """One step of an augmentation."""

    @property
    def n_draws(self) -> int:
        """How many numbers the step draws for a picture."""
        ...

    @property
    def keeps_place(self) -> bool:
        """Whether every pixel stays where it is."""
        ...

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        ...

    def centre(self) -> Step | None:
        """The step to use in evaluation, the same for every picture; None if there is none."""
        ...


def run_steps(steps: Sequence[Step], x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """One step after the other, each with its own numbers."""
    first = 0
    for step in steps:
        x = step(x, drawn.part(first, step.n_draws))
        first += step.n_draws
    return x


def _check_size(where: str, *sizes: Any) -> None:
    if any(isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1 for size in sizes):
        raise WindowError(f"augment · {where}: whole numbers of pixels, 1 or more; got {sizes} → pass (116, 116)")


def _check_range(where: str, value: Any, low: float, high: float) -> Range:
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    numbers = len(pair) == 2 and all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in pair)
    if not numbers or not low <= pair[0] <= pair[1] <= high:
        raise WindowError(f"augment · {where}: two numbers in [{low:g}, {high:g}], ascending; got {value!r} → pass two such")
    return float(pair[0]), float(pair[1])


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """Cut out [height, width] at a random place; in evaluation, from the middle."""

    height: int
    width: int
    last: bool = True
    """Whether the crop may touch the lower and the right edge, as torchvision's does; robomimic's code never draws that."""
    middle: bool = False
    """From the middle always."""
    evaluated: bool = True
    """False: evaluation leaves the crop out, as where pictures are scaled back to their size (openpi)."""

    keeps_place: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_size("crop", self.height, self.width)

    @property
    def n_draws(self) -> int:
        """How many numbers the step draws for a picture."""
        return 0 if self.middle else 2

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        spare = [x.shape[-2] - self.height, x.shape[-1] - self.width]
        if min(spare) < 0:
            raise WindowError(
                f"augment · crop: no larger than the pictures, [{x.shape[-2]}, {x.shape[-1]}]; got [{self.height}, "
                f"{self.width}] → pass a smaller one"
            )
        if self.middle:
            y, z = (n // 2 for n in spare)
            return x[..., y : y + self.height, z : z + self.width]
        top, left = ((drawn.device[:, axis] * (n + self.last)).long() for axis, n in enumerate(spare))
        return geometry.crop(x, top, left, self.height, self.width)

    def centre(self) -> Step | None:
        """The same crop from the middle."""
        return replace(self, middle=True) if self.evaluated else None


@dataclass(frozen=True, slots=True)
class RandomShift:
    """Shift pictures by up to `pixels` each way, repeating the edge (DrQ: pad 4, crop). Not in evaluation."""

    pixels: int = 4

    n_draws: ClassVar[int] = 2
    keeps_place: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_size("shift", self.pixels)

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        moved = (drawn.device * (2 * self.pixels + 1)).long() - self.pixels
        return geometry.crop(x, moved[:, 0], moved[:, 1], x.shape[-2], x.shape[-1])

    def centre(self) -> None:
        """None: evaluation has no such step."""


@dataclass(frozen=True, slots=True)
class RandomResizedCrop:
    """Cut out a part of the area at a random place, and scale it back to the picture's size; in evaluation, from the middle."""

    scale: Range = (0.9, 0.9)
    """Part of the area."""
    ratio: Range = (1.0, 1.0)
    """Width to height, beside the picture's own; drawn by its logarithm."""
    middle: bool = False
    """From the middle always, at the middle of `scale`."""

    keeps_place: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _check_range("scale", self.scale, 1e-6, 1))
        object.__setattr__(self, "ratio", _check_range("ratio", self.ratio, 0.01, 100))

    @property
    def n_draws(self) -> int:
        """How many numbers the step draws for a picture."""
        return 0 if self.middle else 4

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        u = drawn.device if not self.middle else torch.full((len(x), 4), 0.5, dtype=torch.float64, device=x.device)
        area = self.scale[0] + u[:, 0] * (self.scale[1] - self.scale[0])
        low, high = log(self.ratio[0]), log(self.ratio[1])
        ratio = torch.exp(low + u[:, 1] * (high - low))
        height, width = torch.sqrt(area / ratio).clamp(0, 1), torch.sqrt(area * ratio).clamp(0, 1)
        y, x0 = u[:, 2] * (1 - height), u[:, 3] * (1 - width)
        return geometry.box_of(x, torch.stack([y, x0, y + height, x0 + width], dim=1), x.shape[-2], x.shape[-1])

    def centre(self) -> Step:
        """The same crop from the middle."""
        return replace(self, middle=True)


@dataclass(frozen=True, slots=True)
class Resize:
    """Scale to [height, width], bilinear with antialiasing; in evaluation too."""

    height: int
    width: int

    n_draws: ClassVar[int] = 0
    keeps_place: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_size("resize", self.height, self.width)

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        return geometry.resize(x, self.height, self.width)

    def centre(self) -> Step:
        """The same step."""
        return self


@dataclass(frozen=True, slots=True)
class RandomRotation:
    """Rotate pictures around their centre by up to `degrees` either way; pixels from outside are black. Not in evaluation."""

    degrees: float = 5.0

    n_draws: ClassVar[int] = 1
    keeps_place: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_range("rotation", (-self.degrees, self.degrees), -180, 180)

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        return geometry.rotate(x, (2 * drawn.device[:, 0] - 1) * self.degrees)

    def centre(self) -> None:
        """None: evaluation has no such step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourJitter:
    """Change brightness, contrast, saturation and hue, each by its own number. Not in evaluation."""

    brightness: Range | None = None
    """Of "torchvision" a factor, of "tensorflow" what is added. None: left alone."""
    contrast: Range | None = None
    saturation: Range | None = None
    hue: Range | None = None
    """What is added to the hue, in parts of the circle."""
    order: Literal["random", "fixed"] = "random"
    """"random": another order for each picture, as torchvision's ColorJitter; "fixed": as listed here."""
    space: Space = "torchvision"
    """By whose rules (``augmenting.colours``)."""

    n_draws: ClassVar[int] = 5
    keeps_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        least = -1.0 if self.space == "tensorflow" else 0.0
        for name, low, high in (("brightness", least, 100), ("contrast", 0, 100), ("saturation", 0, 100), ("hue", -0.5, 0.5)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _check_range(name, value, low, high))
        if self.order not in ("random", "fixed") or self.space not in ADJUST:
            raise WindowError(
                f"augment · colours: order 'random' or 'fixed', space 'torchvision' or 'tensorflow'; got {self.order!r} and "
                f"{self.space!r} → pass one of these"
            )

    @classmethod
    def around(cls, brightness: float = 0, contrast: float = 0, saturation: float = 0, hue: float = 0) -> ColourJitter:
        """As torchvision's ``ColorJitter(brightness, contrast, saturation, hue)``: factors 1 ± x, but not below 0; hue ± x."""
        factors = [(max(0.0, 1 - x), 1 + x) if x else None for x in (brightness, contrast, saturation)]
        return cls(brightness=factors[0], contrast=factors[1], saturation=factors[2], hue=(-hue, hue) if hue else None)

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        if x.shape[1] not in (1, 3):
            raise WindowError(f"augment · colours: pictures of 3 channels, or 1; got {x.shape[1]} → leave the colours alone")
        if self.order == "fixed":
            for number in range(4):
                x = self._adjusted(number, x, drawn.device[:, number])
            return x
        return self._in_random_order(x, drawn)

    def _in_random_order(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Pictures that have the same change at a time are brought together, so that each change is done at once."""
        orders = ORDERS[(drawn.host[:, 4] * len(ORDERS)).astype(np.int64)]
        now = np.arange(len(orders))
        ways, cuts = [], []
        for place in range(4):
            wanted = np.argsort(orders[:, place], kind="stable")
            ways.append(np.argsort(now)[wanted])
            cuts.append(np.searchsorted(orders[wanted, place], np.arange(5)).tolist())
            now = wanted
        ways.append(np.argsort(now))
        on_device = torch.from_numpy(np.stack(ways)).to(x.device)
        factors = drawn.device
        for way, cut in zip(on_device, cuts, strict=False):
            x, factors = x.index_select(0, way), factors.index_select(0, way)
            parts = [
                self._adjusted(number, x[cut[number] : cut[number + 1]], factors[cut[number] : cut[number + 1], number])
                for number in range(4)
                if cut[number] < cut[number + 1]
            ]
            x = torch.cat(parts) if len(parts) > 1 else parts[0]
        return x.index_select(0, on_device[4])

    def _adjusted(self, number: int, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        kind = KINDS[number]
        given: Range | None = getattr(self, kind)
        if given is None or (x.shape[1] == 1 and kind in ("saturation", "hue")):
            return x
        factor = (given[0] + u * (given[1] - given[0])).to(x.dtype)
        if x.shape[1] == 1:  # a grey picture is its own grey
            return ADJUST[self.space][kind](x.expand(-1, 3, -1, -1), factor)[:, :1]
        return ADJUST[self.space][kind](x, factor)

    def centre(self) -> None:
        """None: evaluation has no such step."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Apply one of several lists of steps to each picture, by probability; with the rest of the probability, none.

    The lists keep the pictures' size.
    """

    branches: tuple[tuple[float, tuple[Step, ...]], ...]
    """(probability, steps)."""

    def __post_init__(self) -> None:
        if any(p < 0 for p, _ in self.branches) or sum(p for p, _ in self.branches) > 1 + 1e-9:
            raise WindowError(
                f"augment · choice: probabilities that add up to 1 or less; got {[p for p, _ in self.branches]} → pass such"
            )

    @property
    def keeps_place(self) -> bool:
        """Whether every pixel stays where it is."""
        return all(step.keeps_place for _, steps in self.branches for step in steps)

    @property
    def n_draws(self) -> int:
        """How many numbers the step draws for a picture."""
        return 1 + max(sum(step.n_draws for step in steps) for _, steps in self.branches)

    def __call__(self, x: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """The pictures after the step."""
        ends = np.cumsum([p for p, _ in self.branches])
        chosen = np.searchsorted(ends, drawn.host[:, 0], side="right")
        out = x
        for number, (_, steps) in enumerate(self.branches):
            own = np.flatnonzero(chosen == number)
            if len(own):
                index = torch.from_numpy(own).to(x.device)
                numbers = drawn.of(own, index).part(1, self.n_draws - 1)
                out = out.index_copy(0, index, run_steps(steps, x.index_select(0, index), numbers).to(out.dtype))
        return out

    def centre(self) -> None:
        """None: evaluation has no such step."""

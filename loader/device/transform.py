"""Transform a batch on the device: upright pictures, floats, channels first; normalised values. Torch only.

Bytes cross the bus as they are stored; everything here is named by the user, and nothing is done unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.batch import WindowReader
from robozarr.loader.dataset import Sample
from robozarr.loader.device.augmenting.of_cameras import (
    AUGMENT_KEYS,
    Augments,
    augment_step,
    augments_of,
    check_augment,
)
from robozarr.loader.device.scaling import SCALINGS, SCOPES, Scaling, Scope, scale_and_shift
from robozarr.loader.relative import Relative
from robozarr.loader.statistics import Statistics
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import ImageConvention
from robozarr.schemas.metadata import Key

__all__ = ["Images", "Normalise", "check_keys", "check_steps", "make_transform"]

Step = Callable[[Sample], Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Changes to pictures, made in this order. The default suits most policies: upright floats in [0, 1], channels first.

    Pictures are [y, x], [y, x, c], [c, y, x] and stacks of these (``Key.picture_axes``), of any type. Masks and segmentations
    hold labels: they are turned upright and moved, and keep their type and values.
    """

    upright: bool = True
    """Flip pictures that were recorded with row 0 at the bottom (LIBERO), by each episode's recorded convention."""
    dtype: torch.dtype | None = torch.float32
    """Floating type of the result; None keeps the stored type."""
    scale: bool = True
    """Divide uint8 by 255; needs a float `dtype`."""
    channels_first: bool = True
    """[…, y, x, c] → […, c, y, x]; pictures that are stored so are unchanged."""

    def __post_init__(self) -> None:
        for name in ("upright", "scale", "channels_first"):
            if not isinstance(getattr(self, name), bool):
                raise WindowError(f"images · {name}: True or False; got {getattr(self, name)!r} → pass one of these")
        if self.dtype is not None:
            _check_dtype("images · dtype", self.dtype, ", or None for as stored")
        if self.scale and self.dtype is None:
            raise WindowError("images · scale: needs a float dtype; got dtype=None → pass scale=False, or a dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise:
    """Which keys are normalised, how, and with which statistics; pictures are normalised after ``Images``."""

    keys: Mapping[str, Scaling | tuple[float, float]] = field(default_factory=dict)
    """Such as ``{"actions": "q01_q99", "agentview_rgb": "mean_std"}``; two quantiles as numbers: ``(0.02, 0.98)``."""
    scope: Scope = "store"
    """Statistics over all steps of the store, or over the anchors of the served windows."""
    dtype: torch.dtype = torch.float32
    """Of what is normalised."""
    statistics: Statistics | None = None
    """Of low-dim keys, instead of `scope`: those of the training set, for whatever is served to the same model."""
    clip: float | None = None
    """Low-dim keys are cut to [-clip, clip] in the end: OpenVLA's is 1. None: they are not."""

    def __post_init__(self) -> None:
        if self.statistics is not None and not isinstance(self.statistics, Statistics):
            raise WindowError(
                f"normalise · statistics: what dataset.statistics() gives; got {self.statistics!r} → pass that, or "
                "rz.Statistics.load(PATH)"
            )
        number = isinstance(self.clip, int | float) and not isinstance(self.clip, bool) and self.clip > 0
        if self.clip is not None and not number:
            raise WindowError(f"normalise · clip: a number above 0, or None; got {self.clip!r} → pass 1.0")
        if not isinstance(self.keys, Mapping):
            raise WindowError(
                f"normalise · keys: a mapping from a key of the window to {_choices(SCALINGS)}; got {self.keys!r} → pass, for "
                'example, {"actions": "q01_q99"}'
            )
        for name, how in self.keys.items():
            if not _is_pair(how) and how not in SCALINGS:
                raise WindowError(
                    f"normalise · keys · {name}: {_choices(SCALINGS)}; got {how!r} → pass one of these, or two quantiles, such "
                    "as (0.02, 0.98)"
                )
        if self.scope not in SCOPES:
            raise WindowError(f"normalise · scope: {_choices(SCOPES)}; got {self.scope!r} → pass one of these")
        _check_dtype("normalise · dtype", self.dtype, "")


def _is_pair(how: Any) -> bool:
    """Whether these are two quantiles."""
    numbers = isinstance(how, tuple) and len(how) == 2 and all(isinstance(q, int | float) for q in how)
    return numbers and 0 <= how[0] < how[1] <= 1


def check_steps(images: Any, normalise: Any, transform: Any, augment: Any = None, relative: Any = None) -> None:
    """Refuse values that the loader's options do not take; WindowError says what to pass."""
    if images is not None and not isinstance(images, Images):
        raise WindowError(f"loader · images: Images(…), or None for as stored; got {images!r} → pass images=rz.Images()")
    if normalise is not None and not isinstance(normalise, Normalise):
        raise WindowError(
            f"loader · normalise: Normalise(keys={{…}}), or None; got {normalise!r} → pass, for example, "
            'normalise=rz.Normalise(keys={"actions": "q01_q99"})'
        )
    check_augment(augment)
    if relative is not None and not isinstance(relative, Relative):
        raise WindowError(
            f'loader · relative: Relative(…), or None; got {relative!r} → pass rz.Relative({{"actions": "joint_states"}})'
        )
    if transform is not None and not callable(transform):
        raise WindowError(f"loader · transform: a function of a batch; got {transform!r} → pass a function, or leave it out")


def check_keys(
    readers: Sequence[WindowReader],
    images: Images | None,
    normalise: Normalise | None,
    augment: Augments | None,
    relative: Relative | None,
) -> None:
    """Refuse steps for keys that the window lacks, or that differ from what a step needs; reads no values.

    A loader asks when it is made: its first batch may be far away, behind a model that takes minutes to load.

    Raises
    ------
    WindowError
        If a key that is to be normalised is not in the window, or pictures of unknown convention are to be made upright.
    """
    if images is not None and images.upright and _to_turn(readers[0]):
        for reader in readers:
            unknown_at = reader.table.served & (reader.store.episodes.image_convention == ImageConvention.UNKNOWN)
            if unknown_episodes := np.flatnonzero(unknown_at).tolist():
                raise WindowError(
                    f"images · upright: every episode's convention is known; it is not of {len(unknown_episodes)}, such as "
                    f"{unknown_episodes[0]} → look at a picture (dataset.show), then pass upright=False and flip in transform= "
                    "if it needs to be"
                )
    augments_of(readers[0], augment)
    if relative is not None:
        for reader in readers:
            relative.check(reader)
    if normalise is None:
        return
    if unknown := sorted(set(normalise.keys) - set(readers[0].spec.offsets)):
        raise WindowError(
            f"normalise · keys: must be keys of the window, which has {', '.join(readers[0].spec.offsets)}; got "
            f"{', '.join(unknown)} → take some of these"
        )
    if normalise.statistics is not None:
        names = [name for name in normalise.keys if not readers[0].store.keys[name].frame]
        for reader in readers:
            normalise.statistics.check(reader, names, relative)


def _check_dtype(where: str, dtype: Any, more: str) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise WindowError(
            f"{where}: torch.float32, torch.float16, torch.bfloat16 or torch.float64{more}; got {dtype!r} → pass one of these"
        )


def _choices(choices: Sequence[str]) -> str:
    return f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"


def make_transform(
    readers: Sequence[WindowReader],
    images: Images | None,
    normalise: Normalise | None,
    device: torch.device,
    group_of: Sequence[int] | None = None,
    augment: Augments | None = None,
    relative: Relative | None = None,
) -> Step:
    """One function of a batch that does all steps, which `check_keys` has found to fit.

    `group_of` says which of `readers` each dataset of a batch's ``store`` is read by. Default: each by its own.

    Raises
    ------
    WindowError
        If there are no such statistics.
    """
    steps: list[Step] = []
    pictures = _pictures(readers[0])
    if images is not None and pictures:
        to_turn = _to_turn(readers[0]) if images.upright else []
        upside_down = _upside_down(readers, group_of or range(len(readers)), device) if to_turn else None
        steps += [_picture_step(name, images, upside_down if name in to_turn else None, readers[0]) for name in pictures]
    for name, of_camera in augments_of(readers[0], augment).items():
        first = images is not None and images.channels_first
        scaled = images is not None and images.dtype is not None and images.scale
        steps.append(augment_step(name, of_camera, readers[0].store.keys[name], channels_first=first, scaled=scaled))
    if relative is not None:
        steps.append(_relative_step(relative, readers[0], device))
    if normalise is not None:
        steps += [_normal_step(readers, name, how, normalise, images, relative, device) for name, how in normalise.keys.items()]

    def apply(batch: Sample) -> Sample:
        for step in steps:
            batch = step(batch)
        batch.pop(AUGMENT_KEYS, None)
        return batch

    return apply


def _pictures(reader: WindowReader) -> list[str]:
    return [key.name for key in reader.spec.keys if reader.store.keys[key.name].picture_axes]


def _to_turn(reader: WindowReader) -> list[str]:
    """Pictures that are not upright as they are read."""
    return [name for name in _pictures(reader) if name not in reader.upright]


def _upside_down(readers: Sequence[WindowReader], group_of: Sequence[int], device: torch.device) -> bool | list[torch.Tensor]:
    """Whether pictures have row 0 at the bottom: of all episodes alike, or bool [n_episodes] of each dataset's store."""
    found = [(reader.store.episodes.image_convention == ImageConvention.OPENGL, reader.table.served) for reader in readers]
    kinds = {bool(kind) for upside_down, served in found for kind in upside_down[served]}
    if len(kinds) < 2:
        return kinds == {True}
    of_group = [torch.from_numpy(upside_down).to(device) for upside_down, _ in found]
    return of_group if len(found) == 1 else [of_group[group] for group in group_of]


def _picture_step(name: str, images: Images, upside_down: bool | list[torch.Tensor] | None, reader: WindowReader) -> Step:
    key = reader.store.keys[name]
    axes, labels = key.picture_axes, key.role in ("mask", "segmentation")
    rows = 2 + axes.index("y")  # [batch, offset, …]

    def step(batch: Sample) -> Sample:
        x: torch.Tensor = batch[name]
        if upside_down is True:
            x = _turned_over(x, rows)
        elif isinstance(upside_down, list):
            x = _where(_of_windows(upside_down, batch).view(-1, *[1] * (x.dim() - 1)), _turned_over(x, rows), x)
        if images.channels_first and axes.endswith("yxc"):
            x = x.movedim(-1, -3)
        if images.dtype is not None and not labels:
            is_bytes = x.dtype == torch.uint8
            x = x.to(images.dtype, memory_format=torch.contiguous_format)
            if images.scale and is_bytes:
                x = x.mul_(1 / 255)
        return batch | {name: x}

    return step


def _turned_over(x: torch.Tensor, rows: int) -> torch.Tensor:
    """Pictures with their rows reversed. On the CPU by numpy, which copies whole rows: torch takes 3 to 30 times as long."""
    if x.device.type != "cpu":
        return _signed(x).flip(rows).view(x.dtype)
    return torch.from_numpy(np.ascontiguousarray(np.flip(x.numpy(), rows)))


def _where(condition: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.where(condition, _signed(x), _signed(y)).view(x.dtype)


def _signed(x: torch.Tensor) -> torch.Tensor:
    """The same bits as signed numbers: torch moves few unsigned types other than uint8."""
    return x.view(_SIGNED[x.dtype]) if x.dtype in _SIGNED else x


_SIGNED: Final = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _of_windows(per_store: list[torch.Tensor], batch: Mapping[str, Any]) -> torch.Tensor:
    if len(per_store) == 1:
        return per_store[0][batch["episode"]]
    out = torch.zeros_like(batch["episode"], dtype=torch.bool)
    for number, values in enumerate(per_store):  # no boolean indexing, for which the host would wait for the device
        own = values[batch["episode"].clamp_max(len(values) - 1)]
        out = torch.where(batch["store"] == number, own, out)
    return out


def _beside(values: NDArray[Any], key: Key, images: Images | None) -> NDArray[Any]:
    """A key's statistics, reshaped to broadcast over a batch."""
    if not key.frame:
        return values
    axes = key.axes or key.picture_axes
    shape = [size if axis in key.channels else 1 for axis, size in enumerate(key.shape)]
    values = values.reshape(shape)
    first = images is not None and images.channels_first and key.picture_axes.endswith("yxc")
    return np.moveaxis(values, -1, -3) if first and axes else values


def _relative_step(relative: Relative, reader: WindowReader, device: torch.device) -> Step:
    """Take the state at the anchor from each action, in float64, which holds what either key is."""
    masks, anchors = {}, {}
    for name, state in relative.keys.items():
        masks[name] = torch.from_numpy(relative.mask(name, reader.store.keys[name].shape[0])).to(device)
        anchors[name] = (state, reader.spec.offsets[state].index(0))

    def step(batch: Sample) -> Sample:
        changed = {}
        for name, (state, at) in anchors.items():
            values, mask, base = batch[name].to(torch.float64), masks[name], batch[state][:, at].to(torch.float64)
            width = min(values.shape[-1], base.shape[-1])
            taken = torch.zeros(len(values), 1, values.shape[-1], dtype=torch.float64, device=values.device)
            taken[:, 0, :width] = base[:, :width]
            changed[name] = values - taken * mask
        return batch | changed

    return step


def _shift_and_scale(
    readers: Sequence[WindowReader],
    name: str,
    how: Scaling | tuple[float, float],
    normalise: Normalise,
    relative: Relative | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift and scale of a key: by given statistics, for vectors; else by those of the store or the windows."""
    if normalise.statistics is not None and not readers[0].store.keys[name].frame:
        return normalise.statistics.shift_and_scale(name, how)
    if relative is not None and relative.of(name) is not None:
        raise WindowError(
            f"normalise · {name}: by statistics of relative values, as it is served; the {normalise.scope}'s are of values as "
            "stored → pass statistics=dataset.statistics(relative=…)"
        )
    return scale_and_shift(readers, name, how, normalise.scope)


def _normal_step(
    readers: Sequence[WindowReader],
    name: str,
    how: Scaling | tuple[float, float],
    normalise: Normalise,
    images: Images | None,
    relative: Relative | None,
    device: torch.device,
) -> Step:
    shift, scale = _shift_and_scale(readers, name, how, normalise, relative)
    key = readers[0].store.keys[name]
    clip = None if key.frame else normalise.clip
    if key.picture_axes and images is not None and images.scale and key.dtype == "uint8":
        shift, scale = shift / 255, scale / 255
    shift, scale = (_beside(values, key, images) for values in (shift, scale))
    # of what is no picture in float64: a float32 of unix time, 1.7e9, is a multiple of 128 s
    exact = normalise.dtype if key.frame else torch.float64
    shift_t = torch.from_numpy(np.ascontiguousarray(shift)).to(device, exact)
    scale_t = torch.from_numpy(np.ascontiguousarray(scale)).to(device, exact)

    def step(batch: Sample) -> Sample:
        normal = (batch[name].to(exact) - shift_t) / scale_t
        return batch | {name: (normal if clip is None else normal.clamp_(-clip, clip)).to(normalise.dtype)}

    return step

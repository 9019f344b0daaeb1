"""Change the pictures of a batch: which ``Augment`` each camera has, and its step of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from robozarr.loader.batch import WindowReader
from robozarr.loader.dataset import Sample
from robozarr.loader.device.augmenting.augment import Augment
from robozarr.loader.device.augmenting.draws import keys_of_windows
from robozarr.schemas.errors import WindowError
from robozarr.schemas.metadata import Key

__all__ = ["AUGMENT_KEYS", "Augments", "augment_step", "augmented_batches", "augments_of", "check_augment", "told_augment"]

Augments: TypeAlias = Augment | Mapping[str, Augment]
AUGMENT_KEYS: Final = "keys of augmentation"
"""Field of a batch on its way: a key for each window."""


def check_augment(augment: Any) -> None:
    """Refuse a value that ``augment=`` does not take; WindowError says what to pass."""
    each = augment.values() if isinstance(augment, Mapping) else [] if augment is None else [augment]
    if not all(isinstance(one, Augment) for one in each):
        raise WindowError(
            f"loader · augment: Augment(…), or such by camera, or None; got {augment!r} → pass rz.Augment.openvla()"
        )


def told_augment(augment: Augments | None) -> str | None:
    """Describe an augmentation, in equal words for equal changes; a loader's state keeps them."""
    return repr(dict(sorted(augment.items()))) if isinstance(augment, Mapping) else None if augment is None else repr(augment)


def augments_of(reader: WindowReader, augment: Augments | None) -> dict[str, Augment]:
    """The augmentation of each camera.

    Raises
    ------
    WindowError
        If a camera is not in the window or no colour picture; if pictures would be moved beside depth or labels that are not.
    """
    if augment is None:
        return {}
    keys = {key.name: reader.store.keys[key.name] for key in reader.spec.keys}
    colour = [name for name, key in keys.items() if key.picture_axes and key.role == "image"]
    if isinstance(augment, Augment):
        chosen = dict.fromkeys(colour if augment.cameras is None else augment.cameras, augment)
        others = [name for name, key in keys.items() if key.picture_axes and name not in colour]
        if augment.cameras is None and others and not augment.keeps_place:
            raise WindowError(
                f"augment · cameras: named, where the window has depth or labels too, {', '.join(others)}, which stay where "
                f"they are while pictures are moved → pass Augment(…, cameras={colour}) if that is right, or leave them out"
            )
    else:
        chosen = dict(augment)
    if bad := [name for name in chosen if name not in colour]:
        raise WindowError(
            f"augment · cameras: colour pictures of the window, which are {', '.join(colour) or 'none'}; got {', '.join(bad)} "
            "→ name some of these"
        )
    return chosen


def augmented_batches(
    reader: WindowReader, augment: Augments | None, seed: int
) -> Callable[[Mapping[str, Any], int], dict[str, Any]] | None:
    """Make a function of a stored batch and its epoch that changes its pictures; None if none is to be changed.

    Raises
    ------
    WindowError
        As ``augments_of`` does.
    """
    if augment is None:
        return None
    of_cameras = augments_of(reader, augment).items()
    steps = [augment_step(name, of_camera, reader.store.keys[name]) for name, of_camera in of_cameras]

    def changed(batch: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        anchors = (np.asarray(batch[name]) for name in ("episode", "step"))
        sample = dict(batch) | {AUGMENT_KEYS: keys_of_windows(seed, epoch, 0, *anchors)}
        for step in steps:
            sample = step(sample)
        del sample[AUGMENT_KEYS]
        return sample

    return changed


def augment_step(
    name: str, augment: Augment, key: Key, *, channels_first: bool = False, scaled: bool = False
) -> Callable[[Sample], Sample]:
    """Make a function of a batch with `AUGMENT_KEYS` that changes one camera: as stored, or channels first, or in [0, 1]."""
    first = channels_first or key.picture_axes.endswith("cyx")
    grey = key.picture_axes.endswith("yx") and not key.picture_axes.endswith("cyx")
    divisor = 255.0 if key.dtype == "uint8" and not scaled else 1.0

    def step(batch: Sample) -> Sample:
        x: torch.Tensor = batch[name]
        if grey:
            out = augment.changed(x.unsqueeze(-3), name, batch[AUGMENT_KEYS], True, divisor).squeeze(-3)
        else:
            out = augment.changed(x, name, batch[AUGMENT_KEYS], first, divisor)
        return batch | {name: out}

    return step

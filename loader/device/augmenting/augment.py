"""``Augment``: the steps for each camera, and the presets that policies use, each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from robozarr.loader.device.augmenting.draws import keys_of_pictures, keys_of_windows, uniform
from robozarr.loader.device.augmenting.noise import Corrupt
from robozarr.loader.device.augmenting.steps import (
    Choice,
    ColourJitter,
    Drawn,
    RandomCrop,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    Step,
    run_steps,
)
from robozarr.schemas.errors import WindowError

__all__ = ["Augment"]

U64: TypeAlias = NDArray[np.uint64]
Per = Literal["window", "frame"]
PER: Final = ("window", "frame")
CACHED: Final = 4 * 2**20
"""Bytes of pictures that a processor works on at a time: fresh memory for each step of a whole batch costs twice the work."""


@dataclass(frozen=True, slots=True)
class Augment:
    """Changes to the pictures of a whole batch, made on the device: a pure function of (seed, epoch, window).

    A window of an epoch is changed in the same way whenever and wherever it is served: after a resume, in other batches, on
    other ranks. Cameras are changed independently of each other.

    >>> Augment.robomimic(crop=(116, 116))
    Augment(steps=(RandomCrop(height=116, width=116, last=False, middle=False, evaluated=True),), cameras=None, per='frame')
    >>> Augment.robomimic(crop=(116, 116)).evaluation().steps
    (RandomCrop(height=116, width=116, last=False, middle=True, evaluated=True),)
    """

    steps: tuple[Step, ...]
    """In this order."""
    cameras: tuple[str, ...] | None = None
    """Keys of the window. None: all colour pictures in it (of role "image"). Depth and labels are never changed."""
    per: Per = "window"
    """Whether all frames of a window and camera are changed alike, or each by itself."""

    def __post_init__(self) -> None:
        steps = tuple(self.steps) if isinstance(self.steps, Sequence) else (self.steps,)
        if not all(isinstance(step, Step) for step in steps):
            raise WindowError(f"augment · steps: RandomCrop(…), ColourJitter(…), …; got {self.steps!r} → pass a list of such")
        if isinstance(self.cameras, str) or self.per not in PER:
            raise WindowError(
                f"augment: cameras is a list of keys, per is 'window' or 'frame'; got {self.cameras!r} and {self.per!r} → pass "
                "such"
            )
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "cameras", None if self.cameras is None else tuple(self.cameras))

    @property
    def keeps_place(self) -> bool:
        """Whether every pixel stays where it is: only colours change."""
        return all(step.keeps_place for step in self.steps)

    def evaluation(self) -> Self:
        """The augmentation to use in evaluation: the same crops from the middle, and nothing random."""
        steps = (step.centre() for step in self.steps)
        return type(self)(tuple(step for step in steps if step is not None), self.cameras, self.per)

    def __call__(
        self, batch: Mapping[str, Any], cameras: Sequence[str], *, seed: int, epoch: int, channels_first: bool = True
    ) -> dict[str, Any]:
        """Change the pictures of a batch that was not read by ``WindowLoader(augment=…)``.

        Parameters
        ----------
        batch : mapping
            With ``episode`` and ``step``, int64 [b] (and ``store``, of several datasets), as every loader here gives it.
        cameras : keys
            Pictures, uint8 or float in [0, 1], [b, n_offsets, c, y, x].
        seed, epoch : int
            The loader's: ``loader.state_dict()["epoch"]`` before the iteration begins. With its last batch the loader is in the
            next epoch already.
        channels_first : bool
            False: [b, n_offsets, y, x, c].
        """
        names = ("episode", "step")
        anchors = [np.asarray(batch[name].cpu()) for name in names]
        dataset = np.asarray(batch["store"].cpu()) if "store" in batch else 0
        keys = keys_of_windows(seed, epoch, dataset, *anchors)
        return dict(batch) | {name: self.changed(batch[name], name, keys, channels_first) for name in cameras}

    def changed(self, x: torch.Tensor, camera: str, keys: U64, channels_first: bool = True, divisor: float = 1) -> torch.Tensor:
        """The pictures of one camera, changed.

        Parameters
        ----------
        x : uint8 or float [b, n_offsets, …, c, y, x]
            Floats in [0, divisor]; or, without `channels_first`, [b, n_offsets, …, y, x, c].
        camera : str
        keys : uint64 [b]
            Of the windows (``augmenting.draws.keys_of_windows``).

        Returns
        -------
        tensor of the same dtype and order of axes; bytes are rounded
        """
        if not self.steps:
            return x
        is_bytes, divisor = x.dtype == torch.uint8, 255.0 if x.dtype == torch.uint8 else divisor
        pictures = x if channels_first else x.movedim(-1, -3)
        flat = pictures.reshape(-1, *pictures.shape[-3:])
        work = flat.to(torch.float32) if flat.dtype != torch.float64 else flat
        work = work / divisor if divisor != 1 else work
        drawn = self._drawn(keys, camera, pictures.shape[1:-3], x.device)
        if work.device.type == "cpu":  # some at a time stay in the processor's cache
            n = max(1, CACHED // max(1, work[0].numel() * work.element_size())) if len(work) else 1
            parts = [
                run_steps(self.steps, work[i : i + n], Drawn(drawn.host[i : i + n], drawn.device[i : i + n]))
                for i in range(0, len(work), n)
            ]
            out = torch.cat(parts) if parts else run_steps(self.steps, work, drawn)
        else:
            out = run_steps(self.steps, work, drawn)
        out = out * divisor if divisor != 1 else out
        out = (out.round_().clamp_(0, 255) if is_bytes else out).to(x.dtype)
        out = out.reshape(*pictures.shape[:-3], *out.shape[-3:])
        return out.contiguous() if channels_first else out.movedim(-3, -1).contiguous()

    def _drawn(self, keys: U64, camera: str, frames: Sequence[int], device: torch.device) -> Drawn:
        """The numbers of each picture: float64 [b · n_frames, n_draws]."""
        n_frames = prod(frames)
        of_pictures = keys_of_pictures(keys, camera, n_frames if self.per == "frame" else None)
        numbers = [uniform(of_pictures, number, step.n_draws) for number, step in enumerate(self.steps) if step.n_draws]
        host = np.concatenate(numbers, axis=1) if numbers else np.empty((len(of_pictures), 0))
        host = host if self.per == "frame" else np.repeat(host, n_frames, axis=0)
        return Drawn(host, torch.from_numpy(host).to(device, non_blocking=True))

    # --- presets ---

    @classmethod
    def diffusion_policy(cls, *, crop: tuple[int, int] = (76, 76), **options: Any) -> Self:
        """Diffusion policy: a random crop of each frame; in evaluation, from the middle.

        real-stanford/diffusion_policy, diffusion_policy/model/vision/crop_randomizer.py; crop_shape [76, 76] of 84×84 in
        config/train_diffusion_unet_hybrid_workspace.yaml. Its code never draws the last place, nor does this.
        """
        return cls((RandomCrop(*crop, last=False),), **({"per": "frame"} | options))

    @classmethod
    def robomimic(cls, *, crop: tuple[int, int] = (76, 76), **options: Any) -> Self:
        """Robomimic's CropRandomizer with one crop: a random crop of each frame; in evaluation, from the middle.

        ARISE-Initiative/robomimic, robomimic/models/obs_core.py: CropRandomizer (crop_height 76, crop_width 76, num_crops 1, no
        position encoding), robomimic/utils/obs_utils.py: sample_random_image_crops, which never draws the last place.
        """
        return cls.diffusion_policy(crop=crop, **options)

    @classmethod
    def openvla(cls, **options: Any) -> Self:
        """OpenVLA's and OpenVLA-OFT's ``image_aug``: a crop of 90% of the area scaled back, then colours by TensorFlow's rules.

        openvla/openvla and moojink/openvla-oft, prismatic/vla/datasets/datasets.py: image_augment_kwargs; kvablack/dlimp,
        dlimp/augmentations.py: augment_image. All frames of a window alike, each camera by itself, as there. dlimp draws
        everything from one seed, so that its crops lie on the diagonal and its colours go together; here each number is drawn
        by itself. In evaluation: the crop from the middle (experiments/robot/openvla_utils.py: center_crop_image).
        """
        colours = ColourJitter(
            brightness=(-0.2, 0.2),
            contrast=(0.8, 1.2),
            saturation=(0.8, 1.2),
            hue=(-0.05, 0.05),
            order="fixed",
            space="tensorflow",
        )
        return cls((RandomResizedCrop((0.9, 0.9), (1.0, 1.0)), colours), **options)

    @classmethod
    def rdt(cls, **options: Any) -> Self:
        """RDT's ``image_aug``: half of the pictures; colours, noise and blur, or both, a third each.

        thu-ml/RoboticsDiffusionTransformer, train/dataset.py: ColorJitter(0.3, 0.4, 0.5, 0.03); train/image_corrupt.py. Each
        frame by itself, as there.
        """
        colours, corrupt = ColourJitter.around(0.3, 0.4, 0.5, 0.03), Corrupt()
        choice = Choice(((1 / 6, (corrupt,)), (1 / 6, (colours,)), (1 / 6, (colours, corrupt))))
        return cls((choice,), **({"per": "frame"} | options))

    @classmethod
    def act(cls, **options: Any) -> Self:
        """ACT: nothing. tonyzhaozh/act, utils.py: EpisodicDataset changes no picture."""
        return cls((), **options)

    @classmethod
    def openpi(cls, *, size: tuple[int, int] = (224, 224), wrist: bool = False, **options: Any) -> Self:
        """OpenPI's: resized, a crop of 95% of the sides scaled back, a turn of up to 5°, colours; of a wrist's camera, colours.

        Physical-Intelligence/openpi, src/openpi/models/model.py: preprocess_observation, with augmax's transforms, whose
        colours are close to torchvision's and not the same. Its resize_with_pad is a plain resize of square pictures. In
        evaluation it is all that is done.
        """
        height, width = size
        jitter = ColourJitter.around(0.3, 0.4, 0.5)
        if wrist:
            return cls((Resize(height, width), jitter), **options)
        crop = RandomCrop(int(height * 0.95), int(width * 0.95), evaluated=False)
        return cls((Resize(height, width), crop, Resize(height, width), RandomRotation(5.0), jitter), **options)

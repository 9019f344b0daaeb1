"""Presets of ``WindowSpec``: the windows of published training code, with their sources; imports no I/O.

Reach them as ``WindowSpec.rdt()`` and so on: ``WindowSpec`` inherits from ``Presets``. Only offsets and padding are a
preset's; which episodes and anchors are served is the filters', and an anchor at every step is the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, Self, TypedDict, Unpack

import numpy as np

from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment

__all__ = ["LIBERO_IMAGES", "LIBERO_STATES", "Padding", "PresetOptions", "Presets"]

Padding = Literal["edge", "zero"]
"""Content of a row outside the episode: the episode's first or last row, or zeros. The mask is the same."""

LIBERO_IMAGES: Final = ("agentview_rgb", "eye_in_hand_rgb")
LIBERO_STATES: Final = ("gripper_states", "joint_states")
"""States that LIBERO's own training reads (libero/configs/data/default.yaml: obs.modality)."""


class PresetOptions(TypedDict, total=False):
    """Options of every preset besides its own parameters: names of keys, and the options of ``WindowSpec``."""

    images: Sequence[str]
    """Default: ``LIBERO_IMAGES``; OpenVLA the first of them."""
    states: Sequence[str]
    """Default: ``LIBERO_STATES``; OpenVLA none."""
    actions: str
    """Default: "actions"."""
    padding: Padding | Mapping[str, Padding]
    causal: bool
    assume_alignment: Alignment | None


class Presets:
    """Named windows; each preset takes its own numbers and ``PresetOptions``, all by keyword."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(
            self,
            offsets: Mapping[str, Sequence[int]],
            *,
            padding: Padding | Mapping[str, Padding] = "edge",
            causal: bool = False,
            assume_alignment: Alignment | None = None,
        ) -> None: ...

    @classmethod
    def _preset(cls, images: range, states: range, actions: range, defaults: PresetOptions, options: PresetOptions) -> Self:
        if unknown := sorted(set(options) - set(PresetOptions.__annotations__)):
            raise TypeError(f"a preset takes {', '.join(PresetOptions.__annotations__)}; got {', '.join(unknown)}")
        given: PresetOptions = {
            "images": LIBERO_IMAGES, "states": LIBERO_STATES, "actions": "actions", "padding": "edge", "causal": False,
            "assume_alignment": None, **defaults, **options,
        }  # fmt: skip
        names = [*given["images"], *given["states"], given["actions"]]
        if isinstance(given["images"], str) or isinstance(given["states"], str) or len({*names}) < len(names):
            raise WindowError(
                "window · preset: images and states are lists of names, each once; got "
                f"images={given['images']!r}, states={given['states']!r}, actions={given['actions']!r} → pass lists"
            )
        offsets = [images] * len(given["images"]) + [states] * len(given["states"]) + [actions]
        return cls(
            dict(zip(names, offsets, strict=True)),
            padding=given["padding"],
            causal=given["causal"],
            assume_alignment=given["assume_alignment"],
        )

    @classmethod
    def rdt(cls, *, history: int = 2, chunk: int = 64, **options: Unpack[PresetOptions]) -> Self:
        """RDT-1B: `history` pictures up to step t, the state at t, `chunk` actions from t on; edges repeated.

        thu-ml/RoboticsDiffusionTransformer, configs/base.yaml: img_history_size 2, action_chunk_size 64; padding as in
        data/hdf5_vla_dataset.py. There, pictures before the arm first moves are masked too; here only those outside.

        >>> from robozarr.schemas.window import WindowSpec
        >>> WindowSpec.rdt(images=["agentview_rgb"], states=["joint_states"])
        WindowSpec({'agentview_rgb': [-1, 0], 'joint_states': [0], 'actions': range(0, 64)})
        """
        return cls._preset(_past("history", history), range(1), range(_count("chunk", chunk)), {}, options)

    @classmethod
    def diffusion_policy(cls, *, n_obs_steps: int = 2, horizon: int = 16, **options: Unpack[PresetOptions]) -> Self:
        """Diffusion policy: `n_obs_steps` observations up to step t, `horizon` actions starting at the first of them.

        real-stanford/diffusion_policy, config/train_diffusion_unet_hybrid_workspace.yaml: n_obs_steps 2, horizon 16,
        n_action_steps 8; edges repeated as in common/sampler.py. That sampler has no anchors in an episode's last
        n_action_steps - 1 steps; here every step is one.

        >>> from robozarr.schemas.window import WindowSpec
        >>> WindowSpec.diffusion_policy(images=["agentview_rgb"], states=[])
        WindowSpec({'agentview_rgb': [-1, 0], 'actions': range(-1, 15)})
        """
        past = _past("n_obs_steps", n_obs_steps)
        _count("horizon", horizon, at_least=n_obs_steps)
        return cls._preset(past, past, range(past.start, past.start + horizon), {}, options)

    @classmethod
    def act(cls, *, chunk: int = 100, **options: Unpack[PresetOptions]) -> Self:
        """ACT: the observation at step t, `chunk` actions from t on, zeros after the end.

        tonyzhaozh/act, README.md: --chunk_size 100; utils.py: EpisodicDataset pads actions by zeros, before normalising.

        >>> from robozarr.schemas.window import WindowSpec
        >>> WindowSpec.act(images=["agentview_rgb"], states=[])
        WindowSpec({'agentview_rgb': [0], 'actions': range(0, 100)}, padding={'actions': 'zero'})
        """
        defaults: PresetOptions = {"padding": {options.get("actions", "actions"): "zero"}}
        return cls._preset(range(1), range(1), range(_count("chunk", chunk)), defaults, options)

    @classmethod
    def openvla(cls, *, chunk: int = 1, **options: Unpack[PresetOptions]) -> Self:
        """OpenVLA: one picture and one action. OpenVLA-OFT: `chunk` 8, with the wrist's picture and the state.

        openvla/openvla, prismatic/vla/datasets/datasets.py: window_size 1, future_action_window_size 0;
        moojink/openvla-oft, prismatic/vla/constants.py: NUM_ACTIONS_CHUNK 8, PROPRIO_DIM 8 for LIBERO.

        >>> from robozarr.schemas.window import WindowSpec
        >>> WindowSpec.openvla()
        WindowSpec({'agentview_rgb': [0], 'actions': [0]})
        """
        defaults: PresetOptions = {"images": LIBERO_IMAGES[:1], "states": ()}
        return cls._preset(range(1), range(1), range(_count("chunk", chunk)), defaults, options)

    @classmethod
    def robomimic(cls, *, frame_stack: int = 1, seq_length: int = 10, **options: Unpack[PresetOptions]) -> Self:
        """Robomimic's SequenceDataset: every key from `frame_stack` - 1 steps before step t, with `seq_length` steps from t on.

        ARISE-Initiative/robomimic, robomimic/utils/dataset.py: get_sequence_from_demo, edges repeated; 1 and 10 are what
        LIBERO trains with (libero/configs/data/default.yaml: frame_stack, seq_len), and robomimic's BC-RNN.

        >>> from robozarr.schemas.window import WindowSpec
        >>> WindowSpec.robomimic(images=["agentview_rgb"], states=[], seq_length=3)
        WindowSpec({'agentview_rgb': [0, 1, 2], 'actions': [0, 1, 2]})
        """
        both = range(_past("frame_stack", frame_stack).start, _count("seq_length", seq_length))
        return cls._preset(both, both, both, {}, options)


def _count(name: str, value: int, at_least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise WindowError(f"window · preset: {name} is an integer of at least {at_least}; got {value!r} → pass such a one")
    return int(value)


def _past(name: str, n: int) -> range:
    """Offsets of the `n` steps that end with step t."""
    return range(1 - _count(name, n), 1)

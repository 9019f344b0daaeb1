"""RDT's unified vector for one arm: the meaning of its slots, and how LIBERO's values fill them. Pure numpy.

Slots are those of thu-ml/RoboticsDiffusionTransformer, configs/state_vec.py; a single arm is the right one (README.md and
hdf5_vla_dataset.py: "If only one wrist, make it right wrist"). ``loader.adapters.rdt.dataset`` makes samples of these vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from robozarr.loader.adapters.rdt.aloha import ALOHA_SLOTS, aloha_vectors
from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import WindowError

__all__ = [
    "DELTA_SLOTS",
    "STATE_DIM",
    "STATE_SLOTS",
    "Profile",
    "RDTConfig",
    "RDTKeys",
    "RDTVectors",
    "rotation_6d",
    "unify",
]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

STATE_DIM: Final = 128
STATE_SLOTS: Final = (*range(7), 10, *range(30, 33), *range(33, 39))
"""Joints 0-6, gripper opening, end-effector position, 6-D rotation."""
DELTA_SLOTS: Final = (*range(39, 42), *range(42, 45), 10)
"""End-effector linear and angular velocity, gripper opening. RDT has no slots for deltas; these come closest."""

Profile = Literal["future_state", "delta", "aloha"]
"""Kind of action. "future_state": states t+1 … t+chunk, as in RDT's pre-training (data/episode_transform.py:
flatten_episode). "delta": the controller's commands as recorded by LIBERO, in physical units. "aloha": target joint
positions of two arms, as data/hdf5_vla_dataset.py reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RDTKeys:
    """Names of keys in the store; the defaults are LIBERO's. robomimic has ``robot0_joint_pos`` and so on."""

    joints: str = "joint_states"
    """[7], rad."""
    fingers: str = "gripper_states"
    """[2], m: positions of the two fingers, with opposite signs."""
    position: str = "ee_pos"
    """[3], m."""
    orientation: str = "ee_ori"
    """[3]: axis-angle in rad (not Euler angles); or [4]: a quaternion x, y, z, w."""
    actions: str = "actions"
    """[7]: robosuite's OSC_POSE commands in [-1, 1]; last: -1 opens, +1 closes."""

    @property
    def states(self) -> tuple[str, ...]:
        """Keys that make up the state of one arm."""
        return self.joints, self.fingers, self.position, self.orientation


@dataclass(frozen=True, slots=True, kw_only=True)
class RDTConfig:
    """Settings of a sample. Those that decide values are in `describe`, and so in each sample's meta."""

    profile: Profile = "future_state"
    history: int = 2
    """Number of pictures up to the anchor (configs/base.yaml: img_history_size)."""
    chunk: int = 64
    """Number of actions, and of past states in the pre-training form (configs/base.yaml: action_chunk_size)."""
    cameras: Mapping[str, str] = field(
        default_factory=lambda: {"cam_high": "agentview_rgb", "cam_right_wrist": "eye_in_hand_rgb"}
    )
    """RDT's camera (``cam_high``, ``cam_right_wrist``, ``cam_left_wrist``) → key of the store."""
    upright: bool = True
    """Flip pictures that were recorded with row 0 at the bottom; the encoder was trained on upright pictures."""
    causal: bool = True
    """Begin deltas with the first action chosen after the observation was seen; False: as recorded."""
    skip_still: bool = False
    """Leave out steps before the arm first moves and mask their pictures, as hdf5_vla_dataset.py does (EPS 1e-2)."""
    epsd_len_thresh_low: int | None = None
    """Leave out episodes with fewer steps. RDT's configs/base.yaml has 32; its hdf5_vla_dataset.py has 128, which drops many
    of LIBERO's episodes; off here."""
    epsd_len_thresh_high: int | None = None
    """Keep this many steps of longer episodes, drawn at random once. RDT has 2048, drawn at each loading; off here."""
    open_width: float = 0.08
    """Gripper width in m that counts as opening 1. Panda's fingers part by 2 · 0.04 m; RDT multiplies by 12.5 = 1/0.08 as
    well (data/preprocess_scripts/austin_buds_dataset_converted_externally_to_rlds.py)."""
    position_scale: float = 0.05
    """m per step at command 1: robosuite's OSC_POSE, controllers/config/osc_pose.json: output_max."""
    rotation_scale: float = 0.5
    """rad per step at command 1, from the same file."""
    qpos_grippers: tuple[float, float] = (4.7908, 4.7888)
    """Divisors of the left and the right gripper of qpos, profile "aloha": those of RDT's own robot, as in its code. ACT's
    simulated files already hold openings in [0, 1]: pass (1, 1)."""
    action_grippers: tuple[float, float] = (11.8997, 13.9231)
    """The same divisors for the actions."""
    keys: RDTKeys = field(default_factory=RDTKeys)

    def __post_init__(self) -> None:
        cameras = ("cam_high", "cam_right_wrist", "cam_left_wrist")
        if self.profile not in get_args(Profile):
            raise WindowError(f'rdt · profile: "future_state", "delta" or "aloha"; got {self.profile!r} → pass one of these')
        if bad := sorted(set(self.cameras) - set(cameras)):
            raise WindowError(f"rdt · cameras: of {', '.join(cameras)}; got {', '.join(bad)} → name them as RDT does")
        if self.history < 1 or self.chunk < 1:
            raise WindowError(
                f"rdt · history, chunk: at least 1; got {self.history} and {self.chunk} → pass, for example, 2 and 64"
            )

    @classmethod
    def aloha(cls, **options: Any) -> RDTConfig:
        """Settings for stores of ALOHA's, ACT's or RDT's own files: two arms, three cameras with RDT's names."""
        cameras = {camera: camera for camera in ("cam_high", "cam_right_wrist", "cam_left_wrist")}
        return cls(**{"profile": "aloha", "cameras": cameras, "keys": RDTKeys(joints="qpos"), **options})

    @property
    def state_keys(self) -> tuple[str, ...]:
        """Keys that make up a state."""
        return (self.keys.joints,) if self.profile == "aloha" else self.keys.states

    @property
    def commands(self) -> bool:
        """Whether actions are the recorded commands, rather than the states that followed."""
        return self.profile != "future_state"

    def describe(self) -> dict[str, Any]:
        """Every setting that decides values, as JSON values."""
        told: dict[str, Any] = {"profile": self.profile, "open_width": self.open_width, "upright": self.upright}
        if self.profile == "delta":
            told |= {"causal": self.causal, "position_scale": self.position_scale, "rotation_scale": self.rotation_scale}
        if self.profile == "aloha":
            del told["open_width"]
            told |= {"causal": self.causal, "qpos_grippers": self.qpos_grippers, "action_grippers": self.action_grippers}
        return told


def rotation_6d(orientation: ArrayLike) -> F64:
    """First two columns of rotation matrices, one after the other (data/utils.py: rotation_matrix_to_ortho6d).

    Parameters
    ----------
    orientation : float [..., 3] or [..., 4]
        Axis-angle in rad, of any angle; or a quaternion x, y, z, w.

    Returns
    -------
    float64 [..., 6]

    Examples
    --------
    >>> rotation_6d([0, 0, np.pi / 2]).round(6).tolist()
    [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]
    """
    given = np.asarray(orientation, np.float64)
    if given.shape[-1] == 3:
        angle = np.linalg.norm(given, axis=-1, keepdims=True)
        half = angle / 2
        # sin(a/2)/a, which is 1/2 at 0
        given = np.concatenate([given * np.sinc(half / np.pi) / 2, np.cos(half)], axis=-1)
    elif given.shape[-1] != 4:
        raise WindowError(
            f"rdt · orientation: axis-angle [3] or quaternion xyzw [4]; got {list(given.shape)} → name another key in RDTKeys"
        )
    x, y, z, w = np.moveaxis(given / np.linalg.norm(given, axis=-1, keepdims=True), -1, 0)
    first = 1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)
    second = 2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)
    return np.stack([*first, *second], axis=-1)


def unify(values: NDArray[Any], slots: tuple[int, ...], dtype: Any = np.float64) -> NDArray[Any]:
    """Put values [..., len(slots)] into their slots of zeros [..., 128]."""
    out = np.zeros((*values.shape[:-1], STATE_DIM), dtype)
    out[..., slots] = values
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class RDTVectors:
    """RDT's values of every step, in the order of the slots, without the empty ones; and RDT's statistics of every episode."""

    state: F64
    """float64 [n_steps, n], of `state_slots`: rad; opening in [0, 1]; m; 6-D rotation."""
    action: F64
    """float64 [n_steps, n]: `state` itself; or in DELTA_SLOTS, m and rad per step, opening 0 or 1; or in ALOHA_SLOTS."""
    mean: F64
    """float64 [n_episodes, 128] over an episode's states; likewise `std` (population) and `norm` (RMS)."""
    std: F64
    norm: F64
    start: I64
    """First row of each episode: int64 [n_episodes]."""
    stop: I64
    first_action: I64
    """int64 [n_episodes]: rows from an observation to the first action that it is paired with."""

    state_slots: tuple[int, ...] = STATE_SLOTS

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots of `action`."""
        if self.state_slots != STATE_SLOTS:
            return self.state_slots
        return STATE_SLOTS if self.action.shape[1] == len(STATE_SLOTS) else DELTA_SLOTS

    @property
    def indicator(self) -> F64:
        """float64 [128]: 1 where a state or an action has a value."""
        slots = tuple(sorted({*self.state_slots, *self.slots}))
        return unify(np.ones(len(slots)), slots)

    @classmethod
    def build(cls, columns: Mapping[str, NDArray[Any]], table: WindowTable, config: RDTConfig) -> RDTVectors:
        """Compute them once for a store.

        Parameters
        ----------
        columns : mapping of key to [n_steps, …]
            Those of ``config.keys``.
        table : WindowTable
            Where episodes begin and end, and what is causal.
        config : RDTConfig
        """
        if config.profile == "aloha":
            return cls._of_two_arms(columns, table, config)
        joints, fingers, position, orientation = (columns[name] for name in config.keys.states)
        # the width is what lies between the fingers, whose signs differ
        opening = np.clip(np.abs(fingers[:, :1] - fingers[:, 1:2]) / config.open_width, 0, 1)
        state = np.concatenate([joints, opening, position, rotation_6d(orientation)], axis=1, dtype=np.float64)
        if state.shape[1] != len(STATE_SLOTS):
            raise WindowError(
                f"rdt · keys: 7 joints, 2 fingers, a position; got {[columns[name].shape[1:] for name in config.keys.states]} "
                "→ name other keys in RDTKeys"
            )
        mean, std, norm = _statistics_of_episodes(state, table, STATE_SLOTS)
        action, first = state, np.ones_like(table.start)
        if config.profile == "delta":
            action, first = _deltas(columns[config.keys.actions], config), table.shift
            # as flatten_episode_agilex: errors of actions are measured against the rms of actions, which is not a state's here
            rms = [np.sqrt(np.mean(action[a:b, :6] ** 2, axis=0)) for a, b in zip(table.start, table.stop, strict=True)]
            norm[:, DELTA_SLOTS[:6]] = np.stack(rms)
        return cls(
            state=state, action=action, mean=mean, std=std, norm=norm, start=table.start, stop=table.stop, first_action=first
        )

    @classmethod
    def _of_two_arms(cls, columns: Mapping[str, NDArray[Any]], table: WindowTable, config: RDTConfig) -> RDTVectors:
        qpos, actions = columns[config.keys.joints], columns[config.keys.actions]
        state, action = aloha_vectors(qpos, actions, config.qpos_grippers, config.action_grippers)
        mean, std, norm = _statistics_of_episodes(state, table, ALOHA_SLOTS)
        return cls(
            state=state, action=action, mean=mean, std=std, norm=norm, start=table.start, stop=table.stop,
            first_action=table.shift, state_slots=ALOHA_SLOTS,
        )  # fmt: skip


def _statistics_of_episodes(state: F64, table: WindowTable, slots: tuple[int, ...]) -> tuple[F64, F64, F64]:
    """Mean, standard deviation and rms of each episode, in their slots [n_episodes, 128]."""
    of_each = [_statistics(state[a:b]) for a, b in zip(table.start, table.stop, strict=True)]
    mean, std, norm = (unify(np.stack(rows), slots) for rows in zip(*of_each, strict=True))
    return mean, std, norm


def _statistics(states: F64) -> tuple[F64, F64, F64]:
    """Mean, population standard deviation, rms of an episode (data/hdf5_vla_dataset.py: parse_hdf5_file)."""
    return states.mean(axis=0), states.std(axis=0), np.sqrt(np.mean(states**2, axis=0))


def _deltas(actions: NDArray[Any], config: RDTConfig) -> F64:
    if actions.shape[1:] != (7,):
        raise WindowError(
            f'rdt · profile "delta": 7 commands of OSC_POSE per step; got {list(actions.shape[1:])} → use "future_state"'
        )
    commands = actions.astype(np.float64)
    opening = (1 - commands[:, 6:]) / 2  # -1 opens, +1 closes
    return np.concatenate([commands[:, :3] * config.position_scale, commands[:, 3:6] * config.rotation_scale, opening], axis=1)

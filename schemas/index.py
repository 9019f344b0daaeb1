"""The step index: episode and step of each row, and the flags of a step. Pure numpy; imports no I/O.

The flags are facts about recorded demonstrations that training code filters by; a flag never removes a step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import IntEnum, IntFlag
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Alignment",
    "FlagRules",
    "ImageConvention",
    "ImageEvidence",
    "StepFlag",
    "build_index",
]


class StepFlag(IntFlag):
    """Bits of ``index/flags``."""

    NOOP = 1
    """The action does nothing (OpenVLA's rule)."""
    STILL = 2
    """The step comes before the arm first moves (RDT's rule)."""
    KEY_MOMENT = 4
    """The gripper's command changes within ±k steps."""


class Alignment(IntEnum):
    """When an episode's observations were recorded, relative to the action of the same step."""

    UNKNOWN = -1
    BEFORE = 0
    """obs[t] is what the policy saw when it chose actions[t] (OpenVLA's and robomimic's files)."""
    AFTER = 1
    """obs[t] shows the result of actions[t] (LIBERO's files)."""


class ImageConvention(IntEnum):
    """Which way up an episode's pictures are stored (robosuite's ``IMAGE_CONVENTION``)."""

    UNKNOWN = -1
    OPENGL = 0
    """Row 0 is the bottom row: upside down for a viewer."""
    OPENCV = 1
    """Row 0 is the top row: upright."""


class ImageEvidence(IntEnum):
    """The evidence for an episode's image convention."""

    NONE = 0
    ATTRIBUTE = 1
    """The file's ``macros_image_convention`` says so."""
    ROBOMIMIC = 2
    """``env_args`` and ``*_image`` keys: robomimic's writer turns robosuite's pictures upright."""
    KEY_NAMES = 3
    """``*_rgb`` keys without attributes: LIBERO's environments, which OpenVLA's script replays, render OpenGL-wise."""
    LAYOUT = 4
    """The file follows a layout whose writer's code states it (format 2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRules:
    """Thresholds of the step flags; stored with the flags."""

    noop_threshold: float = 1e-4
    """Largest norm of the action, without its gripper, that counts as doing nothing. OpenVLA's ``is_noop`` uses 1e-4."""
    still_threshold: float = 1e-2
    """Distance in rad from a joint's first value beyond which it has moved. RDT's ``EPS`` is 1e-2."""
    key_moment_steps: int = 5
    """Steps k on both sides of a change of the gripper's command; 5 are 0.25 s at LIBERO's 20 Hz."""
    gripper: int | Literal["layout"] | None = -1
    """Element of the actions that is the gripper's command, whose sign says open or closed. None: there is none, and no step
    is flagged as a no-op or a key moment. "layout": taken by the scan from each file's layout."""
    switches: tuple[int, ...] = ()
    """Other elements of the actions that are not motion, such as a mode of the base; the no-op rule ignores them."""

    @property
    def as_of_format_1(self) -> bool:
        """Whether the last element is the gripper's command, as format 1 assumes."""
        return self.gripper == -1 and not self.switches

    def of_width(self, width: int) -> FlagRules:
        """The same rules for actions of `width` elements, in one form: the last element is -1, others count from 0.

        >>> FlagRules(gripper=6, switches=(11,)).of_width(7) == FlagRules()
        True
        """
        if self.gripper is None or self.gripper == "layout":
            return replace(self, switches=())
        gripper = self.gripper % width if -width <= self.gripper < width else None
        switches = tuple(sorted(element for element in set(self.switches) if element < width and element != gripper))
        return replace(self, gripper=-1 if gripper == width - 1 else gripper, switches=switches if gripper is not None else ())

    def to_json(self) -> dict[str, Any]:
        """The rules as in the store's attributes."""
        values = asdict(self)
        element, arm = "-1", "actions[t, :-1]"
        if not self.as_of_format_1:
            element = str(self.gripper)
            apart = ", ".join(map(str, sorted({*self.switches, self.gripper}, key=str)))
            arm = f"actions[t] without its elements {apart}"
        never = (
            ""
            if self.gripper is not None
            else "never, because no element of actions is known to be a gripper's command; else: "
        )
        value: dict[str, Any] = {
            "noop": {
                "bit": 0,
                "threshold": values["noop_threshold"],
                "rule": f"{never}norm({arm}) < threshold, and the gripper's command equals that of the last step that "
                "is no no-op, if there was one (OpenVLA, regenerate_libero_dataset.py: is_noop)",
            },
            "still": {
                "bit": 1,
                "threshold": values["still_threshold"],
                "rule": "t < first - 1, where first is the first step with any |joint[t] - joint[0]| > threshold rad; all "
                "steps if there is none (RDT, hdf5_vla_dataset.py: first_idx)",
            },
            "key_moment": {
                "bit": 2,
                "k": values["key_moment_steps"],
                "rule": f"{never}a step c with sign(actions[c, {element}]) != sign(actions[c - 1, {element}]) lies within k "
                "steps of t",
            },
        }
        if not self.as_of_format_1:
            value["gripper"] = {"element": self.gripper, "switches": list(self.switches)}
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FlagRules:
        """Read the rules in a store's attributes; ValueError for fields or bits that the format does not know."""
        for name, known in cls().to_json().items():
            if set(value[name]) != set(known) or value[name]["bit"] != known["bit"]:
                raise ValueError(f"flags.{name} must hold {sorted(known)} with bit {known['bit']}, got {value[name]!r}")
        thresholds = value["noop"]["threshold"], value["still"]["threshold"]
        if not all(type(number) in (int, float) and 0 <= number < float("inf") for number in thresholds):
            raise ValueError(f"thresholds of flags must be numbers, got {thresholds}")
        if type(value["key_moment"]["k"]) is not int or not 0 <= value["key_moment"]["k"] < 1 << 31:
            raise ValueError(f"flags.key_moment.k must be a number of steps, got {value['key_moment']['k']!r}")
        if not all(isinstance(value[name]["rule"], str) for name in ("noop", "still", "key_moment")):
            raise ValueError("a rule of flags must be text")
        gripper = value.get("gripper", {"element": -1, "switches": []})
        if set(gripper) != {"element", "switches"} or not (gripper["element"] is None or type(gripper["element"]) is int):
            raise ValueError(f"flags.gripper must hold element and switches, got {gripper!r}")
        if not all(type(element) is int and element >= 0 for element in gripper["switches"]):
            raise ValueError(f"flags.gripper.switches must be elements, got {gripper['switches']!r}")
        return cls(
            gripper=gripper["element"],
            switches=tuple(gripper["switches"]),
            noop_threshold=float(value["noop"]["threshold"]),
            still_threshold=float(value["still"]["threshold"]),
            key_moment_steps=int(value["key_moment"]["k"]),
        )


FLAG_MASK: Final = int(StepFlag.NOOP | StepFlag.STILL | StepFlag.KEY_MOMENT)


def build_index(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Episode starts, and episode and step of each row, for consecutive episodes of `lengths` steps.

    Parameters
    ----------
    lengths : int64 [episode]
        Steps of each episode, at least 1.

    Returns
    -------
    start : int64 [episode]
        Row at which each episode begins.
    episode, step : int32 [step]
        Which episode a row belongs to, and t inside it.

    Examples
    --------
    >>> start, episode, step = build_index(np.array([2, 3]))
    >>> start.tolist(), episode.tolist(), step.tolist()
    ([0, 2], [0, 0, 1, 1, 1], [0, 1, 0, 1, 2])
    """
    lengths = np.asarray(lengths, np.int64)
    start = np.cumsum(lengths) - lengths
    episode = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    step = (np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(start, lengths)).astype(np.int32)
    return start, episode, step

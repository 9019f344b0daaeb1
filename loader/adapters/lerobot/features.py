"""Name a store's keys as LeRobot names its features. Imports no torch.

huggingface/lerobot 0.4.4 and 0.6.0, lerobot/datasets/utils.py (DEFAULT_FEATURES, dataset_to_policy_features): pictures are
``observation.images.*``, the state that a policy sees is ``observation.state``, what it does ``action``. Whatever else begins
with ``observation`` or ``action`` is taken for the same, so other keys keep their own names, or get ``store.`` before them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from robozarr.schemas.errors import WindowError
from robozarr.schemas.metadata import Key
from robozarr.store.opened import Store

__all__ = ["ACTION", "DEFAULTS", "STATE", "Feature", "Features", "features_of", "fps_of"]

ACTION: Final = "action"
STATE: Final = "observation.state"
IMAGES: Final = "observation.images."
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "timestamp": {"dtype": "float32", "shape": (1,), "names": None},
    **{
        name: {"dtype": "int64", "shape": (1,), "names": None}
        for name in ("frame_index", "episode_index", "index", "task_index")
    },
}
"""lerobot/datasets/utils.py: DEFAULT_FEATURES."""
STATES: Final = (
    ("state",),
    ("ee_pos", "ee_ori", "gripper_states"),
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),
    ("qpos",),
    ("joint_states", "gripper_states"),
)
"""States of policies, by layout; the first whose keys are all there counts. LIBERO's are those of its LeRobot data sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One feature of LeRobot, and the keys of the store that it is made of."""

    name: str
    keys: tuple[str, ...]
    """One key; or several vectors, joined in this order."""
    dtype: str
    """numpy name of the type that its values have in the store; pictures: uint8."""
    shape: tuple[int, ...]
    """As LeRobot states it: pictures [y, x, c], numbers [n], a single number [1]."""
    names: tuple[str, ...] | None
    picture: bool = False

    def to_info(self, as_video: bool = False) -> dict[str, Any]:
        """The entry of ``info.json``."""
        kind = ("video" if as_video else "image") if self.picture else self.dtype
        return {"dtype": kind, "shape": self.shape, "names": None if self.names is None else list(self.names)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features that a store is served or written as."""

    pictures: tuple[Feature, ...]
    numbers: tuple[Feature, ...]
    left_out: dict[str, str]
    """Keys of the store that LeRobot's form cannot hold → why. What was not asked for is not listed."""

    def __iter__(self) -> Iterator[Feature]:
        return iter((*self.pictures, *self.numbers))

    def named(self, name: str) -> Feature:
        """A feature; WindowError if no feature has this name."""
        for feature in (*self.pictures, *self.numbers):
            if feature.name == name:
                return feature
        names = ", ".join(feature.name for feature in (*self.pictures, *self.numbers))
        raise WindowError(f"lerobot · {name}: a served feature, which are {names} → name one of these")

    def to_info(self, as_video: bool = False) -> dict[str, dict[str, Any]]:
        """``features`` of ``info.json``."""
        own = {feature.name: feature.to_info(as_video) for feature in (*self.pictures, *self.numbers)}
        return own | {name: dict(entry) for name, entry in DEFAULTS.items()}


def features_of(
    store: Store,
    *,
    images: Sequence[str] | None = None,
    state: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
) -> Features:
    """The features of a store.

    Parameters
    ----------
    store : Store
    images : keys, optional
        Cameras. Default: all of uint8 with three channels.
    state : keys, optional
        What ``observation.state`` is made of. Default: by the store's layout (LIBERO: ``ee_pos``, ``ee_ori``,
        ``gripper_states``). Empty: none.
    keys : keys, optional
        Other keys to serve under their own names. Default: all.

    Raises
    ------
    WindowError
        If a key is not there or cannot be what it is asked for; if the state is not known.
    """
    all_keys = store.keys
    cameras = [name for name, key in all_keys.items() if _is_camera(key)] if images is None else list(images)
    if bad := [name for name in cameras if name not in all_keys or not _is_camera(all_keys[name])]:
        raise WindowError(
            f"lerobot · {bad[0]}: pictures of uint8 with three channels; the store has "
            f"{', '.join(name for name, key in all_keys.items() if _is_camera(key)) or 'none'} → name some of these"
        )
    if "actions" not in all_keys:
        raise WindowError("lerobot · action: the store has a key actions; it has none → convert with this key")
    states = _states(all_keys, state)
    alone = {"actions", *(states if len(states) == 1 else ())}
    others = (
        [name for name, key in all_keys.items() if name not in alone and not _is_camera(key)] if keys is None else list(keys)
    )
    left_out: dict[str, str] = {}
    numbers = [_joined(STATE, states, all_keys)] if states else []
    numbers.append(_joined(ACTION, ("actions",), all_keys))
    for name in others:
        if name not in all_keys:
            raise WindowError(
                f"lerobot · {name}: is not a key of the store, which has {', '.join(all_keys)} → name one of these"
            )
        if why := _why_not(all_keys[name]):
            left_out[name] = why
        elif name not in alone:
            numbers.append(_joined(_own_name(name), (name,), all_keys))
    return Features(
        pictures=tuple(_picture(name, all_keys[name]) for name in cameras), numbers=tuple(numbers), left_out=left_out
    )


def fps_of(store: Store, given: float | None = None) -> int | float:
    """Steps per second; a whole number is an int, as LeRobot's ``fps`` is.

    Raises
    ------
    WindowError
        If the store does not know it, or its tasks differ, and none is given.
    """
    known = store.metadata.control_freq if given is None else given
    if known is None or not 0 < known < float("inf"):
        raise WindowError("lerobot · fps: steps per second; the store's tasks differ, or it is not known → state fps=")
    return int(known) if float(known).is_integer() else float(known)


def _is_camera(key: Key) -> bool:
    channels = dict(zip(key.picture_axes, key.shape, strict=False)).get("c")
    return key.dtype == "uint8" and key.picture_axes in ("yxc", "cyx") and channels == 3


def _why_not(key: Key) -> str:
    if key.ragged:
        return "its width differs between episodes"
    if key.frame or len(key.shape) > 1:
        return f"neither a vector nor a picture of uint8 with three channels, but {key.dtype} {list(key.shape)}"
    return ""


def _states(keys: dict[str, Key], given: Sequence[str] | None) -> tuple[str, ...]:
    if given is None:
        found = next((names for names in STATES if all(name in keys and not _why_not(keys[name]) for name in names)), None)
        if found is None:
            raise WindowError(
                "lerobot · observation.state: keys that make the state; none of the usual ones is in the store, which has "
                f"{', '.join(keys)} → name them: state=[…] (--state), or an empty list for none"
            )
        return found
    for name in given:
        if name not in keys or _why_not(keys[name]):
            why = _why_not(keys[name]) if name in keys else f"the store has {', '.join(keys)}"
            raise WindowError(f"lerobot · observation.state: vectors of the store; {name}: {why} → name others")
    return tuple(given)


def _picture(name: str, key: Key) -> Feature:
    size = dict(zip(key.picture_axes, key.shape, strict=True))
    shape, names = (size["y"], size["x"], size["c"]), ("height", "width", "channels")
    return Feature(name=IMAGES + name, keys=(name,), dtype="uint8", shape=shape, names=names, picture=True)


def _joined(name: str, keys: Sequence[str], all_keys: dict[str, Key]) -> Feature:
    widths = [all_keys[key].shape[0] if all_keys[key].shape else 1 for key in keys]
    dtype = np.result_type(*(np.dtype(all_keys[key].dtype) for key in keys)).name
    elements = [
        key if width == 1 else f"{key}.{i}" for key, width in zip(keys, widths, strict=True) for i in range(width)
    ]  # fmt: skip
    return Feature(name=name, keys=tuple(keys), dtype=dtype, shape=(sum(widths),), names=tuple(elements))


def _own_name(key: str) -> str:
    taken = key in DEFAULTS or key in ("task", "subtask") or key.endswith("_is_pad")
    return f"store.{key}" if taken or key.startswith(("observation", "action")) else key

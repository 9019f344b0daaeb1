"""Rules for HDF5 sources: what a demo must hold, and what names mean; imports neither h5py nor zarr.

The trees it describes: LIBERO's ``create_dataset.py``, OpenVLA's ``regenerate_libero_dataset.py``, robomimic's datasets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Final, Literal

from robozarr.schemas.axes import LARGE

__all__ = [
    "INIT_STATE",
    "JOINT_KEYS",
    "MODEL_FILE",
    "RAGGED_KEYS",
    "REQUIRED_KEYS",
    "SOURCE_SUFFIXES",
    "Role",
    "as_utf8",
    "demo_number",
    "instruction_from_name",
    "is_array_name",
    "is_called",
    "is_ragged",
    "key_name",
    "key_names",
    "role_and_unit",
    "source_names",
    "task_name",
]

Role = Literal["image", "depth", "action", "state", "outcome", "mask", "segmentation", "points", "unknown"]

SOURCE_SUFFIXES: Final = (".hdf5", ".h5")
REQUIRED_KEYS: Final = ("actions",)
"""Datasets that every demo must hold; all others are found. `actions` gives a demo its length."""
MODEL_FILE: Final = "model_file"
INIT_STATE: Final = "init_state"
"""Attributes of a demo that are too large for a table; each has its own column."""
RAGGED_KEYS: Final = ("states",)
"""Keys that are always ragged, whatever the present files show: the simulator's state has another width in
every task, and a store made from one task must be able to take the next."""
JOINT_KEYS: Final = ("joint_states", "robot0_joint_pos")
"""Names of the arm's joint positions in `obs`, in order of preference (LIBERO, robomimic)."""

_KNOWN: Final[dict[str, tuple[Role, str]]] = {
    "actions": ("action", "controller command in [-1, 1]; last: gripper, -1 opens, +1 closes"),
    "rewards": ("outcome", "1"),
    "dones": ("outcome", "1"),
    "ee_pos": ("state", "m"),
    "ee_ori": ("state", "rad, axis-angle"),
    "ee_states": ("state", "m (3), rad axis-angle (3)"),
    "gripper_states": ("state", "m"),
    "joint_states": ("state", "rad"),
    "robot_states": ("state", "m gripper (2), m position (3), quaternion xyzw (4)"),
    "states": ("state", "simulator: s, qpos, qvel"),
    "robot0_joint_pos": ("state", "rad"),
    "robot0_joint_vel": ("state", "rad/s"),
    "robot0_eef_pos": ("state", "m"),
    "robot0_eef_quat": ("state", "quaternion xyzw"),
    "robot0_gripper_qpos": ("state", "m"),
    "robot0_gripper_qvel": ("state", "m/s"),
}
_SCENE: Final = re.compile(r"^[A-Z][A-Z_]*_SCENE\d+_")


def role_and_unit(name: str, dtype: str, frame: bool, shape: tuple[int, ...] | None = None) -> tuple[Role, str]:
    """Role and unit of a key, as far as its name, type and shape tell.

    A vector that is not known is a state of unknown unit (""); a picture that its name does not explain, and that is not of
    uint8, is "unknown". `frame` says whether a step is a picture.

    >>> role_and_unit("agentview_rgb", "uint8", True), role_and_unit("joint_states", "float64", False)
    (('image', 'intensity 0-255'), ('state', 'rad'))
    >>> [role_and_unit(name, "uint16", True) for name in ("cam_seg", "cam_depth", "flow")]
    [('segmentation', 'label'), ('depth', ''), ('unknown', '')]
    """
    words = set(re.split(r"[^a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    if frame:
        return _picture_role(words, dtype)
    if words & {"pointcloud", "points", "pcd", "cloud"} and shape is not None and len(shape) == 2 and shape[1] >= 3:
        return "points", ""
    if shape is not None and math.prod(shape) > LARGE:
        return "unknown", ""
    if name == "actions" and shape is not None and shape != (7,):
        return "action", ""
    if name not in _KNOWN and name.split(".")[0].split("_")[0] in ("action", "actions"):
        return "action", ""
    return _KNOWN.get(name, ("state", ""))


def _picture_role(words: set[str], dtype: str) -> tuple[Role, str]:
    if words & {"segmentation", "seg", "semantic", "instance", "label", "labels"}:
        return "segmentation", "label"
    if dtype == "bool" or words & {"mask", "masks"}:
        return "mask", ""
    if words & {"depth", "depths"}:
        return "depth", "renderer's depth" if dtype.startswith("float") else ""
    if dtype == "uint8":
        return "image", "intensity 0-255"
    if dtype.startswith("float") and words & {"rgb", "rgba", "image", "images", "img", "color", "colour", "gray", "grey"}:
        return "image", "intensity, of a range that is not stated"
    return "unknown", ""


def key_name(dataset: str) -> str:
    """Name of the key in the store for a dataset's path inside a demo: without ``obs/``, levels joined by a dot.

    >>> key_name("obs/agentview_rgb"), key_name("actions"), key_name("next_obs/object")
    ('agentview_rgb', 'actions', 'next_obs.object')
    """
    return dataset.removeprefix("obs/").replace("/", ".")


def key_names(datasets: Iterable[str], called: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names of the keys of several datasets: ``key_name``, or the path joined by dots where two would be equal.

    A dataset whose path is taken too has no name, and is not in the result. `called` says what a file's layout calls them.

    >>> key_names(["actions", "obs/actions", "obs/pos"])
    {'obs/pos': 'pos', 'actions': 'actions', 'obs/actions': 'obs.actions'}
    """
    by_name: dict[str, list[str]] = {}
    for path in sorted(set(datasets)):
        by_name.setdefault((called or {}).get(path) or key_name(path), []).append(path)
    names = {paths[0]: name for name, paths in by_name.items() if len(paths) == 1}
    taken = set(names.values())
    for path in (path for paths in by_name.values() if len(paths) > 1 for path in paths):
        if (name := path.replace("/", ".")) not in taken:
            names[path] = name
            taken.add(name)
    return names


def is_called(dataset: str, wanted: Iterable[str], name: str = "") -> bool:
    """Whether the user's name means a dataset: by its path, a group above it, or the name of its key.

    `name` is what a file's layout calls it. Names that are not UTF-8 may be given as a store shows them (``as_utf8``).

    >>> is_called("obs/agentview_rgb", ["agentview_rgb"]), is_called("next_obs/object", ["next_obs"])
    (True, True)
    """
    path = as_utf8(dataset)
    names = (path, key_name(path), path.replace("/", "."), as_utf8(name))
    return any(each in names or path.startswith(f"{each.rstrip('/')}/") for each in map(as_utf8, wanted))


def is_ragged(dataset: str) -> bool:
    """Whether a dataset's key is always ragged.

    >>> is_ragged("states"), is_ragged("actions")
    (True, False)
    """
    return key_name(dataset) in RAGGED_KEYS


def is_array_name(name: str) -> bool:
    """Whether a key or split may have this name: a valid Zarr node name that the store does not need itself.

    >>> is_array_name("agentview_rgb"), is_array_name(".."), is_array_name("zarr.json")
    (True, False, False)
    """
    reserved = (
        name.startswith("__") or name == "zarr.json" or not name.strip(".") or "/" in name or "\\" in name
    )  # zarr takes both for its own
    return name.isprintable() and len(name.encode()) <= 200 and not reserved


def as_utf8(name: str) -> str:
    r"""A name of a file or an HDF5 object, with bytes that are no UTF-8 (lone surrogates) as escapes: a document is text.

    >>> print(as_utf8("caf\udce9"))
    caf\udce9
    """
    return name.encode("utf-8", "backslashreplace").decode()


def demo_number(name: str) -> int:
    """Number of a demo, used for sorting; h5py lists demo_10 before demo_2.

    Raises ValueError for a name that does not end in a number.

    >>> sorted(["demo_10", "demo_2"], key=demo_number)
    ['demo_2', 'demo_10']
    """
    match = re.search(r"([0-9]+)\Z", name)
    if match is None:
        raise ValueError(f"{name!r} does not end in a number")
    return int(match.group(1))


def task_name(stem: str) -> str:
    """Name of the task from a file's stem.

    >>> task_name("put_the_bowl_on_the_stove_demo")
    'put_the_bowl_on_the_stove'
    """
    return stem.removesuffix("_demo")


def instruction_from_name(stem: str) -> str:
    """The instruction in a file's name by LIBERO's rule: the scene prefix removed, and underscores as spaces.

    >>> instruction_from_name("LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_in_the_basket_demo")
    'put both the alphabet soup in the basket'
    """
    return _SCENE.sub("", task_name(stem)).replace("_", " ").strip()


def source_names(paths: Sequence[PurePath]) -> list[str]:
    """Name of each source: the shortest unique end of its path, with at least folder and file name.

    >>> source_names([PurePath("/d/spatial/a.hdf5"), PurePath("/d/lift/ph/b.h5"), PurePath("/d/can/ph/b.h5")])
    ['spatial/a.hdf5', 'lift/ph/b.h5', 'can/ph/b.h5']
    """

    def tail(path: PurePath, n: int) -> str:
        return as_utf8("/".join(part for part in path.parts[-n:] if part != path.anchor))

    depth = dict.fromkeys(paths, 2)
    while True:
        by_name: dict[str, list[PurePath]] = {}
        for path in depth:
            by_name.setdefault(tail(path, depth[path]), []).append(path)
        shared = [path for group in by_name.values() if len(group) > 1 for path in group]
        if not shared:
            return [tail(path, depth[path]) for path in paths]
        for path in shared:
            depth[path] += 1

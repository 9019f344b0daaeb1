"""Describe where a family of HDF5 files keeps its episodes, actions, cameras and facts. Pure; no I/O.

A layout never changes a value. It says what a dataset is called in the store, and what its writer's code bears out.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import PurePath
from typing import Any, Final, Literal, get_args

from robozarr.schemas.errors import PlanError
from robozarr.schemas.source import Role, demo_number, key_name

__all__ = ["Layout", "matches"]

AlignmentRule = Literal["detect", "before", "after", "unknown"]
PicturesRule = Literal["detect", "top", "bottom", "unknown"]
SuccessRule = Literal["unknown", "rewards", "attribute", "any", "last"]
TaskRule = Literal["file", "folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One family of files. Paths are HDF5's without a leading slash; in them ``*`` stands for one name, ``**`` for the rest.

    A place is a path below the file (``has``) or below an episode (all others); ``path@name`` is an attribute.
    """

    name: str
    """Short name, such as ``aloha``."""
    title: str = ""
    """What the files are, in a few words."""
    sources: tuple[str, ...] = ()
    """The writers' code or documents that the layout was learnt from."""
    traps: tuple[str, ...] = ()
    """What a reader of such files must know, one sentence each."""
    has: tuple[str, ...] = ()
    """Places in the file that must all exist; ``a | b`` means one of them. Files are recognised by this."""
    lacks: tuple[str, ...] = ()
    """Places that must not exist in the file."""
    episodes: str = "data/*"
    """Groups that are one episode each; ``/`` means that the file is one episode."""
    task: TaskRule = "file"
    """Which name identifies the task if the files have no instruction: the file's, or its folder's."""
    actions: str = "actions"
    """Dataset of the actions, [steps, n]; it gives an episode its length and becomes the key ``actions``."""
    prefixes: tuple[str, ...] = ("obs",)
    """Groups that are removed from the front of key names; the first match counts."""
    names: tuple[tuple[str, str], ...] = ()
    """Dataset → name of its key, where the default (path without prefix, levels joined by a dot) is not used."""
    leave_out: tuple[tuple[str, str], ...] = ()
    """Datasets that are not stored → why."""
    one_more: tuple[str, ...] = ()
    """Datasets that may have one row more than the actions, seen after the last action. That row is not stored."""
    joints: tuple[str, ...] = ()
    """Datasets of joint positions, used by the rule for still starts; the first one that exists counts."""
    states: str = ""
    """Dataset of the simulator's states [time, qpos, qvel], used to detect the alignment."""
    rewards: str = ""
    """Dataset of rewards, for ``success``."""
    gripper: tuple[tuple[str, int], ...] = ()
    """Number of actions → element that is the gripper's command, whose sign says open or closed. Other widths have none."""
    switches: tuple[int, ...] = ()
    """Other elements of the actions that are not motion, such as a mode of the base; the no-op rule ignores them."""
    alignment: AlignmentRule = "detect"
    """Whether obs[t] was recorded before or after actions[t]: from the writer's code, or detected from joints and states."""
    pictures: PicturesRule = "detect"
    """Which row of a picture comes first: known from the writer's code, or detected from attributes and names."""
    success: SuccessRule = "unknown"
    """How an episode's success is known: ``rewards`` (1 wherever the task is solved), or the bool ``attribute`` or dataset
    that ``success_at`` names (``any`` step, or the ``last``)."""
    success_at: str = ""
    control_freq: float | None = None
    """Steps per second if a file does not state it; None means unknown."""
    frequency_at: str = ""
    """Dataset or ``path@attribute`` of the file that holds the steps per second, one number."""
    videos: tuple[str, ...] = ()
    """Datasets that are a video each. A file whose pictures are videos is refused, unless they are left out by name."""
    videos_beside: tuple[str, ...] = ()
    """Files that are a video each, as paths from the HDF5 file's folder."""
    instruction: tuple[str, ...] = ()
    """Further places of an episode's instruction (see also ``schemas.instructions``), in order: below the episode, or with a
    leading slash below the file: ``path@attribute``, ``path@attribute:field`` of a JSON text, a dataset."""
    roles: tuple[tuple[str, str], ...] = ()
    """Name of a key → its role, if the writer's code says more than shape and name."""
    units: tuple[tuple[str, str], ...] = ()
    """Name of a key → its unit."""

    def __post_init__(self) -> None:
        for field, rule in _CHOICES.items():
            if getattr(self, field) not in get_args(rule):
                raise PlanError(_wrong(self.name, field, f"one of {', '.join(get_args(rule))}", getattr(self, field)))
        if bad := [role for _, role in self.roles if role not in get_args(Role)]:
            raise PlanError(_wrong(self.name, "roles", f"of {', '.join(get_args(Role))}", bad[0]))
        if self.episodes != "/" and ("*" in self._parent or "*" not in self.episodes or "**" in self.episodes):
            raise PlanError(_wrong(self.name, "episodes", "'/', or groups such as 'data/*' or 'traj_*'", self.episodes))
        if self.success in ("attribute", "any", "last") and not self.success_at:
            raise PlanError(_wrong(self.name, "success_at", f"named for success = {self.success!r}", self.success_at))
        if not self.has:
            raise PlanError(_wrong(self.name, "has", "one place or more that such a file has", []))
        if bad_switches := [element for element in self.switches if element < 0]:
            raise PlanError(_wrong(self.name, "switches", "elements of the actions, from 0", bad_switches))
        for width, element in self.gripper:
            if not width.isdecimal() or not -int(width) <= element < int(width):
                raise PlanError(_wrong(self.name, "gripper", "width = element, such as 7 = 6", f"{width} = {element}"))

    @property
    def one_episode(self) -> bool:
        """Whether a file is one episode."""
        return self.episodes == "/"

    @property
    def parent(self) -> str:
        """Path of the group that holds the episodes; "" for the file itself."""
        return "" if self.one_episode else self._parent

    @property
    def _parent(self) -> str:
        return self.episodes.rpartition("/")[0]

    def is_episode(self, name: str) -> bool:
        """Whether a name in `parent` is that of an episode."""
        return fnmatch.fnmatchcase(name, self.episodes.rpartition("/")[2])

    def group(self, demo: str) -> str:
        """Path of an episode's group."""
        return "" if self.one_episode else f"{self._parent}/{demo}" if self._parent else demo

    def demo_of_file(self, path: str) -> str:
        """Name of a file's one episode: the file's stem if it ends in a number (used for sorting), else demo_0."""
        stem = PurePath(path).stem
        try:
            demo_number(stem)
        except ValueError:
            return "demo_0"
        return stem

    def key_name(self, dataset: str) -> str:
        """Name of the key that a dataset becomes in the store.

        >>> Layout(name="x", has=("action",), actions="action", prefixes=("observations/images",)).key_name("action")
        'actions'
        """
        if dataset == self.actions:
            return "actions"
        for pattern, name in self.names:
            if dataset == pattern:
                return name
        for prefix in self.prefixes:
            if dataset.startswith(f"{prefix}/"):
                return dataset.removeprefix(f"{prefix}/").replace("/", ".")
        return dataset.replace("/", ".") if self.prefixes != ("obs",) else key_name(dataset)

    def may_have_one_more(self, dataset: str) -> bool:
        """Whether a dataset may have one row more than the actions."""
        return any(matches(dataset, pattern) for pattern in self.one_more)

    def why_left_out(self, dataset: str) -> str:
        """Why a dataset is not stored; "" if it is."""
        return next((why for pattern, why in self.leave_out if matches(dataset, pattern)), "")

    def role_of(self, name: str) -> str:
        """Role of a key, if the layout states it."""
        return dict(self.roles).get(name, "")

    def unit_of(self, name: str) -> str:
        """Unit of a key, if the layout states it."""
        return dict(self.units).get(name, "")

    def gripper_of(self, width: int) -> int | None:
        """Element of the actions that is the gripper's command; None if there is none, or none is known."""
        return dict(self.gripper).get(str(width))

    def to_json(self) -> dict[str, Any]:
        """The layout's fields, as in TOML."""
        value: dict[str, Any] = {}
        for field in fields(self):
            stated = getattr(self, field.name)
            if field.default is MISSING or stated != field.default:
                value[field.name] = dict(stated) if field.name in _TABLES else list(stated) if _is_list(field.name) else stated
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: str) -> Layout:
        """Make a layout from its table.

        Raises
        ------
        PlanError
            If a field is unknown or missing, or of another type; the text names `where` and the field.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise PlanError(_wrong(where, unknown[0], f"a field of a layout, which are {', '.join(sorted(known))}", "unknown"))
        if missing := sorted({"name", "has"} - set(value)):
            raise PlanError(_wrong(where, missing[0], "stated", "nothing"))
        given = {name: _field(where, name, item) for name, item in value.items()}
        return cls(**given)


_CHOICES: Final[dict[str, Any]] = {
    "alignment": AlignmentRule,
    "pictures": PicturesRule,
    "success": SuccessRule,
    "task": TaskRule,
}
_TABLES: Final = ("names", "leave_out", "gripper", "roles", "units")
_LISTS: Final = ("sources", "traps", "has", "lacks", "prefixes", "one_more", "joints", "instruction", "videos", "videos_beside")


def _is_list(name: str) -> bool:
    return name in _LISTS or name == "switches"


def _wrong(where: str, field: str, rule: str, value: object) -> str:
    return f"layout {where} · {field}: must be {rule}; got {value!r} → robozarr layouts NAME prints one as a start"


def _field(where: str, name: str, value: Any) -> Any:
    """A field's value, checked by its type."""
    if name in _TABLES:
        of = int if name == "gripper" else str
        if not isinstance(value, dict) or not all(type(item) is of for item in value.values()):
            raise PlanError(_wrong(where, name, f"a table of {'whole numbers' if of is int else 'texts'}", value))
        return tuple(value.items())
    if _is_list(name):
        of = int if name == "switches" else str
        if not isinstance(value, list) or not all(type(item) is of for item in value):
            raise PlanError(_wrong(where, name, f"a list of {'whole numbers' if of is int else 'texts'}", value))
        return tuple(value)
    if name == "control_freq":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise PlanError(_wrong(where, name, "steps per second", value))
        return float(value)
    if not isinstance(value, str):
        raise PlanError(_wrong(where, name, "a text", value))
    return value


def matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern: ``*`` stands for one name or a part of it, a final ``**`` for one or more names.

    >>> matches("obs/a/rgb", "obs/*/rgb"), matches("obs/a/rgb", "obs/*"), matches("obs/a/rgb", "obs/**")
    (True, False, True)
    """
    parts, wanted = path.split("/"), pattern.split("/")
    if wanted[-1] == "**":
        wanted = wanted[:-1]
        if len(parts) <= len(wanted):
            return False
        parts = parts[: len(wanted)]
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))

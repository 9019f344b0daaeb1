"""The ``robozarr`` attributes of a store and the list of its arrays, as FORMAT.md defines them.

Imports neither zarr nor h5py; reading and writing these facts is the business of ``loader`` and ``convert``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Final

from msgspec import UNSET, Struct

from robozarr.schemas.documents import RootDocument, as_model
from robozarr.schemas.entries import NotStored, SourceEntry
from robozarr.schemas.errors import FormatVersionError, IncompleteStoreError, StoreError
from robozarr.schemas.identity import identity_of, is_files_entry
from robozarr.schemas.index import FlagRules
from robozarr.schemas.key import Key
from robozarr.schemas.layout import FRAME_CODECS, PROFILES, ArrayLayout, Profile, layout_of_table, layout_of_values
from robozarr.schemas.source import JOINT_KEYS, is_array_name

__all__ = [
    "EPISODE_STATISTICS",
    "FORMAT_VERSION",
    "READABLE_VERSIONS",
    "STORE_STATISTICS",
    "Key",
    "NotStored",
    "SourceEntry",
    "StoreMetadata",
    "array_layouts",
    "fixed_layouts",
    "text_paths",
]

FORMAT_VERSION: Final = 2
"""Version that is written."""
READABLE_VERSIONS: Final = (1, 2)
ATTRIBUTE: Final = "robozarr"
"""Name of the root group's attribute that holds everything below."""

TEMPORARY: Final = ".robozarr-tmp"
"""Ending of temporary files and folders of a writer; no name in a finished store ends so."""
LEFT_OUT: Final = "left out: "
"""First words of the reason, in an entry of `not_stored`, for what ``--on-error skip`` left out: a demo, a file, a split,
a key."""
NOT_WANTED: Final = "not wanted (--without)"
"""Reason for data that the user left out by name."""

GROUPS: Final = ("steps", "ragged", "index", "episodes", "tasks", "sources", "stats", "histograms", "checksums", "fingerprints")
"""Every group below the root."""
EPISODE_STATISTICS: Final = ("mean", "std", "rms", "min", "max")
STORE_STATISTICS: Final = ("n", "mean", "std", "min", "max", "q01", "q99")
EPISODE_TEXTS: Final = ("demo", "model_file", "attributes")
"""Text columns of episodes in both versions; version 2 has ``instruction`` too."""
TASK_TEXTS: Final = ("name", "instruction", "instruction_from_name", "suite", "env_name", "bddl")
ROLES_1: Final = ("image", "depth", "action", "state", "outcome")
"""Roles of format 1."""
OF_FORMAT_2: Final = ("axes", "decoded")
"""Fields of a key that format 1 does not have; left out where they have their default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreMetadata:
    """The ``robozarr`` attributes of the root group."""

    format_version: int = FORMAT_VERSION
    software: str
    """Name and version of the writer."""
    profile: Profile
    complete: bool
    """Whether the conversion has finished; set last."""
    n_steps: int
    n_episodes: int
    n_tasks: int
    control_freq: float | None
    """Steps per second: what all sources state; 20 (LIBERO's) if none does; null if they differ."""
    keys: tuple[Key, ...]
    selected_keys: tuple[str, ...] | None
    """The keys that `--keys` asked for; null: every key that was found."""
    sources: tuple[SourceEntry, ...]
    splits: tuple[str, ...]
    """Names of the splits (robomimic's filter keys); `episodes/splits/<name>` holds the members."""
    flag_rules: FlagRules
    joint_key: str | None
    """Key used by the rule for still starts; null: the flag is never set."""
    not_stored: tuple[NotStored, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    """Path of each array → the checksums of its files (``schemas.identity``); empty in a store of version 1."""
    document_digest: str = field(default="", compare=False, repr=False)
    """The identity that follows from the document that was read; "" if none was read."""
    identity: str = ""
    """Digest that changes with every conversion, append and overwrite (FORMAT.md); "" in a store of version 1."""
    layouts: tuple[Mapping[str, Any], ...] = ()
    """The user's own layouts of source files, in TOML's terms, for comparing with the sources; format 2."""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise StoreError(f"attribute robozarr.profile must be one of {', '.join(PROFILES)}, got {self.profile!r}")

    @property
    def has_fingerprints(self) -> bool:
        """Whether a checksum of each frame's values is stored: needed where the one of its bytes depends on its keyframe."""
        return self.format_version > 1 and self.profile in FRAME_CODECS

    def key(self, name: str) -> Key:
        """The key called `name`.

        Raises
        ------
        StoreError
            If there is none; the text lists those there are.
        """
        for key in self.keys:
            if key.name == name:
                return key
        raise StoreError(f"no key {name!r} in this store; it has {', '.join(key.name for key in self.keys)}")

    def completed(self) -> StoreMetadata:
        """The same attributes for a finished conversion."""
        return replace(self, complete=True)

    def bound_to(self, files: Mapping[str, str]) -> StoreMetadata:
        """The same attributes with the checksums of all files, and the resulting identity."""
        bound = replace(self, files=dict(files))
        return replace(bound, identity=identity_of(bound.to_json()))

    def to_json(self) -> dict[str, Any]:
        """The value of the root group's ``robozarr`` attribute."""
        value = asdict(self)
        value["flags"] = {**self.flag_rules.to_json(), "joint_key": value.pop("joint_key")}
        del value["flag_rules"], value["document_digest"]
        if not value["layouts"]:
            del value["layouts"]
        for key in value["keys"]:
            for name in OF_FORMAT_2:
                if not key[name]:
                    del key[name]
        if self.format_version == 1:
            del value["identity"], value["files"]
            for source in value["sources"]:
                del source["digest"]
        return value

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], where: str, *, allow_incomplete: bool = False) -> StoreMetadata:
        """Read the attributes of a root group.

        Raises
        ------
        StoreError
            If the group is no robozarr store, or a field is missing, unknown or malformed.
        FormatVersionError
            If the format is of another version.
        IncompleteStoreError
            If its conversion has not ended, unless `allow_incomplete`.
        """
        value = attributes.get(ATTRIBUTE)
        if not isinstance(value, Mapping):
            raise StoreError(
                f"{where}: this Zarr group is not a robozarr store (it has no {ATTRIBUTE!r} attribute); "
                "make one with: robozarr convert SOURCE --store STORE"
            )
        version = value.get("format_version")
        if type(version) is not int or version not in READABLE_VERSIONS:
            raise FormatVersionError(
                f"{where}: format version {version!r}, but this robozarr reads versions "
                f"{' and '.join(map(str, READABLE_VERSIONS))}; "
                "convert the sources again, or install the robozarr that wrote it "
                f"({value.get('software', 'unknown')})"
            )
        if value.get("complete") is not True and not allow_incomplete:
            raise IncompleteStoreError(
                f"{where}: the conversion of this store has not finished; run the same `robozarr convert` again to continue it"
            )
        try:
            return replace(cls._parse(value), document_digest=identity_of(value))
        except (KeyError, TypeError, ValueError) as exc:
            raise StoreError(f"{where}: the attribute {ATTRIBUTE!r} does not follow FORMAT.md: {exc}") from exc

    @classmethod
    def _parse(cls, value: Mapping[str, Any]) -> StoreMetadata:
        root = as_model(value, RootDocument)
        _check_version(root)
        keys = tuple(Key(**_fields(key) | {"shape": tuple(key.shape)}) for key in root.keys)
        if bad := [name for name in root.splits if not is_array_name(name)]:
            raise ValueError(f"splits cannot be called {bad}")
        if len(set(root.splits)) != len(root.splits):
            raise ValueError(f"splits hold a name twice: {sorted(root.splits)}")
        if bad := [path for path, entry in (root.files or {}).items() if not is_files_entry(entry)]:
            raise ValueError(f"files must be hexadecimal checksums, those of {bad[0]} are not")
        rules = FlagRules.from_json(_fields(root.flags))
        left_out = root.selected_keys is not None or any(entry.reason == NOT_WANTED for entry in root.not_stored)
        _check_keys(keys, root.flags.joint_key, rules, may_be_left_out=left_out and root.format_version > 1)
        plain = {name: getattr(root, name) for name in _PLAIN}
        return cls(
            **plain,
            identity=root.identity or "",
            files=root.files or {},
            layouts=tuple(root.layouts or ()),
            keys=keys,
            sources=tuple(SourceEntry(**_fields(source)) for source in root.sources),
            not_stored=tuple(NotStored(**_fields(entry)) for entry in root.not_stored),
            splits=tuple(root.splits),
            selected_keys=None if root.selected_keys is None else tuple(root.selected_keys),
            flag_rules=rules,
            joint_key=root.flags.joint_key,
        )


_PLAIN: Final = (
    "format_version", "software", "profile", "complete", "n_steps", "n_episodes", "n_tasks", "control_freq",
)  # fmt: skip
"""Fields that are the same in the document and here."""


def _fields(document: Struct) -> dict[str, Any]:
    """The fields that a document states."""
    found = {name: getattr(document, name) for name in document.__struct_fields__}
    return {name: value for name, value in found.items() if value is not UNSET}


def _check_version(root: RootDocument) -> None:
    """Raise ValueError if a document of version 1 has fields of version 2, or one of version 2 lacks a required field."""
    must: dict[str, Any] = {"identity": root.identity, "files": root.files}
    must |= {f"digest of {source.name}": source.digest for source in root.sources}
    if root.format_version != 1:
        if missing := sorted(name for name, stated in must.items() if stated is UNSET):
            raise ValueError(f"missing fields {missing}")
        return
    if root.profile == "lean":
        raise ValueError("profile 'lean' is one of version 2")
    may = {"layouts": root.layouts, "gripper": root.flags.gripper}
    may |= {f"{name} of {key.name}": getattr(key, name) for key in root.keys for name in OF_FORMAT_2}
    if added := sorted(name for name, stated in (must | may).items() if stated is not UNSET):
        raise ValueError(f"unknown fields {added}")
    if roles := sorted({key.role for key in root.keys} - set(ROLES_1)):
        raise ValueError(f"roles must be among {', '.join(ROLES_1)}, got {roles}")


def _check_keys(keys: tuple[Key, ...], joint_key: object, rules: FlagRules, *, may_be_left_out: bool) -> None:
    by_name = {key.name: key for key in keys}
    if len(by_name) != len(keys):
        raise ValueError(f"keys hold a name twice: {sorted(key.name for key in keys)}")
    actions = by_name.get("actions")
    if actions is None or actions.ragged or len(actions.shape) != 1:
        raise ValueError(f"keys must hold a vector called actions, got {actions}")
    width = actions.shape[0]
    elements = [rules.gripper] if isinstance(rules.gripper, int) else []
    if bad := [element for element in (*elements, *rules.switches) if not -width <= element < width]:
        raise ValueError(f"flags.gripper must name elements of {width} actions, got {bad}")
    there = joint_key in by_name and not by_name[str(joint_key)].ragged
    if joint_key is None or there or joint_key in JOINT_KEYS:
        return
    if joint_key in by_name or not may_be_left_out or not is_array_name(str(joint_key)):
        raise ValueError(f"flags.joint_key must be a key or null, got {joint_key!r}")


def text_paths(metadata: StoreMetadata) -> dict[str, int]:
    """Every text column of a store with its number of texts: ``<path>/bytes`` and ``<path>/offsets``."""
    episode_texts = EPISODE_TEXTS if metadata.format_version == 1 else (*EPISODE_TEXTS, "instruction")
    return {
        **{f"episodes/{name}": metadata.n_episodes for name in episode_texts},
        **{f"tasks/{name}": metadata.n_tasks for name in TASK_TEXTS},
        "sources/attributes": len(metadata.sources),
    }


def fixed_layouts(metadata: StoreMetadata) -> list[ArrayLayout]:
    """Every array whose shape follows from the attributes alone: all but the values that offsets point into."""
    n_steps, n_episodes, n_tasks = metadata.n_steps, metadata.n_episodes, metadata.n_tasks
    layouts = [
        layout_of_table("index/episode", (n_steps,), "int32", ("step",)),
        layout_of_table("index/step", (n_steps,), "int32", ("step",)),
        layout_of_table("index/flags", (n_steps,), "uint8", ("step",)),
        layout_of_table("tasks/control_freq", (n_tasks,), "float64", ("task",)),
        layout_of_table("episodes/alignment_error", (n_episodes, 2), "float64", ("episode", "alignment")),
        layout_of_table("episodes/init_state/offsets", (n_episodes + 1,), "int64", ("episodes_edge",)),
    ]
    columns = {
        "start": "int64",
        "length": "int64",
        "task": "int32",
        "source": "int32",
        "success": "int8",
        "alignment": "int8",
        "image_convention": "int8",
        "image_evidence": "int8",
    }
    if metadata.format_version > 1:
        columns["instruction_source"] = "int8"
    layouts += [layout_of_table(f"episodes/{name}", (n_episodes,), dtype, ("episode",)) for name, dtype in columns.items()]
    layouts += [layout_of_table(f"episodes/splits/{name}", (n_episodes,), "bool", ("episode",)) for name in metadata.splits]
    for path, n in text_paths(metadata).items():
        layouts.append(layout_of_table(f"{path}/offsets", (n + 1,), "int64", (f"{path.split('/')[0]}_edge",)))
    for key in metadata.keys:
        layouts += _layouts_of_key(key, metadata)
    return layouts


def _layouts_of_key(key: Key, metadata: StoreMetadata) -> list[ArrayLayout]:
    n_steps, n_episodes, name = metadata.n_steps, metadata.n_episodes, key.name
    if key.ragged:
        return [layout_of_table(f"ragged/{name}/offsets", (n_steps + 1,), "int64", ("step_edge",))]
    layouts = [
        layout_of_values(
            f"steps/{name}",
            (n_steps, *key.shape),
            key.dtype,
            ("step", *key.step_dims),
            metadata.profile,
            step_a_chunk=key.frame,
            keyframes=metadata.format_version > 1,
        ),
        layout_of_table(
            f"episodes/stats/{name}",
            (n_episodes, len(EPISODE_STATISTICS), *key.channel_shape),
            "float64",
            ("episode", "episode_statistic", *key.channel_dims),
        ),
        layout_of_table(
            f"stats/{name}",
            (len(STORE_STATISTICS), *key.channel_shape),
            "float64",
            ("statistic", *key.channel_dims),
            whole=True,
        ),
    ]
    n_checksums, dim = (n_steps, "step") if key.frame else (n_episodes, "episode")
    layouts.append(layout_of_table(f"checksums/{name}", (n_checksums,), "uint32", (dim,)))
    if key.frame and metadata.has_fingerprints:
        layouts.append(layout_of_table(f"fingerprints/{name}", (n_steps,), "uint32", ("step",)))
    if key.frame:
        shape, dims = (*key.channel_shape, key.histogram_bins), (*key.channel_dims, f"{name}_bin")
        layouts.append(layout_of_table(f"histograms/{name}", shape, "int64", dims, whole=True))
    return layouts


def array_layouts(metadata: StoreMetadata, sizes: Mapping[str, int]) -> dict[str, ArrayLayout]:
    """Every array of a store, by path.

    Parameters
    ----------
    metadata : StoreMetadata
        The store's attributes.
    sizes : mapping
        Number of values behind each offsets array, by the path of the group that holds it, such as ``tasks/bddl``.

    Raises
    ------
    StoreError
        If a size is missing.
    """
    layouts, variable = fixed_layouts(metadata), variable_paths(metadata)
    if missing := [path for path in variable if path not in sizes]:
        raise StoreError(f"sizes of {', '.join(missing)} are not known")
    layouts += [variable[path](sizes[path]) for path in variable]
    return {layout.path: layout for layout in sorted(layouts, key=lambda layout: layout.path)}


def variable_paths(metadata: StoreMetadata) -> dict[str, Callable[[int], ArrayLayout]]:
    """Every path with ``offsets``, and a function from a number of values to their layout."""

    def values(path: str, n: int) -> ArrayLayout:
        key = metadata.key(path.removeprefix("ragged/"))
        dims = (f"{path.replace('/', '_')}_value",)
        return layout_of_values(f"{path}/values", (n,), key.dtype, dims, metadata.profile)

    def numbers(path: str, n: int) -> ArrayLayout:
        return layout_of_table(f"{path}/values", (n,), "float64", (f"{path.replace('/', '_')}_value",))

    def texts(path: str, n: int) -> ArrayLayout:
        return layout_of_table(f"{path}/bytes", (n,), "uint8", (f"{path.replace('/', '_')}_byte",))

    return {
        "episodes/init_state": partial(numbers, "episodes/init_state"),
        **{path: partial(texts, path) for path in text_paths(metadata)},
        **{path: partial(values, path) for path in (f"ragged/{key.name}" for key in metadata.keys if key.ragged)},
    }


def layout_of_variable(metadata: StoreMetadata, path: str, n: int) -> ArrayLayout | None:
    """The layout of an array of n values that offsets point into; None for any other array."""
    folder, _, last = path.rpartition("/")
    make = variable_paths(metadata).get(folder)
    return None if make is None or last == "offsets" else make(n)

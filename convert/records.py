"""Records that pass between the stages of a conversion; data only. Imports neither h5py nor Dask.

They cross processes, so they hold paths, numbers and short texts, never pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import Problem
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence
from robozarr.schemas.instructions import InstructionSource
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.metadata import Key

__all__ = [
    "Column",
    "ColumnKind",
    "DatasetInfo",
    "DemoScan",
    "Fault",
    "FileScan",
    "FinishedPartition",
    "Partition",
    "Segment",
    "Stored",
]

ColumnKind = Literal["rows", "flat", "text", "vector"]
"""Where a demo holds a column's values: rows of a dataset, a flattened dataset, a text attribute, a vector attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a file, or something in it, cannot be read as it was recorded."""

    rule: str
    """What is wrong."""
    value: str
    """What was found."""
    remedy: str
    """What the user can do."""
    of_machine: bool = False
    """Whether this machine lacks something: then the file is not at fault and is never left out."""
    of_shape: bool = False
    """Whether the shape is wrong too: a virtual dataset that grows with sources, some of which are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """One dataset of a demo."""

    path: str
    """Path inside the demo, such as ``obs/agentview_rgb``."""
    shape: tuple[int, ...]
    """Full shape; the first axis should be the demo's steps."""
    dtype: str | None
    """numpy name of a bool, integer or float type in native byte order; None for any other type."""
    stored_as: str
    """The file's own name of the type, for messages."""
    name: str = ""
    """Name of its key in the store, from the file's layout; "" means: as ``key_name`` says."""
    role: str = ""
    """Role of its key, from the layout; "" means: decide by the data."""
    unit: str = ""
    """Unit of its key, from the layout; "" means: decide by the data."""
    decoded: str = ""
    """Decoder of its frames, if they are encoded in the file; `shape` and `dtype` are those of the pixels."""
    fault: Fault | None = None
    """Why some of its values are missing, so that HDF5 would make them up or cannot read them; None if all are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoScan:
    """Content of one demo."""

    name: str
    length: int
    """Number of steps: rows of ``actions``."""
    datasets: tuple[DatasetInfo, ...]
    """Numeric datasets whose first axis is the demo's steps."""
    repeats: tuple[str, ...]
    """Paths below ``next_obs`` that equal ``obs`` one step later."""
    flags: NDArray[np.uint8]
    """Step flags [length]."""
    joint_key: str | None
    """Layout's name of the key from which the still flag was computed."""
    alignment: Alignment
    alignment_error: tuple[float, float]
    """rms distance between observed joints and the simulator's state of the same and of the next step, rad."""
    image_convention: ImageConvention
    image_evidence: ImageEvidence
    success: int
    """1, 0, or -1 for unknown."""
    model_file_bytes: int
    init_state_size: int
    attributes: str
    """All other attributes inside the demo, as JSON."""
    splits: tuple[str, ...]
    """Filter keys that name this demo."""
    group: str = ""
    """Path of its group in the file; "" if the file itself is the demo."""
    joint_path: str = ""
    """Path of the dataset behind `joint_key`; its key may have another name if that one is taken."""
    rules: FlagRules | None = None
    """Rules that `flags` were computed with: those asked for, with the gripper that the layout knows."""
    misfits: tuple[tuple[str, int], ...] = ()
    """Numeric datasets whose rows are not the demo's steps: path and number of rows."""
    instruction: str = ""
    """Its own instruction, or one given by hand; "" if only the file has one."""
    instruction_source: InstructionSource = InstructionSource.NONE
    """Where its own instruction comes from."""
    remarks: tuple[str, ...] = ()
    """Remarks on its instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScan:
    """Content of one file, or why it cannot be used."""

    path: str
    size: int
    """Bytes."""
    mtime_ns: int
    problems: tuple[Problem, ...]
    """Problems of a demo; of a split, where `key` is its path below ``mask``; else of the file."""
    blocking: tuple[Problem, ...] = ()
    """What this machine lacks to read it; nothing is left out because of that."""
    digest: str = ""
    """Sampled digest of its content (``schemas.digest``), with that of `linked`; "" if it cannot be read."""
    linked: tuple[str, ...] = ()
    """Other files that its values and texts come from: of external links, virtual datasets, raw values."""
    demos: tuple[DemoScan, ...] = ()
    not_stored: tuple[tuple[str, int, str], ...] = ()
    """Path, number of demos that hold it (0 means: it belongs to the file), reason."""
    splits: tuple[str, ...] = ()
    """Every filter key of the file, including empty ones."""
    attributes: str = "{}"
    """Attributes outside demos as JSON, without the BDDL text."""
    suite: str = ""
    task: str = ""
    instruction: str = ""
    """The file's instruction, such as LIBERO's ``problem_info``, for demos without their own; "" if there is none."""
    instruction_source: InstructionSource = InstructionSource.FILE_ATTRIBUTE
    """Where this instruction comes from."""
    instruction_from_name: str = ""
    """The instruction as the file name words it; "" if the name does not read as words."""
    remarks: tuple[str, ...] = ()
    """Remarks on the file's instruction."""
    env_name: str = ""
    bddl: str = ""
    control_freq: float | None = None
    usual_freq: float | None = 20.0
    """Steps per second according to the layout, for files that do not state it; None means unknown."""
    layout: str = ""
    """Name of the layout that the file follows."""
    called: tuple[tuple[str, str], ...] = ()
    """Path and layout's name of data in its demos that is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Values of a column that a store holds already, and that are written again in another layout."""

    layout: ArrayLayout
    """Of the array that holds them."""
    sums: tuple[int | None, ...]
    """The checksum that binds each shard that is read (M23); None in a store of version 1. For a column: of every shard."""
    frames: bool
    """Whether ``checksums/`` has one for each of its rows."""
    first_shard: int = 0
    """The first shard that is read."""

    def of_rows(self, start: int, stop: int) -> Stored:
        """The part that is read for rows [start, stop)."""
        first, last = start // self.layout.shard_rows, -(-stop // self.layout.shard_rows)
        return replace(self, sums=self.sums[first:last], first_shard=first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One array whose values come from the sources."""

    layout: ArrayLayout
    kind: ColumnKind
    source: str
    """Path of the dataset, or name of the attribute, inside a demo."""
    starts: NDArray[np.int64]
    """First row of each episode, and the number of rows [n_episodes + 1]."""
    key: Key | None
    """The key whose values it holds; None for columns of the episode table."""
    old_rows: int = 0
    """Rows that the store already has, for an append."""
    stored: Stored | None = None
    """The store that holds its values; None where they come from the sources."""

    @property
    def first_shard(self) -> int:
        """First shard to write: 0, or the one where an append continues."""
        return self.layout.n_shards if self.old_rows == self.layout.shape[0] else self.old_rows // self.layout.shard_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Rows of one demo that go into one partition."""

    path: str
    """The source file."""
    size: int
    """Size in bytes when it was scanned."""
    mtime_ns: int
    """Modification time when it was scanned."""
    demo: str
    group: str
    """Path of the demo's group in the file; "" if the file itself is the demo."""
    start: int
    """First row, counted from the start of the demo."""
    stop: int
    """Row after the last one."""
    at: int
    """Row of the partition where `start` goes."""
    episode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One shard to write: paths and ranges, never pixels."""

    layout: ArrayLayout
    shard: int
    kind: ColumnKind
    source: str
    segments: tuple[Segment, ...]
    key: Key | None
    old_rows: int = 0
    """Rows that the array already has: an append takes this shard's old rows from the store, not from a source."""
    begins: tuple[int, ...] = ()
    """Rows of the shard at which an episode begins, old rows included."""
    stored: Stored | None = None
    """The store that holds its values; None where they come from the segments."""

    @property
    def n_kept(self) -> int:
        """Rows of the shard that the store already has."""
        return max(0, self.old_rows - self.layout.rows_of_shard(self.shard)[0])

    @property
    def n_rows(self) -> int:
        """Rows of the array that the shard covers."""
        start, stop = self.layout.rows_of_shard(self.shard)
        return stop - start

    @property
    def n_bytes(self) -> int:
        """Decoded size of its values."""
        return self.n_rows * self.layout.row_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedPartition:
    """A finished partition, as the journal records it."""

    path: str
    """Path of the array."""
    shard: int
    size: int
    """Bytes of its file."""
    crc32c: int
    """Checksum that binds its file (FORMAT.md, M23): the crc32c of its chunks' checksums and its index."""
    digest: str
    """Digest of its plan."""

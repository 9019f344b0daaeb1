"""Owns the records that pass between the stages of a conversion; only data. Imports neither h5py nor Dask.

They cross processes, so they hold paths, numbers and short texts, never pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
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
]

ColumnKind = Literal["rows", "flat", "text", "vector"]
"""Where a column's values lie in a demo: rows of a dataset, a dataset flattened, a text attribute, a vector attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why something in a file, or the file itself, cannot be read as it was recorded."""

    rule: str
    """What is wrong."""
    value: str
    """What was found."""
    remedy: str
    """What the user can do."""
    of_machine: bool = False
    """Whether this machine lacks something, so that the file is not to blame and is never left out for it."""
    of_shape: bool = False
    """Whether the shape is made up too: of a virtual dataset that grows with sources that are not all there."""


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
    """Name of its key in the store, by the file's layout; "": as ``key_name`` says."""
    role: str = ""
    """Role of its key, by the layout; "": as the evidence says."""
    unit: str = ""
    """Unit of its key, by the layout; "": as the evidence says."""
    decoded: str = ""
    """What decodes its frames, which are encoded in the file; `shape` and `dtype` are those of the pixels."""
    fault: Fault | None = None
    """Why its values are not all there, where HDF5 would make some up or cannot read them; None for a good one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoScan:
    """What one demo holds."""

    name: str
    length: int
    """Steps: rows of ``actions``."""
    datasets: tuple[DatasetInfo, ...]
    """Those whose first axis is the demo's steps, of a numeric type."""
    repeats: tuple[str, ...]
    """Paths below ``next_obs`` that equal ``obs`` one step later."""
    flags: NDArray[np.uint8]
    """Step flags [length]."""
    joint_key: str | None
    """Name of the key that the still flag was taken from, as the layout calls it."""
    alignment: Alignment
    alignment_error: tuple[float, float]
    """rms of observed joints to the simulator's state of the same and the next step, rad."""
    image_convention: ImageConvention
    image_evidence: ImageEvidence
    success: int
    """1, 0, or -1 for unknown."""
    model_file_bytes: int
    init_state_size: int
    attributes: str
    """All other attributes inside the demo, as JSON."""
    splits: tuple[str, ...]
    """Filter keys that name it."""
    group: str = ""
    """Path of its group in the file; "" for the file itself."""
    joint_path: str = ""
    """Path of its dataset, whose key may be called otherwise where another has that name."""
    rules: FlagRules | None = None
    """By which `flags` were made: those asked for, with the gripper that the layout knows."""
    misfits: tuple[tuple[str, int], ...] = ()
    """Datasets of numbers that do not go along the steps: path, and rows."""
    instruction: str = ""
    """Its own words, or those given by hand; "" where only the file has some."""
    instruction_source: InstructionSource = InstructionSource.NONE
    """Where its own words come from."""
    remarks: tuple[str, ...] = ()
    """What a person should know about its words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScan:
    """What one file holds, or why it cannot be used."""

    path: str
    size: int
    """Bytes."""
    mtime_ns: int
    problems: tuple[Problem, ...]
    """What is wrong with a demo; with a split, where `key` is its path below ``mask``; else with the file."""
    blocking: tuple[Problem, ...] = ()
    """What this machine lacks to read it: nothing is left out for that."""
    digest: str = ""
    """Sampled digest of its content (``schemas.digest``); "" where it cannot be read."""
    demos: tuple[DemoScan, ...] = ()
    not_stored: tuple[tuple[str, int, str], ...] = ()
    """Path, number of demos that hold it (0: it belongs to the file), reason."""
    splits: tuple[str, ...] = ()
    """Every filter key of the file, empty ones too."""
    attributes: str = "{}"
    """Attributes outside demos, as JSON, without the BDDL text."""
    suite: str = ""
    task: str = ""
    instruction: str = ""
    """The words of the file, such as LIBERO's ``problem_info``, for demos without their own; "" without any."""
    instruction_source: InstructionSource = InstructionSource.FILE_ATTRIBUTE
    """Where these words come from."""
    instruction_from_name: str = ""
    """As the file's name words it; "" where it does not read as words."""
    remarks: tuple[str, ...] = ()
    """What a person should know about the file's words."""
    env_name: str = ""
    bddl: str = ""
    control_freq: float | None = None
    usual_freq: float | None = 20.0
    """Steps a second of the layout, for files that do not say; None: unknown."""
    layout: str = ""
    """Name of the layout that it follows."""
    called: tuple[tuple[str, str], ...] = ()
    """Path and name of what is not stored of its demos, as the layout calls it."""


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
    """The key it holds; None for what belongs to episodes."""
    old_rows: int = 0
    """Rows that the store has already, of an append."""

    @property
    def first_shard(self) -> int:
        """The first shard that is to be written: 0, or the one that an append goes on with."""
        return self.layout.n_shards if self.old_rows == self.layout.shape[0] else self.old_rows // self.layout.shard_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Rows of one demo that go into one partition."""

    path: str
    """The source file."""
    size: int
    """Its size when it was scanned, bytes."""
    mtime_ns: int
    """Its time of change when it was scanned."""
    demo: str
    group: str
    """Path of the demo's group in the file; "" for the file itself."""
    start: int
    """First row, counted in the demo."""
    stop: int
    """Row after the last."""
    at: int
    """Row of the partition that `start` becomes."""
    episode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One shard to be written: paths and ranges, never pixels."""

    layout: ArrayLayout
    shard: int
    kind: ColumnKind
    source: str
    segments: tuple[Segment, ...]
    key: Key | None
    old_rows: int = 0
    """Rows that the array has already: an append takes those of this shard from the store, not from a source."""
    begins: tuple[int, ...] = ()
    """Rows of the shard with which episodes begin, those that the array has already too."""

    @property
    def n_kept(self) -> int:
        """Rows of the shard that the store has already."""
        return max(0, self.old_rows - self.layout.rows_of_shard(self.shard)[0])

    @property
    def n_rows(self) -> int:
        """Rows of the array that the shard covers."""
        start, stop = self.layout.rows_of_shard(self.shard)
        return stop - start

    @property
    def n_bytes(self) -> int:
        """Size of its values, decoded."""
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
    """What binds its file (FORMAT.md, M23): the crc32c of its chunks' checksums and its index."""
    digest: str
    """What it was planned from."""

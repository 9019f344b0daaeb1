"""Summarise a store for ``robozarr info`` and other views. Reads tables and sizes, no pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from robozarr.schemas.index import Alignment, ImageConvention, StepFlag
from robozarr.schemas.instructions import InstructionSource
from robozarr.schemas.layout import FRAME_CODECS, PROFILES
from robozarr.schemas.metadata import StoreMetadata
from robozarr.store.embedding import instruction_of_task
from robozarr.store.opened import Store

__all__ = ["KeySummary", "StoreSummary", "TaskSummary", "summarise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySummary:
    """One key."""

    name: str
    role: str
    unit: str
    dtype: str
    shape: tuple[int, ...] | None
    """Shape of one step; None for a ragged key."""
    decoded_bytes: int
    stored_bytes: int
    decoded: str = ""
    """Decoder of its frames, if they were encoded in the sources."""

    @property
    def ratio(self) -> float:
        """Decoded size over stored size."""
        return self.decoded_bytes / max(1, self.stored_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """One task."""

    suite: str
    name: str
    """Name of its (first) file."""
    instruction: str
    """Its episodes' instruction; "" if no source states one."""
    n_episodes: int
    n_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSummary:
    """A store at a glance."""

    path: str
    identity: str
    """Digest of all that the store holds; pass it as ``open_store(…, expect=…)``."""
    format_version: int
    software: str
    profile: str
    codec: str
    n_tasks: int
    n_episodes: int
    n_steps: int
    control_freq: float | None
    decoded_bytes: int
    stored_bytes: int
    keys: tuple[KeySummary, ...]
    tasks: tuple[TaskSummary, ...]
    flags: dict[str, int]
    """Steps with each flag; flags that need an unknown gripper command are left out."""
    """Number of steps with each flag."""
    alignment: dict[str, int]
    """Number of episodes of each alignment."""
    image_convention: dict[str, int]
    """Number of episodes of each image convention."""
    splits: dict[str, int]
    """Number of episodes in each split."""
    instructions: dict[str, int]
    """Number of episodes by source of their instruction; ``none``: without one."""
    success: dict[str, int]
    """Number of episodes that succeeded, failed, or are unknown."""
    sources: tuple[dict[str, Any], ...]
    not_stored: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return {**asdict(self), "keys": [{**asdict(key), "ratio": round(key.ratio, 3)} for key in self.keys]}


def _codec_words(metadata: StoreMetadata) -> str:
    """The encoding of the data, in words."""
    codec, level = PROFILES[metadata.profile]
    words = codec if codec == "none" else f"{codec} level {level}"
    return f"robozarr.frames, others {words}" if metadata.profile in FRAME_CODECS and metadata.format_version > 1 else words


def summarise(store: Store) -> StoreSummary:
    """Summarise an open store."""
    metadata, episodes, tasks = store.metadata, store.episodes, store.tasks
    keys = []
    for key in metadata.keys:
        array = store.ragged(key.name).values if key.ragged else store.array(key.name)
        keys.append(
            KeySummary(
                name=key.name,
                role=key.role,
                unit=key.unit,
                dtype=key.dtype,
                shape=None if key.ragged else key.shape,
                decoded_bytes=int(array.nbytes),
                stored_bytes=int(array.nbytes_stored()),
                decoded=key.decoded,
            )
        )
    steps_of_task = np.bincount(episodes.task, weights=episodes.length, minlength=store.n_tasks).astype(int)
    episodes_of_task = np.bincount(episodes.task, minlength=store.n_tasks)
    instructions = instruction_of_task(store)
    return StoreSummary(
        path=store.path,
        identity=store.identity,
        format_version=metadata.format_version,
        software=metadata.software,
        profile=metadata.profile,
        codec=_codec_words(metadata),
        n_tasks=store.n_tasks,
        n_episodes=store.n_episodes,
        n_steps=store.n_steps,
        control_freq=metadata.control_freq,
        decoded_bytes=sum(key.decoded_bytes for key in keys),
        stored_bytes=sum(key.stored_bytes for key in keys),
        keys=tuple(keys),
        tasks=tuple(
            TaskSummary(
                suite=tasks.suite[task],
                name=tasks.name[task],
                instruction=instructions[task],
                n_episodes=int(episodes_of_task[task]),
                n_steps=int(steps_of_task[task]),
            )
            for task in range(store.n_tasks)
        ),
        flags={
            str(flag.name).lower(): int(((store.index.flags & int(flag)) != 0).sum())
            for flag in StepFlag
            if flag is StepFlag.STILL or metadata.flag_rules.gripper is not None
        },
        alignment={code.name.lower(): int((episodes.alignment == code).sum()) for code in Alignment},
        image_convention={code.name.lower(): int((episodes.image_convention == code).sum()) for code in ImageConvention},
        splits={name: int(members.sum()) for name, members in episodes.splits.items()},
        instructions={code.words: int((episodes.instruction_source == code).sum()) for code in InstructionSource},
        success={name: int((episodes.success == code).sum()) for name, code in (("yes", 1), ("no", 0), ("unknown", -1))},
        sources=tuple(asdict(source) for source in metadata.sources),
        not_stored=tuple(asdict(entry) for entry in metadata.not_stored),
    )

"""Descriptions of sources that are not HDF5 and have no TOML file, for ``robozarr layouts``. Opens nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from robozarr.convert.sources.lerobot.data_set import info_of, is_data_file, is_data_set
from robozarr.convert.sources.replay_buffer import is_replay_buffer, replay_buffer_in

__all__ = ["OTHERS", "Other", "other_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A kind of source."""

    name: str
    """As a store's sources call it."""
    title: str
    has: str
    """What it is recognised by."""
    needs: str
    kept: str
    not_kept: str

    def to_json(self) -> dict[str, str]:
        """As JSON values."""
        return asdict(self)

    def text(self) -> str:
        """For people."""
        return (
            f"{self.name}: {self.title}\nrecognised by {self.has}\nneeds {self.needs}\nkept: {self.kept}\n"
            f"not kept: {self.not_kept}\n"
        )


OTHERS: Final = (
    Other(
        name="lerobot",
        title="LeRobot data set, version 2.0, 2.1 or 3.0",
        has="a folder with meta/info.json, or a Parquet file below its data/",
        needs="pip install '.[convert,lerobot]' in a clone of robozarr (pyarrow; PyAV for videos, no torchcodec)",
        kept="numbers and pictures exact; videos as PyAV decodes them, the decoder named, not exact; each episode's task; "
        "fps; statistics are checked",
        not_kept="timestamp, frame_index, episode_index, index, task_index, which follow; text of single steps; depth as "
        "video; which way up, and whether obs came before the action, which no such data set says",
    ),
    Other(
        name="replay_buffer",
        title="diffusion policy's ReplayBuffer, Zarr v2",
        has="a file *.zip, or a folder with .zgroup and meta/episode_ends",
        needs="nothing more; a codec that numcodecs lacks (upstream's JPEG 2000) cannot be read",
        kept="arrays of numbers in data/ with one row per step, exact; action becomes actions; episodes by meta/episode_ends",
        not_kept="instructions, frequency, which way up, whether obs came before the action, which no ReplayBuffer says",
    ),
)


def other_of(path: Path) -> Other | None:
    """The kind of a source that is not HDF5; None of any other path."""
    lerobot, buffer = OTHERS
    if is_data_set(path) or (is_data_file(path) and info_of(path) is not None):
        return lerobot
    of_folder = path.is_dir() and replay_buffer_in(path) is not None
    return buffer if of_folder or (path.is_file() and is_replay_buffer(path)) else None

"""Find pictures that are videos: inside a file, or in files beside it, as its layout says. Reads no values.

A video is not converted. Its frames are what an encoder left of them, and how many there are, and which belongs to which step,
stands nowhere in it. A store without pictures is made of such a file only if somebody asks for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Final

from robozarr.convert.records import DatasetInfo, Fault
from robozarr.convert.sources.layouts.record import Layout, matches
from robozarr.schemas.axes import LEAST

__all__ = ["A_VIDEO", "is_video_file", "video_fault", "videos_of"]

A_VIDEO: Final = "a video: its frames are not exact, and no step is known of them"
"""Reason of a video that is left out."""
LISTED: Final = 3
FILES: Final = (".avi", ".mkv", ".mov", ".mp4", ".svo", ".svo2", ".webm")


def is_video_file(path: str) -> bool:
    """Whether a path names a file that is a video, beside an HDF5 file.

    >>> is_video_file("recordings/MP4/17225336.MP4"), is_video_file("observations/videos/17225336")
    (True, False)
    """
    return PurePath(path).suffix.lower() in FILES


def videos_of(path: str, layout: Layout, datasets: Iterable[DatasetInfo]) -> list[str]:
    """Paths of the videos of a file: of datasets inside an episode, and of files below the folder that the file lies in."""
    inside = [info.path for info in datasets if any(matches(info.path, pattern) for pattern in layout.videos)]
    folder = Path(path).absolute().parent
    beside = [file for pattern in layout.videos_beside for file in sorted(folder.glob(pattern)) if file.is_file()]
    return inside + [file.relative_to(folder).as_posix() for file in beside]


def video_fault(videos: list[str], stored: Iterable[DatasetInfo]) -> Fault | None:
    """What is wrong with an episode whose pictures are videos; None if there are none, or it has pictures as well."""
    if not videos or any(_is_picture(info) for info in stored):
        return None
    more = f" and {len(videos) - LISTED} more" if len(videos) > LISTED else ""
    group = videos[0].partition("/")[0] if videos[0].startswith("recordings/") else videos[0].rpartition("/")[0]
    return Fault(
        rule="pictures must be datasets, one frame per step",
        value=f"no picture, but videos: {', '.join(videos[:LISTED])}{more}",
        remedy="write the frames into a copy of the file, as a dataset [steps, y, x, 3] (robozarr layouts droid says what does "
        f"that for DROID), and convert the copy; or convert without pictures: --without {group}",
    )


def _is_picture(info: DatasetInfo) -> bool:
    return info.dtype is not None and len(info.shape) >= 4 and sorted(info.shape[1:])[-2] >= LEAST

"""Read one Parquet file of a LeRobot data set: rows of a feature, pictures, frames of videos.

Pictures and numbers are read by row groups, which LeRobot makes of an episode each, or of a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.sources.lerobot.data_set import DataSet, EpisodeEntry, data_set_of, pyarrow
from robozarr.convert.sources.lerobot.video import VideoError, VideoReader
from robozarr.convert.sources.not_hdf5 import AGAIN, EpisodesFile, demo_of
from robozarr.convert.sources.pictures import PictureError, decode
from robozarr.schemas.errors import SourceError
from robozarr.schemas.words import first_line

__all__ = ["DAMAGE", "LeRobotFile", "values_of"]

DAMAGE: Final = (OSError, ValueError, LookupError, TypeError, ArithmeticError, NotImplementedError)
"""Errors that pyarrow raises on damaged or unusual files."""


class LeRobotFile(EpisodesFile):
    """One data file, open for reading; a context manager."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.data: DataSet = data_set_of(path)
        parquet = pyarrow()
        try:
            self._file = parquet.ParquetFile(self.path)
            self.columns: list[str] = self._file.schema_arrow.names
            self._groups = np.cumsum(
                [0, *(self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups))]
            )
            self._kept: dict[str, tuple[int, Any]] = {}
            self.runs = self._runs()
        except SourceError:
            raise
        except DAMAGE as exc:
            raise self.error("the file must be Parquet, with the column episode_index", first_line(exc), AGAIN) from exc
        self._video: VideoReader | None = None

    def close(self) -> None:
        """Close the file, and the video that was read last."""
        self._file.close()
        if self._video is not None:
            self._video.close()

    def episode(self, demo: str) -> EpisodeEntry | None:
        """What the data set's table says of an episode; None if it has no such row."""
        return self.data.episodes.get(int(demo.rpartition("_")[2]))

    def column(self, demo: str, feature: str, start: int, stop: int) -> Any:
        """Rows [start, stop) of an episode's feature: a pyarrow.Array. A row group is read once for all its rows."""
        import pyarrow as pa

        first, _ = self.runs[demo]
        low, high = first + start, first + stop
        parts = []
        for group in range(
            int(np.searchsorted(self._groups, low, "right")) - 1, int(np.searchsorted(self._groups, high, "left"))
        ):
            kept, values = self._kept.get(feature, (-1, None))
            if kept != group:
                values = self._file.read_row_group(group, columns=[feature]).column(feature).combine_chunks()
                if isinstance(values, pa.ChunkedArray):
                    values = pa.concat_arrays(values.chunks)
                self._kept[feature] = group, values
            begin = int(self._groups[group])
            parts.append(values.slice(max(0, low - begin), min(high, int(self._groups[group + 1])) - max(low, begin)))
        return pa.concat_arrays(parts)

    def read_rows(self, demo: str, dataset: str, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows [start, stop) of a feature of numbers, into `out` [stop - start, …] if given."""
        try:
            values = values_of(self.column(demo, dataset, start, stop))
            if out is None:
                return values
            if values.dtype != out.dtype or values.size != out.size:
                raise ValueError(f"{values.dtype} {values.shape}, not {out.dtype} {out.shape}")
            out[...] = values.reshape(out.shape)
        except DAMAGE as exc:
            raise self.error(f"steps {start} to {stop} cannot be read", first_line(exc), AGAIN, demo, dataset) from exc
        return out

    def read_frames(self, demo: str, dataset: str, start: int, stop: int, out: NDArray[Any]) -> NDArray[Any]:
        """Pictures or frames of a video [start, stop) into `out` [stop - start, y, x, c]."""
        try:
            if self.data.features[dataset]["dtype"] == "video":
                video, first = self.video(demo, dataset)
                video.read(first + start, out)
            else:
                for number, data in enumerate(self.pictures(demo, dataset, start, stop)):
                    decode(data, out[number])
        except (*DAMAGE, PictureError, VideoError) as exc:
            rule = "every frame must decode to the size of the demo's first"
            raise self.error(rule, f"{first_line(exc)} in steps {start} to {stop}", AGAIN, demo, dataset) from exc
        return out

    def pictures(self, demo: str, feature: str, start: int, stop: int) -> list[bytes]:
        """Encoded pictures; PictureError where one is not inside the file."""
        found: list[bytes] = self.column(demo, feature, start, stop).field("bytes").to_pylist()
        if None in found:
            raise PictureError("a picture that is not inside the Parquet file")
        return found

    def video(self, demo: str, feature: str) -> tuple[VideoReader, int]:
        """The video that holds an episode's frames, and the number of its first one."""
        episode = self.episode(demo)
        if episode is None or feature not in episode.videos:
            raise VideoError(f"the table of episodes names no video of {demo}")
        name, first_s = episode.videos[feature]
        path = self.data.root / name
        if self._video is None or self._video.path != path:
            if self._video is not None:
                self._video.close()
            self._video = VideoReader(path, self.data.fps)
        return self._video, self._video.first_frame(first_s, episode.length)

    def width(self, demo: str, dataset: str) -> int:
        """Number of values in one step of a feature [n]."""
        return int(self.read_rows(demo, dataset, 0, 1).reshape(1, -1).shape[1])

    def _runs(self) -> dict[str, tuple[int, int]]:
        """Rows [first, stop) of each episode in the file."""
        episode = values_of(self._file.read(columns=["episode_index"]).column("episode_index"))
        if episode.dtype.kind not in "iu" or (episode < 0).any():
            raise ValueError(f"episode_index of {episode.dtype}, such as {episode[episode < 0][:1]}")
        edges = np.flatnonzero(np.diff(episode.astype(np.int64), prepend=-1, append=-1))
        found: dict[str, tuple[int, int]] = {}
        for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            demo = demo_of(int(episode[start]))
            if demo in found:
                raise self.error("the rows of an episode must lie together", f"{demo} begins again in row {start}", AGAIN, demo)
            found[demo] = start, stop
        return found


def values_of(column: Any) -> NDArray[Any]:
    """A column of numbers, or of lists of one length, as numpy, [n, …].

    Raises
    ------
    ValueError
        If a value is missing, lists differ in length, or it holds no numbers.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column.type, pa.ExtensionType):  # of the package datasets, where it is imported
        column = column.storage
    shape = [len(column)]
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        if column.null_count:
            raise ValueError(f"{column.null_count} values are missing")
        flat = column.flatten()
        n = len(column)
        width = len(flat) // n if n else 0
        lengths = np.unique(pc.list_value_length(column).to_numpy(zero_copy_only=False)) if n else np.array([0])
        if len(lengths) != 1 or lengths[0] != width:
            raise ValueError(f"lists of {lengths.min()} to {lengths.max()} values")
        shape.append(width)
        column = flat
    if column.null_count:
        raise ValueError(f"{column.null_count} values are missing")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise ValueError(f"values of type {column.type}")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.reshape(shape)

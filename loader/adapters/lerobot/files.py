"""Write the files of a LeRobot data set, version 3.0: Parquet and JSON. Knows no store. Imports pyarrow, not torch.

huggingface/lerobot 0.4.4, lerobot/datasets/utils.py: names of files and folders, create_empty_dataset_info,
get_hf_features_from_features; lerobot_dataset.py: one row group an episode, a new file after 100 MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

__all__ = [
    "CHUNK_FILES",
    "DATA",
    "DATA_MB",
    "VIDEO",
    "VIDEO_MB",
    "DataFiles",
    "FileNumber",
    "write_episodes",
    "write_json",
    "write_tasks",
]

CHUNK_FILES: Final = 1000
"""Files in a folder (utils.py: DEFAULT_CHUNK_SIZE)."""
DATA_MB: Final = 100
"""Size after which another file of data begins (DEFAULT_DATA_FILE_SIZE_IN_MB)."""
DATA: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
VIDEO_MB: Final = 200
"""Size after which another video begins (DEFAULT_VIDEO_FILE_SIZE_IN_MB)."""
EPISODES: Final = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
PICTURE: Final = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A picture as the package ``datasets`` embeds it."""


class FileNumber:
    """The number of a file: that of its folder, and its own inside the folder."""

    def __init__(self) -> None:
        self.chunk, self.file = 0, 0

    def next(self) -> None:
        """Continue with the next file."""
        self.file += 1
        if self.file == CHUNK_FILES:
            self.chunk, self.file = self.chunk + 1, 0

    def path(self, root: Path, pattern: str, **names: str) -> Path:
        """The file's path; its folder is made."""
        path = root / pattern.format(chunk_index=self.chunk, file_index=self.file, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class DataFiles:
    """The files ``data/…``, with one row group per episode. A context manager.

    Parameters
    ----------
    root : path
    features : as in ``info.json``; videos are not among the columns
    """

    def __init__(self, root: Path, features: Mapping[str, Mapping[str, Any]]) -> None:
        self._root, self.number, self._bytes = root, FileNumber(), 0
        columns = {name: entry for name, entry in features.items() if entry["dtype"] != "video"}
        of_datasets = {"info": {"features": {name: _of_datasets(entry) for name, entry in columns.items()}}}
        fields = [pa.field(name, _arrow_type(entry)) for name, entry in columns.items()]
        self._schema = pa.schema(fields, metadata={"huggingface": json.dumps(of_datasets)})
        self._pictures = [name for name, entry in columns.items() if entry["dtype"] == "image"]
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, numbers: Mapping[str, NDArray[Any]], pictures: Mapping[str, Sequence[bytes]]) -> tuple[int, int]:
        """Write one episode; returns the number of its file's folder, and of the file in it.

        Parameters
        ----------
        numbers : feature → [n, dim]
        pictures : feature → n encoded pictures
        """
        if self._writer is not None and self._bytes >= DATA_MB * 2**20:
            self._writer.close()
            self._writer, self._bytes = None, 0
            self.number.next()
        if self._writer is None:
            path = self.number.path(self._root, DATA)
            plain = [name for name in self._schema.names if name not in self._pictures]
            self._writer = pq.ParquetWriter(path, self._schema, compression="snappy", use_dictionary=plain)
        columns = [_column(self._schema.field(name).type, numbers.get(name), pictures.get(name)) for name in self._schema.names]
        table = pa.table(columns, schema=self._schema)
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._bytes += table.nbytes
        return self.number.chunk, self.number.file


def write_episodes(root: Path, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Write ``meta/episodes/…``: one row per episode, with its statistics as ``stats/<feature>/<statistic>``."""
    columns = {name: [row[name] for row in episodes] for name in episodes[0]}
    columns |= {"meta/episodes/chunk_index": [0] * len(episodes), "meta/episodes/file_index": [0] * len(episodes)}
    pq.write_table(pa.table(columns), FileNumber().path(root, EPISODES), compression="snappy")


def write_tasks(root: Path, tasks: Any) -> None:
    """Write ``meta/tasks.parquet``: a pandas.DataFrame with the instructions as its index."""
    (root / "meta").mkdir(parents=True, exist_ok=True)
    tasks.to_parquet(root / "meta" / "tasks.parquet")


def write_json(root: Path, name: str, value: Any) -> None:
    """Write ``meta/<name>``."""
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / name).write_text(json.dumps(value, indent=4, ensure_ascii=False, default=_as_json), encoding="utf-8")


def _as_json(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else list(value)


def _arrow_type(entry: Mapping[str, Any]) -> pa.DataType:
    if entry["dtype"] == "image":
        return PICTURE
    kind = pa.from_numpy_dtype(np.dtype(entry["dtype"]))
    return kind if tuple(entry["shape"]) == (1,) else pa.list_(kind, entry["shape"][0])


def _of_datasets(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A feature as the package ``datasets`` writes it, so that ``load_dataset`` knows the pictures too."""
    if entry["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": entry["dtype"], "_type": "Value"}
    return value if tuple(entry["shape"]) == (1,) else {"feature": value, "length": entry["shape"][0], "_type": "Sequence"}


def _column(kind: pa.DataType, numbers: NDArray[Any] | None, pictures: Sequence[bytes] | None) -> pa.Array:
    if pictures is not None:
        return pa.array([{"bytes": data, "path": None} for data in pictures], kind)
    assert numbers is not None
    values = pa.array(np.ascontiguousarray(numbers).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, kind.list_size) if pa.types.is_fixed_size_list(kind) else values

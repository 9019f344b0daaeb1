"""What a LeRobot data set says of itself: features, tasks, and where each episode's rows and frames are.

huggingface/lerobot 0.4.4, lerobot/datasets/utils.py (version 3.0); v30/convert_dataset_v21_to_v30.py (version 2.1).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from robozarr.schemas.errors import PlanError, Problem, SourceError

__all__ = ["DataSet", "Episode", "beside", "data_files", "data_set_of", "info_of", "is_data_file", "pyarrow"]

INFO: Final = "meta/info.json"
VERSIONS: Final = ("v2.0", "v2.1", "v3.0")
TEMPLATE: Final = re.compile(r"([^{}]|\{(video_key|episode_chunk|episode_index|chunk_index|file_index)(:0\d{1,2}d)?\})*")
"""Names of files: a format could otherwise reach into objects, and ask for gigabytes of blanks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode, as the data set's own table has it."""

    length: int
    stats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Feature → statistic → values."""
    videos: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Feature → file, and the second at which the episode begins in it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What robozarr's export added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One data set."""

    root: Path
    fps: float
    features: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[int, str]
    episodes: Mapping[int, Episode]
    stats: Mapping[str, Mapping[str, Any]]
    """Of all episodes; empty in version 2.1 without them."""
    made: Mapping[str, Any]
    """What robozarr's export says of the store that it was made from; empty in all others."""


def pyarrow() -> Any:
    """The module ``pyarrow.parquet``; PlanError if it is not installed."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as exc:
        raise PlanError(
            "reading LeRobot's files needs pyarrow → pip install '.[convert,lerobot]' in a clone of robozarr"
        ) from exc
    return pyarrow.parquet


def is_data_file(path: str | Path) -> bool:
    """Whether a path is that of a Parquet file, which only LeRobot's data sets are read from."""
    return Path(path).suffix.lower() == ".parquet"


def data_files(folder: Path) -> list[Path] | None:
    """The files of data of a LeRobot data set; None if the folder is none."""
    return sorted(folder.glob("data/**/*.parquet")) if (folder / INFO).is_file() else None


def info_of(path: str | Path) -> Path | None:
    """The ``meta/info.json`` of the data set that a file of data belongs to; None if there is none above it."""
    for parent in Path(path).absolute().parents:
        if parent.name == "data" and (parent.parent / INFO).is_file():
            return parent.parent / INFO
    return None


def beside(path: str | Path) -> list[Path]:
    """The files that a file of data is read with: ``info.json``, the tasks, and the videos of its episodes; OSError if not."""
    info = info_of(path)
    if info is None:
        return []
    try:
        data = data_set_of(path)
        numbers = set(pyarrow().read_table(str(path), columns=["episode_index"]).column(0).to_pylist())
    except (SourceError, PlanError, ValueError, KeyError) as exc:
        raise OSError(str(exc)) from exc
    episodes = [data.episodes[number] for number in numbers if number in data.episodes]
    videos = {data.root / name for episode in episodes for name, _ in episode.videos.values()}
    tasks = [data.root / "meta" / name for name in ("tasks.parquet", "tasks.jsonl")]
    return [each for each in (info, *tasks, *sorted(videos)) if each.is_file()]


def data_set_of(path: str | Path) -> DataSet:
    """The data set that a file of data belongs to.

    Raises
    ------
    SourceError
        If it is of another version, or its files are not there or not what they should be.
    """
    info = info_of(path)
    if info is None:
        rule, remedy = "a Parquet file lies in the folder data/ of a LeRobot data set", f"give a folder that has {INFO}"
        raise _error(path, rule, "none", remedy)
    return _read(info, info.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, mtime_ns: int) -> DataSet:
    root = path.parent.parent
    try:
        info = json.loads(path.read_text("utf-8"))
        version, fps, features = str(info["codebase_version"]), float(info["fps"]), dict(info["features"])
        if version not in VERSIONS:
            rule = f"the data set must be of version {' or '.join(VERSIONS)}"
            raise _error(path, rule, version, "convert it with LeRobot's own scripts")
        known = {name: entry["dtype"] for name, entry in features.items()}
        videos = [name for name, kind in known.items() if kind == "video"]
        episodes = _episodes_3(root, info, videos) if version == "v3.0" else _episodes_2(root, info, videos)
        return DataSet(
            root=root,
            fps=fps,
            features=features,
            tasks=_tasks(root),
            episodes=episodes,
            stats=_json(root / "meta" / "stats.json"),
            made=info["robozarr"] if isinstance(info.get("robozarr"), dict) else {},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        rule = "meta/ must hold info.json, the tasks and the episodes of version 2.1 or 3.0"
        raise _error(path, rule, f"{type(exc).__name__}: {exc}".splitlines()[0], "copy or download meta/ again") from exc


def _error(path: str | Path, rule: str, value: str, remedy: str) -> SourceError:
    return SourceError("a source cannot be used:", [Problem(file=str(path), rule=rule, value=value, remedy=remedy)])


def _named(template: str, **values: Any) -> str:
    """A file's name by ``info.json``; ValueError if it would format anything else, or lie outside the data set."""
    if not TEMPLATE.fullmatch(template):
        raise ValueError(f"video_path {template!r} names files otherwise than LeRobot does")
    name = template.format(**values)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"video_path leads out of the data set, to {name!r}")
    return name


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text("utf-8"))
    return value if isinstance(value, dict) else {}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()] if path.is_file() else []


def _tasks(root: Path) -> dict[int, str]:
    table = root / "meta" / "tasks.parquet"
    if not table.is_file():
        return {int(row["task_index"]): str(row["task"]) for row in _lines(root / "meta" / "tasks.jsonl")}
    columns = pyarrow().read_table(table).to_pydict()
    texts = columns.pop("task", None) or next(values for name, values in columns.items() if name != "task_index")
    return dict(zip(map(int, columns["task_index"]), map(str, texts), strict=True))


def _episodes_3(root: Path, info: Mapping[str, Any], videos: list[str]) -> dict[int, Episode]:
    found: dict[int, Episode] = {}
    for path in sorted((root / "meta" / "episodes").glob("**/*.parquet")):
        for row in pyarrow().read_table(path).to_pylist():
            stats: dict[str, dict[str, Any]] = {}
            for name in (name for name in row if name.startswith("stats/")):
                feature, _, statistic = name.removeprefix("stats/").rpartition("/")
                stats.setdefault(feature, {})[statistic] = row[name]
            places = {
                name: (
                    _named(
                        info["video_path"],
                        video_key=name,
                        chunk_index=row[f"videos/{name}/chunk_index"],
                        file_index=row[f"videos/{name}/file_index"],
                    ),
                    float(row[f"videos/{name}/from_timestamp"]),
                )
                for name in videos
            }
            facts = {name.removeprefix("robozarr/"): value for name, value in row.items() if name.startswith("robozarr/")}
            found[int(row["episode_index"])] = Episode(length=int(row["length"]), stats=stats, videos=places, facts=facts)
    return found


def _episodes_2(root: Path, info: Mapping[str, Any], videos: list[str]) -> dict[int, Episode]:
    stats = {int(row["episode_index"]): row["stats"] for row in _lines(root / "meta" / "episodes_stats.jsonl")}
    found = {}
    for row in _lines(root / "meta" / "episodes.jsonl"):
        number = int(row["episode_index"])
        names = {"episode_chunk": number // int(info.get("chunks_size", 1000)), "episode_index": number}
        places = {name: (_named(info["video_path"], video_key=name, **names), 0.0) for name in videos}
        found[number] = Episode(length=int(row["length"]), stats=stats.get(number, {}), videos=places)
    return found

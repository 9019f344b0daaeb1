"""The metadata of a LeRobot data set: features, tasks, and where each episode's rows and frames are.

huggingface/lerobot 0.4.4, lerobot/datasets/utils.py (version 3.0); v30/convert_dataset_v21_to_v30.py (version 2.1).
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from robozarr.schemas.errors import PlanError, Problem, SourceError

__all__ = [
    "DataSet",
    "EpisodeEntry",
    "beside",
    "data_files",
    "data_set_of",
    "info_of",
    "is_data_file",
    "is_data_set",
    "pyarrow",
]

T = TypeVar("T")
INFO: Final = "meta/info.json"
VERSIONS: Final = ("v2.0", "v2.1", "v3.0")
TEMPLATE: Final = re.compile(r"([^{}]|\{(video_key|episode_chunk|episode_index|chunk_index|file_index)(:0\d{1,2}d)?\})*")
"""Names of files: a format could otherwise reach into objects, and ask for gigabytes of blanks."""
MOST_FPS: Final = 1e6
DAMAGE: Final = (
    OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError, RecursionError, StopIteration,
)  # fmt: skip
"""Errors that files raise which are not what they should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeEntry:
    """One episode's entry in the data set's own table."""

    length: int
    data: str = ""
    """File with its rows, relative to the data set; "" where ``info.json`` does not say."""
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
    episodes: Mapping[int, EpisodeEntry]
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
    """Whether a path names a Parquet file; only LeRobot data sets are read from such files."""
    return Path(path).suffix.lower() == ".parquet"


def is_data_set(folder: Path) -> bool:
    """Whether a folder is a LeRobot data set."""
    return (folder / INFO).is_file()


def data_files(folder: Path) -> list[Path]:
    """The data files of a LeRobot data set.

    Raises
    ------
    SourceError
        If one that its table of episodes names is not there.
    """
    found = sorted(folder.glob("data/**/*.parquet"))
    try:
        episodes = _read(folder.absolute() / INFO, _state_of(folder)).episodes
    except SourceError:  # said with each file
        return found
    there = {file.relative_to(folder).as_posix() for file in found}
    if missing := sorted({episode.data for episode in episodes.values()} - there - {""}):
        rule = "every file with rows of an episode must be there"
        remedy = f"copy or download it again, or name the files that are there: '{folder}/data/**/*.parquet'"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise _error(folder, rule, f"no {missing[0]}{more}", remedy)
    return found


def info_of(path: str | Path) -> Path | None:
    """The ``meta/info.json`` of the data set that a data file belongs to; None if no folder above it has one."""
    for parent in Path(path).absolute().parents:
        if parent.name == "data" and (parent.parent / INFO).is_file():
            return parent.parent / INFO
    return None


def beside(path: str | Path) -> tuple[list[Path], str]:
    """What else a data file depends on: its videos, and what ``meta/`` says of its rows, as text; OSError if unreadable.

    Not the files of ``meta/`` themselves, which change with every episode that is recorded.
    """
    if info_of(path) is None:
        return [], ""
    try:
        data, wanted = data_set_of(path), ["episode_index", "task_index"]
        table = pyarrow().read_table(str(path), columns=wanted)
        numbers, tasks = (sorted(set(table[name].to_pylist())) if name in table.column_names else [] for name in wanted)
    except (SourceError, PlanError, *DAMAGE) as exc:
        raise OSError(str(exc)) from exc
    episodes = {number: data.episodes[number] for number in numbers if number in data.episodes}
    videos = {data.root / name for episode in episodes.values() for name, _ in episode.videos.values()}
    said = {
        "fps": data.fps, "features": data.features, "made": data.made, "tasks": [data.tasks.get(task) for task in tasks],
        "episodes": [(number, each.length, each.videos, each.facts) for number, each in episodes.items()],
    }  # fmt: skip
    return [each for each in sorted(videos) if each.is_file()], json.dumps(said, sort_keys=True, default=str)


def data_set_of(path: str | Path) -> DataSet:
    """The data set that a data file belongs to.

    Raises
    ------
    SourceError
        If it is of another version, or its files are not there or not what they should be.
    """
    info = info_of(path)
    if info is None:
        rule, remedy = "a Parquet file must lie in the folder data/ of a LeRobot data set", f"give a folder that has {INFO}"
        raise _error(path, rule, "none", remedy)
    return _read(info, _state_of(info.parent.parent))


def _state_of(root: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Facts that change when a file of ``meta/`` changes."""
    found = []
    for path in sorted((root / "meta").rglob("*")):
        status = path.stat()
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


@functools.lru_cache(maxsize=4)
def _read(path: Path, state: tuple[tuple[str, int, int, int], ...]) -> DataSet:
    root = path.parent.parent
    try:
        info = json.loads(path.read_text("utf-8"))
        version, fps, features = str(info["codebase_version"]), float(info["fps"]), dict(info["features"])
        if version not in VERSIONS:
            rule = f"the data set must be of version {' or '.join(VERSIONS)}"
            raise _error(path, rule, version, "convert it with LeRobot's own scripts")
        if not 0 < fps <= MOST_FPS:
            raise ValueError(f"fps is {fps:g}")
        known = {name: entry["dtype"] for name, entry in features.items()}
        videos = [name for name, kind in known.items() if kind == "video"]
        episodes = _once("episode_index", (_episodes_3 if version == "v3.0" else _episodes_2)(root, info, videos))
        if len(episodes) < (total := int(info.get("total_episodes", 0))):
            raise ValueError(f"total_episodes is {total}, and the table of episodes has {len(episodes)}")
        return DataSet(
            root=root,
            fps=fps,
            features=features,
            tasks=_tasks(root),
            episodes=episodes,
            stats=_stats(_json(root / "meta" / "stats.json")),
            made=info["robozarr"] if isinstance(info.get("robozarr"), dict) else {},
        )
    except DAMAGE as exc:
        rule = "meta/ must hold info.json, the tasks and the episodes of version 2.1 or 3.0"
        raise _error(path, rule, f"{type(exc).__name__}: {exc}".splitlines()[0], "copy or download meta/ again") from exc


def _error(path: str | Path, rule: str, value: str, remedy: str) -> SourceError:
    return SourceError("a source cannot be used:", [Problem(file=str(path), rule=rule, value=value, remedy=remedy)])


def _named(template: str, **values: Any) -> str:
    """A file's name by ``info.json``; ValueError if its pattern has other fields, or the name leads out of the data set."""
    if not TEMPLATE.fullmatch(template):
        raise ValueError(f"{template!r} names files otherwise than LeRobot does")
    name = template.format(**values)
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"a file's name leads out of the data set, to {name!r}")
    return name


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    value = json.loads(path.read_text("utf-8"))
    return value if isinstance(value, dict) else {}


def _stats(value: Any) -> dict[str, dict[str, Any]]:
    """Feature → statistic → values; TypeError if it is anything else."""
    if not isinstance(value, dict) or not all(isinstance(of_feature, dict) for of_feature in value.values()):
        raise TypeError("statistics are objects, by feature and name")
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()] if path.is_file() else []


def _once(what: str, rows: Iterable[tuple[int, T]]) -> dict[int, T]:
    """A table by its numbers; ValueError if a number occurs twice."""
    found: dict[int, T] = {}
    for number, row in rows:
        if number in found:
            raise ValueError(f"{what} {number} occurs twice")
        found[number] = row
    return found


def _tasks(root: Path) -> dict[int, str]:
    table = root / "meta" / "tasks.parquet"
    if table.is_file():
        columns = pyarrow().read_table(table).to_pydict()
        texts = columns.pop("task", None) or next(values for name, values in columns.items() if name != "task_index")
        rows = list(zip(columns["task_index"], texts, strict=True))
    else:
        rows = [(row["task_index"], row["task"]) for row in _lines(root / "meta" / "tasks.jsonl")]
    if bad := [text for _, text in rows if not isinstance(text, str | None)]:
        raise TypeError(f"a task must be text, not {bad[0]!r}")
    return _once("task_index", ((int(number), text or "") for number, text in rows))


def _episodes_3(root: Path, info: Mapping[str, Any], videos: list[str]) -> Iterable[tuple[int, EpisodeEntry]]:
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
                    _seconds(row[f"videos/{name}/from_timestamp"]),
                )
                for name in videos
            }
            facts = {name.removeprefix("robozarr/"): value for name, value in row.items() if name.startswith("robozarr/")}
            data = _named(
                info.get("data_path", ""), chunk_index=row.get("data/chunk_index"), file_index=row.get("data/file_index")
            )  # fmt: skip
            number, length = int(row["episode_index"]), int(row["length"])
            yield number, EpisodeEntry(length=length, data=data, stats=stats, videos=places, facts=facts)


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < math.inf:
        raise ValueError(f"a video is said to begin at {seconds:g} s")
    return seconds


def _episodes_2(root: Path, info: Mapping[str, Any], videos: list[str]) -> Iterable[tuple[int, EpisodeEntry]]:
    rows = _lines(root / "meta" / "episodes_stats.jsonl")
    stats = _once("episode_index", ((int(row["episode_index"]), _stats(row["stats"])) for row in rows))
    for row in _lines(root / "meta" / "episodes.jsonl"):
        number = int(row["episode_index"])
        names = {"episode_chunk": number // int(info.get("chunks_size", 1000)), "episode_index": number}
        places = {name: (_named(info["video_path"], video_key=name, **names), 0.0) for name in videos}
        data = _named(info.get("data_path", ""), **names)
        yield number, EpisodeEntry(length=int(row["length"]), data=data, stats=stats.get(number, {}), videos=places)

"""Scan a file of a LeRobot data set: its episodes, their features, and whether they can be converted. Decodes no videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.records import DatasetInfo, DemoScan, FileScan
from robozarr.convert.sources.detect import first_not_finite
from robozarr.convert.sources.lerobot.data_set import EpisodeEntry
from robozarr.convert.sources.lerobot.names import ACTION, COUNTERS, joined_of, key_of, role_of, shape_of, why_not
from robozarr.convert.sources.lerobot.reading import DAMAGE, LeRobotFile
from robozarr.convert.sources.lerobot.statistics import SQUARED_SMALL, differs, no_deviation, squares_overflow
from robozarr.convert.sources.lerobot.video import VideoError
from robozarr.convert.sources.not_hdf5 import AGAIN, LEAVE_OUT, demo_of, describe, rules_of
from robozarr.convert.sources.pictures import PictureError, decoder_of, picture_header
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.index import FlagRules
from robozarr.schemas.metadata import NOT_WANTED
from robozarr.schemas.source import is_called

__all__ = ["scan_data_file"]

ROWS: Final = "the table of episodes must state the rows of each"
TIMES_S: Final = 1e-4
"""How far a timestamp may be from its step (lerobot_dataset.py: tolerance_s)."""


def scan_data_file(
    path: str, rules: FlagRules, selected: tuple[str, ...] | None = None, without: tuple[str, ...] = ()
) -> FileScan:
    """Scan one file; problems of episodes are listed. `selected` and `without` as in ``scan_file``.

    Raises
    ------
    SourceError
        If the file or the data set cannot be read at all.
    """
    with LeRobotFile(path) as source:
        return _Scan(source, rules, selected, without).run()


class _Scan:
    """The scan of one open file."""

    def __init__(
        self, source: LeRobotFile, rules: FlagRules, selected: tuple[str, ...] | None, without: tuple[str, ...]
    ) -> None:
        self.source, self.data, self.selected, self.without = source, source.data, selected, without
        self.problems: list[Problem] = []
        self.not_stored: Counter[tuple[str, str]] = Counter()
        self.stated_wrong: set[str] = set()
        self.joined: dict[str, tuple[str, ...]] = {}
        self.rules = rules_of(rules, self.data.made)
        self.features = self._features()

    def run(self) -> FileScan:
        """The scan."""
        status, root = Path(self.source.path).stat(), self.data.root
        self.here = Path(self.source.path).absolute().relative_to(root).as_posix()
        demos = [demo for name, (start, stop) in self.source.runs.items() if (demo := self._demo(name, stop - start))]
        for number, episode in self.data.episodes.items():
            if episode.data == self.here and demo_of(number) not in self.source.runs:
                self._problem(demo_of(number), "", ROWS, f"{episode.length} steps, and no rows here")
        return FileScan(
            path=self.source.path,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            problems=tuple(self.problems),
            demos=tuple(demos),
            not_stored=(
                *((name, n, why) for (name, why), n in sorted(self.not_stored.items())),
                *((f"meta: stats of {name}", 0, SQUARED_SMALL) for name in sorted(self.stated_wrong)),
            ),
            suite=root.parent.name,
            task=root.name,
            control_freq=self.data.fps,
            usual_freq=None,
            layout="lerobot",
            called=tuple((name, key_of(name, self.data.made)) for name in sorted({name for name, _ in self.not_stored})),
        )

    def _features(self) -> list[str]:
        """The features that are wanted; what is left out is listed, once per episode."""
        made, n = self.data.made, len(self.source.runs)
        wanted = []
        for name, entry in self.data.features.items():
            key = key_of(name, made)
            if name != ACTION and is_called(name, self.without, key):
                self.not_stored[name, NOT_WANTED] += n
            elif why := why_not(name, entry):
                self.not_stored[name, why] += n
            elif joined := joined_of(name, self.data.features, made):
                self.joined[name] = joined
                self.not_stored[name, f"repeats {', '.join(key_of(each, made) for each in joined)}"] += n
            elif self.selected is not None and name != ACTION and not {name, key} & set(self.selected):
                self.not_stored[name, "not asked for (--keys)"] += n
            else:
                wanted.append(name)
        for name in set(self.source.columns) - set(self.data.features) - set(COUNTERS):
            self.not_stored[name, "a column that is no feature of info.json"] += n
        return wanted

    def _problem(self, demo: str, key: str, rule: str, value: str, remedy: str = LEAVE_OUT) -> None:
        self.problems.append(Problem(file=self.source.path, demo=demo, key=key, rule=rule, value=value, remedy=remedy))

    def _demo(self, demo: str, length: int) -> DemoScan | None:
        n_problems, episode = len(self.problems), self.source.episode(demo)
        if episode is None or episode.length != length:
            found = "none" if episode is None else f"{episode.length} steps"
            self._problem(demo, "", ROWS, f"{found}, and {length} rows here")
            return None
        if episode.data not in ("", self.here):
            self._problem(demo, "", ROWS, f"its rows in {episode.data}, and others here", "remove the file that is too many")
            return None
        words = self._words(demo, length)
        infos, values = [], {}
        for name in self.features:
            if name not in self.source.columns and self.data.features[name]["dtype"] != "video":
                other = f"leave the feature out with --without {key_of(name, self.data.made)}"
                self._problem(
                    demo, name, "a feature of info.json is a column of the file", "none", f"copy it again, or {other}"
                )
                continue
            try:
                info = self._info(demo, name, length)
                if self.data.features[name]["dtype"] not in ("image", "video"):
                    values[name] = self.source.read_rows(demo, name, 0, length)
                    self._check_statistics(demo, name, values[name], episode)
                elif no_deviation(episode.stats.get(name, {})):
                    self.stated_wrong.add(name)
            except SourceError as exc:
                other = f", or the feature with --without {key_of(name, self.data.made)}"
                self.problems += [replace(each, remedy=each.remedy + other * (name != ACTION)) for each in exc.problems]
            except (*DAMAGE, VideoError, PictureError) as exc:
                self._problem(demo, name, "the feature must be readable", str(exc) or type(exc).__name__, AGAIN)
            else:
                infos.append(info)
        self._check_joined(demo, values, length)
        actions = values.get(ACTION)
        if actions is not None and actions.ndim == 1:
            actions = actions[:, None]
        if actions is None or actions.ndim != 2:
            if len(self.problems) == n_problems:
                shape = "none" if actions is None else str(actions.shape)
                self._problem(demo, ACTION, "every episode must have action, numbers [steps, n]", shape)
            return None
        if value := first_not_finite(actions):
            self._problem(demo, ACTION, "actions must be finite", value)
        if len(self.problems) > n_problems:
            return None
        joint = self.data.made.get("joint_key")
        return describe(demo, actions, infos, joint, values.__getitem__, episode.facts, self.rules, words)

    def _check_joined(self, demo: str, values: Mapping[str, NDArray[Any]], length: int) -> None:
        """Compare each feature that an export joined from others with these others."""
        for name, parts in self.joined.items():
            if name in self.source.columns and all(part in values for part in parts):
                stated = self.source.read_rows(demo, name, 0, length).reshape(length, -1)
                found = np.concatenate([values[part].reshape(length, -1) for part in parts], axis=1)
                if not np.array_equal(stated, found, equal_nan=True):
                    repeated = ", ".join(parts)
                    self._problem(demo, name, f"it repeats {repeated}, as info.json says of this export", "other values")

    def _words(self, demo: str, length: int) -> str:
        """The episode's instruction, after checking LeRobot's own columns."""
        counters = {name: self.source.read_rows(demo, name, 0, length) for name in COUNTERS if name in self.source.columns}
        step = np.arange(length)
        if (frame := counters.get("frame_index")) is not None and (frame != step).any():
            self._problem(demo, "frame_index", "the rows of an episode must be its steps, in order", f"{frame[:5].tolist()} …")
        if (times := counters.get("timestamp")) is not None:
            late = np.abs(times.astype(np.float64) - step / self.data.fps)
            if (late > TIMES_S + 1e-6 * step).any():
                at = int(late.argmax())
                rule = f"steps must be 1/{self.data.fps:g} s apart, as fps says"
                self._problem(demo, "timestamp", rule, f"{times[at]:g} s at step {at}")
        tasks = np.unique(counters.get("task_index", np.zeros(0, np.int64)))
        if len(tasks) > 1:
            self._problem(demo, "task_index", "an episode must have one task", f"{len(tasks)}: {tasks[:5].tolist()}")
        if len(tasks) == 1 and int(tasks[0]) not in self.data.tasks:
            self._problem(demo, "task_index", "tasks must be in the table of tasks", str(int(tasks[0])))
        return self.data.tasks.get(int(tasks[0]), "") if len(tasks) else ""

    def _info(self, demo: str, name: str, length: int) -> DatasetInfo:
        """A feature of an episode; of its pictures, the first and the last are checked."""
        kind = self.data.features[name]["dtype"]
        decoded, shape = "", tuple[int, ...]()
        if kind == "video":
            video, _ = self.source.video(demo, name)
            dtype, shape, decoded = "uint8", video.shape, video.decoder
        elif kind == "image":
            headers = [picture_header(self.source.pictures(demo, name, at, at + 1)[0]) for at in (0, length - 1)]
            if headers[0][1:] != headers[1][1:]:
                raise PictureError(f"{headers[1][1:]} at the last step, {headers[0][1:]} at the first")
            codec, dtype, shape = headers[0]
            decoded = decoder_of(codec)
        else:
            first = self.source.read_rows(demo, name, 0, 1)
            dtype, shape = first.dtype.name, shape_of(name, first.shape[1:], self.data.made)
        key = key_of(name, self.data.made)
        return DatasetInfo(
            path=name, shape=(length, *shape), dtype=dtype, stored_as=kind, name=key, role=role_of(name) or "", decoded=decoded
        )  # fmt: skip

    def _check_statistics(self, demo: str, name: str, values: NDArray[Any], episode: EpisodeEntry) -> None:
        stated = episode.stats.get(name, {})
        if squares_overflow(values) and no_deviation(stated):
            self.stated_wrong.add(name)
        if wrong := differs(values, stated, self.data.stats.get(name, {})):
            rule = "the statistics that the data set states must be those of its data"
            self._problem(
                demo, name, rule, wrong, "compute them again with LeRobot, or leave the episode out with --on-error skip"
            )

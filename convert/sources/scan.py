"""Scan a source: what one file holds and whether it can be converted, before any picture is read. One task per file.

Reads HDF5 through ``convert.sources.hdf5`` only. Finds every problem of a file, not just the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.records import DatasetInfo, DemoScan, Fault, FileScan
from robozarr.convert.sources.content import digest_of_file, digest_or_nothing
from robozarr.convert.sources.detect import (
    control_frequency,
    detect_alignment,
    detect_flags,
    detect_image_convention,
    detect_success,
    first_not_finite,
    json_object,
    success_of,
)
from robozarr.convert.sources.encoded_frames import with_pixels
from robozarr.convert.sources.hdf5 import SourceFile
from robozarr.convert.sources.instructions import WORDS_OF_DATASET
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.sources.links import DEAD_LINK
from robozarr.convert.sources.misfits import Misfits
from robozarr.convert.sources.near import is_text, near_names
from robozarr.convert.sources.remedies import LEAVE_OUT
from robozarr.convert.sources.repeats import repeats_obs
from robozarr.convert.sources.videos import A_VIDEO, is_video_file, video_fault, videos_of
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence
from robozarr.schemas.instructions import words_from_name
from robozarr.schemas.metadata import NOT_WANTED
from robozarr.schemas.source import (
    INIT_STATE,
    MODEL_FILE,
    is_called,
    is_ragged,
    key_names,
    task_name,
)

__all__ = ["scan_file"]

MISFIT = "its first axis is not the demo's steps"


def scan_file(
    path: str,
    rules: FlagRules,
    selected: tuple[str, ...] | None = None,
    without: tuple[str, ...] = (),
    layouts: tuple[Layout, ...] = (),
) -> FileScan:
    """Scan one file; problems of the file are listed, never raised.

    `selected` names the keys (or paths of datasets) that are wanted; None: all that are found. `without` names those that are
    not, and nothing that is wrong with them is a problem. `layouts` are the user's own, tried before the built-in ones.
    """
    try:
        status = Path(path).stat()
    except OSError as exc:
        return FileScan(path=path, size=0, mtime_ns=0, problems=(_unreadable(path, exc),))
    facts: dict[str, Any] = {"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    try:
        with SourceFile(path) as source:
            source.recognise(layouts)
            digest = digest_of_file(path)
            scan = _Scan(source, rules, selected, without).run(status.st_size, status.st_mtime_ns)
            linked = source.linked
            return replace(scan, linked=linked, digest=digest_of_file(path, linked) if linked else digest)
    except SourceError as exc:  # what is wrong outside of demos is wrong with the file
        problems = tuple(replace(problem, demo="", key=problem.key or problem.demo) for problem in exc.problems)
        return FileScan(**facts, digest=digest_or_nothing(path), problems=problems)
    except OSError as exc:
        return FileScan(**facts, problems=(_unreadable(path, exc),))


def _unreadable(path: str, exc: OSError) -> Problem:
    value, remedy = exc.strerror or str(exc), "check path and rights"
    return Problem(file=path, rule="the file cannot be read", value=value, remedy=remedy)


class _Scan:
    """The scan of one open file; collects problems and what is not stored."""

    def __init__(
        self, source: SourceFile, rules: FlagRules, selected: tuple[str, ...] | None, without: tuple[str, ...]
    ) -> None:
        self.source, self.rules, self.selected, self.without, self.layout = source, rules, selected, without, source.layout
        self.problems: list[Problem] = []
        self.blocking: list[Problem] = []
        self.misfits = Misfits(source.path)
        self.not_stored: Counter[tuple[str, str]] = Counter()

    def run(self, size: int, mtime_ns: int) -> FileScan:
        source, path = self.source, Path(self.source.path)
        names = source.demo_names()
        splits, bddl = source.splits(), self._bddl()
        self.env_args = json_object(source.data_attribute("env_args"))
        demos = []
        for name in names:
            try:
                demo = self._demo(name, tuple(sorted(split for split, members in splits.items() if name in members)))
            except SourceError as exc:
                self.problems += exc.problems
                continue
            if demo is not None:
                demos.append(demo)
        demos = self._without_misfits(demos, names)
        for name, fault in source.dead_demos().items():
            self._fault(name, "", fault)
        not_stored = [(inner, n, reason) for (inner, reason), n in sorted(self.not_stored.items())]
        words = source.file_words()
        not_stored += [
            (stray, 0, WORDS_OF_DATASET if stray in words.datasets else "belongs to no demo") for stray in source.strays()
        ]
        for split, members in sorted(splits.items()):
            if unknown := sorted(set(members) - set(names)):
                not_stored.append((f"mask/{split}", 0, f"names demos that the file does not hold: {', '.join(unknown)}"))
        for split, fault in source.bad_splits().items():
            self._fault("", split, fault)
        of_task = path if self.layout.task == "file" else path.parent
        name_of_task = of_task.stem if self.layout.task == "file" else of_task.name
        attributes, lost = source.file_attributes(without=["bddl_file_content"] if bddl else [])
        not_stored += [(path, 0, "an attribute of a type that text cannot hold") for path in lost]
        return FileScan(
            path=source.path,
            size=size,
            mtime_ns=mtime_ns,
            problems=tuple(self.problems),
            blocking=tuple(self.blocking),
            demos=tuple(demos),
            not_stored=tuple(not_stored),
            splits=tuple(sorted(splits)),
            attributes=attributes,
            suite=of_task.parent.name,
            task=task_name(name_of_task),
            instruction=words.text,
            instruction_source=words.source,
            instruction_from_name=words_from_name(name_of_task),
            remarks=words.remarks,
            env_name=str(source.data_attribute("env_name") or self.env_args.get("env_name", "")),
            bddl=bddl,
            control_freq=control_frequency(self.env_args),
            usual_freq=self.source.stated_frequency() or self.layout.control_freq,
            layout=self.layout.name,
            called=tuple((path, self.layout.key_name(path)) for path in sorted({path for path, _ in self.not_stored})),
        )

    def _bddl(self) -> str:
        """The BDDL text, if a table of UTF-8 texts can hold it; otherwise it stays with the file's other attributes."""
        text = self.source.data_attribute("bddl_file_content") or ""
        return text if is_text(text) else ""

    def _problem(self, demo: str, key: str, rule: str, value: str, remedy: str) -> None:
        self.problems.append(Problem(file=self.source.path, demo=demo, key=key, rule=rule, value=value, remedy=remedy))

    def _fault(self, demo: str, key: str, fault: Fault) -> None:
        problem = Problem(file=self.source.path, demo=demo, key=key, rule=fault.rule, value=fault.value, remedy=fault.remedy)
        (self.blocking if fault.of_machine else self.problems).append(problem)

    def _without_misfits(self, demos: Sequence[DemoScan], names: Sequence[str]) -> list[DemoScan]:
        """Leave out demos with a dataset of a wrong length that most demos have right; each of these is a problem."""
        bad = self.misfits.problems()
        self.not_stored.update((path, MISFIT) for path in self.misfits.listed())
        order = {name: number for number, name in enumerate(names)}
        self.problems = sorted([*bad, *self.problems], key=lambda problem: order.get(problem.demo, -1))
        out = {problem.demo for problem in bad}
        return [demo for demo in demos if demo.name not in out]

    def _demo(self, name: str, splits: tuple[str, ...]) -> DemoScan | None:
        source, n_problems = self.source, len(self.problems) + len(self.blocking)
        infos, key = {info.path: with_pixels(source, name, info) for info in source.datasets(name)}, self.layout.actions
        if key not in infos:
            near = near_names(key, infos)
            value = f"nothing, but {', '.join(near)}" if near else "nothing"
            remedy = f"rename {near[0]} to {key}, or {LEAVE_OUT}" if near else LEAVE_OUT
            self._problem(name, key, "every demo must hold it", value, remedy)
            return None
        actions = infos[key]
        if len(actions.shape) != 2 or 0 in actions.shape or actions.dtype is None:
            rule, value = "actions must be numbers [steps, n], n ≥ 1, of 1 step or more", f"{actions.stored_as} {actions.shape}"
            fault = actions.fault or Fault(rule=rule, value=value, remedy=LEAVE_OUT)
            self._fault(name, key, fault)
            return None
        words = source.demo_words(name)
        for path in words.datasets & set(infos):
            del infos[path]
            self.not_stored[path, WORDS_OF_DATASET] += 1
        videos = self._without_videos(infos)
        datasets = self._step_datasets(name, infos, actions.shape[0])
        if self.selected is None and (of_pictures := video_fault(videos, datasets.values())):
            self._fault(name, "", of_pictures)
        if actions.fault is not None:
            return None
        values = source.read(name, key)
        if value := first_not_finite(values):
            self._problem(name, key, "actions must be finite", value, LEAVE_OUT)
        width = values.shape[1]
        if isinstance(self.rules.gripper, int) and not -width <= self.rules.gripper < width:
            remedy = "name an element that is there"
            self._problem(
                name, key, "--gripper must name an element of the actions", f"{self.rules.gripper} of {width}", remedy
            )
        if len(self.problems) + len(self.blocking) > n_problems:
            return None
        demo = self._describe(name, infos, datasets, values, splits)
        return replace(demo, instruction=words.text, instruction_source=words.source, remarks=words.remarks)

    def _without_videos(self, infos: dict[str, DatasetInfo]) -> list[str]:
        """Take the videos out of an episode's datasets; return those that nobody left out by name."""
        wanted, none = [], any(map(is_video_file, self.without))  # what a store's other episodes left out
        for path in videos_of(self.source.path, self.layout, infos.values()):
            infos.pop(path, None)
            unwanted = is_called(path, self.without, self.layout.key_name(path)) or (none and is_video_file(path))
            self.not_stored[path, NOT_WANTED if unwanted else A_VIDEO] += 1
            wanted += [] if unwanted else [path]
        return wanted

    def _describe(
        self,
        name: str,
        infos: dict[str, DatasetInfo],
        datasets: dict[str, DatasetInfo],
        actions: NDArray[np.float64],
        splits: tuple[str, ...],
    ) -> DemoScan:
        source, layout = self.source, self.layout
        # evidence is taken from what the file holds, whether or not --keys keeps it
        steps = {
            path: replace(info, shape=(len(actions), *info.shape[1:]))
            for path, info in infos.items()
            if info.dtype and info.shape and 0 not in info.shape and info.fault is None and self._fits(info, len(actions))
        }
        vectors = [path for path, info in steps.items() if len(info.shape) == 2]
        joint_path = next((path for path in layout.joints if path in vectors), None)
        joints = None if joint_path is None else source.read_rows(name, joint_path, 0, len(actions))
        states = source.read(name, layout.states) if layout.states in vectors else None
        alignment, error = detect_alignment(joints, states)
        if layout.alignment != "detect":
            alignment = Alignment[layout.alignment.upper()]
        image_convention, evidence = self._convention(infos)
        rules = self._rules(actions.shape[1])
        attributes, lost = source.demo_attributes(name)
        self.not_stored.update((path, "an attribute of a type that text cannot hold") for path in lost)
        model_file = source.text_attribute(name, MODEL_FILE) if source.is_bulk_attribute(name, MODEL_FILE) else b""
        init_state = source.float_attribute(name, INIT_STATE) if source.is_bulk_attribute(name, INIT_STATE) else np.empty(0)
        return DemoScan(
            name=name,
            length=len(actions),
            datasets=tuple(datasets.values()),
            repeats=tuple(path for path, info in datasets.items() if repeats_obs(source, name, info, datasets)),
            flags=detect_flags(actions, joints, rules),
            joint_key=None if joint_path is None else layout.key_name(joint_path),
            joint_path=joint_path or "",
            alignment=alignment,
            alignment_error=error,
            image_convention=image_convention,
            image_evidence=evidence,
            success=self._success(name, evidence, infos, steps),
            model_file_bytes=len(model_file),
            init_state_size=len(init_state),
            attributes=attributes,
            splits=splits,
            misfits=self.misfits.of_demo(name),
            group=source.group(name),
            rules=rules,
        )

    def _convention(self, infos: dict[str, DatasetInfo]) -> tuple[ImageConvention, ImageEvidence]:
        """Which way up the pictures are: as the file says, else as the layout's writer stores them."""
        found, evidence = detect_image_convention(self.source.data_attribute("macros_image_convention"), self.env_args, infos)
        if evidence is ImageEvidence.NONE and self.layout.pictures in ("top", "bottom"):
            found = ImageConvention.OPENCV if self.layout.pictures == "top" else ImageConvention.OPENGL
            evidence = ImageEvidence.LAYOUT
        return found, evidence

    def _rules(self, width: int) -> FlagRules:
        """The flag rules for actions of a width: the user's, or with the gripper that the layout knows."""
        if self.rules.gripper != "layout":
            return self.rules.of_width(width)
        return replace(self.rules, gripper=self.layout.gripper_of(width), switches=self.layout.switches).of_width(width)

    def _success(self, demo: str, evidence: ImageEvidence, infos: dict[str, DatasetInfo], steps: dict[str, DatasetInfo]) -> int:
        rule, at = self.layout.success, self.layout.success_at
        if rule == "rewards":
            path = self.layout.rewards
            rewards = self.source.read(demo, path) if path in steps else None
            return detect_success(evidence is ImageEvidence.ROBOMIMIC or "obs/robot0_eef_pos" in infos, rewards)
        if rule == "attribute":
            return success_of(self.source.demo_attribute(demo, *at.split("@", 1)), "last")
        if rule in ("any", "last") and at in steps and len(steps[at].shape) == 1:
            return success_of(self.source.read(demo, at), rule)
        return -1

    def _fits(self, info: DatasetInfo, length: int) -> bool:
        """Whether a dataset has as many rows as the actions, or one more where the layout allows it."""
        return info.shape[0] == length or (info.shape[0] == length + 1 and self.layout.may_have_one_more(info.path))

    def _step_datasets(self, demo: str, infos: dict[str, DatasetInfo], length: int) -> dict[str, DatasetInfo]:
        kept = {}
        fitting = [path for path, info in infos.items() if info.dtype and info.shape and self._fits(info, length)]
        names = key_names(fitting, {path: self.layout.key_name(path) for path in fitting})
        for path, info in infos.items():
            if path != self.layout.actions and is_called(path, self.without, self.layout.key_name(path)):
                self.not_stored[path, NOT_WANTED] += 1
            elif why := self.layout.why_left_out(path):
                self.not_stored[path, why] += 1
            elif not self._wanted(path, names.get(path)):
                self.not_stored[path, "not asked for (--keys)"] += 1
            elif info.fault is not None and info.stored_as == DEAD_LINK:
                self._fault(demo, path, info.fault)
            elif info.fault is not None and len(info.shape) == 1 and self._fits(info, length):  # numbers, or encoded frames
                self._fault(demo, path, info.fault)
            elif info.dtype is None or not info.shape or 0 in info.shape[1:]:
                self.not_stored[path, f"no numbers along the steps: {info.stored_as} {_per_step(info)}"] += 1
            elif info.fault is not None and (self._fits(info, length) or info.fault.of_shape):
                self._fault(demo, path, info.fault)
            elif not self._fits(info, length):
                self.misfits.add(demo, path, info.shape[0], length)
            elif is_ragged(self.layout.key_name(path)) and len(info.shape) != 2:
                self._problem(demo, path, "a step must be a vector", f"shape {info.shape}", "leave the key out with --keys")
            else:
                self.misfits.add(demo, path, length, length)
                kept[path] = self._named(info, length)
        return kept

    def _named(self, info: DatasetInfo, length: int) -> DatasetInfo:
        """A dataset with the layout's facts about its key, cut to the length of the actions."""
        if info.shape[0] == length + 1:
            self.not_stored[info.path, "its last row, which was seen after the last action; the others are stored"] += 1
        name = self.layout.key_name(info.path)
        role, unit = self.layout.role_of(name), self.layout.unit_of(name)
        return replace(info, shape=(length, *info.shape[1:]), name=name, role=role, unit=unit)

    def _wanted(self, path: str, name: str | None) -> bool:
        if self.selected is None or path == self.layout.actions:
            return True
        return path in self.selected or (name or self.layout.key_name(path)) in self.selected


def _per_step(info: DatasetInfo) -> str:
    return f"{info.shape[1:]} a step" if info.shape else "for the whole demo"

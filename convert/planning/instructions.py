"""Decide the instruction of each episode, and which episodes share a task. Pure; no I/O.

A task is the episodes that share an instruction, in one suite and one environment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import NamedTuple

from robozarr.convert.records import DemoScan, FileScan
from robozarr.schemas.instructions import InstructionSource, same_wording, shown, wording_of_name
from robozarr.schemas.source import source_names
from robozarr.schemas.words import counted

__all__ = ["EpisodeWords", "Task", "instruction_remarks", "task_of", "tasks_of", "words_of"]

N_NAMED = 3
"""Most demos that one remark names; further ones are only counted."""


class Task(NamedTuple):
    """A row of the task table; fields as in schemas.metadata.TASK_TEXTS. Two episodes share a task if their `key` agrees."""

    name: str
    instruction: str
    instruction_from_name: str
    suite: str
    env_name: str
    bddl: str

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies the task: all fields, except a file name that is not words where the source states an instruction.

        Many recorders write one episode a file, episode_0, episode_1, …: these share a task if they share an instruction.
        """
        return self._replace(name="") if self.instruction and not self.instruction_from_name else self


class EpisodeWords(NamedTuple):
    """The instruction of one episode and its source."""

    text: str
    source: InstructionSource


def words_of(file: FileScan, demo: DemoScan) -> EpisodeWords:
    """The instruction of an episode: given by hand, else the demo's own, else the file's, else the file name's, else none."""
    for text, source in (
        (demo.instruction, demo.instruction_source),
        (file.instruction, file.instruction_source),
        (file.instruction_from_name, InstructionSource.FILE_NAME),
    ):
        if text:
            return EpisodeWords(text, source)
    return EpisodeWords("", InstructionSource.NONE)


def task_of(file: FileScan, demo: DemoScan) -> Task:
    """The task of an episode. The file name's wording is kept beside the instruction and never replaces it."""
    stated = demo.instruction or file.instruction
    return Task(file.task, stated, file.instruction_from_name, file.suite, file.env_name, file.bddl)


def tasks_of(episodes: Iterable[tuple[FileScan, DemoScan]]) -> list[Task]:
    """The distinct tasks of episodes, each as its first episode has it, in order of appearance."""
    found: dict[tuple[str, ...], Task] = {}
    for file, demo in episodes:
        task = task_of(file, demo)
        found.setdefault(task.key, task)
    return list(found.values())


def instruction_remarks(files: Sequence[FileScan]) -> Iterator[str]:
    """Remarks on the instructions of a conversion: none at all, differing wordings, texts that could not be used."""
    names = source_names([PurePath(file.path) for file in files])
    for name, file in zip(names, files, strict=True):
        without = [demo.name for demo in file.demos if not words_of(file, demo).text]
        if without:
            which = "" if len(without) == len(file.demos) else f" ({_listed(without)})"
            yield (
                f"{name}: {len(without)} of {len(file.demos)} episodes have no instruction{which}, so it stays empty → give it "
                "with --instruction TEXT or --instructions FILE"
            )
        if by_name := sum(words_of(file, demo).source == InstructionSource.FILE_NAME for demo in file.demos):
            wording = shown(file.instruction_from_name)
            episodes = counted(by_name, "episode")
            yield f"{name}: no instruction is stated for {episodes}; the file name's wording, {wording}, is used"
        yield from (f"{name}: {remark}" for remark in file.remarks)
        own = sum(
            demo.instruction_source != InstructionSource.BY_HAND
            and demo.instruction != ""
            and file.instruction not in ("", demo.instruction)
            for demo in file.demos
        )
        if own:
            yield (
                f"{name}: the file's instruction is {shown(file.instruction)}; for {counted(own, 'demo')} another "
                "one is stated, and used"
            )
        counts = Counter(remark for demo in file.demos for remark in demo.remarks)
        for remark, n in counts.items():
            which = next(demo.name for demo in file.demos if remark in demo.remarks)
            yield f"{name} · {which}{f' and {n - 1} more' if n > 1 else ''}: {remark}"
    yield from _names_that_differ(names, files)


def _names_that_differ(names: Sequence[str], files: Sequence[FileScan]) -> Iterator[str]:
    """One remark on all files whose name words the instruction differently, such as LIBERO-Spatial's."""
    found = []
    for name, file in zip(names, files, strict=True):
        named = wording_of_name(file.task)
        stated = [text for demo in file.demos if (text := demo.instruction or file.instruction)]
        if named and stated and not any(same_wording(text, named) for text in stated):
            found.append(f"{name} states {shown(stated[0])}, its name says {shown(named)}")
    if found:
        n_more = len(found) - 1
        more = f"; and {n_more} more file{'s' * (n_more > 1)}" if n_more else ""
        yield f"the files' own words are used; their names say something else: {found[0]}{more}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_NAMED} more" if len(names) > N_NAMED else ""
    return ", ".join(names[:N_NAMED]) + more

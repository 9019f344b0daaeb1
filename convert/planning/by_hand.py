"""Assign the user's instructions to episodes: find the demos that each entry names. Pure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from robozarr.convert.planning.instructions import words_of
from robozarr.convert.records import DemoScan, FileScan
from robozarr.convert.sources.by_hand import Given
from robozarr.schemas.errors import PlanError
from robozarr.schemas.instructions import InstructionSource, shown

__all__ = ["give_by_hand", "given_before", "told"]

N_LISTED = 5


def give_by_hand(
    files: Sequence[FileScan], everywhere: str | None, given: Sequence[Given], before: Sequence[FileScan] = ()
) -> list[FileScan]:
    """Give files the user's instructions: from `given`, else `everywhere`, else the files' own.

    Parameters
    ----------
    files : sequence of FileScan
        What is converted now.
    everywhere : str, optional
        For every episode that `given` does not name.
    given : sequence of Given
    before : sequence of FileScan
        Of an append: what the store holds, whose words must be the same where `given` names them.

    Raises
    ------
    PlanError
        If an entry names no source, several, a demo that its source lacks, or disagrees with another one or with the store.
    """
    texts: dict[tuple[str, str], Given] = {}
    problems = []
    for one in given:
        matched = [file for file in (*before, *files) if _is_called(file.path, one.file)]
        if len(matched) != 1:
            several = f"{len(matched)} have this name: {', '.join(file.path for file in matched[:3])} → write more of the path"
            problems.append(f"{one.where}: {one.file!r} must name one source; {several if matched else 'none has this name'}")
            continue
        (file,) = matched
        there = {demo.name for demo in file.demos} | {problem.demo for problem in file.problems}
        if one.demo and one.demo not in there:
            problems.append(f"{one.where}: {file.path} holds {one.demo!r}; it holds {_listed(sorted(there - {''}))}")
        other = texts.setdefault((file.path, one.demo), one)
        if other.text != one.text:
            problems.append(f"{one.where}: only one instruction per episode; {other.where} gives another")
    for file in before:
        for demo in file.demos:
            wanted, has = _text_for(file, demo, texts, None), words_of(file, demo).text
            if wanted is not None and wanted != has:
                problems.append(
                    f"{file.path} · {demo.name} is in the store with {shown(has)}; now {shown(wanted)} is given → convert all "
                    "into a new store"
                )
    if problems:
        more = f"\n  … and {len(problems) - N_LISTED} more" if len(problems) > N_LISTED else ""
        raise PlanError(
            "instructions given by hand do not fit:" + "".join(f"\n  {text}" for text in problems[:N_LISTED]) + more
        )
    return [_with_texts(file, texts, everywhere) for file in files]


def _with_texts(file: FileScan, texts: Mapping[tuple[str, str], Given], everywhere: str | None) -> FileScan:
    demos = []
    for demo in file.demos:
        text, had = _text_for(file, demo, texts, everywhere), words_of(file, demo)
        if text is not None:
            remarks = demo.remarks
            if had.source not in (InstructionSource.NONE, InstructionSource.FILE_NAME) and had.text != text:
                remarks = (*remarks, f"{shown(text)} was given by hand, in place of {shown(had.text)} ({had.source.words})")
            demo = replace(demo, instruction=text, instruction_source=InstructionSource.BY_HAND, remarks=remarks)
        demos.append(demo)
    return replace(file, demos=tuple(demos))


def _text_for(file: FileScan, demo: DemoScan, texts: Mapping[tuple[str, str], Given], everywhere: str | None) -> str | None:
    found = texts.get((file.path, demo.name)) or texts.get((file.path, ""))
    return everywhere if found is None else found.text


def given_before(files: Sequence[FileScan], texts: Mapping[tuple[int, str], str]) -> list[FileScan]:
    """Give files the instructions that the store recorded as given by hand, by source number and demo name."""
    by_hand = InstructionSource.BY_HAND
    return [
        replace(
            file,
            demos=tuple(
                replace(demo, instruction=texts[number, demo.name], instruction_source=by_hand)
                if (number, demo.name) in texts
                else demo
                for demo in file.demos
            ),
        )
        for number, file in enumerate(files)
    ]


def told(everywhere: str | None, given: Sequence[Given]) -> dict[str, str | None]:
    """The user's input as the journal records it: equal values mean the same conversion."""
    entries = sorted({one[:3] for one in given})
    code = hashlib.blake2b(repr(entries).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return {"instruction": everywhere, "instructions": f"{len(entries)} entries ({code})" if entries else None}


def _is_called(path: str, name: str) -> bool:
    """Whether a name refers to a source: it is the end of its path, with or without the file extension."""
    if not name:
        return False
    wanted = PurePath(os.path.abspath(name) if ".." in PurePath(name).parts else name)  # noqa: PTH100 - resolve() follows links
    parts = PurePath(path).parts
    if len(wanted.parts) > len(parts):
        return False
    return wanted.parts in (parts[-len(wanted.parts) :], (*parts[-len(wanted.parts) : -1], PurePath(path).stem))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - N_LISTED} more" if len(names) > N_LISTED else ""
    return (", ".join(names[:N_LISTED]) or "none") + more

"""What an enumeration of windows refuses, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from table_cases import make

from robozarr.loader.windows.selection import NO_FLAGS, Selection
from robozarr.loader.windows.table import WindowTable
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.schemas.index import StepFlag
from robozarr.schemas.window import WindowSpec

CASE = make([3, 2], task=[0, 1], splits={"train": [True, False]})
SPEC = WindowSpec({"actions": [0]})
REFUSED: list[tuple[Callable[[], object], str]] = [
    (
        lambda: CASE.table(WindowSpec({"action": [0]})),
        r"window · action: .* which has pictures, joints, actions, rewards → did you mean 'actions'",
    ),
    (
        lambda: CASE.table(SPEC, Selection(tasks=[0, 7])),
        r"filter · tasks: in \[0, 2\), rows of the store's task table; got \[7\]",
    ),
    (lambda: CASE.table(SPEC, Selection(episodes=[-1])), r"filter · episodes: in \[0, 2\), .* got \[-1\]"),
    (lambda: CASE.table(SPEC, Selection(split="valid")), r"filter · split: a split of the store; it has train; got 'valid'"),
    (lambda: make([3]).table(SPEC, Selection(split="valid")), r"this store has no splits, as LIBERO's files have none"),
    (lambda: Selection(tasks=3), r"filter · tasks: a list of rows of the task table; got 3"),  # type: ignore[arg-type]
    (lambda: Selection(tasks=["pick"]), r"filter · tasks: a list of rows of the task table; got \['pick'\]"),  # type: ignore[list-item]
    (lambda: Selection(episodes=[True]), r"filter · episodes: a list of rows of the episode table; got \[True\]"),
    (lambda: Selection(exclude_flags=8), r"filter · exclude_flags: flags of StepFlag; got 8 →"),  # type: ignore[arg-type]
    (lambda: Selection(only_flags=True), r"filter · only_flags: flags of StepFlag; got True"),  # type: ignore[arg-type]
    (
        lambda: WindowTable.build(CASE.metadata, CASE.episodes, SPEC, selection=Selection(only_flags=StepFlag.NOOP)),
        r"filter · flags: uint8 \[5\], one per step; got nothing → pass flags=store.index.flags",
    ),
    (lambda: CASE.table(SPEC).weights(CASE.flags[:4], {StepFlag.NOOP: 2}), r"filter · flags: uint8 \[5\], .* got uint8 \[4\]"),
    (
        lambda: CASE.table(SPEC).weights(CASE.flags, {StepFlag.NOOP: 0}),
        r"weights: .* at least 1 for each; got 0 for <StepFlag.NOOP",
    ),
    (lambda: CASE.table(SPEC).weights(CASE.flags, {NO_FLAGS: 2}), r"weights: flags of StepFlag, .* got 2 for <StepFlag: 0>"),
    (lambda: CASE.table(SPEC).anchors([5]), r"windows: integers in \[0, 5\), one axis; got int64 \[1\] from 5 to 5 →"),
    (lambda: CASE.table(SPEC).anchors([-1]), r"windows: integers in \[0, 5\)"),
    (lambda: CASE.table(SPEC).anchors([0.5]), r"windows: integers in \[0, 5\), one axis; got float64 \[1\]"),
    (lambda: CASE.table(SPEC).anchors([[0]]), r"windows: integers in \[0, 5\), one axis; got int64 \[1, 1\]"),
    (lambda: CASE.table(SPEC).anchors([True]), r"windows: integers in \[0, 5\), one axis; got bool"),
]


@pytest.mark.parametrize(("make_it", "message"), REFUSED)
def test_what_is_refused_and_why(make_it: Callable[[], object], message: str) -> None:
    with pytest.raises(WindowError, match=message):
        make_it()


@pytest.mark.parametrize("change", [{"start": np.array([0, 4])}, {"length": np.array([3, 3])}, {"length": np.array([5, 0])}])
def test_episodes_that_do_not_stand_end_to_end_are_refused(change: dict[str, NDArray[np.int64]]) -> None:
    with pytest.raises(StoreError, match=r"episodes/start, episodes/length: .*M11.* → run: robozarr verify STORE"):
        replace(CASE, episodes=replace(CASE.episodes, **change)).table(SPEC)  # type: ignore[arg-type]

"""The states of a place, as a table: what each command may do, and that no way back skips what a fresh start is asked."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from robozarr.convert.resuming.states import RECOVERIES, Command, NextStep, PlaceFacts, State, next_step, refusal, state_of

ROOTS = ("none", "foreign", "incomplete", "complete")
EVERYTHING = [
    PlaceFacts(root=root, others=others, record=record, committing=committing, staged=staged)  # type: ignore[arg-type]
    for root, others, record, committing, staged in itertools.product(
        ROOTS, (False, True), ("none", "convert", "append"), (False, True), (False, True)
    )
]
COMMANDS: tuple[Command, ...] = get_args(Command)


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (("none", False, "none", False, False), State.EMPTY),
        (("none", True, "none", False, False), State.FOREIGN),
        (("none", True, "convert", False, False), State.FOREIGN),  # a root document that somebody took away
        (("foreign", True, "none", False, False), State.FOREIGN),
        (("none", False, "convert", False, False), State.BEGUN),  # killed before the first document
        (("incomplete", True, "convert", False, False), State.BEGUN),
        (("incomplete", True, "none", False, False), State.LOST),  # killed while a store was replaced
        (("incomplete", True, "append", False, False), State.LOST),
        (("incomplete", True, "append", True, False), State.LOST),  # the stage was taken away in the middle of a commit
        (("complete", True, "none", False, False), State.COMPLETE),
        (("complete", True, "convert", False, False), State.ENDED),
        (("complete", True, "append", False, False), State.APPENDING),
        (("complete", True, "append", True, True), State.COMMITTING),  # killed before the first file was moved
        (("incomplete", True, "append", True, True), State.COMMITTING),
        (("complete", True, "append", True, False), State.COMMITTED),
        (("complete", True, "none", True, False), State.COMMITTED),
    ],
)
def test_what_is_found_is_a_state(found: tuple[str, bool, str, bool, bool], state: State) -> None:
    names = ("root", "others", "record", "committing", "staged")
    assert state_of(PlaceFacts(**dict(zip(names, found, strict=True)))) is state  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_everything_that_can_be_found_has_a_step_and_every_refusal_a_reason(command: Command) -> None:
    for found in EVERYTHING:
        state = state_of(found)
        step = next_step(state, command)
        if step is NextStep.REFUSE:
            assert refusal(state, command, "a.zarr").startswith("a.zarr")


def test_only_overwrite_replaces_and_only_what_robozarr_wrote() -> None:
    replacing = {
        (s, c)
        for s, c in itertools.product(State, COMMANDS)
        if next_step(s, c) in (NextStep.REPLACE, NextStep.RESUME_OR_REPLACE)
    }
    assert {command for _, command in replacing} == {"overwrite"}
    assert State.FOREIGN not in {state for state, _ in replacing}
    assert {state for state in State if next_step(state, "convert") is NextStep.BEGIN} == {State.EMPTY}


def test_a_recovery_begins_nothing_and_is_the_same_for_every_command() -> None:
    for state in (State.COMMITTING, State.COMMITTED):
        assert {next_step(state, command) for command in COMMANDS} <= RECOVERIES

"""The states of a store's place, and each command's next step in each state. Pure: facts in, a step out; no I/O.

Every way back from an interruption passes here, as a fresh start does: who recovers something looks at the place again, and
asks again. ``docs/converting.md`` draws it. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

__all__ = ["RECOVERIES", "Command", "NextStep", "PlaceFacts", "State", "next_step", "refusal", "state_of"]

Command = Literal["convert", "append", "overwrite"]
"""The user's command: neither option, ``--append``, or ``--overwrite``."""


class State(Enum):
    """State of a store's place."""

    EMPTY = "nothing is there"
    FOREIGN = "something that is not a robozarr store"
    BEGUN = "an unfinished conversion, and the record of its progress"
    LOST = "a store that is not complete, without a record that could finish it"
    COMPLETE = "a complete store"
    ENDED = "a complete store, and the record of the conversion that made it"
    APPENDING = "a complete store, and the record of an unfinished append"
    COMMITTING = "an append whose files are all written, but not yet moved into place"
    COMMITTED = "a complete store, and the record of an append that was moved into place"


class NextStep(Enum):
    """What a command does next in a place."""

    BEGIN = "make a store"
    RESUME = "continue the unfinished conversion, if it is the same"
    RESUME_OR_REPLACE = "continue the unfinished conversion if it is the same, else remove it and make a store"
    REPLACE = "remove the store and make another"
    APPEND = "begin an append"
    RESUME_APPEND = "continue the unfinished append, if it is the same"
    COMMIT = "move the append's files into place, then look again"
    CLEAR = "remove the record, then look again"
    REFUSE = "touch nothing; `refusal` says why"


RECOVERIES: Final = frozenset({NextStep.COMMIT, NextStep.CLEAR})
"""Steps that only finish what was interrupted; the place is looked at again afterwards."""

_STEPS: Final[dict[State, dict[Command, NextStep]]] = {
    State.EMPTY: {"convert": NextStep.BEGIN, "append": NextStep.REFUSE, "overwrite": NextStep.BEGIN},
    State.FOREIGN: {"convert": NextStep.REFUSE, "append": NextStep.REFUSE, "overwrite": NextStep.REFUSE},
    State.BEGUN: {"convert": NextStep.RESUME, "append": NextStep.REFUSE, "overwrite": NextStep.RESUME_OR_REPLACE},
    State.LOST: {"convert": NextStep.REFUSE, "append": NextStep.REFUSE, "overwrite": NextStep.REPLACE},
    State.COMPLETE: {"convert": NextStep.REFUSE, "append": NextStep.APPEND, "overwrite": NextStep.REPLACE},
    State.ENDED: {"convert": NextStep.RESUME, "append": NextStep.CLEAR, "overwrite": NextStep.RESUME_OR_REPLACE},
    State.APPENDING: {"convert": NextStep.REFUSE, "append": NextStep.RESUME_APPEND, "overwrite": NextStep.REPLACE},
    State.COMMITTING: {"convert": NextStep.COMMIT, "append": NextStep.COMMIT, "overwrite": NextStep.COMMIT},
    State.COMMITTED: {"convert": NextStep.CLEAR, "append": NextStep.CLEAR, "overwrite": NextStep.CLEAR},
}
_REFUSALS: Final[dict[tuple[State, Command | None], str]] = {
    (State.EMPTY, "append"): "{store}: there is no store to append to; make it first, without --append",
    (State.FOREIGN, None): "{store} exists and is not a robozarr store, so it is not touched; give another --store",
    (State.BEGUN, "append"): "{store} holds an unfinished conversion; finish it first: run its command again, without --append",
    (State.LOST, None): "{store} holds an unfinished conversion, but the record of its progress is missing; start again with "
    "--overwrite",
    (State.COMPLETE, "convert"): "{store} already holds a store; give another --store, or --append to add to it, or "
    "--overwrite to replace it",
    (State.APPENDING, "convert"): "{store} already holds a store, with an unfinished append: run that again with "
    "--append, or give another --store, or --overwrite to replace it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFacts:
    """Facts from one look at the place of a store."""

    root: Literal["none", "foreign", "incomplete", "complete"]
    """The root document: missing, of something else, or the attributes of a robozarr store."""
    others: bool
    """Whether there are files other than the root document, a converter's journal and its temporary files."""
    record: Literal["none", "convert", "append"]
    """What the journal says was begun."""
    committing: bool
    """Whether the journal says that all files of an append are staged."""
    staged: bool
    """Whether the root document of an append is still staged; it is moved last."""


def state_of(found: PlaceFacts) -> State:
    """The state that follows from the facts.

    >>> state_of(PlaceFacts(root="complete", others=True, record="append", committing=False, staged=False)).name
    'APPENDING'
    """
    if found.root == "foreign" or (found.root == "none" and found.others):
        return State.FOREIGN
    if found.root == "none":
        return State.BEGUN if found.record == "convert" else State.EMPTY
    if found.committing and found.staged:
        return State.COMMITTING
    if found.root == "incomplete":
        return State.BEGUN if found.record == "convert" and not found.committing else State.LOST
    if found.committing:
        return State.COMMITTED
    return {"none": State.COMPLETE, "convert": State.ENDED, "append": State.APPENDING}[found.record]


def next_step(state: State, command: Command) -> NextStep:
    """The step that a command may take in a state.

    >>> next_step(State.COMMITTING, "convert").name, next_step(State.COMPLETE, "convert").name
    ('COMMIT', 'REFUSE')
    """
    return _STEPS[state][command]


def refusal(state: State, command: Command, store: str) -> str:
    """Why a command is refused in a state, and what to do."""
    text = _REFUSALS.get((state, command)) or _REFUSALS[state, None]
    return text.format(store=store)

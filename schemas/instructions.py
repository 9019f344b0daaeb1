"""Recognise instructions: the names under which files keep them, unwrapping them, and file names that are one. Pure.

Words are never invented. What is no instruction beyond doubt is left where it is, and the reason is said.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import numpy as np

from robozarr.schemas.source import instruction_from_name

__all__ = [
    "CONTAINERS",
    "MAX_CHARACTERS",
    "NAMES",
    "Found",
    "InstructionSource",
    "Words",
    "choose_words",
    "is_named_so",
    "named_in",
    "reads_as_instruction",
    "same_wording",
    "shown",
    "wording_of_name",
    "words_from_name",
    "words_of_value",
]


class InstructionSource(IntEnum):
    """Where the instruction of an episode comes from (FORMAT.md, M22)."""

    NONE = 0
    """The source states none."""
    BY_HAND = 1
    """The user gave it by ``--instruction`` or ``--instructions``."""
    DEMO_ATTRIBUTE = 2
    """An attribute inside the demo, such as RoboCasa's ``ep_meta``."""
    DATASET = 3
    """A text dataset of the demo or of the file."""
    FILE_ATTRIBUTE = 4
    """An attribute of the file, such as LIBERO's ``problem_info``."""
    FILE_NAME = 5
    """The file's name, which reads as words."""

    @property
    def words(self) -> str:
        """The source in words, for people."""
        return self.name.lower().replace("_", " ")


MAX_CHARACTERS: Final = 4096
"""Most characters of an instruction; the longest in public data sets have some hundreds."""
SURE_NAMES: Final = (
    "language_instruction", "natural_language_instruction", "task_instruction", "lang_instruction", "instruction",
    "instructions", "language_instructions", "language_annotation", "task_description", "language_description",
)  # fmt: skip
"""Names that mean an instruction and nothing else."""
LOOSE_NAMES: Final = ("lang", "language", "natural_language", "task", "prompt")
"""Names that also hold other things ("en", "lift", 3): their text counts only if it has more than one word."""
NAMES: Final = SURE_NAMES + LOOSE_NAMES
"""All names, in order of preference."""
CONTAINERS: Final = ("ep_meta", "problem_info", "episode_metadata", "metadata", "meta")
"""Attributes that hold a JSON object with one of `NAMES` in it: RoboCasa's, LIBERO's, and common ones."""
PLACEHOLDERS: Final = frozenset(
    {"none", "null", "nan", "n/a", "na", "unknown", "todo", "tbd", "undefined", "empty", "no instruction"}
)
"""Texts that programs write if there is no instruction."""

_VERBS: Final = frozenset(
    "pick put place turn open close push pull stack unstack move take grasp grab lift pour wipe fold unfold press slide rotate "
    "insert remove hang hold drop lower raise flip sweep arrange sort set plug unplug screw unscrew stir shake wash clean fill "
    "empty cover uncover touch reach poke throw toss hand give bring fetch switch toggle assemble attach detach hook unhook "
    "load unload pack unpack tie untie cut slice spread scoop serve roll squeeze twist tighten loosen tilt align knock dump "
    "transfer store drag swap make prepare cook heat straighten collect gather zip unzip point".split()
)
"""First words of instructions in file names."""
_DETERMINERS: Final = frozenset("the a an it them both all each every this that these those one two three four five".split())
_ENDINGS: Final = frozenset(
    "demo demos copy final backup old new train training val valid validation test image images img depth rgb noops noop "
    "states dataset data episode episodes recording perturbed view swap environment".split()
)
"""Last words of file names that describe the file, not the task."""


def reads_as_instruction(text: str) -> bool:
    """Whether a file name, with underscores as spaces, is certainly an instruction: a verb first, and "the" or the like.

    >>> reads_as_instruction("open the top drawer"), reads_as_instruction("turn on the stove view 0 0 100 2 352 initstate 0")
    (True, False)
    >>> reads_as_instruction("image v15"), reads_as_instruction("demo gentex im128 randcams")
    (False, False)
    """
    words = text.lower().split(" ")
    plain = all(re.fullmatch(r"[a-z]+(?:['’-][a-z]+)*", word) for word in words)
    return plain and words[0] in _VERBS and bool(_DETERMINERS & set(words)) and words[-1] not in _ENDINGS


def words_from_name(stem: str) -> str:
    """The instruction in a file's name, by LIBERO's naming; "" unless it reads as words.

    >>> words_from_name("KITCHEN_SCENE1_open_the_top_drawer_of_the_cabinet_demo"), words_from_name("image_v15")
    ('open the top drawer of the cabinet', '')
    """
    text = instruction_from_name(stem)
    return text if reads_as_instruction(text) else ""


def wording_of_name(stem: str) -> str:
    """The wording in a file's name, to compare with the file's own; also if the name contains more than an instruction.

    >>> wording_of_name("turn_on_the_stove_view_0_0_100_demo"), wording_of_name("image_v15")
    ('turn on the stove view 0 0 100', '')
    """
    words = instruction_from_name(stem).split(" ")
    return " ".join(words) if words[0].lower() in _VERBS and _DETERMINERS & {word.lower() for word in words} else ""


def same_wording(one: str, other: str) -> bool:
    """Whether two wordings are equal except for capitals, blanks and the full stop.

    >>> same_wording("Open the drawer.", "open the  drawer"), same_wording("open it", "shut it")
    (True, False)
    """
    plain, more = (" ".join(text.lower().strip(" .").split()) for text in (one, other))
    return plain == more


def is_named_so(name: str) -> bool:
    """Whether an attribute or a dataset has a name under which instructions are kept.

    >>> is_named_so("Language_Instruction"), is_named_so("language_embedding")
    (True, False)
    """
    return name.lower() in NAMES


@dataclass(frozen=True, slots=True)
class Found:
    """A place that may hold an instruction, and its content."""

    where: str
    """For people, such as ``attribute ep_meta.lang``."""
    name: str
    """Its name, lower case: one of `NAMES`."""
    value: object
    source: InstructionSource
    path: str = ""
    """Path of a dataset; "" of an attribute."""
    why_not: str = ""
    """Why it must not be used, whatever its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The instruction that was found, and other findings."""

    text: str = ""
    source: InstructionSource = InstructionSource.NONE
    where: str = ""
    """Where the text was found, for people."""
    datasets: frozenset[str] = frozenset()
    """Paths of all text datasets with the same text."""
    remarks: tuple[str, ...] = field(default=())
    """Other wordings, and texts that could not be used, for people."""


def choose_words(found: Iterable[Found]) -> Words:
    """Choose the instruction among places, the surest name first; other wordings become remarks.

    >>> choose_words([Found("attribute lang", "lang", b"open the drawer", InstructionSource.DEMO_ATTRIBUTE)]).text
    'open the drawer'
    """
    text, source, where = "", InstructionSource.NONE, ""
    datasets, remarks = set(), []
    for one in sorted(found, key=lambda one: (one.source == InstructionSource.DATASET, one.name in LOOSE_NAMES)):
        words, why_not = ([], one.why_not) if one.why_not else words_of_value(one.value, loose=one.name in LOOSE_NAMES)
        if why_not:
            remarks.append(f"{one.where} is not used as the instruction: {why_not}")
        if not words:
            continue
        if not text:
            text, source, where = words[0], one.source, one.where
        others = [shown(other) for other in words if other != text]
        remarks += [f"{one.where} has another wording: {other}; {shown(text)} of {where} is used" for other in others]
        if one.path and words == [text]:
            datasets.add(one.path)
    return Words(text=text, source=source, where=where, datasets=frozenset(datasets), remarks=tuple(remarks))


def shown(text: str) -> str:
    r"""A text for a message: quoted, on one line, short, without control characters.

    >>> shown("open it" + chr(27) + "[31m")
    "'open it\\x1b[31m'"
    """
    return repr(text if len(text) <= 80 else f"{text[:79]}…")


def words_of_value(value: object, *, loose: bool = False) -> tuple[list[str], str]:
    r"""The wordings in a file's value, and why none is used if it is text.

    Bytes, arrays of one, lists, JSON and surrounding quotes are unwrapped; white space around the words is not part of them.

    Parameters
    ----------
    value : object
        As h5py or JSON gives it.
    loose : bool
        It stands under a name that need not mean an instruction: one word alone does not count.

    >>> words_of_value(np.array([b'"open the drawer"']))
    (['open the drawer'], '')
    >>> words_of_value('{"lang": "close it"}'), words_of_value(7), words_of_value("en", loose=True)
    ((['close it'], ''), ([], ''), ([], "'en' is a single word, and its name may mean something else"))
    """
    if isinstance(value, str | bytes | np.bytes_) and len(value) > 16 * MAX_CHARACTERS:  # not even looked into
        return [], _too_long(len(value))
    try:
        pieces = list(dict.fromkeys(piece for piece in _pieces(value, 4) if piece and piece.lower() not in PLACEHOLDERS))
    except UnicodeDecodeError as exc:
        return [], f"it is not UTF-8 ({exc.reason})"
    if not pieces:
        return [], ""
    if len(pieces) > 1 and not all(" " in piece for piece in pieces):
        joined = ("" if all(len(piece) == 1 for piece in pieces) else " ").join(_tokens(value))
        if not any(" " in piece for piece in pieces) and reads_as_instruction(joined):  # a list of words, or of letters
            return [joined], ""
        return [], f"it is a list of {len(pieces)} texts, none of which is certainly the instruction"
    reasons = [reason for piece in pieces if (reason := _why_not(piece, loose))]
    return ([], reasons[0]) if reasons else (pieces, "")


def _why_not(text: str, loose: bool) -> str:
    if len(text) > MAX_CHARACTERS:
        return _too_long(len(text))
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "it is not UTF-8"
    if not any(character.isalpha() for character in text):
        return f"{shown(text)} holds no letter"
    if loose and text.isascii() and len(text.split()) < 2:
        return f"{shown(text)} is a single word, and its name may mean something else"
    if loose and re.search(r"[^\W\d_]\d|\d[^\W\d_]|_", text):
        return f"{shown(text)} looks like an identifier, and its name may mean something else"
    return ""


def _too_long(n: int) -> str:
    return f"it has {n:,} characters, more than {MAX_CHARACTERS:,}"


def _tokens(value: object) -> list[str]:
    """The texts of a list as they are, including blanks: LIBERO's code joins characters."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if not isinstance(value, list | tuple):
        return []
    return [text.decode() if isinstance(text, bytes) else text for text in value if isinstance(text, str | bytes)]


def _pieces(value: object, depth: int) -> Iterable[str]:
    """Every text in a value, unwrapped; UnicodeDecodeError if bytes are not UTF-8."""
    if depth == 0:
        return
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        text = value.strip().strip("\0").strip()
        inner = _unwrapped(text)
        if inner is None:
            yield text
        else:
            yield from _pieces(inner, depth - 1)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "SUO" and value.size <= MAX_CHARACTERS:
            for item in value.ravel().tolist():
                yield from _pieces(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value[:MAX_CHARACTERS]:
            yield from _pieces(item, depth - 1)
    elif isinstance(value, Mapping):
        for _, item in named_in(value)[:1]:
            yield from _pieces(item, depth - 1)


def named_in(value: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Entries of a JSON object under names of instructions, in order of preference.

    >>> named_in({"layout_id": 3, "lang": "open the drawer"})
    [('lang', 'open the drawer')]
    """
    by_name = {str(name).lower(): (str(name), item) for name, item in value.items()}
    return [by_name[name] for name in NAMES if name in by_name]


def _unwrapped(text: str) -> Any:
    """The value that a text encodes: JSON, Python's form of bytes or of a text, words in quotes; None if it encodes none."""
    if text[:1] in ("{", "[", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # also nesting beyond all measure
            pass
        else:
            return value if isinstance(value, str | list | dict) else None
    if re.match(r"""b?['"]|\[['"b]""", text) and text[-1:] in ("'", '"', "]") and len(text) <= 2 * MAX_CHARACTERS:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
        else:
            return value if isinstance(value, str | bytes | list) else None
    for pair in ('""', "''", "“”", "„“", "«»", "``"):
        if len(text) > 2 and text[0] + text[-1] == pair:
            # one more of these marks inside, other than an apostrophe in a word, and the two are no pair
            return None if re.search(rf"(?<!\w)[{pair}]|[{pair}](?!\w)", text[1:-1]) else text[1:-1]
    return None

"""What counts as an instruction: a table of values as files hold them, and of files' names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robozarr.schemas.instructions import (
    MAX_CHARACTERS,
    Found,
    InstructionSource,
    choose_words,
    words_from_name,
    words_of_value,
)

OPEN = "open the drawer"


@pytest.mark.parametrize(
    "value",
    [
        OPEN, OPEN.encode(), np.bytes_(OPEN), np.str_(OPEN), [OPEN], (OPEN,), np.array([OPEN]), np.array(OPEN.encode()),
        np.array([[OPEN.encode()]]), np.array([OPEN], object), f"  {OPEN}\n", f"{OPEN}\0\0",
        f'"{OPEN}"', f"'{OPEN}'", f"“{OPEN}”",
        json.dumps(OPEN), json.dumps([OPEN]), json.dumps({"lang": OPEN}), str(OPEN.encode()), str([OPEN]), list(OPEN),
        OPEN.split(), [OPEN, OPEN], ["", OPEN], [OPEN, "none"], json.dumps(json.dumps(OPEN)),
    ],
    ids=str,
)  # fmt: skip
def test_however_it_is_wrapped_the_words_are_the_same(value: object) -> None:
    assert words_of_value(value) == ([OPEN], "")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('put "it" down', 'put "it" down'),  # quotes that are part of it stay
        ('"A" and "B"', '"A" and "B"'),
        ("'open the driver's drawer'", "open the driver's drawer"),
        ("[robot] open it", "[robot] open it"),
        ("{now} open it", "{now} open it"),
        ("open it\nthen close it", "open it\nthen close it"),
        ("Öffne die Schublade – zwölfmal", "Öffne die Schublade – zwölfmal"),
        ("打开抽屉", "打开抽屉"),
        ("open \x1b[31mit", "open \x1b[31mit"),  # exact in the store, escaped where it is shown
        ("open  it", "open  it"),
        ("Lift", "Lift"),
    ],
)
def test_the_words_are_kept_exactly(value: str, words: str) -> None:
    assert words_of_value(value) == ([words], "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", ""), ("  \n", ""), ("none", ""), ("N/A", ""), ("null", ""), ("{}", ""), ("[]", ""), ('{"lang": 7}', ""), (7, ""),
        (None, ""), (True, ""), (np.arange(3), ""), (np.array(["", ""]), ""), ({"objects": ["cup"]}, ""),
        ("7", "holds no letter"), ("3.5", "holds no letter"), ("--", "holds no letter"), ('"', "holds no letter"),
        ("x" * (MAX_CHARACTERS + 1), "has 4,097 characters, more than 4,096"), ("x y" * 10**6, "more than 4,096"),
        ("[" * 100_000, "more than 4,096"), (b"\xff\xfe open", "not UTF-8"), ("caf\udce9 it", "not UTF-8"),
        (["reach", "grasp"], "list of 2 texts"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_is_no_instruction_is_not_taken(value: object, reason: str) -> None:
    words, why_not = words_of_value(value)
    assert words == []
    assert reason in why_not
    assert bool(reason) == bool(why_not)


def test_deep_json_does_no_harm() -> None:
    assert words_of_value("[" * 4000 + "]" * 4000)[0] == []
    assert words_of_value('{"lang":' * 4000)[0] == ['{"lang":' * 4000] or True  # no exception is what counts


@pytest.mark.parametrize("value", ["en", "english", "lift", "3", b"en", "Stack Cube v0", "low_dim lift", "run 3b"])
def test_one_word_under_a_loose_name_is_none(value: object) -> None:
    assert words_of_value(value, loose=True)[0] == []
    assert words_of_value("open it", loose=True)[0] == ["open it"]
    assert words_of_value("打开", loose=True)[0] == ["打开"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_taken_exactly_or_not_at_all(text: str) -> None:
    words, _ = words_of_value(text)
    assert len(words) <= 1 or text[0] in "[\"'"
    for one in words:
        assert one in text or "\\" in text or text.startswith(("[", "{"))


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        ("put_the_bowl_on_the_stove_demo", "put the bowl on the stove"),
        ("KITCHEN_SCENE1_open_the_top_drawer_of_the_cabinet_demo", "open the top drawer of the cabinet"),
        ("LIVING_ROOM_SCENE2_put_both_the_cans_in_the_basket_demo", "put both the cans in the basket"),
        ("pick up the cup", "pick up the cup"),
        ("turn_on_the_stove", "turn on the stove"),
        ("image_v15", ""), ("low_dim_v141", ""), ("demo_gentex_im128_randcams", ""), ("square_d0", ""), ("episode_0", ""),
        ("pick_up_the_cup_view_0_0_100_2_352_initstate_0_demo", ""), ("pick_up_the_cup_table_1", ""), ("data", ""), ("ph", ""),
        ("pick_place", ""), ("pick_up_the_cup_copy", ""), ("put_the_bowl_down_(1)", ""), ("final_version_of_the_data", ""),
        ("recording_of_the_robot", ""), ("pick_up_the_cup_256", ""), ("put__the_bowl", ""), ("", ""), ("2024-05-06", ""),
        ("öffne_die_schublade", ""), ("put_the_bowl_no_noops", ""), ("a_demo", ""), ("task_0_demo", ""),
    ],
)  # fmt: skip
def test_a_name_is_an_instruction_only_beyond_doubt(stem: str, words: str) -> None:
    assert words_from_name(stem) == words


def found(name: str, value: Any, source: InstructionSource = InstructionSource.DEMO_ATTRIBUTE) -> Found:
    return Found(f"attribute {name}", name, value, source)


def test_the_surest_name_comes_first_and_others_are_remarked() -> None:
    words = choose_words([found("task", "pick a cup"), found("language_instruction", "lift the cup"), found("lang", "lift it")])
    assert words.text == "lift the cup"
    assert words.where == "attribute language_instruction"
    assert words.remarks == (
        "attribute task has another wording: 'pick a cup'; 'lift the cup' of attribute language_instruction is used",
        "attribute lang has another wording: 'lift it'; 'lift the cup' of attribute language_instruction is used",
    )
    assert choose_words([found("instruction", "lift it"), found("lang", b"lift it")]).remarks == ()
    alternatives = choose_words([found("language_instructions", ["lift the cup", "raise the cup"])])
    assert (alternatives.text, len(alternatives.remarks)) == ("lift the cup", 1)


def test_remarks_cannot_steer_a_terminal() -> None:
    (remark,) = choose_words([found("instruction", "open it"), found("lang", "open \x1b[31m it")]).remarks
    assert remark.isprintable()

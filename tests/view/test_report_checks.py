"""What the report notices about words, splits, ranges, stretches and keys; and ``report --check``, which lints a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import robozarr as rz
from robozarr.cli import run
from robozarr.convert import convert
from robozarr.schemas.errors import StoreError
from robozarr.view.charts import lengths_chart
from robozarr.view.findings import Finding
from robozarr.view.problems import find_problems
from robozarr.view.report import report_html
from robozarr.view.word_checks import check_keys
from synthetic import write_libero, write_openvla, write_robomimic

OWN = "pick the akita black bowl"


def found(store: rz.Store) -> dict[str, Finding]:
    return {finding.title: finding for finding in find_problems(store)}


def made(folder: Path, change: Callable[[Any], None] = lambda _: None, **options: Any) -> rz.Store:
    path = write_libero(folder / "s" / "open_the_drawer_demo.hdf5", **{"lengths": (30, 31), "size": 16, **options})
    with h5py.File(path, "r+") as file:
        change(file["data"])
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


def test_stretches_inside_an_episode(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        frames = data["demo_0/obs/agentview_rgb"]
        frames[10:12] = 0  # black for two steps
        frames[20] = 255  # one step: no stretch
        frames = data["demo_1/obs/agentview_rgb"]
        frames[4:12] = frames[4]  # hangs while the arm moves
        frames[20:23] = frames[20]  # too short
        data["demo_1/obs/eye_in_hand_rgb"][:2] = data["demo_1/obs/eye_in_hand_rgb"][
            0
        ]  # nothing moves at first: rightly the same

    store = made(tmp_path, change, instruction="open the drawer")
    problems = {title: finding.detail for title, finding in found(store).items() if finding.level == "problem"}
    assert list(problems) == [
        "Stretches of one colour: agentview_rgb", "Frozen stretches: agentview_rgb", "Frames of one colour: agentview_rgb",
    ]  # fmt: skip
    assert "in episode 0 (steps 10 to 11) →" in problems["Stretches of one colour: agentview_rgb"]
    assert "in episode 1 (steps 4 to 11) →" in problems["Frozen stretches: agentview_rgb"]


def test_a_frame_that_stays_while_the_arm_rests_is_right(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["demo_0/actions"][10:20, :-1] = 0
        data["demo_0/obs/agentview_rgb"][10:20] = data["demo_0/obs/agentview_rgb"][10]

    assert not [finding for finding in find_problems(made(tmp_path, change)) if finding.level == "problem"]


@pytest.mark.parametrize(
    ("masks", "problem"),
    [
        ({"train": [0, 1], "valid": [1, 2]}, "valid and train share episodes 1 →"),
        ({"20_percent_train": [0, 2], "20_percent_valid": [2]}, "20_percent_valid and 20_percent_train share episodes 2 →"),
        ({"train": [0, 1], "valid": [2], "50_demos": [0, 1, 2], "train_small": [0]}, None),
        ({"constraint": [0], "latest": [0]}, None),  # words inside words are none
    ],
)
def test_overlapping_splits(tmp_path: Path, masks: dict[str, list[int]], problem: str | None) -> None:
    write_robomimic(tmp_path / "s/a.hdf5", lengths=(5, 4, 6), size=8, masks=masks, next_obs=False)
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    titles = found(rz.open_store(tmp_path / "a.zarr"))
    overlapping = [finding.detail for title, finding in titles.items() if title.startswith("Overlapping splits")]
    assert bool(overlapping) == (problem is not None)
    if problem is not None:
        assert overlapping[0].startswith(problem)


def test_actions_beyond_their_stated_range(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["demo_1/actions"][7, 2] = -1.75

    store = made(tmp_path, change)
    (key,) = [key for key in store.metadata.keys if key.name == "actions"]
    assert "[-1, 1]" in key.unit
    finding = found(store)["actions beyond their stated range"]
    assert finding.level == "problem"
    assert "elements 2 (-1.75 to" in finding.detail
    assert "exceed it in episodes 1 →" in finding.detail


@pytest.mark.usefixtures("words_only")
def test_instructions_that_differ_are_missing_or_a_name(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["demo_1"].attrs["lang"] = "shut it now"

    store = made(tmp_path, change, instruction=OWN)
    finding = found(store)["Wordings that differ: 2"]
    assert finding.level == "notice"
    assert f"{OWN!r} is stated, the file's name says 'open the drawer'; 'shut it now' is stated" in finding.detail
    write_openvla(tmp_path / "t/image_v15.hdf5", lengths=(9,), numbers=(0,), size=16)
    write_openvla(tmp_path / "t/open_the_drawer.hdf5", lengths=(9,), numbers=(0,), size=16)
    convert(tmp_path / "t", tmp_path / "b.zarr", workers=0)
    mixed = found(rz.open_store(tmp_path / "b.zarr"))
    assert mixed["Episodes without an instruction: 1 of 2"].level == "problem"
    assert "'open the drawer'" in mixed["Instructions from names of files: 1 episodes"].detail
    convert(tmp_path / "t/image_v15.hdf5", tmp_path / "c.zarr", workers=0)
    assert found(rz.open_store(tmp_path / "c.zarr"))["No instruction"].level == "notice"
    assert "(no instruction; file image_v15)" in report_html(rz.open_store(tmp_path / "c.zarr"))


def test_two_attributes_that_disagree(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        data["demo_0"].attrs["instruction"], data["demo_0"].attrs["ep_meta"] = "shut it now", json.dumps({"lang": "shut it"})

    details = [finding.detail for title, finding in found(made(tmp_path, change)).items() if title.startswith("Wordings")]
    assert (
        "'shut it now' is taken, attribute problem_info.language_instruction of s/open_the_drawer_demo.hdf5 says" in details[0]
    )


def test_keys_of_unknown_meaning(tmp_path: Path) -> None:
    store = made(tmp_path, extra={"obs/blob": lambda n, rng: rng.random((n, 2))})
    assert found(store)["Keys whose meaning is not known: 1"].detail.startswith("blob: neither name nor values")
    known = [replace(key, unit=key.unit or "m") for key in store.metadata.keys]
    store.metadata = replace(store.metadata, keys=tuple(known))
    assert list(check_keys(store)) == []


class Check:
    """``robozarr report`` in this process: its exit code, and what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.capsys, self.patch = capsys, patch
        patch.chdir(folder)
        patch.delenv("GITHUB_ACTIONS", raising=False)

    def __call__(self, store: Path, *options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            run(["report", str(store), *options])
        printed = self.capsys.readouterr()
        return int(left.value.code or 0), printed.out or printed.err


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Check:
    return Check(capsys, monkeypatch, tmp_path)


def test_check_is_a_linter(tmp_path: Path, check: Check) -> None:
    def change(data: Any) -> None:
        data["demo_1/actions"][7, 2] = 2
        data["demo_0"].attrs["instruction"] = "open \x1b[31m::error title=x,y::it\nnow, 100%"

    made(tmp_path, change)
    (code, plain), (json_code, as_json) = (check(tmp_path / "a.zarr", "--check", *more) for more in ([], ["--json"]))
    assert code == json_code == 1
    assert "✖ problem: actions beyond their stated range: [-1, 1] is stated" in plain
    assert "\x1b" not in plain
    answer = json.loads(as_json)
    assert answer["ok"] is False
    titles = [finding["title"] for finding in answer["findings"] if finding["level"] == "problem"]
    assert titles == ["actions beyond their stated range"]
    assert not (tmp_path / "report.html").exists()
    check.patch.setenv("GITHUB_ACTIONS", "true")
    code, annotated = check(tmp_path / "a.zarr", "--check")
    assert code == 1
    lines = [line for line in annotated.splitlines() if line.startswith("::")]
    assert lines[0].startswith(f"::error title=actions beyond their stated range::{tmp_path}/a.zarr: [-1, 1] is stated")
    (differing,) = [line for line in lines if "title=Wordings that differ%3A" in line]
    assert "\x1b" not in differing
    assert "100%25" in differing


@pytest.mark.usefixtures("words_only")
def test_check_of_a_good_store_is_0_and_of_notices_1_if_asked(sample_store: Path, tmp_path: Path, check: Check) -> None:
    code, printed = check(sample_store, "--check", "-o", str(tmp_path / "r.html"))
    assert (code, "0 problems" in printed) == (0, True)
    assert (tmp_path / "r.html").stat().st_size > 10_000
    assert check(sample_store, "--check", "--fail-on", "notice")[0] == 1
    assert "go with --check" in check(sample_store, "--json")[1]
    code, printed = check(tmp_path / "none.zarr", "--check", "--json")
    assert (code, json.loads(printed)["ok"]) == (3, False)


@pytest.mark.usefixtures("words_only")
def test_what_a_newcomer_stumbled_over(sample_store: Path, tmp_path: Path) -> None:
    store = rz.open_store(sample_store)
    page = report_html(store)
    assert "<small>1</small>" not in page
    assert "no unit" in page
    assert page.count('class="hint"') >= 4
    assert 'class="scroll">' not in page  # every table that scrolls can be reached by keyboard, too
    chart = lengths_chart(np.array([121, 122]), 20.0)
    assert ">median: 121 steps<" in chart.svg()
    video = store.episode(0).video()
    with pytest.raises(StoreError, match=r"this one is WEBP, to be saved as \*\.webp; got .*x\.mp4 → name it x\.webp"):
        video.save(tmp_path / "x.mp4")
    assert not (tmp_path / "x.mp4").exists()
    video.save(tmp_path / "x.webp")
    assert (tmp_path / "x.webp").read_bytes()[8:12] == b"WEBP"

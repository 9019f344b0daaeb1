"""Where the last key moments lie from the end: against a naive loop, on files whose release is known, and in every view."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from command import run_here
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.schemas.errors import WindowError
from robozarr.view.charts import coverage_chart
from robozarr.view.coverage import Sampler, measure_coverage
from robozarr.view.report import report_html
from robozarr.view.tails import Tails, measure_tails, steps_left
from robozarr.view.terminal import print_tails

commands = st.lists(st.lists(st.sampled_from([-1.0, 1.0, 0.0, 0.4]), min_size=1, max_size=12), min_size=1, max_size=6)


def printed(tails: Tails) -> str:
    buffer = io.StringIO()
    print_tails(tails, Console(file=buffer, width=200))
    return buffer.getvalue()


@given(commands)
def test_steps_left_are_those_of_a_loop(episodes: list[list[float]]) -> None:
    length = np.array([len(episode) for episode in episodes])
    expected = []
    for episode in episodes:
        left = -1
        for t in range(1, len(episode)):
            if np.sign(episode[t]) != np.sign(episode[t - 1]):
                left = len(episode) - 1 - t
        expected.append(left)
    assert steps_left(np.concatenate(episodes), np.cumsum(length) - length, length).tolist() == expected


@given(commands, st.integers(1, 10))
def test_never_an_anchor_is_what_the_random_sampler_never_draws(episodes: list[list[float]], chunk: int) -> None:
    length = np.array([len(episode) for episode in episodes])
    start = np.cumsum(length) - length
    left = steps_left(np.concatenate(episodes), start, length)
    sampler = Sampler.build(length, np.zeros(len(length), int), chunk=chunk, weights="steps")
    changed = np.flatnonzero(left >= 0)
    tails = Tails(chunk=chunk, n_episodes=len(length), known=True, release=False, left=tuple(left[changed].tolist()))
    if not changed.size:
        assert np.isnan(tails.never())
        return
    drawn = sampler.probability[(start + length - 1 - left)[changed]] > 0
    assert tails.never() == pytest.approx(1 - drawn.mean())


def store_with_releases(folder: Path, left: tuple[int, ...], length: int = 100, close_again: bool = False) -> rz.Store:
    """Episodes that close at step 10 and open with `left` steps after that."""
    path = folder / "s/a_demo.hdf5"
    synthetic.write_libero(path, lengths=(length,) * len(left))
    with h5py.File(path, "r+") as file:
        for number, n in enumerate(left):
            actions = file[f"data/demo_{number}/actions"]
            command = -np.ones(length)
            command[10 : length - 1 - n] = 1
            if close_again and number == 0:
                command[-1] = 1
            actions[:, 6] = command
    convert(path, folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


@pytest.mark.usefixtures("words_only")
def test_a_store_whose_releases_are_known(tmp_path: Path) -> None:
    store = store_with_releases(tmp_path, (12, 20, 63, 64))
    tails = measure_tails(store)
    assert tails.left == (12, 20, 63, 64)
    assert tails.release
    assert tails.never() == 0.75
    assert tails.by_chunk == {8: 0.0, 16: 0.25, 32: 0.5, 64: 0.75}
    assert tails.warning == "with chunk 64, the release of 75.0% of episodes never begins a window"
    assert measure_tails(store, chunk=65).warning == "with chunk 65, the release of 100% of episodes never begins a window"
    assert measure_tails(store, chunk=8).warning is None
    text = " ".join(printed(tails).split())
    assert "Steps left after the release: 12 to 64, median 20; 4 of 4 episodes have one." in text
    assert "warning: with chunk 64, the release of 75.0% of episodes never begins a window" in text
    assert "warning" not in printed(measure_tails(store, chunk=8))
    page = report_html(store)
    assert "With chunk 64, the release of 75.0% of episodes never begins a window." in page
    assert "No release lies in the last 8 steps of its episode." in report_html(store, chunk=8)
    title = coverage_chart(measure_coverage(store), tails).title
    assert title.startswith("With chunk 64, the release of 75.0% of episodes never begins a window. After 10 epochs")
    assert coverage_chart(measure_coverage(store), measure_tails(store, chunk=8)).title.startswith("After 10 epochs")


def test_a_last_change_that_closes_is_not_called_a_release(tmp_path: Path) -> None:
    tails = measure_tails(store_with_releases(tmp_path, (12, 20), close_again=True))
    assert tails.left == (0, 20)
    assert tails.warning == "with chunk 64, the last change of the gripper's command of 100% of episodes never begins a window"


def test_episodes_without_a_change_are_counted_apart() -> None:
    tails = Tails(chunk=64, n_episodes=3, known=True, release=True, left=(5, 90))
    assert tails.warning == "with chunk 64, the release of 50.0% of the 2 episodes that have one never begins a window"
    none = Tails(chunk=64, n_episodes=3, known=True, release=False, left=())
    assert none.warning is None
    assert none.to_json()["never_an_anchor"] == {"8": None, "16": None, "32": None, "64": None}
    assert "the gripper's command changes in no episode" in printed(none)


@pytest.mark.usefixtures("words_only")
def test_where_no_gripper_is_known_it_says_so(tmp_path: Path) -> None:
    synthetic.write_libero(tmp_path / "s/a_demo.hdf5", lengths=(30,))
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0, gripper="none")
    store = rz.open_store(tmp_path / "a.zarr")
    tails = measure_tails(store)
    assert not tails.known
    assert "no element of the actions is known as the gripper's command" in printed(tails)
    assert "No element of the actions is known as the gripper" in report_html(store)


def test_a_chunk_of_no_steps_is_refused() -> None:
    with pytest.raises(WindowError, match="a chunk of at least 1 step; got 0"):
        measure_tails(SimpleNamespace(), chunk=0)  # type: ignore[arg-type]


def test_the_command_prints_tails_first(tmp_path: Path) -> None:
    store_with_releases(tmp_path, (12, 20))
    command = ["coverage", str(tmp_path / "a.zarr"), "-o", str(tmp_path / "a.png")]
    done = run_here(*command)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "with chunk 64, the release of 100% of episodes never begins a window" in text
    assert text.index("Steps left after the release") < text.index("Random sampling: a file by")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads(run_here(*command, "--json").stdout)
    assert found["tails"]["steps_left"] == [12, 20]
    assert found["tails"]["warning"] == "with chunk 64, the release of 100% of episodes never begins a window"

"""What is noticed about a store: each problem is built into a source, found, and named with its episodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.view.problems import find_problems


def titles(store: rz.Store, level: str) -> dict[str, str]:
    return {finding.title: finding.detail for finding in find_problems(store) if finding.level == level}


def made(folder: Path, change: Callable[[h5py.File], None] | None = None, **options: Any) -> rz.Store:
    source = folder / "s" / "a_demo.hdf5"
    synthetic.write_libero(source, **{"lengths": (20, 21, 22, 23), "size": 16, **options})
    if change is not None:
        with h5py.File(source, "r+") as file:
            change(file["data"])
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


def test_a_good_store_has_no_problems_and_says_what_was_looked_for(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert not titles(store, "problem")
    assert {"Cameras show something, and it moves", "No episode occurs twice", "All values are finite"} <= set(
        titles(store, "good")
    )
    notices = titles(store, "notice")
    assert "stored upside down (row 0 is the bottom row, OpenGL) in 4 episodes" in notices["Orientation of pictures"]
    assert "the action to predict from obs[t] is actions[t + 1]" in notices["Observations come after their action"]


def set_rows(name: str, value: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        data[name][...] = value(data[name][...])

    return change


def repeat_first(frames: Any) -> Any:
    frames = frames.copy()
    frames[5:] = frames[5]
    return frames


def copy_demo(data: Any) -> None:
    del data["demo_3"]
    data.copy("demo_1", data, "demo_3")


def not_finite(data: Any) -> None:
    data["demo_2/obs/ee_pos"][3, 1] = np.inf


@pytest.mark.parametrize(
    ("change", "title", "detail"),
    [
        (
            set_rows("demo_2/obs/agentview_rgb", lambda frames: np.full_like(frames, 7)),
            "Constant camera: agentview_rgb is one colour",
            "throughout episodes 2 →",
        ),
        (
            set_rows("demo_1/obs/eye_in_hand_rgb", repeat_first),
            "Constant camera: eye_in_hand_rgb is frozen",
            "equal the frame before them in episodes 1 →",
        ),
        (copy_demo, "Duplicated episodes: 1", "in episodes 1 = 3 →"),
        (not_finite, "Values that are not finite", "NaN or infinity in ee_pos in episodes 2:"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_problems_are_found_where_they_were_put(tmp_path: Path, change: Callable[[Any], None], title: str, detail: str) -> None:
    found = titles(made(tmp_path, change), "problem")
    assert list(found) == [title]
    assert detail in found[title]


def test_a_frozen_camera_needs_more_than_the_last_frame_of_the_episode_before(tmp_path: Path) -> None:
    def same_at_the_edges(data: Any) -> None:
        for number in range(4):
            frames = data[f"demo_{number}/obs/agentview_rgb"]
            frames[::19] = np.arange(frames[0].size, dtype=np.uint8).reshape(frames[0].shape)

    assert not titles(made(tmp_path, same_at_the_edges, lengths=(20, 20, 20, 20)), "problem")


def test_saturated_and_constant_actions_are_noticed(tmp_path: Path) -> None:
    def clip(data: Any) -> None:
        for number in range(4):
            actions = data[f"demo_{number}/actions"]
            values = actions[...]
            values[:, 0] = np.clip(values[:, 0] * 3, -0.9375, 0.9375)
            values[:, 4] = 0.25
            actions[...] = values

    notices = titles(made(tmp_path, clip), "notice")
    assert "element 0 (" in notices["Saturated actions"]
    assert "at -0.938 or 0.938)" in notices["Saturated actions"]
    assert "element 6" not in notices["Saturated actions"]
    assert notices["Constant actions"].startswith("elements 4 never change")


def test_lengths_noops_alignment_orientation_and_failures(tmp_path: Path) -> None:
    notices = titles(made(tmp_path / "a", lengths=(20, 20, 21, 60)), "notice")
    assert "episode 3 (60 steps): at least 2 times longer or shorter" in notices["Episodes of unusual length: 1"]

    def still(data: Any) -> None:
        data["demo_2/actions"][:15, :-1] = 0

    noops = titles(made(tmp_path / "b", still), "notice")
    (title,) = [name for name in noops if name.startswith("No-op steps")]
    assert "most in episode 2 (68%)" in noops[title]
    for name, convention in (("x", "opengl"), ("y", "opencv")):
        with h5py.File(synthetic.write_libero(tmp_path / "c" / f"{name}_demo.hdf5"), "r+") as file:
            file["data"].attrs["macros_image_convention"] = convention
    convert(tmp_path / "c", tmp_path / "c.zarr", workers=0)
    mixed = titles(rz.open_store(tmp_path / "c.zarr"), "problem")["Orientation of pictures differs or is not known"]
    assert "stored upside down (row 0 is the bottom row, OpenGL) in 2 episodes; stored upright in 2 episodes" in mixed
    synthetic.write_robomimic(tmp_path / "d" / "x.hdf5", lengths=(6, 7), size=16, success=False)
    convert(tmp_path / "d", tmp_path / "d.zarr", workers=0)
    found = find_problems(rz.open_store(tmp_path / "d.zarr"))
    assert any(finding.title == "Failed episodes: 2" and "success=True" in finding.detail for finding in found)
    assert any(finding.title == "Observations come before their action" for finding in found)

"""Single frames of one colour in the report: found for every profile, axes and type, and nothing else is taken for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import robozarr as rz
from robozarr.cli import run
from robozarr.convert import convert
from robozarr.view.findings import Finding
from robozarr.view.problems import find_problems
from synthetic import write_libero

CAMERA = "agentview_rgb"


def made(folder: Path, change: Callable[[Any], None], profile: Any = "fast", size: int = 64, **options: Any) -> rz.Store:
    path = write_libero(folder / "s" / "open_the_drawer_demo.hdf5", lengths=(14, 15), size=size, **options)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():  # pictures that no codec packs by much
            shape = demo[f"obs/{CAMERA}"].shape
            demo[f"obs/{CAMERA}"][...] = np.random.default_rng(shape[0]).integers(0, 256, shape).astype(np.uint8)
        change(file["data"])
    convert(folder / "s", folder / "a.zarr", workers=0, profile=profile, overwrite=True)
    return rz.open_store(folder / "a.zarr")


def paint(frames: h5py.Dataset, rows: Any, value: Any) -> None:
    """Give rows one value. As an array: a number would be written pixel by pixel, which takes a second."""
    frames[rows] = np.broadcast_to(np.asarray(value, np.uint8), frames[rows].shape)


def lone(store: rz.Store, level: str = "problem") -> dict[str, str]:
    found: list[Finding] = [finding for finding in find_problems(store) if finding.title.startswith("Frames of one colour")]
    assert all(finding.level == level for finding in found)
    return {finding.title.removeprefix("Frames of one colour: "): finding.detail for finding in found}


SLOW = pytest.mark.slow(reason="a conversion each")


@pytest.mark.parametrize(
    ("profile", "colour"),
    [
        ("fast", 0), ("raw", (17, 3, 201)), pytest.param("raw", 0, marks=SLOW), pytest.param("raw", 255, marks=SLOW),
        pytest.param("fast", (0, 0, 254), marks=SLOW), pytest.param("lean", 255, marks=SLOW),
        pytest.param("compact", 128, marks=SLOW),
    ],
)  # fmt: skip
def test_a_single_frame_of_one_colour_is_found(profile: str, colour: Any, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        paint(data[f"demo_0/obs/{CAMERA}"], 7, colour)
        paint(data[f"demo_1/obs/{CAMERA}"], [0, 14], colour)

    details = lone(made(tmp_path, change, profile))
    assert list(details) == [CAMERA]
    assert "in episode 0 (step 7), episode 1 (step 0), episode 1 (step 14) →" in details[CAMERA]


@pytest.mark.parametrize("profile", ["fast", "raw"])
def test_what_is_nearly_one_colour_is_not(profile: str, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        frames = data[f"demo_0/obs/{CAMERA}"]
        frame = np.zeros(frames.shape[1:], np.uint8)
        frame[5, 6, 1] = 1
        frames[7] = frame  # one value of one pixel
        frame = np.full(frames.shape[1:], 200, np.uint8)
        frame[-1] = 201
        frames[9] = frame  # one row

    assert lone(made(tmp_path, change, profile)) == {}


def test_stretches_and_dead_cameras_are_told_once(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        paint(data[f"demo_0/obs/{CAMERA}"], [3, 4, 9], 0)  # two on end are a stretch
        paint(data[f"demo_1/obs/{CAMERA}"], ..., 0)  # a dead camera

    store = made(tmp_path, change)
    assert "in episode 0 (step 9) →" in lone(store)[CAMERA]
    titles = [finding.title for finding in find_problems(store) if finding.level == "problem" and CAMERA in finding.title]
    assert sorted(titles) == [
        f"Constant camera: {CAMERA} is one colour", f"Frames of one colour: {CAMERA}", f"Stretches of one colour: {CAMERA}",
    ]  # fmt: skip


def test_a_mask_may_be_empty_in_a_frame(tmp_path: Path) -> None:
    """What it shows may be out of sight for a step."""

    def change(data: Any) -> None:
        for name, demo in data.items():
            shape = (*demo[f"obs/{CAMERA}"].shape[:3], 1)
            demo["obs/agentview_depth"] = np.random.default_rng(len(name)).integers(1, 9000, shape).astype(np.uint16)
            if name == "demo_1":
                paint(demo["obs/agentview_depth"], 4, 0)

    store = made(tmp_path, change)
    assert list(lone(store, "notice")) == ["agentview_depth"]


@pytest.mark.slow(reason="a conversion each")
@pytest.mark.parametrize("profile", ["fast", "raw"])
@pytest.mark.parametrize(("axes", "dtype"), [((0, 3, 1, 2), "u1"), ((0, 1, 2, 3), "f4"), ((0, 1, 2, 3), "u2")])
def test_other_pictures(profile: str, axes: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        for name, demo in data.items():
            frames = np.random.default_rng(3).normal(100, 20, demo[f"obs/{CAMERA}"].shape).astype(dtype)
            if name == "demo_1":
                frames[4] = 0
            del demo[f"obs/{CAMERA}"]
            demo[f"obs/{CAMERA}"] = np.ascontiguousarray(frames.transpose(axes))

    store = made(tmp_path, change, profile, size=32)
    assert store.keys[CAMERA].picture_axes == ("cyx" if axes[1] == 3 else "yxc")
    assert "in episode 1 (step 4) →" in lone(store)[CAMERA]


def test_the_command_fails_on_it(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        paint(data[f"demo_0/obs/{CAMERA}"], 7, 0)

    for say, code in ((change, 1), (lambda data: None, 0)):
        made(tmp_path, say, instruction="open the drawer")
        with pytest.raises(SystemExit) as ended:
            run(["report", str(tmp_path / "a.zarr"), "--check"])
        assert ended.value.code == code

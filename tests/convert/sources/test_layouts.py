"""Families of files by description: each converts, is what h5py reads, and says what its record says."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest
import zarr

import families
import robozarr
from robozarr.convert import convert, verify
from robozarr.convert.sources.layouts.catalogue import ORDER, built_in, layout_text, read_layout_file
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import PlanError, SourceError
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence
from synthetic import write_libero, write_openvla, write_robomimic


@dataclass(frozen=True, kw_only=True)
class Family:
    """A small file of a family, and what its store must say."""

    write: Callable[[Path], Path]
    file: str = "a_demo.hdf5"
    group: str = "data/demo_0"
    sources: dict[str, str] = field(default_factory=dict)
    """Some keys, and the datasets that they are."""
    alignment: Alignment = Alignment.UNKNOWN
    convention: ImageConvention = ImageConvention.OPENCV
    success: int = -1
    control_freq: float | None = 20.0
    gripper: int | None = -1
    joint_key: str | None = "robot0_joint_pos"


FAMILIES = {
    "libero": Family(
        write=partial(write_libero, size=8, drop_keys=few_keys.OF_LIBERO),
        sources={"actions": "actions", "agentview_rgb": "obs/agentview_rgb"},
        alignment=Alignment.AFTER,
        convention=ImageConvention.OPENGL,
        joint_key="joint_states",
    ),
    "openvla": Family(
        write=partial(write_openvla, size=8, drop_keys=few_keys.OF_LIBERO),
        alignment=Alignment.BEFORE,
        convention=ImageConvention.OPENGL,
        joint_key="joint_states",
    ),
    "robomimic": Family(write=partial(write_robomimic, size=8), alignment=Alignment.BEFORE, success=1),
    "mimicgen": Family(
        write=families.write_mimicgen,
        sources={"datagen_info.eef_pose": "datagen_info/eef_pose"},
        alignment=Alignment.BEFORE,
        success=1,
    ),
    "robocasa": Family(
        write=families.write_robocasa, sources={"actions_abs": "actions_abs"}, alignment=Alignment.BEFORE, success=1, gripper=6
    ),
    "isaaclab": Family(
        write=families.write_isaaclab,
        sources={"actions": "actions", "obs.actions": "obs/actions", "table_cam": "obs/table_cam"},
        alignment=Alignment.BEFORE,
        success=1,
        control_freq=None,
        joint_key="joint_pos",
    ),
    "maniskill": Family(
        write=families.write_maniskill,
        file="trajectory.h5",
        group="traj_0",
        sources={"agent.qpos": "obs/agent/qpos", "sensor_data.base_camera.rgb": "obs/sensor_data/base_camera/rgb"},
        alignment=Alignment.BEFORE,
        success=1,
        control_freq=None,
        gripper=None,
        joint_key="agent.qpos",
    ),
    "robotwin": Family(
        write=families.write_robotwin,
        file="episode3.hdf5",
        group="",
        sources={"actions": "joint_action/vector", "joint_action.left_arm": "joint_action/left_arm"},
        alignment=Alignment.AFTER,
        control_freq=None,
        gripper=None,
        joint_key="actions",
    ),
    "xpolicylab": Family(
        write=families.write_xpolicylab,
        file="stack/episode_0000003.hdf5",
        group="",
        sources={"actions": "action/left_arm_joint_states", "state.left_ee_poses": "state/left_ee_poses"},
        alignment=Alignment.BEFORE,
        control_freq=15.0,
        gripper=None,
        joint_key="state.left_arm_joint_states",
    ),
    "aloha": Family(
        write=families.write_aloha,
        file="task/episode_3.hdf5",
        group="",
        sources={"actions": "action", "qpos": "observations/qpos", "cam_high": "observations/images/cam_high"},
        alignment=Alignment.BEFORE,
        control_freq=None,
        gripper=None,
        joint_key="qpos",
    ),
    "droid": Family(
        write=families.write_droid,
        file="trajectory.h5",
        group="",
        sources={"actions": "action/joint_velocity", "action.gripper_position": "action/gripper_position"},
        alignment=Alignment.BEFORE,
        success=1,
        control_freq=15.0,
        gripper=None,
        joint_key="robot_state.joint_positions",
    ),
}  # fmt: skip


def test_every_layout_but_the_widest_has_a_file_here_and_cites_its_sources() -> None:
    assert set(FAMILIES) == set(ORDER) - {"demos"}
    for layout in built_in():
        assert layout.sources, layout.name
        assert layout.traps or layout.name == "demos", layout.name
        assert Layout.from_json(tomllib.loads(layout_text(layout.name)), layout.name) == layout
        assert Layout.from_json(layout.to_json(), layout.name) == layout


ELSEWHERE = {
    "libero": "most tests convert such files",
    "robocasa": "another test here and test_instructions.py convert such files",
    "openvla": "test_instructions.py converts such files",
    "mimicgen": "test_recorded_families.py and test_field_cases.py convert such files",
    "xpolicylab": "test_recorded_families.py converts such files",
    "aloha": "the next test and test_encoded_frames.py convert such files",
    "droid": "test_recorded_families.py converts such files",
}
"""Why a family waits for the time that there is for all: a conversion and a comparison each."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=pytest.mark.slow(reason=ELSEWHERE[each])) if each in ELSEWHERE else each for each in FAMILIES],
)
def test_a_family_converts_to_what_h5py_reads(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    source = family.write(tmp_path / family.file)
    assert scan_file(str(source), FlagRules(gripper="layout")).layout == name
    convert(source, tmp_path / "a.zarr", workers=0)
    report = verify(tmp_path / "a.zarr", sources=source, workers=0)
    assert report.violations == ()
    store = robozarr.open_store(tmp_path / "a.zarr")
    episodes, n = store.episodes, int(store.episodes.length[0])
    with h5py.File(source) as file:
        group = file[family.group or "/"]
        for key in store.metadata.keys:
            if key.ragged or key.decoded:
                continue
            got = np.asarray(store.array(key.name)[:n])
            np.testing.assert_array_equal(got, group[key.source][:n], err_msg=key.name)
    assert {name: store.keys[name].source for name in family.sources} == family.sources
    assert set(episodes.alignment.tolist()) == {int(family.alignment)}
    assert set(episodes.image_convention.tolist()) == {int(family.convention)}
    assert (int(episodes.success[0]), store.metadata.control_freq) == (family.success, family.control_freq)
    assert (store.metadata.flag_rules.gripper, store.metadata.joint_key) == (family.gripper, family.joint_key)


QUICK = ("aloha",)
SLOW = [name for name in FAMILIES if name not in QUICK]  # three conversions and a comparison each


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow(reason="two conversions per family")) for name in SLOW)]
)
def test_a_family_can_be_appended_to(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    first, second = (family.write(tmp_path / folder / f"{folder}_{Path(family.file).name}") for folder in ("a", "b"))
    with h5py.File(second, "r+") as file:  # files of the same content are one source
        file.attrs["recorded"] = "later"
    convert([first, second], tmp_path / "whole.zarr", workers=0)
    convert(first, tmp_path / "grown.zarr", workers=0)
    convert(second, tmp_path / "grown.zarr", append=True, workers=0)
    assert verify(tmp_path / "grown.zarr", sources=[first, second], workers=0).ok
    whole, grown = (robozarr.open_store(tmp_path / f"{each}.zarr") for each in ("whole", "grown"))
    assert [key.name for key in whole.metadata.keys] == [key.name for key in grown.metadata.keys]
    for key in whole.metadata.keys:
        if not key.ragged:
            np.testing.assert_array_equal(whole.array(key.name)[:], grown.array(key.name)[:])
    np.testing.assert_array_equal(whole.index.flags, grown.index.flags)
    assert whole.metadata.control_freq == grown.metadata.control_freq


def test_episodes_of_one_file_each_stand_by_their_number_and_share_a_task(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        families.write_aloha(tmp_path / f"fold_towel/episode_{number}.hdf5", n=4 + number, seed=number)
    convert(tmp_path / "fold_towel", tmp_path / "a.zarr", workers=0)
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert list(store.episodes.demo) == ["episode_1", "episode_2", "episode_10"]
    assert store.episodes.length.tolist() == [5, 6, 14]
    assert list(store.tasks.name) == ["fold_towel"]


def test_a_file_without_a_number_has_one_demo_called_demo_0(tmp_path: Path) -> None:
    convert(families.write_droid(tmp_path / "trajectory.h5"), tmp_path / "a.zarr", workers=0)
    assert list(robozarr.open_store(tmp_path / "a.zarr").episodes.demo) == ["demo_0"]


def test_what_is_seen_after_the_last_action_is_listed_and_not_stored(tmp_path: Path) -> None:
    source = families.write_maniskill(tmp_path / "t.h5", lengths=(6, 5))
    report = convert(source, tmp_path / "a.zarr", workers=0)
    listed = {entry["path"]: (entry["n_demos"], entry["reason"]) for entry in report.not_stored}
    assert listed["obs/agent/qpos"] == (2, "its last row, which was seen after the last action; the others are stored")
    assert {path for path in listed if not path.startswith(("obs/", "env_states/"))} == set()
    assert report.n_steps == 11


def test_two_rows_more_than_actions_are_not_taken_for_one(tmp_path: Path) -> None:
    source = families.write_maniskill(tmp_path / "t.h5", lengths=(6,))
    with h5py.File(source, "r+") as file:
        del file["traj_0/obs/agent/qvel"]
        file["traj_0/obs/agent/qvel"] = np.zeros((8, 9))
    scan = scan_file(str(source), FlagRules(gripper="layout"))
    assert "obs/agent/qvel" not in {info.path for demo in scan.demos for info in demo.datasets}
    named = {path for path, *_ in scan.not_stored} | {problem.key for problem in scan.problems}
    assert "obs/agent/qvel" in named


OWN = """
name = "mine"
has = ["episode_*/cmd", "episode_*/cam"]
episodes = "episode_*"
actions = "cmd"
prefixes = []
joints = ["q"]
alignment = "before"
pictures = "bottom"
control_freq = 30
gripper = { 4 = 0 }
"""


def write_own(path: Path, numbers: tuple[int, ...] = (0, 1)) -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in numbers:
            demo = file.create_group(f"episode_{number}")
            demo["cmd"], demo["q"] = rng.normal(size=(6, 4)), rng.normal(size=(6, 5))
            demo["cmd"][:, 0] = [-1, -1, -1, 1, 1, 1]
            demo["cam/left"] = families.pictures(rng, 6)
        file["notes"] = np.arange(3)
    return path


def test_a_layout_of_ones_own_in_ten_lines(tmp_path: Path) -> None:
    source, toml, store_path = write_own(tmp_path / "a.h5"), tmp_path / "mine.toml", tmp_path / "a.zarr"
    toml.write_text(OWN)
    with pytest.raises(SourceError, match="--layout"):
        convert(source, store_path, workers=0)
    convert(source, store_path, workers=0, layout=toml)
    store = robozarr.open_store(store_path)
    assert sorted(store.keys) == ["actions", "cam.left", "q"]
    assert (store.metadata.control_freq, store.metadata.joint_key, store.metadata.flag_rules.gripper) == (30.0, "q", 0)
    evidence = zarr.open_array(store_path / "episodes/image_evidence", mode="r")
    assert np.asarray(evidence[:]).tolist() == [int(ImageEvidence.LAYOUT)] * 2
    assert set(store.episodes.image_convention.tolist()) == {int(ImageConvention.OPENGL)}
    toml.unlink()  # the store knows the layout
    assert verify(store_path, sources=source, workers=0).violations == ()
    convert(write_own(tmp_path / "b.h5", (4,)), store_path, append=True, workers=0)
    assert verify(store_path, sources=[source, tmp_path / "b.h5"], workers=0).violations == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("colour = 'red'", "colour"),
        ("episodes = 'a/*/b'", "episodes"),
        ("episodes = '**'", "episodes"),
        ("alignment = 'sometimes'", "alignment"),
        ("gripper = { 7 = 9 }", "gripper"),
        ("gripper = { 7 = 'last' }", "gripper"),
        ("control_freq = true", "control_freq"),
        ("success = 'last'", "success_at"),
        ("has = []", "has"),
        ("has = 'data'", "has"),
        ("roles = { a = 'camera' }", "roles"),
        ("name", "TOML"),
    ],
)
def test_a_wrong_layout_says_which_field_and_what_it_must_be(change: str, said: str, tmp_path: Path) -> None:
    field_name = change.split(" ")[0]
    lines = [line for line in OWN.splitlines() if not line.startswith(f"{field_name} ")]
    (tmp_path / "mine.toml").write_text("\n".join([change, *lines]))
    with pytest.raises(PlanError, match=said) as caught:
        read_layout_file(tmp_path / "mine.toml")
    assert "mine" in str(caught.value)


SAME_GRIPPER = pytest.mark.slow(reason="the last element, and none, said otherwise")


@pytest.mark.parametrize(
    ("gripper", "expected"),
    [(None, None), (0, 0), (13, -1), *(pytest.param(*pair, marks=SAME_GRIPPER) for pair in ((-1, -1), ("none", None)))],
)
def test_the_gripper_can_be_named(gripper: Any, expected: int | None, tmp_path: Path) -> None:
    source = families.write_aloha(tmp_path / "e/episode_0.hdf5")
    convert(source, tmp_path / "a.zarr", workers=0, gripper=gripper, keys=["qpos"])
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert store.metadata.flag_rules.gripper == expected
    moments = (store.index.flags & 4) != 0
    assert moments.any() == (expected is not None)
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()


def test_a_gripper_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    source = families.write_aloha(tmp_path / "e/episode_0.hdf5")
    with pytest.raises(SourceError, match="--gripper must name an element of the actions; found 14 of 14"):
        convert(source, tmp_path / "a.zarr", workers=0, gripper=14)


def test_robocasas_no_ops_pass_over_gripper_and_mode(tmp_path: Path) -> None:
    convert(families.write_robocasa(tmp_path / "a.hdf5", lengths=(9,)), tmp_path / "a.zarr", workers=0)
    flags = robozarr.open_store(tmp_path / "a.zarr").index.flags
    assert (flags & 1).tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]


def test_a_joint_key_that_was_left_out_is_still_named(tmp_path: Path) -> None:
    source = families.write_aloha(tmp_path / "t/episode_0.hdf5")
    for wish in ({"keys": ["cam_high"]}, {"without": ["qpos"]}):
        convert(source, tmp_path / "a.zarr", workers=0, overwrite=True, **wish)  # type: ignore[arg-type]
        assert robozarr.open_store(tmp_path / "a.zarr").metadata.joint_key == "qpos"
        assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()


def test_joints_whose_name_another_dataset_has(tmp_path: Path) -> None:
    source = write_libero(tmp_path / "a_demo.hdf5", lengths=(9, 8), size=8, drop_keys=few_keys.OF_LIBERO)
    with h5py.File(source, "r+") as file:
        for demo in file["data"].values():
            demo["joint_states"] = np.zeros((len(demo["actions"]), 7))
    convert(source, tmp_path / "a.zarr", workers=0)
    assert robozarr.open_store(tmp_path / "a.zarr").metadata.joint_key == "obs.joint_states"
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()

"""What the writers' code of today makes, at the commits that the layouts cite: videos, XPolicyLab's files, MimicGen's own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import families
import robozarr
from robozarr.cli import run
from robozarr.convert import convert, verify
from robozarr.convert.sources.layouts.catalogue import built_in
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import SourceError
from robozarr.schemas.index import Alignment, FlagRules

MP4 = b"\0\0\0\x20ftypisom" + bytes(40)


def test_every_source_names_repository_path_and_commit() -> None:
    for layout in built_in():
        for source in layout.sources:
            owner, repository, blob, commit, *path = source.removeprefix("https://github.com/").split(" ")[0].split("/")
            assert (blob, len(commit)) == ("blob", 40), source
            assert set(commit) <= set("0123456789abcdef"), source
            assert owner, source
            assert repository, source
            assert path[-1].endswith((".py", ".md")), source


# --- DROID: pictures that are videos ---


def droid(
    folder: Path, *, inside: bool = False, beside: bool = True, frames: bool = False, name: str = "trajectory.h5", seed: int = 0
) -> Path:
    path = families.write_droid(folder / name, seed=seed)
    with h5py.File(path, "r+") as file:
        if inside:  # TrajectoryWriter.close: the bytes of the video, a scalar
            file["observations/videos/17225336"] = np.asarray(MP4)
        if frames:  # robomimic's convert_droid.py
            n = len(file["action/joint_velocity"])
            for camera in ("hand_camera_left_image", "varied_camera_1_left_image"):
                seen = families.pictures(np.random.default_rng(0), n)
                file.create_dataset(f"observation/camera/image/{camera}", data=seen, compression="gzip")
    if beside:
        for place in ("MP4/17225336.mp4", "SVO/17225336.svo"):
            (folder / "recordings" / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / "recordings" / place).write_bytes(MP4)
    return path


@pytest.mark.parametrize(("inside", "says"), [(False, "recordings/MP4/17225336.mp4"), (True, "observations/videos/17225336")])
def test_a_tree_whose_pictures_are_videos_is_refused_with_what_to_do(
    inside: bool, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = droid(tmp_path / "t", inside=inside, beside=not inside)
    group = "observations/videos" if inside else "recordings"
    with pytest.raises(SourceError) as refused:
        convert(source, tmp_path / "a.zarr", workers=0)
    said = str(refused.value)
    assert f"pictures must be datasets, one frame per step; found no picture, but videos: {says}" in said
    assert f"--without {group}" in said
    with pytest.raises(SystemExit) as ended:  # what the message says to write
        run(["convert", str(source), "--store", str(tmp_path / "a.zarr"), "-w", "0", "--without", group])
    assert ended.value.code == 0
    assert f"not stored: {says}" in capsys.readouterr().out
    report = verify(tmp_path / "a.zarr", sources=source, workers=0)
    assert report.ok, report.violations
    for video in (tmp_path / "t").glob("recordings/*/*"):
        video.unlink()  # nothing was taken from it
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).ok
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert not [key.name for key in store.metadata.keys if key.picture_axes]
    with h5py.File(source) as file:
        np.testing.assert_array_equal(store.array("actions")[:], file["action/joint_velocity"][:])


def test_episodes_with_videos_of_other_names_are_appended(tmp_path: Path) -> None:
    first, second = droid(tmp_path / "a"), droid(tmp_path / "b", seed=1)
    for video in (tmp_path / "b").glob("recordings/*/*"):
        video.rename(video.with_stem("24013089"))
    convert(first, tmp_path / "a.zarr", workers=0, without=["recordings"])
    assert convert(second, tmp_path / "a.zarr", workers=0, append=True).n_episodes == 2
    report = verify(tmp_path / "a.zarr", sources=[first, second], workers=0)
    assert report.ok, report.violations


def test_a_copy_with_frames_is_complete_and_its_videos_are_listed(tmp_path: Path) -> None:
    source = droid(tmp_path / "t", frames=True, name="trajectory_im128.h5")
    report = convert(source, tmp_path / "a.zarr", workers=0)
    store = robozarr.open_store(tmp_path / "a.zarr")
    pictures = [key.name for key in store.metadata.keys if key.picture_axes]
    assert pictures == ["camera.image.hand_camera_left_image", "camera.image.varied_camera_1_left_image"]
    reasons = {entry["path"]: entry["reason"] for entry in report.not_stored}
    assert reasons["recordings/MP4/17225336.mp4"].startswith("a video: ")
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).ok


def test_a_tree_without_videos_converts_and_keys_are_a_choice_too(tmp_path: Path) -> None:
    convert(droid(tmp_path / "none", beside=False), tmp_path / "a.zarr", workers=0)
    convert(droid(tmp_path / "t"), tmp_path / "b.zarr", workers=0, keys=["robot_state.joint_positions"])
    assert sorted(robozarr.open_store(tmp_path / "b.zarr").keys) == ["actions", "robot_state.joint_positions"]


def test_skip_leaves_out_the_file_without_frames_and_keeps_its_copy(tmp_path: Path) -> None:
    droid(tmp_path / "t")
    droid(tmp_path / "t", frames=True, name="trajectory_im128.h5")
    report = convert(tmp_path / "t", tmp_path / "a.zarr", workers=0, on_error="skip")
    assert report.n_episodes == 1
    assert "camera.image.hand_camera_left_image" in robozarr.open_store(tmp_path / "a.zarr").keys


def test_a_layout_of_ones_own_names_its_videos(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "proprio_stats.h5", "w") as file:
        file["action/position"], file["state/position"] = np.zeros((5, 7)), np.ones((5, 7))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/head.mp4").write_bytes(MP4)
    layout = tmp_path / "own.toml"
    layout.write_text(
        'name = "own"\nhas = ["action/position"]\nepisodes = "/"\nactions = "action/position"\n'
        'videos_beside = ["videos/*.mp4"]\nalignment = "unknown"\n'
    )
    with pytest.raises(SourceError, match=r"videos: videos/head\.mp4.*--without videos"):
        convert(tmp_path / "proprio_stats.h5", tmp_path / "a.zarr", workers=0, layout=layout)
    convert(tmp_path / "proprio_stats.h5", tmp_path / "a.zarr", workers=0, layout=layout, without=["videos"])


# --- RoboTwin since August 2026 ---


def test_robotwins_newest_files(tmp_path: Path) -> None:
    source = families.write_xpolicylab(tmp_path / "stack/episode_0000003.hdf5")
    assert scan_file(str(source), FlagRules(gripper="layout")).layout == "xpolicylab"
    convert(source, tmp_path / "a.zarr", workers=0)
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert store.episodes.instruction == ("stack the blocks",)
    assert store.metadata.control_freq == 15
    assert set(store.episodes.alignment.tolist()) == {int(Alignment.BEFORE)}
    from PIL import Image

    with h5py.File(source) as file:
        for key, path in (
            ("actions", "action/left_arm_joint_states"), ("action.right_ee_joint_states", "action/right_ee_joint_states"),
            ("state.left_arm_joint_states", "state/left_arm_joint_states"), ("cam_head.depths", "vision/cam_head/depths"),
        ):  # fmt: skip
            np.testing.assert_array_equal(store.array(key)[:], file[path][:])
        np.testing.assert_array_equal(store.array("actions")[:-1], file["state/left_arm_joint_states"][1:])
        frame = np.asarray(Image.open(io.BytesIO(file["vision/cam_head/colors"][2])))
    np.testing.assert_array_equal(np.asarray(store.array("cam_head.colors")[2]), frame)
    roles = {key.name: key.role for key in store.metadata.keys}
    assert (roles["action.right_arm_joint_states"], roles["cam_head.depths"]) == ("action", "depth")


def test_convert_says_that_actions_are_not_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The right arm is a key of its own, which a window of `actions` alone lacks."""
    source = families.write_xpolicylab(tmp_path / "s/episode_1.hdf5")
    assert "action.right_arm_joint_states" in convert(source, tmp_path / "a.zarr", workers=0, dry_run=True).other_actions
    with pytest.raises(SystemExit):
        run(["convert", str(source), "--store", str(tmp_path / "a.zarr"), "--dry-run", "-w", "0"])
    assert (
        "actions: the key actions does not hold all of them; more are in action.left_ee_joint_states, "
        in capsys.readouterr().out
    )
    old = families.write_robotwin(tmp_path / "old/episode0.hdf5")
    assert convert(old, tmp_path / "b.zarr", workers=0, dry_run=True).other_actions == ()


@pytest.mark.parametrize(
    ("frequency", "expected"), [(30, 30.0), (np.array([25.0]), 25.0), (0, None), ([1, 2], None), (b"x", None)]
)
def test_a_frequency_that_the_file_states(frequency: Any, expected: float | None, tmp_path: Path) -> None:
    source = families.write_xpolicylab(tmp_path / "s/episode_1.hdf5", frequency=frequency)
    convert(source, tmp_path / "a.zarr", workers=0, keys=["actions"])
    assert robozarr.open_store(tmp_path / "a.zarr").metadata.control_freq == expected


def test_robotwin_files_of_both_formats_are_each_their_own(tmp_path: Path) -> None:
    old, new = (
        families.write_robotwin(tmp_path / "old/episode0.hdf5"),
        families.write_xpolicylab(tmp_path / "new/episode_0000000.hdf5"),
    )
    assert [scan_file(str(path), FlagRules(gripper="layout")).layout for path in (old, new)] == ["robotwin", "xpolicylab"]


def test_no_wording_leaves_the_instruction_empty(tmp_path: Path) -> None:
    convert(
        families.write_xpolicylab(tmp_path / "s/episode_1.hdf5", wordings=("",)),
        tmp_path / "a.zarr",
        workers=0,
        keys=["actions"],
    )
    assert robozarr.open_store(tmp_path / "a.zarr").episodes.instruction == ("",)


# --- MimicGen's and Mobile ALOHA's own writers ---


def test_mimicgen_as_it_is_generated(tmp_path: Path) -> None:
    """write_demo_to_hdf5: no rewards, no dones, gzip, poses of objects and signals of subtasks."""
    source, rng = tmp_path / "demo.hdf5", np.random.default_rng(0)
    with h5py.File(source, "w") as file:
        data = file.create_group("data")
        data.attrs.update(
            {"total": 13, "env_args": json.dumps({"env_name": "Square_D0", "type": 1, "env_kwargs": {"control_freq": 20}})}
        )
        for number, n in enumerate((7, 6)):
            demo = data.create_group(f"demo_{number}")
            demo.attrs.update({"num_samples": n, "model_file": "<mujoco/>"})
            demo["actions"], demo["states"] = rng.uniform(-1, 1, (n, 7)), rng.normal(size=(n, 45))
            for key, shape in (("agentview_image", (n, 16, 16, 3)), ("robot0_joint_pos", (n, 7)), ("object", (n, 14))):
                values = rng.integers(0, 255, shape).astype("u1") if len(shape) == 4 else rng.normal(size=shape)
                demo.create_dataset(f"obs/{key}", data=values, compression="gzip")
            for key, dims in (
                ("eef_pose", (n, 4, 4)),
                ("target_pose", (n, 4, 4)),
                ("gripper_action", (n, 1)),
                ("object_poses/square_nut", (n, 4, 4)),
            ):
                demo[f"datagen_info/{key}"] = rng.normal(size=dims)
            demo["datagen_info/subtask_term_signals/grasp"] = (np.arange(n) > 2).astype(int)
            demo["src_demo_inds"], demo["src_demo_labels"] = np.array([3, 1]), np.full((n, 1), 3)
    convert(source, tmp_path / "a.zarr", workers=0)
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert store.episodes.success.tolist() == [-1, -1]
    assert "datagen_info.object_poses.square_nut" in store.keys
    assert "src_demo_inds" not in store.keys
    assert store.episodes.instruction == ("", "")


def test_mobile_aloha_as_it_records(tmp_path: Path) -> None:
    """record_episodes.py: float32, effort, the base's velocity, JPEG of quality 50 in padded rows."""
    source = families.write_aloha(tmp_path / "wipe/episode_0.hdf5", frames="padded")
    with h5py.File(source, "r+") as file:
        n, rng = len(file["action"]), np.random.default_rng(1)
        for name, shape in (
            ("action", (n, 14)),
            ("observations/qpos", (n, 14)),
            ("observations/effort", (n, 14)),
            ("base_action", (n, 2)),
        ):
            if name in file:
                del file[name]
            file.create_dataset(name, shape, "f4")[...] = rng.normal(size=shape)
    convert(source, tmp_path / "a.zarr", workers=0, instruction="wipe the table")
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert (store.keys["actions"].dtype, store.keys["effort"].dtype) == ("float32", "float32")
    assert store.keys["base_action"].role == "action"
    assert "compress_len" not in store.keys

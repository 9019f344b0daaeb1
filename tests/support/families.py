"""Small HDF5 files of the families that layouts describe, beside LIBERO's and robomimic's (`synthetic`), for tests.

Uses h5py, numpy and Pillow only, never robozarr. Each writer follows the code of the family's own writer, which the layout's
record cites; it is seeded, writes one file and returns its path.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from PIL import Image
from synthetic_parts import Array

from synthetic import write_robomimic

Frames = Literal["raw", "padded", "vlen", "bytes"]
CAMERAS = ("cam_high", "cam_left_wrist", "cam_right_wrist")


def pictures(rng: np.random.Generator, n: int, size: tuple[int, int] = (24, 32)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Blocky pictures uint8 [n, y, x, 3]: JPEG changes them, but not beyond recognition."""
    blocks = rng.integers(0, 255, (n, size[0] // 8, size[1] // 8, 3))
    return np.kron(blocks, np.ones((1, 8, 8, 1))).astype(np.uint8)


def encode(frame: Array, codec: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, codec, **options)
    return buffer.getvalue()


def store_frames(group: Any, name: str, blobs: list[bytes], how: Frames) -> None:
    """Encoded frames as Mobile ALOHA (padded), human-policy (vlen) and RoboTwin (bytes) keep them."""
    longest = max(map(len, blobs))
    if how == "padded":
        rows = np.zeros((len(blobs), longest + 5), np.uint8)
        for row, blob in zip(rows, blobs, strict=True):
            row[: len(blob)] = np.frombuffer(blob, np.uint8)
        group[name] = rows
    elif how == "bytes":
        group.create_dataset(name, data=blobs, dtype=f"S{longest}")
    else:
        dataset = group.create_dataset(name, (len(blobs),), dtype=h5py.vlen_dtype(np.uint8))
        for number, blob in enumerate(blobs):
            dataset[number] = np.frombuffer(blob, np.uint8)


def write_aloha(
    path: Path, *, n: int = 10, frames: Frames = "raw", seed: int = 0, rdt: bool = False, success: bool = False
) -> Path:
    """One episode of ALOHA: record_sim_episodes.py (raw), Mobile ALOHA (padded); with `rdt` as RDT's robot records it."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"sim": not rdt, "compress": frames != "raw"})
        still = np.minimum(np.arange(n), n - 3).clip(0)[:, None] * 0.05  # moves at once, stands at the end
        file["observations/qpos"] = (rng.normal(size=14) + still).astype(np.float64)
        file["observations/qvel"] = rng.normal(size=(n, 14))
        file["action"] = rng.normal(size=(n, 14))
        lengths = []
        for camera in CAMERAS:
            seen = pictures(rng, n)
            if frames == "raw":
                file[f"observations/images/{camera}"] = seen
            else:
                blobs = [encode(frame, quality=90 - t) for t, frame in enumerate(seen)]
                store_frames(file.require_group("observations/images"), camera, blobs, frames)
                lengths.append([len(blob) for blob in blobs])
        if frames == "padded":
            file["compress_len"] = np.array(lengths, float)
        if rdt:
            file["base_action"], file["instruction"] = rng.normal(size=(n, 2)), "fold the towel"
    return path


def write_maniskill(path: Path, *, lengths: tuple[int, ...] = (6, 5), seed: int = 0) -> Path:
    """RecordEpisode: observations and env_states have one row more than actions; success at every step."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, n in enumerate(lengths):
            demo = file.create_group(f"traj_{number}")
            demo["actions"] = rng.normal(size=(n, 8)).astype(np.float32)
            demo["terminated"], demo["truncated"] = np.zeros(n, bool), np.arange(n) == n - 1
            demo["success"] = (np.arange(n) == n - 1) if number % 2 == 0 else np.zeros(n, bool)
            for name, width in (("obs/agent/qpos", 9), ("obs/agent/qvel", 9), ("obs/extra/tcp_pose", 7)):
                demo[name] = rng.normal(size=(n + 1, width)).astype(np.float32)
            demo["obs/sensor_data/base_camera/rgb"] = pictures(rng, n + 1)
            demo["obs/sensor_data/base_camera/depth"] = rng.integers(0, 2000, (n + 1, 24, 32, 1)).astype(np.int16)
            demo["obs/sensor_data/base_camera/segmentation"] = rng.integers(0, 9, (n + 1, 24, 32, 1)).astype(np.int16)
            demo["env_states/actors/cube"] = rng.normal(size=(n + 1, 13)).astype(np.float32)
    return path


def write_isaaclab(path: Path, *, lengths: tuple[int, ...] = (7, 6), seed: int = 0, channels_first: bool = False) -> Path:
    """HDF5DatasetFileHandler: gzip everywhere, obs/actions, trees of states, success an attribute."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Stack-Cube-IK-Rel-v0", "type": 2})
        for number, n in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs.update({"num_samples": n, "seed": 3, "success": number == 0})
            for name, shape in (
                ("actions", (n, 7)), ("processed_actions", (n, 8)), ("obs/actions", (n, 7)), ("obs/joint_pos", (n, 9)),
                ("initial_state/articulation/robot/joint_position", (1, 9)),
                ("states/articulation/robot/joint_position", (n, 9)), ("states/rigid_object/cube_1/root_pose", (n, 7)),
            ):  # fmt: skip
                demo.create_dataset(name, data=rng.normal(size=shape).astype(np.float32), compression="gzip")
            seen = pictures(rng, n)
            seen = np.ascontiguousarray(seen.transpose(0, 3, 1, 2)) if channels_first else seen
            demo.create_dataset("obs/table_cam", data=seen, compression="gzip")
            demo.create_dataset("obs/table_cam_segmentation", data=seen[..., 0:1].astype(np.int32), compression="gzip")
    return path


def write_robocasa(path: Path, *, lengths: tuple[int, ...] = (9, 8), seed: int = 0) -> Path:
    """A robomimic tree with 12 actions, of which element 6 is the gripper's and 11 a mode, and words in ep_meta."""
    rng = np.random.default_rng(seed)
    with h5py.File(write_robomimic(path, lengths=lengths, masks={}, next_obs=False, size=16), "r+") as file:
        for number, demo in enumerate(file["data"].values()):
            n = len(demo["actions"])
            actions = np.zeros((n, 12))
            actions[3:, :6] = rng.normal(0, 0.3, (n - 3, 6))
            actions[:, 6], actions[:, 11] = np.where(np.arange(n) < n // 2, -1, 1), -1
            del demo["actions"]
            demo["actions"], demo["actions_abs"] = actions, actions + 1
            demo.attrs["ep_meta"] = json.dumps({"layout_id": 3, "lang": f"pick thing {number}"})
    return path


def write_mimicgen(path: Path, *, lengths: tuple[int, ...] = (8, 7), seed: int = 0) -> Path:
    """A robomimic tree with the generator's notes: one number a subtask beside the actions."""
    rng = np.random.default_rng(seed)
    with h5py.File(write_robomimic(path, lengths=lengths, masks={}, next_obs=False, size=16), "r+") as file:
        for demo in file["data"].values():
            n = len(demo["actions"])
            demo["src_demo_inds"] = np.array([3, 1])
            demo["src_demo_labels"] = np.repeat([3, 1], [n // 2, n - n // 2])[:, None]
            demo["datagen_info/eef_pose"] = rng.normal(size=(n, 4, 4))
    return path


def write_robotwin(path: Path, *, n: int = 6, seed: int = 0) -> Path:
    """pkl2hdf5.py: fixed-size bytes of JPEG, the joint vector as action, an empty point cloud."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        vector = rng.normal(size=(n, 14))
        file["joint_action/vector"], file["joint_action/left_arm"] = vector, vector[:, :6]
        file["joint_action/left_gripper"] = vector[:, 6]
        file["endpose/left_endpose"] = rng.normal(size=(n, 7))
        file["pointcloud"] = np.zeros((n, 0))
        for camera in ("head_camera", "left_camera"):
            group = file.create_group(f"observation/{camera}")
            store_frames(group, "rgb", [encode(frame) for frame in pictures(rng, n)], "bytes")
            group["intrinsic_cv"] = np.repeat(np.eye(3)[None], n, axis=0)
    return path


def write_xpolicylab(
    path: Path, *, n: int = 7, frequency: Any = 15, wordings: tuple[str, ...] = ("stack the blocks", "put one on another")
) -> Path:
    """create_xpolicylab_hdf5: state is the joints up to the last frame but one, action the same one frame later."""
    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = h5py.string_dtype(encoding="utf-8")
    with h5py.File(path, "w") as file:
        file.attrs["source_format"] = "RoboTwin"
        file.create_dataset("data_format_version", data="v1.0", dtype=text)
        file.create_dataset("instructions", data=json.dumps(list(wordings)), dtype=text)
        file["additional_info/frequency"] = np.asarray(frequency)
        for name, width in (
            ("left_arm_joint_states", 6), ("left_ee_joint_states", 1), ("right_arm_joint_states", 6),
            ("right_ee_joint_states", 1), ("left_ee_poses", 7), ("right_ee_poses", 7),
        ):  # fmt: skip
            values = rng.normal(size=(n + 1, width)).astype(np.float32)
            file[f"state/{name}"], file[f"action/{name}"] = values[:-1], values[1:]
        for camera in ("cam_head", "cam_left_wrist", "cam_right_wrist"):
            blobs = [encode(frame) for frame in pictures(rng, n)]
            store_frames(file.require_group(f"vision/{camera}"), "colors", blobs, "bytes")
            file[f"vision/{camera}/shape"] = np.array([24, 32, 3], np.int32)
            file[f"vision/{camera}/depths"] = rng.uniform(0, 2000, (n, 24, 32))
            file[f"vision/{camera}/intrinsic_matrix"] = np.repeat(np.eye(3)[None], n, axis=0)
    return path


def write_droid(path: Path, *, n: int = 6, seed: int = 0) -> Path:
    """TrajectoryWriter: several forms of the action, no pictures, success an attribute of the file."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"current_task": "put the pen in the cup", "success": True, "failure": False})
        for name, width in (("joint_velocity", 7), ("joint_position", 7), ("cartesian_velocity", 6)):
            file[f"action/{name}"] = rng.normal(size=(n, width))
        file["action/gripper_position"] = rng.uniform(size=n)
        file["observation/robot_state/joint_positions"] = rng.normal(size=(n, 7)) + np.arange(n)[:, None]
        file["observation/robot_state/gripper_position"] = rng.uniform(size=n)
        file["observation/timestamp/skip_action"] = np.zeros(n, bool)
    return path

"""LeRobotStore and its export without LeRobot: against the store's own values. ``make test-train`` compares them with LeRobot.

The form of an item: huggingface/lerobot 0.4.4, lerobot/datasets/lerobot_dataset.py: LeRobotDataset.__getitem__.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from command import run_here
from PIL import Image
from stored import column
from torch.utils.data import DataLoader

from robozarr.convert import convert
from robozarr.loader.adapters.lerobot import LeRobotStore, serve_stores
from robozarr.loader.adapters.lerobot.export import export_lerobot
from robozarr.loader.adapters.lerobot.statistics import of_counts, of_values
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.store.opened import Store, open_store

AGENT, WRIST = "observation.images.agentview_rgb", "observation.images.eye_in_hand_rgb"
STATE = ("ee_pos", "ee_ori", "gripper_states")


@pytest.fixture(scope="module")
def store(sample_store: Path) -> Store:
    return open_store(sample_store)


@pytest.fixture(scope="module")
def exported(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lerobot") / "exported"
    export_lerobot(store, path)
    return path


def test_items(store: Store) -> None:
    """Every field of every item, by the rows that it should hold."""
    deltas = {"action": [-0.05, 0.0, 0.1], AGENT: [-0.1, 0.0], "observation.state": [0.0]}
    dataset = LeRobotStore(store, delta_timestamps=deltas)
    steps = {"action": [-1, 0, 2], AGENT: [-2, 0], "observation.state": [0]}
    columns = {
        "action": column(store, "actions").astype(np.float32),
        "observation.state": np.concatenate([column(store, key) for key in STATE], axis=1).astype(np.float32),
        AGENT: np.moveaxis(column(store, "agentview_rgb"), -1, 1).astype(np.float32) / np.float32(255),
        WRIST: np.moveaxis(column(store, "eye_in_hand_rgb"), -1, 1).astype(np.float32) / np.float32(255),
    }
    texts = list(dict.fromkeys(store.episodes.instruction))
    items = dataset.__getitems__(range(len(dataset)))
    assert len(dataset) == store.n_steps
    for row, item in enumerate(items):
        episode = int(store.index.episode[row])
        start, length = int(store.episodes.start[episode]), int(store.episodes.length[episode])
        for name, values in columns.items():
            wanted = row + np.array(steps.get(name, [0]))
            rows = np.clip(wanted, start, start + length - 1)
            expected = values[rows] if name in steps else values[row]
            np.testing.assert_array_equal(item[name].numpy(), expected, err_msg=name)
            if name in steps:
                assert item[f"{name}_is_pad"].tolist() == (rows != wanted).tolist()
        assert item["index"].item() == row
        assert item["frame_index"].item() == row - start
        assert item["episode_index"].item() == episode
        assert item["timestamp"].item() == np.float32((row - start) / 20)
        assert item["task"] == store.episodes.instruction[episode] == texts[item["task_index"].item()]


def test_some_episodes(store: Store) -> None:
    dataset = LeRobotStore(store, episodes=[3, 1])
    rows = [row for row in range(store.n_steps) if store.index.episode[row] in (1, 3)]
    assert [item["index"].item() for item in dataset.__getitems__(range(len(dataset)))] == rows
    assert (dataset.num_episodes, dataset.num_frames) == (2, len(rows))
    assert dataset.absolute_to_relative_idx == {row: number for number, row in enumerate(rows)}
    assert torch.equal(dataset[-1]["action"], dataset[len(rows) - 1]["action"])
    with pytest.raises(IndexError, match="item"):
        dataset[len(rows)]


@pytest.mark.parametrize("episodes", [None, [1, 3]], ids=["all", "some"])
def test_causal(store: Store, episodes: list[int] | None) -> None:
    """LIBERO's files were recorded after the action: step t has action t + 1, and the last observation, which has none, is
    not served. What is said of the episodes and of all values is said of these steps."""
    assert (store.episodes.alignment == 1).all()
    deltas = {"action": [0.0, 0.05], "ee_pos": [-0.05, 0.05], "rewards": [0.0]}
    dataset = LeRobotStore(store, episodes=episodes, keys=["ee_pos", "rewards"], delta_timestamps=deltas, causal=True)
    actions, rewards = (column(store, key).astype(np.float32) for key in ("actions", "rewards"))
    position, frames = column(store, "ee_pos").astype(np.float32), np.moveaxis(column(store, "agentview_rgb"), -1, 1)
    items, number, index = dataset.__getitems__(range(len(dataset))), 0, 0
    for episode, (start, length) in enumerate(zip(store.episodes.start, store.episodes.length, strict=True)):
        row = dataset.meta.episodes[episode]
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (index, index + length - 1)
        for step in range(length - 1):
            if episodes is None or episode in episodes:
                item = items[number]
                after = [start + step + 1, start + min(step + 2, length - 1)]
                np.testing.assert_array_equal(item["action"].numpy(), actions[after])
                assert item["action_is_pad"].tolist() == [False, step + 2 == length]
                around = [start + max(step - 1, 0), start + min(step + 1, length - 2)]
                np.testing.assert_array_equal(item["ee_pos"].numpy(), position[around])
                assert item["ee_pos_is_pad"].tolist() == [step == 0, step + 2 == length]
                assert item["rewards"].tolist() == rewards[after[:1]].tolist()
                np.testing.assert_array_equal(item[AGENT].numpy(), frames[start + step].astype(np.float32) / np.float32(255))
                assert [item[name].item() for name in ("index", "frame_index", "episode_index")] == [index, step, episode]
                assert dataset.absolute_to_relative_idx is None or dataset.absolute_to_relative_idx[index] == number
                number += 1
            index += 1
    assert (len(dataset), dataset.meta.total_frames) == (number, store.n_steps - store.n_episodes)
    last = store.episodes.start + store.episodes.length - 1
    pixels = np.moveaxis(np.delete(frames, last, axis=0), 1, -1).reshape(-1, 3) / 255
    np.testing.assert_allclose(dataset.meta.stats[AGENT]["std"].reshape(-1), pixels.std(0), rtol=1e-9)
    np.testing.assert_allclose(
        dataset.meta.stats["action"]["mean"], np.delete(column(store, "actions"), store.episodes.start, axis=0).mean(0)
    )


def test_causal_export(store: Store, tmp_path: Path) -> None:
    """A data set whose steps are such pairs, and which says so on its way back."""
    report = export_lerobot(store, tmp_path / "out", images=["agentview_rgb"], causal=True)
    convert(tmp_path / "out", tmp_path / "back.zarr", workers=0)
    again, last = open_store(tmp_path / "back.zarr"), store.episodes.start + store.episodes.length - 1
    assert report.n_steps == again.n_steps == store.n_steps - store.n_episodes
    for key in ("agentview_rgb", "ee_pos", "actions", "rewards"):
        left_out = store.episodes.start if key in ("actions", "rewards") else last
        np.testing.assert_array_equal(column(again, key), np.delete(column(store, key), left_out, axis=0))
    assert (again.episodes.alignment == 0).all()


def test_turned(store: Store) -> None:
    """LIBERO's pictures have the bottom row first: a half turn rights and mirrors them, as its LeRobot data sets are."""
    stored = LeRobotStore(store, return_uint8=True)[5][AGENT]
    assert stored.dtype == torch.uint8
    assert torch.equal(LeRobotStore(store, return_uint8=True, turn="rotate")[5][AGENT], stored.flip(1, 2))
    assert torch.equal(LeRobotStore(store, return_uint8=True, turn="upright")[5][AGENT], stored.flip(1))


def test_in_a_data_loader(store: Store) -> None:
    """Workers too, and transforms of single cameras."""
    dataset = LeRobotStore(store, delta_timestamps={"action": [0.0, 0.05]}, image_transforms=lambda image: 1 - image)
    batch = next(iter(DataLoader(dataset, batch_size=6)))
    assert batch[AGENT].shape == (6, 3, 128, 128)
    assert torch.equal(batch[AGENT][4], 1 - LeRobotStore(store)[4][AGENT])
    assert batch["action"].shape == (6, 2, 7)
    assert batch["task"] == [store.episodes.instruction[0]] * 6


def test_statistics(store: Store) -> None:
    """Exact ones, of all steps and all pixels."""
    stats = LeRobotStore(store).meta.stats
    frames = column(store, "agentview_rgb").reshape(-1, 3) / 255
    for name, expected in {"min": frames.min(0), "max": frames.max(0), "mean": frames.mean(0), "std": frames.std(0)}.items():
        np.testing.assert_allclose(stats[AGENT][name], expected[:, None, None], rtol=1e-9)
    np.testing.assert_array_equal(
        stats[AGENT]["q90"].reshape(-1), np.quantile(frames, 0.9, axis=0, method="inverted_cdf")
    )  # fmt: skip
    actions = column(store, "actions")
    np.testing.assert_allclose(stats["action"]["q10"], np.quantile(actions, 0.1, axis=0))
    assert stats["action"]["count"].tolist() == stats[AGENT]["count"].tolist() == [store.n_steps]


def test_statistics_of_constants() -> None:
    stats = of_counts(np.eye(1, 256, 7, dtype=np.int64).repeat(3, axis=0) * 5, 1)
    assert all(stats[name].reshape(-1).tolist() == [7 / 255] * 3 for name in ("min", "max", "mean", "q01", "q99"))
    assert of_values(np.full((3, 1), 2.0))["std"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta_timestamps": {"actions": [0.0]}}, r"actions: a served feature, which are observation\.images"),
        ({"delta_timestamps": {"action": [0.03]}}, r"action: multiples of 1/20 s, to 0\.0001 s; got 0\.03"),
        ({"state": ["agentview_rgb"]}, r"observation\.state: vectors of the store; agentview_rgb: neither a vector"),
        ({"state": ["nowhere"]}, r"nowhere: the store has actions,"),
        ({"images": ["ee_pos"]}, r"ee_pos: pictures of uint8 with three channels; the store has agentview_rgb"),
        ({"keys": ["nowhere"]}, r"nowhere: is not a key of the store, which has actions,"),
        ({"turn": "left"}, r'turn: "rotate", "upright" or "none"'),
        ({"fps": 0}, r"fps: steps per second"),
    ],
)
def test_refusals(store: Store, options: dict[str, Any], words: str) -> None:
    with pytest.raises(WindowError, match=words):
        LeRobotStore(store, **options)


def test_names_that_lerobot_would_misread(sample: Path, tmp_path: Path) -> None:
    """What begins with action would be taken for the policy's action."""
    from robozarr.loader.adapters.lerobot.features import _own_name

    assert [_own_name(key) for key in ("ee_pos", "actions_abs", "observation", "index", "task")] == [
        "ee_pos", "store.actions_abs", "store.observation", "store.index", "store.task",
    ]  # fmt: skip


def test_serve_stores(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where ``root`` is a store; all else is given to LeRobot, and afterwards everything is as it was."""
    factory: Any = types.ModuleType("lerobot.datasets.factory")
    factory.LeRobotDataset = lambda repo_id, root=None, **options: ("theirs", repo_id, root)
    factory.LeRobotDatasetMetadata = lambda repo_id, root=None, **options: ("meta", repo_id, root)
    for name in ("lerobot", "lerobot.datasets"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "lerobot.datasets.factory", factory)
    before = factory.LeRobotDataset
    with serve_stores(turn="rotate"):
        made = factory.LeRobotDataset(
            "a/b", root=store.path, episodes=[0], revision=None, video_backend="pyav", tolerance_s=1e-4
        )
        assert isinstance(made, LeRobotStore)
        assert (made.turn, made.episodes, made.repo_id) == ("rotate", [0], "a/b")
        assert factory.LeRobotDatasetMetadata("a/b", root=store.path).total_frames == store.n_steps
        assert factory.LeRobotDataset("a/b", root="/nowhere") == ("theirs", "a/b", "/nowhere")
        assert factory.LeRobotDatasetMetadata("a/b") == ("meta", "a/b", None)
    assert factory.LeRobotDataset is before


def test_files(store: Store, exported: Path) -> None:
    """The files by plain pyarrow and Pillow: pictures and numbers as stored, and the tables that LeRobot looks things up in."""
    table = pq.read_table(exported / "data/chunk-000/file-000.parquet")
    assert pq.ParquetFile(exported / "data/chunk-000/file-000.parquet").num_row_groups == store.n_episodes
    frames = column(store, "agentview_rgb")
    for row, picture in enumerate(table.column(AGENT).to_pylist()):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture["bytes"]))), frames[row])
    np.testing.assert_array_equal(np.array(table.column("action").to_pylist()), column(store, "actions"))
    np.testing.assert_array_equal(np.array(table.column("rewards").to_pylist()), column(store, "rewards"))
    info = json.loads((exported / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"], info["total_episodes"]) == ("v3.0", 20, 44, 4)
    episodes = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet")
    assert episodes.column("dataset_from_index").to_pylist() == store.episodes.start.tolist()
    assert [texts[0] for texts in episodes.column("tasks").to_pylist()] == list(store.episodes.instruction)
    greatest = np.array(episodes.column("stats/action/max").to_pylist())
    np.testing.assert_array_equal(greatest[2], store.episode_stats("actions")["max"][2])
    assert pq.read_table(exported / "meta/tasks.parquet").column("task_index").to_pylist() == [0, 1]


def test_files_and_folders_roll_over(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is large enough is followed by another, a full folder by the next one; and all is read back."""
    from robozarr.loader.adapters.lerobot import files

    monkeypatch.setattr(files, "DATA_MB", 0)
    monkeypatch.setattr(files, "CHUNK_FILES", 3)
    export_lerobot(store, tmp_path / "out", images=["agentview_rgb"])
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out/data").rglob("*.parquet"))
    assert found == [f"data/chunk-000/file-00{i}.parquet" for i in range(3)] + ["data/chunk-001/file-000.parquet"]
    convert(tmp_path / "out", tmp_path / "back.zarr", workers=0)
    again = open_store(tmp_path / "back.zarr")
    assert column(again, "agentview_rgb").tobytes() == column(store, "agentview_rgb").tobytes()


def test_videos_are_measured(store: Store, tmp_path: Path) -> None:
    """PSNR by hand over what a plain decoder gives back."""
    import av

    report = export_lerobot(store, tmp_path / "out", images=["agentview_rgb"], video=True, turn="upright")
    (path,) = (tmp_path / "out").rglob("*.mp4")
    with av.open(str(path)) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    error = decoded.astype(float) - column(store, "agentview_rgb")[:, ::-1]
    assert report.psnr == {AGENT: pytest.approx(10 * np.log10(255**2 / (error**2).mean()))}
    assert 30 < report.psnr[AGENT] < 60
    episodes = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    begins = np.array(episodes.column(f"videos/{AGENT}/from_timestamp").to_pylist())
    np.testing.assert_allclose(begins, store.episodes.start / 20)


def test_nothing_is_written_over(store: Store, exported: Path) -> None:
    with pytest.raises(StoreError, match="is there already"):
        export_lerobot(store, exported)


@pytest.mark.parametrize("video", [False, True])
def test_interrupted_export_leaves_nothing(store: Store, tmp_path: Path, video: bool) -> None:
    class Interrupt:
        def start(self, stage: str, total: int, n_bytes: int = 0) -> None: ...

        def advance(self, n: int = 1, n_bytes: int = 0) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_lerobot(store, tmp_path / "out", video=video, progress=Interrupt())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow(reason="two processes")
def test_command_lines(store: Store, tmp_path: Path) -> None:
    """As in docs/recipes/lerobot.md and diffusion_policy.md; a folder that is there is refused."""
    for name, output in (("lerobot", "out"), ("diffusion-policy", "out.zarr.zip")):
        command = [sys.executable, "-m", "robozarr", "export", name, store.path, "--output", str(tmp_path / output), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["n_steps"] == store.n_steps
        again = run_here(*command[3:])
        assert (again.returncode, "is there already" in again.stderr) == (3, True)

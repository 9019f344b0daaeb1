"""LeRobot data sets as sources: of version 3.0 as robozarr exports them, of version 2.1 as LeRobot itself recorded one.

lerobot_v21.tar.xz was recorded by lerobot 0.3.3 (LeRobotDataset.create, add_frame, save_episode): `recorded` says with what.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from stored import column

import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.loader.adapters.lerobot.export import export_lerobot
from robozarr.schemas.errors import PlanError, SourceError
from robozarr.store.opened import Store, open_store

LENGTHS = (7, 12, 5)
TASKS = ("stack the cups", "open the drawer", "stack the cups")


def recorded(row: int, step: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """Picture, state and action of a row of the recorded data set."""
    y, x, c = np.meshgrid(np.arange(16), np.arange(24), np.arange(3), indexing="ij")
    picture = ((7 * y + 5 * x + 60 * c + 11 * row) % 256).astype(np.uint8)
    return picture, np.array([row, step, -row / 4], np.float32), np.array([row / 8, step / 2], np.float32)


@pytest.fixture
def v21(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("lerobot_v21.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "v21"


@pytest.fixture(scope="module")
def exported(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as a data set of version 3.0. Read it; to change it, copy it."""
    path = tmp_path_factory.mktemp("lerobot") / "exported"
    export_lerobot(sample_store, path)
    return path


@pytest.fixture
def own(exported: Path, tmp_path: Path) -> Path:
    shutil.copytree(exported, tmp_path / "own")
    return tmp_path / "own"


def assert_same(one: Store, other: Store, without: set[str]) -> None:
    """Every number and every frame bit for bit, and what is known of steps and episodes."""
    assert set(other.keys) == set(one.keys) - without
    for name, key in other.keys.items():
        if key.ragged:
            mine, theirs = one.ragged(name), other.ragged(name)
            assert all(mine[row].tobytes() == theirs[row].tobytes() for row in range(one.n_steps))
        else:
            mine_all, theirs_all = column(one, name), column(other, name)
            assert (mine_all.dtype, mine_all.shape) == (theirs_all.dtype, theirs_all.shape), name
            assert mine_all.tobytes() == theirs_all.tobytes(), name
    assert one.index.flags.tobytes() == other.index.flags.tobytes()
    assert one.episodes.instruction == other.episodes.instruction
    for fact in ("start", "length", "success", "alignment", "image_convention"):
        np.testing.assert_array_equal(getattr(one.episodes, fact), getattr(other.episodes, fact))
    assert one.metadata.control_freq == other.metadata.control_freq
    assert one.metadata.flag_rules == other.metadata.flag_rules


def test_there_and_back(sample_store: Path, exported: Path, tmp_path: Path) -> None:
    report = convert(exported, tmp_path / "back.zarr", workers=0)
    assert_same(open_store(sample_store), open_store(tmp_path / "back.zarr"), without={"states"})
    assert {entry["path"]: entry["reason"] for entry in report.not_stored}["observation.state"] == (
        "repeats ee_pos, ee_ori, gripper_states"
    )
    assert verify(tmp_path / "back.zarr", sources=[exported], workers=0).ok


@pytest.mark.slow(reason="two conversions and an export")
def test_there_and_back_of_one_task(sample: Path, tmp_path: Path) -> None:
    """The simulator's states have one width in one task, and come back too."""
    convert(sample / "libero_goal", tmp_path / "a.zarr", workers=0)
    assert export_lerobot(tmp_path / "a.zarr", tmp_path / "out").left_out == {}
    convert(tmp_path / "out", tmp_path / "b.zarr", workers=0)
    assert_same(open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr"), without=set())


@pytest.mark.slow(reason="240 MB of real files there and back")
def test_there_and_back_of_real_files(real_data: Path, tmp_path: Path) -> None:
    convert(real_data, tmp_path / "a.zarr", workers=2)
    left_out = set(export_lerobot(tmp_path / "a.zarr", tmp_path / "out").left_out)
    convert(tmp_path / "out", tmp_path / "b.zarr", workers=2)
    assert_same(open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr"), without=left_out)


def test_recorded_by_lerobot(v21: Path, tmp_path: Path) -> None:
    convert(v21, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    assert store.episodes.length.tolist() == list(LENGTHS)
    assert store.episodes.instruction == TASKS
    assert store.metadata.control_freq == 10
    assert (store.episodes.alignment == -1).all()
    for row, (step, top, state, action) in enumerate(
        zip(store.index.step, column(store, "top"), column(store, "state"), column(store, "actions"), strict=True)
    ):
        for found, expected in zip((top, state, action), recorded(row, int(step)), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert verify(tmp_path / "a.zarr", sources=[v21], workers=0).ok


def test_frames_of_videos(v21: Path, tmp_path: Path) -> None:
    """Each step has its own frame: as a plain decoding from the first frame on gives it; and the store names the decoder."""
    convert(v21, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    expected = []
    for path in sorted(v21.glob("videos/**/*.mp4")):
        with av.open(str(path)) as container:
            expected += [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(column(store, "wrist"), np.stack(expected))
    assert abs(column(store, "wrist")[:, 0, 0, 0].astype(int) - 10 * np.arange(24)).max() <= 3
    assert store.keys["wrist"].decoded.startswith("AV1 by PyAV ")
    assert store.keys["wrist"].decoded.endswith(": a video, not exact")


@pytest.mark.parametrize("first", [0, 3, 17])
def test_frames_from_anywhere(v21: Path, first: int) -> None:
    """A jump in a video leads to the frame of that number."""
    from robozarr.convert.sources.lerobot.video import Video

    path = v21 / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    whole, part = np.empty((12, 64, 64, 3), np.uint8), np.empty((2, 64, 64, 3), np.uint8)
    video = Video(path, 10.0)
    video.read(0, whole)
    for at in (first % 10, 0, 9):
        video.read(at, part)
        np.testing.assert_array_equal(part, whole[at : at + 2])
    video.close()


def change_lines(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def wrong_statistics(root: Path) -> None:
    change_lines(root / "meta/episodes_stats.jsonl", '"max": [6.0, 6.0, 0.0]', '"max": [6.0, 7.0, 0.0]')


def wrong_length(root: Path) -> None:
    change_lines(root / "meta/episodes.jsonl", '"length": 12', '"length": 13')


def no_such_task(root: Path) -> None:
    change_lines(root / "meta/tasks.jsonl", '"task_index": 1', '"task_index": 4')


def other_version(root: Path) -> None:
    change_lines(root / "meta/info.json", "v2.1", "v1.6")


def other_rate(root: Path) -> None:
    change_lines(root / "meta/info.json", '"fps": 10', '"fps": 20')


def names_outside(root: Path) -> None:
    change_lines(root / "meta/info.json", '"videos/chunk', '"../videos/chunk')


def names_that_ask_for_much(root: Path) -> None:
    change_lines(root / "meta/info.json", "{video_key}", "{video_key:1000000000}")


def no_video(root: Path) -> None:
    (root / "videos/chunk-000/observation.images.wrist/episode_000001.mp4").unlink()


def cut_parquet(root: Path) -> None:
    path = root / "data/chunk-000/episode_000001.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def rewrite(root: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = root / "data/chunk-000/episode_000001.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def two_tasks(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index("task_index")
        return table.set_column(at, "task_index", pa.array([1] * 11 + [0]))

    rewrite(root, change)


def no_number(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        rows = [[float("nan"), 0.0]] + [[0.0, 0.0]] * 11
        return table.set_column(table.column_names.index("action"), "action", pa.array(rows, pa.list_(pa.float32())))

    rewrite(root, change)


def lost_picture(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        name = "observation.images.top"
        pictures = table.column(name).to_pylist()
        pictures[0] = {"bytes": None, "path": "images/a.png"}
        return table.set_column(table.column_names.index(name), name, pa.array(pictures, table.schema.field(name).type))

    rewrite(root, change)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (wrong_statistics, r"episode_000000.*observation\.state.*statistics.*max 7, where the data has 6, in element 1"),
        (wrong_length, r"episode_000001.*the table of episodes must state the rows of each.*13 steps, and 12 rows here"),
        (no_such_task, r"episode_000001.*task_index.*tasks must be in the table of tasks"),
        (other_version, r"version v2\.0 or v2\.1 or v3\.0.*v1\.6"),
        (other_rate, r"timestamp.*steps must be 1/20 s apart"),
        (names_outside, r"ValueError: video_path leads out of the data set, to '\.\./videos"),
        (names_that_ask_for_much, r"ValueError: video_path .* names files otherwise than LeRobot does"),
        (no_video, r"episode_000001.*observation\.images\.wrist.*No such file"),
        (cut_parquet, r"episode_000001\.parquet.*the file must be Parquet"),
        (two_tasks, r"episode_000001.*an episode must have one task.*2: \[0, 1\]"),
        (no_number, r"episode_000001.*actions must be finite.*nan at step 0, column 0"),
        (lost_picture, r"episode_000001.*not inside the Parquet file"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_problems_are_named(v21: Path, tmp_path: Path, break_it: Callable[[Path], None], words: str) -> None:
    break_it(v21)
    with pytest.raises(SourceError, match=r"problems? in the sources") as caught:
        convert(v21, tmp_path / "a.zarr", workers=0)
    assert any(re.search(words, str(problem)) for problem in caught.value.problems), caught.value.problems
    assert not (tmp_path / "a.zarr").exists() or not (tmp_path / "a.zarr" / "zarr.json").exists()


def test_bad_episodes_are_left_out_when_asked(v21: Path, tmp_path: Path) -> None:
    wrong_length(v21)
    report = convert(v21, tmp_path / "a.zarr", workers=0, on_error="skip")
    assert open_store(tmp_path / "a.zarr").episodes.length.tolist() == [7, 5]
    assert [entry["demo"] for entry in report.left_out] == ["episode_000001"]


def test_keys_and_without(v21: Path, tmp_path: Path) -> None:
    convert(v21, tmp_path / "a.zarr", workers=0, without=["wrist"])
    assert set(open_store(tmp_path / "a.zarr").keys) == {"actions", "state", "top"}
    convert(v21, tmp_path / "b.zarr", workers=0, keys=["observation.images.top"])
    assert set(open_store(tmp_path / "b.zarr").keys) == {"actions", "top"}
    with pytest.raises(PlanError, match="wrst"):
        convert(v21, tmp_path / "c.zarr", workers=0, without=["wrst"])


def test_changed_videos_are_another_source(v21: Path, tmp_path: Path) -> None:
    """A store binds the videos, the tasks and info.json of its sources too."""
    convert(v21, tmp_path / "a.zarr", workers=0)
    folder = v21 / "videos/chunk-000/observation.images.wrist"
    shutil.copy(folder / "episode_000001.mp4", folder / "episode_000000.mp4")
    assert not verify(tmp_path / "a.zarr", sources=[v21], workers=0).ok


def test_bad_frame_inside(own: Path, tmp_path: Path) -> None:
    """A picture that is broken in the middle of an episode is found while frames are read, and named."""
    path = own / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = "observation.images.agentview_rgb"
    pictures = table.column(name).to_pylist()
    pictures[4]["bytes"] = pictures[4]["bytes"][:500]
    pq.write_table(
        table.set_column(table.column_names.index(name), name, pa.array(pictures, table.schema.field(name).type)), path
    )
    with pytest.raises(SourceError, match=r"sources cannot be read|cannot be used") as caught:
        convert(own, tmp_path / "a.zarr", workers=0)
    assert caught.value.problems[0].demo == "episode_000000"
    assert caught.value.problems[0].key == name


def test_serves_what_was_recorded(v21: Path, tmp_path: Path) -> None:
    """A window of the store has the recorded rows: the whole way from LeRobot's files to a batch."""
    convert(v21, tmp_path / "a.zarr", workers=0)
    dataset = rz.WindowDataset(open_store(tmp_path / "a.zarr"), {"top": [0], "actions": [0, 1]})
    sample = dataset[8]
    np.testing.assert_array_equal(sample["top"][0].numpy(), recorded(8, 1)[0])
    np.testing.assert_array_equal(sample["actions"][1].numpy(), recorded(9, 2)[2])


@pytest.mark.slow(reason="starts a cluster")
def test_workers_read_it(v21: Path, tmp_path: Path) -> None:
    """Dask's workers write the same bytes."""
    convert(v21, tmp_path / "a.zarr", workers=0)
    convert(v21, tmp_path / "b.zarr", workers=1)
    assert open_store(tmp_path / "a.zarr").identity == open_store(tmp_path / "b.zarr").identity


def test_info_is_kept_short(exported: Path) -> None:
    """What an export says for the way back is one object that LeRobot passes over."""
    info = json.loads((exported / "meta/info.json").read_text())
    assert info["robozarr"]["features"]["action"] == {"key": "actions", "shape": [7]}
    assert info["robozarr"]["turn"] == "none"

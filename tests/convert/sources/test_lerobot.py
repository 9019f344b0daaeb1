"""LeRobot data sets as sources: of version 3.0 as robozarr exports them, of version 2.1 as LeRobot itself recorded one.

lerobot_v21.tar.xz was recorded by lerobot 0.3.3 (LeRobotDataset.create, add_frame, save_episode): `recorded` says with what.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run_here
from numpy.typing import NDArray
from refused import assert_refused
from stored import column

import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.convert.sources.lerobot.statistics import differs
from robozarr.loader.adapters.lerobot.export import export_lerobot
from robozarr.schemas.errors import PlanError, SourceError
from robozarr.store.opened import open_store

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
    from robozarr.convert.sources.lerobot.video import VideoReader

    path = v21 / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    whole, part = np.empty((12, 64, 64, 3), np.uint8), np.empty((2, 64, 64, 3), np.uint8)
    video = VideoReader(path, 10.0)
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


def changed_info(**fields: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def feature(root: Path, name: str, dtype: str) -> None:
    """State a feature in info.json."""
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][name] = {"dtype": dtype, "shape": [1], "names": None}
    path.write_text(json.dumps(info))


def add_column(root: Path, name: str, make: Callable[[int], Any], dtype: str = "") -> None:
    """Add a column to every file, before the others; and the feature, unless dtype is empty."""
    for path in root.glob("data/**/*.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.add_column(0, name, pa.array(make(len(table)))), path)
    if dtype:
        feature(root, name, dtype)


def deep(root: Path) -> None:
    (root / "meta/info.json").write_text("[" * 200_000)


def twice(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta" / name
        path.write_text(path.read_text() + "\n" + path.read_text().splitlines()[0])

    return change


def short_table(root: Path) -> None:
    path = root / "meta/episodes.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:2]))


def tasks_of_several(root: Path) -> None:
    change_lines(root / "meta/tasks.jsonl", '"open the drawer"', '["open", "the drawer"]')


def statistics_of_another_form(root: Path) -> None:
    (root / "meta/stats.json").write_text('{"action": [1]}')


def lost_file(root: Path) -> None:
    (root / "data/chunk-000/episode_000001.parquet").unlink()


def file_twice(root: Path) -> None:
    path = root / "data/chunk-000/episode_000001.parquet"
    shutil.copy(path, path.with_name("episode_000001 (1).parquet"))


def no_rows(root: Path) -> None:
    rewrite(root, lambda table: table.slice(0, 0))


def negative_episode(root: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index("episode_index")
        return table.set_column(at, "episode_index", pa.array([-1] * len(table)))

    rewrite(root, change)


def lists_of_any_length(root: Path) -> None:
    add_column(root, "points", lambda n: [[0.0] * (i % 3) for i in range(n)], "float32")


def no_column(root: Path) -> None:
    feature(root, "next.reward", "float32")


def cut_video(root: Path) -> None:
    """Of twelve frames eight are left, which PyAV writes anew."""
    path = root / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:8]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def list_of_other_files(root: Path) -> None:
    """FFmpeg would follow it."""
    path = root / "videos/chunk-000/observation.images.wrist/episode_000001.mp4"
    shutil.copy(path, path.with_name("other.mp4"))
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (wrong_statistics, r"episode_000000.*observation\.state.*statistics.*max 7, where the data has 6, in element 1"),
        (wrong_length, r"episode_000001.*the table of episodes must state the rows of each.*13 steps, and 12 rows here"),
        (no_such_task, r"episode_000001.*task_index.*tasks must be in the table of tasks"),
        (other_version, r"version v2\.0 or v2\.1 or v3\.0.*v1\.6"),
        (other_rate, r"timestamp.*steps must be 1/20 s apart"),
        (names_outside, r"ValueError: a file's name leads out of the data set, to '\.\./videos"),
        (names_that_ask_for_much, r"ValueError: .*video_key:1000000000.* names files otherwise than LeRobot does"),
        (changed_info(data_path="/etc/{episode_index}"), r"ValueError: a file's name leads out of the data set, to '/etc/0'"),
        (changed_info(fps=0), r"ValueError: fps is 0"),
        (changed_info(fps=float("nan")), r"ValueError: fps is nan"),
        (changed_info(chunks_size=0), r"ZeroDivisionError"),
        (changed_info(total_episodes=4), r"ValueError: total_episodes is 4, and the table of episodes has 3"),
        (changed_info(features=[1]), r"meta/ must hold info\.json.*TypeError"),
        (deep, r"RecursionError"),
        (twice("episodes.jsonl"), r"ValueError: episode_index 0 occurs twice"),
        (twice("tasks.jsonl"), r"ValueError: task_index 0 occurs twice"),
        (short_table, r"ValueError: total_episodes is 3, and the table of episodes has 2"),
        (tasks_of_several, r"TypeError: a task must be text, not \['open', 'the drawer'\]"),
        (statistics_of_another_form, r"TypeError: statistics are objects"),
        (
            lost_file,
            r"every file with rows of an episode must be there; found no data/chunk-000/episode_000001\.parquet → .*name the",
        ),
        (file_twice, r"episode_000001 \(1\)\.parquet.*its rows in data/chunk-000/episode_000001\.parquet, and others here"),
        (no_rows, r"episode_000001.*the table of episodes must state the rows of each; found 12 steps, and no rows here"),
        (negative_episode, r"episode_index of int64, such as \[-1\]"),
        (lists_of_any_length, r"episode_000001.*points.*lists of 0 to 2 values.*or the feature with --without points"),
        (no_column, r"next\.reward.*a feature of info\.json is a column of the file; found none"),
        (no_video, r"episode_000001.*observation\.images\.wrist.*No such file"),
        (cut_video, r"episode_000001.*observation\.images\.wrist.*8 frames, but an episode needs those from 0 to 12"),
        (list_of_other_files, r"episode_000001.*observation\.images\.wrist.*the feature must be readable"),
        (cut_parquet, r"episode_000001\.parquet.*the file must be Parquet"),
        (two_tasks, r"episode_000001.*an episode must have one task.*2: \[0, 1\]"),
        (no_number, r"episode_000001.*actions must be finite.*nan at step 0, column 0"),
        (lost_picture, r"episode_000001.*not inside the Parquet file"),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_problems_are_named(v21: Path, tmp_path: Path, break_it: Callable[[Path], None], words: str) -> None:
    break_it(v21)
    assert_refused(v21, tmp_path / "a.zarr", words)


def test_what_is_unusual_is_kept(v21: Path, tmp_path: Path) -> None:
    """Flags, a feature called as a key is, one whose name begins as another's; what is not kept is listed with its reason."""
    add_column(v21, "next.done", lambda n: np.arange(n) == n - 1, "bool")
    add_column(v21, "actions", lambda n: np.arange(n), "int64")
    add_column(v21, "action.gripper", lambda n: np.full(n, -9, np.float32), "float32")
    add_column(v21, "language_instruction", lambda n: ["left"] * n, "string")
    add_column(v21, "score", lambda n: np.zeros(n))
    report = convert(v21, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    assert set(store.keys) == {"action.gripper", "actions", "data.actions", "next.done", "state", "top", "wrist"}
    step, last = store.index.step, store.episodes.start + store.episodes.length - 1
    np.testing.assert_array_equal(column(store, "actions"), [recorded(row, int(step[row]))[2] for row in range(24)])
    np.testing.assert_array_equal(column(store, "data.actions"), step)
    assert np.flatnonzero(column(store, "next.done")).tolist() == last.tolist()
    assert (column(store, "action.gripper") == -9).all()
    why = {entry["path"]: entry["reason"] for entry in report.not_stored}
    assert (why["language_instruction"], why["score"]) == ("text a step", "a column that is no feature of info.json")
    assert verify(tmp_path / "a.zarr", sources=[v21], workers=0).ok


def test_actions_of_one_number(v21: Path, tmp_path: Path) -> None:
    """LeRobot writes a feature of the shape [1] as a number."""
    (v21 / "meta/episodes_stats.jsonl").unlink()
    for path in v21.glob("data/**/*.parquet"):
        table = pq.read_table(path)
        at, values = table.column_names.index("action"), np.arange(len(table), dtype=np.float32)
        pq.write_table(table.set_column(at, "action", pa.array(values)), path)
    convert(v21, tmp_path / "a.zarr", workers=0)
    store = open_store(tmp_path / "a.zarr")
    np.testing.assert_array_equal(column(store, "actions"), store.index.step[:, None].astype(np.float32))


def test_deviations_that_lerobot_gets_wrong(v21: Path, tmp_path: Path) -> None:
    """LeRobot 0.4.4 squares uint8 in uint8: of pictures and small integers it states no deviation; no refusal."""
    add_column(v21, "code", lambda n: (20 * np.arange(n)).astype(np.uint8), "uint8")
    path = v21 / "meta/episodes_stats.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        code = (20 * np.arange(LENGTHS[row["episode_index"]])).astype(np.uint8)
        mean = float(code.mean())
        row["stats"]["code"] = {"min": [0], "max": [int(code.max())], "mean": [mean], "std": [0.0], "count": [len(code)]}
        row["stats"]["observation.images.top"]["std"] = [[[0.0]]] * 3
    path.write_text("\n".join(map(json.dumps, rows)))
    report = convert(v21, tmp_path / "a.zarr", workers=0)
    said = {entry["path"] for entry in report.not_stored if "LeRobot 0.4.4" in entry["reason"]}
    assert said == {"meta: stats of code", "meta: stats of observation.images.top"}
    rows[1]["stats"]["code"]["max"] = [7]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert_refused(v21, tmp_path / "b.zarr", r"episode_000001.*code.*max 7, where the data has 220")


def test_deviations_in_float32() -> None:
    """The mean of squares less the square of the mean, in float32, as LeRobot has it: of a large mean little is right."""
    values = (180.1 + 0.003 * np.random.default_rng(3).normal(size=(501, 1))).astype(np.float32)
    stated = float(np.sqrt(np.mean(values**2, axis=0) - np.mean(values, axis=0) ** 2)[0])
    assert stated > 0.04
    assert differs(values, {"std": [stated]}, {}) == ""
    assert differs(values, {"std": [1.0]}, {}).startswith("std 1, where the data has 0.00")


def test_data_sets_of_equal_names(v21: Path, tmp_path: Path) -> None:
    """Files and tasks of two data sets are called the same; by the folders of the data sets they are two, given together or
    appended. An episode that is recorded later joins them."""
    shutil.copytree(v21, tmp_path / "other")
    (tmp_path / "other/meta/episodes_stats.jsonl").unlink()
    for path in (tmp_path / "other").glob("data/**/*.parquet"):
        table = pq.read_table(path)
        at, values = table.column_names.index("action"), np.ones((len(table), 2), np.float32)
        pq.write_table(table.set_column(at, "action", pa.array(values.tolist(), pa.list_(pa.float32()))), path)
    convert([v21, tmp_path / "other"], tmp_path / "a.zarr", workers=0)
    convert(tmp_path / "other", tmp_path / "b.zarr", workers=0)
    convert(v21, tmp_path / "b.zarr", workers=0, append=True)
    for name in ("a.zarr", "b.zarr"):
        store = open_store(tmp_path / name)
        assert sorted(store.episodes.length.tolist()) == sorted(2 * LENGTHS)
        assert (column(store, "actions") == 1).all(axis=1).sum() >= sum(LENGTHS)
    more_recorded(v21)
    assert convert(v21, tmp_path / "b.zarr", workers=0, append=True).n_appended == 1


def more_recorded(root: Path) -> None:
    """Record an episode: the last one again, under the next number."""
    table = pq.read_table(root / "data/chunk-000/episode_000002.parquet")
    at, index = table.column_names.index("episode_index"), pa.array([3] * len(table))
    pq.write_table(table.set_column(at, "episode_index", index), root / "data/chunk-000/episode_000003.parquet")
    for name in ("episodes.jsonl", "episodes_stats.jsonl"):
        path = root / "meta" / name
        row = json.loads(path.read_text().splitlines()[2])
        path.write_text(path.read_text().rstrip() + "\n" + json.dumps({**row, "episode_index": 3}))
    folder = root / "videos/chunk-000/observation.images.wrist"
    shutil.copy(folder / "episode_000002.mp4", folder / "episode_000003.mp4")
    changed_info(total_episodes=4)(root)


def test_what_was_repaired_is_read_again(v21: Path, tmp_path: Path) -> None:
    """Files of meta/ are kept in memory as long as nothing in them changes."""
    text = (v21 / "meta/episodes.jsonl").read_text()
    wrong_length(v21)
    assert_refused(v21, tmp_path / "a.zarr", "13 steps, and 12 rows here")
    (v21 / "meta/episodes.jsonl").write_text(text)
    convert(v21, tmp_path / "a.zarr", workers=0)


def test_an_export_without_the_parts_of_its_state(sample_store: Path, tmp_path: Path) -> None:
    """A joined state repeats its parts only where they were written too; and it must be what they are."""
    export_lerobot(sample_store, tmp_path / "out", images=[], keys=[])
    convert(tmp_path / "out", tmp_path / "a.zarr", workers=0)
    one, other = open_store(sample_store), open_store(tmp_path / "a.zarr")
    parts = [column(one, key) for key in ("ee_pos", "ee_ori", "gripper_states")]
    np.testing.assert_array_equal(column(other, "state"), np.concatenate(parts, axis=1))
    export_lerobot(sample_store, tmp_path / "whole", images=[])
    path = tmp_path / "whole/data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    at, kind = table.column_names.index("ee_pos"), table.schema.field("ee_pos").type
    moved = (np.array(table.column("ee_pos").to_pylist()) + 1).tolist()
    pq.write_table(table.set_column(at, "ee_pos", pa.array(moved, kind)), path)
    for stats in (tmp_path / "whole/meta").glob("**/*.parquet"):
        names = [name for name in pq.read_table(stats).column_names if not name.startswith("stats/ee_pos")]
        pq.write_table(pq.read_table(stats).select(names), stats)
    (tmp_path / "whole/meta/stats.json").unlink()
    assert_refused(tmp_path / "whole", tmp_path / "b.zarr", r"observation\.state.*it repeats ee_pos, .*; found other values")


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


def test_the_commands_say_what_it_is(v21: Path, tmp_path: Path) -> None:
    """`layouts` lists and recognises the sources that are not HDF5; `convert` has a line for what many files hold alike."""
    listed = run_here("layouts").stdout
    for name, path in (("lerobot", v21), ("replay_buffer", Path(__file__).with_name("replay_buffer.zarr.zip"))):
        assert f"\n{name}" in listed
        assert f"{path}: {name} (" in run_here("layouts", path).stdout
        assert "not kept: " in run_here("layouts", name).stdout
    assert [each["name"] for each in json.loads(run_here("layouts", "--json").stdout)["others"]] == ["lerobot", "replay_buffer"]
    converted = run_here("convert", v21, "--store", tmp_path / "a.zarr", "--workers", "0").stdout
    assert converted.count("not stored: timestamp") == 1
    assert "not stored: timestamp in 3 demos of chunk-000/episode_000000.parquet and 2 more files: follows from" in converted

"""A store becomes a LeRobot data set or a ReplayBuffer, and that the same store: numbers and frames bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import column

import synthetic
from robozarr.convert import convert, verify
from robozarr.loader.adapters.diffusion_policy.export import ReplayBufferExport, export_replay_buffer
from robozarr.loader.adapters.lerobot.export import LeRobotExport, export_lerobot
from robozarr.store.opened import Store, open_store

Export = Callable[[Path, Path], LeRobotExport | ReplayBufferExport]
FOLDER = pytest.mark.slow(reason="two more conversions; a ReplayBuffer in a zip is the same files")
WAYS = pytest.mark.parametrize(
    ("export", "name"),
    [
        pytest.param(export_lerobot, "lerobot", id="lerobot"),
        pytest.param(export_replay_buffer, "out.zarr.zip", id="zip"),
        pytest.param(export_replay_buffer, "out.zarr", id="folder", marks=FOLDER),
    ],
)


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


REST = ("robot_states", "rewards", "obs/eye_in_hand_rgb", "obs/ee_pos", "obs/ee_ori")


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store of two tasks, whose states have two widths."""
    folder = tmp_path_factory.mktemp("two")
    for n in range(2):
        options: dict[str, Any] = {"n_states": 20 + n, "seed": n, "instruction": f"do {n}", "drop_keys": REST}
        synthetic.write_libero(folder / f"s/task{n}_demo.hdf5", lengths=(7, 5), size=16, **options)
    convert(folder / "s", folder / "a.zarr", workers=0)
    return folder / "a.zarr"


@WAYS
def test_there_and_back(two_tasks: Path, tmp_path: Path, export: Export, name: str) -> None:
    assert set(export(two_tasks, tmp_path / name).left_out) == {"states"}
    convert(tmp_path / name, tmp_path / "back.zarr", workers=0)
    assert_same(open_store(two_tasks), open_store(tmp_path / "back.zarr"), without={"states"})
    assert verify(tmp_path / "back.zarr", sources=[tmp_path / name], workers=0).ok


@pytest.mark.slow(reason="three conversions and an export each")
@WAYS
def test_of_one_task(sample: Path, tmp_path: Path, export: Export, name: str) -> None:
    """The simulator's states have one width in one task, and come back too."""
    convert(sample / "libero_goal", tmp_path / "a.zarr", workers=0)
    assert export(tmp_path / "a.zarr", tmp_path / name).left_out == {}
    convert(tmp_path / name, tmp_path / "b.zarr", workers=0)
    assert_same(open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr"), without=set())


@pytest.mark.slow(reason="240 MB of real files there and back")
@WAYS
def test_of_real_files(real_data: Path, tmp_path: Path, export: Export, name: str) -> None:
    convert(real_data, tmp_path / "a.zarr", workers=2)
    left_out = set(export(tmp_path / "a.zarr", tmp_path / name).left_out)
    convert(tmp_path / name, tmp_path / "b.zarr", workers=2)
    assert_same(open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr"), without=left_out)

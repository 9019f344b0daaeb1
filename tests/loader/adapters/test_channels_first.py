"""Pictures that a source stores channels first: adapters serve what they serve of the same pictures channels last."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import families
import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.adapters.openpi import OpenPIDataset
from robozarr.loader.adapters.openvla import OpenVLADataset
from robozarr.loader.adapters.rdt.dataset import RDTDataset
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")
pytestmark = pytest.mark.filterwarnings("ignore:.*have no instruction")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same file twice, with one camera or both channels first in the second."""
    folder = tmp_path_factory.mktemp("chw")
    for name in ("last", "first"):
        source = write_libero(folder / name / "pick_up_the_cup_demo.hdf5", lengths=(9, 12), size=16)
        if name == "first":
            with h5py.File(source, "r+") as file:
                for demo in file["data"].values():
                    for camera in CAMERAS:
                        frames = demo[f"obs/{camera}"][()]
                        del demo[f"obs/{camera}"]
                        demo[f"obs/{camera}"] = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
        convert(source, folder / f"{name}.zarr", workers=0)
    assert rz.open_store(folder / "first.zarr").keys["agentview_rgb"].picture_axes == "cyx"
    return folder / "last.zarr", folder / "first.zarr"


def assert_same(one: Any, other: Any, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert set(one) == set(other), where
        for name in one:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other)
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor | np.ndarray):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=where, strict=True)
    else:
        assert one == other, where


ADAPTERS: dict[str, Any] = {
    "openpi": lambda store, **more: OpenPIDataset(store, action_horizon=5, **more),
    "openvla": lambda store, **more: OpenVLADataset(store, chunk=4, **more),
    "rdt": lambda store, **more: RDTDataset(store),
}


@pytest.mark.parametrize("turn", ["rotate", "upright", "none"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_samples_and_batches_are_the_same(stores: tuple[Path, Path], name: str, turn: str) -> None:
    last, first = (ADAPTERS[name](store, turn=turn) for store in stores)
    assert len(last) == len(first)
    if name != "rdt":
        for index in range(len(last)):
            assert_same(last[index], first[index], f"{name} {index}")
    n = 0
    for one, other in zip(last.loader(5, seed=1), first.loader(5, seed=1), strict=True):
        assert_same(one, other, name)
        n += len(one["episode"])
    assert n == len(last)


def test_batches_that_are_kept_stay(stores: tuple[Path, Path]) -> None:
    dataset = OpenPIDataset(stores[1], action_horizon=3)
    kept = list(dataset.loader(4, shuffle=False))
    again = torch.cat([batch["image"] for batch in dataset.loader(4, shuffle=False)])
    assert torch.equal(torch.cat([batch["image"] for batch in kept]), again)


def test_isaac_labs_cameras(tmp_path: Path) -> None:
    """A store with a camera channels first, of another tree: the camera is named, and served upright as stored."""
    source = families.write_isaaclab(tmp_path / "a.hdf5", channels_first=True)
    with h5py.File(source, "r+") as file:
        for demo in file["data"].values():
            n = len(demo["actions"])
            for key, width in (("ee_pos", 3), ("ee_ori", 3), ("gripper_states", 2)):
                demo[f"obs/{key}"] = np.random.default_rng(0).normal(size=(n, width))
    convert(source, tmp_path / "a.zarr", workers=0, instruction="stack the cubes")
    from robozarr.loader.adapters.libero import LiberoWindows, pictures

    windows = LiberoWindows(tmp_path / "a.zarr", chunk=2, drop_noops=False, wording="file", turn="none", images=["table_cam"])
    batch = windows.read(range(len(windows)))
    served = pictures(batch, windows, ["image"])["image"].numpy()
    with h5py.File(source) as file:
        frames = np.concatenate([demo["obs/table_cam"][()] for demo in file["data"].values()])
    starts = windows.store.episodes.start[batch["episode"].numpy()] + batch["step"].numpy()
    np.testing.assert_array_equal(served[:, 0], frames[starts].transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((16, 16), "u1"), ((16, 16, 4), "u1"), ((4, 16, 16), "u1"), ((3, 16, 16), "f4"), ((2, 16, 16, 3), "u1")],
)
def test_other_pictures_are_refused_with_what_to_do(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    source = write_libero(tmp_path / "pick_up_the_cup_demo.hdf5", lengths=(4,), size=16)
    with h5py.File(source, "r+") as file:
        for demo in file["data"].values():
            del demo["obs/agentview_rgb"]
            demo["obs/agentview_rgb"] = np.random.default_rng(0).integers(0, 255, (len(demo["actions"]), *shape)).astype(dtype)
    convert(source, tmp_path / "a.zarr", workers=0)
    with (
        warnings.catch_warnings(),
        pytest.raises(WindowError, match=r"agentview_rgb: colours of uint8, \[y, x, 3\] or \[3, y, x\]"),
    ):
        OpenPIDataset(tmp_path / "a.zarr")

"""Pictures that are read upright: those of the store, turned by each episode's convention, and never twice."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from bucket_stores import upload
from small_store import gather

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.loader.adapters.openpi import OpenPIDataset
from robozarr.loader.adapters.rdt.dataset import RDTDataset
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import ImageConvention
from robozarr.schemas.layout import PROFILES, Profile

CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")
SPEC = {name: [-1, 0] for name in CAMERAS} | {"agentview_depth": [0], "actions": range(3)}


ONE_MORE = pytest.mark.slow(reason="converts once more for another codec")
STORES = [pytest.param(profile, marks=ONE_MORE if profile in ("raw", "lean") else ()) for profile in PROFILES]


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of 12 steps: one renders the bottom row first, the other the top row."""
    folder, profile = tmp_path_factory.mktemp("made"), request.param
    files = [
        synthetic.write_libero(folder / "s" / f"{name}_demo.hdf5", size=(10, 12), seed=i, depth=True)
        for i, name in enumerate("ab")
    ]
    with h5py.File(files[1], "a") as file:
        file["data"].attrs["macros_image_convention"] = "opencv"
    made: Profile = profile
    convert(files, folder / "a.zarr", profile=made, workers=0)
    return folder / "a.zarr"


def dataset_of(store: Any, upright: Any, **options: Any) -> rz.WindowDataset:
    return rz.WindowDataset(store, rz.WindowSpec(SPEC, padding={"eye_in_hand_rgb": "zero"}), upright=upright, **options)


def expected_of(store: rz.Store, names: Any) -> dict[str, Any]:
    """What is stored, turned by numpy."""
    batch = dataset_of(store, False).read(range(store.n_steps))
    over = (store.episodes.image_convention == ImageConvention.OPENGL)[batch["episode"].numpy()]
    assert 0 < over.sum() < len(over)
    for name in names:
        values = batch[name].numpy().copy()
        values[over] = values[over][:, :, ::-1]
        batch[name] = torch.from_numpy(values)
    return batch


def assert_same(got: Any, expected: Any) -> None:
    for name, values in expected.items():
        assert got[name] == values if isinstance(values, list) else torch.equal(got[name], values), name


def test_all_ways_of_reading(store: Path) -> None:
    opened = rz.open_store(store)
    pictures = (*CAMERAS, "agentview_depth")
    for given, names in ((True, pictures), (["agentview_rgb"], ["agentview_rgb"]), (False, ())):
        expected, dataset = expected_of(opened, names), dataset_of(opened, given)
        assert dataset.upright == tuple(names)
        assert_same(dataset.read(range(len(dataset))), expected)
        assert_same(pickle.loads(pickle.dumps(dataset)).read(range(len(dataset))), expected)
        assert_same(dataset_of(opened, given, frames_in_memory=True).read(range(len(dataset))), expected)
        for options in ({"threads": 2}, {"cache": "host"}, {"cache": "device"}):
            assert_same(gather(rz.WindowLoader(dataset, 5, **options)), expected)


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_a_bucket(store: Path, s3: str, tmp_path: Path) -> None:
    url, expected = upload(store, s3), expected_of(rz.open_store(store), CAMERAS)
    for folder in (None, tmp_path / "cache", tmp_path / "cache"):
        dataset = dataset_of(rz.open_store(url, s3, cache_dir=folder), CAMERAS)
        assert_same(dataset.read(range(len(dataset))), expected)


def test_nothing_is_turned_twice(store: Path) -> None:
    opened = rz.open_store(store)
    images = rz.Images(dtype=None, scale=False, channels_first=False)
    for given in (False, True, ["eye_in_hand_rgb"]):
        batches = rz.WindowLoader(dataset_of(opened, given), 6, shuffle=False, images=images)
        got = torch.cat([batch["agentview_rgb"].clone() for batch in batches])
        assert torch.equal(got, expected_of(opened, CAMERAS)["agentview_rgb"])
    shown = [dataset_of(opened, given).show(3).frames() for given in (False, True)]
    assert shown[0] == shown[1]
    with pytest.raises(WindowError, match=r"loader · mixture: the same keys are read upright in all datasets; got .*none"):
        rz.WindowLoader([dataset_of(opened, True), dataset_of(opened, False)], 6)


def test_adapters(store: Path) -> None:
    opened = rz.open_store(store)
    expected = expected_of(opened, CAMERAS)
    batch = RDTDataset(opened).read(range(4))
    at = [int(opened.episodes.start[e]) + int(s) for e, s in zip(batch["episode"], batch["step"], strict=True)]
    assert torch.equal(torch.as_tensor(batch["cam_high"]), expected["agentview_rgb"][at])
    sample = OpenPIDataset(opened, turn="upright", drop_noops=False)[2]
    assert np.array_equal(np.asarray(sample["image"]), expected["agentview_rgb"][2, 1].numpy())


def test_what_cannot_be_upright_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = rz.open_store(store)
    for given, text in (
        (["actions"], "dataset · upright: pictures .* got actions"),
        ("agentview_rgb", "True, False or a list of keys; got 'agentview_rgb'"),
        (["nothing"], "got nothing"),
    ):
        with pytest.raises(WindowError, match=text):
            dataset_of(opened, given)
    opened.episodes.image_convention[:] = ImageConvention.UNKNOWN
    with pytest.raises(WindowError, match="every episode's convention is known; it is not of 4, such as 0"):
        dataset_of(opened, True)

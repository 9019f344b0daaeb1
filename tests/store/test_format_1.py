"""Stores of format 1, as robozarr wrote them before: read as the same numbers, array by array.

format_1.tar.xz was written by commit 3d722f5: two files of synthetic.write_libero (``sources``), converted with three profiles.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

import robozarr as rz
from robozarr.cli import run
from robozarr.convert import convert, verify
from robozarr.schemas.errors import RoboZarrError

PROFILES = ("fast", "compact", "raw")
SOME_PROFILES = [
    pytest.param(name, marks=[pytest.mark.slow(reason="converts anew with each profile")] * (name != "fast"))
    for name in PROFILES
]
SUMS = ("checksums/", "fingerprints/")
"""Of frames: what their chunks end in, which depends on the codec."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("format_1")
    with tarfile.open(Path(__file__).with_name("format_1.tar.xz")) as archive:
        archive.extractall(folder, filter="data")
    return folder


def arrays(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(group: Any, prefix: str) -> None:
        for name, item in group.members():
            if isinstance(item, zarr.Array):
                found[prefix + name] = np.asarray(item[...])
            else:
                walk(item, f"{prefix}{name}/")

    walk(zarr.open_group(path, mode="r"), "")
    return found


@pytest.mark.parametrize("profile", SOME_PROFILES)
def test_every_array_is_that_of_todays_conversion(profile: Any, folder: Path, tmp_path: Path) -> None:
    convert(folder / "sources", tmp_path / "now.zarr", workers=0, profile=profile)
    old, new = arrays(folder / f"{profile}.zarr"), arrays(tmp_path / "now.zarr")
    added = ("episodes/instruction", *SUMS[1:])  # of format 2
    assert set(old) <= set(new)
    assert all(path.startswith(added) for path in set(new) - set(old))
    compared = 0
    for path in old:
        if path.startswith(SUMS) and old[path].tobytes() != new[path].tobytes():
            assert profile == "compact"  # its codec is another one now
            continue
        assert (old[path].dtype, old[path].shape) == (new[path].dtype, new[path].shape), path
        assert old[path].tobytes() == new[path].tobytes(), path
        compared += 1
    assert compared > 70


@pytest.mark.parametrize("profile", SOME_PROFILES)
def test_every_key_is_what_h5py_reads_of_the_sources(profile: str, folder: Path) -> None:
    store = rz.open_store(folder / f"{profile}.zarr")
    assert store.metadata.format_version == 1
    assert store.episodes.instruction == ("close it", "open the top drawer", "open the top drawer")
    for episode, (start, length) in enumerate(zip(store.episodes.start.tolist(), store.episodes.length.tolist(), strict=True)):
        name = store.metadata.sources[int(store.episodes.source[episode])].name
        with h5py.File(folder / "sources" / name) as file:
            demo = file[f"data/{store.episodes.demo[episode]}"]
            for key in store.metadata.keys:
                if not key.ragged:
                    values = np.asarray(store.array(key.name)[start : start + length])
                    assert values.tobytes() == demo[key.source][()].tobytes(), (episode, key.name)
    report = verify(folder / f"{profile}.zarr", sources=folder / "sources", workers=0)
    assert report.ok, report.violations


def test_windows_batches_and_statistics_are_the_same(folder: Path, tmp_path: Path) -> None:
    convert(folder / "sources", tmp_path / "now.zarr", workers=0)
    spec = rz.WindowSpec({"agentview_rgb": [-1, 0], "agentview_depth": [0], "joint_states": [0], "actions": range(4)})
    options: dict[str, Any] = {
        "seed": 5, "images": rz.Images(), "normalise": rz.Normalise(keys={"actions": "q01_q99", "joint_states": "mean_std"})
    }  # fmt: skip
    for profile in PROFILES:
        old, new = (rz.WindowDataset(rz.open_store(path), spec) for path in (folder / f"{profile}.zarr", tmp_path / "now.zarr"))
        n = 0
        for one, other in zip(rz.WindowLoader(old, 5, **options), rz.WindowLoader(new, 5, **options), strict=True):
            assert set(one) == set(other)
            for name, values in one.items():
                same = values == other[name] if isinstance(values, list) else bool((values == other[name]).all())
                assert same, (profile, name)
            n += len(one["step"])
        assert n == 12


def looked_at(capsys: pytest.CaptureFixture[str], *command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run(command)
    assert ended.value.code == 0, capsys.readouterr()


@pytest.mark.slow(reason="draws charts, as tests/view/test_report.py does of today's format")
def test_it_is_reported(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looked_at(capsys, "report", str(folder / "fast.zarr"), "-o", str(tmp_path / "r.html"))


def test_it_is_looked_at_but_not_appended_to(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = folder / "fast.zarr"
    looked_at(capsys, "info", str(store))
    looked_at(capsys, "verify", str(store), "--workers", "0")
    with pytest.raises(RoboZarrError, match="has format 1, and this robozarr appends to format 2"):
        convert(folder / "sources", store, append=True, workers=0)

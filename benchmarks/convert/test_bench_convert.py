"""Run every kind of benchmark row once on little data, as a plain test."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest

from robozarr.convert import convert

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "sample"
PROFILES = ("raw", "fast", "lean", "compact")


@pytest.mark.slow(reason="every contender is tried")
def test_every_row_has_finite_numbers(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options: list[str | Path] = ["--rounds", "1", "--workers", "1", "--scratch", tmp_path, "--json", out]
    command = [sys.executable, HERE / "bench_convert.py", SAMPLE, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())

    rows = {row["name"]: row for row in result["rows"]}
    whole = {f"robozarr {profile}, {workers}" for profile, workers in product(PROFILES, ("inline", "1 worker"))}
    net = {f"{name}, net of start-up" for name in whole if "inline" not in name}
    bare = {f"bare loop {profile}{suffix}" for profile, suffix in product(PROFILES, ("", " + fsync"))}
    peers = {f"{peer} {profile}, 1 thread" for peer, profile in product(("zarr-python", "zarrs"), ("raw", "fast"))}
    assert set(rows) == {"cp", "cp + fsync", "h5py read"} | peers | bare | whole | net
    assert set(result["start_up_s"]) == {"start-up, 1 worker"}

    for name, row in rows.items():
        assert name in done.stdout
        speeds = [row["mb_per_s_min"], row["mb_per_s"], row["mb_per_s_max"]]
        assert all(math.isfinite(speed) for speed in speeds)
        assert 0 < speeds[0] <= speeds[1] <= speeds[2]
        assert (row["cpu_s_per_mb"] is None) == (name in net)
        assert name in net or math.isfinite(row["cpu_s_per_mb"])
        assert row["to_cp"] > 0
        assert row["to_cp_fsync"] > 0
        assert (row["to_bare"] is None) == (row["profile"] is None)
    assert rows["cp"]["to_cp"] == rows["bare loop fast"]["to_bare"] == 1
    assert "one worker to zarr-python, 4.0 or more: raw" in done.stdout
    assert "one worker in lean to one in fast, 1.0 or more: " in done.stdout
    assert "one worker in compact, MB/s, 100.0 or more: " in done.stdout
    assert str(tmp_path) not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.slow(reason="converts what is larger than a limit")
def test_no_process_takes_a_demo_larger_than_its_limit_into_memory(tmp_path: Path) -> None:
    options: list[str | Path] = ["--sizes-mb", "8", "--one-demo-mb", "700", "--workers", "1", "--profile", "raw"]
    command = [sys.executable, HERE / "bench_convert_scale.py", SAMPLE, *options, "--scratch", tmp_path]
    done = subprocess.run(
        [*command, "--json", tmp_path / "result.json"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    many, one = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert (many["one_demo"], one["one_demo"], one["n_demos"]) == (False, True, 1)
    assert many["n_demos"] > 2
    assert one["source_mb"] == pytest.approx(700, rel=0.02)
    assert 0 < one["peak_mb"] < 600
    assert all(0 < row[name] < math.inf for row in (many, one) for name in ("seconds", "work_s", "cpu_s", "peak_mb"))
    assert "limit 600: kept" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.fixture(scope="module")
def recut_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recut")
    command: list[str | Path] = [sys.executable, HERE / "recut.py", SAMPLE, folder, "--size-mb", "12"]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return sorted(folder.rglob("*.hdf5"))


def test_recut_files_are_of_the_size_that_was_asked_for(recut_files: list[Path]) -> None:
    assert sum(path.stat().st_size for path in recut_files) == pytest.approx(12e6, rel=0.15)


def test_recut_files_have_the_tree_of_their_source(recut_files: list[Path]) -> None:
    def tree(group: h5py.Group) -> dict[str, object]:
        found: dict[str, object] = {"": sorted(group.attrs)}
        group.visititems(
            lambda path, item: found.update(
                {path: (item.dtype, item.shape[1:], item.chunks, item.compression) if isinstance(item, h5py.Dataset) else None}
            )
        )
        return found

    for path in recut_files:
        source_path = SAMPLE / path.parent.name / path.name
        with h5py.File(path) as file, h5py.File(source_path) as source:
            assert tree(file["data/demo_0"]) == tree(source["data/demo_0"])
            assert sorted(file["data"].attrs) == sorted(source["data"].attrs)
            assert file["data"].attrs["num_demos"] == len(file["data"])
            assert file["data"].attrs["total"] == sum(len(demo["actions"]) for demo in file["data"].values())


def test_no_two_recut_demos_are_alike(recut_files: list[Path]) -> None:
    first_frames = set()
    n_demos = 0
    for path in recut_files:
        with h5py.File(path) as file:
            for demo in file["data"].values():
                first_frames.add(np.asarray(demo["obs/agentview_rgb"][:5]).tobytes())
                n_demos += 1
    assert len(first_frames) == n_demos > 4


def test_recut_files_convert(recut_files: list[Path], tmp_path: Path) -> None:
    report = convert(recut_files, tmp_path / "store.zarr", workers=0)
    assert report.n_sources == 2

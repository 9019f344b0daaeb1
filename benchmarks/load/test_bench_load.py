"""Run every row of the loading benchmark once on little data, as a plain test."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROFILES = ("raw", "fast", "lean", "compact")
STANDARD = ("raw", "fast")
BEFORE = "Blosc-zstd, a frame a chunk"
THREADS = ("1 thread", "2 threads")


@pytest.mark.slow(reason="every reader is tried")
def test_every_row_has_finite_numbers(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options: list[str | Path] = ["--rounds", "1", "--epochs", "1", "--scratch", tmp_path, "--json", out]
    command = [sys.executable, HERE / "bench_load.py", HERE.parents[1] / "sample", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())

    rows = {row["name"]: row for row in result["rows"]}
    hdf5 = {"file opened per sample (the seed's way)", "h5py kept open, item by item", "h5py low-level into the batch"}
    hdf5 |= {"memmap of contiguous HDF5"}
    peers = {f"{peer} {profile}" for peer, profile in product(("zarr-python slices", "TensorStore batch"), STANDARD)}
    peers |= {f"DataLoader, {workers} workers, {profile}" for workers, profile in product((0, 2), PROFILES)}
    own = {f"WindowLoader {what}, {threads}" for what, threads in product((*PROFILES, BEFORE, "cache=host"), THREADS)}
    assert set(rows) == hdf5 | peers | own | {f"index_select from RAM, {threads}" for threads in THREADS}

    for name, row in rows.items():
        assert name in done.stdout
        for what in ("cpu_us", "windows_per_s"):
            spread = [row[f"{what}_min"], row[what], row[f"{what}_max"]]
            assert all(math.isfinite(value) for value in spread)
            assert 0 < spread[0] <= spread[1] <= spread[2]
        assert row["zarr_to_this"] > 0
        assert row["to_limit"] > 0
    assert rows["zarr-python slices raw"]["zarr_to_this"] == rows["index_select from RAM, 1 thread"]["to_limit"] == 1
    assert set(result["python_share"]) == set(PROFILES)
    assert all(0 < share < 1 for share in result["python_share"].values())
    assert {row["name"] for row in result["single"]} == {*PROFILES, BEFORE}
    assert all(row["cpu_us"] > 0 and row["to_fast"] > 0 for row in result["single"])
    assert set(result["ratios"]) == {"raw", "lean", "compact"}
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in result["ratios"].values())
    sizes = result["header"]["camera_bytes"]
    assert sizes["compact"] < sizes["lean"] < sizes["fast"] < sizes["raw"]
    cold = {row["name"] for row in result["cold"]}
    assert {"one pread at a time, raw", "WindowLoader raw, 2 threads", "h5py low-level into the batch"} <= cold
    assert str(tmp_path) not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]

"""The compiled code keeps to its arrays by itself: built with numba's bounds checks, it is run over hostile stores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support"
SCRIPT = """
import random, shutil, sys
from pathlib import Path
import numpy as np
import format_writer, fuzz_stores
from hostile import seal, windows
import robozarr as rz
from robozarr.loader.frames.kernel import first_other, prepare_shards

assert np.array([1])[0] == 1
good, store = Path(sys.argv[1]) / "good.zarr", Path(sys.argv[1]) / "a.zarr"
counts = {"served": 0, "refused": 0}
for profile in ("raw", "fast", "lean", "compact"):
    shutil.rmtree(good, ignore_errors=True)
    format_writer.write_by_hand(good, profile)
    windows(str(good))
    for number in range(60):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(good, store)
        rng = random.Random(f"bounds/{number}")
        change = fuzz_stores.CHANGES[number % len(fuzz_stores.CHANGES)]
        change(store, rng)
        if change is not fuzz_stores.change_file:
            seal(store)
        try:
            windows(str(store))
            counts["served"] += 1
        except rz.RoboZarrError:
            counts["refused"] += 1
    reader = rz.WindowDataset(rz.open_store(good), rz.WindowSpec({"agentview_rgb": [0], "actions": [0]})).windows.reader
    for name, size in (("agentview_rgb", 216), ("actions", 32)):
        for row in (19, 20, 225, 2**40, 2**62):
            try:
                reader.read(name, np.array([[0, row]]), np.array([0]), np.zeros((1, 2, size), np.uint8))
            except rz.RoboZarrError:
                continue
            raise SystemExit(f"row {row} of {name}")
column = np.zeros((4, 8), np.uint8)
for ends in ([9, 9], [-1, 4], [2**62, 4], [4, 3], [4, 4, 4]):
    assert first_other(column, np.array(ends), np.zeros(2, np.uint32)) >= 0
print(counts)
"""


@pytest.mark.slow(reason="numba compiles all of the kernel anew: 30 s")
def test_with_bounds_checks(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(SUPPORT),
    }
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "'refused'" in ran.stdout

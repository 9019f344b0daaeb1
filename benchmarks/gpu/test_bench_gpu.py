"""The way to a GPU is measured to the end, here on the CPU: every row is there, beside the usual DataLoader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bench_gpu.py")
OPTIONS = ("--on-cpu", "--rounds=1", "--seconds=0.05", "--batch-size=8", "--step-ms=1")


@pytest.mark.slow(reason="workers that import torch, four conversions")
def test_every_row_is_measured(tmp_path: Path) -> None:
    root = SCRIPT.parents[2]
    paths = os.pathsep.join(str(root / "benchmarks" / name) for name in ("", "load"))
    done = subprocess.run(
        [sys.executable, SCRIPT, root / "sample", *OPTIONS],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for profile in ("raw", "fast", "lean", "compact"):
        assert f"\n{profile}: " in done.stdout
    assert "windows/s on the device; a DataLoader of" in done.stdout

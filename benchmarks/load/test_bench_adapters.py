"""Run every benchmark row once on little data, as a plain test. Speed is not asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow(reason="times every adapter")
def test_every_row_has_numbers() -> None:
    command = [sys.executable, str(HERE / "bench_adapters.py"), "--seconds", "0.01", "--rounds", "1", "--batch-size", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    rows = [line.rsplit(maxsplit=5) for line in done.stdout.splitlines()[1:]]
    assert [row[0] for row in rows] == ["RDT future_state", "RDT delta", "RDT, as stored", "robomimic", "OpenVLA", "openpi"]
    assert all(float(number) > 0 for row in rows for number in row[1:])

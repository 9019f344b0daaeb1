"""The benchmark also runs as a plain test: every row, on little data, once. How fast is not asked."""

from __future__ import annotations

from pathlib import Path

import bench_adapters
import pytest


@pytest.fixture
def sample_store(tmp_path: Path) -> Path:
    bench_adapters.convert(Path(__file__).parents[1] / "sample", tmp_path / "s.zarr", workers=0)
    return tmp_path / "s.zarr"


def test_every_row_has_numbers(sample_store: Path) -> None:
    results = bench_adapters.run(sample_store, 16, 0.01, 1, None)
    assert set(results) == {"RDT future_state", "RDT delta", "robomimic", "OpenVLA", "openpi"}
    assert all(number > 0 for row in results.values() for number in row)

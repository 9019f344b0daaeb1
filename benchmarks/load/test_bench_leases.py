"""Check that the benchmark runs and that its check can fail."""

from __future__ import annotations

from pathlib import Path

import bench_leases
import pytest
from bench_leases import check, make_loaders, run

from robozarr.convert import convert
from robozarr.loader.dataset import WindowDataset
from robozarr.store.opened import open_store
from scale_store import window


def test_rows_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Path(__file__).parents[2] / "sample"
    rows = run(sample, "raw", rounds=1, epochs=1, batch_size=8)
    assert list(rows) == ["ring", "leases", "leases, 8 held", "copies", "copies, 8 held"]
    assert all(row.cpu_us > 0 and row.to_ring > 0 for row in rows.values())
    convert(sample, tmp_path / "a.zarr", workers=0)
    dataset = WindowDataset(open_store(tmp_path / "a.zarr"), window())
    check(make_loaders(dataset, 8)["copies"], dataset)
    with pytest.raises(AssertionError, match="a kept batch has changed"):
        check(make_loaders(dataset, 8)["ring"], dataset)
    monkeypatch.setattr(bench_leases, "run", lambda *arguments: {"leases": bench_leases.Row(10.0, 1.2)})
    assert bench_leases.main([]) == 1

"""The measurement of a store larger than the memory, on the embedded sample: without a control group, and too small for one."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_small_memory import measure, run

from robozarr.convert import convert

SAMPLE = Path(__file__).parents[2] / "sample"


@pytest.mark.slow(reason="starts torch in a process of its own, 5 s")
def test_an_epoch_is_measured(tmp_path: Path) -> None:
    convert(SAMPLE, tmp_path / "a.zarr", workers=0)
    ((windows_per_s, cpu_us, n_bytes),) = measure(tmp_path / "a.zarr", None, 1)
    assert windows_per_s > 0
    assert cpu_us > 0
    assert n_bytes >= 0


@pytest.mark.slow(reason="converts in every profile, 2 s")
def test_a_store_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="too small for this → more --copies"):
        run(SAMPLE, 1, 1, tmp_path)

"""Check that the benchmark runs, and that its check can fail."""

from __future__ import annotations

from pathlib import Path

import bench_augment
import pytest

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.device.augmenting.steps import RandomShift


@pytest.mark.slow(reason="starts worker processes")
def test_rows(capsys: pytest.CaptureFixture[str]) -> None:
    sample = Path(__file__).parents[2] / "sample"
    arguments = [
        str(sample),
        "--rounds",
        "1",
        "--batches",
        "1",
        "--batch-size",
        "4",
        "--workers",
        "1",
        "--presets",
        "robomimic",
    ]
    assert bench_augment.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("samples/s" in line for line in lines) == 4 + 7


def test_the_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(Path(__file__).parents[2] / "sample", tmp_path / "a.zarr", workers=0)
    dataset = rz.WindowDataset(tmp_path / "a.zarr", {name: [0] for name in bench_augment.CAMERAS})
    augment = rz.Augment((RandomShift(4),))
    bench_augment.check(dataset, augment)
    monkeypatch.setattr(bench_augment, "keys_of_windows", lambda *given: given[-1].astype("uint64"))
    with pytest.raises(AssertionError, match="agentview_rgb"):
        bench_augment.check(dataset, augment)

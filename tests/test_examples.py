"""The example trains: its loss falls, and a run that was stopped mid-epoch goes on with identical batches."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from charts import words_only

from robozarr.convert import convert

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_bc.py"


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return imported(EXAMPLE)


def test_it_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 80


@pytest.mark.slow(reason="trains three times")
def test_the_loss_falls_and_a_stopped_run_goes_on_exactly(example: ModuleType, sample_store: Path, tmp_path: Path) -> None:
    whole = example.train(str(sample_store), 4, 8)
    per_epoch = len(whole) // 4
    assert sum(whole[-per_epoch:]) < 0.85 * sum(whole[:per_epoch])
    checkpoint = tmp_path / "run.pt"
    stop = per_epoch + 2  # in the second epoch
    begun = example.train(str(sample_store), 4, 8, checkpoint, stop)
    rest = example.train(str(sample_store), 4, 8, checkpoint)
    assert begun + rest == pytest.approx(whole, rel=1e-4)  # other batches would differ in the first digits


@pytest.mark.slow(reason="converts and trains on whole files")
def test_on_real_files(example: ModuleType, real_data: Path, tmp_path: Path) -> None:
    convert(real_data, tmp_path / "a.zarr", workers=0)
    losses = example.train(str(tmp_path / "a.zarr"), 1, 16)
    assert len(losses) == 90  # 1,434 windows: every step but the last of each of 14 episodes
    assert sum(losses[-30:]) < 0.97 * sum(losses[:30])


@pytest.mark.slow(reason="starts Python with torch")
def test_as_a_command(sample_store: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(sample_store), "--epochs", "1"], capture_output=True, text=True, check=True
    )
    assert "windows/s with the training, loss" in done.stdout


def test_a_finished_checkpoint_says_so(
    example: ModuleType, sample_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "run.pt"
    example.train(str(sample_store), 1, 16, checkpoint)
    capsys.readouterr()
    assert example.train(str(sample_store), 1, 16, checkpoint) == []
    assert capsys.readouterr().out == "nothing left to do: 1 epochs are trained; raise --epochs\n"


DEMO = EXAMPLE.with_name("demo.py")


def check_every_stage(said: str, folder: Path) -> None:
    for part in ("identical to its sources", "h5py ", "WindowLoader ", "windows/s with the training", f"next: open {folder}"):
        assert part in said
    assert (folder / "a.html").stat().st_size > 10_000


def test_the_demo_shows_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    demo = imported(DEMO)
    monkeypatch.setattr(demo, "SECONDS", 0.05)
    with words_only():
        demo.run(tmp_path / "a.zarr", tmp_path / "a.html")
    check_every_stage(capsys.readouterr().out, tmp_path)


@pytest.mark.slow(reason="starts Python with torch")
def test_the_demo_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), "--store", "a.zarr", "--report", "a.html"]
    check_every_stage(subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout, tmp_path)

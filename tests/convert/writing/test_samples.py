"""What a conversion says at its end: how large the store would be with keyframes, and who could read it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from killing import convert_command

import synthetic
from robozarr.cli.convert import profile_words
from robozarr.convert import convert
from robozarr.schemas.layout import Profile

PROFILES: tuple[Profile, ...] = ("raw", "fast", "lean", "compact")


@pytest.mark.slow(reason="three conversions of 28 MB")
def test_the_estimate_is_near_what_the_profiles_take(tmp_path: Path) -> None:
    """Several shards of each camera, of which a sample is one chunk."""
    synthetic.write_libero(tmp_path / "s/a_demo.hdf5", lengths=(90, 80), size=192, depth=True)
    reports = {p: convert(tmp_path / "s", tmp_path / f"{p}.zarr", workers=0, profile=p) for p in ("fast", "lean", "compact")}
    for report in reports.values():
        for profile, n_bytes in report.would_take.items():
            assert n_bytes == pytest.approx(reports[profile].stored_bytes, rel=0.1), (report.profile, profile)
    assert set(reports["fast"].would_take) == {"lean", "compact"}


def test_without_frames_there_is_nothing_to_say(tmp_path: Path) -> None:
    synthetic.write_libero(tmp_path / "s/a_demo.hdf5", drop_keys=["obs/agentview_rgb", "obs/eye_in_hand_rgb"])
    assert convert(tmp_path / "s", tmp_path / "a.zarr", workers=0).would_take == {}
    synthetic.write_libero(tmp_path / "t/b_demo.hdf5")
    report = convert(tmp_path / "t", tmp_path / "b.zarr", workers=0, dry_run=True)
    assert report.would_take == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_who_reads_it(profile: Profile) -> None:
    lines = profile_words(profile, 1000, {"lean": 600, "compact": 300})
    anyone, ours = "any Zarr v3 reader", "robozarr, and zarr-python with robozarr installed"
    assert lines[0] == f"{profile}: read by {ours if profile in ('lean', 'compact') else anyone}"
    assert ("lean would take about 600 B (1.7 times less); read by " + ours in lines) is (profile != "lean")
    assert ("compact would take about 300 B (3.3 times less); read by " + ours in lines) is (profile != "compact")
    assert len(profile_words("compact", 250, {"lean": 600, "compact": 300})) == 1


@pytest.mark.slow(reason="starts a process")
def test_the_command_says_it(tmp_path: Path, sample: Path) -> None:
    command = convert_command(sample, "--store", tmp_path / "a.zarr", "-w", "0")
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "fast: read by any Zarr v3 reader\nlean would take about " in said

"""The command line as a user meets it: real files, real Dask workers, exit codes, interruption."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import run_here
from effort import some

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import FormatVersionError, IncompleteStoreError, SourceError, StoreError

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "sample"
REAL = ROOT.parent / "shared" / "data"


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "robozarr", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


def files_of(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


def same_bytes(a: Path, b: Path) -> bool:
    names = files_of(a)
    if names != files_of(b):
        return False
    _, mismatch, errors = filecmp.cmpfiles(a, b, names, shallow=False)
    return not mismatch and not errors


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "sample.zarr"
    convert(SAMPLE, path, workers=0)
    return path


def test_convert_verify_info_as_a_new_user_would(tmp_path: Path) -> None:
    store = tmp_path / "new.zarr"
    done = run("convert", SAMPLE, "--store", store, "--workers", str(some(2, 1)))
    assert done.returncode == 0, done.stderr
    assert "converted 4 episodes of 2 tasks" in done.stdout
    assert "write partitions:" in done.stderr
    checked = run_here("verify", store, "--source", SAMPLE, "--workers", str(some(2, 0)))
    assert checked.returncode == 0, checked.stderr
    assert "identical to its sources" in checked.stdout
    shown = run_here("info", store)
    assert shown.returncode == 0, shown.stderr
    for word in (
        "agentview_rgb",
        "put the bowl on the stove",
        "libero_spatial",
        "noop",
        "key_moment",
        "blosc-lz4",
        "bottom row first (opengl): 4 episodes",
    ):
        assert word in shown.stdout


def test_reports_are_json(tmp_path: Path, store: Path) -> None:
    plan = json.loads(run_here("convert", SAMPLE, "--store", tmp_path / "a.zarr", "--dry-run", "--json", "-w", "0").stdout)
    assert plan["dry_run"] is True
    assert plan["n_episodes"] == 4
    assert not (tmp_path / "a.zarr").exists()
    checked = json.loads(run_here("verify", store, "--json", "-w", "0").stdout)
    assert checked["ok"] is True
    assert checked["violations"] == []
    info = json.loads(run_here("info", store, "--json").stdout)
    assert info["n_steps"] == plan["n_steps"]
    assert {key["name"] for key in info["keys"]} == set(plan["keys"])
    assert info["sources"][0]["name"].startswith("libero_goal/")


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not here")
@pytest.mark.slow(reason="three conversions of whole files")
@pytest.mark.parametrize("profile", ["raw", "fast", "compact"])
def test_real_files_give_the_same_bytes_with_any_number_of_workers(tmp_path: Path, profile: str) -> None:
    for workers in ("0", "1", "2"):
        done = run("convert", REAL, "--store", tmp_path / workers, "--profile", profile, "--workers", workers)
        assert done.returncode == 0, done.stderr
    assert same_bytes(tmp_path / "0", tmp_path / "1")
    assert same_bytes(tmp_path / "0", tmp_path / "2")
    report = verify(tmp_path / "2", sources=REAL, workers=0)
    assert report.ok, report.violations
    assert (report.n_episodes, report.n_steps) == (14, 1448)


def test_openvla_robomimic_and_depth_convert_bit_for_bit(tmp_path: Path) -> None:
    synthetic.write_openvla(tmp_path / "openvla" / "stack_the_bowl_demo.hdf5", lengths=(9, 12, 10))
    synthetic.write_robomimic(tmp_path / "robomimic" / "image.hdf5", lengths=(9, 7, 8), size=12)
    synthetic.write_libero(tmp_path / "depth" / "KITCHEN_SCENE1_open_it_demo.hdf5", lengths=(9, 11), depth=True)
    for folder, own, facts in (
        ("openvla", "raw", {"alignment": [0, 0, 0], "image_convention": [0, 0, 0], "success": [-1, -1, -1]}),
        ("robomimic", "fast", {"alignment": [0, 0, 0], "image_convention": [1, 1, 1], "success": [1, 1, 1]}),
        ("depth", "compact", {"alignment": [1, 1], "image_convention": [0, 0], "success": [-1, -1]}),
    ):
        for profile in ("raw", "fast", "compact") if some(1, 0) else (own,):  # by profile in test_readers, too
            path = tmp_path / f"{folder}-{profile}.zarr"
            convert(tmp_path / folder, path, profile=profile, workers=0)
            report = verify(path, sources=tmp_path / folder, workers=0)
            assert report.ok, report.violations
        episodes = robozarr.open_store(path).episodes
        for name, expected in facts.items():
            assert getattr(episodes, name).tolist() == expected, (folder, name)


def test_demo_numbers_with_gaps_and_past_ten_keep_their_order(tmp_path: Path) -> None:
    synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(5, 6, 7), numbers=(10, 2, 0))
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    assert robozarr.open_store(tmp_path / "a.zarr").episodes.demo == ("demo_0", "demo_2", "demo_10")


def test_robomimic_splits_and_next_obs(tmp_path: Path) -> None:
    synthetic.write_robomimic(tmp_path / "s" / "a.hdf5", lengths=(6, 6, 6), size=12)
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert {name: members.tolist() for name, members in store.episodes.splits.items()} == {
        "train": [True, True, False],
        "valid": [False, False, True],
    }
    assert not any(name.startswith("next_obs") for name in store.keys)
    left_out = {entry.path for entry in store.metadata.not_stored}
    assert "next_obs/agentview_image" in left_out
    synthetic.write_robomimic(tmp_path / "t" / "a.hdf5", lengths=(6, 6, 6), size=12, next_obs_equal=False)
    convert(tmp_path / "t", tmp_path / "b.zarr", workers=0)
    kept = [name for name in robozarr.open_store(tmp_path / "b.zarr").keys if name.startswith("next_obs.")]
    assert len(kept) == 1
    assert verify(tmp_path / "b.zarr", sources=tmp_path / "t", workers=0).ok


def test_keys_keeps_only_what_is_asked_for(tmp_path: Path) -> None:
    done = run_here("convert", SAMPLE, "--store", tmp_path / "a.zarr", "--keys", "agentview_rgb,obs/ee_pos", "-w", "0")
    assert done.returncode == 0, done.stderr
    assert list(robozarr.open_store(tmp_path / "a.zarr").keys) == ["actions", "agentview_rgb", "ee_pos"]
    assert "not stored: obs/eye_in_hand_rgb in 4 demos of libero_goal/" in done.stdout
    assert verify(tmp_path / "a.zarr", sources=SAMPLE, workers=0).ok
    wrong = run_here("convert", SAMPLE, "--store", tmp_path / "b.zarr", "--keys", "agentview", "-w", "0")
    assert wrong.returncode == 2
    assert "no source holds agentview (did you mean agentview_rgb?); they hold actions, agentview_rgb" in wrong.stderr


QUICKLY = () if some(1, 0) else ("-w", "0")
"""Workers take a second to start."""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "nowhere", "--store", "{tmp}/a.zarr"], 1, "found none → check the path"),
        (["convert", "{tmp}/bad.hdf5", "--store", "{tmp}/a.zarr", *QUICKLY], 1, "the file is not HDF5"),
        (["convert", str(SAMPLE)], 2, "Missing option '--store'"),
        (["convert", str(SAMPLE), "--store", "{tmp}/a.zarr", "--profile", "tiny"], 2, "'tiny' is not one of"),
        (["convert", str(SAMPLE), "--store", "{tmp}/a.zarr", "--workers", "-1"], 2, "greater than or equal to 0"),
        (["frobnicate"], 2, "No such command"),
        (
            ["convert", str(SAMPLE), "--store", "{store}"],
            3,
            "already holds a store; give another --store, or --append to add to it, or --overwrite",
        ),
        (["convert", str(SAMPLE), "--store", "{tmp}", "--overwrite"], 3, "is not a robozarr store, so it is not touched"),
        (["verify", "{tmp}/none.zarr"], 3, "is this the path of a store?"),
        (["info", "{tmp}/none.zarr"], 3, "no store there; make one with: robozarr convert"),
        (["verify", "{store}", "--source", "{tmp}", "-w", "0"], 1, "a folder must hold"),
    ],
)
def test_exit_codes_and_what_is_said(tmp_path: Path, store: Path, arguments: list[str], code: int, message: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "bad.hdf5").write_bytes(b"not HDF5")
    if "--source" in arguments:
        (folder / "bad.hdf5").unlink()
    done = run_here(*(argument.format(tmp=folder, store=store) for argument in arguments))
    assert done.returncode == code, (done.stdout, done.stderr)
    assert message in done.stderr.replace("\n│ ", " ")
    assert "Traceback" not in done.stderr
    assert not (folder / "a.zarr").exists()


def test_verify_fails_with_code_4_and_names_the_place(tmp_path: Path, store: Path) -> None:
    broken = tmp_path / "broken.zarr"
    shutil.copytree(store, broken)
    shard = broken / "steps/agentview_rgb/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    done = run_here("verify", broken, "-w", "0")
    assert done.returncode == 4
    assert "[M9] steps/agentview_rgb · shard 0 (steps/agentview_rgb/c/0/0/0/0) · chunk 0" in done.stdout


def test_verify_notices_a_source_that_differs_in_one_bit(tmp_path: Path) -> None:
    source = tmp_path / "s" / "a_demo.hdf5"
    synthetic.write_libero(source, lengths=(6, 7))
    convert(source, tmp_path / "a.zarr", workers=0)
    with h5py.File(source, "r+") as file:
        file["data/demo_1/obs/eye_in_hand_rgb"][3, 0, 0, 0] ^= 1
    report = verify(tmp_path / "a.zarr", sources=source, workers=0)
    (violation,) = report.violations
    assert "steps/eye_in_hand_rgb: episode 1 is not bit for bit" in violation.text
    assert "demo_1 · obs/eye_in_hand_rgb, from row 3" in violation.text


def test_overwrite_replaces_a_store_whole(tmp_path: Path) -> None:
    source, path = tmp_path / "s" / "a_demo.hdf5", tmp_path / "a.zarr"
    synthetic.write_libero(source, lengths=(6, 7), depth=True)
    convert(source, path, workers=0)
    convert(SAMPLE, path, workers=0, overwrite=True)
    assert verify(path, sources=SAMPLE, workers=0).ok
    assert not (path / "steps/agentview_depth").exists()
    with pytest.raises(StoreError, match="already holds a store"):
        convert(SAMPLE, path, workers=0)


def test_bad_sources_leave_an_existing_store_alone(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "a.zarr"
    shutil.copytree(store, path)
    bad = tmp_path / "bad.hdf5"
    bad.write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        convert(bad, path, workers=0, overwrite=True)
    assert same_bytes(path, store)


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    synthetic.write_libero(folder / "a_demo.hdf5", lengths=(6, 7), drop_keys=("actions",))
    synthetic.write_libero(folder / "b_demo.hdf5", lengths=(6, 7), size=24)
    synthetic.write_libero(folder / "c_demo.hdf5", lengths=(6, 7, 8))
    (folder / "d.hdf5").write_bytes(b"\x89HDF")
    with h5py.File(folder / "c_demo.hdf5", "r+") as file:
        file["data/demo_1/actions"][2, 3] = np.nan
    done = run_here("convert", folder, "--store", tmp_path / "a.zarr", "-w", "0")
    assert done.returncode == 1
    for part in (
        "a_demo.hdf5 · demo_0 · actions",
        "a_demo.hdf5 · demo_1",
        "demo_1 · actions: actions must be finite; found nan at step 2, column 3",
        "a step must be uint8",
        "d.hdf5: the file is cut off",
    ):
        assert part in done.stderr, part
    assert not (tmp_path / "a.zarr").exists()


def test_a_source_that_changes_after_the_scan_is_refused(tmp_path: Path) -> None:
    from robozarr.convert.planning.plan import make_plan
    from robozarr.convert.sources.scan import scan_file
    from robozarr.convert.writing.write import read_partition
    from robozarr.schemas.index import FlagRules

    source = tmp_path / "s" / "a_demo.hdf5"
    synthetic.write_libero(source, lengths=(6, 7))
    plan = make_plan([scan_file(str(source), FlagRules())], profile="raw", rules=FlagRules())
    os.utime(source, ns=(1, 1))
    with pytest.raises(SourceError, match=r"a source must not change while it is converted.*start again with --overwrite"):
        read_partition(next(plan.partitions()))


def processes_left(group: int) -> bytes:
    """Processes of a group, after the moment that multiprocessing's resource tracker takes to see its parent gone."""
    found = b""
    for _ in range(50):
        found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, check=False).stdout
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.slow(reason="starts a converter with workers")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_workers_and_leaves_a_store_that_is_refused(tmp_path: Path, signum: signal.Signals) -> None:
    source, path = tmp_path / "s", tmp_path / "a.zarr"
    for number in range(3):
        synthetic.write_libero(source / f"task{number}_demo.hdf5", lengths=(40, 45), size=96, seed=number)
    command = [
        sys.executable,
        "-m",
        "robozarr",
        "convert",
        str(source),
        "--store",
        str(path),
        "--profile",
        "compact",
        "-w",
        str(some(2, 1)),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (path / "steps").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signum)  # as a terminal does: every process of the group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert not processes_left(process.pid)
    assert [left.name for left in path.rglob(".*robozarr-tmp")] == [".convert.robozarr-tmp"]  # the journal, to go on with
    with pytest.raises(IncompleteStoreError, match="has not finished; run the same `robozarr convert` again to continue it"):
        robozarr.open_store(path)
    assert run_here("verify", path, "-w", "0").returncode == 3
    again = run_here("convert", source, "--store", path, "--profile", "compact", "-w", "0")
    assert again.returncode == 0, again.stderr
    assert not list(path.rglob(".*robozarr-tmp"))
    assert verify(path, sources=source, workers=0).ok


def test_open_store_refuses_what_it_does_not_know(tmp_path: Path, store: Path) -> None:
    path = tmp_path / "a.zarr"
    shutil.copytree(store, path)
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["robozarr"]["format_version"] = 3
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(FormatVersionError, match="format version 3, but this robozarr reads versions 1 and 2"):
        robozarr.open_store(path)
    document["attributes"] = {}
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="not a robozarr store"):
        robozarr.open_store(path)


def test_the_store_gives_typed_access_to_all_it_holds(store: Path) -> None:
    opened = robozarr.open_store(store)
    with h5py.File(next((SAMPLE / "libero_goal").glob("*.hdf5"))) as file:
        demo = file["data/demo_1"]
        rows = slice(int(opened.episodes.start[1]), int(opened.episodes.start[1] + opened.episodes.length[1]))
        assert np.array_equal(opened.array("actions")[rows], demo["actions"][:])
        assert np.array_equal(opened.ragged("states")[rows.start + 2], demo["states"][2])
        assert opened.model_file(1) == demo.attrs["model_file"]
        assert np.array_equal(opened.init_state(1), demo.attrs["init_state"])
        assert opened.episode_attributes(1)[""]["num_samples"]["value"] == [len(demo["actions"])]
        assert opened.source_attributes(0)["data"]["tag"]["value"] == file["data"].attrs["tag"]
        assert opened.tasks.bddl[0] == file["data"].attrs["bddl_file_content"]
    assert opened.tasks.instruction == (
        "put the bowl on the stove",
        "pick the akita black bowl on the cookies box and place it on the plate",
    )
    assert opened.tasks.instruction_from_name[1] == "pick up the black bowl on the cookie box and place it on the plate"
    assert opened.stats("actions")["mean"].shape == (7,)
    assert opened.episode_stats("agentview_rgb")["rms"].shape == (4, 3)
    assert opened.metadata.control_freq == 20
    with pytest.raises(StoreError, match="no key 'rgb' in this store; it has actions"):
        opened.array("rgb")
    with pytest.raises(StoreError, match=r"use store.ragged\('states'\)"):
        opened.array("states")

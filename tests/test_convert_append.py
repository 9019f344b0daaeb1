"""Stores that are appended to, made without bad demos, or made by an external cluster: the same bytes, nothing unlisted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest

import robozarr as rz
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import IncompleteStoreError, SourceError

LENGTHS = (60, 45, 30)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four files of three demos."""
    folder = tmp_path_factory.mktemp("sources")
    return [
        synthetic.write_libero(folder / "suite" / f"task{number}_demo.hdf5", lengths=LENGTHS, size=96, seed=number)
        for number in range(4)
    ]


def files_of(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def whole(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run makes of the sources."""
    path = tmp_path_factory.mktemp("whole") / "a.zarr"
    convert(sources, path, workers=0)
    return files_of(path)


def assert_nothing_left(store: Path) -> None:
    assert not list(store.rglob(".*robozarr-tmp"))
    assert [path.name for path in store.parent.iterdir() if path != store] == []


def start(sources: list[Path], store: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "robozarr", "convert", *map(str, sources), "--store", str(store), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_appends_equal_a_store_made_at_once(sources: list[Path], whole: dict[str, bytes], tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    convert(sources[:1], store, workers=0)
    before = files_of(store)
    for n in (2, 4):
        report = convert(sources[:n], store, workers=0, append=True)
        assert report.n_appended == n - max(1, n // 2)
    after = files_of(store)
    assert {name: data for name, data in after.items() if name != "zarr.json"} == {
        name: data for name, data in whole.items() if name != "zarr.json"
    }
    assert verify(store, sources=sources, workers=0).ok
    shards = [name for name in before if name.startswith("steps/") and "/c/" in name]
    last: dict[str, int] = {}
    for name in shards:
        array, _, shard = name.partition("/c/")
        last[array] = max(last.get(array, 0), int(shard.split("/")[0]))
    unchanged = [name for name in shards if int(name.split("/")[3]) < last[name.split("/c/")[0]]]
    assert all(after[name] == before[name] for name in unchanged)


@pytest.mark.parametrize("moment", range(6))
def test_a_killed_append_resumes_or_leaves_the_old_store_readable(
    moment: int, sources: list[Path], whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "a.zarr"
    convert(sources[:2], store, workers=0)
    old = files_of(store)
    process = start(sources, store, "--append", "-w", "0")
    began = time.monotonic()
    while files_of_names(store) == set(old) and process.poll() is None and time.monotonic() - began < 30:
        time.sleep(0.005)
    time.sleep(0.12 * moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    try:
        n_steps = rz.open_store(store).n_steps
    except IncompleteStoreError:  # killed while the new files were put into place: the same command goes on
        n_steps = 0
    assert n_steps in (0, 2 * sum(LENGTHS), 4 * sum(LENGTHS))
    if n_steps == 2 * sum(LENGTHS):
        assert {name: data for name, data in files_of(store).items() if name in old} == old
    convert(sources, store, workers=0, append=True)
    assert {name: data for name, data in files_of(store).items() if name != "zarr.json"} == {
        name: data for name, data in whole.items() if name != "zarr.json"
    }
    assert_nothing_left(store)


def files_of_names(store: Path) -> set[str]:
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}


def test_skip_converts_the_rest_and_lists_what_it_left(sources: list[Path], tmp_path: Path) -> None:
    bad = Path(shutil.copy2(sources[0], tmp_path / "bad_demo.hdf5"))
    with h5py.File(bad, "r+") as file:
        file["data/demo_1/actions"][3, 0] = float("nan")
    cut = Path(shutil.copy2(sources[1], tmp_path / "cut_demo.hdf5"))
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(SourceError) as caught:
        convert([bad, cut, sources[2]], tmp_path / "out" / "a.zarr", workers=0)
    assert {Path(problem.file).name for problem in caught.value.problems} == {"bad_demo.hdf5", "cut_demo.hdf5"}
    assert not (tmp_path / "out" / "a.zarr" / "zarr.json").exists()
    report = convert([bad, cut, sources[2]], tmp_path / "out" / "a.zarr", workers=0, on_error="skip")
    assert {(Path(problem["file"]).name, problem["demo"]) for problem in report.left_out} >= {("bad_demo.hdf5", "demo_1")}
    store = rz.open_store(tmp_path / "out" / "a.zarr")
    assert any("left out: " in entry.reason and "demo_1" in entry.path for entry in store.metadata.not_stored)
    assert verify(tmp_path / "out" / "a.zarr", workers=0).ok


def test_an_external_cluster_gives_the_same_bytes_and_survives_a_lost_worker(
    sources: list[Path], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """`dask scheduler` and `dask worker` on loopback; one of two workers is killed half-way."""
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "10"}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    address_file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address_file)]
    processes = [subprocess.Popen([*dask, *options], env=environment, stderr=subprocess.DEVNULL, start_new_session=True)]
    try:
        deadline = time.monotonic() + 30
        while not address_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        worker = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--no-nanny",
        ]
        for number in range(2):
            folder = ["--local-directory", str(tmp_path / f"worker{number}")]
            processes.append(
                subprocess.Popen([*worker, *folder], env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
            )
        converter = start(sources, tmp_path / "out" / "a.zarr", "--scheduler", address)
        store = tmp_path / "out" / "a.zarr"
        while not (store / "steps").exists() and converter.poll() is None:
            time.sleep(0.01)
        processes[1].kill()
        _, stderr = converter.communicate(timeout=120)
        assert converter.returncode == 0, stderr
        assert files_of(store) == whole
    finally:
        for process in processes:
            process.kill()
            process.wait()

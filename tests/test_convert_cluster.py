"""A Dask cluster that is there already: the same bytes, lost workers, and what is said when it is not there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import convert_command, same_bytes

import synthetic
from robozarr.convert import convert
from robozarr.convert.journal import FOLDER


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    options = ["--scheduler-file", str(file)]
    start = [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *options]
    processes = [subprocess.Popen(start, **quiet)]  # type: ignore[call-overload]
    start = [*dask, "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", *options]
    processes += [subprocess.Popen(start, **quiet) for _ in range(2)]  # type: ignore[call-overload]
    try:
        deadline = time.monotonic() + 60
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

        yield json.loads(file.read_text())["address"], processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_an_external_cluster_gives_the_same_bytes_and_survives_a_lost_worker(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, processes = cluster
    source, store = tmp_path / "s", tmp_path / "a.zarr"
    for number in range(3):
        synthetic.write_libero(source / f"task{number}_demo.hdf5", lengths=(60, 60), size=160, seed=number)
    convert(source, tmp_path / "b.zarr", workers=0, profile="compact", level=9)
    options = ("--profile", "compact", "--level", "9", "--scheduler", address)
    running = subprocess.Popen(convert_command(source, "--store", store, *options), stderr=subprocess.PIPE, text=True)
    while not (store / FOLDER / "done.jsonl").exists() and running.poll() is None:
        time.sleep(0.005)
    processes[-1].kill()
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 0, stderr
    assert "dashboard: " in stderr
    assert same_bytes(store, tmp_path / "b.zarr")


def test_no_scheduler_is_said_with_code_5(tmp_path: Path) -> None:
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5")
    command = convert_command(source, "--store", tmp_path / "a.zarr", "--scheduler", "tcp://127.0.0.1:9")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 5
    assert "no Dask scheduler answers there" in done.stderr
    assert not (tmp_path / "a.zarr").exists()

"""Converter, scheduler and workers on machines of their own, as far as the network knows; one of them is cut off half-way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from killing import convert_command, same_bytes

import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER

ROLES = ("scheduler", "converter", "worker1", "worker2")
QUICK = {
    # a machine that falls silent is given up after 5 s here, not after the 30 s (tcp) or 5 minutes (worker-ttl) of Dask
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",  # the least that Dask takes
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5s",
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@pytest.fixture
def network() -> Iterator[dict[str, tuple[str, str]]]:
    """By role, a namespace and its address: each has a cable to one switch."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("namespaces take root and iproute2")
    prefix = f"rz{os.getpid()}"
    hub = f"{prefix}hub"
    names = {role: (f"{prefix}{role}", f"10.203.0.{number}") for number, role in enumerate(ROLES, 1)}
    with ExitStack() as stack:
        for name in [hub, *(name for name, _ in names.values())]:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as exc:
                pytest.skip(f"no network namespace can be made here: {exc.stderr.decode().strip()}")
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", hub, "link", "add", "switch", "type", "bridge")
        ip("-n", hub, "link", "set", "switch", "up")
        for number, (name, address) in enumerate(names.values()):
            ip("link", "add", f"port{number}", "netns", hub, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", hub, "link", "set", f"port{number}", "master", "switch", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield names


def start(namespace: str, command: list[str], **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, **QUICK}
    return subprocess.Popen(["ip", "netns", "exec", namespace, *command], env=environment, text=True, **options)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow(reason="a network of its own, cut off")
def test_a_worker_that_is_cut_off_half_way_neither_fails_nor_corrupts_the_run(
    tmp_path: Path, network: dict[str, tuple[str, str]]
) -> None:
    source, store = tmp_path / "s", tmp_path / "a.zarr"
    for number in range(4):
        synthetic.write_libero(source / f"task{number}_demo.hdf5", lengths=(60, 60), size=160, seed=number)
    convert(source, tmp_path / "b.zarr", workers=0, profile="compact", level=7)

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    name, address = network["scheduler"]
    url = f"tcp://{address}:8786"
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "scheduler.log").open("w"))
        command = [*dask, "scheduler", "--host", address, "--port", "8786", "--no-dashboard"]
        started = [start(name, command, **{**quiet, "stderr": log})]
        for role in ("worker1", "worker2"):
            name, address = network[role]
            options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", address, "--death-timeout", "20"]
            started.append(start(name, [*dask, "worker", url, *options], **quiet))
        for process in started:
            stack.callback(process.wait)
            stack.callback(process.kill)
        wait_until(lambda: (tmp_path / "scheduler.log").read_text().count("Register worker") == 2)
        command = convert_command(source, "--store", store, "--profile", "compact", "--level", "7", "--scheduler", url)
        running = start(network["converter"][0], command, stderr=subprocess.PIPE)
        stack.callback(running.kill)
        wait_until(lambda: (store / FOLDER / "done.jsonl").exists() or running.poll() is not None)
        at_work = running.poll() is None
        ip("-n", network["worker2"][0], "link", "set", "eth0", "down")
        _, stderr = running.communicate(timeout=90)
        assert running.returncode == 0, stderr
        assert at_work
        assert started[2].poll() is None, "the worker lives, and may go on with what it was given"
        assert same_bytes(store, tmp_path / "b.zarr")
        ip("-n", network["worker2"][0], "link", "set", "eth0", "up")
        time.sleep(2)  # it comes back, or goes on writing: nothing of it shows
        assert same_bytes(store, tmp_path / "b.zarr")
    assert verify(store, sources=source, workers=0).ok

"""How loading ends: Ctrl-C, exit, errors, many epochs, a read-only installation.

What would hang is run in processes of its own, with a time limit.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import format_writer
import numpy as np
import pytest
from effort import some
from loader_exits import SCENARIOS
from rights import without_progress, without_roots_rights
from small_store import assert_same, gather, whole

import robozarr as rz
from robozarr.loader.dataset import WindowDataset

EXITS = Path(format_writer.__file__).with_name("loader_exits.py")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork

ENDS = [
    ("break_and_exit", 0, ""),
    ("consumer_raises", 1, "ZeroDivisionError"),
    ("corrupt_shard", 1, "CorruptChunkError"),
    ("workers_and_exit", 0, ""),
    ("thread_iterates_at_exit", 0, ""),
    ("fork_while_iterating", 0, ""),
    ("interrupted", -signal.SIGINT, "KeyboardInterrupt"),
    ("exit_within_loop", 3, ""),
    ("iterator_kept_until_exit", 0, ""),
    ("transform_raises", 1, "ZeroDivisionError"),
    ("two_loaders_at_exit", 0, ""),
    ("interrupted_with_workers", -signal.SIGINT, "KeyboardInterrupt"),
    ("interrupt_is_caught", 0, ""),
]
"""Scenarios, their exit codes, and what is said last."""


@pytest.fixture(scope="module")
def exits(store_path: Path) -> dict[str, dict[str, Any]]:
    """How each of the scenarios of loader_exits.py ended: exit code, seconds, what it printed."""
    command = [sys.executable, "-W", "error", str(EXITS), str(store_path), "", *(scenario for scenario, *_ in ENDS)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, dict[str, Any]] = json.loads(ran.stdout)
    return found


@pytest.mark.slow(reason="starts new Pythons, each of which imports everything")
@pytest.mark.parametrize(("scenario", "code", "says"), ENDS)
def test_ends_at_once_and_as_it_should(exits: dict[str, dict[str, Any]], scenario: str, code: int, says: str) -> None:
    found = exits[scenario]
    assert found["code"] == code, found
    assert found["seconds"] < 8, found
    if says:
        said = [line for line in found["stderr"].strip().splitlines() if not line.startswith(" ")]
        if scenario != "interrupted_with_workers":  # where Python may say last that a socket of torch's workers was not closed
            said = said[-1:]
        assert any(says in line for line in said), found
    else:
        assert found["stderr"] == ""


@pytest.mark.slow(reason="starts new Pythons, each of which imports everything")
def test_every_scenario_is_looked_at(exits: dict[str, dict[str, Any]]) -> None:
    assert list(exits) == [scenario for scenario, *_ in ENDS]
    assert sorted(scenario for scenario, *_ in ENDS) == sorted(each.__name__ for each in SCENARIOS)


def test_interrupts_at_any_moment(dataset: WindowDataset) -> None:
    """Ctrl-C can come between any two instructions: no lock stays locked, no slot is written to while it is read."""
    loader, expected, n_interrupts = rz.WindowLoader(dataset, 2, threads=3, prefetch=4), whole(dataset), 0
    n = some(150, 50)
    rng = np.random.default_rng(0)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def iterate() -> None:
        signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(0.0005, 0.01)))
        for epoch in range(1 << 30):
            loader.set_epoch(2 * epoch)
            for _ in loader:
                pass

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(n):
            faulthandler.dump_traceback_later(60, exit=True)  # it would hang for ever
            try:
                iterate()
            except KeyboardInterrupt:
                n_interrupts += 1
            loader.set_epoch(n_interrupts + (1 << 31))
            assert_same(gather(loader), expected)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert n_interrupts == n


EPOCHS = """
import gc, os, resource, sys, threading
import robozarr as rz
few = len(sys.argv) > 2
if few:
    n_open = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 14, n_open + 14))

def use():
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return pages * 4096, len(os.listdir("/proc/self/fd")), threading.active_count()

spec = rz.WindowSpec({"agentview_rgb": [-1, 0], "agentview_depth": [0], "actions": range(3)})
store = rz.open_store(sys.argv[1])
dataset = rz.WindowDataset(store, spec)
loader = rz.WindowLoader(dataset, 3, threads=2)

def epochs(n):
    for epoch in range(n):
        assert sum(len(batch["step"]) for batch in loader) == len(dataset)
        for batch in loader:  # one that is left early
            break
        loader.set_epoch(10_000 + epoch)
        if epoch % 5 == 0:  # and everything anew
            anew = rz.WindowLoader(rz.WindowDataset(rz.open_store(sys.argv[1]), spec), 3, threads=2)
            assert sum(len(batch["step"]) for batch in anew) == len(dataset)
    return use()

epochs(30)
before = epochs(10)
if few:
    from robozarr.loader.frames import read
    assert read._free_fds()[0] == 0, "all that may be kept open is"
print(*before, *epochs(50))
"""


@pytest.mark.slow(reason="ninety epochs in a process of their own")
@pytest.mark.parametrize("few_files", [False, True])
def test_many_epochs_take_no_more_memory_and_files(store_path: Path, few_files: bool) -> None:
    arguments = [sys.executable, "-W", "error", "-c", EPOCHS, str(store_path), *["few"] * few_files]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    rss, files, threads, rss_later, files_later, threads_later = map(int, ran.stdout.split())
    assert (files_later, threads_later) == (files, threads)
    assert rss_later - rss < 2 * 2**20, f"{rss} → {rss_later} bytes after 50 epochs more"


READ_ONLY = """
import sys
import robozarr as rz
from robozarr.loader.frames import kernel
assert kernel.__file__.startswith(sys.argv[2]), kernel.__file__
dataset = rz.WindowDataset(rz.open_store(sys.argv[1]), rz.WindowSpec({"agentview_rgb": [0], "actions": [0]}))
assert dataset.read([0, 18])["agentview_rgb"].sum() > 0
n = sum(len(batch["step"]) for batch in rz.WindowLoader(dataset, 8))
assert n == 19
print(kernel.read_chunks.stats.cache_path)
"""


@pytest.mark.slow(reason="compiles the reader anew")
def test_works_where_nothing_can_be_written(store_path: Path, tmp_path: Path) -> None:
    """Home, installation and NUMBA_CACHE_DIR cannot be written to: compiled anew, and right."""
    package, home = tmp_path / "installed", tmp_path / "home"
    shutil.copytree(Path(rz.__file__).parent, package / "robozarr", ignore=shutil.ignore_patterns("__pycache__"))
    home.mkdir()
    folders = [home, *(path for path in [package, *package.rglob("*")] if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    before = sorted(tmp_path.rglob("*"))
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(package), "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"),
        "NUMBA_CACHE_DIR": str(home / "numba"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "error",
    }  # fmt: skip
    try:
        ran = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(store_path), str(package)],
            capture_output=True, text=True, timeout=300, check=False, env=environment, cwd=home,
            preexec_fn=without_roots_rights,
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (ran.returncode, without_progress(ran.stderr)) == (0, [])
    assert ran.stdout.strip() == "None"  # no place for a cache was found
    assert sorted(tmp_path.rglob("*")) == before

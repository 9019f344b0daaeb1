"""How much memory is free, and how many cores: of the machine, and of a container or a job; against files as Linux has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import robozarr as rz
from robozarr.loader import arguments as loader_arguments
from robozarr.loader.device import cache as loader_cache
from robozarr.schemas.errors import WindowError
from robozarr.store.limits import UNKNOWN, free_memory, usable_cores

GB = 10**9
MACHINE = {"proc/meminfo": "MemTotal:       65000000 kB\nMemAvailable:   62500000 kB\nSwapFree: 0 kB\n"}
V2 = {"proc/self/cgroup": "0::/\n"}
NO_LIMIT_1 = "9223372036854771712"

CASES: dict[str, tuple[dict[str, str], int]] = {
    "machine alone": (MACHINE, 64 * GB),
    "nothing known": ({}, UNKNOWN),
    "version 2, in a container": (
        MACHINE | V2 | {"sys/fs/cgroup/memory.max": "4000000000", "sys/fs/cgroup/memory.current": "1000000000"}, 3 * GB
    ),
    "version 2, no limit": (MACHINE | V2 | {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1"}, 64 * GB),
    "version 2, cached files can be had again": (
        MACHINE | V2 | {
            "sys/fs/cgroup/memory.max": "4000000000", "sys/fs/cgroup/memory.current": "3900000000",
            "sys/fs/cgroup/memory.stat": "anon 900000000\nfile 3000000000\ninactive_file 2000000000\nactive_file 1000000000\n",
        }, 31 * GB // 10,
    ),
    "version 2, throttled before the limit": (
        MACHINE | V2 | {
            "sys/fs/cgroup/memory.max": "4000000000", "sys/fs/cgroup/memory.high": "2000000000",
            "sys/fs/cgroup/memory.current": "500000000",
        }, 15 * GB // 10,
    ),
    "version 2, a job's limit above the task's group": (
        MACHINE | {
            "proc/self/cgroup": "0::/slurm/job_7/step_0/task_0\n",
            "sys/fs/cgroup/slurm/job_7/step_0/task_0/memory.max": "max",
            "sys/fs/cgroup/slurm/job_7/step_0/memory.max": "9000000000",
            "sys/fs/cgroup/slurm/job_7/memory.max": "8000000000",
            "sys/fs/cgroup/slurm/job_7/memory.current": "2000000000",
        }, 6 * GB,
    ),
    "version 2, the host's path is not there": (
        MACHINE | {
            "proc/self/cgroup": "0::/system.slice/docker-abc.scope\n", "sys/fs/cgroup/memory.max": "4000000000",
            "sys/fs/cgroup/memory.current": "0",
        }, 4 * GB,
    ),
    "version 2, a part of the tree is mounted elsewhere": (
        MACHINE | {
            "proc/self/cgroup": "0::/pod/abc\n", "cg/memory.max": "5000000000", "cg/memory.current": "0",
            "proc/self/mountinfo": "31 24 0:27 /pod/abc /cg rw,nosuid - cgroup2 cgroup rw,nsdelegate\n",
        }, 5 * GB,
    ),
    "version 1, docker": (
        MACHINE | {
            "proc/self/cgroup": "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n0::/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000000",
            "sys/fs/cgroup/memory/memory.stat": "cache 1\ntotal_inactive_file 400000000\ntotal_active_file 100000000\n",
        }, GB,
    ),
    "version 1, a limit above": (
        MACHINE | {
            "proc/self/cgroup": "5:memory:/slurm/job/step\n",
            "sys/fs/cgroup/memory/slurm/job/step/memory.limit_in_bytes": NO_LIMIT_1,
            "sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes": "3000000000",
            "sys/fs/cgroup/memory/slurm/job/memory.usage_in_bytes": "1000000000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_1,
        }, 2 * GB,
    ),
    "version 1, no limit": (
        MACHINE | {"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_1}, 64 * GB
    ),
    "over its limit": (
        MACHINE | V2 | {"sys/fs/cgroup/memory.max": "1000", "sys/fs/cgroup/memory.current": "5000"}, 0
    ),
    "words that are none of Linux": (
        MACHINE | {"proc/self/cgroup": "\n::\nnonsense\n0::/../..\n", "sys/fs/cgroup/memory.max": "many"}, 64 * GB
    ),
}  # fmt: skip


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("case", CASES)
def test_free_memory(case: str, tmp_path: Path) -> None:
    files, expected = CASES[case]
    assert free_memory(write(tmp_path, files)) == expected


CORES: dict[str, tuple[dict[str, str], int]] = {
    "nothing known": ({}, 64),
    "version 2, docker run --cpus=2": (V2 | {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    "version 2, a part of a core": (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "version 2, rounded up": (V2 | {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
    "version 2, no limit": (V2 | {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
    "version 2, more than there is": (V2 | {"sys/fs/cgroup/cpu.max": "9900000 100000\n"}, 64),
    "version 2, another period": (V2 | {"sys/fs/cgroup/cpu.max": "30000 10000\n"}, 3),
    "version 2, the period is not told": (V2 | {"sys/fs/cgroup/cpu.max": "300000\n"}, 3),
    "version 2, a pod's limit above the container's": (
        {
            "proc/self/cgroup": "0::/pod/container\n", "sys/fs/cgroup/pod/container/cpu.max": "max 100000",
            "sys/fs/cgroup/pod/cpu.max": "400000 100000",
        }, 4,
    ),
    "version 1, docker": (
        {
            "proc/self/cgroup": "12:cpu,cpuacct:/docker/abc\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "50000",
        }, 3,
    ),
    "version 1, no limit": (
        {"proc/self/cgroup": "12:cpu,cpuacct:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
         "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 64,
    ),
    "words that are none of Linux": (V2 | {"sys/fs/cgroup/cpu.max": "0 0 0 0"}, 1),
}  # fmt: skip


@pytest.mark.parametrize("case", CORES)
def test_usable_cores(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    files, expected = CORES[case]
    assert usable_cores(write(tmp_path, files)) == expected


def test_a_systems_own_count_where_it_has_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, expected in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert usable_cores(tmp_path) == expected


def test_caches_respect_a_containers_limit(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ComfyUI#14938: a cache of half of the machine's free memory, in a container that has less, is killed."""
    files, _ = CASES["version 2, in a container"]
    root = write(tmp_path, files | {"sys/fs/cgroup/memory.max": "1004000000"})
    for module in (loader_cache, loader_arguments):
        monkeypatch.setattr(module, "free_memory", lambda: free_memory(root))
    store, spec = rz.open_store(sample_store), rz.WindowSpec({"agentview_rgb": [0], "eye_in_hand_rgb": [0]})
    dataset = rz.WindowDataset(store, spec)
    for cache in ("host", "device"):
        with pytest.raises(WindowError, match=rf"frames must fit into 0\.00 GB on the {cache}; they take 0\.00 GB"):
            rz.WindowLoader(dataset, 8, cache=cache)
    with pytest.raises(WindowError, match=r"frames_in_memory: frames must fit into half of the free memory, 0\.00 GB"):
        rz.WindowDataset(store, spec, frames_in_memory=True)
    (root / "sys/fs/cgroup/memory.max").write_text("2000000000")
    rz.WindowLoader(dataset, 8, cache="host")
    rz.WindowDataset(store, spec, frames_in_memory=True)

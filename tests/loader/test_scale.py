"""Opening, memory and the work of a window on stores of many steps; all sizes in benchmarks/load/bench_scale.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import robozarr as rz
from robozarr.convert import verify
from robozarr.loader.batch import Batch
from scale_store import EPISODE, window, write_scale_store

TINY = (8, 8, 3)
CHILD = """
import json, sys, time
import torch
from robozarr import WindowDataset, WindowLoader, WindowSpec, open_store
from robozarr.loader.frames import kernel
from robozarr.loader.batch import Batch
from scale_store import window
began = time.perf_counter()
dataset = WindowDataset(open_store(sys.argv[1]), window())
opened = time.perf_counter() - began
batch = next(iter(WindowLoader(dataset, 64)))
print(json.dumps({"windows": len(dataset), "opened": opened, "first": time.perf_counter() - began, "n": len(batch["step"])}))
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("scale")
    made = {n: folder / f"{n}.zarr" for n in (1_000, 1_000_000)}
    for n, path in made.items():
        write_scale_store(path, n, picture=TINY)
    return made


def test_made_up_stores_follow_the_format_but_for_statistics(tmp_path: Path) -> None:
    """The benchmark would say little of a store that no reader should accept."""
    write_scale_store(tmp_path / "store.zarr", 5 * EPISODE + 3, picture=TINY, profile="fast")
    report = verify(tmp_path / "store.zarr", workers=0)
    assert {violation.rule for violation in report.violations} <= {"M12", "M18", "M19"}, report.violations


@pytest.mark.slow(reason="a store of a million steps")
def test_a_million_steps_open_in_well_under_a_second(stores: dict[int, Path]) -> None:
    found = {}
    for _ in range(2):  # the first start may compile
        done = subprocess.run(
            [sys.executable, "-c", CHILD, stores[1_000_000]], capture_output=True, text=True, check=True, timeout=120,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "benchmarks")},
        )  # fmt: skip
        found = json.loads(done.stdout)
    assert (found["windows"], found["n"]) == (1_000_000, 64)
    assert found["opened"] < 3  # 0.5 s on a quiet machine; this one may be busy
    assert found["first"] < 4


def test_the_work_of_a_window_does_not_grow(stores: dict[int, Path]) -> None:
    """CPU time, not time: 10^3 against 10^6 windows, interleaved, best of several."""
    best: dict[int, float] = {}
    loaders = {n: rz.WindowLoader(rz.WindowDataset(rz.open_store(path), window()), 64, threads=1) for n, path in stores.items()}
    for n, loader in loaders.items():
        every = np.arange(0, n, 512)  # each shard is opened once, which is not what is asked here
        loader._readers[0].fill(Batch(loader._readers[0].fields, len(every)), loader._readers[0].plan(every))
    for _ in range(4):
        for n, loader in loaders.items():
            count, began = 0, time.process_time()
            for _batch in loader:
                count += 64
                if count >= 12_800:
                    break
            best[n] = min(best.get(n, 1.0), (time.process_time() - began) / count)
    assert best[1_000_000] < 2 * best[1_000]


def test_memory_is_that_of_low_dim_keys_and_checksums(stores: dict[int, Path]) -> None:
    dataset = rz.WindowDataset(rz.open_store(stores[1_000_000]), window())
    table = dataset.table
    assert dataset.windows.reader._memory.n_bytes == pytest.approx(1_000_000 * (7 + 2 + 6 + 7) * 8, rel=0.01)
    assert len(table.runs) == 1
    assert table.start.nbytes == 8 * -(-1_000_000 // EPISODE)

"""Loading in other processes and threads: fork, spawn, copies, iterators at the same time.

What would hang is run in processes of its own, with a time limit. Values are compared with what this process reads.
"""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from effort import some
from small_store import assert_same, gather, make_dataset, whole
from torch.utils.data import DataLoader

import robozarr as rz
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.loader.frames import read as read_module

METHODS = ("fork", pytest.param("spawn", marks=pytest.mark.slow(reason="imports torch in a new process")), "forkserver")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork


@pytest.mark.parametrize("method", METHODS)
def test_workers_serve_the_same_and_share_memory(store_path: Path, method: str) -> None:
    dataset = make_dataset(store_path)
    if method == "fork":  # others cannot inherit an open file by accident
        whole(dataset)
    loader = rz.WindowDataLoader(
        dataset, 4, order={"seed": 1}, num_workers=1 if method == "spawn" else 2, multiprocessing_context=method,
        persistent_workers=True, prefetch_factor=1,
    )  # fmt: skip
    assert_same(gather(loader), whole(dataset))
    column = dataset.windows.reader.column("actions")
    column[7, 1] = 123.5  # no copy: the workers, which are running, see what is written here
    again = gather(loader)
    assert (again["actions"] == 123.5).sum() > 0
    assert_same(again, whole(dataset))
    del loader


@pytest.mark.parametrize("num_workers", [0, 2])
def test_plain_dataloader_and_its_own_collate(dataset: WindowDataset, num_workers: int) -> None:
    for collate in (dataset.collate, None):
        loader = DataLoader(dataset, 5, num_workers=num_workers, collate_fn=collate)
        for _ in range(2):
            assert_same(gather(loader), whole(dataset))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a CUDA device")
def test_pin_memory(dataset: WindowDataset) -> None:
    loader = rz.WindowDataLoader(dataset, 4, num_workers=2, pin_memory=True)
    batches = list(loader)
    assert all(batch["agentview_rgb"].is_pinned() for batch in batches)
    assert_same(gather(batches), whole(dataset))


def memory_of(dataset: WindowDataset) -> list[str]:
    """Lines of /proc/self/maps: the dataset's shared block, by inode."""
    inode = os.fstat(dataset.windows.reader._memory._fd).st_ino
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if f" {inode} " in line]


def test_memory_is_one_shared_mapping(dataset: WindowDataset) -> None:
    lines = memory_of(dataset)
    assert len(lines) == 1
    assert "rw-s" in lines[0]  # MAP_SHARED: a fork copies nothing when it is written to
    in_child = 'import sys; from pathlib import Path; print(Path("/proc/self/maps").read_text())'
    assert "robozarr" not in subprocess.run([sys.executable, "-c", in_child], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_read_the_same(dataset: WindowDataset, duplicate: Callable[[Any], Any]) -> None:
    assert_same(whole(duplicate(dataset)), whole(dataset))
    loader = rz.WindowLoader(dataset, 4, seed=3, threads=2)
    iterator = iter(loader)
    next(iterator)
    twin = duplicate(loader)
    assert twin.state_dict() == loader.state_dict()
    iterator.close()  # type: ignore[attr-defined]
    assert_same(gather(twin), whole(dataset))
    assert_same(gather(loader), whole(dataset))


def test_two_iterators_of_one_loader(dataset: WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 3, seed=3, threads=2)
    pairs = list(zip(loader, loader, strict=True))
    assert len(pairs) == len(loader)
    expected = [batch["step"].tolist() for batch in rz.WindowLoader(dataset, 3, seed=3)]
    twice = rz.WindowLoader(dataset, 3, seed=3, threads=2)
    a = iter(twice)
    first = next(a)
    b = [int(step) for batch in twice for step in batch["step"]]  # goes on where the first one is, and ends with what that had
    whole = [first["step"].tolist(), *(batch["step"].tolist() for batch in a)]
    assert whole == expected
    in_order = [step for batch in expected for step in batch]
    assert b == in_order[3:] + in_order[:3]


def test_iterators_that_interleave_do_not_share_slots(dataset: WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 2, seed=3, threads=2)
    expected = whole(dataset)
    for left, right in zip(loader, loader, strict=True):
        for batch in (left, right):  # both valid: each iterator has a ring of its own
            rows = torch.from_numpy(dataset.store.episodes.start)[batch["episode"]] + batch["step"]
            assert torch.equal(batch["agentview_rgb"], expected["agentview_rgb"][rows])


def test_threads_read_at_once(store_path: Path) -> None:
    for _ in range(some(5, 2)):  # anew: indexes are loaded by whoever comes first
        dataset = make_dataset(store_path)
        expected = whole(make_dataset(store_path))
        start = threading.Barrier(8)

        def read(seed: int, dataset: WindowDataset = dataset, start: threading.Barrier = start) -> list[tuple[Any, Sample]]:
            rng = np.random.default_rng(seed)
            start.wait()
            picks = [rng.integers(0, len(dataset), 6) for _ in range(40)]
            return [(pick, dataset.read(pick)) for pick in picks]

        with ThreadPoolExecutor(8) as pool:
            for pick, got in (pair for pairs in pool.map(read, range(8)) for pair in pairs):
                for name in ("agentview_rgb", "agentview_depth", "actions", "step"):
                    assert torch.equal(got[name], expected[name][pick]), name


def in_fork(function: Callable[[], object], limit_s: int = 20) -> int:
    """What a forked child that calls a function exits with; it is killed by a signal if it hangs."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(limit_s)
        code = 1
        torch.set_num_threads(1)  # as DataLoader does in its workers: torch's own threads do not come along either
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_fork_while_a_thread_loads_an_index(dataset: WindowDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has no such thread: a lock that it held would never be free again."""
    loading, go_on = threading.Event(), threading.Event()
    prepare: Any = vars(read_module)["prepare_shards"]

    def slowly(*args: Any) -> int:
        loading.set()
        go_on.wait(20)
        return int(prepare(*args))

    expected = whole(make_dataset(Path(dataset.store.path)))
    monkeypatch.setattr(read_module, "prepare_shards", slowly)
    thread = threading.Thread(target=whole, args=(dataset,))
    thread.start()
    assert loading.wait(20)
    monkeypatch.setattr(read_module, "prepare_shards", prepare)
    assert in_fork(lambda: assert_same(whole(dataset), expected)) == 0
    go_on.set()
    thread.join()
    assert_same(whole(dataset), expected)


def test_loader_in_a_fork_while_the_parent_iterates(dataset: WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 2, seed=5, threads=2)
    expected = whole(dataset)
    assert_same(gather(loader), expected)  # it has threads now
    iterator = iter(loader)
    kept = [copy.deepcopy(next(iterator)) for _ in range(3)]

    def child() -> None:
        assert_same(gather(loader), expected)
        with pytest.raises(rz.RoboZarrError, match="start a new iteration"):
            next(iterator)
        iterator.close()  # type: ignore[attr-defined]  # waits for no thread of the parent
        assert_same(gather(loader), expected)

    assert in_fork(child) == 0
    assert in_fork(child) == 0
    assert_same(gather(chain(kept, iterator)), expected)


def test_loader_can_go_and_its_threads_go_with_it(dataset: WindowDataset) -> None:
    before = set(threading.enumerate())
    loader = rz.WindowLoader(dataset, 2, threads=3)
    for _ in loader:
        break
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    del loader
    assert not any(thread.is_alive() for thread in threads)


class Fails(Exception):
    pass


@pytest.mark.parametrize("where", ["transform", "consumer"])
def test_goes_on_after_an_exception(dataset: WindowDataset, where: str) -> None:
    broken = [True]

    def transform(batch: Sample) -> Sample:
        if broken[0] and where == "transform" and int(batch["step"][0]) >= 0 and len(seen) == 2:
            raise Fails
        return batch

    loader = rz.WindowLoader(dataset, 4, seed=2, threads=2, transform=transform)
    seen: list[Sample] = []

    def consume() -> None:
        for batch in loader:
            seen.append(copy.deepcopy(batch))
            if where == "consumer" and len(seen) == 3:
                raise Fails

    with pytest.raises(Fails):
        consume()
    state = loader.state_dict()
    assert state["consumed"] == 4 * len(seen)  # what was handed out; the batch whose transform failed was not
    broken[0] = False
    loader.load_state_dict(state)
    assert_same(gather(chain(seen, loader)), whole(dataset))

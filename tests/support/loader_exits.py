"""Scenarios of how a program that loads may end, each in a process of its own; prints as JSON how each did end.

Run by tests/loader/test_endings.py and tests/test_gpu.py: ``python loader_exits.py STORE [DEVICE [SCENARIO …]]``, where
DEVICE may be "".
One process imports everything, and forks for each scenario,
which then ends like any program: by the interpreter's own way out, with whatever threads it has.
"""

import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import robozarr as rz
from robozarr.loader.dataset import Sample, WindowDataset

LIMIT_S = 15
KEPT: list[Any] = []
"""What is still there when the interpreter ends."""


def make_dataset(store: str) -> WindowDataset:
    return WindowDataset(rz.open_store(store), rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(3)}))


def make_loader(store: str, **options: Any) -> rz.WindowLoader:
    device = next(iter(sys.argv[2:]), "") or None
    return rz.WindowLoader(make_dataset(store), 2, threads=3, prefetch=4, device=device, **options)


def for_ever(loader: rz.WindowLoader | rz.WindowDataLoader) -> Iterator[Sample]:
    while True:
        yield from loader


def break_and_exit(store: str) -> None:
    for _ in make_loader(store):
        break


def exit_within_loop(store: str) -> None:
    for _ in make_loader(store):
        sys.exit(3)


def iterator_kept_until_exit(store: str) -> None:
    KEPT.append(iter(make_loader(store)))
    next(KEPT[0])


def consumer_raises(store: str) -> None:
    for number, _ in enumerate(make_loader(store)):
        _ = 1 // (2 - number)


def transform_raises(store: str) -> None:
    numbers = iter(range(2, -1, -1))

    def transform(batch: Sample) -> Sample:
        return batch | {"number": 1 // next(numbers)}

    for _ in make_loader(store, transform=transform):
        pass


def corrupt_shard(store: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "a.zarr"
        shutil.copytree(store, copied)
        (copied / "steps/agentview_rgb/c/3/0/0/0").unlink()
        for _ in make_loader(str(copied)):
            pass


def two_loaders_at_exit(store: str) -> None:
    for _ in range(2):
        KEPT.append(iter(make_loader(store)))
        next(KEPT[-1])


def workers_and_exit(store: str) -> None:
    loader = rz.WindowDataLoader(make_dataset(store), 2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    KEPT.append(loader)
    for _ in loader:
        break


def thread_iterates_at_exit(store: str) -> None:
    loader, running = make_loader(store), threading.Event()

    def iterate() -> None:
        for _ in for_ever(loader):
            running.set()

    threading.Thread(target=iterate, daemon=True).start()
    running.wait()


def fork_while_iterating(store: str) -> None:
    """The child leaves through the loop, as a program does: nothing of the parent's threads may hold it."""
    for _ in for_ever(make_loader(store)):
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def interrupted(store: str) -> None:
    for number, _ in enumerate(for_ever(make_loader(store))):
        if number == 3:
            Path(os.environ["READY"]).touch()


def interrupted_with_workers(store: str) -> None:
    loader = rz.WindowDataLoader(make_dataset(store), 2, num_workers=2, multiprocessing_context="fork")
    for number, _ in enumerate(for_ever(loader)):
        if number == 3:
            Path(os.environ["READY"]).touch()


def interrupt_is_caught(store: str) -> None:
    """As in a notebook: the cell is interrupted, and run again."""
    loader = make_loader(store)
    try:
        for number, _ in enumerate(for_ever(loader)):
            if number == 3:
                Path(os.environ["READY"]).touch()
    except KeyboardInterrupt:
        pass
    loader.set_epoch(1 << 20)
    assert sum(len(batch["step"]) for batch in loader) == 19


SCENARIOS: tuple[Callable[[str], None], ...] = (
    break_and_exit, exit_within_loop, iterator_kept_until_exit, consumer_raises, transform_raises, corrupt_shard,
    two_loaders_at_exit, workers_and_exit, thread_iterates_at_exit, fork_while_iterating, interrupted, interrupted_with_workers,
    interrupt_is_caught,
)  # fmt: skip


def end_of(pid: int, folder: Path) -> tuple[int, float]:
    """Exit code of a child and how long it took to end, after the interrupt if it waits for one; killed if it hangs."""
    start, interrupted = time.monotonic(), False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), time.monotonic() - start
        if not interrupted and (folder / "ready").exists():
            os.kill(pid, signal.SIGINT)
            start, interrupted = time.monotonic(), True
        if time.monotonic() - start > LIMIT_S:
            os.kill(pid, signal.SIGABRT)  # faulthandler says where it hangs
            os.waitpid(pid, 0)
            return 999, LIMIT_S
        time.sleep(0.01)


def main() -> None:
    store = sys.argv[1]
    ends: dict[str, dict[str, Any]] = {}
    scenarios = [globals()[name] for name in sys.argv[3:]] or SCENARIOS
    gc.freeze()  # what is imported is not collected again as each fork ends, which took a second of computing
    for scenario in scenarios:
        folder = Path(tempfile.mkdtemp())
        pid = os.fork()
        if pid == 0:
            os.environ["READY"] = str(folder / "ready")
            out = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT)
            os.dup2(out, 2)
            os.dup2(out, 1)
            scenario(store)
            return
        code, seconds = end_of(pid, folder)
        end = {"code": code, "seconds": seconds, "stderr": (folder / "stderr").read_text()}
        name = scenario.__name__
        ends[f"{name} {len(ends)}" if name in ends else name] = end
        shutil.rmtree(folder)
    print(json.dumps(ends))


if __name__ == "__main__":
    import faulthandler

    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()

"""A converter that slept, or a worker that nobody waits for any more, writes nothing into what is another's by then."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import Fault, Proxy, Request
from killing import convert_command, same_bytes
from remote import environment, new_place

import synthetic
from robozarr.convert import convert, verify
from robozarr.convert.resuming import bucket_lock, fence
from robozarr.convert.resuming.fence import CheckedPlace, Fence
from robozarr.convert.resuming.journal import FOLDER, Journal
from robozarr.convert.resuming.lock import HEARTBEAT_S, hold_lock
from robozarr.schemas.errors import StoreError
from robozarr.store.bucket import BucketPlace
from robozarr.store.locate import place_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources") / "s"
    return [synthetic.write_libero(folder / f"{name}_demo.hdf5", lengths=(3, 2), size=8, seed=i) for i, name in enumerate("ab")]


def test_every_change_of_a_checked_place_asks_first(tmp_path: Path) -> None:
    place, asked = place_of(tmp_path), []

    def refuse() -> None:
        asked.append(1)
        raise StoreError("not yours any more")

    place.write("a", [b"1"])
    checked = CheckedPlace(place, refuse).below("")
    changes: list[Callable[[], None]] = [
        lambda: checked.write("a", [b"2"]),
        lambda: checked.write("b", [b"2"]),
        lambda: checked.remove(["a"]),
        lambda: checked.move("a", checked),
        lambda: checked.empty(["a"]),
    ]
    for change in changes:
        with pytest.raises(StoreError, match="not yours any more"):
            change()
    assert len(asked) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert checked.read("a") == b"1"


def test_the_next_holder_takes_the_fence_away_and_each_run_has_its_own(tmp_path: Path) -> None:
    journal = Journal(place_of(tmp_path / "a.zarr"))
    with journal.locked():
        first = journal.fence()
        first.check()
        journal.place.write("plan.json", [b"{}"])  # as if it were killed with its work begun
        kept = journal.place.read("fence")
    journal.place.write("fence", [kept])
    first.check()
    again = Journal(journal.store)
    with again.locked():
        with pytest.raises(StoreError, match="the conversion that this worker belonged to has ended"):
            first.check()
        again.fence().check()
        with pytest.raises(StoreError, match="has ended"):
            first.check()
    assert not journal.place.exists("fence")


def test_a_fence_in_a_bucket_is_asked_for_once_a_second_at_most(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, now = new_place(s3).below(FOLDER), [100.0]
    monkeypatch.setattr(fence, "clock_s", lambda: now[0])
    place.write("fence", [b"mine"])
    mine = Fence(place, "mine")
    mine.check()
    place.write("fence", [b"another's"])
    mine.check()
    now[0] += fence.LOOK_AGAIN_S
    with pytest.raises(StoreError, match="has ended"):
        mine.check()
    with pytest.raises(StoreError, match="has ended"):
        mine.check()


def test_a_lock_file_that_another_machine_took_over_is_neither_touched_nor_removed(tmp_path: Path) -> None:
    """Where the kernel holds no lock (some network disks), only the file's text says whose it is."""
    lock = tmp_path / "a.zarr" / FOLDER / "lock"
    with hold_lock(lock, tmp_path / "a.zarr") as check:
        check()
        lock.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
        with pytest.raises(StoreError, match="another converter has taken over this store"):
            check()
    assert json.loads(lock.read_text())["host"] == "elsewhere"


def test_a_probe_that_is_gone_is_no_lock_that_is_gone(proxy: Proxy) -> None:
    """The holder clears its journal, the probe of one who measures its lock's age with it."""
    place = new_place(proxy.target)
    mine, other = Journal(place), Journal(BucketPlace(place.url, proxy.url))
    cleared: list[int] = []

    def clear(request: Request) -> Fault | None:
        if request.method == "HEAD" and re.search(r"/lock\.[0-9a-f]{32}$", request.path) and not cleared:
            cleared.append(1)
            mine.clear()
        return None

    with mine.locked():
        proxy.fault = clear
        with pytest.raises(StoreError, match="another converter is working on this store"), other.locked():
            pass
        assert cleared
        mine.check()
    assert place.names() == []


def test_who_slept_past_a_beat_asks_before_it_writes(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, now = new_place(s3), [100.0]
    monkeypatch.setattr(bucket_lock, "clock_s", lambda: now[0])
    journal = Journal(place)
    with journal.locked():
        tag = place.read_tagged(f"{FOLDER}/lock")[1]
        journal.check()
        now[0] += HEARTBEAT_S + 1
        journal.check()  # overdue, and still its own: written anew
        assert place.read_tagged(f"{FOLDER}/lock")[1] != tag
        place.write(f"{FOLDER}/lock", [b"{}"])
        now[0] += HEARTBEAT_S + 1
        with pytest.raises(StoreError, match="another converter has taken over this store"):
            journal.checked(place).write("steps/a", [b"late"])
    assert place.names() == [f"{FOLDER}/lock"]


@contextlib.contextmanager
def cluster(log: Path) -> Iterator[str]:
    """A scheduler and a worker in processes of their own."""
    with contextlib.ExitStack() as stack:
        scheduler = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
            stderr=stack.enter_context(log.open("wb")), env=environment(),
        )  # fmt: skip
        stack.callback(end, scheduler)
        while not (match := re.search(r"(tcp://127.0.0.1:[0-9]+)", log.read_text())) and scheduler.poll() is None:
            time.sleep(0.05)
        assert match is not None
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", match[1], "--nthreads", "1", "--no-nanny", "--no-dashboard"],
            stderr=subprocess.DEVNULL, env=environment(),
        )  # fmt: skip
        stack.callback(end, worker)
        yield match[1]


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.mark.slow(reason="processes of a cluster, and a slow network")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_clusters_worker_does_not_write_into_the_next_conversions_store(
    proxy: Proxy, tmp_path: Path, how: signal.Signals
) -> None:
    first = [synthetic.write_libero(tmp_path / "x" / f"{i}_1_demo.hdf5", lengths=(40, 50), size=160, seed=i) for i in (0, 1)]
    second = [synthetic.write_libero(tmp_path / "y" / f"{i}_1_demo.hdf5", lengths=(40, 50), size=160, seed=i) for i in (2, 3)]
    place = new_place(proxy.url)
    direct = BucketPlace(place.url, proxy.target)

    def frames() -> int:
        return sum(r.method == "PUT" and "/steps/" in r.path and "_rgb/c/" in r.path for r in proxy.requests)

    with cluster(tmp_path / "log") as address:
        proxy.latency_s = 0.1
        line = convert_command(*first, "--store", place.url, "--endpoint-url", proxy.url, "--scheduler", address)
        converter = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
        while not frames() and converter.poll() is None:
            time.sleep(0.01)
        converter.send_signal(how)
        _, said = converter.communicate(timeout=60)
        assert "Traceback" not in said
        convert(second, direct, workers=0, overwrite=True)
        n = frames()
        time.sleep(4)
        assert frames() == n
        assert verify(direct, sources=second, workers=0).ok


@pytest.mark.slow(reason="a converter that is stopped for as long as a beat of its lock")
def test_a_converter_that_slept_writes_nothing_when_it_wakes(
    proxy: Proxy, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_lock, "STALE_S", 0)
    place = new_place(proxy.url)
    direct = BucketPlace(place.url, proxy.target)
    proxy.latency_s = 0.2
    line = convert_command(*files, "--store", place.url, "--endpoint-url", proxy.url, "-w", "0")
    sleeper = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
    # asleep in the PUT of a shard: documents and tables are written by several threads, and one may have looked at the lock and
    # not written yet: what such a PUT does is in test_puts_at_kill
    while not any(r.method == "PUT" and re.search("/steps/.*/c/", r.path) for r in proxy.requests) and sleeper.poll() is None:
        time.sleep(0.005)
    os.kill(sleeper.pid, signal.SIGSTOP)
    time.sleep(0.5)
    convert(files[1:], direct, workers=0, overwrite=True)
    time.sleep(fence.LOOK_AGAIN_S)
    n = len(proxy.requests)
    os.kill(sleeper.pid, signal.SIGCONT)
    _, said = sleeper.communicate(timeout=60)
    late = [request.path for request in proxy.requests[n:] if request.method in ("PUT", "POST", "DELETE")]
    assert late == [], said
    assert (sleeper.returncode, len([x for x in said.splitlines() if x.startswith("robozarr")])) == (3, 1), said
    convert(files[1:], tmp_path / "b.zarr", workers=0)
    for name in place_of(tmp_path / "b.zarr").names():
        (tmp_path / "c.zarr" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "c.zarr" / name).write_bytes(direct.read(name))
    assert same_bytes(tmp_path / "b.zarr", tmp_path / "c.zarr")

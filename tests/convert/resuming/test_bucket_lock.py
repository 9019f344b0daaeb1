"""The lock of a store in a bucket: one converter at a time, whatever becomes of its holder."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from pathlib import Path

import pytest
from killing import convert_command
from remote import environment, new_place

from robozarr.convert.resuming import bucket_lock
from robozarr.convert.resuming.journal import FOLDER, Journal
from robozarr.schemas.errors import StoreError
from robozarr.store.bucket import BucketPlace


def command(source: Path, place: BucketPlace, workers: int) -> list[str]:
    assert place.endpoint_url is not None
    return convert_command(source, "--store", place.url, "--endpoint-url", place.endpoint_url, "-w", str(workers))


def test_a_second_converter_is_refused(s3: str, sample: Path) -> None:
    place = new_place(s3)
    with Journal(place).locked():
        ended = subprocess.run(command(sample, place, 0), capture_output=True, text=True, check=False, env=environment())
        assert ended.returncode == 3
        assert "another converter is working on this store (process" in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert place.names() == []


def test_of_many_converters_one_gets_the_lock(s3: str) -> None:
    place, got = new_place(s3), []
    start = threading.Barrier(8)

    def compete() -> None:
        start.wait()
        with contextlib.suppress(StoreError), Journal(place).locked():
            got.append(1)
            held.wait(10)

    held = threading.Event()
    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert got == [1]
    held.set()
    for thread in threads:
        thread.join()
    assert place.names() == []


def test_the_lock_of_another_machine_is_stale_after_a_while(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = new_place(s3)
    holder = {"host": "elsewhere", "pid": 1, "since": "then", "processes": "another boot", "started": "1"}
    place.write(f"{FOLDER}/lock", [json.dumps(holder).encode()])
    with pytest.raises(StoreError, match=r"process 1 on elsewhere, since then.*5 minutes"), Journal(place).locked():
        pass
    assert place.names() == [f"{FOLDER}/lock"]
    monkeypatch.setattr(bucket_lock, "STALE_S", 0)
    with Journal(place).locked():
        assert json.loads(place.read(f"{FOLDER}/lock"))["host"] != "elsewhere"
    assert place.names() == []


def test_the_holder_writes_its_lock_anew_and_stops_when_it_has_lost_it(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, journal = new_place(s3), Journal(new_place(s3))
    journal = Journal(place)
    monkeypatch.setattr(bucket_lock, "HEARTBEAT_S", 0.02)
    with journal.locked():
        tags = set()
        for _ in range(50):
            tags.add(place.read_tagged(f"{FOLDER}/lock")[1])
            time.sleep(0.01)
        assert len(tags) > 3
        journal.check()
        place.write(f"{FOLDER}/lock", [b"{}"])
        time.sleep(0.3)
        with pytest.raises(StoreError, match="another converter has taken over this store"):
            journal.check()
    assert place.read(f"{FOLDER}/lock") == b"{}"  # it is not the holder's to remove

"""A folder and a bucket are one to those who read and write stores: the same answers, the same errors."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from faulty import Fault, Kind, Proxy, Request, broken, first_n
from remote import BUCKET, CREDENTIALS, new_place, read_and_tell

from robozarr.schemas.errors import BucketError, StoreError
from robozarr.store import bucket, bucket_listing
from robozarr.store.bucket import BucketPlace
from robozarr.store.folder import FolderPlace
from robozarr.store.locate import place_of
from robozarr.store.place import Place

DATA = bytes(range(256)) * 4096


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return FolderPlace(tmp_path / "a.zarr")
    return new_place(request.getfixturevalue("s3"))


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No retries: what fails, fails at once."""
    for retry in ("RETRY", "FIRST_RETRY"):
        monkeypatch.setattr(bucket, retry, {**bucket.RETRY, "max_retries": 0})
    monkeypatch.setattr(bucket, "ATTEMPTS", 1)
    bucket._open.cache_clear()
    yield
    bucket._open.cache_clear()


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], int]] = []

    def look(descriptor: int) -> None:
        seen.append((sorted(file.name[-3:] for file in tmp_path.iterdir()), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", look)
    FolderPlace(tmp_path).write("a", [DATA[:10]])
    assert seen == [(["tmp"], 10)]
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_place_is_a_place(place: Place) -> None:
    assert place.names() == []
    place.write("steps/a/c/0", [DATA[:10], memoryview(DATA)[10:20], b""])
    place.write("zarr.json", [b"{}"])
    place.write("zarr.json", [b"[]"])
    assert place.names() == ["steps/a/c/0", "zarr.json"]
    assert place.read("steps/a/c/0") == DATA[:20]
    assert place.read("zarr.json") == b"[]"
    assert place.exists("zarr.json")
    assert not place.exists("zarr")
    assert [bytes(part) for part in place.read_ranges("steps/a/c/0", [15, 0], [20, 2])] == [DATA[15:20], DATA[:2]]
    below = place.below("steps")
    assert below.names() == ["a/c/0"]
    assert pickle.loads(pickle.dumps(below)) == below != place
    below.below("a").move("c/0", place)
    assert place.read("c/0") == DATA[:20]
    place.remove(["c/0", "nowhere/at/all"])
    place.write("steps/b", [b"1"])
    place.write("stepsister", [b"2"])
    place.empty(["steps", "nowhere"])
    assert place.names() == ["stepsister", "zarr.json"]
    assert place.at("zarr.json").endswith("zarr.json")
    assert str(place) == place.url


NAMES = ["two words", "a#b", "per%20cent", "1+1=2", "*?[x]&~'", "back\\slash", "täst €", "%"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_what_they_are(s3: str, name: str, tmp_path: Path) -> None:
    """A key's name may hold nearly anything; other tools must find the object under the same."""
    boto3 = pytest.importorskip("boto3")
    place = place_of(f"s3://{BUCKET}/names {name}/x.zarr", s3)
    for store in (place, FolderPlace(tmp_path)):
        store.write(f"steps/{name}/c/0", [b"1"])
        store.below("stage").write(f"steps/{name}/c/1", [b"2"])
        store.below("stage").move(f"steps/{name}/c/1", store)
        store.empty(["stage"])
        assert store.names() == [f"steps/{name}/c/{number}" for number in range(2)]
        assert [store.read(path) for path in store.names()] == [b"1", b"2"]
    found = boto3.client("s3", endpoint_url=s3).list_objects_v2(Bucket=BUCKET, Prefix=f"names {name}/")["Contents"]
    assert [entry["Key"] for entry in found] == [f"names {name}/x.zarr/{path}" for path in place.names()]


def test_what_is_not_there_is_an_error_that_names_it(place: Place) -> None:
    place.write("a", [DATA[:10]])
    for read in (lambda: place.read("b/c"), lambda: place.read_ranges("b/c", [0], [1])):
        with pytest.raises(FileNotFoundError, match="b/c"):
            read()


def test_a_file_that_is_too_short_is_an_error(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    place.write("a", [DATA[:10]])
    for ranges in ([(5, 11)], [(0, 2), (30, 80)]):
        with pytest.raises(OSError, match="/a: ends before byte"):
            place.read_ranges("a", [start for start, _ in ranges], [end for _, end in ranges])
    capfd.readouterr()  # obstore's words about a range behind the end


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3://", "not a valid place for a store"),
        ("s3:///prefix", "not a valid place for a store"),
        ("s3://bucket/a/../b", "not a valid place for a store"),
        ("s3://key:secret@bucket/a", "not a valid place for a store"),
        ("ftp://bucket/a", "give s3://bucket/prefix, gs://bucket/prefix or a folder"),
        (Path("s3://bucket/prefix"), "give it as text"),
    ],
)
def test_what_is_no_place_is_refused(url: str | Path, match: str) -> None:
    with pytest.raises(StoreError, match=match):
        place_of(url)


def test_an_endpoint_goes_with_s3(tmp_path: Path) -> None:
    for url in (tmp_path, "gs://bucket/a"):
        with pytest.raises(StoreError, match=r"leave (it|out --endpoint-url)"):
            place_of(url, "http://127.0.0.1:1")
    for endpoint in ("127.0.0.1:9000", "https://user:secret@example.org"):
        with pytest.raises(StoreError, match="begins with http:// or https://") as caught:
            place_of("s3://bucket/a", endpoint)
        assert "secret" not in str(caught.value)


def test_no_credential_is_shown_or_sent(s3: str) -> None:
    place = new_place(s3)
    place.write("a", [b"1"])
    for text in (repr(place), str(place), repr(pickle.dumps(place))):
        assert not any(value in text for name, value in CREDENTIALS.items() if "KEY" in name and len(value) > 4)


IDEMPOTENT: dict[str, Callable[[BucketPlace], object]] = {
    "read": lambda place: place.read("a"),
    "ranges": lambda place: [bytes(part) for part in place.read_ranges("a", [0, 900_000], [10, 900_100])],
    "write": lambda place: place.write("b", [DATA]),
    "names": lambda place: place.names(),
    "exists": lambda place: place.exists("a"),
    "move": lambda place: place.move("a", place.below("c")),
    "remove": lambda place: place.remove(["d"]),
}
BREAKS: tuple[Kind, ...] = ("503", "reset", "lost answer", "slow", "truncated")


@pytest.mark.parametrize("kind", BREAKS)
def test_what_breaks_is_asked_again(proxy: Proxy, kind: Kind) -> None:
    place = new_place(proxy.url)
    place.write("a", [DATA])
    expected = {"read": DATA, "ranges": [DATA[:10], DATA[900_000:900_100]], "exists": True}
    for name, act in IDEMPOTENT.items():
        names = place.names()
        with broken(proxy, first_n(1, kind)):
            found = act(place)
        assert found == expected.get(name, names if name == "names" else None), name
        assert len(proxy.requests) >= (1 if kind in ("slow", "truncated") else 2)
    assert place.read("b") == DATA == place.read("c/a")


@pytest.mark.parametrize("kind", [*BREAKS[:3], "truncated"])
def test_what_stays_broken_is_an_error_that_names_the_object(proxy: Proxy, one_try: None, kind: Kind) -> None:
    place = new_place(proxy.url)
    place.write("a", [DATA])
    for name in ("read", "ranges", *(("write",) if kind != "truncated" else ())):
        with broken(proxy, lambda request: Fault(kind)), pytest.raises(BucketError, match=rf"{place.url}/[ab]: cannot be "):
            IDEMPOTENT[name](place)


def test_a_listing_is_whole_or_an_error(proxy: Proxy, one_try: None) -> None:
    place = new_place(proxy.url)
    for number in range(3):
        place.write(f"{number}", [b"1"])
    kinds: tuple[Kind, ...] = ("truncated", "cut", "flipped")
    for kind in kinds:
        with broken(proxy, lambda request, kind=kind: Fault(kind)), pytest.raises(BucketError, match="cannot be listed"):  # type: ignore[misc]
            place.names()


def test_a_listing_that_repeats_itself_ends(s3: str) -> None:
    """A service, or a proxy with a cache, that answers each request for a page with the first one."""

    class Repeating(Proxy):
        async def _forward(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
            answer, data = await super()._forward(re.sub(rb"&?continuation-token=[^& ]*", b"", head), body)
            more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>"
            return answer, data.replace(b"<IsTruncated>false</IsTruncated>", more)

    place = new_place(s3)
    for number in range(3):
        place.write(f"a/{number}", [b"x"])
    with (
        Repeating(s3) as proxy,
        pytest.raises(BucketError, match="lists the same objects again and again; check --endpoint-url"),
    ):
        BucketPlace(place.url, proxy.url).names()


def test_a_listing_of_endless_empty_pages_ends(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(Proxy):
        n_pages = 0

        async def _forward(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
            answer, data = await super()._forward(re.sub(rb"&?continuation-token=[^& ]*", b"", head), body)
            self.n_pages += 1
            more = b"<IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken>" % self.n_pages
            return answer, data.replace(b"<IsTruncated>false</IsTruncated>", more)

    monkeypatch.setattr(bucket_listing, "PAGE_S", 1.0)
    place = new_place(s3)
    with Empty(s3) as proxy, pytest.raises(BucketError, match="announced more pages for 1 s, and no name came; check"):
        BucketPlace(place.url, proxy.url).names()
    assert proxy.n_pages > 1


def test_only_one_creates_and_only_the_holder_of_the_tag_replaces(s3: str) -> None:
    place = new_place(s3)
    first = place.put_if("lock", b"1", None)
    assert first is not None
    assert place.put_if("lock", b"2", None) is None
    second = place.put_if("lock", b"3", first)
    assert second not in (None, first)
    assert place.put_if("lock", b"4", first) is None
    assert place.read_tagged("lock") == (b"3", second)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_says_so_instead_of_waiting_for_ever(s3: str) -> None:
    place = new_place(s3)
    place.write("a", [b"here"])
    for context, expected in (
        (multiprocessing.get_context("fork"), "start processes by spawn or forkserver"),
        (multiprocessing.get_context("spawn"), "here"),
    ):
        found = context.SimpleQueue()
        process = context.Process(target=read_and_tell, args=(place, found))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert expected in found.get()


def test_a_profile_is_read_by_boto3(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3")
    (tmp_path / "credentials").write_text("[lab]\naws_access_key_id = a\naws_secret_access_key = b\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    place = new_place(s3)
    place.write("a", [b"1"])
    assert place.names() == ["a"]


def test_requests_that_are_not_ours_to_retry_are_not(proxy: Proxy) -> None:
    place = new_place(proxy.url)
    with broken(proxy, lambda request: Fault("403")), pytest.raises(BucketError, match=r"access is refused .*AccessDenied"):
        place.read("a")
    assert [(request.method, request.path) for request in proxy.requests] == [
        ("GET", f"/{BUCKET}/{place.at('a').split('/', 3)[3]}")
    ]


def test_an_upload_is_one_request_of_its_bytes(proxy: Proxy) -> None:
    place = new_place(proxy.url)
    data = os.urandom(20 * 2**20)
    place.write("shard", [data[:5], data[5:]])
    assert [(request.method, request.body == data) for request in proxy.requests] == [("PUT", True)]


def test_an_upload_may_take_longer_than_an_answer_may_keep_silent(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "CLIENT", {**bucket.CLIENT, "read_timeout": timedelta(seconds=0.3)})
    bucket._open.cache_clear()
    place, proxy.latency_s = new_place(proxy.url), 1.0
    place.write("a", [DATA])
    assert len(proxy.requests) == 1
    monkeypatch.setattr(bucket, "ATTEMPTS", 1)
    monkeypatch.setattr(bucket, "RETRY", {**bucket.RETRY, "max_retries": 1})
    bucket._open.cache_clear()
    with pytest.raises(BucketError, match=r"/a: cannot be read: .*timed out"):
        place.read("a")
    bucket._open.cache_clear()


def test_requests_are_not_made_one_after_the_other(proxy: Proxy) -> None:
    place = new_place(proxy.url)
    place.write("a", [DATA])
    proxy.reset()
    seen: list[Request] = proxy.requests
    proxy.latency_s = 0.05
    place.read_ranges("a", [0, 500_000], [10, 500_010])
    assert len(seen) == 1 or proxy.n_at_once == len(seen)


HALF_MADE = """
import sys, threading, time
from robozarr.store.locate import place_of

def slowly(frame, event, arg):
    if frame.f_code.co_filename.endswith("obstore/__init__.py"):
        if event == "line" and "store" in frame.f_globals and "put" not in frame.f_globals:
            begun.set()
            time.sleep(0.5)
        return slowly

def first():
    sys.settrace(slowly)
    place_of("s3://robots/a", "http://127.0.0.1:1").store

begun = threading.Event()
thread = threading.Thread(target=first)
thread.start()
assert begun.wait(60)
place_of("s3://robots/b", "http://127.0.0.1:1").store
print(hasattr(sys.modules["obstore"], "put"))
thread.join()
"""


def test_a_second_thread_waits_until_obstore_is_there() -> None:
    """Its module with the stores is ready before the package, whose functions these call."""
    pytest.importorskip("obstore")
    ran = subprocess.run([sys.executable, "-c", HALF_MADE], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.stdout, ran.stderr) == ("True\n", "")

"""What is said where a bucket, or what the environment says of it, is wrong: one true line, never a word of obstore's own."""

from __future__ import annotations

import http.server
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remote import CREDENTIALS, new_place

import robozarr as rz
from robozarr.schemas.errors import BucketError, CorruptChunkError, StoreError
from robozarr.store import bucket
from robozarr.store.bucket import BucketPlace
from robozarr.store.locate import place_of
from robozarr.store.place import Place

ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "page": (200, {}, b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"),
    "page 404": (502, {}, b"<html><body>Bad Gateway</body></html>"),
    "no location": (301, {}, b""),
    "stalled": (400, {}, b"<Error><Code>RequestTimeout</Code><Message>not read from within the timeout</Message></Error>"),
}
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork


class Service:
    """Answers everything alike; counts."""

    def __init__(self) -> None:
        self.answer, self.n, self.good_after = "page", 0, 10**9
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.n += 1
                status, headers, body = ANSWERS[service.answer] if service.n <= service.good_after else (200, {}, b"{}")
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("RETRY", "FIRST_RETRY"):
        monkeypatch.setattr(bucket, name, {**bucket.RETRY, "max_retries": 0})
    monkeypatch.setattr("robozarr.store.bucket.time.sleep", lambda _: None)
    bucket._open.cache_clear()
    yield
    bucket._open.cache_clear()


@pytest.mark.parametrize(
    ("answer", "scheme", "said"),
    [
        ("page", "http", "SERVICE answers with a web page; check --endpoint-url, proxies and logins"),
        ("page 404", "http", "502 Bad Gateway"),
        ("no location", "http", "SERVICE redirects to another address; check --endpoint-url, and set AWS_REGION"),
        ("stalled", "http", "RequestTimeout: not read from within the timeout; run the same command again"),
        ("page", "https", "SERVICE does not use TLS; give the endpoint with http:// if it has none"),
    ],
)
def test_odd_services(service: Service, answer: str, scheme: str, said: str) -> None:
    service.answer, service.n, service.good_after = answer, 0, 10**9
    endpoint = f"{scheme}://127.0.0.1:{service.port}"
    with pytest.raises(BucketError) as caught:
        rz.open_store("s3://robots/x.zarr", endpoint)
    assert "\n" not in str(caught.value)
    assert "s3://robots/x.zarr/zarr.json: cannot be read: " in str(caught.value)
    assert said.replace("SERVICE", endpoint) in str(caught.value)


def test_a_stalled_connection_is_asked_again(service: Service) -> None:
    service.answer, service.n, service.good_after = "stalled", 0, 2
    assert BucketPlace("s3://robots/y", f"http://127.0.0.1:{service.port}").read("a") == b"{}"
    assert service.n == 3


SECRET = "sup3rs3cret"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        *(
            (
                {name: value},
                f"{name} in the environment: {shown}: not an endpoint; give one that begins with http:// or https://",
            )
            for name, value, shown in (
                ("AWS_ENDPOINT_URL", "127.0.0.1:9000", "127.0.0.1:9000"),
                ("AWS_ENDPOINT_URL", "minio", "minio"),
                ("AWS_ENDPOINT_URL", "", "(nothing)"),
                ("AWS_ENDPOINT_URL", f"http://user:{SECRET}@minio:9000", "minio:9000"),
                ("AWS_ENDPOINT_URL_S3", "localhost:9000", "localhost:9000"),
                ("AWS_ENDPOINT_URL", "http://minio:99999", "http://minio:99999"),
                ("AWS_ENDPOINT_URL", "http://minio:x", "http://minio:x"),
                ("AWS_ENDPOINT_URL", f"http://minio/?X-Amz-Signature={SECRET}", "http://minio/"),
            )
        ),
        *(
            (
                {name: SECRET + ending},
                f"{name} in the environment holds a line break, or another character that a request cannot carry",
            )
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION")
            for ending in ("\n", "é", "\x00x"[1:] + "\t")
        ),
        (
            {"AWS_PROFILE": "nope", "AWS_ACCESS_KEY_ID": None},
            "AWS_PROFILE in the environment: The config profile (nope) could not be found; name a profile of ~/.aws/config",
        ),
        ({"AWS_SKIP_SIGNATURE": "maybe"}, 'failed to parse "maybe" as boolean; check the credentials and options'),
        (
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x", "AWS_ACCESS_KEY_ID": None},
            "the token file /no/token cannot be read",
        ),
    ],
)
def test_odd_environments(
    environment: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if environment.get("AWS_ACCESS_KEY_ID", "") is None:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for name, value in environment.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(BucketError) as caught:
        rz.open_store("s3://robots/z.zarr")
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "panicked" not in capfd.readouterr().err


def test_schemes_in_any_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("S3://robots/x", "s3://robots/x", " s3://robots/x"):
        assert place_of(url) == BucketPlace("s3://robots/x")
    for url in (
        "s3:/robots/x",
        "S3:robots/x",
        "https:/robots",
        "gs:/robots/x",
        "file:/tmp/x",
        "s3://robots/a\nb",
        "s3://robots/a\tb",
    ):
        with pytest.raises(StoreError, match=r"neither a URL nor the path of a folder|control characters"):
            place_of(url)
    for url in ("http://robots/x", "FILE:///tmp/x", "s3:///x"):
        with pytest.raises(StoreError):
            place_of(url)
    assert list(tmp_path.iterdir()) == []
    assert place_of("./s3:x").folder == Path("s3:x")


def upload(folder: Path, place: Place) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            place.write(file.relative_to(folder).as_posix(), [file.read_bytes()])


def tell(use: Callable[[], Any], found: multiprocessing.SimpleQueue[str]) -> None:
    try:
        use()
        found.put("fine")
    except BaseException as exc:
        found.put(f"{type(exc).__name__}: {exc}")


def test_zarr_reads_a_bucket_by_the_same_place(s3: str, sample_store: Path) -> None:
    """After a fork, where a shard is missing, where the service refuses: robozarr's errors, and none of zarr's zeros."""
    place = new_place(s3)
    upload(sample_store, place)
    store, local = rz.open_store(place), rz.open_store(sample_store)
    array = store.array("actions")
    assert np.array_equal(np.asarray(array[:]), np.asarray(local.array("actions")[:]))
    assert array.nbytes_stored() == local.array("actions").nbytes_stored()
    for use in (lambda: array[0], lambda: store.array("actions")[0], lambda: store.stats("actions")):
        found: multiprocessing.SimpleQueue[str] = multiprocessing.get_context("fork").SimpleQueue()
        process = multiprocessing.get_context("fork").Process(target=tell, args=(use, found))
        process.start()
        process.join(20)
        alive = process.is_alive()
        process.kill()
        assert not alive, "hangs"
        assert found.get().startswith(("BucketError: ", "StoreError: "))
    place.remove(["steps/actions/c/0/0"])
    with pytest.raises(CorruptChunkError, match=r"steps/actions/c/0/0: every expected shard must exist; it is missing"):
        _ = array[0]

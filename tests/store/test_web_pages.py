"""A login, or a proxy, that puts a web page in the place of a bucket's answers: an error, never an empty place."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from exits import exit_code
from remote import CREDENTIALS

from robozarr.schemas.errors import BucketError
from robozarr.store import bucket
from robozarr.store.bucket import BucketPlace
from robozarr.store.bucket_errors import is_web_page

HTML = b"<!DOCTYPE html><html><body>Sign in to the network</body></html>"
XHTML = b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x">\n<html xmlns="y"></html>'
PAGES = {"html": HTML, "xhtml": XHTML, "another document": b"<Foo><Bar/></Foo>", "nothing": b"", "json": b'{"error": 1}'}
S3 = "check --endpoint-url, proxies and logins"


class Handler(http.server.BaseHTTPRequestHandler):
    body = b""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(Handler.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(Handler.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketPlace]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for name in ("RETRY", "FIRST_RETRY"):
        monkeypatch.setattr(bucket, name, {**bucket.RETRY, "max_retries": 0})
    monkeypatch.setattr("robozarr.store.bucket.time.sleep", lambda _: None)
    bucket._open.cache_clear()
    yield BucketPlace("s3://robots/x.zarr", endpoint)
    bucket._open.cache_clear()


REQUESTS: dict[str, Callable[[BucketPlace], Any]] = {
    "names": lambda place: place.names(),
    "ranges": lambda place: place.read_ranges("a/c/0", [0], [9]),
    "write": lambda place: place.write("a", [b"x"]),
    "remove": lambda place: place.remove(["a", "b"]),
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("page", PAGES)
def test_no_answer_is_believed(place: BucketPlace, page: str, request_name: str) -> None:
    Handler.body = PAGES[page]
    with pytest.raises(BucketError) as caught:
        REQUESTS[request_name](place)
    assert str(caught.value).startswith("s3://robots/x.zarr")
    assert str(caught.value).endswith(S3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("page", ["html", "xhtml"])
def test_commands_say_so_in_one_line(
    place: BucketPlace, page: str, sample: Path, capsys: pytest.CaptureFixture[str], sample_store: Path
) -> None:
    Handler.body = PAGES[page]
    assert place.endpoint_url is not None
    end = ["--endpoint-url", place.endpoint_url]
    convert = ["convert", str(sample), "--store", place.url, "-w", "0"]
    for line in (
        ["info", place.url],
        ["verify", place.url, "-w", "0"],
        convert,
        [*convert, "--overwrite"],
        [*convert, "--append"],
    ):
        assert exit_code([*line, *end]) == 3
        said = [text for text in capsys.readouterr().err.splitlines() if text.strip()]
        assert len(said) == 1, said
        assert "answers with a web page; check --endpoint-url, proxies and logins" in said[0], line


def test_what_is_a_page() -> None:
    for data in (HTML, XHTML, b"\n\n <html>", b"\xef\xbb\xbf<!doctype HTML>", b"<!-- x --><html lang=de>"):
        assert is_web_page(data)
    for data in (b"", b"{}", b"<htmlx>", b"<ListBucketResult/>", b'{"a": "<html>"}'):
        assert not is_web_page(data)

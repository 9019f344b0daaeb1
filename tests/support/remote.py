"""A service that speaks S3 over HTTP on this machine (moto's server, in a process of its own), and places in it."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from robozarr.schemas.errors import BucketError
from robozarr.store.bucket import BucketPlace
from robozarr.store.locate import place_of
from robozarr.store.place import Place

__all__ = ["BUCKET", "CREDENTIALS", "new_place", "read_and_tell", "same_objects", "served"]

BUCKET = "robots"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test", "AWS_REGION": "us-east-1"}
SERVER = """
import contextlib, functools, logging, socketserver, sys, threading
from moto import backends
from moto.core import serialize
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

# moto looks whether an object is there, and then writes it: of two that write it only if it is not there, both may
answer, one = DomainDispatcherApplication.__call__, threading.Lock()
def answer_conditions_one_by_one(self, environ, start):
    with one if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ else contextlib.nullcontext():
        return answer(self, environ, start)
DomainDispatcherApplication.__call__ = answer_conditions_one_by_one

# Half of moto's time: it lists its own folder at each request, parses the date of each object of a list, and looks for the
# fields of each in six spellings, while they are a dict of their names.
names = tuple(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: names
serialize.parse_to_aware_datetime = functools.cache(serialize.parse_to_aware_datetime)
pick = serialize.AttributePicker.__call__
serialize.AttributePicker.__call__ = lambda self, at: (
    at.obj.get(at.key) if ".Contents" in at.key_path and type(at.obj) is dict else pick(self, at)
)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
socketserver.StreamRequestHandler.disable_nagle_algorithm = True  # it sends head and body apart
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()  # ends with the process that started it
"""


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The URL of a service with one empty bucket."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, "moto's server did not start"
        urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")).close()
        yield url
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def new_place(url: str, name: str = "store.zarr") -> BucketPlace:
    """A prefix that no other test uses."""
    place = place_of(f"s3://{BUCKET}/{uuid.uuid4().hex}/{name}", url)
    assert isinstance(place, BucketPlace)
    return place


def same_objects(place: Place, folder: Path) -> bool:
    """Whether a place holds the files of a folder, byte for byte, and nothing else.

    One listing says so: the tag of what a single PUT wrote, or a copy, is its MD5. To read each object takes a second.
    """
    assert isinstance(place, BucketPlace)
    local = place_of(folder)
    tags = {found["path"]: found["e_tag"] for page in place.store.list() for found in page}
    return tags == {name: f'"{hashlib.md5(local.read(name)).hexdigest()}"' for name in local.names()}


def environment(**more: str) -> dict[str, str]:
    """For another process: the credentials, and none of those that this machine may have."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("AWS_")}, **CREDENTIALS, **more}


def read_and_tell(place: BucketPlace, found: multiprocessing.SimpleQueue[str]) -> None:
    """What another process reads, or why not. Here, because a process that is started anew imports this by name."""
    try:
        found.put(place.read("a").decode())
    except BucketError as exc:
        found.put(str(exc))

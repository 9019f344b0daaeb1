"""A store's place in a bucket, through obstore: requests, retries, errors that say what to do. Imports no Zarr library.

Credentials are those that the environment holds; a place knows none, so that none is pickled or shown.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from robozarr.schemas.errors import BucketError, StoreError
from robozarr.store.bucket_errors import (
    AGAIN,
    TIMED_OUT,
    check_endpoint,
    check_environment,
    explain,
    is_panic,
    is_web_page,
    to_be_asked_again,
)
from robozarr.store.bucket_listing import listed_names
from robozarr.store.interrupts import heeding_signals, on_the_way_out
from robozarr.store.place import Buffer, Place

__all__ = ["BucketPlace", "Tag", "on_the_way_out"]

TIMEOUT, RETRY_TIME = timedelta(minutes=5), timedelta(minutes=2)
CLIENT: Final = {
    "allow_http": True,  # where the endpoint says http:// itself
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=60),  # of silence; not of uploads, which are silent to their end
    "timeout": TIMEOUT,
}
RETRY: Final = {
    "max_retries": 15,  # about 40 s in all, seldom less than 6; with obstore's 10 by a base of 2 it is 3 s
    "retry_timeout": RETRY_TIME,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 3},
}
FIRST_RETRY: Final = {**RETRY, "max_retries": 6}
"""Retries before a bucket has answered once: a wrong endpoint, or missing credentials, is reported after some seconds."""
ATTEMPTS: Final = 4
"""Attempts for requests that obstore does not repeat itself."""

GAP: Final = 2**20
"""Largest gap in bytes between ranges that are requested together."""

LEAST_TAG: Final = 16
"""Characters of an ETag that is a digest: shorter ones tell nothing apart."""

Tag = tuple[str | None, str | None]
"""The version of an object: S3 uses the first part, its ETag, Google the second, its generation."""
Result = TypeVar("Result")
_reached: set[tuple[str, str | None]] = set()
"""Buckets that have answered."""
_user: int | None = None
"""The process that uses obstore: its threads do not survive a fork, and a child would wait for them forever."""


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A prefix of a bucket."""

    url: str
    """URL without a final ``/``."""
    endpoint_url: str | None = None

    @classmethod
    def of(cls, url: str, endpoint_url: str | None = None) -> BucketPlace:
        """The place for a URL; StoreError if the URL is not valid."""
        scheme, separator, rest = url.partition("://")
        url = f"{scheme.lower()}{separator}{rest}"
        match = re.fullmatch(r"(s3|gs)://([A-Za-z0-9][A-Za-z0-9._-]+)((?:/[^/]+)*)/?", url)
        if match is None or any(part in (".", "..") for part in url.split("/")):
            raise StoreError(f"{url}: not a valid place for a store; give s3://bucket/prefix, gs://bucket/prefix or a folder")
        if any(not character.isprintable() for character in url):
            raise StoreError(
                f"{url!r}: object names must not contain line breaks, tabs or other control characters; give another"
            )
        if endpoint_url is not None and match[1] != "s3":
            raise StoreError(f"{url}: --endpoint-url goes with s3:// only; leave it out")
        if endpoint_url is not None:
            check_endpoint(endpoint_url, "--endpoint-url")
        return cls(url.rstrip("/"), endpoint_url)

    def __str__(self) -> str:
        return self.url

    @property
    def folder(self) -> Path | None:
        """None: a bucket is not a folder."""
        return None

    @property
    def patience_s(self) -> float:
        """Seconds allowed for a file beyond the time for its bytes: as long as requests are retried."""
        return (RETRY_TIME + 2 * TIMEOUT).total_seconds()

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.url.split("/")[2]

    @property
    def store(self) -> Any:
        """The obstore store of this process; BucketError in a process that was forked from one that has it."""
        global _user
        if _user not in (None, os.getpid()):
            raise BucketError(
                f"{self.url}: this process was forked from one that had opened a bucket, and cannot use it; start processes by "
                "spawn or forkserver (of a DataLoader: multiprocessing_context='forkserver')"
            )
        store = _open(self, (self.bucket, self.endpoint_url) in _reached)
        _user = os.getpid()
        return store

    @property
    def _uploads(self) -> Any:
        """The store for uploads."""
        _ = self.store  # not in a forked process
        return _open(self, (self.bucket, self.endpoint_url) in _reached, uploads=True)

    def at(self, path: str) -> str:
        """The file's URL."""
        return f"{self.url}/{path}"

    def below(self, path: str) -> BucketPlace:
        """The place with a longer prefix."""
        return BucketPlace(f"{self.url}/{path}", self.endpoint_url)

    def read(self, path: str, most: int | None = None) -> bytes:
        """Read a whole object; FileNotFoundError if there is none, BucketError if it is unreadable or longer than `most`."""

        def whole() -> bytes:
            answer = self.store.get(path)
            if most is not None and answer.meta["size"] > most:
                raise BucketError(
                    f"{self.at(path)}: {answer.meta['size']} bytes, but such an object may have at most {most}; restore it "
                    "from a copy, or convert again"
                )
            data = bytes(answer.bytes())
            if len(data) != answer.meta["size"]:
                raise OSError(f"{len(data)} of {answer.meta['size']} bytes arrived")
            if "/c/" not in path and is_web_page(data):
                raise self._web_page(path, "read")
            return data

        return self._ask(path, "read", whole)

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int], gap: int = GAP) -> Sequence[Buffer]:
        """Read byte ranges of an object, joining those up to `gap` bytes apart; BucketError if it ends before they do."""

        def ranges() -> Sequence[Buffer]:
            try:
                found: Sequence[Buffer] = self.store.get_ranges(path, starts=list(starts), ends=list(ends), coalesce=gap)
            except BaseException as exc:
                if not is_panic(exc):
                    raise
                raise self._too_short(path, max(ends)) from exc  # what obstore says to ranges behind the end
            for start, end, part in zip(starts, ends, found, strict=True):
                if len(part) != end - start:
                    raise self._too_short(path, end)
            return found

        return self._ask(path, "read", ranges)

    def read_end(self, path: str, n_bytes: int) -> tuple[Buffer, int]:
        """Read the last bytes of an object (all of a smaller one), and its size; raises as `read` does."""

        def end() -> tuple[Buffer, int]:
            try:
                answer = self.store.get(path, options={"range": {"suffix": n_bytes}})
            except Exception as exc:
                if not re.search("non-partial|416|InvalidRange", str(exc)):
                    raise
                answer = self.store.get(path)  # services answer so to a range of an empty object
            data, size = answer.bytes(), answer.meta["size"]
            if len(data) not in (min(n_bytes, size), size):
                raise OSError(f"{len(data)} of the last {min(n_bytes, size)} bytes arrived")
            return bytes(data)[-n_bytes:], size

        return self._ask(path, "read", end)

    def _too_short(self, path: str, end: int) -> BucketError:
        error = BucketError(f"{self.at(path)}: ends before byte {end}; restore it from a copy, or convert again")
        error.short = True
        return error

    def exists(self, path: str) -> bool:
        """Whether an object exists."""
        try:
            self._ask(path, "read", lambda: self.store.head(path))
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """Bytes of an object; FileNotFoundError if there is none."""
        found: int = self._ask(path, "read", lambda: self.store.head(path))["size"]
        return found

    def facts(self, path: str) -> tuple[object, ...] | None:
        """Facts that would differ if the object were written again; None where the service does not state enough."""
        found = self._ask(path, "read", lambda: self.store.head(path))
        tag = found["e_tag"] or ""
        if len(tag) < LEAST_TAG and found["version"] is None:
            return None
        return tag, found["version"], found["size"], found["last_modified"]

    def names(self, limit: int | None = None) -> list[str]:
        """Names of all objects below, sorted, by one listing; or the first ones found.

        An object whose name is a folder of others', by which consoles show a folder, is left out.
        """
        service = self.endpoint_url or "the service"
        found = self._ask("", "listed", lambda: listed_names(self.store.list(), self.url, service, limit))
        if not found and self.exists(f".{uuid.uuid4().hex}"):  # obstore takes a page of HTML for an empty listing
            raise self._web_page("", "listed")
        return found

    def _web_page(self, path: str, what: str) -> BucketError:
        return BucketError(
            f"{self.at(path) if path else self.url}: cannot be {what}: {self.endpoint_url or 'the service'} answers with a web "
            "page; check --endpoint-url, proxies and logins"
        )

    def write(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Write an object by one PUT: it appears whole or not at all."""
        if check is not None:
            check()
        self._ask(path, "written", lambda: self._uploads.put(path, b"".join(parts), use_multipart=False))

    def replace(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        """Write an object over the present one, or where none is; refused if somebody else writes it meanwhile."""
        data, tag = b"".join(parts), None
        with suppress(FileNotFoundError):
            tag = self.read_tagged(path)[1]
        if check is not None:
            check()
        if self.put_if(path, data, tag) is None and self.read(path) != data:  # equal: the first answer to this PUT was lost
            raise BucketError(f"{self.at(path)}: somebody else wrote it at the same time; run the same command again")

    def put_if(self, path: str, data: bytes, tag: Tag | None) -> Tag | None:
        """Write an object if it still has `tag`, or if there is none (tag None); returns its new tag, or None if it differs."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def put() -> Tag | None:
            known = (
                {} if tag is None else {name: of for name, of in zip(("e_tag", "version"), tag, strict=True) if of is not None}
            )
            try:
                written = self.store.put(path, data, mode=known or "create")
            except (AlreadyExistsError, PreconditionError):
                return None
            return written["e_tag"], written["version"]

        return self._ask(path, "written", put)

    def read_tagged(self, path: str) -> tuple[bytes, Tag]:
        """Read a small object and its tag."""

        def whole() -> tuple[bytes, Tag]:
            answer = self.store.get(path)
            return bytes(answer.bytes()), (answer.meta["e_tag"], answer.meta["version"])

        return self._ask(path, "read", whole)

    def written_at(self, path: str) -> datetime:
        """When an object was written, by the service's clock."""
        when: datetime = self._ask(path, "read", lambda: self.store.head(path))["last_modified"]
        return when

    def move(self, path: str, to: Place) -> None:
        """Copy inside the bucket; the original stays until it is removed."""
        import obstore

        assert isinstance(to, BucketPlace)
        root = BucketPlace("/".join(self.url.split("/")[:3]), self.endpoint_url)
        skip = len(root.url) + 1
        there = f"{to.url}/{path}"[skip:]
        self._ask(path, "copied", lambda: obstore.copy(root.store, f"{self.url}/{path}"[skip:], there))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects, many per request."""
        gone = list(paths)
        try:
            if gone:
                self._ask("", "emptied", lambda: self.store.delete(gone))
        except FileNotFoundError:  # Google's service says so of an object that is gone, and obstore stops there
            if len(gone) > 1:
                for path in gone:
                    self.remove([path])

    def empty(self, folders: Sequence[str]) -> None:
        """Remove everything below some prefixes, found by one listing."""
        self.remove(name for name in self.names() if name.startswith(tuple(f"{folder}/" for folder in folders)))

    def _ask(self, path: str, what: str, request: Callable[[], Result]) -> Result:
        """Send a request; repeats what obstore does not: a body that ends early, a POST, a conditional PUT."""
        _ = self.store  # says what is missing before obstore is asked for
        from obstore.exceptions import BaseError

        for attempt in range(ATTEMPTS):
            try:
                result = heeding_signals(request)
                _reached.add((self.bucket, self.endpoint_url))
                return result
            except FileNotFoundError as exc:
                if "NoSuchBucket" in str(exc) or what == "written":
                    raise self.error(path, what, exc) from exc
                raise FileNotFoundError(f"{self.at(path)}: no such object") from exc
            except BucketError:
                raise
            except OSError as exc:
                if attempt == ATTEMPTS - 1:
                    raise self.error(path, what, exc) from exc
            except BaseError as exc:
                if attempt == ATTEMPTS - 1 or not to_be_asked_again(exc, what):
                    raise self.error(path, what, exc) from exc
            except ValueError as exc:  # a name that obstore does not take
                raise self.error(path, what, exc) from exc
            except BaseException as exc:
                if is_panic(exc):
                    raise self.error(path, what, exc) from exc
                raise
            time.sleep(0.1 * 4**attempt)
        raise AssertionError

    def error(self, path: str, what: str, exc: BaseException) -> BucketError:
        """The error for a request that failed for good."""
        where = self.at(path) if path else self.url
        reason, remedy = explain(self.url, self.endpoint_url, exc)
        if TIMED_OUT in str(exc):
            reason += ", timed out"
        return BucketError(f"{where}: cannot be {what}: {reason}; {remedy}")


@lru_cache(maxsize=64)
def _open(place: BucketPlace, reached: bool, *, uploads: bool = False) -> Any:
    try:
        import obstore  # noqa: F401  # first: of threads that begin with one of its modules, some would find it half made
        from obstore.exceptions import BaseError
        from obstore.store import GCSStore, S3Store
    except ModuleNotFoundError as exc:
        raise StoreError(f"{place}: buckets need obstore; install it with: pip install '.[s3]' in a clone of robozarr") from exc
    check_environment(place.url, place.endpoint_url)
    scheme, _, bucket, *prefix = place.url.split("/")
    options: dict[str, Any] = {"prefix": "/".join(prefix) or None, "client_options": dict(CLIENT)}
    if uploads:
        del options["client_options"]["read_timeout"]
    options["retry_config"] = RETRY if reached else FIRST_RETRY
    if place.endpoint_url is not None:
        options["endpoint"] = place.endpoint_url
    if scheme == "s3:" and "AWS_PROFILE" in os.environ and "AWS_ACCESS_KEY_ID" not in os.environ:  # obstore reads no profiles
        try:
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ModuleNotFoundError as exc:
            raise StoreError(f"{place}: AWS_PROFILE needs boto3; install it with: pip install boto3") from exc
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        try:
            options["credential_provider"] = Boto3CredentialProvider()
        except (BotoCoreError, ValueError) as exc:  # no such profile, or one without credentials
            raise BucketError(
                f"{place}: AWS_PROFILE in the environment: {' '.join(str(exc).split())}; name a profile of ~/.aws/config that "
                "has credentials, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from exc
    try:
        return (S3Store if scheme == "s3:" else GCSStore)(bucket, **options)
    except (BaseError, ValueError, OSError) as exc:  # half of the credentials, a file of them that is not there
        reason, remedy = explain(place.url, place.endpoint_url, exc)
        if remedy == AGAIN:
            remedy = "check the credentials and options in the environment"
        raise BucketError(f"{place}: cannot be opened: {reason}; {remedy}") from exc
    except BaseException as exc:
        if is_panic(exc):
            reason, remedy = explain(place.url, place.endpoint_url, exc)
            raise BucketError(f"{place}: cannot be opened: {reason}; {remedy}") from exc
        raise

"""An HTTP proxy before an object store that counts requests, adds latency, and breaks answers as networks and services do.

In a thread of the tests' process (``with Proxy(url) as proxy``), or alone:
``python tests/support/faulty.py URL --latency 0.02``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

__all__ = ["Fault", "Proxy", "Request", "broken", "first_n"]

Kind = Literal["503", "403", "reset", "lost answer", "slow", "truncated", "cut", "flipped"]
"""
``503``          the service is busy; the request does not reach it
``403``          access is denied; the request does not reach it
``reset``        the connection ends before the request reaches the service
``lost answer``  the service does what was asked, then the connection ends before a byte of its answer
``slow``         the body comes in pieces, with pauses
``truncated``    the body ends half-way, and the connection with it
``cut``          half of the body comes, as if it were all: its length says so
``flipped``      one bit of the body is another
"""


REFUSALS: dict[str, tuple[bytes, bytes]] = {
    "503": (b"503 Slow Down", b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"),
    "403": (b"403 Forbidden", b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    """Decoded, with the bucket, without the query."""
    query: str
    range: str
    """The header, "" for a whole object."""
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    pause_s: float = 0.05
    """Of ``slow``: after each of the body's 8 pieces."""


def first_n(n: int, kind: Kind, which: Callable[[Request], bool] = lambda request: True) -> Callable[[Request], Fault | None]:
    """The first `n` requests that `which` is true of fail, the rest do not."""
    left, lock = [n], threading.Lock()

    def fault(request: Request) -> Fault | None:
        with lock:
            if not which(request) or left[0] == 0:
                return None
            left[0] -= 1
            return Fault(kind)

    return fault


class Proxy:
    """``url`` is what a client is told; ``requests`` is what was asked, failed attempts too."""

    def __init__(self, target: str, *, latency_s: float = 0.0, port: int = 0) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        self.target = target
        self._host, self._port = parts.hostname, parts.port or 80
        self.latency_s = latency_s
        """Added to each request, however many there are at a time."""
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.requests: list[Request] = []
        self.n_at_once = 0
        """The most requests that were under way at a time."""
        self._n_now = 0
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="faulty")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def reset(self) -> None:
        """Forget what was asked, and break nothing more."""
        self.requests, self.fault, self.n_at_once = [], lambda request: None, 0

    def count(self, method: str, ending: str = "") -> int:
        return sum(request.method == method and request.path.endswith(ending) for request in self.requests)

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener, limit=2**20))
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        self._loop.remove_reader(self._listener)
        self._loop.run_until_complete(_end_all(server))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client: request after request."""
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # head and body are sent apart
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError), _ended(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                request = await _parse(head, reader)
                self.requests.append(request)
                self._n_now += 1
                self.n_at_once = max(self.n_at_once, self._n_now)
                try:
                    await self._answer(request, head, writer)
                finally:
                    self._n_now -= 1

    async def _answer(self, request: Request, head: bytes, writer: asyncio.StreamWriter) -> None:
        fault = self.fault(request)
        await asyncio.sleep(self.latency_s)
        if fault is not None and fault.kind in REFUSALS:
            status, text = REFUSALS[fault.kind]
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(text)))
            writer.write(b"" if request.method == "HEAD" else text)
            return await writer.drain()
        if fault is not None and fault.kind == "reset":
            _reset(writer)
        answer, body = await self._forward(head, request.body)
        if fault is not None and fault.kind == "lost answer":
            _reset(writer)
        await _send(writer, answer, body, fault)

    async def _forward(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Status line and headers, and body, of the service's answer."""
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=2**20)
        with _ended(writer):
            writer.write(b"\r\n".join([*lines[:-2], b"Connection: close", b"", b""]) + body)
            await writer.drain()
            answer = await reader.readuntil(b"\r\n\r\n")
            headers = _headers(answer)
            if lines[0].startswith(b"HEAD"):
                return answer, b""
            if b"content-length" in headers:
                return answer, await reader.readexactly(int(headers[b"content-length"]))
            return answer, await reader.read() if b"chunked" not in headers.get(b"transfer-encoding", b"") else await _chunks(
                reader
            )


@contextlib.contextmanager
def _ended(writer: asyncio.StreamWriter) -> Iterator[None]:
    """The connection is closed at the end of the block; at once, with what was not sent, if the proxy ends."""
    try:
        yield
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()


async def _end_all(server: asyncio.Server) -> None:
    for _ in range(5):  # just taken connections get their tasks: a closed server would not close them
        await asyncio.sleep(0)
    server.close()
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # a closed connection closes its socket in the next turn


async def _send(writer: asyncio.StreamWriter, head: bytes, body: bytes, fault: Fault | None) -> None:
    kind = None if fault is None or not body else fault.kind
    length = None if not body and b"content-length" in _headers(head) else len(body)  # HEAD says the length of what it lacks
    if kind == "flipped":
        body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 16]) + body[len(body) // 2 + 1 :]
    if kind == "cut":
        body = body[: len(body) // 2]
        length = len(body)
    drop = (b"connection:", b"transfer-encoding:", *(() if length is None else (b"content-length:",)))
    lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(drop)]
    lines[0] = lines[0].replace(b"HTTP/1.0", b"HTTP/1.1")
    lines += [] if length is None else [b"Content-Length: %d" % length]
    writer.write(b"\r\n".join([*lines, b"", b""]))
    if kind == "truncated":
        writer.write(body[: len(body) // 2])
        await writer.drain()
        writer.close()
        raise ConnectionResetError
    if kind == "slow":
        assert fault is not None
        step = -(-len(body) // 8)
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            await asyncio.sleep(fault.pause_s)
        return
    writer.write(body)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a machine does that goes away: by RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


def _headers(head: bytes) -> dict[bytes, bytes]:
    pairs = (line.split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    return {name.strip().lower(): value.strip() for name, value in pairs}


async def _parse(head: bytes, reader: asyncio.StreamReader) -> Request:
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    headers, parts = _headers(head), urlsplit(target)
    request = Request(method, unquote(parts.path), parts.query, headers.get(b"range", b"").decode(), b"")
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        raise AssertionError("a PUT of unknown length is no single PUT")
    return replace(request, body=await reader.readexactly(int(headers.get(b"content-length", b"0"))))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while n := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(n))
        await reader.readline()
    return b"".join(parts)


@contextlib.contextmanager
def broken(proxy: Proxy, fault: Callable[[Request], Fault | None]) -> Iterator[Proxy]:
    """The proxy, with a fault while the block runs; what was asked before is forgotten."""
    proxy.reset()
    proxy.fault = fault
    try:
        yield proxy
    finally:
        proxy.fault = lambda request: None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to each request")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with Proxy(options.target, latency_s=options.latency, port=options.port) as alone:
        print(alone.url, flush=True)
        threading.Event().wait()

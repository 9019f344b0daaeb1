"""Serve a folder as a read-only bucket of an S3 endpoint, over HTTP on loopback, with some milliseconds of delay per request.

    python benchmarks/remote/bucket_server.py FOLDER [--latency-ms 20] [--port 0]

Prints its port, then serves until it is killed: GET (whole, a range, the last bytes), HEAD, ListObjectsV2 in one page, of the
bucket called "bucket"; ``GET /_requests`` tells how many requests for objects it has answered. For measuring clients: one
thread with nothing but a lookup, one system call and the latency a request, so that it is not what is measured. It checks no
signatures and knows no errors but 404 and 416; tests of behaviour use moto's server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET: Final = "/bucket/"
COMMON: Final = 'ETag: "0"\r\nLast-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n'


class Server(asyncio.Protocol):
    """One connection, which answers its requests in turn."""

    folder: Path
    latency_s: float
    n_requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head, self.buffer = self.buffer[:end].decode("latin-1"), self.buffer[end + 4 :]
            request, *lines = head.split("\r\n")
            method, target, _ = request.split(" ")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            answer = self.answer(method, target, fields)
            asyncio.get_running_loop().call_later(self.latency_s, self.transport.writelines, answer)

    def answer(self, method: str, target: str, fields: dict[str, str]) -> list[bytes]:
        url = urlsplit(target)
        path = unquote(url.path)
        if path == "/_requests":
            return whole("200 OK", str(Server.n_requests).encode())
        if path.rstrip("/") == BUCKET.rstrip("/"):
            return whole("200 OK", self.listing(parse_qs(url.query).get("prefix", [""])[0]))
        Server.n_requests += 1
        found = opened(self.folder / path.removeprefix(BUCKET))
        if found is None or not path.startswith(BUCKET):
            return whole("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
        fd, size = found
        start, stop = 0, size
        if (wanted := fields.get("range", "")).startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
            if start >= stop:
                return whole("416 Range Not Satisfiable", b"<Error><Code>InvalidRange</Code></Error>")
        status = f"206 Partial Content\r\nContent-Range: bytes {start}-{stop - 1}/{size}" if wanted else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\n{COMMON}\r\n".encode()
        return [head] if method == "HEAD" else [head, os.pread(fd, stop - start, start)]

    def listing(self, prefix: str) -> bytes:
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>0</ETag>"
            f"<Size>{path.stat().st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for path in paths
            if (key := path.relative_to(self.folder).as_posix()).startswith(prefix)
        )
        return f"<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


@cache
def opened(path: Path) -> tuple[int, int] | None:
    """An open file and its size; None if there is no such file."""
    return (os.open(path, os.O_RDONLY), path.stat().st_size) if path.is_file() else None


def whole(status: str, body: bytes) -> list[bytes]:
    """A complete answer that is not an object."""
    return [f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: application/xml\r\n\r\n".encode(), body]


async def serve(folder: Path, latency_s: float, port: int) -> None:
    Server.folder, Server.latency_s = folder, latency_s
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what the bucket holds")
    parser.add_argument("--latency-ms", type=float, default=20.0, help="from a request to its answer")
    parser.add_argument("--port", type=int, default=0, help="default: any that is free")
    options = parser.parse_args()
    asyncio.run(serve(options.folder, options.latency_ms / 1e3, options.port))


if __name__ == "__main__":
    main()

"""Ways to break a good store that `format_writer` wrote: one rule at a time, with checksums made right again.

Each function here gives a `Break`, which is called with the store's folder. It uses nothing of robozarr.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_writer
import numpy as np
from format_writer import Array, with_crc

GOOD = {path: (values, names) for path, values, names in format_writer.arrays()}
ABSENT, DELETE = 2**64 - 1, object()
Break = Callable[[Path], None]
SHARD = "steps/agentview_rgb/c/1/0/0/0"  # four chunks of one step each, rows 4 to 7
RGB, ACTIONS = "steps/agentview_rgb", "steps/actions"
LAST = "steps/agentview_rgb/c/4/0/0/0"  # rows 16 to 18, and one absent chunk


def linked(good: Path, store: Path) -> Path:
    """A copy of a store whose files are links to the good one's: what shutil.copytree takes three times as long for."""
    for folder, _, files in os.walk(good):
        inside = f"{store}{folder.removeprefix(str(good))}"
        Path(inside).mkdir()
        for file in files:
            os.link(f"{folder}/{file}", f"{inside}/{file}")
    return store


def replace(file: Path, data: bytes) -> None:
    """Put another file in the place of one, which may be a hard link that the good store shares."""
    file.unlink(missing_ok=True)
    file.write_bytes(data)


def assign(file: str, place: str, value: object) -> Break:
    """Set (or delete) the part of a JSON document that a dotted path names."""

    def broken(store: Path) -> None:
        document = part = json.loads((store / file).read_text())
        *above, last = [int(step) if step.isdigit() else step for step in place.split(".")]
        for step in above:
            part = part[step]
        if value is DELETE:
            del part[last]
        else:
            part[last] = value
        replace(store / file, json.dumps(document).encode())

    return broken


def root(place: str, value: object) -> Break:
    return assign("zarr.json", f"attributes.robozarr.{place}", value)


def array(place: str, value: object, path: str = "steps/actions") -> Break:
    return assign(f"{path}/zarr.json", place, value)


def inner(place: str, value: object) -> Break:
    return array(f"codecs.0.configuration.{place}", value)


def write(
    store: Path, path: str, values: Array, codec: str | None = "plain zstd", sizes: tuple[int, int] | None = None
) -> None:
    """Replace an array: shape, codec, sizes, shards."""
    shutil.rmtree(store / path)
    format_writer.write_array(store, path, values, GOOD[path][1], sizes or format_writer.sizes(path, len(values)), codec)


def put(path: str, at: Any, value: Any) -> Break:
    """Set elements of a table."""

    def broken(store: Path) -> None:
        values = GOOD[path][0].copy()
        values[at] = value
        write(store, path, values)

    return broken


def texts(path: str, *entries: bytes) -> Break:
    """Other texts in a column."""

    def broken(store: Path) -> None:
        for part, values, _ in format_writer.text(path, list(entries)):
            write(store, part, values)

    return broken


def recode(path: str, codec: str | None, sizes: tuple[int, int] | None = None) -> Break:
    return lambda store: write(store, path, GOOD[path][0], codec, sizes)


def reshard(file: str, change: Callable[[list[bytes], Array], bytes], n_entries: int = 4) -> Break:
    """Let `change` make a shard's body out of its chunks, and edit the index; its crc32c is made right again."""

    def broken(store: Path) -> None:
        data = (store / file).read_bytes()
        index = np.frombuffer(data[-16 * n_entries - 4 : -4], "<u8").reshape(-1, 2).copy()
        chunks = [data[int(at) : int(at + size)] for at, size in index if at != ABSENT]
        body = change(chunks, index)
        replace(store / file, body + with_crc(index.tobytes()))

    return broken


def swapped(chunks: list[bytes], index: Array) -> bytes:
    """Each row keeps its bytes, which lie in another order."""
    index[0, 0], index[1, 0] = len(chunks[1]), 0
    return b"".join([chunks[1], chunks[0], *chunks[2:]])


def gap(chunks: list[bytes], index: Array) -> bytes:
    index[1:, 0] += np.uint64(8)
    return chunks[0] + bytes(8) + b"".join(chunks[1:])


def shared(chunks: list[bytes], index: Array) -> bytes:
    """Two rows point at the same bytes."""
    index[1] = index[0]
    index[2:, 0] -= np.uint64(len(chunks[1]))
    return b"".join([chunks[0], *chunks[2:]])


def left_out(chunks: list[bytes], index: Array) -> bytes:
    index[len(chunks) - 1] = ABSENT
    return b"".join(chunks[:-1])


def too_many(chunks: list[bytes], index: Array) -> bytes:
    index[-1] = len(b"".join(chunks)), len(chunks[0])
    return b"".join([*chunks, chunks[0]])


def last_chunk(data: bytes) -> Callable[[list[bytes], Array], bytes]:
    """Other bytes, with a right crc32c, in the place of the last chunk."""

    def change(chunks: list[bytes], index: Array) -> bytes:
        index[len(chunks) - 1, 1] = len(data) + 4
        return b"".join([*chunks[:-1], with_crc(data)])

    return change


def blosc(n_bytes: int) -> bytes:
    return format_writer.compress(np.ones(n_bytes, np.uint8), "lz4")


def flip(file: str, at: int) -> Break:
    def broken(store: Path) -> None:
        data = bytearray((store / file).read_bytes())
        data[at] ^= 1
        replace(store / file, bytes(data))

    return broken


def padding(store: Path) -> None:
    """The last chunk of index/step holds rows 15 to 18 and one behind the last."""
    rows = np.array([0, 1, 2, 3, 7], np.int32)
    replace(store / "index/step/c/1", format_writer.pack_shard(rows, 5, 15, "plain zstd"))


def remove(path: str) -> Break:
    return lambda store: shutil.rmtree(store / path) if (store / path).is_dir() else (store / path).unlink()


def add(path: str, data: bytes = b"left") -> Break:
    """Another file, or another content of one."""

    def broken(store: Path) -> None:
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        replace(store / path, data)

    return broken


def exchange(first: str, second: str) -> Break:
    """Let two files change places."""

    def broken(store: Path) -> None:
        a, b = (store / first).read_bytes(), (store / second).read_bytes()
        replace(store / first, b)
        replace(store / second, a)

    return broken


def both(*breaks: Break) -> Break:
    def broken(store: Path) -> None:
        for one in breaks:
            one(store)

    return broken


def states_in_steps(store: Path) -> None:
    """States of one width as a plain key, statistics and all."""
    keys = format_writer.root("fast")["keys"]
    root("keys", [*keys[:-1], keys[0] | {"name": "states", "source": "states"}])(store)
    for folder in ("steps", "stats", "episodes/stats", "checksums"):
        shutil.copytree(store / folder / "actions", store / folder / "states")
        names = [name.replace("actions", "states") for name in GOOD[f"{folder}/actions"][1]]
        array("dimension_names", names, f"{folder}/states")(store)

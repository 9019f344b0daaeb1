"""A store that nobody should believe: everything that looks into it says what is wrong, and nothing else happens.

One case for each kind of lie; ``tests/support/fuzz_stores.py`` tries the rest of each kind.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_writer
import numpy as np
import pytest
from format_breaks import GOOD, Break, array, assign, both, inner, last_chunk, linked, put, replace, reshard, root, texts, write
from hostile import LOOKS, seal

import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.schemas.errors import CorruptChunkError, RoboZarrError, StoreError
from robozarr.schemas.source import is_array_name
from robozarr.store.folder import FolderPlace
from robozarr.store.table_rules import exact_sum
from synthetic import write_libero

HALF, DEPTH, RGB = 2**63 - 1, "steps/agentview_depth", "steps/agentview_rgb"
CODECS = "codecs.0.configuration.codecs"
WRAPS = [HALF, HALF, 21]  # 19 in int64


def claimed(n: int) -> Break:
    """An array of `n` steps by every document, where there are 19."""

    def broken(store: Path) -> None:
        root("n_steps", n)(store)
        put("episodes/length", slice(None), [6, 9, n - 15])(store)
        for file in store.rglob("zarr.json"):
            document = json.loads(file.read_text())
            names = document.get("dimension_names", [""])
            if names[0] in ("step", "step_edge"):
                document["shape"][0] = n + (names[0] == "step_edge")
                replace(file, json.dumps(document).encode())

    return broken


def bomb(n_bytes: int) -> Break:
    """A table of three numbers as a frame of Zstandard that decodes to as much as it can, and says so."""
    n_blocks = n_bytes // 2**17
    blocks = [struct.pack("<I", (2**17 << 3) | 2 | (i == n_blocks - 1))[:3] + b"\0" for i in range(n_blocks)]
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xC0, 0x58]) + struct.pack("<Q", n_bytes) + b"".join(blocks)
    return reshard("episodes/task/c/0", last_chunk(frame), 3)


def huge_chunk(rows: int) -> Break:
    """One chunk, of as many rows as can be claimed, and a frame that says that it decodes to them."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", rows) + b"\1\0\0"
    coded = format_writer.with_crc(frame)
    shard = coded + format_writer.with_crc(struct.pack("<QQ", 0, len(coded)))
    return both(
        raw("index/flags/c/0", lambda _: shard),
        array("chunk_grid.configuration.chunk_shape.0", rows, "index/flags"),
        array("codecs.0.configuration.chunk_shape.0", rows, "index/flags"),
    )


def raw(path: str, change: Callable[[bytes], bytes]) -> Break:
    return lambda store: replace(store / path, change((store / path).read_bytes()))


def ragged_dtype(store: Path) -> None:
    """Values that claim another type than the key's, of the same size."""
    array("data_type", "int64", "ragged/states/values")(store)


def odd_bools(store: Path) -> None:
    values = GOOD["episodes/splits/train"][0].copy()
    values.view(np.uint8)[1] = 2
    write(store, "episodes/splits/train", values)


CASES: dict[str, tuple[Break, str, str]] = {
    "lengths wrap": (put("episodes/length", slice(None), WRAPS), "windows", "episodes/length: every episode has a step .*, 19"),
    "lengths and starts wrap": (
        both(put("episodes/length", slice(None), WRAPS), put("episodes/start", slice(None), [0, HALF, -2])),
        "coverage", "episodes/length: every episode",
    ),
    "a negative length": (put("episodes/length", slice(None), [-4, 19, 4]), "windows", "episodes/length: every episode"),
    "no step": (put("episodes/length", slice(None), [0, 15, 4]), "windows", "episodes/length: every episode has a step"),
    "a start elsewhere": (put("episodes/start", 1, 2**62), "windows", "episodes/start: row 1 must be 6, got 4611"),
    "offsets wrap": (put("episodes/model_file/offsets", [1, 2], [HALF, -5]), "verify", "episodes/model_file/offsets: offsets"),
    "offsets wrap, one text": (put("episodes/model_file/offsets", [1, 2], [HALF, -5]), "tables", "episodes/model_file/offsets"),
    "offsets far away": (put("ragged/states/offsets", 3, HALF), "tables", "ragged/states/offsets: offsets must begin at 0"),
    "a task of none": (put("episodes/task", 1, -1), "windows", r"episodes/task: \[-1\] mean nothing"),
    "a source of none": (put("episodes/source", 1, 2**31 - 1), "windows", r"episodes/source: \[2147483647\] mean nothing"),
    "a code of none": (put("episodes/success", 1, 100), "windows", r"episodes/success: \[100\] mean nothing"),
    "a step elsewhere": (put("index/step", 3, -(2**31)), "tables", "index/step: row 3 must be 3"),
    "a flag of none": (put("index/flags", 3, 255), "coverage", "index/flags: only bits"),
    "no UTF-8": (texts("tasks/name", b"a", b"\xff"), "tables", "tasks/name: text 1: 'utf-8' codec"),
    "no JSON": (texts("sources/attributes", b"{}", b"[" * 10**5), "tables", "sources/attributes: text 1: JSON is nested"),
    "a name twice in JSON": (texts("sources/attributes", b"{}", b'{"a": {}, "a": {}}'), "tables", "the name 'a' occurs"),
    "neither true nor false": (odd_bools, "windows", "episodes/splits/train .*bools that are neither 0 nor 1"),
    "byte order": (array(f"{CODECS}.0.configuration.endian", "big", DEPTH), "windows", "endian must be 'little', got 'big'"),
    "byte order, low-dim": (inner("codecs.0.configuration.endian", "big"), "windows", "endian must be 'little', got 'big'"),
    "an axis of 10^400": (array("chunk_grid.configuration.chunk_shape.1", 10**400, RGB), "windows", "no JSON|shard shape"),
    "an axis of 2^62": (array("chunk_grid.configuration.chunk_shape.2", 2**62, RGB), "windows", "shard shape behind the first"),
    "a type by another name": (array("data_type", "<f8"), "windows", "bool, integers and floats only, got <f8"),
    "another type": (array("data_type", "int64"), "windows", "actions: dtype must be float64, got int64"),
    "other names of axes": (array("dimension_names", ["step", "x"]), "windows", "actions: dims must be"),
    "ragged values of another type": (ragged_dtype, "tables", "ragged/states/values: dtype must be float64, got int64"),
    "a field more": (array("must_understand", False), "windows", r"unknown fields \['must_understand'\]"),
    "a Zarr group with more": (assign("zarr.json", "colour", 1), "windows", r"unknown fields \['colour'\]"),
    "a split twice": (root("splits", ["train", "train"]), "windows", "splits hold a name twice"),
    "a backslash": (root("keys.1.name", "agent\\rgb"), "windows", "a key cannot be called"),
    "n_steps below 0": (root("n_steps", -1), "windows", "n_steps must be a count, got -1"),
    "n_steps of 2^70": (root("n_steps", 2**70), "windows", "n_steps must be a count"),
    "a name twice": (raw(f"{RGB}/zarr.json", lambda text: text.replace(b"{", b'{"a": 1, "a": 2, ', 1)), "windows", "twice"),
    "a document with NaN": (raw("zarr.json", lambda text: text.replace(b": 19", b": NaN", 1)), "windows", "NaN is no JSON"),
    "a deep document": (raw(f"{RGB}/zarr.json", lambda _: b"[" * 10**5), "windows", "nested too deeply"),
    "a document in UTF-16": (raw("zarr.json", lambda text: text.decode().encode("utf-16")), "windows", "no JSON"),
    "half a character": (raw("zarr.json", lambda text: text.replace(b"Env", b"\\ud800").replace(b"format_writer", b"\\udfff")),
                         "windows", "surrogates not allowed"),
    "steps by the hundred million": (claimed(10**8), "windows", "every expected shard must exist|must be|M11"),
    "steps beyond measure": (claimed(2**45), "windows", "episodes/length: every episode has a step and at most 2147483647"),
    "gigabytes in 200 kB": (bomb(6 * 2**30), "windows", "episodes/task .* found 196678 bytes, but .* at most 1096"),
    "megabytes in 1 kB": (bomb(2**24), "windows", "episodes/task .*must decode to 20 bytes; found 16777216 bytes"),
    "a chunk of 2^40 rows": (huge_chunk(2**40), "coverage", "at most 1073741824 bytes in a chunk"),
    "a chunk of 2^29 rows": (huge_chunk(2**29), "coverage", "index/flags .*536870912 claimed"),
}  # fmt: skip


ONCE_MORE = {
    "lengths and starts wrap", "no step", "a start elsewhere", "offsets wrap, one text", "a source of none", "a code of none",
    "a flag of none", "byte order, low-dim", "an axis of 2^62", "other names of axes", "n_steps below 0",
}  # fmt: skip
"""Lies that another case tells of another array or number, and test_format_violations.py to `verify`."""
SLOW = pytest.mark.slow(reason="one more lie of a kind")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "a.zarr"
    format_writer.write_by_hand(path, "fast")
    LOOKS["windows"](str(path))  # compiles what is not compiled yet, before anything is waited for
    return path


@pytest.fixture
def store(good: Path, tmp_path: Path) -> Path:
    return linked(good, tmp_path / "a.zarr")


@pytest.mark.parametrize("case", [pytest.param(case, marks=SLOW if case in ONCE_MORE else ()) for case in CASES])
def test_a_lie_is_an_error(case: str, store: Path) -> None:
    broken, look, words = CASES[case]
    broken(store)
    seal(store)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RoboZarrError, match=words):
        raise_found(LOOKS[look](str(store)))
    with pytest.raises(RoboZarrError):
        raise_found(verify(store, workers=0))
    with pytest.raises(RoboZarrError):
        LOOKS["append"](str(store))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 * 1024  # kB


def raise_found(report: Any) -> None:
    """What `verify` lists, as an error."""
    if violations := getattr(report, "violations", ()):
        raise StoreError(violations[0].text)


def test_sums_do_not_wrap() -> None:
    assert exact_sum(np.array(WRAPS, np.int64)) == sum(WRAPS)
    assert exact_sum(np.array([-(2**63), -1], np.int64)) == -(2**63) - 1
    assert exact_sum(np.empty(0, np.int64)) == 0


def in_the_place(path: Path, kind: str) -> None:
    """Something that is no regular file, or no folder of the store's."""
    if kind == "linked folder":
        away = path.parent / f"{path.name}-away"
        path.rename(away)
        path.symlink_to(away.name)
    elif kind == "linked file":
        away = path.with_name("away")
        path.rename(away)
        path.symlink_to(away.name)
    else:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "huge":
            path.touch()
            os.truncate(path, 2**42)


ODD = [
    *((kind, path) for kind in ("fifo", "device", "linked file", "huge")
      for path in ("zarr.json", f"{RGB}/zarr.json", f"{RGB}/c/1/0/0/0", "steps/actions/c/0/0", "episodes/task/c/0")),
    *(("linked folder", path) for path in ("steps", RGB, f"{RGB}/c", f"{RGB}/c/1", f"{RGB}/c/1/0", "steps/actions/c",
                                              "episodes")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path"), ODD)
def test_what_is_no_file_is_an_error_and_no_wait(kind: str, path: str, store: Path) -> None:
    in_the_place(store / path, kind)
    found: list[BaseException | None] = []

    def look() -> None:
        for one in ("windows", "verify"):
            try:
                raise_found(LOOKS[one](str(store)))
                found.append(None)
            except BaseException as exc:
                found.append(exc)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(60)
    assert len(found) == 2, "it waits"
    assert all(isinstance(exc, RoboZarrError) for exc in found), found
    if kind != "huge" or path.endswith("zarr.json"):
        assert any(words in str(found[0]) for words in ("link", "regular file", "at most", "missing"))


def test_the_store_itself_may_be_reached_by_links(good: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(good)
    (tmp_path / "folder").symlink_to(good.parent)
    for path in (tmp_path / "link", tmp_path / "folder" / good.name):
        LOOKS["windows"](str(path))
        assert FolderPlace(path).read("zarr.json")


def test_copies_of_documents_are_not_believed(store: Path) -> None:
    """``consolidated_metadata`` in the root document: zarr would take arrays from there."""
    document = json.loads((store / "steps/actions/zarr.json").read_text()) | {"data_type": "int64"}
    lie = {"kind": "inline", "must_understand": False, "metadata": {"steps/actions": document}}
    assign("zarr.json", "consolidated_metadata", lie)(store)
    LOOKS["windows"](str(store))
    assert rz.open_store(store).array("actions").dtype == np.float64


def test_keys_by_names_that_a_store_uses_itself(tmp_path: Path) -> None:
    names = ("offsets", "values", "bytes", "c", "index")
    extra = {f"obs/{name}": lambda n, _: np.arange(2.0 * n).reshape(n, 2) for name in names}
    write_libero(tmp_path / "s/a_demo.hdf5", lengths=(4, 3), extra=extra)
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    assert verify(tmp_path / "a.zarr", sources=tmp_path / "s", workers=0).violations == ()
    store = rz.open_store(tmp_path / "a.zarr")
    batch = rz.WindowDataset(store, rz.WindowSpec({name: [0] for name in names})).read(range(7))
    for name in names:
        assert batch[name][4:, 0, 1].tolist() == [1.0, 3.0, 5.0]
    LOOKS["append"](str(tmp_path / "a.zarr"))


def test_names_that_zarr_would_take_for_others() -> None:
    assert [name for name in ("a\\b", "a/b", "..", "", "__x", "zarr.json", "a\nb") if is_array_name(name)] == []
    assert all(is_array_name(name) for name in ("a", "offsets", "a.b", "é", "c"))


LIMITED = """
import resource, sys
import robozarr as rz
from robozarr.convert import verify
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, resource.RLIM_INFINITY))
for look in (lambda: rz.open_store(sys.argv[1]).index, lambda: verify(sys.argv[1], workers=0).violations[0]):
    try:
        print("found", look())
    except rz.RoboZarrError as exc:
        print("error", exc)
"""


def test_memory_that_cannot_be_had_is_an_error_too(store: Path) -> None:
    """Claims below every limit, in a process that has less: a chunk of zeros that really decodes to 512 MiB."""
    n = 2**29
    write(store, "index/flags", np.zeros(19, np.uint8), sizes=(n, n))
    seal(store)
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(store)], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.splitlines()) == 2
    assert "memory" in ran.stdout or "index/flags" in ran.stdout


def test_a_chunk_that_is_missing_is_named_by_the_kernel_itself(store: Path) -> None:
    """Rows that no store has: the compiled code says so, whoever asks."""
    dataset = rz.WindowDataset(rz.open_store(store), rz.WindowSpec({"agentview_rgb": [0], "actions": [0]}))
    reader = dataset.windows.reader
    for name, size in (("agentview_rgb", 216), ("actions", 32)):
        for row in (19, 20, 225, 2**40, 2**62):
            with pytest.raises(StoreError, match=f"row {row}"):
                reader.read(name, np.array([[0, row]]), np.array([0]), np.zeros((1, 2, size), np.uint8))
    assert issubclass(CorruptChunkError, StoreError)

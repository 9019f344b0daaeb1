"""`verify` refuses a violation of every MUST of FORMAT.md about frames with keyframes, and says where."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import format_writer
import google_crc32c
import numpy as np
import pytest
from format_breaks import Break, array, flip, linked, remove, replace, root

from robozarr.convert import verify
from robozarr.schemas.errors import StoreError

RGB, DEPTH, ACTIONS = "steps/agentview_rgb", "steps/agentview_depth", "steps/actions"
FIRST, LAST = f"{RGB}/c/0/0/0/0", f"{RGB}/c/1/0/0/0"  # rows 0 to 15, and 16 to 18
INNER = "codecs.0.configuration"
CODEC: dict[str, Any] = {"name": "robozarr.frames", "configuration": {"effort": "lean"}}
LITTLE, CRC = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
SMOOTH = [
    key._replace(steps=np.repeat(key.steps[:1], len(key.steps), axis=0)) if key.frame else key for key in format_writer.keys()
]
"""Frames that stand still, so that they are compressed, with keyframes."""
ENTRY = struct.Struct("<IIBBHI")
Entries = list[list[int]]


class Case(NamedTuple):
    rule: str
    what: str
    broken: Break
    place: str
    error: type[StoreError] | None = None


def rechunk(change: Callable[[Entries, list[bytes]], None], file: str = FIRST, *, honest: bool = True) -> Break:
    """Let `change` edit a chunk's entries and payloads; offsets are put right before, checksums (if `honest`) afterwards."""

    def broken(store: Path) -> None:
        data = (store / file).read_bytes()
        at, size = struct.unpack("<QQ", data[-20:-4])
        chunk = data[at : at + size]
        entries = [list(ENTRY.unpack(chunk[16 * row : 16 * row + 16])) for row in range(16)]
        payloads = [chunk[entry[0] : entry[0] + entry[1]] for entry in entries]
        change(entries, payloads)
        for row, (entry, payload) in enumerate(zip(entries, payloads, strict=True)):
            if honest and entry[3] != 255:
                entry[5] = google_crc32c.value(bytes([row, entry[2], entry[3]]) + payload)
        chunk = b"".join([*(ENTRY.pack(*entry) for entry in entries), *payloads])
        replace(store / file, chunk + format_writer.with_crc(struct.pack("<QQ", 0, len(chunk))))

    return broken


def set_entry(row: int, **values: int) -> Callable[[Entries, list[bytes]], None]:
    names = ("offset", "length", "mode", "keyframe", "zero", "crc32c")

    def change(entries: Entries, payloads: list[bytes]) -> None:
        for name, value in values.items():
            entries[row][names.index(name)] = value

    return change


def other_payload(row: int, make: Callable[[bytes], bytes]) -> Callable[[Entries, list[bytes]], None]:
    """Another payload of a row, with the offsets and the length that it needs."""

    def change(entries: Entries, payloads: list[bytes]) -> None:
        payloads[row] = make(payloads[row])
        entries[row][1], at = len(payloads[row]), 256
        for entry in entries:
            if entry[3] != 255:
                entry[0], at = at, at + entry[1]

    return change


def swapped(entries: Entries, payloads: list[bytes]) -> None:
    """Two payloads in another order, each with its own offset."""
    entries[1][0], entries[2][0] = entries[1][0] + entries[2][1], entries[1][0]
    payloads[1], payloads[2] = payloads[2], payloads[1]


def longer(_: Entries, payloads: list[bytes]) -> None:
    payloads[15] += b"x"


def of_another_size(entries: Entries, payloads: list[bytes]) -> None:
    """A first frame of LZ4 that lacks a byte."""
    other_payload(0, lambda _: format_writer.code_strip(bytes(215), 1, None))(entries, payloads)
    entries[0][2] = 1


def put(path: str, row: int, value: int) -> Break:
    def broken(store: Path) -> None:
        values, names = next((values.copy(), names) for one, values, names in format_writer.arrays("lean") if one == path)
        values[row] = value
        shutil.rmtree(store / path)
        format_writer.write_array(store, path, values, names, format_writer.sizes(path, len(values)), "plain zstd")

    return broken


def recode(path: str, codec: str | None, sizes: tuple[int, int]) -> Break:
    def broken(store: Path) -> None:
        values, names = next((values, names) for one, values, names in format_writer.arrays("lean") if one == path)
        shutil.rmtree(store / path)
        format_writer.write_array(store, path, values, names, sizes, codec, "lean")

    return broken


def version_1(store: Path) -> None:
    document = json.loads((store / "zarr.json").read_text())
    attributes = document["attributes"]["robozarr"]
    attributes["format_version"] = 1
    del attributes["identity"], attributes["files"]
    for source in attributes["sources"]:
        del source["digest"]
    replace(store / "zarr.json", json.dumps(document).encode())


AT, CHUNK = rf"{RGB} · shard 0 .* · chunk 0 \(rows 0 to 16\)", f"{INNER}.chunk_shape"
MINUS = rf"{AT} · frame 2 \(row 2\) · episode 0: "
CASES = [
    Case("M1", "lean in version 1", version_1, "profile 'lean' is one of version 2", StoreError),
    Case("M3", "fingerprints less", remove("fingerprints/agentview_rgb"), "fingerprints/agentview_rgb/zarr.json: missing"),
    Case("M4", "a codec before it", array(f"{INNER}.codecs", [LITTLE, CODEC], RGB), "chunk codecs with frames must be"),
    Case("M4", "a codec behind it", array(f"{INNER}.codecs", [CODEC, CRC], RGB), "chunk codecs with frames must be"),
    Case("M4", "no effort", array(f"{INNER}.codecs.0.configuration", {}, RGB), "agentview_rgb.*effort"),
    Case("M4", "another effort", array(f"{INNER}.codecs.0.configuration.effort", "best", RGB), "effort must be one of"),
    Case("M4", "a level", array(f"{INNER}.codecs.0.configuration.level", 3, RGB), "agentview_rgb.*codecs must be"),
    Case("M5", "compact in a lean store", array(f"{INNER}.codecs.0.configuration.effort", "compact", RGB),
         "agentview_rgb: codec must be frames-lean by the profile, got frames-compact"),
    Case("M5", "a lean store that says fast", root("profile", "fast"), "agentview_rgb: codec must be blosc-lz4 by the profile"),
    Case("M5", "a codec of another profile", recode(DEPTH, "zstd", (1, 4)), "codec must be frames-lean .* got blosc-zstd"),
    Case("M5", "frames of a low-dim key", recode(ACTIONS, "frames", (16, 16)), "actions: codec must be blosc-lz4"),
    Case("M5", "frames of a table", recode("episodes/alignment_error", "frames", (16, 16)), "codec frames-lean is not one of"),
    Case("M4", "chunks of 8", array(CHUNK, [8, 8, 9, 3], RGB), "chunks of frames hold 16 rows .* got 8"),
    Case("M6", "chunks of two, without keyframes", recode(DEPTH, "lz4", (2, 4)), "frames must have one step per chunk, got 2"),
    Case("M8", "payloads in another order", rechunk(swapped), rf"{AT} · frame 1 .* payloads must follow each other"),
    Case("M8", "a gap", rechunk(set_entry(3, offset=999)), "frame 3 .* payloads must follow each other, from the table on"),
    Case("M8", "a payload too long", rechunk(set_entry(2, length=900)), rf"{MINUS}a frame's payload must have 1 to 216 bytes"),
    Case("M8", "an empty payload", rechunk(set_entry(2, length=0)), rf"{MINUS}a frame's payload must have 1 to 216 bytes"),
    Case("M8", "bytes behind the last", rechunk(longer, honest=False), "frame 15 .* the last payload must end where"),
    Case("M9", "a byte of a payload", flip(FIRST, 300),
         rf"{AT} · frame \d+ .* episode 0: the frame must agree with its crc32c"),
    Case("M9", "a mode", rechunk(set_entry(2, mode=1), honest=False), rf"{MINUS}the frame must agree with its crc32c"),
    Case("M10", "another mode", rechunk(set_entry(2, mode=3)), rf"{MINUS}a mode must be one of the closed set"),
    Case("M10", "a bit of no meaning", rechunk(set_entry(2, mode=9)), rf"{MINUS}a mode must be one of the closed set"),
    Case("M10", "bytes that are not 0", rechunk(set_entry(2, zero=1)), rf"{MINUS}bytes 10 and 11 of an entry must be 0"),
    Case("M10", "a keyframe behind", rechunk(set_entry(2, keyframe=3)),
         rf"{MINUS}a keyframe must be the row itself, or one before"),
    Case("M10", "a keyframe's keyframe", rechunk(set_entry(4, keyframe=1)), "frame 4 .* a keyframe must be coded alone"),
    Case("M10", "stored with a keyframe", rechunk(set_entry(1, mode=0)), "frame 1 .* that is stored must have no keyframe"),
    Case("M10", "filtered, its keyframe is not", rechunk(set_entry(1, mode=5)), "frame 1 .* must have a filtered keyframe"),
    Case("M10", "another size", rechunk(of_another_size),
         rf"{AT} · frame 0 \(row 0\) · episode 0: bytes 0 to 216 of the frame decode; found"),
    Case("M10", "a row absent among others", rechunk(set_entry(2, keyframe=255)), "absent rows must stand behind"),
    Case("M10", "an absent row with a length", rechunk(set_entry(9, length=1), LAST), "all fields of an absent row .* be 0"),
    Case("M10", "a row too few", rechunk(set_entry(2, offset=0, length=0, mode=0, keyframe=255), LAST), "chunk 0 .rows 16"),
    Case("M21", "another frame's checksum", put("checksums/agentview_rgb", 7, 7), "checksums/agentview_rgb: of step 7 "),
    Case("M21", "another fingerprint", put("fingerprints/agentview_depth", 7, 7), "fingerprints/agentview_depth: of step 7 "),
]  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("good") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_writer, "keys", lambda: SMOOTH)
        format_writer.write_by_hand(path, "lean")
        assert verify(path, workers=0).violations == ()
        yield path
        assert verify(path, workers=0).violations == ()  # the breaks left the files alone that they share with it


def name(case: Case) -> str:
    return f"{case.rule} {case.what}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_verify_refuses(case: Case, good: Path, tmp_path: Path) -> None:
    store = linked(good, tmp_path / "a.zarr")
    case.broken(store)
    if case.error is not None:
        with pytest.raises(case.error, match=case.place):
            verify(store, workers=0)
        return
    format_writer.seal(store)
    violations = verify(store, workers=0).violations
    found = [violation for violation in violations if violation.rule == case.rule]
    assert any(re.search(case.place, violation.text) for violation in found), violations


def test_a_frame_key_may_do_without_keyframes(good: Path, tmp_path: Path) -> None:
    """As one whose steps are too large for a chunk of 16."""
    store = tmp_path / "a.zarr"
    shutil.copytree(good, store)
    frames = next(key.steps for key in SMOOTH if key.name == "agentview_depth")
    recode(DEPTH, "lz4", (1, 4))(store)
    sums = np.array([google_crc32c.value(format_writer.compress(frame, "lz4")) for frame in frames], np.uint32)
    shutil.rmtree(store / "checksums/agentview_depth")
    format_writer.write_array(store, "checksums/agentview_depth", sums, ("step",), (5, 15), "plain zstd")
    format_writer.seal(store)
    assert verify(store, workers=0).violations == ()

"""Damage to stores with keyframes: every byte of their frames changed; the right pixels, or an error that says where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import few_keys
import numpy as np
import pytest
from effort import some
from numpy.typing import NDArray

import robozarr
import synthetic
from robozarr.convert import convert
from robozarr.schemas.errors import CorruptChunkError
from robozarr.schemas.frame_chunk import ENTRY, frame_checksum
from robozarr.schemas.layout import Profile
from robozarr.schemas.shard import decode_shard, read_index
from robozarr.view.rows import read_rows

PROFILES: tuple[Profile, ...] = ("lean", "compact")
SOME = [
    pytest.param(profile, marks=[pytest.mark.slow(reason="the same on another profile")] if profile == "compact" else [])
    for profile in PROFILES
]
"""Both; compact, which differs in the encoder alone, only where there is time."""
KEY = "agentview_rgb"
SHARD = f"steps/{KEY}/c/0/0/0/0"
CHUNK = re.compile(
    rf"^steps/{KEY} · shard 0 \({SHARD}\) · chunk (?P<chunk>\d) \(rows \d+ to \d+\) · frame \d+ \(row (?P<row>\d+)\) · "
    r"episode (?P<episode>\d) \(demo_\d\), step \d+: .*; found .* → restore the shard from a copy, or convert again$"
)
INDEX = re.compile(rf"^steps/{KEY} · shard 0 \({SHARD}\).*: .*; found ")


@pytest.fixture(scope="module", params=SOME)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 steps of 8×8 pixels in two episodes; one chunk whole, with an episode's beginning in it, and one with 4 rows.

    Tests leave it as they find it.
    """
    folder = tmp_path_factory.mktemp("made")
    synthetic.write_libero(folder / "s/a_demo.hdf5", lengths=(7, 13), size=8, drop_keys=few_keys.OF_LIBERO)
    convert(folder / "s", folder / "a.zarr", workers=0, profile=request.param)
    return folder / "a.zarr"


def read_or_why(store: robozarr.Store, rows: list[int]) -> tuple[NDArray[Any] | None, str]:
    try:
        return read_rows(store, KEY, rows), ""
    except CorruptChunkError as exc:
        return None, exc.message


def try_every(store: Path, step: int, changes: tuple[int, ...]) -> int:
    """Change bytes of the shard one by one; how many reads were refused. All rows are read together, and some alone."""
    opened, rng = robozarr.open_store(store), np.random.default_rng(5)
    good, n_refused = (store / SHARD).read_bytes(), 0
    whole, episodes = read_rows(opened, KEY, range(20)), opened.index.episode.tolist()
    index = read_index(good, opened.layout(f"steps/{KEY}"), 0)
    begin_of_index = int(index[-1].sum())
    for at in range(0, len(good), step):
        chunk = int(np.searchsorted(index[:, 0], at, "right")) - 1
        rows_of_chunk = list(range(16 * chunk, min(16 * chunk + 16, 20)))
        for change in changes:
            (store / SHARD).write_bytes(good[:at] + bytes([good[at] ^ change]) + good[at + 1 :])
            for rows in (rows_of_chunk, [int(rng.choice(rows_of_chunk))], [19 if chunk == 0 else 0]):
                found, message = read_or_why(opened, rows)
                if found is not None:
                    assert np.array_equal(found, whole[rows]), (at, change, rows)
                    continue
                n_refused += 1
                said = (CHUNK if at < begin_of_index else INDEX).match(message)
                assert said, (at, rows, message)
                if at < begin_of_index:
                    assert int(said["chunk"]) == chunk
                    assert int(said["episode"]) == episodes[min(int(said["row"]), 19)]
    (store / SHARD).write_bytes(good)
    return n_refused


def test_some_bytes(store: Path) -> None:
    n_bytes, step = (store / SHARD).stat().st_size, some(97, 193)
    assert try_every(store, step, (1,)) >= n_bytes // step


@pytest.mark.slow(reason="each of some thousand bytes, three times")
def test_every_byte(store: Path) -> None:
    """As `verify` and an append read a shard: whatever is changed is noticed, and what is noticed says where."""
    opened = robozarr.open_store(store)
    layout, episodes = opened.layout(f"steps/{KEY}"), opened.index.episode.tolist()
    good = (store / SHARD).read_bytes()
    begin_of_index = int(read_index(good, layout, 0)[-1].sum())
    for at in range(len(good)):
        for change in (1, 0x80, 0xFF):
            bad = good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
            with pytest.raises(CorruptChunkError) as caught:
                decode_shard(bad, layout, 0, within=lambda row: f"episode {episodes[row]} (demo_{episodes[row]}), step 0")
            said = (CHUNK if at < begin_of_index else INDEX).match(caught.value.message)
            assert said, (at, caught.value.message)
            if at < begin_of_index:
                assert int(said["chunk"]) == (0 if at < int(read_index(good, layout, 0)[1, 0]) else 1)
                assert int(said["episode"]) == episodes[min(int(said["row"]), 19)]


@pytest.mark.parametrize(
    ("field", "row", "value", "message"),
    [
        ("offset", 3, 1, "frame 3 .* payloads must follow each other, from the table on; found offset 1, length"),
        ("length", 5, 0, "frame 5 .* a frame's payload must have 1 to 192 bytes; found"),
        ("length", 6, 2**32 - 1, "frame 6 .* a frame's payload must have 1 to 192 bytes"),
        ("mode", 2, 3, "frame 2 .* a mode must be one of the closed set; found .* mode 3"),
        ("mode", 2, 9, "frame 2 .* a mode must be one of the closed set"),
        ("zero", 9, 1, "frame 9 .* bytes 10 and 11 of an entry must be 0"),
        ("keyframe", 4, 5, "frame 4 .* a keyframe must be the row itself, or one before it"),
        ("keyframe", 4, 255, "frame 5 .* absent rows must stand behind all others"),
    ],
)
def test_a_table_has_one_form(store: Path, field: str, row: int, value: int, message: str) -> None:
    """With right checksums: what no writer writes is refused, not interpreted."""
    data = bytearray((store / SHARD).read_bytes())
    table = np.frombuffer(data, ENTRY, 16).copy()
    table[field][row] = value
    entry = table[row]
    payload = bytes(data[int(entry["offset"]) : int(entry["offset"]) + min(int(entry["length"]), 999)])
    table["crc32c"][row] = frame_checksum(row, int(entry["mode"]), int(entry["keyframe"]), payload)
    data[:256] = table.tobytes()
    layout = robozarr.open_store(store).layout(f"steps/{KEY}")
    with pytest.raises(CorruptChunkError, match=f"chunk 0 .* {message}"):
        decode_shard(bytes(data), layout, 0)

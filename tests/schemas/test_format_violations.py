"""`verify` refuses a violation of every MUST of FORMAT.md, and says where."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import format_writer
import numpy as np
import pytest
from format_breaks import (
    ACTIONS,
    DELETE,
    GOOD,
    LAST,
    RGB,
    SHARD,
    Break,
    add,
    array,
    assign,
    blosc,
    both,
    exchange,
    flip,
    gap,
    inner,
    last_chunk,
    left_out,
    linked,
    padding,
    put,
    recode,
    remove,
    reshard,
    root,
    shared,
    states_in_steps,
    swapped,
    texts,
    too_many,
)

from robozarr.convert import verify
from robozarr.schemas.errors import FormatVersionError, IncompleteStoreError, StoreError

FORMAT = Path(__file__).parents[2] / "schemas" / "FORMAT.md"


class Case(NamedTuple):
    """A rule, a break of it, and a pattern of the place that the report must name."""

    rule: str
    what: str
    broken: Break
    place: str
    error: type[StoreError] | None = None
    """The error that `verify` raises, where the store is not to be read at all."""


KEYS = format_writer.root("fast")["keys"]
LITTLE, CRC = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
SHARDED = format_writer.document(*GOOD[ACTIONS], 5, 15, "lz4")["codecs"][0]
GRID, SEPARATOR = "chunk_grid.configuration.chunk_shape", "chunk_key_encoding.configuration.separator"
LAST_EMPTY = both(put("episodes/length", slice(None), [6, 13, 0]), put("episodes/start", slice(None), [0, 6, 19]))
VAST = bytes.fromhex("28b52ffde0") + (1 << 60).to_bytes(8, "little") + b"\1\0\0"  # Zstandard, states 2^60 bytes
FLAT = np.ones(65536, np.int64)
CUP = "pick up the cup – gently".encode()

STATED = [
    Case("M1", "no attribute", assign("zarr.json", "attributes", {}), "this Zarr group is not a robozarr store", StoreError),
    Case("M1", "no root", remove("zarr.json"), r"a\.zarr/zarr\.json: missing", StoreError),
    Case("M1", "an array", assign("zarr.json", "node_type", "array"), "not the root of a Zarr v3 group", StoreError),
    Case("M1", "Zarr v2", assign("zarr.json", "zarr_format", 2), "not the root of a Zarr v3 group", StoreError),
    Case("M1", "version 3", root("format_version", 3), "format version 3", FormatVersionError),
    Case("M1", "a version in words", root("format_version", "1"), "format version '1'", FormatVersionError),
    Case("M1", "a field less", root("splits", DELETE), r"does not follow FORMAT.md: missing fields \['splits'\]", StoreError),
    Case("M1", "a field more", root("author", "me"), "unknown fields .*author", StoreError),
    Case("M1", "a field more in a key", root("keys.0.colour", "red"), "colour", StoreError),
    Case("M1", "a field less in a source", root("sources.1.size", DELETE), "size", StoreError),
    Case("M1", "another profile", root("profile", "best"), "must be one of raw, fast, lean, compact, got 'best'", StoreError),
    Case("M1", "no rule of a flag", root("flags.still", DELETE), "still", StoreError),
    Case("M1", "a negative count", root("n_steps", -1), "n_steps must be a count, got -1", StoreError),
    Case("M1", "no group", remove("episodes/stats/zarr.json"), "episodes/stats/zarr.json: missing"),
    Case("M1", "an array for a group", assign("index/zarr.json", "node_type", "array"), "index/zarr.json: a group"),
    Case("M2", "not complete", root("complete", False), "has not finished", IncompleteStoreError),
    Case("M2", "nearly true", root("complete", 1), "has not finished", IncompleteStoreError),
    Case("M2", "no word of it", root("complete", DELETE), "has not finished", IncompleteStoreError),
]  # fmt: skip

ARRAYS = [
    Case("M3", "an array less", remove("episodes/success"), "episodes/success/zarr.json: missing"),
    Case("M3", "statistics less", remove("stats/actions"), "stats/actions/zarr.json: missing"),
    Case("M3", "a split less", remove("episodes/splits/train"), "episodes/splits/train/zarr.json: missing"),
    Case("M3", "a step more", array("shape", [20, 4]), r"actions: shape must be \(19, 4\), got \(20, 4\)"),
    Case("M3", "another type", array("data_type", "int64"), "actions: dtype must be float64, got int64"),
    Case("M3", "another name of an axis", array("dimension_names", ["step", "i"]), "actions: dims must be"),
    Case("M4", "chunks across axis 2", inner("chunk_shape", [5, 2]), "actions.*chunk shape behind the first axis must be"),
    Case("M4", "shards across axis 2", array(GRID, [15, 2]), "actions.*shard shape behind the first axis must be"),
    Case("M4", "shards of no whole chunks", array(GRID, [14, 4]), "actions.*a shard of 14 rows is no multiple of 5"),
    Case("M4", "no sharding", array("codecs", [LITTLE]), "actions.*codec must be 'sharding_indexed', got 'bytes'"),
    Case("M4", "a codec behind the shard", array("codecs", [SHARDED, CRC]), "actions.*too many values"),
    Case("M4", "index first", inner("index_location", "start"), "actions.*index_location must be 'end', got 'start'"),
    Case("M4", "index without crc32c", inner("index_codecs", [LITTLE]), "actions.*index codecs must be"),
    Case("M4", "chunks without crc32c", inner("codecs", [LITTLE]), r"actions.*chunk codecs must be .* got \['bytes'\]"),
    Case("M4", "two compressors", inner("codecs", [LITTLE, ZSTD, ZSTD, CRC]), "actions.*chunk codecs must be"),
    Case("M4", "big-endian", inner("codecs.0.configuration.endian", "big"), "actions.*endian must be 'little', got 'big'"),
    Case("M4", "no byte order", inner("codecs.0.configuration", DELETE), "actions.*configuration"),
    Case("M4", "gzip", inner("codecs.1", GZIP), "actions.*compressor must be 'blosc', got 'gzip'"),
    Case("M4", "Blosc-snappy", inner("codecs.1.configuration.cname", "snappy"), "actions.*cname must be .* got 'snappy'"),
    Case("M4", "bitshuffle", inner("codecs.1.configuration.shuffle", "bitshuffle"), "actions.*shuffle must be 'shuffle'"),
    Case("M4", "shuffle not stated", inner("codecs.1.configuration.shuffle", DELETE), "actions.*shuffle"),
    Case("M4", "another separator", array(SEPARATOR, "."), r"actions.*separator must be '/', got '\.'"),
    Case("M4", "v2's names of chunks", array("chunk_key_encoding.name", "v2"), "actions.*encoding must be 'default'"),
    Case("M4", "another fill value", array("fill_value", 1), "actions.*fill_value must be"),
    Case("M5", "zstd in a fast store", recode(ACTIONS, "zstd"), "actions: codec must be blosc-lz4 .* got blosc-zstd"),
    Case("M5", "raw in a fast store", recode(RGB, None), "agentview_rgb: codec must be blosc-lz4 .* got none"),
    Case("M5", "ragged values", recode("ragged/states/values", "plain zstd"), "ragged/states/values: codec must be"),
    Case("M6", "frames by two", recode(RGB, "lz4", (2, 4)), "agentview_rgb: frames must have one step per chunk, got 2"),
]  # fmt: skip

SHARDS = [
    Case("M7", "frames less", remove(SHARD), f"agentview_rgb · shard 1 .{SHARD}.: every expected shard must exist"),
    Case("M7", "a part of a table less", remove("index/flags/c/1"), "index/flags · shard 1"),
    Case("M7", "a shard too many", add(f"{RGB}/c/9/0/0/0"), f"{RGB}/c/9/0/0/0: no shard of the array has this name"),
    Case("M7", "a shard among columns", add(f"{ACTIONS}/c/0/1"), f"{ACTIONS}/c/0/1: no shard of the array"),
    Case("M7", "another file", add("index/step/c/.DS_Store"), r"index/step/c/\.DS_Store: no shard of the array"),
    Case("M8", "another order", reshard(SHARD, swapped), "shard 1 .* chunk 0 .rows 4 to 5.: the index's ranges must follow"),
    Case("M8", "a gap", reshard(SHARD, gap), "shard 1 .* chunk 1 .rows 5 to 6.: the index's ranges"),
    Case("M8", "shared bytes", reshard(SHARD, shared), "shard 1 .* chunk 1 .rows 5 to 6.: the index's ranges"),
    Case("M8", "a chunk left out", reshard(SHARD, left_out), "shard 1 .* chunk 3 .rows 7 to 8.: the index's ranges"),
    Case("M8", "bytes before the index", reshard(SHARD, lambda c, _: b"".join([*c, b"x"])), "shard 1 .*between the last"),
    Case("M8", "a chunk behind the last row", reshard(LAST, too_many), "shard 4 .*: chunks behind the last row must be absent"),
    Case("M8", "no whole index", add(SHARD, bytes(9)), "shard 1 .* a shard must hold an index of 68 bytes; found 9"),
    Case("M9", "a byte of a chunk", flip(SHARD, 40), "shard 1 .* chunk 0 .rows 4 to 5.: the chunk must agree with its crc32c"),
    Case("M9", "a byte of the index", flip(SHARD, -30), "shard 1 .*: the index must agree with its crc32c"),
    Case("M9", "the index's checksum", flip(SHARD, -1), "shard 1 .*: the index must agree with its crc32c"),
    Case("M9", "a byte of a table", flip("tasks/name/bytes/c/0", 3), "tasks/name/bytes · shard 0 .* chunk 0"),
    Case("M9", "a byte of offsets", flip("tasks/name/offsets/c/0", 3), "tasks/name/offsets · shard 0 .* chunk 0"),
    Case("M10", "other padding", padding, "index/step · shard 1 .*: rows behind the last must be zero"),
    Case("M10", "a chunk too short", reshard(SHARD, last_chunk(blosc(215))), "chunk 3 .*must decode to 216 bytes; found 215"),
    Case("M10", "a chunk too long", reshard(SHARD, last_chunk(blosc(217))), "chunk 3 .*must decode to 216 bytes; found 217"),
    Case("M10", "no Blosc", reshard(SHARD, last_chunk(bytes(99))), "shard 1 .* chunk 3 .*must decode to 216 bytes"),
    Case("M10", "cut Blosc", reshard(SHARD, last_chunk(blosc(216)[:-5])), "shard 1 .* chunk 3 .*must decode to 216 bytes"),
    Case("M21", "mixed up frames", exchange(f"{RGB}/c/0/0/0/0", f"{RGB}/c/2/0/0/0"), "checksums/agentview_rgb: of step 0 "),
    Case("M21", "another frame's checksum", put("checksums/agentview_depth", 7, 7), "agentview_depth: of step 7 .*1 differ"),
    Case("M21", "another episode's rows", put("checksums/actions", 2, 7), "checksums/actions: of episode 2 the data has"),
    Case("M20", "left in an array", add("index/step/c/.0.a1.robozarr-tmp"), r"index/step/c/\.0\.a1\.robozarr-tmp: left"),
    Case("M20", "left in the root", add(".zarr.json.a1.robozarr-tmp"), r"\.zarr\.json\.a1\.robozarr-tmp: left behind"),
]  # fmt: skip

TABLES = [
    Case("M11", "too few steps", put("episodes/length", 0, 5), "episodes/length: .* 19 together; got 18"),
    Case("M11", "no step", put("episodes/length", slice(None), [6, 13, 0]), "episodes/length: every episode has a step"),
    Case("M11", "a start too early", put("episodes/start", 1, 5), "episodes/start: row 1 must be 6, got 5"),
    Case("M11", "a row of another episode", put("index/episode", 6, 0), "index/episode: row 6 must be 1, got 0"),
    Case("M11", "another t", put("index/step", 6, 6), "index/step: row 6 must be 0, got 6"),
    Case("M12", "a bit of no meaning", put("index/flags", 3, 8), "index/flags: only bits 0b111"),
    *(Case("M12", f"bit {bit}", put("index/flags", 7, GOOD["index/flags"][0][7] ^ (1 << bit)), "episode 1, step 1")
      for bit in range(3)),
    Case("M12", "another threshold of no-op", root("flags.noop.threshold", 9.0), "index/flags: episode 0, step"),
    Case("M12", "another threshold of still", root("flags.still.threshold", 9.0), "index/flags: episode 0, step"),
    Case("M12", "another k", root("flags.key_moment.k", 0), "index/flags: episode 0, step"),
    Case("M12", "no joint key", root("flags.joint_key", None), "index/flags: episode 1, step 0"),
    Case("M13", "episodes swapped", texts("episodes/demo", b"demo_10", b"demo_2", b"demo_0"), "episodes must be sorted"),
    Case("M13", "a demo twice", texts("episodes/demo", b"demo_2", b"demo_2", b"demo_0"), "episodes must be sorted"),
    Case("M13", "sources mixed", put("episodes/source", slice(None), [0, 1, 0]), "episodes must be sorted"),
    Case("M13", "no such task", put("episodes/task", 1, 2), r"episodes/task: \[2\] mean nothing"),
    Case("M13", "no such source", put("episodes/source", 2, 2), r"episodes/source: \[2\] mean nothing"),
    Case("M13", "another number of demos", root("sources.0.n_demos", 3), r"episodes/source: the sources state \[3, 1\]"),
    *(Case("M14", f"{name} {code}", put(f"episodes/{name}", 1, code), rf"episodes/{name}: \[{code}\] mean nothing")
      for name, codes in [("success", "2"), ("alignment", "-2"), ("image_convention", "2"), ("image_evidence", "-1 5")]
      for code in map(int, codes.split())),
    Case("M15", "offsets begin at 1", put("tasks/suite/offsets", 0, 1), "tasks/suite/offsets: offsets must begin at 0"),
    Case("M15", "offsets fall", put("tasks/suite/offsets", 1, 15),
         "tasks/suite/offsets: offsets must begin at 0 and never fall"),
    Case("M15", "offsets end early", put("tasks/suite/offsets", 2, 13), "tasks/suite/bytes: 14 values, .* end at 13"),
    Case("M15", "offsets end late", put("ragged/states/offsets", -1, 241), "ragged/states/values: 240 values"),
    Case("M15", "negative offsets", put("episodes/init_state/offsets", 1, -3),
         "episodes/init_state/offsets: offsets must begin"),
    Case("M16", "another width in an episode", put("ragged/states/offsets", 3, 37), "ragged/states: .* row 2 differs"),
    Case("M17", "no UTF-8", texts("tasks/name", b"pick_up", b"open\xff"), "tasks/name: text 1: 'utf-8' codec"),
    Case("M17", "half a letter", put("tasks/instruction/offsets", 1, 17), "tasks/instruction: text 0: 'utf-8' codec"),
    Case("M17", "a demo of no number", texts("episodes/demo", b"a", b"b_1", b"c_0"), "episodes/demo: text 0: 'a' does not"),
    Case("M17", "no JSON", texts("sources/attributes", b"{}", b"{"), "sources/attributes: text 1"),
    Case("M3", "no instructions", remove("episodes/instruction"), "episodes/instruction/offsets/zarr.json: missing"),
    Case("M17", "instructions of no UTF-8", texts("episodes/instruction", b"\xff", b"", b""), "episodes/instruction: text 0"),
    Case("M22", "words of its own", texts("episodes/instruction", CUP, b"close it", b"open the drawer"),
         "episodes/instruction: episode 1: 'pick up the cup – gently', as task 0 has it, got 'close it'"),
    Case("M22", "no words", texts("episodes/instruction", CUP, CUP, b""), "episode 2: 'open the drawer', as task 1 .* got ''"),
    Case("M22", "words of the name, said to be stated", put("episodes/instruction_source", 2, 4),
         r"instruction_source: episode 2: one of \[5\] by its task, got 4"),
    Case("M22", "stated words, said to be the name's", put("episodes/instruction_source", 0, 5),
         r"episode 0: one of \[1, 2, 3, 4\]"),
    Case("M22", "stated words, said to be none", put("episodes/instruction_source", 1, 0), "episode 1: one of .* got 0"),
    Case("M22", "no such source", put("episodes/instruction_source", 1, 6), "episode 1: one of .* got 6"),
    Case("M22", "a task without words", texts("tasks/instruction_from_name", b"pick up the cup", b""),
         "episode 2: '', as task 1 has it, got 'open the drawer'"),
    Case("M17", "a JSON list", texts("episodes/attributes", b"[]", b"{}", b"{}"), "text 0: must be a JSON object"),
]  # fmt: skip

STATISTICS = [
    *(Case("M18", f"{key} {row}", put(f"episodes/stats/{key}", (1, row), GOOD[f"episodes/stats/{key}"][0][1, row] + 1e-6),
           rf"episodes/stats/{key}\[1, {row}.*by the data")
      for key, rows in [("actions", range(5)), ("agentview_rgb", [1, 4]), ("agentview_depth", [2, 3])] for row in rows),
    *(Case("M19", f"{key} {row}", put(f"stats/{key}", row, GOOD[f"stats/{key}"][0][row] * (1 + 1e-6) + 1e-6),
           rf"stats/{key}\[{row}.*by the data")
      for key, rows in [("joint_states", range(7)), ("agentview_rgb", [0, 2]), ("agentview_depth", [5, 6])] for row in rows),
    Case("M18", "NaN", put("episodes/stats/dones", (0, 0), np.nan), r"episodes/stats/dones\[0, 0\]: .* got .*nan"),
    Case("M19", "a flat histogram", put("histograms/agentview_depth", ..., FLAT), "histograms/agentview_depth: not the counts"),
    Case("M19", "a pixel too many", put("histograms/agentview_rgb", (0, 0), 99), "histograms/agentview_rgb: not the counts"),
]  # fmt: skip

REPAIRED = [
    Case("M1", "version 1.0", root("format_version", 1.0), r"format version 1\.0", FormatVersionError),
    Case("M1", "another role", root("keys.0.role", "sound"), "role", StoreError),
    Case("M1", "an unknown type", root("keys.0.dtype", "float65"), "float65", StoreError),
    Case("M1", "a shape in words", root("keys.0.shape", ["four"]), "shape", StoreError),
    Case("M1", "no bit of a flag", root("flags.noop.bit", DELETE), "bit", StoreError),
    Case("M1", "a flag more", root("flags.grasp", {"bit": 3, "rule": ""}), "grasp", StoreError),
    Case("M1", "a key twice", root("keys.1", KEYS[0]), "actions", StoreError),
    Case("M1", "no key actions", root("keys.0", DELETE), "actions", StoreError),
    Case("M1", "joint key of no key", root("flags.joint_key", "knees"), "knees", StoreError),
    Case("M1", "a Zarr v2 group", assign("index/zarr.json", "zarr_format", 2), "index/zarr.json"),
    Case("M3", "null for names of axes", array("dimension_names", None), "steps/actions"),
    Case("M4", "shards of no rows", array(GRID, [0, 4]), "actions"),
    Case("M4", "big-endian index", inner("index_codecs.0.configuration.endian", "big"), "actions.*endian"),
    Case("M4", "no fill value", array("fill_value", None), "actions.*fill_value"),
    Case("M10", "a vast Zstandard frame", reshard("episodes/success/c/0", last_chunk(VAST), 3), "episodes/success · shard 0"),
    Case("M11", "a last episode of no step", LAST_EMPTY, "episodes/length: every episode has a step"),
    Case("M11", "a negative length", put("episodes/length", slice(None), [-4, 19, 4]), "episodes/length: every episode"),
    Case("M11", "a start outside", put("episodes/start", 2, 99), "episodes/start: row 2 must be 15, got 99"),
    Case("M16", "states in steps", states_in_steps, "states"),
    Case("M17", "JSON of another form", texts("sources/attributes", b'{"data": 5}', b"{}"), "sources/attributes: text 0"),
    Case("M17", "deep JSON", texts("sources/attributes", b"[" * 100_000, b"{}"), "sources/attributes: text 0"),
    Case("M17", "a number and a line end", texts("episodes/demo", b"a_2\n", b"a_10", b"a_0"), "episodes/demo: text 0"),
]  # fmt: skip
"""Violations that `verify` once did not see, or fell over."""

BOUND = [
    Case("M23", "a changed attribute", root("control_freq", 19), "zarr.json: identity is the digest of the attributes, "),
    Case("M23", "another identity", root("identity", "0" * 32), "zarr.json: identity is the digest of the attributes, "),
    Case(
        "M23", "nothing is bound", root("files", {}), "files must name every array and no other; wrong for: checksums/actions"
    ),
    Case("M23", "another document", inner("codecs.1.configuration.clevel", 9), r"steps/actions · zarr\.json: bound to 0x"),
    Case("M23", "another text", texts("tasks/suite", b"suite_x", b"suite_b"), "tasks/suite/bytes · shard 0: bound to 0x"),
]
"""What is otherwise good, and is not what the root binds."""

CASES = [*BOUND, *STATED, *ARRAYS, *SHARDS, *TABLES, *STATISTICS, *REPAIRED]
ONCE_MORE = {
    "M1": ["a field more in a key", "a field less in a source", "an array for a group", "a Zarr v2 group"],
    "M3": ["statistics less", "a split less", "no instructions"],
    "M4": ["shards across axis 2", "two compressors", "chunks without crc32c", "no byte order", "bitshuffle",
           "shuffle not stated", "v2's names of chunks", "big-endian index", "no fill value"],
    "M5": ["raw in a fast store"],
    "M7": ["a part of a table less", "a shard among columns"],
    "M8": ["another order", "shared bytes"],
    "M9": ["the index's checksum", "a byte of offsets"],
    "M10": ["a chunk too long", "cut Blosc"],
    "M11": ["no step", "a start too early", "another t", "a negative length", "a start outside"],
    "M12": ["bit 1", "bit 2", "another threshold of still", "another k"],
    "M13": ["no such source"],
    "M14": ["alignment -2", "image_convention 2", "image_evidence -1", "image_evidence 5"],
    "M15": ["offsets fall", "offsets end early", "negative offsets"],
    "M17": ["half a letter", "instructions of no UTF-8"],
    "M18": [*(f"actions {row}" for row in range(1, 5)), "agentview_rgb 4", "agentview_depth 3"],
    "M19": [*(f"joint_states {row}" for row in range(1, 7)), "agentview_rgb 2", "agentview_depth 6", "a pixel too many"],
    "M20": ["left in the root"],
    "M21": ["another frame's checksum"],
    "M22": ["no words", "stated words, said to be none", "no such source", "a task without words"],
    "M23": ["another identity"],
}  # fmt: skip
"""Cases that another one of the same rule is much like: of another array, row, field or number."""


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("good") / "a.zarr"
    format_writer.write_by_hand(path, "fast")
    assert verify(path, workers=0).violations == ()
    yield path
    assert verify(path, workers=0).violations == ()  # the breaks left the files alone that they share with it


def name(case: Case) -> str:
    return f"{case.rule} {case.what}"


SLOW = pytest.mark.slow(reason="verifies a store for one more of a kind")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name(case), marks=SLOW if case.what in ONCE_MORE.get(case.rule, ()) else ()) for case in CASES],
)
def test_verify_refuses(case: Case, good: Path, tmp_path: Path) -> None:
    store = linked(good, tmp_path / "a.zarr")
    case.broken(store)
    if case.rule != "M23":
        with suppress(LookupError, ValueError, TypeError, OSError):  # what is too broken for it
            format_writer.seal(store)
    if case.error is not None:
        with pytest.raises(case.error, match=case.place):
            verify(store, workers=0)
        return
    violations = verify(store, workers=0).violations
    found = [violation for violation in violations if violation.rule == case.rule]
    assert any(re.search(case.place, violation.text) for violation in found), violations


def test_every_rule_has_cases() -> None:
    rules = re.findall(r"\*\*(M\d+)\.\*\*", FORMAT.read_text())
    assert rules == [f"M{number}" for number in range(1, len(rules) + 1)]
    assert {case.rule for case in CASES} == set(rules)
    assert len({name(case) for case in CASES}) == len(CASES)
    assert {f"{rule} {what}" for rule, cases in ONCE_MORE.items() for what in cases} < {name(case) for case in CASES}

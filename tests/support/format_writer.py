"""A second writer of the store, made from the words of schemas/FORMAT.md alone.

It must not import robozarr: it is the proof that the document is enough. `arrays` makes up what a store holds,
`write_with_zarr` puts it on disk through zarr-python, `write_by_hand` byte by byte.
"""

import functools
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import google_crc32c
import lz4.block
import numcodecs
import numpy as np
import zarr
import zstandard
from numpy.typing import NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

Array = NDArray[Any]
Names = tuple[str, ...]
FLAGS: dict[str, Any] = {
    "noop": {"bit": 0, "threshold": 1e-3, "rule": "the arm is told to stay and the gripper to do what it did"},
    "still": {"bit": 1, "threshold": 0.05, "rule": "the joints have not left where they began"},
    "key_moment": {"bit": 2, "k": 2, "rule": "the gripper turns"},
    "joint_key": "joint_states",
}
VERSION = 2
"""Of the format, for stores that are written next; 1 too (``MonkeyPatch.setattr``)."""
FRAMES = ("lean", "compact")
"""Profiles in which frames have keyframes."""
LENGTHS, TASK, SOURCE, DEMOS = (6, 9, 4), (0, 0, 1), (0, 0, 1), ("demo_2", "demo_10", "demo_0")


class Key(NamedTuple):
    name: str
    source: str
    role: str
    unit: str
    steps: Array

    @property
    def frame(self) -> bool:
        return self.steps.ndim in (3, 4) and min(self.steps.shape[1:3]) >= 8

    @property
    def channel_names(self) -> Names:
        return self.step_names[2:] if self.frame else self.step_names

    @property
    def step_names(self) -> Names:
        n = self.steps.ndim - 1
        if self.frame:
            return tuple(f"{self.name}_{axis}" for axis in "yxc"[:n])
        return (f"{self.name}_i",) if n == 1 else tuple(f"{self.name}_{i}" for i in range(n))


def keys() -> list[Key]:
    """Every key but the ragged one, filled from a seed."""
    return list(_keys())


@functools.cache
def _keys() -> tuple[Key, ...]:
    rng = np.random.default_rng(7)
    n = sum(LENGTHS)
    actions = rng.normal(size=(n, 4)).round(2)
    actions[rng.random(n) < 0.4, :3] = 0.0
    actions[:, 3] = np.where(np.arange(n) // 4 % 2, 1.0, -1.0)
    joints = np.cumsum(rng.normal(scale=0.03, size=(n, 3)), axis=0)
    depth = rng.normal(size=(n, 10, 8)).astype(np.float32)
    image = rng.integers(0, 256, (n, 8, 9, 3), np.uint8)
    image[5] = 0  # is stored like any other
    found = (
        Key("actions", "actions", "action", "", actions),
        Key("agentview_rgb", "obs/agentview_rgb", "image", "", image),
        Key("agentview_depth", "obs/agentview_depth", "depth", "m", depth),
        Key("joint_states", "obs/joint_states", "state", "rad", joints),
        Key("ee_matrix", "obs/ee_matrix", "state", "", rng.normal(size=(n, 3, 2))),
        Key("dones", "dones", "outcome", "", np.zeros(n, np.uint8)),
    )
    for key in found:
        key.steps.setflags(write=False)  # all who ask share them
    return found


def episodes() -> Iterator[slice]:
    return (slice(start, stop) for start, stop in pairwise([0, *np.cumsum(LENGTHS).tolist()]))


def episode_flags(actions: Array, joints: Array) -> Array:
    """The rules of M12, one loop each."""
    n, bits = len(actions), np.zeros(len(actions), np.uint8)
    gripper = None
    for t in range(n):
        idle = np.linalg.norm(actions[t, :-1]) < FLAGS["noop"]["threshold"]
        if idle and (gripper is None or actions[t, -1] == gripper):
            bits[t] |= 1
        else:
            gripper = actions[t, -1]
    moved = [t for t in range(n) if np.any(np.abs(joints[t] - joints[0]) > FLAGS["still"]["threshold"])]
    bits[: max(moved[0] - 1, 0) if moved else n] |= 2
    turns = [c for c in range(1, n) if np.sign(actions[c, -1]) != np.sign(actions[c - 1, -1])]
    bits[[t for t in range(n) if any(abs(t - c) <= FLAGS["key_moment"]["k"] for c in turns)]] |= 4
    return bits


def histogram(frames: Array) -> tuple[Array, Array]:
    """Counts [channel…, bin] and the lower edge of every bin."""
    pixels = np.moveaxis(frames, (0, 1, 2), (-3, -2, -1)).reshape(*frames.shape[3:], -1)
    if frames.dtype == np.uint8:
        code, edges = pixels, np.arange(256.0)
    else:
        bits = pixels.astype(np.float32).view(np.uint32)
        code = np.where(bits >> 31, ~bits, bits | 0x80000000) >> 16
        low = np.arange(65536, dtype=np.uint32) << 16
        edges = np.where(low >> 31, low ^ 0x80000000, ~low).astype(np.uint32).view(np.float32)
    return np.apply_along_axis(np.bincount, -1, code.astype(np.int64), minlength=len(edges)), edges


def statistics(key: Key) -> Iterator[tuple[str, Array, Names]]:
    """M18 and M19 of a key."""
    axes, x = (0, 1, 2) if key.frame else (0,), key.steps.astype(np.float64)

    def five(x: Array) -> Array:
        return np.stack([x.mean(axes), x.std(axes), np.sqrt((x**2).mean(axes)), x.min(axes), x.max(axes)])

    names = key.channel_names
    per_episode = np.stack([five(x[rows]) for rows in episodes()])
    yield f"episodes/stats/{key.name}", per_episode, ("episode", "episode_statistic", *names)
    if key.frame:
        counts, edges = histogram(key.steps)
        reached = [np.argmax(np.cumsum(counts, -1) >= q * np.sum(counts, -1, keepdims=True), axis=-1) for q in (0.01, 0.99)]
        low, high = edges[reached[0]], edges[reached[1]]
        yield f"histograms/{key.name}", counts, (*names, f"{key.name}_bin")
    else:
        low, high = np.quantile(x, [0.01, 0.99], axis=0)
    n = np.full(np.shape(low), np.prod([x.shape[axis] for axis in axes]))
    whole = np.stack([n, x.mean(axes), x.std(axes), x.min(axes), x.max(axes), low, high])
    yield f"stats/{key.name}", whole, ("statistic", *names)


def checksums(key: Key, chunk_checksum: Callable[[Array], int]) -> tuple[str, Array, Names]:
    """M21 of a key."""
    if key.frame:
        return f"checksums/{key.name}", np.array([chunk_checksum(x) for x in key.steps], np.uint32), ("step",)
    sums = [google_crc32c.value(key.steps[rows].tobytes()) for rows in episodes()]
    return f"checksums/{key.name}", np.array(sums, np.uint32), ("episode",)


def text(path: str, entries: list[bytes]) -> Iterator[tuple[str, Array, Names]]:
    edges = np.concatenate([[0], np.cumsum([len(e) for e in entries])]).astype(np.int64)
    yield f"{path}/offsets", edges, (path.split("/")[0] + "_edge",)
    yield f"{path}/bytes", np.frombuffer(b"".join(entries), np.uint8), (path.replace("/", "_") + "_byte",)


def arrays(profile: str = "fast") -> Iterator[tuple[str, Array, Names]]:
    """Every array of M3 as path, values, dimension names; the profile's encoding decides the checksums of frames."""
    by_name = {key.name: key for key in keys()}
    for key in by_name.values():
        yield f"steps/{key.name}", key.steps, ("step", *key.step_names)
        yield from statistics(key)
        codec = profile_codec(f"steps/{key.name}", profile)
        if key.frame and VERSION == 2 and profile in FRAMES:
            prints = np.array([google_crc32c.value(x.tobytes()) for x in key.steps], np.uint32)
            yield f"fingerprints/{key.name}", prints, ("step",)
        if codec == "frames":
            yield f"checksums/{key.name}", frame_checksums(key.steps), ("step",)
            continue
        yield checksums(key, lambda frame, codec=codec: google_crc32c.value(compress(frame, codec)))  # type: ignore[misc]
    rng = np.random.default_rng(8)
    widths = np.repeat((12, 12, 15), LENGTHS)
    yield "ragged/states/offsets", np.concatenate([[0], np.cumsum(widths)]).astype(np.int64), ("step_edge",)
    yield "ragged/states/values", rng.normal(size=widths.sum()), ("ragged_states_value",)
    flags = [episode_flags(by_name["actions"].steps[e], by_name["joint_states"].steps[e]) for e in episodes()]
    yield "index/episode", np.repeat(np.arange(3, dtype=np.int32), LENGTHS), ("step",)
    yield "index/step", np.concatenate([np.arange(n, dtype=np.int32) for n in LENGTHS]), ("step",)
    yield "index/flags", np.concatenate(flags), ("step",)
    columns: dict[str, Array] = {
        "start": np.array([e.start for e in episodes()], np.int64),
        "length": np.array(LENGTHS, np.int64),
        "task": np.array(TASK, np.int32),
        "source": np.array(SOURCE, np.int32),
        "success": np.array([1, 0, -1], np.int8),
        "alignment": np.array([1, 0, -1], np.int8),
        "image_convention": np.array([0, 1, -1], np.int8),
        "image_evidence": np.array([3, 1, 0], np.int8),
        "splits/train": np.array([True, False, True]),
    }
    if VERSION == 2:
        columns["instruction_source"] = np.array([2, 4, 5], np.int8)
    for name, column in columns.items():
        yield f"episodes/{name}", column, ("episode",)
    yield "episodes/alignment_error", np.full((3, 2), np.nan), ("episode", "alignment")
    yield "episodes/init_state/offsets", np.array([0, 12, 12, 27], np.int64), ("episodes_edge",)
    yield "episodes/init_state/values", rng.normal(size=27), ("episodes_init_state_value",)
    yield "tasks/control_freq", np.full(2, 20.0), ("task",)
    about = json.dumps({"obs": {"note": {"dtype": "text", "shape": [], "value": ["zwölf"]}}})
    texts: dict[str, list[bytes]] = {
        "episodes/demo": [d.encode() for d in DEMOS],
        "episodes/model_file": [b"<mujoco/>", b"", b"\xff\xfe not UTF-8"],
        "episodes/attributes": [b"{}", about.encode(), b"{}"],
        "tasks/name": [b"pick_up_the_cup", b"open_the_drawer"],
        "tasks/instruction": ["pick up the cup – gently".encode(), b"open the drawer" if VERSION == 1 else b""],
        "tasks/instruction_from_name": [b"pick up the cup", b"open the drawer"],
        "tasks/suite": [b"suite_a", b"suite_b"],
        "tasks/env_name": [b"Env", b""],
        "tasks/bddl": [b"", b""],
        "sources/attributes": [b"{}", b"{}"],
    }
    if VERSION == 2:
        texts["episodes/instruction"] = [*["pick up the cup – gently".encode()] * 2, b"open the drawer"]
    for path, entries in texts.items():
        yield from text(path, entries)


def root(profile: str) -> dict[str, Any]:
    described: list[dict[str, Any]] = [
        {"name": k.name, "source": k.source, "dtype": k.steps.dtype.name, "shape": list(k.steps.shape[1:]),
         "role": k.role, "unit": k.unit, "ragged": False}
        for k in keys()
    ]  # fmt: skip
    described.append(described[0] | {"name": "states", "source": "states", "shape": [], "role": "state", "ragged": True})
    sources = ("suite_a/pick_up_the_cup_demo.hdf5", 2), ("suite_b/open_the_drawer_demo.hdf5", 1)
    described_sources: list[dict[str, Any]] = [{"name": s, "size": 1000, "mtime_ns": 10**18, "n_demos": n} for s, n in sources]
    added: dict[str, Any] = {}
    if VERSION == 2:
        added = {"identity": "", "files": {}}
        described_sources = [source | {"digest": "fedcba9876543210"} for source in described_sources]
    return added | {
        "format_version": VERSION, "software": "format_writer 1", "profile": profile, "complete": True,
        "n_steps": sum(LENGTHS), "n_episodes": 3, "n_tasks": 2, "control_freq": 20, "keys": described,
        "selected_keys": None,
        "sources": described_sources,
        "splits": ["train"], "flags": FLAGS,
        "not_stored": [{"source": sources[0][0], "path": "obs/odd", "n_demos": 1, "reason": "an example"}],
    }  # fmt: skip


def profile_codec(path: str, profile: str) -> str | None:
    """Name of the compressor (M5); arrays that may use any take zstd."""
    frames = [f"steps/{key.name}" for key in keys() if key.frame]
    if path in frames and VERSION == 2 and profile in FRAMES:
        return "frames"
    if path.startswith("steps/") or (path.startswith("ragged/") and path.endswith("/values")):
        return {"raw": None, "fast": "lz4", "lean": "lz4", "compact": "zstd"}[profile]
    return "plain zstd"


def sizes(path: str, n_rows: int, profile: str = "fast") -> tuple[int, int]:
    """Rows of a chunk and of a shard: not those of robozarr, but where the format leaves no choice."""
    if profile_codec(path, profile) == "frames":
        return 16, 16
    if path.startswith("steps/agentview"):
        return 1, 4
    return (5, 15) if n_rows < 1000 else (4096, 12288)


def write_with_zarr(folder: Path, profile: str) -> None:
    group = zarr.create_group(folder, zarr_format=3)
    with zarr.config.set({"array.write_empty_chunks": True}):
        frames = [key.name for key in keys() if key.frame]
        for path, values, names in sorted(arrays(), key=lambda array: array[0], reverse=True):  # steps before checksums
            chunk, shard = sizes(path, len(values))
            if path.startswith("checksums/") and path.split("/")[1] in frames:
                frame = path.replace("checksums", "steps")
                values = chunk_ends(folder / frame, len(values), sizes(frame, len(values))[1])
            shuffle: Literal["noshuffle", "shuffle"] = "noshuffle" if values.itemsize == 1 else "shuffle"
            packers: dict[str | None, list[BytesBytesCodec]] = {
                None: [],
                "lz4": [BloscCodec(cname="lz4", clevel=3, shuffle=shuffle, typesize=values.itemsize)],
                "zstd": [BloscCodec(cname="zstd", clevel=1, shuffle=shuffle, typesize=values.itemsize)],
                "plain zstd": [ZstdCodec(level=1)],
            }
            array = group.create_array(
                path, shape=values.shape, dtype=values.dtype, chunks=(chunk, *values.shape[1:]),
                shards=(shard, *values.shape[1:]), serializer=BytesCodec(endian="little"), filters=(),
                compressors=[*packers[profile_codec(path, profile)], Crc32cCodec()], fill_value=0, dimension_names=names,
            )  # fmt: skip
            array[...] = values
    group.attrs["robozarr"] = root(profile)
    seal(folder)


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def chunk_ends(array: Path, n: int, n_entries: int) -> Array:
    """What the one-step chunks of an array end in, read off its shards."""
    ends: list[bytes] = []
    for shard in range(-(-n // n_entries)):
        (file,) = [file for file in (array / "c" / str(shard)).rglob("*") if file.is_file()]
        data = file.read_bytes()
        index = np.frombuffer(data[-16 * n_entries - 4 : -4], "<u8").reshape(-1, 2)[: n - shard * n_entries]
        ends += [data[at + size - 4 : at + size] for at, size in index.tolist()]
    return np.frombuffer(b"".join(ends), "<u4")


def compress(chunk: Array, codec: str | None) -> bytes:
    if codec is None:
        return chunk.tobytes()
    shuffle = numcodecs.Blosc.NOSHUFFLE if chunk.itemsize == 1 else numcodecs.Blosc.SHUFFLE
    packer = numcodecs.Zstd(level=1) if codec == "plain zstd" else numcodecs.Blosc(codec, 5, shuffle)
    return bytes(packer.encode(chunk))


def pack_shard(rows: Array, chunk: int, shard: int, codec: str | None) -> bytes:
    """The bytes of one shard that holds `rows`, the last chunk filled up with zeros."""
    body, index = b"", np.full((shard // chunk, 2), 2**64 - 1, "<u8")
    for i in range(-(-len(rows) // chunk)):
        if codec == "frames":
            coded = pack_frames(rows[i * chunk : (i + 1) * chunk], i * chunk)
            index[i], body = (len(body), len(coded)), body + coded
            continue
        part = np.zeros((chunk, *rows.shape[1:]), rows.dtype)
        part[: len(rows) - i * chunk] = rows[i * chunk : (i + 1) * chunk]
        coded = with_crc(compress(part, codec))
        index[i] = len(body), len(coded)
        body += coded
    return body + with_crc(index.tobytes())


def filtered(frame: Array) -> Array:
    """The filter: planes G, R - G, B - G; each row minus the one above, in the first row each pixel minus its left one."""
    red, green, blue = (frame[..., c].astype(np.int64) for c in range(3))
    planes = np.stack([green, red - green, blue - green])
    out = planes.copy()
    out[:, 1:] = planes[:, 1:] - planes[:, :-1]
    out[:, 0, 1:] = planes[:, 0, 1:] - planes[:, 0, :-1]
    return (out % 256).astype(np.uint8)


def code_strip(strip: bytes, coding: int, dictionary: bytes | None) -> bytes:
    if coding == 0:
        return strip
    if coding == 1:
        return bytes(lz4.block.compress(strip, store_size=False, **({} if dictionary is None else {"dict": dictionary})))
    raw = {} if dictionary is None else {"dict_data": zstandard.ZstdCompressionDict(dictionary, dict_type=1)}
    return zstandard.ZstdCompressor(level=3, write_checksum=False, write_dict_id=False, **raw).compress(strip)  # type: ignore[arg-type]


def pack_frames(frames: Array, first: int = 0) -> bytes:
    """A chunk of frames, `first` the row of the array that its first is: every mode that the format allows, in turn."""
    begins = {0} | {start - first for start in np.cumsum([0, *LENGTHS]).tolist() if 0 <= start - first < len(frames)}
    can_filter = frames.dtype == np.uint8 and frames.shape[3:] == (3,)
    table, payloads, keyframe, key_mode, turn = b"", b"", 0, 0, 0
    coded_bytes: list[bytes] = []
    for row, frame in enumerate(frames):
        modes = [(1, True), (1, False), (2, False), (0, True), (2, True)]
        if can_filter:
            modes += [(2 | 4, True), (2 | 4, False), (1, False), (1 | 4, False), (4, True), (1 | 4, True), (2 | 4, False)]
        mode, alone = modes[turn % len(modes)]
        turn += 1
        if row in begins or (mode & 4 and not key_mode & 4 and not alone):
            alone = True
        if alone and (row in begins or mode & 4):  # a new keyframe; others that are alone are nobody's
            keyframe, key_mode = row, mode
        key = row if alone else keyframe
        values = frame.tobytes()
        coded = filtered(frame).tobytes() if mode & 4 else values
        coded_bytes.append(coded)
        below = None if alone else coded_bytes[key] if mode & 4 else frames[key].tobytes()
        cuts = [(at, min(at + 49152, len(coded))) for at in range(0, len(coded), 49152)]
        strips = [code_strip(coded[a:b], mode & 3, None if below is None else below[a:b]) for a, b in cuts]
        sizes = b"".join(struct.pack("<I", len(strip)) for strip in strips) if len(strips) > 1 else b""
        payload = sizes + b"".join(strips)
        if len(payload) > len(coded) + len(sizes):  # no payload is larger than its frame
            mode, key, payload = mode & 4, row, sizes_of(cuts) + coded
            keyframe, key_mode = (row, mode) if row in begins else (keyframe, key_mode)
        head = bytes([row, mode, key])
        entry = struct.pack("<IIBBHI", 256 + len(payloads), len(payload), mode, key, 0, google_crc32c.value(head + payload))
        table, payloads = table + entry, payloads + payload
    absent = struct.pack("<IIBBHI", 0, 0, 0, 255, 0, 0)
    return table + absent * (16 - len(frames)) + payloads


def sizes_of(cuts: list[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack("<I", stop - start) for start, stop in cuts) if len(cuts) > 1 else b""


def frame_checksums(frames: Array) -> Array:
    """M21 of a key in robozarr.frames."""
    tables = b"".join(
        pack_frames(frames[at : at + 16], at)[: 16 * len(frames[at : at + 16])] for at in range(0, len(frames), 16)
    )
    return np.frombuffer(tables, "<u4").reshape(-1, 4)[:, 3]


def document(values: Array, names: Names, chunk: int, shard: int, codec: str | None, profile: str = "fast") -> dict[str, Any]:
    """The zarr.json of an array."""
    little, shuffle = {"name": "bytes", "configuration": {"endian": "little"}}, ("shuffle", "noshuffle")[values.itemsize == 1]
    blosc = {"cname": codec, "clevel": 5, "blocksize": 0, "typesize": values.itemsize, "shuffle": shuffle}
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    packer = [] if codec is None else [zstd] if codec == "plain zstd" else [{"name": "blosc", "configuration": blosc}]
    codecs = [little, *packer, {"name": "crc32c"}]
    if codec == "frames":
        codecs = [{"name": "robozarr.frames", "configuration": {"effort": profile}}]
    sharding = {
        "chunk_shape": [chunk, *values.shape[1:]], "codecs": codecs,
        "index_codecs": [little, {"name": "crc32c"}], "index_location": "end",
    }  # fmt: skip
    return {
        "zarr_format": 3, "node_type": "array", "shape": list(values.shape), "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *values.shape[1:]]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "fill_value": False if values.dtype == bool else 0, "attributes": {}, "dimension_names": list(names),
    }  # fmt: skip


def write_array(
    folder: Path, path: str, values: Array, names: Names, sizes: tuple[int, int], codec: str | None, profile: str = "fast"
) -> None:
    chunk, shard = sizes
    (folder / path).mkdir(parents=True)
    (folder / path / "zarr.json").write_text(json.dumps(document(values, names, chunk, shard, codec, profile)))
    for i in range(-(-len(values) // shard)):
        file = folder.joinpath(path, "c", str(i), *["0"] * (values.ndim - 1))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pack_shard(values[i * shard : (i + 1) * shard], chunk, shard, codec))


def write_by_hand(folder: Path, profile: str) -> None:
    """A store of a profile; what is in its files is worked out once in a process, for some hundred tests."""
    for name, data in _files_by_hand(profile, VERSION, keys).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@functools.cache
def _files_by_hand(profile: str, *_: object) -> dict[str, bytes]:
    """Also by what tests put in the place of something else: the version, the keys."""
    with tempfile.TemporaryDirectory() as made:
        _write_by_hand(Path(made), profile)
        return {path.relative_to(made).as_posix(): path.read_bytes() for path in Path(made).rglob("*") if path.is_file()}


def _write_by_hand(folder: Path, profile: str) -> None:
    group: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    for path, values, names in arrays(profile):
        codec = profile_codec(path, profile)
        write_array(folder, path, values, names, sizes(path, len(values), profile), codec, profile)
        for above in Path(path).parents[:-1]:
            (folder / above / "zarr.json").write_text(json.dumps(group))
    (folder / "zarr.json").write_text(json.dumps(group | {"attributes": {"robozarr": root(profile)}}))
    seal(folder)


def seal(store: Path) -> None:
    """M23: bind every file that is there, and say what the identity is."""
    document = json.loads((store / "zarr.json").read_text())
    attributes = document["attributes"]["robozarr"]
    if attributes["format_version"] != 2:
        return
    attributes["files"] = {}
    for folder, folders, files in os.walk(store):  # a third of what rglob takes, and some hundred tests do this
        folders.sort()
        path = os.path.relpath(folder, store)
        if "zarr.json" not in files or path.startswith("tasks/embedding/"):
            continue
        about = Path(folder, "zarr.json").read_bytes()
        array = json.loads(about)
        if array.get("node_type") == "array":
            folders.clear()
            below = (f"{inner}/{file}" for inner, _, shards in os.walk(f"{folder}/c") for file in shards)
            n = _entries(array)
            frames = array["codecs"][0]["configuration"]["codecs"][0]["name"] == "robozarr.frames"
            sums = [google_crc32c.value(about)]
            sums += [_shard_sum(Path(shard).read_bytes(), n, frames) for shard in sorted(below, key=_number)]
            attributes["files"][path] = "".join(f"{one:08x}" for one in sums)
    unnamed = {name: value for name, value in attributes.items() if name != "identity"}
    text = json.dumps(unnamed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    attributes["identity"] = hashlib.sha256(text.encode()).hexdigest()[:32]
    (store / "zarr.json").unlink()
    (store / "zarr.json").write_text(json.dumps(document))


def _number(shard: str) -> int:
    return int(shard.rpartition("/c/")[2].split("/")[0])


def _entries(array: dict[str, Any]) -> int:
    inner: int = array["codecs"][0]["configuration"]["chunk_shape"][0]
    outer: int = array["chunk_grid"]["configuration"]["chunk_shape"][0]
    return outer // inner


def _shard_sum(data: bytes, n_entries: int, frames: bool) -> int:
    """The crc32c of what the chunks end in (of frames, of their tables) and of the index."""
    index = data[-16 * n_entries - 4 : -4]
    ranges = [(at, at + size) for at, size in np.frombuffer(index, "<u8").reshape(-1, 2).tolist() if at < 2**64 - 1]
    value: int = google_crc32c.value(b"".join(data[a : a + 256] if frames else data[b - 4 : b] for a, b in ranges) + index)
    return value

"""Damage of every kind: what the loader serves is what was written, or an error that says where. Never anything else.

A small store is read after each byte of its chunks, indexes and tables, in turn, was changed (without ``--full``: each 17th
to 61st); after shards were cut, emptied, deleted, swapped and made unreadable; after a byte of its documents was changed in
many ways. "What was written" is every field of every window.

Tolerated, and why: a changed byte of a ``zarr.json`` may leave everything served as it was (a compression level, a name of a
dimension, ``attributes``, what nobody asks for). It may also change a fact of the root document that is not data and that no
checksum protects (FORMAT.md): ``software``, ``control_freq``, names and times of sources, units, ``not_stored``, thresholds.
None of these changes a window. A name of a key that changed is a key that is missing: an error.
"""

import os
import shutil
import warnings
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import format_writer
import numpy as np
import pytest
from damaged import CHANGES, SPEC, Values, changed, fault_of, load, make_store
from effort import some
from forks import said_in_fork
from numpy.typing import NDArray
from rights import drop_roots_rights, without_progress

import robozarr as rz
from robozarr.loader.dataset import WindowDataset
from robozarr.loader.frames.read import Reader
from robozarr.schemas.errors import RoboZarrError
from robozarr.schemas.layout import ArrayLayout
from robozarr.schemas.shard import read_index

PROFILES = ("raw", "fast", "compact")
SMALL: dict[str, Sequence[int]] = {"agentview_rgb": [0], "dones": [0]}
JSON_CHANGES = (
    *CHANGES,
    *(lambda byte, bit=bit: byte ^ 1 << bit for bit in range(1, 7)),
    *(lambda _, c=c: c for c in b'09e-." .'),
)


@pytest.fixture(params=PROFILES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """19 steps, 3 episodes; shards of 4 frames, 15 rows of anything else."""
    return make_store(tmp_path / "a.zarr", request.param)


@pytest.fixture(params=[("raw", 2), ("fast", 2), ("compact", 1)], ids=["raw", "fast", "compact of version 1"])
def plain(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where a chunk is a frame: Zstandard in version 1 alone. Chunks with keyframes: test_keyframe_stores.py."""
    profile, version = request.param
    monkeypatch.setattr(format_writer, "VERSION", version)
    return make_store(tmp_path / "a.zarr", profile)


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    return make_store(tmp_path / "a.zarr", "fast")


def test_a_whole_store_is_read_as_it_was_written(store: Path) -> None:
    """So that `load` may be the measure of the rest."""
    got, keys = load(store), {key.name: key.steps for key in format_writer.keys()}
    stops = np.cumsum(format_writer.LENGTHS)
    episode = np.repeat(np.arange(3), format_writer.LENGTHS)
    rows = np.arange(19)
    start, stop = (stops - format_writer.LENGTHS)[episode], stops[episode]
    for name, offsets in SPEC.items():
        wanted = rows[:, None] + np.array(offsets)
        clamped = np.clip(wanted, start[:, None], stop[:, None] - 1)
        assert np.array_equal(got[name], keys[name][clamped])
        assert np.array_equal(got[f"{name}_is_pad"], clamped != wanted)
    assert np.array_equal(got["episode"], episode)
    assert np.array_equal(got["step"], rows - start)
    assert np.array_equal(got["task"], np.array(format_writer.TASK)[episode])
    assert set(got["instruction"]) == {"pick up the cup – gently", "open the drawer"}


@pytest.mark.parametrize("name", ["agentview_rgb", "agentview_depth"])
def test_every_byte_of_frames(plain: Path, name: str) -> None:
    """Chunks, their checksums, indexes: the error names array, shard, chunk, and episode."""
    opened = rz.open_store(plain)
    layout, starts = opened.layout(f"steps/{name}"), np.cumsum([0, *format_writer.LENGTHS])
    step, n_tried = some(7, 61) if name == "agentview_depth" else some(1, 61), 0
    for shard in range(layout.n_shards):
        rows = np.arange(*layout.rows_of_shard(shard))
        file = plain / layout.shard_path(shard)
        index = read_index(file.read_bytes(), layout, shard)
        good = frames(opened, layout, rows)
        for at, _ in changed(file, CHANGES[:1], step=step):
            said = fault_of(lambda rows=rows: frames(opened, layout, rows), good)  # type: ignore[misc]
            hit = np.flatnonzero((index[:, 0] <= at) & (at < index.sum(axis=1)))
            row = rows[hit[0]] if hit.size else rows[0]
            episode = int(np.searchsorted(starts, row, side="right")) - 1
            where = [f"steps/{name} · shard {shard} (steps/{name}/c/{shard}/0/0", f"episode {episode} (demo_"]
            where.append(f"step {row - starts[episode]}")
            if hit.size:
                where.append(f"chunk {hit[0]} (rows {row} to {row + 1})")
            assert said is not None, f"byte {at} of {file}"
            assert [part for part in where if part not in said] == [], said
            n_tried += 1
    assert n_tried > (5600 if name == "agentview_depth" else 4000) // step


def tables(store: rz.Store, folder: str) -> Values:
    """Every table of a folder that the loader reads, of a store that has read nothing yet."""
    fresh = rz.Store(store.path, store.group, store.metadata)
    if folder == "checksums":
        return {name: fresh.checksums(name) for name in SMALL}
    table: Any = fresh.episodes if folder == "episodes" else fresh.tasks
    found: Values = {name: np.array(getattr(table, name)) for name in table.__slots__ if name != "splits"}
    return found | ({"train": table.splits["train"]} if folder == "episodes" else {})


def frames(store: rz.Store, layout: ArrayLayout, rows: NDArray[np.int64]) -> Values:
    """Rows of one key, by a reader that has seen nothing yet."""
    name = layout.path.removeprefix("steps/")
    out = np.empty((len(rows), 1, layout.row_bytes), np.uint8)
    Reader(store, [name]).read(name, rows[:, None], np.arange(len(rows)), out)
    return {name: out}


@pytest.mark.parametrize("name", ["actions", "joint_states", "dones"])
def test_every_byte_of_low_dim_keys(store: Path, name: str) -> None:
    opened = rz.open_store(store)
    good = {name: Reader(opened, [name]).column(name).copy()}
    for shard in range(2):
        file = store / opened.layout(f"steps/{name}").shard_path(shard)
        for at, _ in changed(file, CHANGES[:1], step=some(1, 17)):
            said = fault_of(lambda: {name: Reader(opened, [name]).column(name)}, good)
            assert said is not None, f"byte {at} of {file}"
            assert said.startswith(f"steps/{name} · shard {shard} (steps/{name}/c/{shard}")


def test_every_byte_of_tables_and_checksums(fast: Path) -> None:
    """All that stands beside the data, and is not a document: what is read is checked, what is not read changes nothing."""
    good, opened, numbers = load(fast, SMALL), rz.open_store(fast), count()
    good_tables = {folder: tables(opened, folder) for folder in ("episodes", "tasks", "checksums")}
    files = [file for file in sorted(fast.rglob("*")) if file.is_file() and file.name != "zarr.json"]
    read, unread = 0, ("stats", "histograms", "ragged", "model_file", "attributes", "init_state", "alignment_error")
    for file in files:
        path = file.relative_to(fast)
        if path.parts[0] not in good_tables or any(name in path.parts for name in unread):
            continue
        folder = path.parts[0]
        for at, _ in changed(file, CHANGES[:1], step=some(1, 31)):
            said = fault_of(lambda folder=folder: tables(opened, folder), good_tables[folder])  # type: ignore[misc]
            if next(numbers) % 25 == 0 and folder != "tasks":  # and by the whole way, whose words are the episodes'
                assert fault_of(lambda: load(fast, SMALL), good) == said
            asked_for = folder != "checksums" or path.parts[1] in SMALL
            if asked_for and path.parts[1] not in ("control_freq", "image_evidence"):
                array = "/".join(path.parts[: path.parts.index("c")])
                assert said is not None, f"byte {at} of {path}"
                assert f"{array} · shard" in said
                read += 1
            else:
                assert said is None
    assert read > 2500 // some(1, 31)


@pytest.mark.parametrize(
    "document",
    ["zarr.json", "steps/zarr.json", "steps/agentview_rgb/zarr.json", "steps/dones/zarr.json", "checksums/dones/zarr.json",
     "episodes/task/zarr.json", "episodes/instruction/offsets/zarr.json"],
)  # fmt: skip
def test_bytes_of_documents(fast: Path, document: str) -> None:
    """Every place, in some way that depends on it: bits, digits, signs, the letter that makes 4e96 of 4096."""
    good = load(fast, SMALL)
    ways = count()
    one = [lambda byte: JSON_CHANGES[next(ways) * 7 % len(JSON_CHANGES)](byte)]
    errors = sum(fault_of(lambda: load(fast, SMALL), good) is not None for _ in changed(fast / document, one, step=some(3, 41)))
    assert errors > 0 or document == "steps/zarr.json"


@pytest.mark.parametrize("name", ["agentview_rgb", "dones"])
@pytest.mark.parametrize(
    ("old", "new"),
    [('"separator": "/"', '"separator": "."'), ('"chunk_shape": [4,', '"chunk_shape": [0,'), ('[15]', '[0]'), ('[5]', '[5e0]'),
     ('"chunk_shape": [4,', '"chunk_shape": [4e96,'), ('"chunk_shape": [4,', '"chunk_shape": [2,'), ('"end"', '"start"'),
     ('"crc32c"', '"crc32d"'), ('"noshuffle"', '"bitshuffle"'), ('"blosc"', '"gzip"'), ('"fill_value": 0', '"fill_value": 7'),
     ('"fill_value": false', '"fill_value": true'), ('"attributes": {}', '"attributes": []'), ('"uint8"', '"int8"'),
     ("{", "[")],
)  # fmt: skip
def test_documents_that_say_something_else(fast: Path, name: str, old: str, new: str) -> None:
    """Where zarr would return zeros, or anything else that was not written, is an error."""
    good = load(fast, SMALL)
    document = fast / f"steps/{name}/zarr.json"
    document.write_text(document.read_text().replace(old, new))
    fault_of(lambda: load(fast, SMALL), good)


def test_zeros_for_files_that_are_not_there(fast: Path) -> None:
    """Another separator: zarr would look elsewhere, find nothing, and return zeros."""
    for name in ("agentview_rgb", "dones", "actions"):
        document = fast / f"steps/{name}/zarr.json"
        text = document.read_text()
        document.write_text(text.replace('"separator": "/"', '"separator": "."'))
        format_writer.seal(fast)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(RoboZarrError, match=rf"steps/{name}/zarr.json .*separator must be '/', got '\.'"):
                load(fast)
        document.write_text(text)


@pytest.mark.parametrize("name", ["agentview_rgb", "actions"])
def test_cut_emptied_deleted(store: Path, name: str) -> None:
    good, layout = load(store), rz.open_store(store).layout(f"steps/{name}")
    for shard in (0, layout.n_shards - 1):
        file = store / layout.shard_path(shard)
        data = file.read_bytes()

        def check(how: str, file: Path = file, shard: int = shard) -> None:
            said = fault_of(lambda: load(store), good)
            assert said is not None, how
            assert f"steps/{name} · shard {shard} " in said
            assert "episode" in said or name == "actions"

        sizes = [0, 1, 3, 4, 5, 20, 67, 68, 69, len(data) // 2, len(data) - 16, len(data) - 4, len(data) - 1]
        for size in sizes[:: some(1, 4)]:
            file.write_bytes(data[:size])
            check(f"{size} bytes")
            file.write_bytes(data[len(data) - size :])
            check(f"the last {size} bytes")
        for longer in (data + b"\0", b"\0" + data, data + data, data[:100] + b"\0" * 8 + data[100:]):
            file.write_bytes(longer)
            check("longer")
        file.unlink()
        check("deleted")
        file.mkdir()
        check("a folder")
        file.rmdir()
        file.symlink_to("nowhere")
        check("a dangling link")
        file.unlink()
        file.write_bytes(data)
    shutil.move(store / f"steps/{name}/c", store / "elsewhere")
    assert f"steps/{name} · shard 0 " in str(fault_of(lambda: load(store), good))


def test_swapped_shards(plain: Path, tmp_path: Path) -> None:
    """Each of them whole: within an array, between arrays of one shape, between stores and profiles."""
    good = load(plain)
    other = tmp_path / "other.zarr"
    shutil.copytree(plain, other)
    steps = plain / "steps"
    swaps = [("agentview_rgb/c/0/0/0/0", "agentview_rgb/c/1/0/0/0"), ("agentview_depth/c/0/0/0", "agentview_depth/c/2/0/0"),
             ("agentview_rgb/c/3/0/0/0", "agentview_rgb/c/4/0/0/0")]  # fmt: skip
    for a, b in swaps:
        swap(steps / a, steps / b)
        said = fault_of(lambda: load(plain), good)
        assert said is not None
        assert f"steps/{a.split('/')[0]} · shard {a.split('/')[2]} " in said
        assert "episode" in said
        swap(steps / a, steps / b)
    foreign = [make_store(tmp_path / f"{profile}.zarr", profile) for profile in PROFILES]
    for source in foreign:
        for path in ("agentview_rgb/c/1/0/0/0", "actions/c/0/0"):
            kept = (steps / path).read_bytes()
            (steps / path).write_bytes((source / "steps" / path).read_bytes())
            said = fault_of(lambda: load(plain), good)  # the same values in the other profile's codec, or an error
            assert said is None or f"steps/{path.split('/')[0]}" in said
            (steps / path).write_bytes(kept)


def swap(a: Path, b: Path) -> None:
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)


def test_shards_of_a_store_with_other_values(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of the same sizes and another content: none of its shards is taken for this store's."""
    good, keys = load(store), format_writer.keys()
    flipped = [key._replace(steps=np.flip(key.steps, 0).copy()) for key in keys]
    monkeypatch.setattr(format_writer, "keys", lambda: flipped)
    other = make_store(tmp_path / "other.zarr", rz.open_store(store).metadata.profile)
    for name in ("agentview_rgb", "agentview_depth", "actions", "joint_states", "ee_matrix"):
        for file in [file for file in sorted((store / f"steps/{name}/c").rglob("*")) if file.is_file()][:: some(1, 2)]:
            kept = file.read_bytes()
            file.write_bytes((other / file.relative_to(store)).read_bytes())
            said = fault_of(lambda: load(store), good)
            assert said is not None, file
            assert f"steps/{name} · " in said
            assert "shards were mixed up" in said
            assert "episode" in said
            file.write_bytes(kept)


def test_offsets_of_other_texts(fast: Path) -> None:
    """Whole, and of the right length, but those of another column: an instruction would begin in the middle of a word."""
    here, there = (fast / f"episodes/{name}/offsets/c/0" for name in ("instruction", "demo"))
    swap(here, there)
    format_writer.seal(fast)
    with pytest.raises(RoboZarrError, match=r"episodes/.*/offsets: must ascend from 0 to the \d+ values that they point into"):
        load(fast, SMALL)
    swap(here, there)
    format_writer.write_array(fast, "tmp", np.array([0, 0, 2], np.int32), ("episode",), (5, 15), "plain zstd")
    (fast / "episodes/task/c/0").write_bytes((fast / "tmp/c/0").read_bytes())
    shutil.rmtree(fast / "tmp")
    format_writer.seal(fast)
    with pytest.raises(RoboZarrError, match=r"episodes/task: \[2\] mean nothing: numbers in \[0, 2\)"):
        load(fast, SMALL)


def test_damage_under_an_open_loader(fast: Path) -> None:
    """Shards that change between two reads: what was loaded of them does not hide it."""
    dataset = WindowDataset(rz.open_store(fast), rz.WindowSpec({"agentview_rgb": [0]}))
    good = dataset.read([0])["agentview_rgb"]
    file = fast / "steps/agentview_rgb/c/0/0/0/0"
    for at, data in changed(file, CHANGES[:1], step=37):
        if at < data.find(data[-68:]):
            said = fault_of(lambda: {"x": dataset.read(range(4))["agentview_rgb"].numpy()}, {})
            assert said is not None
            assert "steps/agentview_rgb · shard 0" in said
    assert bool((dataset.read([0])["agentview_rgb"] == good).all())
    os.truncate(file, 100)
    with pytest.raises(RoboZarrError, match=r"steps/agentview_rgb · shard 0 .*episode 0 \(demo_2\), step 3"):
        dataset.read([3])


def test_unreadable_shard(fast: Path) -> None:
    file = fast / "steps/agentview_rgb/c/2/0/0/0"
    file.chmod(0)

    def read() -> None:
        drop_roots_rights()
        dataset = rz.WindowDataset(rz.open_store(fast), rz.WindowSpec({"agentview_rgb": [0]}))
        with pytest.raises(RoboZarrError) as caught:
            dataset.read(range(19))
        print(caught.value)

    ran = said_in_fork(read)
    assert (ran.returncode, without_progress(ran.stderr)) == (0, [])
    where = (
        "steps/agentview_rgb · shard 2 (steps/agentview_rgb/c/2/0/0/0) · chunk 0 (rows 8 to 9) · episode 1 (demo_10), step 2"
    )
    assert where in ran.stdout
    assert "Permission denied" in ran.stdout

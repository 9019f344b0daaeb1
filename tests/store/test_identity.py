"""A store has an identity: the digest of all that it holds, checked by whoever reads it, and by `verify`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_writer
import google_crc32c
import numpy as np
import pytest
from effort import some

import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.loader.dataset import WindowDataset
from robozarr.schemas.errors import CorruptChunkError, RoboZarrError, StoreError
from robozarr.schemas.identity import identity_of
from robozarr.store.summary import summarise
from synthetic import write_libero


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of one shape, and a third."""
    folder = tmp_path_factory.mktemp("sources")
    return [write_libero(folder / name / "t_demo.hdf5", lengths=(7, 5), seed=seed) for seed, name in enumerate("abc")]


@pytest.fixture(scope="module")
def stores(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A store of each of the first two files: of the same shapes."""
    folder = tmp_path_factory.mktemp("stores")
    for name, source in zip("ab", sources, strict=False):
        convert(source, folder / f"{name}.zarr", workers=0)
        assert verify(folder / f"{name}.zarr", workers=0).ok
    return [folder / "a.zarr", folder / "b.zarr"]


@pytest.fixture
def store(stores: list[Path], tmp_path: Path) -> Path:
    """A copy of the first, to be changed."""
    return Path(shutil.copytree(stores[0], tmp_path / "a.zarr"))


def attributes_of(store: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((store / "zarr.json").read_text())["attributes"]["robozarr"]
    return value


def test_it_follows_from_the_files_as_the_document_says(stores: list[Path]) -> None:
    """In few lines of its own, from the words of FORMAT.md."""
    value = attributes_of(stores[0])
    assert identity_of(value) == value["identity"] == rz.open_store(stores[0]).identity
    arrays = [file.parent for file in stores[0].rglob("zarr.json") if '"array"' in file.read_text()]
    assert sorted(value["files"]) == sorted(array.relative_to(stores[0]).as_posix() for array in arrays)
    for array in arrays:
        shards = sorted((array / "c").iterdir(), key=lambda path: int(path.name)) if (array / "c").exists() else []
        files = [array / "zarr.json", *(shard if shard.is_file() else next(shard.rglob("0")) for shard in shards)]
        files = [file if file.is_file() else next(one for one in file.rglob("*") if one.is_file()) for file in files]
        expected = f"{google_crc32c.value(files[0].read_bytes()):08x}"
        (codec,) = json.loads(files[0].read_text())["codecs"]
        grid = json.loads(files[0].read_text())["chunk_grid"]["configuration"]["chunk_shape"]
        n = grid[0] // codec["configuration"]["chunk_shape"][0]
        for data in (file.read_bytes() for file in files[1:]):
            index = data[-16 * n - 4 : -4]
            ends = [a + b for a, b in np.frombuffer(index, "<u8").reshape(-1, 2).tolist() if a < 2**64 - 1]
            expected += f"{google_crc32c.value(b''.join(data[end - 4 : end] for end in ends) + index):08x}"
        assert value["files"][array.relative_to(stores[0]).as_posix()] == expected


def test_it_changes_with_what_is_stored_and_with_nothing_else(sources: list[Path], stores: list[Path], tmp_path: Path) -> None:
    first, second = (rz.open_store(path).identity for path in stores)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
    path = tmp_path / "elsewhere.zarr"
    convert(sources[0], path, workers=0)
    assert rz.open_store(path).identity == first  # wherever it lies
    convert(sources[1], path, workers=0, overwrite=True)
    assert rz.open_store(path).identity == second
    convert(sources[:2], path, workers=0, append=True)
    appended = rz.open_store(path)
    assert appended.identity not in (first, second)
    convert([sources[1], sources[0]], tmp_path / "whole.zarr", workers=0)
    assert verify(path, workers=0).ok
    convert(sources[0], tmp_path / "raw.zarr", workers=0, profile="raw")
    assert rz.open_store(tmp_path / "raw.zarr").identity != first


def test_an_append_binds_what_one_conversion_binds(sources: list[Path], tmp_path: Path) -> None:
    convert(sources[:1], tmp_path / "a.zarr", workers=0)
    convert(sources[:2], tmp_path / "a.zarr", workers=0, append=True)
    convert(sources, tmp_path / "a.zarr", workers=0, append=True)
    convert(sources, tmp_path / "b.zarr", workers=0)
    assert attributes_of(tmp_path / "a.zarr")["files"] == attributes_of(tmp_path / "b.zarr")["files"]


def test_it_is_shown_and_can_be_pinned(stores: list[Path]) -> None:
    store = rz.open_store(stores[0])
    assert summarise(store).to_json()["identity"] == store.identity
    assert rz.open_store(stores[0], expect=store.identity).n_steps == 12
    with pytest.raises(StoreError, match=f"identity {store.identity} is expected; found {rz.open_store(stores[1]).identity} →"):
        rz.open_store(stores[1], expect=store.identity)


def shards_of(store: Path) -> list[str]:
    return sorted(f.relative_to(store).as_posix() for f in store.rglob("*") if f.is_file() and "/c/" in f.as_posix())


def read_all(path: Path) -> None:
    """What a training run, and whoever looks at a store, reads."""
    store = rz.open_store(path)
    dataset = WindowDataset(store, rz.WindowSpec({name: [0] for name, key in store.keys.items() if not key.ragged}))
    dataset.read(range(len(dataset)))
    _ = store.index, store.tasks, store.source_attributes(0)
    for name, key in store.keys.items():
        if key.ragged:
            _ = store.ragged(name)[0]
        else:
            _ = store.stats(name), store.episode_stats(name), store.checksums(name)
        if key.frame:
            _ = store.histogram(name)
    for episode in range(store.n_episodes):
        _ = store.model_file(episode), store.init_state(episode), store.episode_attributes(episode)


def test_files_of_another_store_are_noticed(stores: list[Path], store: Path) -> None:
    """Each file in turn is the other store's, of the same shape: nothing is served, and `verify` says which it is."""
    mine, other = shards_of(stores[0]), shards_of(stores[1])
    differ = [name for name in mine if name in other and (stores[0] / name).read_bytes() != (stores[1] / name).read_bytes()]
    assert {name.split("/")[0] for name in differ} >= {"steps", "ragged", "episodes", "stats", "checksums"}
    tried = [name for number, name in enumerate(differ) if number % some(1, 3) == 0 or "alignment_error" in name]
    for number, name in enumerate(tried):
        shutil.copyfile(stores[1] / name, store / name)
        if "alignment_error" not in name:  # which nobody reads but `verify`
            with pytest.raises(RoboZarrError):
                read_all(store)
        if number % 6 == 0 or "alignment_error" in name:
            report = verify(store, workers=0)
            assert not report.ok, name
            assert name.partition("/c/")[0].split("/")[-1] in str(report.violations[0])
        shutil.copyfile(stores[0] / name, store / name)
    read_all(store)


def set_attribute(name: str, value: object) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        document = json.loads((store / "zarr.json").read_text())
        document["attributes"]["robozarr"][name] = value
        (store / "zarr.json").write_text(json.dumps(document))

    return change


def change_document(store: Path) -> None:
    """Another layout of an array that the store nowhere holds against its attributes: level of the codec."""
    file = store / "steps/actions/zarr.json"
    file.write_text(file.read_text().replace('"clevel": 5', '"clevel": 4'))


def unbind(store: Path) -> None:
    value = attributes_of(store)
    del value["files"]["tasks/suite/bytes"]
    set_attribute("files", value["files"])(store)
    set_attribute("identity", identity_of(value))(store)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (set_attribute("control_freq", 19), "zarr.json: identity is the digest of the attributes, "),
        (set_attribute("identity", "0" * 32), "zarr.json: identity is the digest of the attributes, "),
        (set_attribute("identity", ""), "zarr.json: identity is the digest of the attributes, "),
        (change_document, "steps/actions · zarr.json: bound to 0x"),
        (unbind, "zarr.json: files must name every array and no other; wrong for: tasks/suite/bytes"),
    ],
)
def test_m23(store: Path, change: Callable[[Path], None], place: str) -> None:
    change(store)
    (violation,) = verify(store, workers=0).violations
    assert violation.rule == "M23"
    assert place in violation.text
    with pytest.raises(StoreError):
        read_all(store)


def test_a_root_that_was_changed_is_not_opened(store: Path) -> None:
    set_attribute("control_freq", 19)(store)
    with pytest.raises(StoreError, match=r"is the digest of the document; found .*: it was changed after the conversion → "):
        rz.open_store(store)
    with pytest.raises(StoreError, match="it was changed after the conversion"):
        convert(write_libero(store.parent / "n/n_demo.hdf5", seed=7), store, workers=0, append=True)


def test_a_table_says_what_it_is_bound_to(stores: list[Path], store: Path) -> None:
    shutil.copyfile(stores[1] / "stats/actions/c/0/0", store / "stats/actions/c/0/0")
    said = r"stats/actions · shard 0 \(.*\): the store's root binds it to .* belongs to another store"
    with pytest.raises(CorruptChunkError, match=said):
        rz.open_store(store).stats("actions")


def test_version_1_has_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_writer, "VERSION", 1)
    format_writer.write_by_hand(tmp_path / "a.zarr", "fast")
    store = rz.open_store(tmp_path / "a.zarr")
    assert store.metadata.format_version == 1
    assert rz.open_store(tmp_path / "a.zarr").identity == store.identity
    file = tmp_path / "a.zarr/checksums/actions/c/0"
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(bytes(data))
    assert rz.open_store(tmp_path / "a.zarr").identity != store.identity

"""Slices through zarr: ``store.array``, ``store.group``, xarray, ``store.ragged(…).values``. What was written, or an error.

zarr-python alone returns zeros for a missing shard, and reads whatever lies under a name by now.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import xarray
import zarr
from few_keys import BUT_CAMERAS
from format_breaks import reshard
from remote import new_place

import robozarr as rz
from robozarr.convert import convert
from robozarr.schemas.errors import CorruptChunkError, RoboZarrError, StoreChangedError, StoreError
from robozarr.schemas.layout import Profile
from robozarr.store.embedding import read_task_embedding, write_task_embedding
from robozarr.store.place import Place
from robozarr.view.rows import read_rows
from synthetic import write_libero

Look = Callable[[rz.Store], Any]
LOOKS: dict[str, Look] = {
    "array": lambda store: store.array("agentview_rgb")[3],
    "array, all": lambda store: store.array("agentview_rgb")[:],
    "array, strides": lambda store: store.array("agentview_rgb").oindex[np.array([0, 3, 9])],
    "group": lambda store: as_array(store.group["steps/agentview_rgb"])[3],
    "xarray": lambda store: xarray.open_zarr(store.group.store, group="steps", consolidated=False, chunks=None)
    .agentview_rgb[3].values,
    "rows": lambda store: read_rows(store, "agentview_rgb", [3]),
    "episode": lambda store: store.episode(0).frames("agentview_rgb"),
    "windows": lambda store: rz.WindowDataset(store, rz.WindowSpec({"agentview_rgb": [0]})).read([3])["agentview_rgb"],
}  # fmt: skip
LOW_DIM: dict[str, Look] = {
    "array": lambda store: store.array("actions")[3],
    "array, all": lambda store: store.array("actions")[:],
    "group": lambda store: as_array(store.group["steps/actions"])[2:5],
    "xarray": lambda store: xarray.open_zarr(store.group.store, group="steps", consolidated=False, chunks=None)
    .actions[3].values,
    "rows": lambda store: read_rows(store, "actions", [3]),
    "episode": lambda store: store.episode(0)["actions"],
    "windows": lambda store: rz.WindowDataset(store, rz.WindowSpec({"actions": [0]})).read([3])["actions"],
}  # fmt: skip


def as_array(found: object) -> zarr.Array[Any]:
    assert isinstance(found, zarr.Array)
    return found


@pytest.fixture(scope="module", params=["fast", "lean"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two stores of one shape; the frames of `lean` have keyframes."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("a", "b")):
        source = write_libero(folder / name / "t_demo.hdf5", lengths=(7, 5), seed=seed, drop_keys=BUT_CAMERAS)
        convert(source, folder / f"{name}.zarr", workers=0, profile=request.param)
    return {name: folder / f"{name}.zarr" for name in ("a", "b")}


@pytest.fixture
def store(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["a"], tmp_path / "a.zarr"))


def shard_of(store: Path, key: str) -> Path:
    return next(path for path in (store / "steps" / key / "c").rglob("*") if path.is_file())


def test_slices_are_what_was_written(store: Path, made: dict[str, Path]) -> None:
    plain = zarr.open_group(made["a"], mode="r")
    opened = rz.open_store(store)
    for name in ("agentview_rgb", "eye_in_hand_rgb", "actions", "joint_states"):
        expected = np.asarray(as_array(plain[f"steps/{name}"])[:])
        array = opened.array(name)
        for part in (slice(None), slice(3, 9), slice(None, None, 4), 11):
            assert np.array_equal(np.asarray(array[part]), expected[part]), (name, part)
        assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(array))[2:4]), expected[2:4])
    assert np.array_equal(opened.ragged("states").values[:], as_array(plain["ragged/states/values"])[:])
    assert set(opened.group) == set(plain)
    assert opened.array("agentview_rgb").nbytes_stored() == as_array(plain["steps/agentview_rgb"]).nbytes_stored()


@pytest.mark.parametrize("look", LOOKS)
def test_a_missing_shard_is_no_black_picture(store: Path, look: str) -> None:
    opened = rz.open_store(store)
    shard_of(store, "agentview_rgb").unlink()
    for again in range(2):
        with pytest.raises(CorruptChunkError, match=r"agentview_rgb.*every expected shard must exist"):
            LOOKS[look](opened if again else rz.open_store(store))


@pytest.mark.parametrize("look", LOW_DIM)
def test_a_missing_shard_is_no_zeros(store: Path, look: str) -> None:
    shutil.rmtree(store / "steps/actions/c")  # folders and all
    with pytest.raises(CorruptChunkError, match=r"actions.*every expected shard must exist"):
        LOW_DIM[look](rz.open_store(store))


@pytest.mark.parametrize("look", ["array", "array, all", "group", "xarray"])
def test_a_shard_that_claims_a_terabyte(store: Path, look: str) -> None:
    os.truncate(store / "steps/actions/c/0/0", 1 << 40)  # takes no room on the disk
    with pytest.raises(StoreError, match=r"steps/actions/c/0/0"):
        LOW_DIM[look](rz.open_store(store))


def test_values_of_a_ragged_key_that_are_missing(store: Path) -> None:
    values = rz.open_store(store).ragged("states").values
    shutil.rmtree(store / "ragged/states/values/c")
    with pytest.raises(CorruptChunkError, match="every expected shard must exist"):
        values[:]


@pytest.mark.parametrize("key", ["agentview_rgb", "actions"])
def test_a_chunk_that_the_index_leaves_out(store: Path, key: str) -> None:
    """Its crc32c right: zarr would return zeros for the chunk."""
    file = shard_of(store, key)
    data, n = file.read_bytes(), 0
    while google_crc32c.value(data[-16 * n - 4 : -4]) != int.from_bytes(data[-4:], "little") or n == 0:
        n += 1
    index = np.frombuffer(data[-16 * n - 4 : -4], "<u8").reshape(-1, 2)

    def left_out(chunks: list[bytes], index: Any) -> bytes:
        last = len(chunks) - 1
        index[last] = 2**64 - 1
        return b"".join(chunks[:-1])

    reshard(file.relative_to(store).as_posix(), left_out, len(index))(store)
    looks = LOOKS if key == "agentview_rgb" else LOW_DIM
    for look in ("array, all", "xarray", "group", "array"):
        with pytest.raises(CorruptChunkError):
            looks[look](rz.open_store(store))


@pytest.mark.parametrize("key", ["agentview_rgb", "actions"])
def test_a_shard_of_another_store(store: Path, made: dict[str, Path], key: str) -> None:
    """Of the same shape, whole and with right checksums; the root document is the store's."""
    opened = rz.open_store(store)
    before = opened.array(key)
    assert np.asarray(before[3]).size
    shutil.copyfile(shard_of(made["b"], key), shard_of(store, key))
    for array in (before, rz.open_store(store).array(key)):
        for part in (slice(None), slice(3, 4), slice(8, 11)):
            with pytest.raises(CorruptChunkError, match=f"steps/{key}.*another (chunk|store|frame)"):
                array[part]


@pytest.mark.parametrize("profile", ["lean", "compact"])
def test_frames_with_keyframes(made: dict[str, Path], tmp_path: Path, profile: Profile) -> None:
    """Chunks of many frames: each frame of a chunk is compared."""
    for name in ("a", "b"):
        convert(made[name].parent / name, tmp_path / f"{name}.zarr", workers=0, profile=profile)
    expected = np.asarray(as_array(zarr.open_group(made["a"], mode="r")["steps/agentview_rgb"])[:])
    opened = rz.open_store(tmp_path / "a.zarr")
    array = opened.array("agentview_rgb")
    for part in (slice(None), slice(3, 9), 11):
        assert np.array_equal(np.asarray(array[part]), expected[part])
    shutil.copyfile(shard_of(tmp_path / "b.zarr", "agentview_rgb"), shard_of(tmp_path / "a.zarr", "agentview_rgb"))
    for slices in (array, rz.open_store(tmp_path / "a.zarr").array("agentview_rgb")):
        for part in (slice(None), slice(3, 4)):
            with pytest.raises(CorruptChunkError, match=r"steps/agentview_rgb.*another (chunk|store|frame)"):
                slices[part]
    shard_of(tmp_path / "a.zarr", "agentview_rgb").unlink()
    for look in ("array", "array, all", "group", "xarray", "rows"):  # tests/loader/frames has windows
        with pytest.raises(CorruptChunkError, match=r"agentview_rgb.*every expected shard must exist"):
            LOOKS[look](rz.open_store(tmp_path / "a.zarr"))


def replace(store: Path, other: Path) -> None:
    shutil.rmtree(store)
    shutil.copytree(other, store)


def cut(store: Path) -> None:
    for file in store.rglob("c/**/*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 4)


def test_an_array_in_hand_after_its_store_changed(store: Path, made: dict[str, Path]) -> None:
    opened = rz.open_store(store)
    arrays = [opened.array("agentview_rgb"), opened.array("actions"), opened.ragged("states").values]
    lazy = xarray.open_zarr(opened.group.store, group="steps", consolidated=False)
    blob = pickle.dumps(arrays[0])
    for array in arrays:
        assert np.asarray(array[0:1]).size
    replace(store, made["b"])
    for array in arrays:
        with pytest.raises(StoreChangedError, match=r"a\.zarr: replaced since it was opened"):
            array[0:1]
    with pytest.raises(StoreChangedError, match="replaced since it was opened"):
        lazy.agentview_rgb[0].values  # noqa: B018
    with pytest.raises(StoreChangedError, match="replaced since it was opened"):
        pickle.loads(blob)
    shutil.rmtree(store)
    for array in arrays:
        with pytest.raises(StoreChangedError, match=r"a\.zarr: removed since it was opened"):
            array[0:1]


def test_an_array_in_hand_after_an_append_or_damage(store: Path, tmp_path: Path) -> None:
    opened = rz.open_store(store)
    array = opened.array("actions")
    more = write_libero(tmp_path / "more/u_demo.hdf5", lengths=(3,), seed=9, drop_keys=BUT_CAMERAS)
    convert(more, store, workers=0, append=True)
    with pytest.raises(StoreChangedError, match="grew since it was opened: 2 episodes then, 3 now"):
        array[0]
    opened = rz.open_store(store)
    array = opened.array("actions")
    cut(store)
    with pytest.raises(CorruptChunkError, match="steps/actions"):
        array[0]


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_what_is_no_file_is_an_error(store: Path, kind: str) -> None:
    array = rz.open_store(store).array("actions")
    file = shard_of(store, "actions")
    file.rename(store.parent / "away")
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(store.parent / "away")
    else:
        file.mkdir()
    with pytest.raises(StoreError, match=r"can(not)? be read"):
        array[0]
    if kind != "folder":  # of an empty folder there is no file to count
        with pytest.raises(StoreError, match="cannot be read"):
            array.nbytes_stored()


def test_a_document_that_was_changed_is_not_believed_by_the_group(store: Path) -> None:
    opened = rz.open_store(store)
    file = store / "steps/actions/zarr.json"
    file.write_text(file.read_text().replace('"fill_value": 0', '"fill_value": 7'))
    with pytest.raises(CorruptChunkError, match=r"steps/actions · zarr\.json .*was changed, or belongs to another store"):
        opened.group["steps/actions"]


def test_what_users_added_stays_readable(store: Path) -> None:
    opened = rz.open_store(store)
    write_task_embedding(opened, "words", np.ones((1, 4), np.float32))
    assert read_task_embedding(opened, "words").sum() == 4
    write_task_embedding(opened, "words", np.zeros((1, 4), np.float32), overwrite=True)
    assert read_task_embedding(rz.open_store(store), "words").sum() == 0
    assert np.asarray(as_array(opened.group["tasks/embedding/words"])[...]).shape == (1, 4)


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_in_a_bucket_too(s3: str, made: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    place = new_place(s3, "a.zarr")
    put(place, made["a"])
    opened = rz.open_store(place)
    arrays = [opened.array("agentview_rgb"), opened.array("actions")]
    for array in arrays:
        assert np.asarray(array[3]).size
    for key in ("agentview_rgb", "actions"):  # another store's, of the same shape
        file = shard_of(made["b"], key)
        place.write(file.relative_to(made["b"]).as_posix(), [file.read_bytes()])
    for array in arrays:
        with pytest.raises(RoboZarrError, match=r"another (chunk|store)"):
            array[3:5]
    put(place, made["b"])
    for array in arrays:
        with pytest.raises(StoreChangedError, match="replaced since it was opened"):
            array[3]
    capfd.readouterr()  # obstore's words about ranges behind an end


def put(place: Place, store: Path) -> None:
    for file in sorted(store.rglob("*"), reverse=True):
        if file.is_file():
            place.write(file.relative_to(store).as_posix(), [file.read_bytes()])


def test_whether_a_store_changed_costs_no_reading_of_its_root(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the root is no longer young, only that it is still the same file is looked at."""
    old = 10**18
    os.utime(store / "zarr.json", ns=(old, old))
    monkeypatch.setattr("robozarr.store.folder.YOUNG_NS", -(10**18))
    opened = rz.open_store(store)
    assert opened.changed() is None
    reads: list[object] = []
    monkeypatch.setattr("robozarr.store.identity.changed_since", lambda *given: reads.append(given))
    for _ in range(5):
        assert opened.changed() is None
    opened.array("actions")
    assert reads == []
    root = (store / "zarr.json").read_bytes()
    (store / "zarr.json").write_bytes(root)  # the same again: read once
    opened.changed()
    opened.changed()
    assert len(reads) == 1


def test_a_young_root_is_read_each_time(store: Path) -> None:
    """Two writings within one tick of the clock, of one size, under one number: only the bytes tell them apart."""
    opened = rz.open_store(store)
    assert opened.changed() is None
    file = store / "zarr.json"
    facts = file.stat()
    data = file.read_bytes()
    other = data.replace(opened.identity.encode(), opened.identity[::-1].encode())
    with file.open("r+b") as same:
        same.write(other)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert isinstance(opened.changed(), StoreChangedError)

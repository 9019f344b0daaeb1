"""From store to store: the bytes of a conversion from the sources, whatever profile the old one has, and whoever wrote it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import format_writer
import h5py
import numpy as np
import pytest
from killing import convert_command, run_and_kill, same_bytes
from remote import new_place, same_objects

import robozarr
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import CorruptChunkError, PlanError, SourceError, StoreError
from robozarr.schemas.layout import Profile

PROFILES: tuple[Profile, ...] = ("raw", "fast", "lean", "compact")
MORE = pytest.mark.slow(reason="the same between other profiles")
LENGTHS = (11, 30, 4)
REST = ("robot_states", "rewards", "dones", "obs/eye_in_hand_rgb", "obs/ee_states", "obs/ee_pos", "obs/gripper_states")
OPTIONS: dict[str, Any] = {"size": 16, "depth": True, "drop_keys": REST}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [
        synthetic.write_libero(folder / "s" / f"task{number}_demo.hdf5", lengths=LENGTHS, seed=number, **OPTIONS)
        for number in range(2)
    ]


@pytest.fixture(scope="module")
def stores(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Profile, Path]:
    """The sources in every profile."""
    folder = tmp_path_factory.mktemp("stores")
    for profile in PROFILES:
        convert(sources, folder / f"{profile}.zarr", workers=0, profile=profile)
    return {profile: folder / f"{profile}.zarr" for profile in PROFILES}


@pytest.mark.parametrize(("old", "new"), [("fast", "lean"), ("compact", "raw"), pytest.param("lean", "compact", marks=MORE)])
def test_it_is_the_store_that_the_sources_make(old: Profile, new: Profile, stores: dict[Profile, Path], tmp_path: Path) -> None:
    report = convert(stores[old], tmp_path / "a.zarr", workers=0, profile=new)
    assert same_bytes(tmp_path / "a.zarr", stores[new])
    assert (report.profile, report.n_episodes, report.n_sources) == (new, 6, 2)
    assert verify(tmp_path / "a.zarr", sources=stores[old], workers=0).violations == ()


@pytest.mark.slow(reason="starts workers")
def test_workers_do_not_change_it(stores: dict[Profile, Path], tmp_path: Path) -> None:
    convert(stores["raw"], tmp_path / "a.zarr", workers=2, profile="lean")
    assert same_bytes(tmp_path / "a.zarr", stores["lean"])


@pytest.mark.slow(reason="reads and writes over HTTP")
def test_into_a_bucket_and_back(s3: str, stores: dict[Profile, Path], tmp_path: Path) -> None:
    place = new_place(s3)
    convert(stores["fast"], place.url, endpoint_url=s3, workers=0, profile="lean")
    assert same_objects(place, stores["lean"])
    convert(place.url, tmp_path / "a.zarr", endpoint_url=s3, workers=0, profile="compact")
    assert same_bytes(tmp_path / "a.zarr", stores["compact"])
    assert verify(tmp_path / "a.zarr", sources=place, workers=0).ok
    place.remove(place.names())


@pytest.mark.slow(reason="six conversions")
def test_it_is_appended_to_as_the_old_one_would_be(sources: list[Path], stores: dict[Profile, Path], tmp_path: Path) -> None:
    convert(sources[:1], tmp_path / "old.zarr", workers=0, instruction="put it there")
    convert(tmp_path / "old.zarr", tmp_path / "new.zarr", workers=0, profile="lean")
    for name in ("old.zarr", "new.zarr"):
        convert(sources, tmp_path / name, workers=0, append=True)
    convert(tmp_path / "old.zarr", tmp_path / "again.zarr", workers=0, profile="lean")
    assert same_bytes(tmp_path / "new.zarr", tmp_path / "again.zarr")
    store = robozarr.open_store(tmp_path / "new.zarr")
    assert store.episodes.instruction == ("put it there",) * 3 + ("pick up the thing",) * 3
    assert [source.digest for source in store.metadata.sources] == [
        source.digest for source in robozarr.open_store(stores["fast"]).metadata.sources
    ]


@pytest.mark.slow(reason="three conversions")
def test_what_was_left_out_stays_left_out(sources: list[Path], tmp_path: Path) -> None:
    bad = synthetic.write_libero(tmp_path / "s/task2_demo.hdf5", lengths=(5, 6), size=16, seed=5, drop_keys=REST)
    with h5py.File(bad, "a") as file:
        file["data/demo_1/actions"][2] = np.nan
    files = [*sources, bad]
    options = {"without": ["obs/ee_ori"], "on_error": "skip", "workers": 0}
    convert(files, tmp_path / "old.zarr", **options)  # type: ignore[arg-type]
    convert(files, tmp_path / "lean.zarr", profile="lean", **options)  # type: ignore[arg-type]
    convert(tmp_path / "old.zarr", tmp_path / "new.zarr", workers=0, profile="lean")
    assert same_bytes(tmp_path / "new.zarr", tmp_path / "lean.zarr")
    paths = {entry.path for entry in robozarr.open_store(tmp_path / "new.zarr").metadata.not_stored}
    assert {"obs/ee_ori", "data/demo_1"} <= paths
    assert verify(tmp_path / "new.zarr", sources=files, workers=0).ok


@pytest.mark.parametrize(
    ("version", "profile", "new"),
    [
        (1, "compact", "lean"),
        (2, "fast", "lean"),
        *(pytest.param(1, old, new, marks=MORE) for old, new in (("raw", "compact"), ("fast", "fast"))),
    ],
)
def test_stores_of_other_writers_and_versions(
    version: int, profile: Profile, new: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_writer, "VERSION", version)
    format_writer.write_by_hand(tmp_path / "old.zarr", profile)
    convert(tmp_path / "old.zarr", tmp_path / "new.zarr", workers=0, profile=new)
    report = verify(tmp_path / "new.zarr", sources=tmp_path / "old.zarr", workers=0)
    assert report.violations == ()
    old, store = robozarr.open_store(tmp_path / "old.zarr"), robozarr.open_store(tmp_path / "new.zarr")
    assert (store.metadata.format_version, store.metadata.profile) == (2, new)
    for key in format_writer.keys():
        assert np.asarray(store.array(key.name)[...]).tobytes() == key.steps.tobytes()
    for name in ("instruction", "instruction_source", "demo", "start", "length", "alignment", "success"):
        assert np.array_equal(getattr(store.episodes, name), getattr(old.episodes, name)), name
    assert store.tasks == old.tasks
    for name in ("sources", "splits", "not_stored", "control_freq", "keys", "joint_key", "flag_rules"):
        assert getattr(store.metadata, name) == getattr(old.metadata, name), name
    if version == 1:
        with pytest.raises(StoreError, match="was made from a store of format 1, which does not say what its sources held"):
            convert(synthetic.write_libero(tmp_path / "s/x_demo.hdf5"), tmp_path / "new.zarr", workers=0, append=True)


def interrupted(monkeypatch: pytest.MonkeyPatch, old: Path, new: Path) -> None:
    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("robozarr.convert.run.write_statistics", end)
        with pytest.raises(KeyboardInterrupt):
            convert(old, new, workers=0, profile="lean")


def test_the_same_command_goes_on(stores: dict[Profile, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, stores["fast"], tmp_path / "a.zarr")
    (tmp_path / "a.zarr/steps/agentview_rgb/c/0/0/0/0").write_bytes(b"cut")
    with pytest.raises(PlanError, match="the unfinished convert used profile 'lean', now 'compact'"):
        convert(stores["fast"], tmp_path / "a.zarr", workers=0, profile="compact")
    report = convert(stores["fast"], tmp_path / "a.zarr", workers=0, profile="lean")
    assert report.n_kept == report.n_partitions - 1
    assert same_bytes(tmp_path / "a.zarr", stores["lean"])


@pytest.mark.slow(reason="starts a converter of its own")
def test_killed_it_ends_in_the_same_bytes(stores: dict[Profile, Path], tmp_path: Path) -> None:
    command = convert_command(stores["fast"], "--store", tmp_path / "a.zarr", "--profile", "lean", "-w", "0")
    run_and_kill(command, 0.05, lambda: any((tmp_path / "a.zarr").glob("steps/*/c")))
    convert(stores["fast"], tmp_path / "a.zarr", workers=0, profile="lean", overwrite=True)
    assert same_bytes(tmp_path / "a.zarr", stores["lean"])


def test_a_store_that_changed_in_between_is_noticed(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(sources[:1], tmp_path / "old.zarr", workers=0)
    interrupted(monkeypatch, tmp_path / "old.zarr", tmp_path / "a.zarr")
    convert(sources, tmp_path / "old.zarr", workers=0, append=True)
    with pytest.raises(SourceError, match=r"old\.zarr: an unfinished convert must .* found identity [0-9a-f]{32}; when"):
        convert(tmp_path / "old.zarr", tmp_path / "a.zarr", workers=0, profile="lean")


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_broken_is_not_carried_over(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped byte, and shards that changed places, of frames and of a low-dim key."""
    monkeypatch.setattr(format_writer, "VERSION", version)
    format_writer.write_by_hand(tmp_path / "old.zarr", "raw")
    frames, actions = "steps/agentview_rgb/c/{}/0/0/0", "steps/actions/c/{}/0"
    whole = "binds it to|checksums/ states for its step"
    for name, change, message in [
        (frames, "flip", r"steps/agentview_rgb · shard 1 .* the chunk must agree with its crc32c"),
        (frames, "swap", rf"steps/agentview_rgb · shard . .*({whole})"),
        (actions, "other", r"steps/actions · (shard 0 .*binds it to|episode \d: its rows must have the checksum)"),
    ]:
        shutil.copytree(tmp_path / "old.zarr", tmp_path / "x.zarr")
        zero, one = (tmp_path / "x.zarr" / name.format(number) for number in (0, 1))
        if change == "flip":
            one.write_bytes(bytes([one.read_bytes()[0] ^ 1]) + one.read_bytes()[1:])
        elif change == "swap":
            first, second = zero.read_bytes(), one.read_bytes()
            zero.write_bytes(second)
            one.write_bytes(first)
        else:
            values = next(key.steps for key in format_writer.keys() if key.name == "actions")
            zero.write_bytes(format_writer.pack_shard(values[:15] + 1.0, 5, 15, None))
        with pytest.raises(CorruptChunkError, match=message):
            convert(tmp_path / "x.zarr", tmp_path / "y.zarr", workers=0, profile="lean")
        shutil.rmtree(tmp_path / "x.zarr")
        shutil.rmtree(tmp_path / "y.zarr", ignore_errors=True)


@pytest.mark.slow(reason="three conversions")
def test_two_stores_that_differ_are_told_apart(sources: list[Path], stores: dict[Profile, Path], tmp_path: Path) -> None:
    other = synthetic.write_libero(tmp_path / "s/task1_demo.hdf5", lengths=LENGTHS, seed=9, **OPTIONS)
    convert([sources[0], other], tmp_path / "other.zarr", workers=0)
    tables = verify(stores["lean"], sources=tmp_path / "other.zarr", workers=0).violations
    assert [violation.text for violation in tables] == ["episodes/alignment_error: not what the sources say"]
    same = [synthetic.write_libero(tmp_path / f"{name}/s/a_demo.hdf5", lengths=(20,), size=16) for name in "ab"]
    with h5py.File(same[1], "a") as file:
        file["data/demo_0/obs/agentview_rgb"][17, 3, 2, 1] ^= 1
    for path in same:
        convert(path, path.parent / "a.zarr", workers=0, profile="lean")
    texts = [one.text for one in verify(same[0].parent / "a.zarr", sources=same[1].parent / "a.zarr", workers=0).violations]
    where = "steps/agentview_rgb: episode 0 is not bit for bit s/a_demo.hdf5 · demo_0 · obs/agentview_rgb"
    assert texts[0] == f"{where}, from row 17 of the demo on"


def test_what_does_not_go_with_a_store_is_refused(sources: list[Path], stores: dict[Profile, Path], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"is a store, which is converted as it is: leave out --keys, --on-error"):
        convert(stores["fast"], tmp_path / "a.zarr", workers=0, keys=["agentview_rgb"], on_error="skip")
    with pytest.raises(PlanError, match="is a store, and a store must be converted alone"):
        convert([stores["fast"], sources[0]], tmp_path / "a.zarr", workers=0)
    with pytest.raises(StoreError, match="is, or lies in, the store that is to be converted"):
        convert(stores["fast"], stores["fast"], workers=0, overwrite=True)
    assert verify(stores["fast"], workers=0).ok
    assert not (tmp_path / "a.zarr").exists()


def test_a_dry_run_writes_nothing(stores: dict[Profile, Path], tmp_path: Path) -> None:
    report = convert(stores["fast"], tmp_path / "a.zarr", workers=0, profile="lean", dry_run=True)
    assert (report.n_steps, report.stored_bytes) == (90, 0)
    assert not (tmp_path / "a.zarr").exists()

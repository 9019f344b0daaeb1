"""Who is to blame: a store's own demos never, then the minority; and under skip, only what is odd is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import robozarr
import synthetic
from robozarr.convert import ConvertReport, convert, verify
from robozarr.schemas.errors import PlanError, SourceError

Demo = dict[str, Any]


def write(path: Path, *demos: Demo) -> Path:
    """A file of demos of four steps: path → values, each with actions and a picture key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for number, extra in enumerate(demos):
            values = {"actions": np.full((4, 7), number / 9), "obs/rgb": np.full((4, 8, 8, 3), number, "u1"), **extra}
            for name, array in values.items():
                if array is not None:
                    file[f"data/demo_{number}/{name}"] = array
    return path


def depth() -> Demo:
    return {"obs/depth": np.zeros((4, 8, 8), "u2")}


def skip(source: Path, **options: Any) -> tuple[robozarr.Store, ConvertReport]:
    """The store of what is left, which verify has to find good, and the report, which is JSON."""
    store = source.parent / "skip.zarr"
    report = convert(source, store, workers=0, on_error="skip", overwrite=True, **options)
    assert verify(store, sources=source, workers=0).ok
    json.dumps(report.to_json(), allow_nan=False)
    return robozarr.open_store(store), report


def refused(source: Path, **options: Any) -> list[tuple[str, str, str]]:
    """File, demo and key of each problem, once everything has to be right."""
    with pytest.raises(SourceError) as caught:
        convert(source, source.parent / "no.zarr", workers=0, **options)
    assert not (source.parent / "no.zarr").exists()
    return [(Path(problem.file).name, problem.demo, problem.key) for problem in caught.value.problems]


# --- presence ---


def test_a_key_that_one_demo_has_costs_the_key_and_no_demo(tmp_path: Path) -> None:
    source = write(tmp_path / "s" / "a.hdf5", *[{}] * 3, {"interventions": np.zeros(4)}, *[{}] * 8)
    assert refused(source) == [("a.hdf5", "demo_3", "interventions")]
    store, report = skip(source)
    assert (store.n_episodes, list(store.keys)) == (12, ["actions", "rgb"])
    (entry,) = report.left_out
    assert (entry["demo"], entry["key"], entry["value"]) == ("demo_3", "interventions", "it in 1 of 12 demos")
    assert "--without interventions" in entry["remedy"]
    (listed,) = store.metadata.not_stored
    assert (listed.path, listed.n_demos) == ("interventions", 1)
    assert listed.reason == "left out: most demos do not hold it; found it in 1 of 12 demos"


def test_a_demo_that_lacks_what_the_others_have_is_left_out_and_its_odd_keys_with_it(tmp_path: Path) -> None:
    source = write(tmp_path / "s" / "a.hdf5", depth(), depth(), {"note": np.zeros(4)}, depth())
    assert refused(source) == [("a.hdf5", "demo_2", "obs/depth")]
    store, _ = skip(source)
    assert store.episodes.demo == ("demo_0", "demo_1", "demo_3")
    assert list(store.keys) == ["actions", "depth", "rgb"]


def test_one_file_of_four_has_depth(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "s" / f"task_{number}.hdf5", *[depth() if number == 2 else {}] * 2)
    assert refused(tmp_path / "s") == [("task_2.hdf5", "", "obs/depth")]
    store, report = skip(tmp_path / "s")
    assert (store.n_episodes, list(store.keys)) == (8, ["actions", "rgb"])
    assert report.left_out[0]["value"] == "it in 2 of 8 demos (demo_0, demo_1)"


@pytest.mark.slow(reason="several conversions of whole files")
def test_the_majority_is_that_of_the_good_demos(tmp_path: Path) -> None:
    """Five of eight have no depth, but four of these have NaN in their actions: of the good ones, three of four have it."""
    bad = {"actions": np.full((4, 7), np.nan)}
    source = write(tmp_path / "s" / "a.hdf5", *[bad] * 4, {}, *[depth()] * 3)
    assert refused(source) == [*(("a.hdf5", f"demo_{n}", "actions") for n in range(4)), ("a.hdf5", "demo_4", "obs/depth")]
    assert skip(source)[0].episodes.demo == ("demo_5", "demo_6", "demo_7")


@pytest.mark.slow(reason="several conversions of whole files")
@pytest.mark.parametrize("first", [True, False])
def test_of_two_halves_the_first_demo_decides_and_it_is_said(tmp_path: Path, first: bool) -> None:
    source = write(tmp_path / "s" / "a.hdf5", *([depth(), {}] if first else [{}, depth()]))
    with pytest.raises(SourceError) as caught:
        convert(source, tmp_path / "no.zarr", workers=0)
    (problem,) = caught.value.problems
    assert "half" in problem.rule or "halves" in problem.rule
    assert (problem.demo, problem.key) == ("demo_1", "obs/depth")
    store, _ = skip(source)
    assert (store.n_episodes, "depth" in store.keys) == ((1, True) if first else (2, False))


@pytest.mark.slow(reason="several conversions of whole files")
def test_files_of_two_kinds_become_a_store_of_one(tmp_path: Path) -> None:
    synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(5, 6, 4))
    synthetic.write_robomimic(tmp_path / "s" / "b.hdf5", lengths=(5, 6), size=16)
    assert {(file, demo) for file, demo, _ in refused(tmp_path / "s")} == {("b.hdf5", "demo_0"), ("b.hdf5", "demo_1")}
    store, _ = skip(tmp_path / "s")
    assert (store.n_episodes, "agentview_rgb" in store.keys, "agentview_image" in store.keys) == (3, True, False)


# --- types and shapes ---


@pytest.mark.slow(reason="several conversions of whole files")
def test_two_shapes_as_often_each_are_decided_for_the_first_and_said(tmp_path: Path) -> None:
    source = write(tmp_path / "s" / "a.hdf5", {}, {"obs/rgb": np.zeros((4, 9, 9, 3), "u1")})
    with pytest.raises(
        SourceError, match=r"demo_1 · obs/rgb: .* as in most demos \(two equal halves: the first demo's counts\)"
    ):
        convert(source, tmp_path / "no.zarr", workers=0)
    assert skip(source)[0].episodes.demo == ("demo_0",)


# --- what does not go along the steps ---


def test_one_number_a_subtask_is_listed_and_refuses_nobody(tmp_path: Path) -> None:
    """MimicGen's; in one demo it has as many rows as there are steps, by chance."""
    source = write(tmp_path / "s" / "a.hdf5", *({"per_subtask": np.arange(n), "setup/x": np.zeros((1, 9))} for n in (2, 4, 3)))
    assert refused(source) == [("a.hdf5", "demo_1", "per_subtask")]
    store, _ = skip(source)
    assert (store.n_episodes, list(store.keys)) == (3, ["actions", "rgb"])
    reasons = {(entry.path, entry.n_demos): entry.reason for entry in store.metadata.not_stored}
    assert reasons["per_subtask", 2] == reasons["setup/x", 3] == "its first axis is not the demo's steps"
    assert reasons["per_subtask", 1].startswith("left out: ")


@pytest.mark.parametrize(
    "inside", [False, pytest.param(True, marks=pytest.mark.slow(reason="test_scan.py has the rule within a file"))]
)
def test_a_dataset_that_is_too_short_in_one_demo_is_that_demos_fault(tmp_path: Path, inside: bool) -> None:
    """In its own file, or against the other files."""
    short, whole = {"obs/pos": np.zeros((3, 2))}, {"obs/pos": np.zeros((4, 2))}
    write(tmp_path / "s" / "a.hdf5", whole, whole, *([short] if inside else []))
    if not inside:
        write(tmp_path / "s" / "b.hdf5", short)
    with pytest.raises(
        SourceError, match="obs/pos: every dataset of a demo must have as many steps as its actions; found 3 and 4"
    ):
        convert(tmp_path / "s", tmp_path / "no.zarr", workers=0)
    assert skip(tmp_path / "s")[0].n_episodes == 2


def test_observations_of_one_moment_more_are_not_all_left_out_in_silence(tmp_path: Path) -> None:
    demo = {"obs/rgb": np.zeros((5, 8, 8, 3), "u1"), "obs/pos": np.zeros((5, 2))}
    assert len(refused(write(tmp_path / "s" / "a.hdf5", demo, demo))) == 4


def test_names_that_clash_become_paths(tmp_path: Path) -> None:
    """Isaac Lab's obs/actions beside actions."""
    demo = {"obs/actions": np.ones((4, 7)), "pos": np.zeros((4, 3)), "obs/pos": np.zeros((4, 2))}
    source = write(tmp_path / "s" / "a.hdf5", demo, demo)
    convert(source, tmp_path / "a.zarr", workers=0)
    store = robozarr.open_store(tmp_path / "a.zarr")
    assert {key.name: key.source for key in store.metadata.keys} == {
        "actions": "actions", "obs.actions": "obs/actions", "obs.pos": "obs/pos", "pos": "pos", "rgb": "obs/rgb"
    }  # fmt: skip
    assert np.all(np.asarray(store.array("obs.actions")[:]) == 1)
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).ok
    convert(source, tmp_path / "a.zarr", workers=0, keys=["obs.actions"], overwrite=True)
    assert list(robozarr.open_store(tmp_path / "a.zarr").keys) == ["actions", "obs.actions"]


# --- by name ---


def test_without_leaves_out_by_name_path_and_group_and_the_store_remembers(tmp_path: Path) -> None:
    demo = {**depth(), "datagen/a": np.zeros(4), "datagen/b/c": np.zeros(4), "obs/pos": np.zeros((4, 2))}
    source = write(tmp_path / "s" / "a.hdf5", demo, demo)
    store = tmp_path / "a.zarr"
    convert(source, store, workers=0, without=["depth", "obs/pos", "datagen"])
    assert list(robozarr.open_store(store).keys) == ["actions", "rgb"]
    reasons = {entry.path: entry.reason for entry in robozarr.open_store(store).metadata.not_stored}
    assert reasons == dict.fromkeys(["datagen/a", "datagen/b/c", "obs/depth", "obs/pos"], "not wanted (--without)")
    assert verify(store, sources=source, workers=0).ok
    more = write(tmp_path / "s" / "b.hdf5", demo)
    convert([source, more], store, workers=0, append=True)
    assert robozarr.open_store(store).n_episodes == 3
    assert verify(store, sources=[source, more], workers=0).ok


@pytest.mark.parametrize(("options", "message"), [
    ({"without": ["dept"]}, r"--without: no source holds dept \(did you mean depth\?\); they hold actions, depth, rgb"),
    ({"without": ["actions"]}, "--without: actions cannot be left out: it gives a demo its length"),
    ({"without": ["depth"], "keys": ["depth"]}, "--without and --keys both name depth"),
    ({"keys": ["name"]}, r"--keys: name cannot be stored: no numbers along the steps: \|S1 \(\) a step"),
    ({"keys": ["inds"]}, "--keys: inds cannot be stored: its first axis is not the demo's steps"),
    ({"keys": ["rgp"]}, r"--keys: no source holds rgp \(did you mean rgb\?\)"),
])  # fmt: skip
def test_a_name_that_cannot_be_had_is_an_error(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    demo = {**depth(), "obs/name": np.full(4, b"x"), "obs/inds": np.zeros(2)}
    if "without" in options:
        demo = depth()
    source = write(tmp_path / "s" / "a.hdf5", demo, demo)
    with pytest.raises(PlanError, match=message):
        convert(source, tmp_path / "a.zarr", workers=0, **options)
    assert not (tmp_path / "a.zarr").exists()


def test_a_key_that_is_asked_for_and_odd_is_an_error_even_under_skip(tmp_path: Path) -> None:
    source = write(tmp_path / "s" / "a.hdf5", {}, {}, depth())
    with pytest.raises(
        PlanError, match="--keys: depth cannot be stored: left out: most demos do not hold it; found it in 1 of 3"
    ):
        convert(source, tmp_path / "a.zarr", workers=0, on_error="skip", keys=["rgb", "depth"])


# --- a store that is appended to ---


def values_of(store: Path) -> dict[str, Any]:
    opened = robozarr.open_store(store)
    return {name: opened.array(name)[:] for name in opened.keys if not opened.metadata.key(name).ragged}


def test_what_a_store_holds_is_never_left_out_by_an_append(tmp_path: Path) -> None:
    """The store has no next_obs (it repeats obs there); new files hold one that does not, others none, and they are more."""
    rest = ("rewards", "obs/robot0_eye_in_hand_image", "obs/robot0_eef_quat", "obs/robot0_gripper_qpos", "obs/object")
    of_next = [f"next_{name}" for name in rest[1:]]
    base = synthetic.write_robomimic(tmp_path / "s0" / "base.hdf5", lengths=(6,), seed=1, size=8, drop_keys=(*rest, *of_next))
    synthetic.write_robomimic(
        tmp_path / "s1" / "a.hdf5", lengths=(4, 3), seed=2, size=8, drop_keys=(*rest, *of_next), next_obs_equal=False
    )
    synthetic.write_robomimic(tmp_path / "s2" / "b.hdf5", lengths=(5,), seed=3, size=8, drop_keys=rest, next_obs=False)
    store, sources = tmp_path / "a.zarr", [tmp_path / name for name in ("s0", "s1", "s2")]
    convert(base, store, workers=0)
    before = values_of(store)
    with pytest.raises(SourceError) as caught:
        convert(sources, store, workers=0, append=True)
    assert {(Path(problem.file).name, problem.key) for problem in caught.value.problems} == {
        ("a.hdf5", "next_obs/robot0_eef_pos")
    }
    assert values_of(store).keys() == before.keys()
    convert(sources, store, workers=0, append=True, on_error="skip")
    opened = robozarr.open_store(store)
    assert [(source.name, source.n_demos) for source in opened.metadata.sources] == [
        ("s0/base.hdf5", 1), ("s1/a.hdf5", 2), ("s2/b.hdf5", 1)
    ]  # fmt: skip
    for name, values in values_of(store).items():
        assert np.array_equal(values[:6], before[name])
    with h5py.File(tmp_path / "s1" / "a.hdf5") as file:
        assert np.array_equal(opened.array("agentview_image")[6:10], file["data/demo_0/obs/agentview_image"])
    assert verify(store, sources=sources, workers=0).ok


def test_the_store_is_the_rule_however_many_are_unlike_it(tmp_path: Path) -> None:
    base, store = write(tmp_path / "s" / "a.hdf5", depth()), tmp_path / "a.zarr"
    convert(base, store, workers=0)
    bytes_before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    new = write(tmp_path / "s" / "b.hdf5", *[{}] * 9)
    for _ in range(2):  # on every rerun too
        with pytest.raises(SourceError, match="no demo is left to append; 9 problem"):
            convert([base, new], store, workers=0, append=True, on_error="skip")
        assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == bytes_before
    more = write(tmp_path / "s" / "c.hdf5", {}, depth(), {**depth(), "note": np.zeros(4)})
    report = convert([base, more], store, workers=0, append=True, on_error="skip")
    assert [(entry["demo"], entry["key"]) for entry in report.left_out] == [("demo_0", "obs/depth"), ("demo_2", "note")]
    assert robozarr.open_store(store).episodes.demo == ("demo_0", "demo_1", "demo_2")
    assert verify(store, sources=[base, more], workers=0).ok


@pytest.mark.slow(reason="several conversions of whole files")
def test_what_turns_out_unreadable_leaves_the_store_as_it_was_if_nothing_is_left_to_append(tmp_path: Path) -> None:
    base = synthetic.write_robomimic(tmp_path / "s" / "a.hdf5", lengths=(5,), size=16, next_obs=False)
    convert(base, tmp_path / "a.zarr", workers=0)
    before = {path: path.read_bytes() for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()}
    new = synthetic.write_robomimic(tmp_path / "s" / "b.hdf5", lengths=(6,), size=16, next_obs=False, seed=1)
    with h5py.File(new) as file:
        chunk = file["data/demo_0/obs/agentview_image"].id.get_chunk_info(0)
    with new.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(64))
    for _ in range(2):
        with pytest.raises(SourceError, match="no demo is left to append"):
            convert([base, new], tmp_path / "a.zarr", workers=0, append=True, on_error="skip")
        assert {path: path.read_bytes() for path in (tmp_path / "a.zarr").rglob("*") if path.is_file()} == before

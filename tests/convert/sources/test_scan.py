"""Scans: what a file of each kind holds, and every way in which one can be bad, found before any picture is converted."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import synthetic
from robozarr.convert.records import FileScan
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import Problem
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence

Edit = Callable[[Any], object]


def scan(path: Path, *selected: str) -> FileScan:
    return scan_file(str(path), FlagRules(), selected or None)


def libero(folder: Path, edit: Edit | None = None, **options: Any) -> Path:
    path = synthetic.write_libero(folder / "put_the_bowl_demo.hdf5", size=8, **options)
    if edit is not None:
        with h5py.File(path, "r+") as file:
            edit(file)
    return path


def paths(found: FileScan, demo: int = 0) -> list[str]:
    return [info.path for info in found.demos[demo].datasets]


# --- good files ---


def test_a_libero_file(tmp_path: Path) -> None:
    path = libero(tmp_path, lengths=(7, 5, 6), numbers=(2, 10, 1), model_file_bytes=321)
    found = scan(path)
    assert (found.problems, found.not_stored, found.splits) == ((), (), ())
    assert [(demo.name, demo.length) for demo in found.demos] == [("demo_1", 6), ("demo_2", 7), ("demo_10", 5)]
    assert (found.size, found.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert (found.task, found.suite, found.control_freq) == ("put_the_bowl", tmp_path.name, 20.0)
    assert (found.instruction, found.instruction_from_name) == ("pick up the thing", "put the bowl")
    assert "(define (problem" in found.bddl not in found.attributes
    assert json.loads(found.attributes)["data"]["tag"] == {"dtype": "text", "value": "libero-v1"}
    for demo in found.demos:
        assert (demo.joint_key, demo.success, demo.model_file_bytes, demo.init_state_size) == ("joint_states", -1, 321, 20)
        assert (demo.alignment, demo.alignment_error[1], len(demo.flags)) == (Alignment.AFTER, 0, demo.length)
        assert (demo.image_convention, demo.image_evidence) == (ImageConvention.OPENGL, ImageEvidence.ATTRIBUTE)
        assert json.loads(demo.attributes) == {"": {"num_samples": {"dtype": "<i8", "shape": [], "value": [demo.length]}}}


def test_an_openvla_file(tmp_path: Path) -> None:
    found = scan(synthetic.write_openvla(tmp_path / "a_demo.hdf5", size=8))
    assert found.problems == ()
    assert (found.attributes, found.instruction, found.bddl, found.control_freq) == ("{}", "", "", None)
    for demo in found.demos:
        assert (demo.alignment, demo.success) == (Alignment.BEFORE, -1)
        assert (demo.image_convention, demo.image_evidence) == (ImageConvention.OPENGL, ImageEvidence.KEY_NAMES)
        assert not (demo.flags & 1).any()


def test_a_robomimic_file(tmp_path: Path) -> None:
    path = synthetic.write_robomimic(tmp_path / "lift.hdf5", size=8, masks={"train": [0, 9, 1], "valid": []})
    found = scan(path)
    assert (found.problems, found.splits) == ((), ("train", "valid"))
    assert [demo.splits for demo in found.demos] == [("train",), ("train",), ()]
    assert found.not_stored == (("mask/train", 0, "names demos that the file does not hold: demo_9"),)
    for demo in found.demos:
        assert (demo.alignment, demo.success, demo.joint_key) == (Alignment.BEFORE, 1, "robot0_joint_pos")
        assert (demo.image_convention, demo.image_evidence) == (ImageConvention.OPENCV, ImageEvidence.ROBOMIMIC)
        assert sorted(demo.repeats) == [path for path in paths(found) if path.startswith("next_obs/")] != []


@pytest.mark.parametrize("compare_bytes", [1, 400, 16 << 20])
@pytest.mark.parametrize("step", [0, 3, 4, 5])
def test_only_the_last_next_obs_may_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, compare_bytes: int
) -> None:
    monkeypatch.setattr("robozarr.convert.sources.repeats.COMPARE_BYTES", compare_bytes)
    rest = [f"{of}/robot0_{key}" for of in ("obs", "next_obs") for key in ("eye_in_hand_image", "eef_quat", "joint_vel")]
    path = synthetic.write_robomimic(tmp_path / "lift.hdf5", size=8, lengths=(6,), drop_keys=rest)
    with h5py.File(path, "r+") as file:
        file["data/demo_0/next_obs/agentview_image"][step, 7, 7, 2] ^= 1
    (demo,) = scan(path).demos
    assert ("next_obs/agentview_image" in demo.repeats) is (step == 5)
    assert "next_obs/object" in demo.repeats


def test_next_obs_is_compared_by_type_and_bits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"drop_keys": ["obs/object"], "dtypes": {"next_obs/robot0_eef_pos": "f4"}}
    path = synthetic.write_robomimic(tmp_path / "lift.hdf5", size=8, lengths=(4,), **options)
    with h5py.File(path, "r+") as file:
        demo = file["data/demo_0"]
        demo["obs/robot0_eef_quat"][2] = demo["next_obs/robot0_eef_quat"][1] = np.nan
        demo["obs/robot0_joint_pos"][2], demo["next_obs/robot0_joint_pos"][1] = 0.0, -0.0
    found = scan(path)
    kept = {path for path in paths(found) if path.startswith("next_obs/")} - set(found.demos[0].repeats)
    assert kept == {"next_obs/object", "next_obs/robot0_eef_pos", "next_obs/robot0_joint_pos"}


def test_what_is_not_stored_is_listed(tmp_path: Path) -> None:
    extra = {
        "obs/name": lambda n, rng: np.full((n, 1), b"x"),
        "obs/none": lambda n, rng: np.zeros((n, 0)),
        "meta/camera": lambda n, rng: np.eye(4),
    }

    def edit(file: Any) -> None:
        file["data/note"] = 1
        file["data/demo_0/version"] = 3
        file["data/demo_0/obs/gone"] = h5py.SoftLink("/nowhere")
        file["lost"] = h5py.SoftLink("/nowhere")

    wanted = ("obs/name", "none", "camera", "meta/camera", "ee_pos", "version")
    found = scan(libero(tmp_path, edit, lengths=(7, 5), extra=extra), *wanted)
    assert found.problems == ()
    assert paths(found) == ["actions", "obs/ee_pos"]
    listed = {path: (n, reason) for path, n, reason in found.not_stored}
    assert listed["obs/ee_ori"] == listed["states"] == (2, "not asked for (--keys)")
    assert listed["obs/name"] == (2, "no numbers along the steps: |S1 (1,) a step")  # one entry, whatever the lengths
    assert listed["version"] == (1, "no numbers along the steps: int64 for the whole demo")
    assert listed["meta/camera"] == (2, "its first axis is not the demo's steps")
    assert listed["data/note"] == listed["lost"] == (0, "belongs to no demo")
    assert {"obs/none", "obs/gone"} < set(listed)


@pytest.mark.parametrize("name", ["sample", "real_data"])
def test_real_files_have_no_problems(name: str, request: pytest.FixtureRequest) -> None:
    for path in request.getfixturevalue(name).rglob("*.hdf5"):
        found = scan(path)
        assert (found.problems, found.not_stored) == ((), ())
        assert {demo.alignment for demo in found.demos} == {Alignment.AFTER}


# --- bad demos ---


def problems_of(path: Path, *selected: str) -> tuple[Problem, ...]:
    problems = scan(path, *selected).problems
    assert all(problem.file and problem.rule and problem.value and problem.remedy for problem in problems)
    return problems


def with_nan(file: Any) -> None:
    file["data/demo_1/actions"][3, 2] = np.nan


def swap(name: str, value: Any) -> Edit:
    def edit(file: Any) -> None:
        del file[f"data/demo_1/{name}"]
        file[f"data/demo_1/{name}"] = value

    return edit


NUMBERS = "actions: actions must be numbers [steps, n], n ≥ 1, of 1 step or more"
AS_MANY = "every dataset of a demo must have as many steps as its actions"


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda file: file.pop("data/demo_1/actions"), "actions: every demo must hold it; found nothing"),
        (swap("actions", np.zeros(5)), f"{NUMBERS}; found float64 (5,)"),
        (swap("actions", np.zeros((5, 0))), f"{NUMBERS}; found float64 (5, 0)"),
        (swap("actions", np.zeros((0, 7))), f"{NUMBERS}; found float64 (0, 7)"),
        (swap("actions", np.full((5, 7), b"x")), f"{NUMBERS}; found |S1 (5, 7)"),
        (with_nan, "actions: actions must be finite; found nan at step 3, column 2"),
        (swap("obs/ee_pos", np.zeros((4, 3))), f"obs/ee_pos: {AS_MANY}; found 4 and 5 steps"),
        (swap("rewards", np.zeros(6)), f"rewards: {AS_MANY}; found 6 and 5 steps"),
        (swap("states", np.zeros(5)), "states: a step must be a vector; found shape (5,)"),
    ],
)
def test_a_bad_demo_is_named_and_the_good_ones_are_scanned(tmp_path: Path, edit: Edit, text: str) -> None:
    path = libero(tmp_path, edit, lengths=(7, 5, 6))
    (problem,) = problems_of(path)
    where, _, remedy = str(problem).partition(" → ")
    assert where.startswith(f"{path} · demo_1 · {text}")
    remedies = ("repair the file, or leave the demo out with --on-error skip", "leave the demo out", "leave the key out")
    assert remedy.startswith(remedies)
    assert [demo.name for demo in scan(path).demos] == ["demo_0", "demo_2"]


def test_every_problem_of_every_demo_is_found(tmp_path: Path) -> None:
    def edit(file: Any) -> None:
        swap("obs/ee_pos", np.zeros((4, 3)))(file)
        with_nan(file)
        del file["data/demo_2/actions"]

    found = problems_of(libero(tmp_path, edit, lengths=(7, 5, 6)))
    assert [f"{problem.demo}/{problem.key}" for problem in found] == ["demo_1/obs/ee_pos", "demo_1/actions", "demo_2/actions"]


def test_a_key_that_is_not_wanted_does_no_harm(tmp_path: Path) -> None:
    path = libero(tmp_path, swap("rewards", np.zeros(6)))
    assert problems_of(path, "ee_pos") == ()
    assert len(problems_of(path)) == 1


def attribute(name: str, value: Any) -> Edit:
    return lambda file: file["data"].attrs.create(name, value)


ODD: list[Edit] = [
    *(attribute("env_args", text) for text in ("", "{", "[]", '{"env_kwargs": null}', '{"env_kwargs": [1]}')),
    attribute("env_args", '{"env_kwargs": {"control_freq": NaN}}'),
    attribute("problem_info", '{"language_instruction": 7}'),
    attribute("env_name", np.arange(3)),
    lambda file: file.create_dataset("mask/train", data=np.array([b"\xff\xfe"])),
    lambda file: [file.require_group("mask").create_dataset(name, data=np.array([b"x"])) for name in (b"caf\xe9", b"train")],
    lambda file: [file.create_group(name) for name in (b"caf\xe9", b"other")],
    lambda file: file["data/demo_0/obs"].create_dataset(b"caf\xe9", data=np.zeros(7)),
    lambda file: file.__setitem__("far", h5py.ExternalLink("nowhere.hdf5", "/data")),
]


@pytest.mark.parametrize("edit", ODD)
def test_what_is_odd_but_no_demo_stops_nobody(tmp_path: Path, edit: Edit) -> None:
    found = scan(libero(tmp_path, edit))
    assert (len(found.demos), found.problems) == (2, ())
    assert found.control_freq is None or np.isfinite(found.control_freq)


def test_a_bddl_text_that_is_no_utf8_is_not_lost(tmp_path: Path) -> None:
    """Its column holds UTF-8, so the bytes stay with the attributes."""

    text = np.array(b"caf\xe9", h5py.string_dtype())
    found = scan(libero(tmp_path, attribute("bddl_file_content", text)))
    assert "bddl_file_content" in json.loads(found.attributes)["data"]


# --- bad files ---


NO_GROUP, NO_NUMBER = "the file must have a group 'data'", "the name of a demo must end in its number"


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda file: file.pop("data"), f"{NO_GROUP}; found only nothing → give files of a layout that robozarr layouts lists"),
        (lambda file: file.move("data", "demo_0"), f"{NO_GROUP}; found only demo_0 →"),
        (lambda file: (file.pop("data"), file.create_dataset("data", data=1)), f"{NO_GROUP}; found only data →"),
        (lambda file: file["data"].clear(), "'data' must hold demos (demo_0, demo_1, …); found no group → leave the file out"),
        (lambda file: file["data"].create_group("best"), f"{NO_NUMBER}; found 'best' does not end in a number → rename"),
    ],
)
def test_a_file_without_demos_is_refused(tmp_path: Path, edit: Edit, text: str) -> None:
    path = libero(tmp_path, edit)
    (problem,) = problems_of(path)
    assert str(problem).startswith(f"{path}: {text}")


def test_what_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    whole, bad = libero(tmp_path).read_bytes(), tmp_path / "bad.hdf5"
    lengths = [*range(0, 3000, 100), *(len(whole) * part // 10 for part in range(2, 10)), len(whole) - 1]
    for content in (b"no HDF5", *(whole[:length] for length in lengths)):
        bad.write_bytes(content)
        (problem,) = problems_of(bad)
        rule = "not HDF5" if content.startswith(b"no") else "cut off" if content else "empty"
        assert str(problem).startswith(f"{bad}: the file is {rule}; found ")
        assert problem.remedy.startswith("copy or download it again")
    assert problems_of(tmp_path)[0].rule == "the file cannot be read"
    (problem,) = problems_of(tmp_path / "gone.hdf5")
    assert str(problem).endswith("gone.hdf5: the file cannot be read; found No such file or directory → check path and rights")


@pytest.mark.parametrize("mark", [b"HEAP", b"TREE", b"SNOD", b"GCOL"])
def test_damage_inside_is_a_problem_of_the_file(tmp_path: Path, mark: bytes) -> None:
    """A download with holes: as long as it should be, but blocks of it are zeros."""
    path = libero(tmp_path, lengths=(4,))
    whole, good = path.read_bytes(), scan(path)
    for at in (at for at in range(len(whole)) if whole.startswith(mark, at)):
        path.write_bytes(whole[:at] + bytes(64) + whole[at + 64 :])
        if not problems_of(path):  # then nothing is missing without a word
            assert paths(scan(path)) == paths(good)
            assert scan(path).attributes == good.attributes or scan(path).not_stored


def test_a_file_without_rights_says_so() -> None:
    script = """if True:
        import os, sys
        from robozarr.convert.sources.scan import scan_file, FlagRules
        if os.geteuid() == 0: os.setuid(65534)
        print(*scan_file(sys.argv[1], FlagRules()).problems)"""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = libero(Path(folder))
        path.chmod(0)
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    if "in <module>\nPermissionError" in done.stderr:
        pytest.skip("root may not become another user here, and root reads everything")
    assert done.returncode == 0, done.stderr
    assert "Permission denied" in done.stdout
    assert "rights" in done.stdout.rpartition("→")[2]  # copying it again does not help

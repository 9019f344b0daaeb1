"""Files as people have them → the instruction of each episode, where it comes from, and what is said about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest

import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.convert.run import ConvertReport
from robozarr.schemas.instructions import InstructionSource
from synthetic import write_libero, write_openvla, write_robomimic

Edit = Callable[[h5py.File], Any]
VIEW = "pick_up_the_black_bowl_on_the_stove_and_place_it_on_the_plate_view_0_0_100_2_352_initstate_0_demo"
REST = (*few_keys.OF_LIBERO, "states", "dones", "obs/agentview_rgb")
FEW: dict[str, Any] = {"next_obs": False, "drop_keys": few_keys.OF_ROBOMIMIC}
OWN = "pick the akita black bowl on the stove and place it on the plate"


def converted(folder: Path, keys: tuple[str, ...] | None = None) -> tuple[rz.Store, ConvertReport]:
    """A folder's store, which agrees with its sources."""
    report = convert(folder, folder / "a.zarr", workers=0, keys=keys)
    checked = verify(folder / "a.zarr", sources=folder, workers=0)
    assert checked.violations == ()
    return rz.open_store(folder / "a.zarr"), report


def words(store: rz.Store) -> list[tuple[str, str]]:
    codes = store.episodes.instruction_source.tolist()
    return [(text, InstructionSource(code).words) for text, code in zip(store.episodes.instruction, codes, strict=True)]


def plain(path: Path, edit: Edit = lambda _: None, lengths: tuple[int, ...] = (5, 4)) -> Path:
    """A file without any words, edited."""
    write_openvla(path, lengths=lengths, numbers=range(len(lengths)), size=8, drop_keys=REST)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path.parent


def test_perturbed_name(tmp_path: Path) -> None:
    write_libero(tmp_path / "stated" / f"{VIEW}.hdf5", lengths=(5,), size=8, instruction=OWN, drop_keys=few_keys.OF_LIBERO)
    write_openvla(tmp_path / "unstated" / f"{VIEW}.hdf5", lengths=(5,), numbers=(0,), size=8, drop_keys=few_keys.OF_LIBERO)
    store, report = converted(tmp_path)
    assert words(store) == [(OWN, "file attribute"), ("", "none")]
    assert store.tasks.instruction_from_name == ("", "")
    assert report.remarks == (
        f"unstated/{VIEW}.hdf5: 1 of 1 episodes have no instruction, so it stays empty → give it with --instruction TEXT "
        "or --instructions FILE",
        f"the files' own words are used; their names say something else: stated/{VIEW}.hdf5 states {OWN!r}, its "
        "name says 'pick up the black bowl on the stove and place it on the plate view 0 0 100 2 35…'",
    )


def test_robocasa_has_three_tasks_in_a_file(tmp_path: Path) -> None:
    path = write_robomimic(tmp_path / "s" / "demo_gentex_im128_randcams.hdf5", lengths=(4, 5, 4, 4), size=8, **FEW)
    texts = ["pick the apple", "open the right drawer", "pick the apple", 'close the "left" drawer']
    with h5py.File(path, "r+") as file:
        for text, demo in zip(texts, file["data"].values(), strict=True):
            demo.attrs["ep_meta"] = json.dumps({"layout_id": 3, "lang": text, "objects": ["x" * 10_000]})
    store, report = converted(tmp_path)
    assert words(store) == [(text, "demo attribute") for text in texts]
    assert store.tasks.instruction == (texts[0], texts[1], texts[3])
    assert store.episodes.task.tolist() == [0, 1, 0, 2]
    assert report.remarks == ()


def test_no_instruction(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "s" / "image_v15.hdf5", lengths=(5, 4), size=8, **FEW)
    store, report = converted(tmp_path)
    assert words(store) == [("", "none")] * 2
    assert store.tasks.name == ("image_v15",)
    assert "2 of 2 episodes have no instruction" in report.remarks[0]


@pytest.mark.parametrize(
    "how", ["bytes", "array", pytest.param("array of bytes", marks=pytest.mark.slow(reason="both of these"))]
)
def test_bytes_attributes(tmp_path: Path, how: str) -> None:
    path = write_libero(tmp_path / "s" / "x_demo.hdf5", lengths=(5,), size=8, drop_keys=few_keys.OF_LIBERO)
    with h5py.File(path, "r+") as file:
        before = {name: file["data"].attrs[name] for name in ("bddl_file_content", "env_name")}
        model = file["data/demo_0"].attrs["model_file"]
        for item in (file["data"], *file["data"].values()):
            for name, value in [(name, value) for name, value in item.attrs.items() if isinstance(value, str)]:
                del item.attrs[name]
                wrapped: Any = np.array([value], h5py.string_dtype()) if how == "array" else np.bytes_(value.encode())
                item.attrs[name] = [wrapped] if how == "array of bytes" else wrapped
    store, _ = converted(tmp_path)
    assert words(store) == [("pick up the thing", "file attribute")]
    assert (store.tasks.bddl[0], store.tasks.env_name[0]) == (before["bddl_file_content"], before["env_name"])
    assert store.model_file(0) == model
    assert store.episodes.image_convention.tolist() == [0]
    assert store.metadata.control_freq == 20


def data_attribute(name: str, value: Any) -> Edit:
    return lambda file: file["data"].attrs.create(name, value)


def demo_attribute(name: str, value: Any) -> Edit:
    return lambda file: [demo.attrs.create(name, value) for demo in file["data"].values()]


def dataset(path: str, value: Any) -> Edit:
    return lambda file: [demo.create_dataset(path, data=value(len(demo["actions"]))) for demo in file["data"].values()]


TEXT = h5py.string_dtype()
OPEN = "open the drawer"
DEMO, FILE, SET = "demo attribute", "file attribute", "dataset"


KEPT: list[tuple[Edit, str]] = [
    (data_attribute("language_instruction", OPEN), FILE),
    (data_attribute("problem_info", json.dumps({"language_instruction": [OPEN]})), FILE),
    (data_attribute("problem_info", json.dumps({"language_instruction": f'"{OPEN}"'})), FILE),
    (data_attribute("problem_info", str({"language_instruction": OPEN, "domain": None})), FILE),  # as Python prints it
    (lambda file: file.attrs.create("task_description", np.bytes_(OPEN)), FILE),
    (lambda file: file.attrs.create("task", OPEN), FILE),
    (demo_attribute("Language_Instruction", np.array([OPEN], TEXT)), DEMO),
    (demo_attribute("lang", np.bytes_(OPEN)), DEMO),
    (demo_attribute("ep_meta", np.bytes_(json.dumps({"lang": OPEN}))), DEMO),
    (demo_attribute("instruction", json.dumps([OPEN])), DEMO),
    (lambda file: [demo["obs"].attrs.create("instruction", OPEN) for demo in file["data"].values()], DEMO),
    (dataset("language_instruction", lambda n: OPEN), SET),
    (dataset("language_instruction", lambda n: np.array([OPEN.encode()])), SET),
    (dataset("obs/language", lambda n: np.array([OPEN] * n, TEXT)), SET),
    (dataset("obs/language", lambda n: np.array([OPEN.encode()] * n)), SET),
    (dataset("language/lang", lambda n: np.array([[OPEN.encode()]] * n)), SET),
    (dataset("instruction", lambda n: np.array(["", OPEN] + [""] * (n - 2), TEXT)), SET),
    (lambda file: file.create_dataset("instruction", data=OPEN), SET),
    (lambda file: file["data"].create_dataset("language", data=np.array([OPEN.encode()])), SET),
]
"""Every way to keep it → where it then comes from."""
NOT_TAKEN: list[tuple[Edit, str]] = [
    (data_attribute("language_instruction", ""), ""),
    (data_attribute("language_instruction", 7), ""),
    (data_attribute("language_instruction", "7"), "'7' holds no letter"),
    (data_attribute("language", "en"), "'en' is a single word"),
    (data_attribute("language_instruction", "x y" * 4000), "has 12,000 characters, more than 4,096"),
    (data_attribute("language_instruction", np.array(b"caf\xe9 it", TEXT)), "not UTF-8"),
    (demo_attribute("ep_meta", '["lang", 1]'), ""),
    (
        demo_attribute("ep_meta", '{"lang": "open the dr'),
        "attribute ep_meta is not used as the instruction: it is no JSON (Unterminated",
    ),
    (data_attribute("problem_info", b'{"language_instruction": "caf\xe9 it"}'), "not UTF-8"),
    (demo_attribute("ep_meta", '{"layout_id": 3'), ""),  # broken, and says nothing of an instruction
    (demo_attribute("ep_meta", '{"lang": {"lang": null}}'), ""),
    (demo_attribute("instruction", h5py.Empty("S10")), ""),
    (dataset("language_instruction", lambda n: np.arange(n, dtype=float)), ""),  # an embedding, say
    (dataset("language_instruction", lambda n: np.array([f"step {i} of it" for i in range(n)], TEXT)), "different things"),
    (dataset("instruction", lambda n: np.array([b"x" * 20_000] * n)), "have 20,000 bytes each"),
    (dataset("instruction", lambda n: np.array([], TEXT)), ""),
]
"""What is no instruction → what is said of it, if anything."""


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[rz.Store, ConvertReport]:
    """All of these as files of one store: kept_<number> and not_<number>."""
    folder = tmp_path_factory.mktemp("kept")
    for name, table in (("kept", KEPT), ("not", NOT_TAKEN)):
        for number, (edit, _) in enumerate(table):
            plain(folder / f"{name}_{number}" / "episode_0.hdf5", edit)
    return converted(folder, keys=("joint_states",))


def words_of_source(store: rz.Store, name: str) -> list[tuple[str, str]]:
    (source,) = [number for number, entry in enumerate(store.metadata.sources) if entry.name.startswith(f"{name}/")]
    return [one for one, of in zip(words(store), store.episodes.source.tolist(), strict=True) if of == source]


@pytest.mark.parametrize(("number", "source"), [(number, source) for number, (_, source) in enumerate(KEPT)])
def test_wherever_it_is_kept(everything: tuple[rz.Store, ConvertReport], number: int, source: str) -> None:
    store, report = everything
    assert words_of_source(store, f"kept_{number}") == [(OPEN, source)] * 2
    assert not [remark for remark in report.remarks if remark.startswith(f"kept_{number}/")]
    reasons = [entry["reason"] for entry in report.not_stored if entry["source"].startswith(f"kept_{number}/")]
    assert ("text, kept as the instruction of the episodes" in reasons) == (source == SET)


@pytest.mark.parametrize(("number", "remark"), [(number, remark) for number, (_, remark) in enumerate(NOT_TAKEN)])
def test_what_is_no_instruction_leaves_it_empty(everything: tuple[rz.Store, ConvertReport], number: int, remark: str) -> None:
    store, report = everything
    assert words_of_source(store, f"not_{number}") == [("", "none")] * 2
    first, *more = [one for one in report.remarks if one.startswith(f"not_{number}/")]
    assert "2 of 2 episodes have no instruction" in first
    assert isinstance(store.source_attributes(len(KEPT) + number), dict)  # whatever they hold, they can be read
    assert any(remark in one for one in more) if remark else not more


def test_the_name_where_it_reads_as_words(tmp_path: Path) -> None:
    store, report = converted(plain(tmp_path / "KITCHEN_SCENE1_open_the_top_drawer_demo.hdf5"))
    assert words(store) == [("open the top drawer", "file name")] * 2
    assert (store.tasks.instruction, store.tasks.instruction_from_name) == (("",), ("open the top drawer",))
    assert "2 episodes; the file name's wording, 'open the top drawer'" in report.remarks[0]


def test_the_demo_comes_before_the_file_and_both_before_the_name(tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file["data"].attrs["language_instruction"] = "open it"
        file["data/demo_1"].attrs["lang"] = "open it at once"

    store, report = converted(plain(tmp_path / "open_the_drawer.hdf5", edit))
    assert words(store) == [("open it", FILE), ("open it at once", DEMO)]
    assert store.n_tasks == 2
    assert any("the file's instruction is 'open it'; for 1 demo another one is stated" in remark for remark in report.remarks)


def test_attributes_that_disagree_are_reported(tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        for demo in file["data"].values():
            demo.attrs["instruction"], demo.attrs["lang"] = "open it", "close it, please"

    store, report = converted(plain(tmp_path / "s.hdf5", edit))
    assert words(store) == [("open it", DEMO)] * 2
    (remark,) = report.remarks
    assert remark.endswith(
        "/s.hdf5 · demo_0 and 1 more: attribute lang has another wording: 'close it, please'; 'open it' of attribute "
        "instruction is used"
    )


def test_one_episode_a_file_is_one_task_if_the_words_are_one(tmp_path: Path) -> None:
    for i, text in enumerate(["fold the towel", "fold the towel", "open it", ""]):
        plain(tmp_path / f"episode_{i}.hdf5", data_attribute("instruction", text), lengths=(4,))
    plain(tmp_path / "episode_4.hdf5", lengths=(4,))
    store, _ = converted(tmp_path)
    assert store.episodes.task.tolist() == [0, 0, 1, 2, 3]  # two files without words may be two tasks
    assert store.tasks.name == ("episode_0", "episode_2", "episode_3", "episode_4")


def test_tasks_of_equal_words_stay_apart_by_scene_suite_and_bddl(tmp_path: Path) -> None:
    for name, folder in (
        ("KITCHEN_SCENE1_open_the_drawer", "a"),
        ("KITCHEN_SCENE2_open_the_drawer", "a"),
        ("x", "b"),
        ("y", "c"),
    ):
        options: dict[str, Any] = {"size": 8, "seed": ord(name[-1]), "drop_keys": few_keys.OF_LIBERO}
        write_libero(tmp_path / folder / f"{name}_demo.hdf5", lengths=(4,), instruction=OPEN, **options)
    store, _ = converted(tmp_path)
    assert store.tasks.instruction == (OPEN,) * 4
    assert store.n_tasks == 4


def test_the_store_is_the_same_at_every_try(tmp_path: Path) -> None:
    plain(tmp_path / "s" / "s.hdf5", dataset("language", lambda n: np.array([OPEN] * n, TEXT)))
    for name in ("a", "b"):
        convert(tmp_path / "s", tmp_path / f"{name}.zarr", workers=0)
    files = [file.relative_to(tmp_path / "a.zarr") for file in (tmp_path / "a.zarr/episodes").rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert (tmp_path / "a.zarr" / file).read_bytes() == (tmp_path / "b.zarr" / file).read_bytes()

"""Instructions given by hand: the forms of the file, what they are matched with, resuming, appending, verifying."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import few_keys
import h5py
import pytest
from command import run_here

import robozarr as rz
from robozarr.convert import convert, verify
from robozarr.convert.sources.by_hand import read_instructions
from robozarr.schemas.errors import PlanError, StoreError
from robozarr.schemas.instructions import InstructionSource
from synthetic import write_libero, write_openvla

REST = (*few_keys.OF_LIBERO, "states", "dones", "obs/agentview_rgb")
OPEN, CLOSE = "open the drawer", "close the drawer"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """a/x.hdf5 has no words, b/y_demo.hdf5 says "pick up the thing"."""
    write_openvla(tmp_path / "s/a/x.hdf5", lengths=(4, 5), numbers=(0, 1), size=8, drop_keys=REST)
    write_libero(tmp_path / "s/b/y_demo.hdf5", lengths=(4,), size=8, drop_keys=REST)
    return tmp_path / "s"


def words(store: Path) -> list[tuple[str, str]]:
    episodes = rz.open_store(store).episodes
    codes = (InstructionSource(code).words for code in episodes.instruction_source.tolist())
    return list(zip(episodes.instruction, codes, strict=True))


def file_of(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


FORMS = [
    ("i.csv", f"file,demo,instruction\nx.hdf5,,{OPEN}\nx.hdf5,demo_1,{CLOSE}\n"),
    ("i.csv", f'\ufeffInstruction, File , demo\r\n"{OPEN}",a/x.hdf5,\r\n"{CLOSE}",x,demo_1\r\n'),
    ("i.json", json.dumps({"x.hdf5": {"demo_0": OPEN, "demo_1": CLOSE}})),
    (
        "i.json",
        json.dumps([{"file": "x.hdf5", "instruction": f" {OPEN}\n"}, {"file": "x", "demo": "demo_1", "instruction": CLOSE}]),
    ),
    ("i.toml", f'["a/x.hdf5"]\ndemo_0 = "{OPEN}"\ndemo_1 = "{CLOSE}"\n'),
]


MORE = pytest.mark.slow(reason="a conversion for each way to write the same, and these say it more plainly")


@pytest.mark.parametrize(("name", "text"), [pytest.param(*FORMS[n], marks=MORE if n in (0, 2) else ()) for n in range(5)])
def test_every_form_says_the_same(sources: Path, tmp_path: Path, name: str, text: str) -> None:
    path = file_of(tmp_path, name, text)
    report = convert(sources, tmp_path / "a.zarr", workers=0, instructions=path, keys=["joint_states"])
    assert words(tmp_path / "a.zarr") == [(OPEN, "by hand"), (CLOSE, "by hand"), ("pick up the thing", "file attribute")]
    assert report.remarks == ()
    assert verify(tmp_path / "a.zarr", sources=sources, workers=0).ok


def test_one_for_all_and_a_mapping_before_it(sources: Path, tmp_path: Path) -> None:
    by_file: dict[str, Any] = {"x": {"demo_1": CLOSE}}
    report = convert(
        sources, tmp_path / "a.zarr", workers=0, instruction=f"  {OPEN} ", instructions=by_file, keys=["joint_states"]
    )
    assert words(tmp_path / "a.zarr") == [(OPEN, "by hand"), (CLOSE, "by hand"), (OPEN, "by hand")]
    (remark,) = report.remarks
    assert remark.endswith(
        f"b/y_demo.hdf5 · demo_0: {OPEN!r} was given by hand, in place of 'pick up the thing' (file attribute)"
    )
    assert verify(tmp_path / "a.zarr", sources=sources, workers=0).ok


BAD = [
    ("i.csv", "file,text\nx,y\n", "must begin with the names of its columns; got 'file, text'"),
    ("i.csv", "file,instruction\nx.hdf5,open it, please\n", "line 2: must have 2 cells"),
    ("i.csv", f"file,instruction\nx.hdf5,\ny,{OPEN}\n", "line 2: an instruction must be text, not empty; got ''"),
    ("i.csv", "", "must begin with the names of its columns"),
    ("i.csv", "file,instruction\n", "holds no instruction"),
    ("i.csv", 'file,instruction\n"x.hdf5,open\n', "must be readable as CSV; found"),
    ("i.json", "{", "must be readable as JSON; found"),
    ("i.json", '{"x": "a b", "x": "c d"}', "found the name 'x' occurs twice"),
    ("i.json", "7", "an object, or a list of objects; got '7'"),
    ("i.json", '[{"file": "x"}]', "entry 0: file, instruction and perhaps demo; got file"),
    ("i.json", '{"x": 7}', "x: an instruction must be text, not empty; got 7"),
    ("i.json", '{"x": {"demo_0": {"a": "b"}}}', "x · demo_0: an instruction must be text"),
    ("i.json", json.dumps({"x": "y z" * 9999}), "of at most 4,096 characters"),
    ("i.toml", "x.hdf5 = 'open it'", "holds 'hdf5'; it holds demo_0, demo_1"),  # TOML reads a dot as a level
    ("i.toml", "x =", "must be readable as TOML; found"),
    ("i.txt", OPEN, r"a \.csv, \.json or \.toml file; got .*i\.txt"),
    ("i.json", json.dumps({"z.hdf5": OPEN}), r"'z\.hdf5' must name one source; none has this name"),
    ("i.json", json.dumps({"x": {"demo_7": OPEN}}), "holds 'demo_7'; it holds demo_0, demo_1"),
    ("i.json", json.dumps({"x": OPEN, "x.hdf5": CLOSE}), "only one instruction per episode; .*x gives another"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    sources: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = file_of(tmp_path, name, text)
    with pytest.raises(PlanError, match=message):
        convert(sources, tmp_path / "a.zarr", workers=0, instructions=path)
    assert not (tmp_path / "a.zarr/zarr.json").exists()


def test_a_name_of_several_sources_wants_more_of_the_path(sources: Path, tmp_path: Path) -> None:
    write_libero(sources / "b/x.hdf5", lengths=(4,), size=8, drop_keys=REST)
    with pytest.raises(PlanError, match=r"2 have this name: .*write more of the path"):
        convert(sources, tmp_path / "a.zarr", workers=0, instructions={"x.hdf5": OPEN}, dry_run=True)
    convert(sources, tmp_path / "a.zarr", workers=0, instructions={"b/x.hdf5": OPEN}, dry_run=True)


def test_a_file_that_is_not_there_and_an_empty_text(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.csv must be readable; found No such file"):
        read_instructions(tmp_path / "none.csv")
    for empty in ("", " \n"):
        with pytest.raises(PlanError, match="--instruction: an instruction must be text, not empty"):
            convert(sources, tmp_path / "a.zarr", instruction=empty)


def test_a_demo_that_is_left_out_may_be_named(sources: Path, tmp_path: Path) -> None:
    with h5py.File(sources / "a/x.hdf5", "r+") as file:
        del file["data/demo_1/actions"]
    by_file: dict[str, Any] = {"x": {"demo_0": OPEN, "demo_1": CLOSE}}
    convert(sources, tmp_path / "a.zarr", workers=0, instructions=by_file, on_error="skip")
    assert words(tmp_path / "a.zarr")[0] == (OPEN, "by hand")


def test_resuming_wants_the_same_words(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "a.zarr"
    import robozarr.convert.run as run

    def stop(*_: object, **__: object) -> None:
        raise StoreError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_statistics", stop)
        with pytest.raises(StoreError, match="stopped"):
            convert(sources, store, workers=0, instruction=OPEN)
    with pytest.raises(PlanError, match=f"used instruction {OPEN!r}, now {CLOSE!r}"):
        convert(sources, store, workers=0, instruction=CLOSE)
    with pytest.raises(PlanError, match=r"used .*instructions None, now '1 entries "):
        convert(sources, store, workers=0, instruction=OPEN, instructions={"x": CLOSE})
    convert(sources, store, workers=0, instruction=OPEN)
    convert(sources, tmp_path / "b.zarr", workers=0, instruction=OPEN)
    for name in ("episodes/instruction/bytes/c/0", "episodes/instruction_source/c/0", "tasks/instruction/bytes/c/0"):
        assert (store / name).read_bytes() == (tmp_path / "b.zarr" / name).read_bytes()


def test_appending_agrees_with_what_is_there(sources: Path, tmp_path: Path) -> None:
    store, both = tmp_path / "a.zarr", {"x": OPEN, "y_demo": CLOSE}
    convert(sources / "a", store, workers=0, instructions={"x": OPEN})
    with pytest.raises(PlanError, match=rf"demo_0 is in the store with {OPEN!r}; now {CLOSE!r} is given"):
        convert(sources, store, workers=0, append=True, instructions={"x": CLOSE})
    convert(sources, store, workers=0, append=True, instructions=both)
    assert words(store) == [(OPEN, "by hand")] * 2 + [(CLOSE, "by hand")]
    assert verify(store, sources=sources, workers=0).ok
    convert(sources, tmp_path / "b.zarr", workers=0, instructions=both)
    tables = ["episodes/instruction/bytes/c/0", "episodes/task/c/0", "tasks/instruction/bytes/c/0", "tasks/name/bytes/c/0"]
    for name in tables:
        assert (store / name).read_bytes() == (tmp_path / "b.zarr" / name).read_bytes(), name


def test_appending_keeps_words_of_every_kind(tmp_path: Path) -> None:
    """What is there is planned again from the store alone, and stays."""
    few: dict[str, Any] = {"size": 8, "drop_keys": REST}
    write_openvla(tmp_path / "s/1/open_the_drawer_demo.hdf5", lengths=(4,), numbers=(0,), **few)
    for number, text in ((2, "fold the towel"), (3, "")):
        write_openvla(tmp_path / f"s/{number}/episode_{number}.hdf5", lengths=(4, 4), numbers=(0, 1), **few)
        with h5py.File(tmp_path / f"s/{number}/episode_{number}.hdf5", "r+") as file:
            file["data/demo_0"].attrs["lang"] = text
            file["data/demo_1"].create_dataset("language", data=text)
    write_openvla(tmp_path / "t/4/episode_9.hdf5", lengths=(5,), numbers=(0,), **few)  # another file, by its content
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    before = words(tmp_path / "a.zarr")
    assert [code for _, code in before] == ["file name", "demo attribute", "dataset", "none", "none"]
    convert(tmp_path / "t", tmp_path / "a.zarr", workers=0, append=True, instruction=CLOSE)
    assert words(tmp_path / "a.zarr") == [*before, (CLOSE, "by hand")]
    assert verify(tmp_path / "a.zarr", sources=[tmp_path / "s", tmp_path / "t"], workers=0).ok


def test_on_the_command_line(sources: Path, tmp_path: Path) -> None:
    command = ["convert", str(sources), "--store", str(tmp_path / "a.zarr"), "-w", "0"]
    path = file_of(tmp_path, "i.csv", f"file,instruction\nnowhere.hdf5,{OPEN}\n")
    refused = run_here(*command, "--instructions", path)
    assert refused.returncode == 2
    assert "i.csv, line 2: 'nowhere.hdf5' must name one source; none has this name" in refused.stderr
    done = run_here(*command, "--dry-run")
    assert done.returncode == 0
    assert "instructions: a/x.hdf5: 2 of 2 episodes have no instruction, so it stays empty" in done.stdout
    given = run_here(*command, "--dry-run", "--instruction", OPEN, "--json")
    assert len(json.loads(given.stdout)["remarks"]) == 1

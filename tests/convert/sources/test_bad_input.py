"""Every kind of bad input, end to end: what is said, in words and as JSON, the exit code, and what is left behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command import run_here
from effort import some
from killing import convert_command, same_bytes
from rights import let_others_reach
from stored import stored_values

import robozarr
import synthetic
from robozarr.cli import run
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas.errors import IncompleteStoreError, StoreError

UNTOUCHED = (
    "robot_states", "states", "rewards", "dones",
    "obs/eye_in_hand_rgb", "obs/ee_states", "obs/ee_ori", "obs/joint_states",
)  # fmt: skip
"""Keys that no case is about: they are left out of the files."""
LEAVE_OUT = "repair the file, or leave the demo out with --on-error skip"
APART = "convert unlike files into stores of their own"


def cut(share: float) -> Callable[[Path], None]:
    """Keep so much of a file."""

    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))] if share < 1 else data[:-1])

    return damage


def edit(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Change a file by h5py."""

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def swap(name: str, value: Any) -> Callable[[Path], None]:
    """Put another dataset in the place of one of demo_1."""

    def change(file: Any) -> None:
        del file[f"data/demo_1/{name}"]
        file[f"data/demo_1/{name}"] = value

    return edit(change)


def no_hdf5(path: Path) -> None:
    path.write_bytes(b"not HDF5" * 99)


def with_nan(file: Any) -> None:
    file["data/demo_1/actions"][3, 2] = np.nan


def with_broken_gzip(path: Path) -> None:
    """The first picture chunk of demo_1, compressed, is overwritten."""
    with h5py.File(path, "r+") as file:
        frames = file["data/demo_1/obs/agentview_rgb"][()]
        del file["data/demo_1/obs/agentview_rgb"]
        made = file.create_dataset(
            "data/demo_1/obs/agentview_rgb", data=frames, chunks=(2, *frames.shape[1:]), compression="gzip"
        )
        chunk = made.id.get_chunk_info(1)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(64))


@dataclass(frozen=True, kw_only=True)
class Case:
    """One kind of bad input."""

    damage: Callable[[Path], None]
    rule: str
    value: str
    """How what was found begins."""
    remedy: str
    demo: str = ""
    key: str = ""
    kept: tuple[str, ...] = ()
    """Demos of the bad file that --on-error skip converts."""


SLOW = {
    "empty": "a file of the rest is left out, like that which is not HDF5; test_end_to_end.py has the rule",
    "cut in the superblock": "a file is cut off, like that without its last byte",
    "cut in the metadata": "a file is cut off, like that without its last byte",
    "cut in the pixels": "a file is cut off, like that without its last byte",
    "zero demos": "a file of the rest is left out, like that without data; test_scan.py has the rule",
    "ragged lengths": "a demo of the rest is left out, like that with a missing key; test_scan.py has the rule",
    "dtype unlike": "a demo unlike the others, like that with another shape",
}
"""Cases that take the way of another one, which is tried each time."""
CUT_OFF = {"rule": "the file is cut off", "remedy": "copy or download it again, or wait if it is still being written"}
AGAIN = {"remedy": "copy or download it again"}
DEMO_1 = {"demo": "demo_1", "kept": ("demo_0", "demo_2")}
CASES: dict[str, Case] = {
    "not HDF5": Case(damage=no_hdf5, rule="the file is not HDF5", value="text: not HDF5not", **AGAIN),  # type: ignore[arg-type]
    "empty": Case(damage=cut(0), rule="the file is empty", value="0 bytes", **AGAIN),  # type: ignore[arg-type]
    "cut in the superblock": Case(damage=cut(0.0005), value="", **CUT_OFF),  # type: ignore[arg-type]
    "cut in the metadata": Case(damage=cut(0.1), value="", **CUT_OFF),  # type: ignore[arg-type]
    "cut in the pixels": Case(damage=cut(0.7), value="", **CUT_OFF),  # type: ignore[arg-type]
    "without its last byte": Case(damage=cut(1), value="", **CUT_OFF),  # type: ignore[arg-type]
    "no data": Case(
        damage=edit(lambda file: file.move("data", "demos")),
        rule="the file must have a group 'data'",
        value="only demos",
        remedy="give files of a layout that robozarr layouts lists, or describe theirs with --layout",
    ),
    "zero demos": Case(
        damage=edit(lambda file: file["data"].clear()),
        rule="'data' must hold demos (demo_0, demo_1, …)",
        value="no group",
        remedy="leave the file out",
    ),
    "missing key": Case(
        damage=edit(lambda file: file["data/demo_1"].pop("actions")),
        key="actions",
        rule="every demo must hold it",
        value="nothing",
        remedy=LEAVE_OUT,
        **DEMO_1,  # type: ignore[arg-type]
    ),
    "ragged lengths": Case(
        damage=swap("obs/ee_pos", np.zeros((4, 3))),
        key="obs/ee_pos",
        rule="every dataset of a demo must have as many steps as its actions",
        value="4 and 7 steps",
        remedy="leave the demo out with --on-error skip, or the key with --keys",
        **DEMO_1,  # type: ignore[arg-type]
    ),
    "shape unlike": Case(
        damage=swap("obs/agentview_rgb", np.zeros((7, 16, 12, 3), np.uint8)),
        key="obs/agentview_rgb",
        rule="a step must be uint8 (16, 16, 3), as in most demos",
        value="uint8 (16, 12, 3)",
        remedy=APART,
        **DEMO_1,  # type: ignore[arg-type]
    ),
    "dtype unlike": Case(
        damage=swap("obs/gripper_states", np.zeros((7, 2), np.float32)),
        key="obs/gripper_states",
        rule="a step must be float64 (2,), as in most demos",
        value="float32 (2,)",
        remedy=APART,
        **DEMO_1,  # type: ignore[arg-type]
    ),
    "NaN actions": Case(
        damage=edit(with_nan),
        key="actions",
        rule="actions must be finite",
        value="nan at step 3, column 2",
        remedy=LEAVE_OUT,
        **DEMO_1,  # type: ignore[arg-type]
    ),
    "broken gzip chunk": Case(
        damage=with_broken_gzip,
        key="obs/agentview_rgb",
        rule="steps 0 to 7 cannot be read",
        value="",
        remedy="copy or download the file again, or leave the demo out with --on-error skip",
        **DEMO_1,  # type: ignore[arg-type]
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good file, and one of three demos of 6, 7 and 8 steps that is to be damaged, with the keys that are needed."""
    synthetic.write_libero(tmp_path / "s" / "good_demo.hdf5", lengths=(5, 9), drop_keys=UNTOUCHED)
    synthetic.write_libero(tmp_path / "s" / "bad_demo.hdf5", lengths=(6, 7, 8), seed=1, drop_keys=UNTOUCHED)
    return tmp_path / "s"


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line, in this process."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    signal.signal(signal.SIGTERM, before)
    assert isinstance(ended.value.code, int)
    return ended.value.code, *capsys.readouterr()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow(reason=SLOW[name])) if name in SLOW else name for name in CASES]
)
def test_what_is_wrong_is_said_and_the_rest_can_be_converted(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, bad, store = CASES[name], folder / "bad_demo.hdf5", tmp_path / "a.zarr"
    case.damage(bad)
    code, out, said = command(capsys, "convert", folder, "--store", store, "-w", "0", "--json")
    report = json.loads(out)
    (problem,) = report["problems"]
    assert (code, report["ok"], report["error"]) == (1, False, "SourceError")
    assert (problem["file"], problem["demo"], problem["key"]) == (str(bad), case.demo, case.key)
    assert (problem["rule"], problem["remedy"]) == (case.rule, case.remedy)
    assert problem["value"].startswith(case.value)
    where = " · ".join(part for part in (str(bad), case.demo, case.key) if part)
    assert f"{where}: {problem['rule']}; found {problem['value']} → {problem['remedy']}" in said
    assert "Traceback" not in said
    with pytest.raises(StoreError if not store.exists() else IncompleteStoreError):
        robozarr.open_store(store)

    code, out, said = command(capsys, "convert", folder, "--store", store, "-w", "0", "--json", "--on-error", "skip")
    assert code == 0, said
    (left_out,) = json.loads(out)["left_out"]
    assert left_out == problem
    opened = robozarr.open_store(store)
    assert opened.episodes.demo == (*case.kept, "demo_0", "demo_1")
    listed = [entry for entry in opened.metadata.not_stored if entry.reason.startswith("left out: ")]
    assert [(entry.source, entry.path) for entry in listed] == [("s/bad_demo.hdf5", f"data/{case.demo}" if case.demo else "")]
    expected = [(bad, demo) for demo in case.kept] + [(folder / "good_demo.hdf5", demo) for demo in ("demo_0", "demo_1")]
    assert_holds(opened, expected)
    assert verify(store, sources=folder, workers=0).ok


def assert_holds(store: robozarr.Store, demos: list[tuple[Path, str]]) -> None:
    """Every key of every episode, bit for bit, by h5py."""
    starts, lengths = store.episodes.start.tolist(), store.episodes.length.tolist()
    for (path, demo), start, length in zip(demos, starts, lengths, strict=True):
        with h5py.File(path) as file:
            for key in store.metadata.keys:
                expected = file[f"data/{demo}/{key.source}"][()]
                got = stored_values(store, key, start, length)
                assert got.tobytes() == expected.tobytes(), (path, demo, key)


def test_two_files_of_one_name_and_different_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / part / "suite" / "task_demo.hdf5" for part in ("a", "b")]
    for path, lengths in zip(paths, [(5, 6), (5, 7)], strict=True):
        synthetic.write_libero(path, lengths=lengths)
    code, out, said = command(capsys, "convert", *paths, "--store", tmp_path / "a.zarr", "-w", "0", "--json")
    (problem,) = json.loads(out)["problems"]
    assert code == 1
    assert (problem["file"], problem["rule"]) == (str(paths[1]), "files with the same name and task must be equal")
    assert f"but {paths[0]} has 2" in problem["value"]
    assert problem["remedy"] == "give only the right one, or rename the folder of one"
    assert problem["remedy"] in said
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_an_unreadable_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    let_others_reach(folder)
    let_others_reach(tmp_path)
    (tmp_path / "out").mkdir()
    for source in (folder, tmp_path / "nowhere"):  # imports everything: somebody else may not read root's Python
        command(capsys, "convert", source, "--store", tmp_path / "before.zarr", "-w", "0", "--json", "--on-error", "skip")
    (tmp_path / "out").chmod(0o777)
    (folder / "bad_demo.hdf5").chmod(0)
    seen, writer = os.pipe()
    if os.fork() == 0:  # not a new process: somebody else may not run root's Python
        try:
            os.setuid(65534)
            os.dup2(writer, 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.stdout = os.fdopen(1, "w")
            for on_error in ("stop", "skip"):
                try:
                    run(
                        [
                            "convert",
                            str(folder),
                            "--store",
                            f"{tmp_path}/out/a.zarr",
                            "-w",
                            "0",
                            "--json",
                            "--on-error",
                            on_error,
                        ]
                    )
                except SystemExit as ended:
                    print(json.dumps({"code": ended.code}), end="\0", flush=True)
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(seen) as pipe:
        stopped, skipped = pipe.read().rstrip("\0").split("\0")
    decode = json.JSONDecoder().raw_decode
    report, at = decode(stopped)
    (problem,) = report["problems"]
    assert (problem["file"], problem["rule"]) == (str(folder / "bad_demo.hdf5"), "the file cannot be read")
    assert (problem["value"], problem["remedy"]) == ("Permission denied", "change its rights")
    assert decode(stopped[at:].strip())[0] == {"code": 1}
    report, at = decode(skipped)
    assert report["left_out"] == [problem]
    assert decode(skipped[at:].strip())[0] == {"code": 0}
    assert robozarr.open_store(tmp_path / "out/a.zarr").episodes.demo == ("demo_0", "demo_1")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def converted(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """How ``robozarr convert`` ends: in this process, or with ``--full`` in its own, which must end in a minute."""
    if some(1, 0):
        return subprocess.run(convert_command(*arguments), capture_output=True, text=True, timeout=60, check=False)
    return run_here("convert", *arguments)


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow(reason="starts converters and a worker"))])
def test_a_full_disk_stops_the_run_which_goes_on_once_there_is_room(tmp_path: Path, small_disk: Path, workers: str) -> None:
    source = synthetic.write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(40, 40), size=96, drop_keys=UNTOUCHED)
    store = small_disk / "a.zarr"
    full = (source, "--store", store, "--profile", "raw", "-w", workers, "--json")
    done = converted(*full)
    assert done.returncode == 3, done.stderr
    assert "cannot be written: No space left on device; make room" in json.loads(done.stdout)["message"]
    assert f"{store}/steps/" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(IncompleteStoreError):
        robozarr.open_store(store)
    assert not [path for path in store.rglob(".*robozarr-tmp") if path.name != FOLDER]
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    done = converted(*full)
    assert done.returncode == 0, done.stderr
    convert(source, tmp_path / "b.zarr", workers=0, profile="raw")
    assert same_bytes(store, tmp_path / "b.zarr")


@pytest.mark.parametrize(
    "most_bytes",
    [5000, *(pytest.param(n, marks=pytest.mark.slow(reason="two more conversions")) for n in (0, 100, 600, 200_000))],
)
def test_files_that_may_not_grow_stop_the_run_at_any_of_them(tmp_path: Path, folder: Path, most_bytes: int) -> None:
    """A limit of the system on the size of a file, met by the lock, the plan, the documents, the tables, the shards."""
    store = tmp_path / "a.zarr"
    synthetic.write_libero(folder / "large_demo.hdf5", lengths=(300,))
    again = (folder, "--store", store, "--profile", "raw", "-w", "0", "--keys", "agentview_rgb")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))  # Python ignores SIGXFSZ
    try:
        done = converted(*again)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written: File too large" in done.stderr
    with pytest.raises(StoreError):
        robozarr.open_store(store)
    done = converted(*again)
    assert done.returncode == 0, done.stderr
    assert not list(store.rglob(".*robozarr-tmp"))
    assert verify(store, sources=folder, workers=0).ok

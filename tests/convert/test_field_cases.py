"""Files as people really have them: each kind, what the command line says and ends with, and what is stored.

Each stands for a public report, which is named. What was once converted with exit 0 and invented data has its right answer
here.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest
from stored import stored_values

import robozarr
import synthetic
from robozarr.cli import run
from robozarr.convert import verify
from robozarr.schemas.words import counted

CUP = "pick_up_the_cup_demo.hdf5"


def libero(out: Path, lengths: tuple[int, ...] = (6, 7, 5), name: str = CUP, **options: Any) -> Any:
    """A LIBERO file, open to be changed."""
    return h5py.File(synthetic.write_libero(out / name, lengths=lengths, size=8, drop_keys=few_keys.OF_LIBERO, **options), "r+")


def virtual_gone(out: Path) -> None:
    """h5py#1546, h5py#2500: demos merged by virtual datasets; the file that one of them lies in was renamed."""
    part = synthetic.write_libero(out / "part.h5part", lengths=(6, 7, 5), size=8, drop_keys=few_keys.OF_LIBERO)
    with h5py.File(part) as source, libero(out) as file:
        for key in ("actions", "obs/agentview_rgb", "obs/joint_states"):
            there = source[f"data/demo_1/{key}"]
            layout = h5py.VirtualLayout(there.shape, there.dtype)
            layout[...] = h5py.VirtualSource("part.h5part", f"data/demo_1/{key}", there.shape)
            del file[f"data/demo_1/{key}"]
            file["data/demo_1"].create_virtual_dataset(key, layout)
    part.rename(out / "renamed")


def never_written(out: Path) -> None:
    """innate-os#377, slsDetectorPackage#474: a recorder made its datasets, then died."""
    with libero(out, (20, 20)) as file:
        demo = file["data/demo_1"]
        for key in ("actions", "states", "obs/agentview_rgb"):
            values = demo[key][()]
            del demo[key]
            demo.create_dataset(key, values.shape, values.dtype, chunks=(4, *values.shape[1:]))[:12] = values[:12]
        shape, dtype = demo["obs/joint_states"].shape, demo["obs/joint_states"].dtype
        del demo["obs/joint_states"]
        demo.create_dataset("obs/joint_states", shape, dtype)


def demos_linked_gone(out: Path) -> None:
    """pymca#603: demos are external links into two files; one is gone."""
    for name in "ab":
        synthetic.write_libero(out / f"{name}.h5part", lengths=(6, 7), size=8, seed=ord(name), drop_keys=few_keys.OF_LIBERO)
    with h5py.File(out / CUP, "w") as file:
        for number, (name, i) in enumerate((name, i) for name in "ab" for i in range(2)):
            file[f"data/demo_{number}"] = h5py.ExternalLink(f"{name}.h5part", f"/data/demo_{i}")
    (out / "b.h5part").unlink()


def cameras_linked_gone(out: Path) -> None:
    """h5py#316: the cameras of a demo are links into a side file that is gone."""
    with libero(out) as file:
        del file["data/demo_1/obs/agentview_rgb"]
        file["data/demo_1/obs/agentview_rgb"] = h5py.ExternalLink("frames.h5part", "/demo_1/agentview_rgb")


def one_demo_has_more(out: Path) -> None:
    """Psi0#32: one demo of many has one dataset more."""
    with libero(out, (4,) * 6) as file:
        file["data/demo_3/interventions"] = np.zeros(4, np.int64)


def one_file_has_depth(out: Path) -> None:
    """openvla#250: one file of three has depth."""
    for i in range(3):
        name, words = f"task_{i}_demo.hdf5", f"do {i}"
        options: dict[str, Any] = {"instruction": words, "depth": i == 1, "drop_keys": few_keys.OF_LIBERO}
        synthetic.write_libero(out / name, lengths=(4, 5), size=8, seed=i, **options)


def mimicgen(out: Path) -> None:
    """mimicgen#45, lerobot#1449: one number a subtask beside the actions."""
    options: dict[str, Any] = {"masks": {}, "next_obs": False, "size": 8, "drop_keys": few_keys.OF_ROBOMIMIC}
    with h5py.File(synthetic.write_robomimic(out / "square.hdf5", **options), "r+") as file:
        for demo in file["data"].values():
            demo["src_demo_inds"] = np.array([3, 1])
            demo["datagen_info/eef_pose"] = np.zeros((len(demo["actions"]), 4, 4))


def isaaclab(out: Path) -> None:
    """leisaac#142, IsaacLab#4644: obs/actions beside actions, an initial state of one row."""
    rng = np.random.default_rng(0)
    with h5py.File(out / "dataset.hdf5", "w") as file:
        for i, n in enumerate((6, 5)):
            demo = file.create_group(f"data/demo_{i}")
            for path, shape in (
                ("actions", (n, 7)), ("obs/actions", (n, 7)), ("obs/joint_pos", (n, 9)),
                ("initial_state/robot/joint_position", (1, 9)),
            ):  # fmt: skip
                demo.create_dataset(path, data=rng.normal(size=shape).astype("f4"), compression="gzip")


def not_hdf5(out: Path) -> None:
    """torchani#168: a Git LFS pointer and a web page, saved for the file."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d7a' * 16}\nsize 587202560\n"
    (out / "a_demo.hdf5").write_text(pointer)
    (out / "b_demo.hdf5").write_text("<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>")
    libero(out).close()


def plugin_absent(out: Path) -> None:
    """h5py#2294, hdf5plugin#50: frames went through a filter that is not installed here (LZF's number, changed)."""
    with libero(out) as file:
        frames = file["data/demo_1/obs/agentview_rgb"][()]
        del file["data/demo_1/obs/agentview_rgb"]
        file.create_dataset("data/demo_1/obs/agentview_rgb", data=frames, chunks=(2, *frames.shape[1:]), compression="lzf")
    data = (out / CUP).read_bytes()
    at = data.rindex((32000).to_bytes(2, "little"), 0, data.index(b"lzf\0"))
    (out / CUP).write_bytes(data[:at] + (32001).to_bytes(2, "little") + data[at + 2 :])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of file: what is said of it, and what comes of it with and without ``--on-error skip``."""

    write: Any
    code: int = 1
    says: tuple[str, ...] = ()
    """Parts of standard error, or of standard output where all is well; no other demo or key is blamed."""
    n_problems: int = 0
    skip_code: int = 0
    demos: tuple[str, ...] = ()
    """Demos of the store, once what is bad is left out."""
    keys: tuple[str, ...] = field(default=())
    """Keys that the store has; a name after ``-`` is one that it has not."""
    lines: int = 0
    """Lines of left out things in the report: each once."""


NOT_THERE = "an external link to /data/demo_0 in b.h5part, a file that is not there"
MADE_UP = "HDF5 reads the fill value 0"
CASES: dict[str, Case] = {
    case.write.__name__: case
    for case in (
        Case(
            write=virtual_gone,
            n_problems=3,
            demos=("demo_0", "demo_2"),
            lines=3,
            says=(
                "demo_1 · actions: a virtual dataset lacks values; found part.h5part, a file that is not there",
                "HDF5_VDS_PREFIX",
            ),
        ),
        Case(
            write=never_written,
            n_problems=4,
            demos=("demo_0",),
            lines=4,
            says=(
                "demo_1 · actions: a part of it was never written; found 2 of 5 chunks are missing, the first at step 12",
                MADE_UP,
                "demo_1 · obs/joint_states: nothing was ever written to it; found no storage",
            ),
        ),
        Case(
            write=demos_linked_gone,
            n_problems=2,
            demos=("demo_0", "demo_1"),
            lines=2,
            says=(f"demo_2: a link leads nowhere; found {NOT_THERE}", "demo_3: a link leads nowhere", "put b.h5part back"),
        ),
        Case(
            write=cameras_linked_gone,
            n_problems=1,
            demos=("demo_0", "demo_2"),
            lines=1,
            says=(
                "demo_1 · obs/agentview_rgb: a link leads nowhere; found an external link to /demo_1/agentview_rgb in frames",
            ),
        ),
        Case(
            write=one_demo_has_more,
            n_problems=1,
            demos=tuple(f"demo_{i}" for i in range(6)),
            keys=("-interventions",),
            lines=1,
            says=("demo_3 · interventions: most demos do not hold it; found it in 1 of 6 demos → leave the key out",),
        ),
        Case(
            write=one_file_has_depth,
            n_problems=2,
            demos=("demo_0", "demo_1") * 3,
            keys=("-agentview_depth",),
            lines=2,
            says=("task_1_demo.hdf5 · obs/agentview_depth: most demos do not hold it; found it in 2 of 6 demos",),
        ),
        Case(
            write=mimicgen,
            code=0,
            demos=("demo_0", "demo_1", "demo_2"),
            keys=("datagen_info.eef_pose", "-src_demo_inds"),
            says=("not stored: src_demo_inds in 3 demos of",),
        ),
        Case(
            write=isaaclab,
            code=0,
            demos=("demo_0", "demo_1"),
            keys=("actions", "obs.actions", "joint_pos"),
            says=("not stored: initial_state/robot/joint_position in 2 demos",),
        ),
        Case(
            write=not_hdf5,
            n_problems=2,
            demos=("demo_0", "demo_1", "demo_2"),
            lines=2,
            says=("a_demo.hdf5: the file is not HDF5; found a Git LFS pointer", "git lfs pull", "found a web page"),
        ),
        Case(
            write=plugin_absent,
            n_problems=1,
            skip_code=1,
            says=(
                "demo_1 · obs/agentview_rgb: its values are packed by a filter that is not installed here",
                "pip install hdf5plugin",
                "HDF5_PLUGIN_PATH",
            ),
        ),
    )
}


SLOW = {
    "cameras_linked_gone": "a link that leads nowhere, like demos_linked_gone",
    "one_demo_has_more": "as test_majority.py has it, with fewer keys",
    "one_file_has_depth": "as test_majority.py has it, with fewer keys",
}


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
def test_a_file_of_the_field(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, source, store = CASES[name], tmp_path / "s", tmp_path / "a.zarr"
    source.mkdir()
    case.write(source)
    code, out, said = command(capsys, "convert", source, "--store", store, "-w", "0")
    assert code == case.code, said
    for part in case.says:
        assert part in (said if code else out)
    if code:
        assert f"{counted(case.n_problems, 'problem')} in the sources; nothing was written:" in said
        assert not store.exists()
        code, out, said = command(capsys, "convert", source, "--store", store, "-w", "0", "--on-error", "skip")
        assert code == case.skip_code, said
    lines = [line for line in out.splitlines() if line.startswith(("left out: ", "not stored: "))]
    assert len([line for line in lines if "left out: " in line]) == case.lines
    if not code:
        assert_holds_what_h5py_reads(store, source, case)


def assert_holds_what_h5py_reads(store: Path, source: Path, case: Case) -> None:
    opened = robozarr.open_store(store)
    assert opened.episodes.demo == case.demos
    for key in case.keys:
        assert (key.removeprefix("-") in opened.keys) is not key.startswith("-")
    for episode, (start, length) in enumerate(
        zip(opened.episodes.start.tolist(), opened.episodes.length.tolist(), strict=True)
    ):
        path = source.parent / opened.metadata.sources[int(opened.episodes.source[episode])].name
        with h5py.File(path) as file:
            for each in opened.metadata.keys:
                values = file[f"data/{case.demos[episode]}/{each.source}"][()]
                assert stored_values(opened, each, start, length).tobytes() == values.tobytes(), (path, each)
    report = verify(store, sources=source, workers=0)
    assert report.ok, report.violations
    json.dumps(report.to_json())

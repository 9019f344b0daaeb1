"""``robozarr doctor`` names each fault that is planted, and finds nothing wrong with this machine's installation."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from robozarr.cli import app
from robozarr.view import doctor
from robozarr.view.findings import Finding


def only(findings: Sequence[Finding], level: str) -> dict[str, str]:
    return {one.title: one.detail for one in findings if one.level == level}


def answers(code: int, said: str) -> doctor.Run:
    return lambda _: (code, said)


def test_this_installation_is_sound() -> None:
    found = list(doctor.check_packages())
    assert only(found, "problem") == {}
    assert "numpy " in found[0].detail
    assert only(list(doctor.check_codec()), "good")


def test_an_old_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.18.0" if name == "zarr" else real(name))
    problems = only(list(doctor.check_packages()), "problem")
    assert problems == {"Version of zarr": "zarr 2.18.0 is installed, zarr>=3.1.3 is needed → pip install --upgrade zarr"}


def test_missing_packages_are_named_by_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("torch", "numba", "msgspec"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = list(doctor.check_packages())
    assert only(found, "problem") == {"Packages missing": "msgspec → pip install msgspec"}
    (title, detail), *_ = only(found, "notice").items()
    assert title == "Extra 'train' is not installed"
    assert detail.endswith("this installation cannot train from a store → pip install '.[train]' in a clone of robozarr")
    assert not list(doctor.check_compiler(answers(0, "")))
    assert not list(doctor.check_cuda(answers(0, "")))


def test_a_folder_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    problems = only(list(doctor.check_packages()), "problem")
    assert list(problems) == ["robozarr runs from a folder and is not installed"]


def test_a_codec_that_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("zarr.registry.get_codec_class", unknown)
    assert list(only(list(doctor.check_codec()), "problem")) == ["zarr does not know the codec robozarr.frames"]


def test_a_zarr_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr.registry", None)  # as version 2, which has none
    ((title, detail),) = only(list(doctor.check_codec()), "problem").items()
    assert title == "zarr cannot be imported"
    assert detail.endswith("→ pip install --upgrade --force-reinstall zarr")


def test_the_last_line_is_the_result_and_not_what_was_announced() -> None:
    announced = "import sys; print('the result'); print('compiling …', file=sys.stderr)"
    assert doctor.run_python(["-c", announced]) == (0, "compiling …\nthe result")
    code, said = doctor.run_python(["-c", "raise ImportError('broken')"])
    assert (code, said.splitlines()[-1]) == (1, "ImportError: broken")


@pytest.mark.parametrize(
    ("code", "said", "level", "title"),
    [
        (0, "robozarr: the reader is compiled (2.0 s), kept in /c", "good", "The reader is compiled"),
        (1, "robozarr: the reader is compiled (9 s), not kept: no folder", "problem", "Machine code cannot be kept"),
        (1, "Traceback …\nImportError: blosc2 carries no libblosc2.so*", "problem", "The reader does not compile"),
        (-11, "", "problem", "The reader does not compile"),
    ],
)
def test_the_compiler(code: int, said: str, level: str, title: str) -> None:
    (found,) = doctor.check_compiler(answers(code, said))
    assert (found.level, found.title) == (level, title)


@pytest.mark.parametrize(
    ("code", "said", "driver", "level", "words"),
    [
        (0, "2.13.0 12.8 True", True, "good", "CUDA 12.8"),
        (0, "2.13.0+cpu None False", True, "problem", "is a build without CUDA"),
        (0, "2.13.0 12.8 False", True, "problem", "sees no device"),
        (0, "2.13.0+cpu None False", False, "notice", "runs on the CPU"),
        (1, "OSError: libtorch.so", False, "problem", "OSError: libtorch.so → install torch again"),
    ],
)
def test_the_gpu(code: int, said: str, driver: bool, level: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/nvidia-smi" if driver else None)
    (found,) = doctor.check_cuda(answers(code, said))
    assert found.level == level
    assert words in found.detail


def test_little_memory_little_shm_few_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("robozarr.view.doctor.free_memory", lambda: 10**8)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    real = os.statvfs(tmp_path)
    small = os.statvfs_result((*real[:1], 4096, 16_384, *real[3:]))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    found = only(list(doctor.check_machine(tmp_path)), "notice")
    assert list(found) == ["Memory", "Shared memory", "Open files"]
    assert "fewer --workers" in found["Memory"]
    assert "--shm-size" in found["Shared memory"]
    assert "ulimit" in found["Open files"]


def test_shared_memory_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in only(list(doctor.check_machine(tmp_path / "none")), "notice")["Shared memory"]


def test_a_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There MKL does not load, so that torch seemed to be broken."""
    assert list(doctor.check_here()) == []
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    (found,) = doctor.check_here()
    assert (found.level, found.detail.rpartition("→ ")[2]) == ("problem", "cd to another folder")
    assert doctor.run_python(["-c", "import os; print(os.getcwd())"]) == (0, sys.prefix)


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(list(doctor.check_place(str(tmp_path / "new.zarr"), None)), "good")
    assert list(tmp_path.iterdir()) == []
    (problem,) = only(list(doctor.check_place(str(tmp_path / "no" / "where"), None)), "problem").values()
    assert "cannot be written to: No such file" in problem

    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert list(only(list(doctor.check_folder(tmp_path)), "notice")) == [f"No locks: {tmp_path}"]


def test_buckets(s3: str) -> None:
    (found,) = doctor.check_place("s3://no-such-bucket/a", s3)
    assert found.level == "problem"
    assert "there is no bucket no-such-bucket" in found.detail


def test_a_service_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (found,) = doctor.check_place("s3://bucket/a", f"http://127.0.0.1:{port}")
    assert (found.level, found.title) == ("problem", "Bucket s3://bucket/a")
    assert f"127.0.0.1:{port}" in found.detail


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "run_python", answers(1, "broken"))
    monkeypatch.setattr(doctor.diagnose, "__defaults__", ((), None, answers(1, "broken")))
    done = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert done.exit_code == 1
    assert "✖ problem: The reader does not compile: broken" in done.stdout
    as_json = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert as_json["ok"] is False
    assert {"level", "title", "detail"} == set(as_json["findings"][0])

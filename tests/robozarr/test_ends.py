"""Ends of the command line: whatever becomes of its output, the work is done and the exit code right; texts are only shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st
from killing import kill_all, write_sources

import robozarr
import synthetic
from robozarr.cli import run
from robozarr.cli.output import error_text
from robozarr.convert import convert
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.visible import OBEYED, visible, visible_json, visible_lines

EVIL = "open\x1b[2J\x1b]0;owned\x07 it\x9b31m\u202e\r\nrobozarr: all is well"


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    names = {"R": f"{sys.executable} -m robozarr", "PATH": os.environ["PATH"]}
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=folder, timeout=120, check=False, env={**names, **environment}
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a source and its store."""
    path = tmp_path_factory.mktemp("ends")
    synthetic.write_libero(path / "s/a_demo.hdf5", lengths=(3, 2), size=8)
    convert(path / "s", path / "a.zarr", workers=0)
    return path


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$R convert s -s 1.zarr -w 0 2>/dev/null | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("$R convert s -s 2.zarr -w 0 2>/dev/full >/dev/full", 0, ""),
        ("$R verify a.zarr -w 0 2>/dev/null >/dev/full", 0, ""),
        ("$R info a.zarr >/dev/full", 6, "standard output cannot be written: No space left on device"),
        ("$R info a.zarr | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("$R convert s -s 3.zarr -w 0 <&- >&- 2>&-", 0, ""),
        ("$R convert s -s a.zarr -w 0 >/dev/full", 3, "already holds a store"),
    ],
)
@pytest.mark.slow(reason="a process each")
def test_output_that_cannot_be_written_ends_no_work(folder: Path, line: str, code: int, said: str) -> None:
    done = shell(line, folder, HOME=str(folder))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    for store in folder.glob("?.zarr"):
        assert robozarr.open_store(store).n_episodes == 2


@pytest.mark.slow(reason="starts new Pythons, each of which imports everything")
def test_without_utf8_home_or_terminal(folder: Path) -> None:
    line = "$R convert s -s ascii.zarr -w 0 && $R info ascii.zarr | head -2"
    done = shell(line, folder, LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u2192" in done.stdout  # the arrow between the sizes
    assert "Traceback" not in done.stderr


def test_a_full_device_in_this_process(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            run(["verify", str(folder / "a.zarr"), "-w", "0"])
    assert ended.value.code == 0
    assert capsys.readouterr().err.endswith("robozarr: standard output cannot be written: No space left on device\n")


@given(text=st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert OBEYED.search(visible(text)) is None
    assert OBEYED.search(visible_lines(text).replace("\n", "")) is None
    value = {text: [text]}
    written = visible_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert OBEYED.search(written.replace("\n", "")) is None
    assert json.loads(written) == value


def test_texts_of_sources_and_stores_are_shown_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = synthetic.write_libero(tmp_path / "s\x1b[1m/a\x1b[2J_demo.hdf5", lengths=(3, 2), size=8, instruction=EVIL)
    with h5py.File(source, "r+") as file:
        file.create_group("data/x\x1b[3m_7")  # a demo without actions
        file["stray\x1b[4m"] = 1
    store = tmp_path / "a.zarr"
    monkeypatch.setenv("FORCE_COLOR", "")
    calls: list[tuple[list[str], int]] = [
        (["convert", str(source), "-s", str(store), "-w", "0"], 1),
        (["convert", str(source), "-s", str(store), "-w", "0", "--on-error", "skip"], 0),
        (["info", str(store)], 0),
        (["info", str(store), "--json"], 0),
        (["verify", str(store), "-w", "0", "--source", str(source.parent)], 0),
        (["verify", str(tmp_path / "no\x1b[5mwhere")], 3),
    ]
    for arguments, code in calls:
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        said = capsys.readouterr()
        assert ended.value.code == code, said
        for text in (said.out, said.err):
            assert OBEYED.search(text.replace("\n", "")) is None, (arguments, text)
            assert "\nrobozarr: all is well" not in text
    problem = Problem(file="a\nb", rule="r\x1b", value="v", remedy="m")
    assert error_text(SourceError("bad:", [problem])) == "bad:\n  a\\x0ab: r\\x1b; found v → m"


@pytest.mark.parametrize(
    "address", ["nonsense", "tcp://nonsense", "http//x:1", "127.0.0.1", "tcp://127.0.0.1:1", "tcp://[::1]:99999"]
)
def test_a_scheduler_that_cannot_be_is_said_at_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    began = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        run(["convert", str(folder / "s"), "-s", str(tmp_path / "x.zarr"), "--scheduler", address])
    assert time.monotonic() - began < 5
    assert ended.value.code == 5
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1
    assert f"--scheduler {address}: no Dask scheduler answers there" in said[0]
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.slow(reason="worker processes, and interrupts at four moments")
def test_an_interrupt_prints_one_line(tmp_path: Path) -> None:
    write_sources(tmp_path / "s")
    for number, wait_s in enumerate((0.8, 1.6, 2.4, 3.2)):
        command = [sys.executable, "-m", "robozarr", "convert", "s", "-s", f"{number}.zarr", "-w", "2"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, text=True, cwd=tmp_path, start_new_session=True, **quiet)
        try:
            time.sleep(wait_s)
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            kill_all(process)
        assert "leaked" not in said
        assert "Traceback" not in said, said

"""What a file is that does not open as HDF5, and what helps; each as the scan says it."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import synthetic
from robozarr.convert.sources import remedies
from robozarr.convert.sources.finding import find_sources
from robozarr.convert.sources.hdf5 import SourceFile
from robozarr.convert.sources.scan import scan_file
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.index import FlagRules

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 587202560\n"
APPLE = remedies.APPLE_DOUBLE + bytes(4092)
IS_NOT: dict[str, tuple[bytes, str, str, str]] = {
    "LFS": (LFS, "not HDF5", "a Git LFS pointer", "git lfs pull"),
    "page": (b"<!DOCTYPE html><html><title>Virus scan warning</title></html>", "not HDF5", "a web page", "in a browser"),
    "page, later": (b"\n\n  <HTML lang=en>", "not HDF5", "a web page", "in a browser"),
    "a server's XML": (b"<?xml version='1.0'?><Code>AccessDenied</Code>", "not HDF5", "a server's answer: <?xml", "rights"),
    "a server's JSON": (b'{"error": "not found"}', "not HDF5", 'a server\'s answer: {"error": "not found"}', "rights"),
    "zip": (b"PK\x03\x04abc", "not HDF5", "a zip archive", "unpack it"),
    "gzip": (gzip.compress(b"x"), "not HDF5", "gzip-packed", "gunzip"),
    "macOS": (APPLE, "not HDF5", "a macOS '._' file", "leave it out"),
    "empty": (b"", "empty", "0 bytes", "again"),
    "zeros": (bytes(5000), "begins with zeros", "5000 bytes", "again"),
    "text": (b"demo 1\x1b[31m\nlost", "not HDF5", "text: demo 1?[31m lost", "again"),
    "bytes": (b"\xde\xad\xbe\xef" * 9, "not HDF5", "36 bytes that begin with de ad be ef", "again"),
    "a beginning": (remedies.SIGNATURE[:5], "cut off", "5 bytes: the beginning of an HDF5 file", "still being written"),
    "a superblock cut": (remedies.SIGNATURE + bytes(9), "cut off", "17 bytes", "still being written"),
}  # fmt: skip


def problem_of(path: Path) -> Problem:
    (problem,) = scan_file(str(path), FlagRules()).problems
    assert (problem.file, problem.demo, problem.key) == (str(path), "", "")
    return problem


@pytest.mark.parametrize("name", IS_NOT)
def test_what_a_file_is_instead(name: str, tmp_path: Path) -> None:
    content, rule, value, remedy = IS_NOT[name]
    (tmp_path / "a_demo.hdf5").write_bytes(content)
    problem = problem_of(tmp_path / "a_demo.hdf5")
    assert problem.rule.removeprefix("the file ").removeprefix("is ") == rule
    assert problem.value.startswith(value)
    assert remedy in problem.remedy
    assert problem.value.isprintable()


def test_a_file_that_is_cut_off_says_how_much_is_there(tmp_path: Path) -> None:
    path = synthetic.write_libero(tmp_path / "a_demo.hdf5")
    size = path.stat().st_size
    os.truncate(path, size - 100)
    problem = problem_of(path)
    assert (problem.rule, problem.value) == ("the file is cut off", f"{size - 100} bytes of {size}")


def test_a_user_block_is_no_reason_to_call_it_something_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w", userblock_size=1024) as file:
        file["data/demo_0/actions"] = np.zeros((3, 7))
    with (tmp_path / "a.hdf5").open("r+b") as raw:
        raw.write(b"#!/bin/sh")
    assert scan_file(str(tmp_path / "a.hdf5"), FlagRules()).problems == ()
    os.truncate(tmp_path / "a.hdf5", 2000)
    assert problem_of(tmp_path / "a.hdf5").rule == "the file is cut off"


WRITER = """
import os, sys, h5py
file = h5py.File(sys.argv[1], "w", libver="latest")
file["data/demo_0/actions"] = [[0.0] * 7] * 3
file.flush()
if sys.argv[2] == "dies":
    os._exit(1)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_writer_that_was_killed_leaves_a_mark_that_h5clear_removes(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    subprocess.run([sys.executable, "-c", WRITER, path, "dies"], check=False, timeout=60)
    problem = problem_of(path)
    assert problem.rule == "the file is marked as open for writing"
    assert problem.value == "no lock on it: the program that wrote it was probably killed, or writes in SWMR mode"
    assert f"h5clear -s {path}" in problem.remedy


def test_a_file_that_a_recorder_holds_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        problem = problem_of(path)
        writer.communicate(timeout=60)
    assert problem.rule == "another program has the file open for writing"
    assert problem.remedy.startswith("wait until that program has closed it")
    assert scan_file(str(path), FlagRules()).problems == ()


def without_locks(number: int, obeyed: bool) -> Callable[..., Any]:
    """h5py.File on a file system that refuses locks so; whether HDF5 obeys to open without one (a variable forbids it)."""

    def opened(path: str, mode: str, locking: Any = None) -> Any:
        if locking is not False or not obeyed:
            message = f"unable to lock file, errno = {number}, error message = '{os.strerror(number)}'"
            raise OSError(number, f"Unable to synchronously open file ({message})")
        return h5py_file(path, mode, locking=False)

    h5py_file = h5py.File
    return opened


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_there_are_no_locks_files_are_read_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = synthetic.write_libero(tmp_path / "a_demo.hdf5")
    monkeypatch.setattr(h5py, "File", without_locks(number, obeyed=True))
    opened = remedies.open_hdf5(str(path))
    assert list(opened) == ["data"]
    opened.close()
    monkeypatch.setattr(h5py, "File", without_locks(number, obeyed=False))
    with pytest.raises(SourceError, match=r"the file system has no locks; found .* → export HDF5_USE_FILE_LOCKING=FALSE"):
        SourceFile(path)


def test_a_lock_that_is_held_is_never_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = synthetic.write_libero(tmp_path / "a_demo.hdf5")
    monkeypatch.setattr(h5py, "File", without_locks(errno.EAGAIN, obeyed=True))
    with pytest.raises(SourceError, match="another program has the file open for writing"):
        SourceFile(path)


def test_files_that_macos_leaves_beside_others_are_passed_over(tmp_path: Path) -> None:
    """Not by their name alone: a file that is HDF5 is never passed over."""
    (tmp_path / "._a.hdf5").write_bytes(APPLE)
    for name in ("a.hdf5", "._b.hdf5"):
        synthetic.write_libero(tmp_path / name)
    found = [tmp_path / name for name in ("._b.hdf5", "a.hdf5")]
    assert find_sources([tmp_path]) == found
    assert find_sources([f"{tmp_path}/*.hdf5", f"{tmp_path}/.*.hdf5"]) == found
    assert find_sources([tmp_path / "._a.hdf5"]) == [tmp_path / "._a.hdf5"]  # named: taken, and refused for what it is


def test_a_key_that_is_spelt_nearly_so_is_named(tmp_path: Path) -> None:
    path = synthetic.write_libero(tmp_path / "a_demo.hdf5", lengths=(5,))
    with h5py.File(path, "r+") as file:
        file.move("data/demo_0/actions", "data/demo_0/action")
    (problem,) = scan_file(str(path), FlagRules()).problems
    assert (problem.demo, problem.key, problem.value) == ("demo_0", "actions", "nothing, but action")
    assert problem.remedy.startswith("rename action to actions, or ")

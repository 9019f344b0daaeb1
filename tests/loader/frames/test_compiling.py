"""Compiling: everything before threads start, caches that are damaged or full, forks meanwhile, a word when it takes long."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.compiler_lock import global_compiler_lock

from robozarr.convert import convert
from robozarr.loader.frames import compiling
from robozarr.loader.frames.compiling import CarefulCache, compiled

LATE = """
import sys
import robozarr as rz
from robozarr.loader.frames.compiling import CarefulCache

def main():
    asked, load = [], CarefulCache.load_overload
    CarefulCache.load_overload = lambda self, *arguments: asked.append(str(self._cache._name)) or load(self, *arguments)
    for path in sys.argv[1:]:
        for padding in ("edge", "zero"):
            spec = rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(4), "joint_states": [0]}, padding=padding)
            dataset = rz.WindowDataset(rz.open_store(path), spec)
            asked.clear()
            dataset.read([0, 5, 3])
            for options in ({}, {"cache": "host"}, {"cache": "device"}, {"batch_size": 80, "threads": 3}):
                for _ in rz.WindowLoader(dataset, **{"batch_size": 8, **options}):
                    pass
            print("late:", *asked)

main()
"""


@pytest.mark.slow(reason="a new process, in which nothing is compiled")
def test_nothing_is_compiled_once_there_is_a_dataset(sample: Path, tmp_path: Path) -> None:
    """fork_warm.py, fork_compile.py: threads that compile hold a lock that a fork of theirs waits for."""
    for profile in ("raw", "fast"):
        convert(sample, tmp_path / f"{profile}.zarr", profile=profile, workers=0)
    stores = [str(tmp_path / "raw.zarr"), str(tmp_path / "fast.zarr")]
    made = subprocess.run([sys.executable, "-c", LATE, *stores], capture_output=True, text=True, check=True, timeout=300)
    assert made.stdout.split("\n") == ["late:"] * 4 + [""]


SCRIPT = """
    import sys, warnings
    import numpy as np
    from robozarr.loader.frames.compiling import compiled
    sys.path.insert(0, {folder!r})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import functions
        functions.compile_with(compiled)
    print(*[str(warning.message) for warning in caught if "robozarr" in str(warning.message)], sep="\\n")
"""
FUNCTIONS = """
    import numpy as np
    def double(x):
        return x * 2
    def treble(x):
        return x * 3
    def compile_with(compiled):
        assert compiled(double)(2) == 4
        assert compiled(treble)(2) == 6
"""


def run(folder: Path, cache: Path, before: str = "") -> str:
    """A new process that compiles two functions; its warnings, a line each."""
    (folder / "functions.py").write_text(textwrap.dedent(FUNCTIONS))
    script = before + textwrap.dedent(SCRIPT.format(folder=str(folder)))
    made = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
    )  # fmt: skip
    return made.stdout.strip()


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16))
"""


@pytest.mark.slow(reason="six starts of Python with numba")
def test_a_cache_that_is_damaged_or_full(tmp_path: Path) -> None:
    """numba#10434: EOFError at every start."""
    cache = tmp_path / "cache"
    assert run(tmp_path, cache) == ""
    files = sorted(cache.rglob("*.nb?"))
    assert len(files) == 4
    assert run(tmp_path, cache) == ""
    for suffix, size in ((".nbi", 0), (".nbi", 20), (".nbc", 0), (".nbc", 100)):
        for path in cache.rglob(f"*{suffix}"):
            os.truncate(path, size)
        said = run(tmp_path, cache)
        assert said.count("robozarr ·") == 1, said  # one warning for both functions
        assert "cached machine code cannot be read" in said
        assert str(cache) in said
        assert run(tmp_path, cache) == ""  # it was made anew
    other = tmp_path / "other"
    said = run(tmp_path, other, FULL)  # every write of more than some bytes fails, as on a full disk
    assert said.count("machine code cannot be kept (OSError: [Errno 27]") == 1


class Broken:
    """Numba's cache of a function, which fails."""

    cache_path = "/nowhere"

    def load_overload(self, *arguments: Any) -> Any:
        raise EOFError("Ran out of input")

    def save_overload(self, *arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise PermissionError(13, "Permission denied")


def test_no_fault_of_a_cache_ends_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_warned", [])
    functions = [compiled(lambda x: x + 1), compiled(lambda x: x + 2)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, function in enumerate(functions, 1):
            function._cache = CarefulCache(Broken())  # type: ignore[attr-defined]
            assert function(1) == 1 + number  # type: ignore[no-untyped-call]
    assert len(caught) == 1
    assert "/nowhere: cached machine code cannot be read (EOFError: Ran out of input)" in str(caught[0].message)
    assert "NUMBA_CACHE_DIR" in str(caught[0].message)


def _plus_five(x: Any) -> Any:
    return x + 5


def test_a_fork_waits_for_a_compilation() -> None:
    """A child does not find the compiler's lock held by a thread that it has not."""
    held, release = threading.Event(), threading.Event()

    def compile_something() -> None:
        with global_compiler_lock:
            held.set()
            release.wait(60)

    thread = threading.Thread(target=compile_something)
    thread.start()
    held.wait(60)
    threading.Timer(0.3, release.set).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python says that there are threads
        pid = os.fork()
    if pid == 0:
        try:
            compiled(_plus_five)(np.float32(1))
            os._exit(0)
        finally:
            os._exit(1)
    thread.join()
    until, status = time.monotonic() + 60, 0
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        pytest.fail("the child waits for a compiler that it has not")
    assert status == 0


def test_a_long_compilation_is_announced_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(compiling, "SILENCE_S", 0.05)
    announce = compiling._Announcement()
    announce.begin()
    announce.end()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        announce.begin()
        time.sleep(0.3)
        announce.end()
    assert capsys.readouterr().err == "robozarr: compiling the reader, once: about 15 seconds …\n"

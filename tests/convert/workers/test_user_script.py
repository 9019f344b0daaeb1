"""A script that calls robozarr without ``if __name__ == "__main__":`` works: workers do not import it."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing import spawn
from pathlib import Path

import pytest

import robozarr
import synthetic
from robozarr.convert.workers.user_script import WORKER, script_not_imported

SCRIPT = """
import robozarr.convert
print("begins", flush=True)
if {verify}:
    report = robozarr.convert.verify("a.zarr", sources={source!r}, workers=1)
    print(len(report.violations), flush=True)
else:
    print(robozarr.convert.convert({source!r}, "a.zarr", workers=1).n_episodes, flush=True)
"""


@pytest.mark.slow(reason="worker processes")
@pytest.mark.parametrize("read_from", ["a file", "standard input"])
def test_a_script_without_a_guard(tmp_path: Path, read_from: str) -> None:
    source = str(synthetic.write_libero(tmp_path / "s/a_demo.hdf5", lengths=(3, 2), size=8))
    for verify, said in ((False, "2"), (True, "0")):
        text = SCRIPT.format(verify=verify, source=source)
        (tmp_path / "script.py").write_text(text)
        given = {"input": text} if read_from == "standard input" else {}
        command = [sys.executable, "-" if given else "script.py"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False, **given)  # type: ignore[call-overload]
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["begins", said]  # once: no worker ran the script
    assert robozarr.open_store(tmp_path / "a.zarr").n_episodes == 2


def test_other_processes_are_started_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/a/script.py", raising=False)
    before = spawn.get_preparation_data
    with script_not_imported():
        with script_not_imported():
            assert "init_main_from_path" not in spawn.get_preparation_data(f"{WORKER} (from Nanny)")
        assert "init_main_from_path" not in spawn.get_preparation_data(f"{WORKER} (from Nanny)")
        for name in (multiprocessing.Process().name, "mine"):
            assert spawn.get_preparation_data(name)["init_main_from_path"] == "/a/script.py"
    assert spawn.get_preparation_data is before

"""`robozarr info`, `report`, `coverage` as a user meets them, and what is said where view is not installed."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import run_here
from effort import some
from forks import forget, said_in_fork
from rich.console import Console

import robozarr as rz
import synthetic
from robozarr.cli.output import say
from robozarr.convert import convert
from robozarr.store.summary import summarise
from robozarr.view.coverage import MEASURES, measure_coverage
from robozarr.view.terminal import N_LINES, print_coverage, print_info

DRAWING = ("pandas", "matplotlib", "jinja2", "PIL")


def anew(code: str, without: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run code that imports robozarr, and what draws, anew: in a fork, which has torch, or with ``--full`` in a new process.

    What `without` names cannot be imported.
    """
    if without is not None:
        code = f"import sys; sys.modules[{without!r}] = None\n{code}"
    if some(1, 0):
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    def run() -> None:
        forget(["robozarr", *DRAWING])
        exec(code, {"__name__": "__main__"})

    return said_in_fork(run)


def test_info_is_aligned_and_short(tmp_path: Path) -> None:
    for task in range(N_LINES + 2):
        synthetic.write_libero(tmp_path / f"s/task_{task}_demo.hdf5", lengths=(4,), instruction=f"do [bold]thing[/] {task}")
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    buffer = io.StringIO()
    print_info(summarise(rz.open_store(tmp_path / "a.zarr")), Console(file=buffer, width=160))
    lines = buffer.getvalue().splitlines()
    assert any(line.startswith("holds") and "22 tasks · 22 episodes · 88 steps at 20 Hz" in line for line in lines)
    facts = [line for line in lines if line.startswith(("holds", "size", "written by", "flagged steps", "recorded"))]
    assert len({len(line) - len(line[18:].lstrip()) for line in facts if len(line) > 18}) == 1
    (head,) = [i for i, line in enumerate(lines) if line.startswith("key ")]
    ratio = slice(lines[head].index("ratio"), lines[head].index("ratio") + len("ratio"))
    n_keys = len(rz.open_store(tmp_path / "a.zarr").keys)
    assert all(re.fullmatch(r" *\d+\.\d\d", line[ratio]) for line in lines[head + 1 : head + 1 + n_keys])
    assert "do [bold]thing[/] 3" in buffer.getvalue()
    assert "… and 2 tasks more: --json lists all" in buffer.getvalue()
    assert max(map(len, lines)) <= 160


@pytest.mark.usefixtures("words_only")
def test_report_writes_a_page(sample_store: Path, tmp_path: Path) -> None:
    done = run_here("report", sample_store, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("report.html: ")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    done = run_here("report", sample_store, "-o", tmp_path / "none" / "a.html")
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
    done = run_here("report", tmp_path / "none.zarr", "-o", tmp_path / "a.html")
    assert done.returncode == 3
    assert "no store there" in done.stderr
    assert not (tmp_path / "a.html").exists()


def test_coverage_prints_a_table_and_draws_a_plot(sample_store: Path, tmp_path: Path) -> None:
    done = run_here("coverage", sample_store, "--chunk", "4", "--epochs", "1,3", "-o", tmp_path / "a.png", "--seed", "5")
    assert done.returncode == 0, done.stderr
    found = measure_coverage(rz.open_store(sample_store), chunk=4, epochs=(1, 3), seed=5)
    for name in MEASURES:
        assert name in done.stdout
    assert f"{found.random['windows'][1]:.1%} ({found.random_simulated['windows'][1]:.1%})" in done.stdout
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    as_json = json.loads(run_here("coverage", sample_store, "--chunk", "4", "--epochs", "1,3", "--seed", "5", "--json").stdout)
    assert as_json.pop("tails")["chunk"] == 4
    assert as_json == json.loads(json.dumps(found.to_json()))
    for arguments, words in (
        (["--epochs", "3,1"], "--epochs is ascending numbers"),
        (["--chunk", "0"], "greater than or equal to 1"),
        (["-o", "a.txt"], "--output ends in .png"),
        (["--weights", "size"], "is not one of"),
    ):
        done = run_here("coverage", sample_store, *arguments)
        assert done.returncode == 2
        assert words in done.stderr


def test_coverage_of_a_store_without_key_moments(tmp_path: Path) -> None:
    synthetic.write_libero(tmp_path / "s/a_demo.hdf5", lengths=(1,))
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    buffer = io.StringIO()
    print_coverage(measure_coverage(rz.open_store(tmp_path / "a.zarr")), Console(file=buffer, width=160))
    (line, *_) = [line for line in buffer.getvalue().splitlines() if "key moments" in line]
    assert "– (–)" in line


@pytest.mark.parametrize("module", ["matplotlib", "pandas", "jinja2"])
def test_where_view_is_not_installed_it_says_so(sample_store: Path, tmp_path: Path, module: str) -> None:
    ask = {
        "matplotlib": "store.episode(0)",
        "pandas": "store.episodes.to_pandas()",
        "jinja2": "from robozarr.cli import run; run(['report', store.path, '-o', '/nowhere/a.html'])",
    }[module]
    shown = "print(store.episodes._repr_html_() is None, flush=True)"
    done = anew(f"import robozarr; store = robozarr.open_store({str(sample_store)!r}); {shown}; {ask}", without=module)
    assert done.returncode in (1, 2)
    assert "pip install '.[view]'" in done.stderr
    assert done.stdout.strip() == str(module == "pandas")


def test_opening_and_training_load_nothing_that_draws(sample_store: Path) -> None:
    code = (
        f"import sys, robozarr as rz; store = rz.open_store({str(sample_store)!r}); store.episodes, store.tasks\n"
        "def loaded(*of): return sorted({*of} & {name.partition('.')[0] for name in sys.modules})\n"
        f"print(loaded{(*DRAWING, *('torch',) * some(1, 0))})\n"
        "rz.WindowDataset(store, rz.WindowSpec({'actions': range(4)}))[0]\n"
        f"print(loaded{DRAWING})"
    )
    done = anew(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_bars_scale_with_the_terminal(sample_store: Path, width: int) -> None:
    found = measure_coverage(rz.open_store(sample_store), chunk=4, epochs=(1, 2, 5, 10))
    buffer = io.StringIO()
    print_coverage(found, Console(file=buffer, width=width, force_terminal=False))
    rows = [line for line in buffer.getvalue().splitlines() if line.startswith(("random ", "enumerated "))]
    assert len(rows) == 2 * len(MEASURES)
    bars = [row.split()[-1] for row in rows]
    (n,) = {len(bar) for bar in bars}
    assert n >= 5
    shares = [kind[name][-1] for kind in (found.random, found.enumerated) for name in MEASURES]
    assert [bar.count("█") for bar in bars] == [round(share * n) for share in shares]


def test_lines_break_between_words_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/data/" + "long/" * 20
    text = f"  converted {path} and more words than there is room for in a line\nnext: robozarr verify {path} --source {path}"
    monkeypatch.setenv("COLUMNS", "40")
    say(text)
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say(text)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "  converted"
    assert lines[0] == f"    {path}"
    assert all(len(line) <= 40 for line in lines[1:-1])
    assert lines[-1] == f"next: robozarr verify {path} --source {path}"

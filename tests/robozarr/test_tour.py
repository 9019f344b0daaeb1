"""docs/tour.md: its commands and scripts print what stands there, but for times.

``PYTHONPATH=.:tests/support python tests/robozarr/test_tour.py`` writes the page anew.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from charts import words_only
from command import run_here
from effort import some

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tour.md"
BLOCKS = re.compile(r"^```(console|python)\n(.*?)^```(?:\n\n```text\n.*?^```)?", re.M | re.S)
TIMES = re.compile(r"\d+\.\d+ s\b|\d+ MB/s|\d+\.\d kB; open|robozarr \d[\w.]+|\b[0-9a-f]{32}\b|loss \d\.\d+")
"""What differs between runs, versions, machines and clones (a source's time of modification is in the identity)."""


def said_by_command(line: str, folder: Path) -> str:
    words = line.split()[1:]
    if words[0] in ("convert", "verify"):
        words += ["--workers", "0"] * some(0, 1)  # with --full as it stands there, by worker processes: it says the same
    done = run_here(*words, cwd=folder)
    return done.stderr + done.stdout


def said_by_script(code: str, folder: Path) -> str:
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        try:
            exec(compile(code, PAGE.name, "exec"), {"__name__": "__main__"})
        except Exception as exc:
            name = f"{type(exc).__module__}." * (type(exc).__module__ != "builtins") + type(exc).__qualname__
            return f"{out.getvalue()}Traceback (most recent call last):\n  …\n{name}: {exc}\n"
    return out.getvalue()


def run_page(folder: Path) -> str:
    """The page, with what its blocks print in `folder`."""
    (folder / "sample").symlink_to(ROOT / "sample")

    def rewrite(block: re.Match[str]) -> str:
        kind, text = block.groups()
        if kind == "python":
            return f"```python\n{text}```\n\n```text\n{said_by_script(text, folder)}```"
        commands = [line for line in text.splitlines() if line.startswith("$ ")]
        said = [f"{line}\n{said_by_command(line.removeprefix('$ '), folder)}" for line in commands]
        return f"```console\n{''.join(said)}```"

    page = BLOCKS.sub(rewrite, PAGE.read_text()).replace(f"{folder}/", "")
    return "".join(f"{line.rstrip()}\n" for line in page.splitlines())


def without_times(page: str) -> str:
    return TIMES.sub("#", page)


@pytest.mark.slow(reason="runs the whole tour")
@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the words of Typer and torch are those of the versions that constraints.txt pins"
)
def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    with words_only():  # nothing here looks at the report
        page = run_page(tmp_path)
    assert without_times(page).splitlines() == without_times(PAGE.read_text()).splitlines()


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        PAGE.write_text(run_page(Path(made)))

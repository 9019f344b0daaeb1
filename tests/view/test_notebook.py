"""The tour in notebooks/: stored without outputs, runs from top to bottom in a clean kernel, shows what it promises."""

from __future__ import annotations

import json
import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import nbformat
import pytest
from forks import said_in_fork
from IPython.core.displayhook import CapturingDisplayHook
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "inspect.ipynb"


def execute(**options: Any) -> Any:
    """The notebook after a run; a cell that fails raises."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    return NotebookClient(notebook, timeout=120, resources=resources, **options).execute()


def shown(cell: Any) -> str:
    """What a cell shows: HTML where there is any."""
    data = [output["data"] for output in cell.get("outputs", []) if "data" in output]
    return "\n".join(str(each.get("text/html", each.get("text/plain"))) for each in data)


def test_it_is_short_and_stored_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    assert len(notebook.cells) < 15
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow(reason="starts a kernel, which imports everything anew")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_runs_in_a_clean_kernel() -> None:
    cells = execute(kernel_name="python3").cells
    streams = [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "stream"]
    assert not streams
    check([shown(cell) for cell in cells if cell.cell_type == "code"])


def show_cells() -> None:
    """Run the cells in IPython, in this process, and print as JSON what each shows."""
    os.chdir(NOTEBOOK.parent)
    shell: Any = InteractiveShell.instance(display_pub_class=CapturingDisplayPublisher)
    parts: list[str] = []
    shell.history_manager.enabled = False
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:  # type: ignore[no-untyped-call]
        if cell.cell_type == "code":
            outputs: list[Any] = []
            shell.display_pub.outputs = outputs
            shell.display_trap.hook = CapturingDisplayHook(shell, outputs)  # type: ignore[no-untyped-call]
            with redirect_stdout(StringIO()) as out, redirect_stderr(out):
                shell.run_cell(cell.source).raise_error()
            assert not out.getvalue()
            parts.append(shown({"outputs": outputs}))
    print(json.dumps(parts))


@pytest.mark.slow(reason="runs every cell")
def test_it_runs() -> None:
    said = said_in_fork(show_cells, limit_s=120)
    assert said.returncode == 0, said.stderr
    check(json.loads(said.stdout))


def check(parts: list[str]) -> None:
    assert all(parts)
    assert "2 tasks · 4 episodes · 44 steps" in parts[0]
    assert parts[0].count("<img") == 4
    assert "image_convention" in parts[1]
    assert "<svg" in parts[2]
    assert parts[2].count("<img") == 16
    assert "ee_pos" in parts[3]
    assert "data:image/webp;base64," in parts[4]
    assert "rows lie outside the episode and are padding" in parts[5]
    assert "q99" in parts[6]
    assert "Orientation of pictures" in parts[7]
    assert "episode tails" in parts[8]
    assert "<svg" in parts[8]
    assert "array([[" in parts[9]
    assert "xarray.Dataset" in parts[10]
    assert "agentview_rgb" in parts[10]

"""docs/windows.md: its blocks run as they stand there, end to end, and its table names what is there."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import robozarr as rz
from robozarr.loader.device.augmenting import steps

PAGE = Path(__file__).parents[2] / "docs" / "windows.md"


def test_the_blocks_run(sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libero.zarr").symlink_to(sample_store)
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(code) == 4
    names: dict[str, object] = {"__name__": "page"}
    for number, block in enumerate(code):
        exec(compile(block, f"{PAGE.name}: block {number}", "exec"), names)
    assert (tmp_path / "statistics.json").exists()


def test_the_table_names_what_is_there() -> None:
    text = PAGE.read_text()
    table = text[text.index("| I want to") : text.index("## Which windows")]
    options = set(
        re.findall(r"\b(stride|padded|max_padding|windows|balance|weights|cover|mixture|augment|relative|normalise)=", table)
    )
    known = set(inspect.signature(rz.WindowDataset).parameters) | set(inspect.signature(rz.WindowLoader).parameters)
    assert len(options) == 11
    assert options <= known
    for name in re.findall(r"`(\w+)`", text[text.index("Steps of your own") : text.index("**Cost.**")]):
        assert hasattr(steps, name) or name in ("augment",), name


@pytest.mark.parametrize("preset", ["diffusion_policy", "robomimic", "openvla", "rdt", "act", "openpi"])
def test_each_preset_is_in_the_table_beside_its_source(preset: str) -> None:
    (row,) = re.findall(rf"^\| `{preset}\(.*\|$", PAGE.read_text(), flags=re.MULTILINE)
    assert re.search(r"\w+/\w+", row.split("|")[3])
    doc = inspect.getdoc(getattr(rz.Augment, preset)) or ""
    assert re.search(r"\w+/\w+", doc)

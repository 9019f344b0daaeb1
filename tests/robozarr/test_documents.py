"""README and docs: every link leads somewhere, every hint names an extra that exists, the README's own lines run."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from command import run_here
from forks import forget, said_in_fork

import robozarr
from robozarr.convert import convert
from robozarr.view import doctor
from synthetic import write_libero

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for folder in (".", "docs", "docs/recipes", "docs/experiments") for path in (ROOT / folder).glob("*.md"))
SOURCES = [
    path for room in ("schemas", "store", "convert", "loader", "view", "robozarr") for path in (ROOT / room).rglob("*.py")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    links = [link for link in links if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_hints_name_extras_that_exist() -> None:
    there = set(metadata.metadata("robozarr").get_all("Provides-Extra") or ())
    texts = [path.read_text() for path in [*SOURCES, *PAGES, *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("examples/*.py")]]
    groups = [group for text in texts for group in re.findall(r"(?:robozarr|'\.)\[([a-z0-9,\s]+)\]", text)]
    groups += [
        group for text in texts for group in re.findall(r'\bneeds\("([^"]+)"\)', text)
    ]  # f"'.[{extras}]'" in robozarr/cli
    groups += [*robozarr._EXTRAS.values(), *doctor.EXTRAS]
    named = {extra.strip() for group in groups for extra in group.split(",")}
    assert {"convert", "lerobot", "train", "view", "s3"} <= named <= there


def test_every_hint_to_install_is_one_of_these() -> None:
    """An extra, in a clone, which is where `'.[…]'` means robozarr; or a package of that name."""
    packages = {"blosc2", "boto3", "hdf5plugin", "zarr", "numba"}
    hints = [
        (path.relative_to(ROOT).as_posix(), hint.replace("--upgrade ", "").replace("--force-reinstall ", ""))
        for path in SOURCES
        for hint in re.findall(r"pip install ([^\n;)`\"]+)", path.read_text())
    ]
    assert len(hints) > 12
    for path, hint in hints:
        if hint.startswith("'.["):
            assert re.fullmatch(r"'\.\[[^]]+\]'( ?|.* in a clone of robozarr.*)", hint), (path, hint)
        else:
            assert hint.startswith("{") or set(hint.split(", then")[0].split()) <= packages, (path, hint)


def test_commands_in_messages_exist() -> None:
    commands = {"convert", "verify", "info", "report", "coverage", "layouts", "doctor", "export"}
    named = {
        word for path in SOURCES for word in re.findall(r"(?:run: |with: |→ |: |\()robozarr ([a-z]+) [A-Z{]", path.read_text())
    }
    assert {"convert", "verify", "layouts"} <= named <= commands


def test_diagrams_have_no_semicolon() -> None:
    """It ends a statement in mermaid, and the page then shows a bomb instead of the diagram."""
    blocks = [block for page in PAGES for block in re.findall(r"^```mermaid\n(.*?)^```", page.read_text(), re.M | re.S)]
    assert len(blocks) > 2
    assert [block for block in blocks if ";" in block] == []


def test_a_warning_fails_the_docs() -> None:
    """With --quiet mkdocs counts no warnings, and builds whatever is broken."""
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "/mkdocs build" in line]
    assert "--quiet" not in line.partition("#")[0]
    assert "strict: true" in (ROOT / "mkdocs.yml").read_text()


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [page.relative_to(ROOT).as_posix() for page in PAGES if page.parent != ROOT]
    assert [page for page in pages if f"]({page})" not in readme] == []


def test_the_readme_is_one_screen_of_words() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    write_libero(tmp_path / "s/s_demo.hdf5", lengths=(40, 50), size=128)
    convert(tmp_path / "s", tmp_path / "libero_spatial.zarr", workers=0)
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    block = block.replace('"libero_spatial.zarr"', repr(str(tmp_path / "libero_spatial.zarr"))).replace(
        "    ...", "    break  #"
    )
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    batch = names["batch"]
    assert isinstance(batch, dict)
    shapes = {name: (tuple(values.shape), str(values.dtype)) for name, values in batch.items() if name != "instruction"}
    assert shapes["actions"] == ((64, 64, 7), "torch.float32")
    assert shapes["agentview_rgb"] == ((64, 2, 3, 128, 128), "torch.float32")
    assert shapes["actions_is_pad"] == ((64, 64), "torch.bool")
    assert len(batch["instruction"]) == 64


@pytest.mark.parametrize(
    ("line", "missing", "extra"),
    [
        ("import robozarr as rz; rz.WindowDataset", "torch", "train"),
        ("import robozarr as rz; rz.WindowLoader", "blosc2", "train"),
        ("import robozarr; robozarr.convert", "h5py", "convert"),
        ("import robozarr.loader.warm", "numba", "train"),
        ("import robozarr as rz; rz.WindowDataset", "numba", "train"),
        ("from robozarr.convert import convert", "h5py", "convert"),
        ("import robozarr; robozarr.view", "none", ""),
    ],
)
def test_a_missing_package_names_its_extra_in_one_line(line: str, missing: str, extra: str) -> None:
    """A package is missing if its entry in sys.modules is None. In a fork that knows neither it nor robozarr any more."""

    def import_without() -> None:
        forget(["robozarr", missing])
        sys.modules[missing] = None  # type: ignore[assignment]
        try:
            exec(line, {})
        except ImportError as exc:
            print(type(exc).__name__, exc)

    ran = said_in_fork(import_without)
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.strip()
    if extra:
        assert f"needs {missing}, which is not installed → pip install '.[{extra}]' in a clone of robozarr" in said
    else:
        assert said == ""


def test_every_public_name_has_a_place_in_the_reference() -> None:
    import robozarr.convert

    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    assert set(hook.public_names()) == {*robozarr.__all__, *robozarr.convert.__all__} - {"__version__"}
    for path in hook.public_names().values():
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(module), name).__doc__
        assert f"::: {path}" in hook.reference()


@pytest.mark.parametrize("command", ["convert", "verify", "info", "report", "coverage", "layouts", "doctor"])
def test_help_shows_an_example_a_line(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, examples = run_here(command, "--help").stdout.split("Examples:")
    lines = [line.strip() for line in examples.splitlines() if f"robozarr {command}" in line]
    assert len(lines) > 1
    assert all(line.startswith(f"• robozarr {command}") and line.count("robozarr ") == 1 for line in lines)

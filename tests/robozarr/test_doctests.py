"""The examples in docstrings, a module each: of the installed package, and of the experiment."""

from __future__ import annotations

import doctest
import importlib
import shutil
from pathlib import Path

import pytest
from effort import some

import robozarr

PACKAGE = Path(robozarr.__file__).parent
MODULES = sorted(
    {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for folder in (PACKAGE, *PACKAGE.iterdir())  # each by itself: in a checkout they are links, which rglob does not follow
        for path in folder.rglob("*.py")
        if ">>> " in path.read_text()
    }
)


@pytest.fixture
def convert_once(sample_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirteen examples begin by converting the sample: but for ``--full`` they are given a copy of the store."""

    def copy(sources: str, store: str, *, workers: int) -> None:
        assert (sources, workers) == ("sample", 0)
        shutil.copytree(sample_store, store)

    if not some(1, 0):
        monkeypatch.setattr("robozarr.convert.convert", copy)


@pytest.mark.parametrize("module", [*MODULES, "tail.intervals", "tail.page", "tail.plan", "tail.table"])
def test_examples(module: str, request: pytest.FixtureRequest) -> None:
    if module != "robozarr.convert.run":  # whose example is a conversion
        request.getfixturevalue("convert_once")
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_many() -> None:
    assert len(MODULES) > 60

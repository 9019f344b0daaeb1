"""The examples in docstrings, a module each: of the installed package, and of the experiment."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("module", [*MODULES, "tail.intervals", "tail.page", "tail.plan", "tail.table"])
def test_examples(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


def test_there_are_many() -> None:
    assert len(MODULES) > 60

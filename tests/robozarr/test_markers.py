"""Every test that ``make test`` leaves out says why it is slow: ``@pytest.mark.slow(reason="…")``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def unexplained(source: str) -> list[int]:
    """Lines of ``mark.slow`` without a reason."""
    nodes = list(ast.walk(ast.parse(source))) if "slow" in source else []
    explained = {
        id(node.func)
        for node in nodes
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant) and str(keyword.value.value).strip()
    }
    marks = [
        node
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr == "slow"
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "mark"
    ]
    return [node.lineno for node in marks if id(node) not in explained]


def test_every_slow_test_says_why() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("test_*.py"))
        for line in unexplained(path.read_text())
    ]
    assert found == [], "write @pytest.mark.slow(reason='…')"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("@pytest.mark.slow\ndef test(): pass", [1]),
        ("@pytest.mark.slow()\ndef test(): pass", [1]),
        ('@pytest.mark.slow(reason=" ")\ndef test(): pass', [1]),
        ('@pytest.mark.slow(reason="a process each")\ndef test(): pass', []),
        ("a = [1,\n pytest.param(1, marks=pytest.mark.slow)]", [2]),
    ],
)
def test_marks_without_a_reason_are_found(source: str, lines: list[int]) -> None:
    assert unexplained(source) == lines

"""Every test that ``make test`` leaves out says why it is slow: ``@pytest.mark.slow(reason="…")``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def unexplained(source: str) -> list[int]:
    """Lines of ``mark.slow`` without a reason, which is a text, or one of a dict's: ``REASONS[name]``."""
    nodes = list(ast.walk(ast.parse(source))) if "slow" in source else []
    reasons = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and all(map(_is_text, node.value.values))
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    explained = {
        id(node.func)
        for node in nodes
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "reason" and (_is_text(keyword.value) or _is_one_of(keyword.value, reasons))
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


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and bool(str(node.value).strip())


def _is_one_of(node: ast.expr, names: set[str]) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in names


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
        ('WHY = {"a": "a process"}\nb = pytest.mark.slow(reason=WHY["a"])', []),
        ('WHY = {"a": "a process", "b": ""}\nb = pytest.mark.slow(reason=WHY["a"])', [2]),
        ('b = pytest.mark.slow(reason=WHY["a"])', [1]),
    ],
)
def test_marks_without_a_reason_are_found(source: str, lines: list[int]) -> None:
    assert unexplained(source) == lines

"""The examples in the experiment's docstrings; it is no part of the package, whose examples ``make test`` runs by itself."""

from __future__ import annotations

import doctest

import pytest

from tail import intervals, page, plan, table


@pytest.mark.parametrize("module", [intervals, page, plan, table], ids=lambda module: module.__name__)
def test_examples(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted > 0
    assert found.failed == 0

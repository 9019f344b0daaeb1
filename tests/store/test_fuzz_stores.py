"""A short run of the fuzzer of stores; ``make fuzz`` does three thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_stores import fuzz


def run(runs: range, keep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    outcome = fuzz(runs, 7, keep, print)
    assert outcome.wrong == []
    assert set(outcome.kinds) == {"good", "refused"}
    assert outcome.kinds["refused"] > 2 * len(runs)


@pytest.mark.slow(reason="imports torch in a process of its own; test_hostile_stores.py has one change of each kind")
def test_changed_stores_are_refused_or_read_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(range(8), tmp_path, monkeypatch)


@pytest.mark.slow(reason="a quarter of a second a store")
def test_more_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(range(8, 88), tmp_path, monkeypatch)

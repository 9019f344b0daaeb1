"""A short run of the fuzzer; ``make fuzz`` does ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from effort import some
from fuzz_hdf5 import fuzz


def test_changed_files_are_refused_or_converted_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    n = some(60, 15)
    outcome = fuzz(iter(range(n)), 1, tmp_path, 0, print)
    assert outcome.wrong == []
    assert outcome.kinds.total() == n
    assert outcome.kinds["refused"] > n / 6
    assert outcome.kinds["exact"] > n / 6

"""What a source is refused for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robozarr.convert import convert
from robozarr.schemas.errors import SourceError

__all__ = ["assert_refused"]


def assert_refused(source: Path, store: Path, words: str) -> None:
    """Converting a source fails with one problem, of a line, that says `words`, a regular expression; nothing is written."""
    with pytest.raises(SourceError) as caught:
        convert(source, store, workers=0)
    problems = [str(problem) for problem in caught.value.problems]
    assert any(re.search(words, problem) and "\n" not in problem for problem in problems), problems
    assert not (store / "zarr.json").exists()

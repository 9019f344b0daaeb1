"""Fixtures of pages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from effort import some
from markupsafe import Markup


@pytest.fixture
def words_only() -> Iterator[None]:
    """For tests that read a report's words: its charts are made and, but for ``--full``, not drawn, which takes long."""
    with pytest.MonkeyPatch.context() as patch:
        if not some(1, 0):
            patch.setattr("robozarr.view.report._chart", lambda _: Markup("<svg></svg>"))
        yield

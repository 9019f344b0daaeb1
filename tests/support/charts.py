"""Reports without drawings, for tests that read their words: drawing four charts takes as long as all the rest, five times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from effort import some
from markupsafe import Markup

__all__ = ["words_only"]


@contextmanager
def words_only() -> Iterator[None]:
    """No chart of a report is drawn, nor the largest made; all are with ``--full``."""
    with pytest.MonkeyPatch.context() as patch:
        if not some(1, 0):
            patch.setattr("robozarr.view.report._chart", lambda _: Markup("<svg></svg>"))
            patch.setattr("robozarr.view.report.actions_chart", lambda _: SimpleNamespace(title="not made"))
        yield

"""Fixtures of pages."""

from __future__ import annotations

from collections.abc import Iterator

import charts
import pytest


@pytest.fixture
def words_only() -> Iterator[None]:
    """For tests that read a report's words."""
    with charts.words_only():
        yield

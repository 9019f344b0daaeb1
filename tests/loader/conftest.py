"""Stores that several tests of the loader read."""

from __future__ import annotations

from pathlib import Path

import format_writer
import pytest
from bucket_stores import upload
from small_store import make_dataset

from robozarr.loader.dataset import WindowDataset


@pytest.fixture(scope="session")
def hand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 steps in 3 episodes; 5 shards a camera. Read it; to change it, copy it."""
    path = tmp_path_factory.mktemp("hand") / "hand.zarr"
    format_writer.write_by_hand(path, "fast")
    return path


@pytest.fixture(scope="session")
def hand_url(hand: Path, s3: str) -> str:
    return upload(hand, s3)


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """19 steps in 3 episodes; 5 shards a camera."""
    path = tmp_path_factory.mktemp("processes") / "a.zarr"
    format_writer.write_by_hand(path, "fast")
    return path


@pytest.fixture
def dataset(store_path: Path) -> WindowDataset:
    return make_dataset(store_path)

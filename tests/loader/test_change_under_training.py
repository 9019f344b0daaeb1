"""Training while another process replaces, appends to, cuts or removes the store.

``make change-under-training`` does the same with a gigabyte.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from change_under_training import CHANGES, WAYS, Stores, made_stores, try_out
from remote import new_place

from robozarr.store.locate import place_of

pytestmark = [
    pytest.mark.slow(reason="converters in processes of their own"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # Python 3.12 on fork
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return made_stores(tmp_path_factory.mktemp("stores"), 3, 24)


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder(stores: Stores, tmp_path: Path, change: str) -> None:
    for way in ("2 workers", "threads", "cache=host") if change in ("replaced", "cut") else ("2 workers", "threads"):
        found = try_out(stores, place_of(tmp_path / "store.zarr"), change, way, tmp_path / "cache")
        assert found.right, found


@pytest.mark.parametrize("change", CHANGES)
def test_a_bucket(stores: Stores, s3: str, tmp_path: Path, change: str) -> None:
    for way in WAYS if change == "replaced" else ("threads", "cache_dir"):
        found = try_out(stores, new_place(s3), change, way, tmp_path / f"cache-{way}")
        assert found.right, found

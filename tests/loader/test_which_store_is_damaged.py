"""In a mixture arrays and shards have the same names in each store: an error says which store it is of."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest

import robozarr as rz
from robozarr.schemas.errors import CorruptChunkError


@pytest.mark.parametrize("cache", [None, "host"])
def test_the_damaged_store_of_a_mixture_is_named(sample_store: Path, tmp_path: Path, cache: Literal["host"] | None) -> None:
    places = [tmp_path / name for name in ("first.zarr", "second.zarr", "third.zarr")]
    for place in places:
        shutil.copytree(sample_store, place)
    spec = rz.WindowSpec({"agentview_rgb": [0], "actions": range(3)})
    loader = rz.WindowLoader([rz.WindowDataset(rz.open_store(place), spec) for place in places], 8, cache=cache)
    shard = next(file for file in sorted((places[1] / "steps/agentview_rgb/c").rglob("*")) if file.is_file())
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(CorruptChunkError, match=r"second\.zarr · steps/agentview_rgb · shard 0"):
        list(loader)

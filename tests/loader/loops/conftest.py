"""A data set small enough that loops run over it many times."""

from __future__ import annotations

import pytest

import robozarr as rz
from robozarr.convert import convert
from synthetic import write_libero


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> rz.WindowDataset:
    """38 windows of 5 episodes and 2 tasks: 10 batches of 4."""
    folder = tmp_path_factory.mktemp("loops")
    for name, lengths in (("a/open", (11, 3, 7)), ("a/close", (9, 8))):
        write_libero(folder / f"{name}_demo.hdf5", lengths=lengths, size=8, instruction=name)
    convert(folder / "a", folder / "a.zarr", workers=0)
    return rz.WindowDataset(rz.open_store(folder / "a.zarr"), rz.WindowSpec({"agentview_rgb": [0], "actions": range(4)}))

"""Large numbers with small differences, such as unix time, are normalised as float64 would do it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.device.scaling import Scaling
from synthetic import write_libero

COLUMNS = {
    "unix_time": lambda n, _: 1.7e9 + np.arange(n)[:, None] * 0.05,
    "tick": lambda n, _: (10**15 + np.arange(n)[:, None]).astype(np.int64),
    "small": lambda n, _: (np.arange(n)[:, None] - 5).astype(np.int8),
    "const": lambda n, _: np.full((n, 1), 0.1),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> rz.Store:
    folder = tmp_path_factory.mktemp("large")
    write_libero(folder / "s/a_demo.hdf5", lengths=(40, 40), extra={f"obs/{name}": make for name, make in COLUMNS.items()})
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["mean_std", "min_max", "q01_q99"])
@pytest.mark.parametrize("name", COLUMNS)
def test_differences_survive(store: rz.Store, name: str, how: Scaling, dtype: torch.dtype) -> None:
    dataset = rz.WindowDataset(store, rz.WindowSpec({name: [0]}))
    loader = rz.WindowLoader(dataset, 80, shuffle=False, normalise=rz.Normalise(keys={name: how}, dtype=dtype))
    got = next(iter(loader))[name]
    assert got.dtype == dtype
    x = np.asarray(store.array(name)[:]).ravel().astype(np.float64)
    low, high = np.quantile(x, (0.01, 0.99)) if how == "q01_q99" else (x.min(), x.max())
    shift, scale = (x.mean(), x.std()) if how == "mean_std" else ((low + high) / 2, (high - low) / 2)
    if name == "const":
        shift, scale = 0.1, 1.0
    assert np.abs(got.double().numpy().ravel() - (x - shift) / scale).max() < 2e-5

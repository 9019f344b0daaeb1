"""The names that users import, what importing them costs, and what it does not bring along."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import robozarr
import robozarr.convert

PROBE = "import sys; {code}; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"


def modules_after(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_public_names() -> None:
    assert robozarr.__all__ == sorted(robozarr.__all__)
    assert set(robozarr.__all__) == {
        "Alignment", "Augment", "Images", "Normalise", "Relative", "RoboZarrError", "Statistics", "StepFlag", "Store",
        "WindowDataLoader", "WindowDataset", "WindowLoader", "WindowSampler", "WindowSpec", "__version__", "open_store",
    }  # fmt: skip
    assert robozarr.convert.__all__ == ["ConvertReport", "VerifyReport", "convert", "verify"]
    for name in robozarr.__all__:
        assert getattr(robozarr, name) is not None
    assert set(robozarr.__all__) < set(dir(robozarr))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = robozarr.nothing


def test_the_tests_run_against_the_installed_package() -> None:
    if "site-packages" not in robozarr.__file__:
        pytest.skip("installed with -e: this is a developer's quick turn, not CI")
    assert Path(__file__).parents[2] not in Path(robozarr.__file__).parents or ".venv" in robozarr.__file__


def test_import_brings_nothing_heavy_along() -> None:
    assert not modules_after("import robozarr") & {"numpy", "zarr", "torch", "dask", "h5py", "rich"}


def test_import_takes_less_than_100_ms() -> None:
    code = "import time; t = time.process_time(); import robozarr; print(time.process_time() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(3)
    ]
    assert min(times) < 0.1


def test_converting_imports_neither_torch_nor_the_loader() -> None:
    modules = modules_after("import robozarr.convert, distributed")
    assert "h5py" in modules
    assert not modules & {"torch", "numba", "blosc2", "matplotlib", "zarr"}


def test_the_command_line_starts_without_what_a_command_needs() -> None:
    assert not modules_after("import robozarr.cli") & {"zarr", "numpy", "h5py", "dask", "torch", "matplotlib", "pandas"}


def test_opening_a_store_imports_neither_torch_nor_dask_nor_h5py() -> None:
    modules = modules_after("import robozarr.store.opened")
    assert not modules & {"torch", "dask", "distributed", "h5py", "matplotlib", "pandas", "jinja2", "typer"}


def test_extras_hold_what_they_promise() -> None:
    lines = [line.replace("'", '"') for line in requires("robozarr") or []]

    def names(extra: str) -> set[str]:
        return {re.split("[>=<; ]", line)[0] for line in lines if f'extra == "{extra}"' in line}

    assert {"dask", "distributed", "h5py", "typer", "rich"} <= names("convert")
    assert not {"torch", "numba", "matplotlib"} & names("convert")
    assert {"torch", "numba", "blosc2"} <= names("train")
    assert not {"dask", "distributed", "h5py", "matplotlib"} & names("train")
    assert {"jinja2", "matplotlib", "pandas", "pillow"} <= names("view")
    assert not {"torch", "dask", "h5py"} & names("view")
    assert not {"pandas", "jinja2", "ipykernel"} & (names("train") | names("convert"))
    assert "pillow" in names("convert") - names("train")  # decodes frames that are JPEG or PNG

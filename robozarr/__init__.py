"""robozarr: LIBERO demonstrations from HDF5 into Zarr, and every training window from there to the GPU.

It holds public names only, each imported when it is first used, so that ``import robozarr`` is fast.
In: nothing. Out: ``open_store``, ``WindowDataset``, ``WindowLoader`` and others. Read first: ``store.opened.open_store``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Final

from robozarr.version import __version__

if TYPE_CHECKING:
    from robozarr.loader.dataset import WindowDataset
    from robozarr.loader.device.augmenting.augment import Augment
    from robozarr.loader.device.transform import Images, Normalise
    from robozarr.loader.relative import Relative
    from robozarr.loader.sampler import WindowDataLoader, WindowSampler
    from robozarr.loader.statistics import Statistics
    from robozarr.loader.stream import WindowLoader
    from robozarr.schemas.errors import RoboZarrError
    from robozarr.schemas.index import Alignment, StepFlag
    from robozarr.schemas.window import WindowSpec
    from robozarr.store.opened import Store, open_store

__all__ = [
    "Alignment",
    "Augment",
    "Images",
    "Normalise",
    "Relative",
    "RoboZarrError",
    "Statistics",
    "StepFlag",
    "Store",
    "WindowDataLoader",
    "WindowDataset",
    "WindowLoader",
    "WindowSampler",
    "WindowSpec",
    "__version__",
    "open_store",
]

_HOME = {
    "Alignment": "robozarr.schemas.index",
    "Augment": "robozarr.loader.device.augmenting.augment",
    "Images": "robozarr.loader.device.transform",
    "Normalise": "robozarr.loader.device.transform",
    "Relative": "robozarr.loader.relative",
    "RoboZarrError": "robozarr.schemas.errors",
    "Statistics": "robozarr.loader.statistics",
    "StepFlag": "robozarr.schemas.index",
    "Store": "robozarr.store.opened",
    "WindowDataLoader": "robozarr.loader.sampler",
    "WindowDataset": "robozarr.loader.dataset",
    "WindowLoader": "robozarr.loader.stream",
    "WindowSampler": "robozarr.loader.sampler",
    "WindowSpec": "robozarr.schemas.window",
    "open_store": "robozarr.store.opened",
}

_EXTRAS: Final = {"convert": "convert", "loader": "train", "view": "view"}
"""Room → the extra that installs what it needs."""


def _no_link(missing: str | None) -> str:
    """Say what is wrong if a room is a text file, as in a checkout made without symbolic links; "" if it is not."""
    from pathlib import Path

    room = (missing or "").split(".")[1:2]
    if not room or not (found := Path(__file__).parent / room[0]).is_file():
        return ""
    return (
        f"{found} is a file, but must be a symbolic link: this checkout was made without them → git config core.symlinks true "
        "and git checkout -- robozarr, or install a wheel"
    )


def _import(module: str, name: str) -> ModuleType:
    """Import a module; if a package is missing, name the extra that brings it, or say that this system lacks it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        extra = _EXTRAS.get(module.split(".")[1])
        if (exc.name or "robozarr").split(".")[0] == "robozarr":
            if said := _no_link(exc.name):
                raise ImportError(said) from exc
            raise
        if extra is None:
            raise
        missing = exc.name
    if missing in sys.stdlib_module_names:
        raise ImportError(
            f"robozarr.{name} needs calls of Linux ({missing}) that this system lacks → read with open_store(…).array(key), or "
            "use Linux, WSL or the container",
            name=missing,
        )
    raise ModuleNotFoundError(
        f"robozarr.{name} needs {missing}, which is not installed → pip install '.[{extra}]' in a clone of robozarr",
        name=missing,
    )


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(_import(_HOME[name], name), name)
        globals()[name] = value
        return value
    if name in ("convert", "loader", "schemas", "store", "view"):
        return _import(f"robozarr.{name}", name)
    raise AttributeError(f"module 'robozarr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "convert", "loader", "schemas", "store", "view"])

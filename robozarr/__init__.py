"""robozarr: LIBERO demonstrations from HDF5 into Zarr, and every training window from there to the GPU.

The front door: public names, imported when they are first used, so that ``import robozarr`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robozarr.loader.store import Store, open_store
    from robozarr.schemas.errors import RoboZarrError

__version__ = "0.1.0"
__all__ = ["RoboZarrError", "Store", "__version__", "open_store"]

_HOME = {
    "RoboZarrError": "robozarr.schemas.errors",
    "Store": "robozarr.loader.store",
    "open_store": "robozarr.loader.store",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    if name in ("convert", "loader", "schemas"):
        return import_module(f"robozarr.{name}")
    raise AttributeError(f"module 'robozarr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "convert", "loader", "schemas"])

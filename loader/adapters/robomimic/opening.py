"""Open what robomimic and LIBERO call the data set's path: a store, or one source file in it."""

from __future__ import annotations

from pathlib import Path

from robozarr.schemas.errors import WindowError
from robozarr.store.opened import Store, open_store

__all__ = ["open_data_set"]


def open_data_set(path: Store | str | Path) -> tuple[Store, int | None]:
    """Open a store, and return the number of the source that the path names inside it: ``a.zarr/libero_goal/b_demo.hdf5``.

    Raises
    ------
    WindowError
        If no source, or more than one, has that name.
    """
    if isinstance(path, Store):
        return path, None
    at = Path(path)
    root = next((above for above in (at, *at.parents) if (above / "zarr.json").is_file()), None)
    if root is None or root == at:
        return open_store(path), None
    store, name = open_store(root), at.relative_to(root).as_posix()
    names = [source.name for source in store.metadata.sources]
    # a suite's folder and the folder above it give their files other names
    found = [i for i, own in enumerate(names) if f"/{own}".endswith(f"/{name}") or f"/{name}".endswith(f"/{own}")]
    if len(found) != 1:
        raise WindowError(
            f"robomimic · {path}: one source of {root}; {len(found)} are called {name!r}; it has {', '.join(names[:5])}"
            f"{' …' if len(names) > 5 else ''} → convert that file too, or name one of these"
        )
    return store, found[0]

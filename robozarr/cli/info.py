"""The command ``robozarr info``."""

from __future__ import annotations

from typing import Final

from robozarr.cli.shared import Endpoint, Json, StoreArgument, console, examples, print_json

__all__ = ["EXAMPLES", "info"]

EXAMPLES: Final = examples(
    "robozarr info libero.zarr",
    "robozarr info libero.zarr --json",
    "robozarr info s3://robots/libero.zarr",
)


def info(
    store: StoreArgument,
    endpoint_url: Endpoint = None,
    as_json: Json = False,
) -> None:
    """Show what a store holds."""
    from robozarr.store.opened import open_store
    from robozarr.store.summary import summarise
    from robozarr.view.terminal import print_info

    summary = summarise(open_store(store, endpoint_url))
    if as_json:
        return print_json(summary.to_json())
    return print_info(summary, console())

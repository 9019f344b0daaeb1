"""The names in a bucket's listing, which a service may repeat, or announce for ever. Imports no Zarr library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from robozarr.schemas.errors import BucketError
from robozarr.store.interrupts import heeding_signals

__all__ = ["listed_names"]

PAGE_S: Final = 420.0
"""Seconds without a name after which a listing is given up: longer than a request and its retries take. obstore itself asks for
as many empty pages as a service announces."""


def listed_names(pages: Iterator[Any], url: str, service: str, limit: int | None = None) -> list[str]:
    """Names of all objects in the pages of a listing, sorted; or the first ones found.

    An object whose name is a folder of others', by which consoles show a folder, is left out.

    Raises
    ------
    BucketError
        If pages only repeat what others had, or none comes.
    """

    def next_page() -> Any:
        try:
            return heeding_signals(lambda: next(pages, None), PAGE_S)
        except TimeoutError:
            said = f"announced more pages for {PAGE_S:.0f} s, and no name came"
            raise BucketError(f"{url}: cannot be listed: {service} {said}; check --endpoint-url and proxies") from None

    names: set[str] = set()
    while (page := next_page()) is not None:
        new = {entry["path"] for entry in page} - names
        if page and not new:
            raise BucketError(
                f"{url}: cannot be listed: {service} lists the same objects again and again; check --endpoint-url and proxies"
            )
        names |= new
        if limit is not None and len(names) >= limit:
            break
    folders = {name[:end] for name in names for end, letter in enumerate(name) if letter == "/"}
    return sorted(names - folders - {""})[:limit]

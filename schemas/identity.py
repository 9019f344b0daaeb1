"""Bind the files of a store to its root document: their checksums, and the digest over everything. Pure; no I/O.

``files`` in the root attributes holds for each array a checksum of its ``zarr.json`` and of each of its shards; ``identity`` is
a digest of the root attributes, those checksums among them. So whatever is read can be compared with the root, and two stores
with one identity hold the same files (FORMAT.md, M23).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["DIGITS", "bound_sum", "digest_of", "files_entry", "identity_of", "is_files_entry"]

DIGITS: Final = 32
"""Number of hexadecimal digits of an identity."""
SUM: Final = 8
"""Number of hexadecimal digits of a file's checksum."""
_ENTRY: Final = re.compile(rf"(?:[0-9a-f]{{{SUM}}})+")


def files_entry(document: int, shards: Sequence[int]) -> str:
    """Text of an array in ``files``: the checksum of its ``zarr.json``, then those of its shards in order.

    >>> files_entry(1, [2, 0xabc])
    '000000010000000200000abc'
    """
    return "".join(f"{checksum:08x}" for checksum in (document, *shards))


def is_files_entry(value: object) -> bool:
    """Whether a value is such a text."""
    return type(value) is str and _ENTRY.fullmatch(value) is not None


def bound_sum(files: Mapping[str, str], path: str, shard: int | None) -> int | None:
    """The required checksum of an array's `shard`, or of its ``zarr.json`` (None); returns None if the file is not bound.

    >>> bound_sum({"a": files_entry(1, [2, 3])}, "a", 1), bound_sum({"a": files_entry(1, [2, 3])}, "a", 2)
    (3, None)
    """
    at = SUM * (0 if shard is None else 1 + shard)
    digits = files.get(path, "")[at : at + SUM]
    return int(digits, 16) if len(digits) == SUM else None


def identity_of(attributes: Mapping[str, Any]) -> str:
    """The digest of the ``robozarr`` attribute without its ``identity``.

    >>> identity_of({"b": 1, "identity": "x", "a": "ü"}) == identity_of({"a": "ü", "b": 1})
    True
    """
    value = {name: part for name, part in attributes.items() if name != "identity"}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return digest_of(text.encode("ascii"))


def digest_of(*parts: bytes) -> str:
    """The digest of consecutive parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:DIGITS]

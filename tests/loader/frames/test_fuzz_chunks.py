"""A short run of the fuzzer of chunks; ``make fuzz`` does a million. And whether it would see decoders that disagree."""

from __future__ import annotations

import pytest
from effort import some
from fuzz_chunks import compare

from robozarr.schemas import shard
from robozarr.schemas.layout import ArrayLayout

N = some(4000, 1200)
"""Chunks."""


def test_decoders_agree() -> None:
    kinds, wrong = compare(range(N), 11)
    assert wrong == []
    assert set(kinds) == {"decoded", "refused"}
    assert min(kinds.values()) > N // 10


def test_it_sees_where_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the form that both ask for, numcodecs decodes what the compiled code refuses."""

    def only_sizes(chunk: bytes, layout: ArrayLayout, n_bytes: int) -> None:
        if len(chunk) < 16 or int.from_bytes(chunk[12:16], "little") != len(chunk):
            raise ValueError("length")

    monkeypatch.setattr(shard, "check_compressed", only_sizes)
    kinds, wrong = compare(range(N), 11)
    assert wrong
    assert kinds["other values"] > N // 400

"""Run every row of the bucket benchmark once on little data and 2 ms of delay, as a plain test."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow(reason="every way over HTTP is tried")
def test_every_row_has_finite_numbers(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options: list[str | Path] = [
        "--rounds",
        "1",
        "--batches",
        "3",
        "--latency-ms",
        "2",
        "--steps",
        "700",
        "--cached-steps",
        "300",
    ]
    command = [sys.executable, HERE / "bench_remote.py", *options, "--scratch", tmp_path, "--json", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())

    rows, cache = result["rows"], result["cache"]
    remote = {f"{n} in flight, {order}" for n in (1, 2, 4, 8, 16) for order in ("random", "default")}
    local = {"local store, random", "local store, default"}
    assert set(rows) == {"one request at a time", *remote, *local}
    epochs = {f"{way}, {which}" for way in ("out of cache_dir", "local store") for which in ("first of a run", "next ones")}
    assert set(cache) == {"into cache_dir", *epochs}
    for name, row in [*rows.items(), *cache.items()]:
        assert name in done.stdout
        assert all(math.isfinite(value) and value >= 0 for value in row.values())
        assert 0 < row["windows_per_s_min"] <= row["windows_per_s"] <= row["windows_per_s_max"]
        asks = name in remote or name in ("one request at a time", "into cache_dir")
        assert row["requests_per_window"] > 0 or not asks, name
    assert cache["out of cache_dir, next ones"]["requests_per_window"] == 0
    assert rows["one request at a time"]["to_one"] == 1
    assert str(tmp_path) not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]

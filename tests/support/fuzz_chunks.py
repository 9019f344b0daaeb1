"""Change bytes of Blosc chunks and decode them by both decoders: the same bytes from both, or both refuse.

    python tests/support/fuzz_chunks.py [--runs 1000000] [--seed 0]

Chunks have right checksums, so that decoders are all that stands between it and a batch. ``schemas.shard`` (numcodecs, which
tables and ``verify`` use) is held against the loader's compiled code (c-blosc2). Around the memory that is decoded into stand
guards. Runs are done in child processes under a memory limit; one that dies is counted, and named by its seed.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import subprocess
import sys
import time
from collections import Counter
from typing import Any, Final

import google_crc32c
import numcodecs
import numpy as np
from numpy.typing import NDArray

from robozarr.loader.frames.kernel import ABSENT, OK, BatchRows, ThreadBuffers, decode_rows, shards_of
from robozarr.schemas.errors import RoboZarrError
from robozarr.schemas.layout import ArrayLayout, CodecName
from robozarr.schemas.shard import decode_chunk

__all__ = ["compare"]

GUARD: Final = 0xA5
GUARD_BYTES: Final = 256
BATCH: Final = 50_000
LIMIT_S: Final = 600
MEMORY_BYTES: Final = 2 * 2**30
"""On top of what the process takes before its first chunk."""
SIZES: Final = (1, 15, 63, 64, 128, 192, 1024, 1023, 4096, 6912, 40_000)
DTYPES: Final = ("uint8", "uint16", "float32", "float64")


def good_chunk(rng: random.Random) -> tuple[bytes, ArrayLayout]:
    """A chunk that an encoder wrote, and the array that it belongs to."""
    codec, dtype, n = rng.choice(("lz4", "zstd")), rng.choice(DTYPES), rng.choice(SIZES)
    size = np.dtype(dtype).itemsize
    kind = rng.randrange(3)
    noise = np.frombuffer(rng.randbytes(n * size), np.uint8)
    values = (noise, np.arange(n * size) // 7 % 251, np.where(np.arange(n * size) % 300 < 200, 0, noise))[kind].astype(np.uint8)
    shuffle = numcodecs.Blosc.NOSHUFFLE if size == 1 else numcodecs.Blosc.SHUFFLE
    chunk = bytes(numcodecs.Blosc(codec, rng.choice((1, 5, 9)), shuffle).encode(values.view(dtype)))
    name: CodecName = "blosc-lz4" if codec == "lz4" else "blosc-zstd"
    layout = ArrayLayout(
        path="steps/x", shape=(1, n), dtype=dtype, dims=("step", "x"), chunk_rows=1, shard_rows=1, codec=name, level=5
    )
    return chunk, layout


def mutate(chunk: bytes, rng: random.Random) -> bytes:
    """The chunk with some bytes changed, most of them where its form is said."""
    changed = bytearray(chunk)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.randrange(10)
        if kind < 3:  # the header
            changed[rng.randrange(min(16, len(changed)))] = rng.choice((rng.randrange(256), 1 << rng.randrange(8), 0, 255))
        elif kind < 5 and len(changed) > 24:  # where blocks begin, and how long their parts are
            at = 16 + 4 * rng.randrange(min(6, (len(changed) - 16) // 4))
            value = rng.choice((0, -1, 1, len(changed), len(changed) - 4, rng.randrange(-300, 2**16), 2**31 - 1))
            changed[at : at + 4] = struct.pack("<i", value)
        elif kind == 5:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        elif kind == 6 and len(changed) > 17:
            del changed[rng.randrange(16, len(changed)) :]
        elif kind == 7:
            changed += rng.randbytes(rng.randrange(1, 40))
        elif kind == 8:  # Blosc 2's longer header
            changed[2] |= 5
            changed[16:16] = bytes(15) + bytes([rng.randrange(8) << 4])
        else:
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))
        if len(changed) >= 16 and rng.random() < 0.8:
            changed[12:16] = struct.pack("<I", len(changed))
    return bytes(changed)


def by_numcodecs(data: bytes, layout: ArrayLayout) -> bytes | None:
    """What tables and ``verify`` decode; None: refused."""
    rows = np.empty((1, layout.shape[1]), layout.dtype)
    try:
        decode_chunk(data, np.array([[0, len(data)]], np.uint64), layout, 0, 0, rows)
    except RoboZarrError:
        return None
    return rows.tobytes()


def by_kernel(data: bytes, layout: ArrayLayout, buffers: ThreadBuffers) -> bytes | None:
    """What the loader decodes; None: refused."""
    shards = shards_of(layout, np.empty(0, np.uint32), "", "", ABSENT)
    shards.edges[:2] = 0, len(data)
    encoded = np.frombuffer(data, np.uint8)
    zero: NDArray[np.int64] = np.zeros(1, np.int64)
    rows = BatchRows(zero, np.array([0, 1]), zero)
    memory = np.full(layout.row_bytes + 2 * GUARD_BYTES, GUARD, np.uint8)
    out = memory[GUARD_BYTES:-GUARD_BYTES].reshape(1, -1)
    spans = np.array([[encoded.ctypes.data, 0, len(data)]], np.int64)
    code = decode_rows(shards, rows, zero, zero, spans, out, buffers.of(layout.row_bytes))
    if (memory[:GUARD_BYTES] != GUARD).any() or (memory[-GUARD_BYTES:] != GUARD).any():
        raise AssertionError("wrote outside its memory")
    return out.tobytes() if code == OK else None


def compare(runs: range, seed: int) -> tuple[Counter[str], list[str]]:
    """Do numbered runs: counts of both decoded, both refused, and of what must not be, with words for each of these."""
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    buffers = ThreadBuffers()
    chunk, layout = b"", None
    for number in runs:
        if layout is None or number % 20 == 0:
            chunk, layout = good_chunk(random.Random(f"{seed}/good/{number // 20}"))
        rng = random.Random(f"{seed}/{number}")
        changed = chunk if rng.random() < 0.02 else mutate(chunk, rng)
        data = changed + struct.pack("<I", google_crc32c.value(changed))
        try:
            found: tuple[Any, Any] = by_numcodecs(data, layout), by_kernel(data, layout, buffers)
            kind = "other values" if found[0] != found[1] else "refused" if found[0] is None else "decoded"
        except Exception as exc:
            kind = f"raw error {exc!r}"
        kinds[kind.partition(" Error")[0][:40]] += 1
        if kind not in ("refused", "decoded") or (changed == chunk and kind != "decoded"):
            wrong.append(f"seed {seed}, run {number}: {kind}: {changed[:48].hex()}")
    return kinds, wrong


def limit_memory() -> None:
    """Let this process take so much more and no more."""
    import mmap
    from pathlib import Path

    now = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, resource.RLIM_INFINITY))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first run: to repeat some")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="in this process; what children are started with")
    options = parser.parse_args()
    runs = range(options.first, options.first + options.runs)
    if options.here:
        compare(range(1), options.seed)  # compiles
        limit_memory()
        kinds, wrong = compare(runs, options.seed)
        print(json.dumps([kinds, wrong]))
        return
    began, kinds, wrong = time.monotonic(), Counter[str](), list[str]()
    for first in range(runs.start, runs.stop, BATCH):
        n = min(BATCH, runs.stop - first)
        command = [sys.executable, __file__, "--here", "--seed", str(options.seed), "--first", str(first), "--runs", str(n)]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            found = json.loads(child.stdout) if child.returncode == 0 else None
            died = f"crashes ({child.returncode}): {child.stderr[-300:]}"
        except subprocess.TimeoutExpired:
            found, died = None, "hangs"
        if found is None:
            kinds[died.partition(" ")[0]] += 1
            wrong.append(f"seed {options.seed}, runs {first} to {first + n}: {died}")
        else:
            kinds.update(found[0])
            wrong += found[1]
        print(f"\r{first + n} chunks, {len(wrong)} wrong", end="", file=sys.stderr, flush=True)
    print("\n".join(wrong[:20]))
    counts = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    zero = ", ".join(f"{kind} {kinds[kind]}" for kind in ("crashes", "hangs", "other values") if kind not in counts)
    raw = sum(n for kind, n in kinds.items() if kind.startswith("raw"))
    print(f"chunks: {kinds.total()} in {time.monotonic() - began:.0f} s: {counts}; {zero}, raw errors {raw}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

"""The contenders that ``bench_convert`` times: other tools, robozarr and the limits, with a check of each result.

Every contender turns the same source files into something in an empty folder. Nothing here measures time.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from robozarr.convert import convert, verify
from robozarr.convert.planning.plan import Plan, make_plan
from robozarr.convert.sources.detect import json_object
from robozarr.convert.stages import scan_sources
from robozarr.convert.workers.cluster import local_executor
from robozarr.convert.workers.progress import SilentProgress
from robozarr.convert.writing.shard import encode_shard
from robozarr.convert.writing.write import read_partition
from robozarr.schemas.index import FlagRules
from robozarr.schemas.layout import FRAME_CODECS, PROFILES, ArrayLayout, Profile
from robozarr.schemas.shard import decode_shard

__all__ = ["Contender", "WorkTime", "contenders", "plan_sources"]

FRAMES_IN_MEMORY_BYTES: Final = 512 * 2**20
"""Most frames that the bare loops hold in memory; for a larger source, shards are chosen evenly across it."""

Role = Literal["peer", "limit", "robozarr", "start-up"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """One shard's frames, in memory."""

    shard: int
    layouts: dict[Profile, ArrayLayout]
    rows: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One row of the benchmark."""

    name: str
    role: Role
    n_bytes: int
    """Bytes that its speed is computed from: the source files, or the frames in memory; 0 for a start-up."""
    run: Callable[[Path], float | None]
    """The code that is timed; it writes to an empty folder. Returns the seconds during which workers were running, if known."""
    check: Callable[[Path], None]
    """Raises an error if the output of `run` is wrong. Not timed."""
    profile: Profile | None = None
    workers: int | None = None
    """Number of Dask workers; 0 runs in this process."""


def contenders(files: Sequence[Path], workers: Sequence[int]) -> Iterator[Contender]:
    """Every row, other tools first."""
    plans = plan_sources(files)
    n_bytes = sum(file.stat().st_size for file in files)
    frames = _load_frames(plans)
    n_frame_bytes = sum(shard.rows.nbytes for shard in frames)
    peer = partial(Contender, role="peer", n_bytes=n_bytes)
    yield peer(name="cp", run=partial(_copy, files, sync=False), check=partial(_check_copy, n_bytes))
    yield peer(name="cp + fsync", run=partial(_copy, files, sync=True), check=partial(_check_copy, n_bytes))
    yield peer(name="h5py read", run=partial(_read_all, files), check=_check_nothing)
    of_others = [profile for profile in PROFILES if profile not in FRAME_CODECS]  # keyframes are robozarr's own
    for profile, pipeline in product(of_others, ("zarr-python", "zarrs")):
        if pipeline == "zarr-python" or importlib.util.find_spec("zarrs"):
            plan = plans[profile]
            write = partial(_write_zarr, plan, pipeline)
            yield peer(name=f"{pipeline} {profile}, 1 thread", profile=profile, run=write, check=partial(_check_zarr, plan))
    for sync, suffix in ((False, ""), (True, " + fsync")):
        for profile in PROFILES:
            yield Contender(
                name=f"bare loop {profile}{suffix}",
                role="limit",
                n_bytes=n_frame_bytes,
                profile=profile,
                run=partial(_encode_frames, frames, profile, sync),
                check=partial(_check_frames, frames, profile),
            )
    sizes: dict[Profile, int] = {}
    for n_workers in (0, *workers):
        for profile in PROFILES:
            yield Contender(
                name=f"robozarr {profile}, {_workers_text(n_workers)}",
                role="robozarr",
                n_bytes=n_bytes,
                profile=profile,
                workers=n_workers,
                run=partial(_convert, files, profile, n_workers),
                check=partial(_check_store, profile, sizes),
            )
    for n_workers in workers:
        yield Contender(
            name=f"start-up, {_workers_text(n_workers)}",
            role="start-up",
            n_bytes=0,
            workers=n_workers,
            run=partial(_start_up, n_workers),
            check=_check_nothing,
        )


def _workers_text(n_workers: int) -> str:
    return "inline" if n_workers == 0 else f"{n_workers} worker{'s' * (n_workers > 1)}"


def plan_sources(files: Sequence[Path]) -> dict[Profile, Plan]:
    """The plan of robozarr for `files`, by profile; the plans differ only in the codec."""
    rules = FlagRules()
    with local_executor(0) as executor:
        scans = scan_sources(executor, files, rules, None, SilentProgress())
    return {profile: make_plan(scans, profile=profile, rules=rules) for profile in PROFILES}


def _check_nothing(out: Path) -> None:
    """The check for a contender that writes nothing."""


# cp


def _copy(files: Sequence[Path], out: Path, *, sync: bool) -> None:
    top = Path(os.path.commonpath([file.parent for file in files]))
    names = [str(file.relative_to(top)) for file in files]
    subprocess.run(["cp", "--parents", "-t", str(out), *names], cwd=top, check=True)
    for name in names if sync else ():
        descriptor = os.open(out / name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _check_copy(n_bytes: int, out: Path) -> None:
    copied = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if copied != n_bytes:
        raise RuntimeError(f"cp copied {copied} bytes of {n_bytes}")


# h5py


def _read_all(files: Sequence[Path], out: Path) -> None:
    def read(path: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            item[()]

    for path in files:
        with h5py.File(path, "r") as file:
            file.visititems(read)


# zarr-python, and its arrays with the pipeline of zarrs: the same columns, chunks, shards and codecs; no tables, no statistics,
# no fsync. One codec thread each.

PIPELINES: Final[dict[str, dict[str, Any]]] = {
    "zarr-python": {"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"},
    "zarrs": {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.chunk_concurrent_maximum": 1},
}


def _write_zarr(plan: Plan, pipeline: str, out: Path) -> None:
    with zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1, **PIPELINES[pipeline]}):
        arrays = {column.layout.path: _create(out, column.layout) for column in plan.columns}
        for partition in plan.partitions():
            start, stop = partition.layout.rows_of_shard(partition.shard)
            arrays[partition.layout.path][start:stop] = read_partition(partition)


def _create(out: Path, layout: ArrayLayout) -> zarr.Array[Any]:
    return zarr.create_array(
        str(out),
        name=layout.path,
        shape=layout.shape,
        dtype=layout.dtype,
        chunks=(layout.chunk_rows, *layout.shape[1:]),
        shards=(layout.shard_rows, *layout.shape[1:]),
        compressors=[*_compressors(layout), zarr.codecs.Crc32cCodec()],
        fill_value=0,
    )


def _compressors(layout: ArrayLayout) -> list[Any]:
    if layout.codec == "none":
        return []
    if layout.codec == "zstd":
        return [zarr.codecs.ZstdCodec(level=layout.level)]
    name = layout.codec.removeprefix("blosc-")
    return [zarr.codecs.BloscCodec(cname=name, clevel=layout.level, shuffle=layout.shuffle)]  # type: ignore[arg-type]


def _check_zarr(plan: Plan, out: Path) -> None:
    for partition in plan.partitions():
        start, stop = partition.layout.rows_of_shard(partition.shard)
        array = zarr.open_array(str(out / partition.layout.path), mode="r")
        if np.asarray(array[start:stop]).tobytes() != read_partition(partition).tobytes():
            raise RuntimeError(f"zarr-python wrote other values to {partition.layout.path}, shard {partition.shard}")


# the limit: frames already in memory, encoded and written, nothing else


def _load_frames(plans: dict[Profile, Plan]) -> list[Frames]:
    by_profile = {
        profile: [partition for partition in plan.partitions() if partition.key is not None and partition.key.frame]
        for profile, plan in plans.items()
    }
    partitions = by_profile["raw"]
    stride = max(1, -(-sum(partition.n_bytes for partition in partitions) // FRAMES_IN_MEMORY_BYTES))
    return [
        Frames(
            shard=partitions[number].shard,
            layouts={profile: by_profile[profile][number].layout for profile in plans},
            rows=read_partition(partitions[number]),
        )
        for number in range(0, len(partitions), stride)
    ]


def _encode_frames(frames: Sequence[Frames], profile: Profile, sync: bool, out: Path) -> None:
    for shard in frames:
        data = encode_shard(shard.rows, shard.layouts[profile])
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())


def _check_frames(frames: Sequence[Frames], profile: Profile, out: Path) -> None:
    first = frames[0]
    layout = first.layouts[profile]
    if decode_shard(encode_shard(first.rows, layout), layout, first.shard).tobytes() != first.rows.tobytes():
        raise RuntimeError(f"a shard of profile {profile} does not decode to what was encoded")


# robozarr


class WorkTime(SilentProgress):
    """Records when the first stage begins (workers are running by then) and when the last item is finished."""

    _began: float | None = None
    _ended = 0.0

    def start(self, stage: str, total: int, n_bytes: int = 0) -> None:
        self._began = self._began or time.perf_counter()

    def advance(self, n: int = 1, n_bytes: int = 0) -> None:
        self._ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds between the two."""
        assert self._began is not None
        return self._ended - self._began


def _convert(files: Sequence[Path], profile: Profile, n_workers: int, out: Path) -> float:
    work = WorkTime()
    convert(files, out / "store.zarr", profile=profile, workers=n_workers, progress=work)
    return work.seconds


def _check_store(profile: Profile, sizes: dict[Profile, int], out: Path) -> None:
    """Verify the first store of a profile; later ones only need the same size."""
    store = out / "store.zarr"
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    if profile not in sizes:
        report = verify(store, workers=0)
        if not report.ok:
            raise RuntimeError(f"the store of profile {profile} breaks {len(report.violations)} rules: {report.violations[0]}")
        sizes[profile] = size
    if size != sizes[profile]:
        raise RuntimeError(f"a store of profile {profile} has {size} bytes, the verified one {sizes[profile]}")


def _start_up(n_workers: int, out: Path) -> None:
    """A conversion without work: workers start, import robozarr.convert, run one trivial task each, and stop."""
    with local_executor(n_workers) as executor:
        list(executor.run(json_object, ["{}"] * n_workers))

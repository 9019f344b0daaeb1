"""Diffusion policy's ReplayBuffer as a source: a Zarr v2 group in a ZIP file or a folder. The only source read by zarr.

real-stanford/diffusion_policy, diffusion_policy/common/replay_buffer.py (5ba07ac6661db573af695b419a7947ecb704690f). Zarr reads
a chunk that is missing as fill values, so every chunk must be there.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.convert.records import DatasetInfo, DemoScan, FileScan
from robozarr.convert.sources.detect import first_not_finite
from robozarr.convert.sources.not_hdf5 import AGAIN, LEAVE_OUT, EpisodesFile, demo_of, describe, rules_of
from robozarr.schemas.errors import Problem
from robozarr.schemas.index import FlagRules
from robozarr.schemas.limits import MOST_CHUNK_BYTES
from robozarr.schemas.metadata import NOT_WANTED
from robozarr.schemas.source import is_called
from robozarr.schemas.words import first_line

__all__ = ["ReplayBufferFile", "files_of", "is_replay_buffer", "replay_buffer_in", "scan_replay_buffer"]

ROOT: Final = ".zgroup"
ACTION: Final = "action"
ENDS: Final = "meta/episode_ends"
MOST: Final = 1 << 24
"""Most episodes, and most chunks of an array: more are made to exhaust memory. As frames 230 hours at 20 a second."""


def is_replay_buffer(path: str | Path) -> bool:
    """Whether a path is that of a ReplayBuffer: a ZIP file, or the file ``.zgroup`` in its folder."""
    return Path(path).name == ROOT or Path(path).suffix.lower() == ".zip"


def replay_buffer_in(folder: Path) -> Path | None:
    """The path that stands for a ReplayBuffer in a folder; None if it is none."""
    return folder / ROOT if (folder / ROOT).is_file() and (folder / "meta" / "episode_ends" / ".zarray").is_file() else None


def files_of(path: str | Path) -> list[Path]:
    """The other files of a ReplayBuffer in a folder, in order."""
    root = Path(path).parent
    return sorted(each for each in root.rglob("*") if each.is_file() and each != Path(path)) if Path(path).name == ROOT else []


class ReplayBufferFile(EpisodesFile):
    """One ReplayBuffer, open for reading."""

    def __init__(self, path: str | Path) -> None:
        import zarr  # only here: converting HDF5 has no use for it
        from zarr.storage import LocalStore, ZipStore

        super().__init__(path)
        try:
            source = Path(path)
            self._store: Any = LocalStore(source.parent, read_only=True) if source.name == ROOT else ZipStore(source, mode="r")
            # the arrays' own documents: upstream never writes a copy of them, and one that others left may be older
            root: Any = zarr.open_group(self._store, mode="r", zarr_format=2, use_consolidated=False)
            ends = root[ENDS]
            if ends.ndim != 1 or ends.dtype.kind not in "iu" or ends.size > MOST or _lacks_chunks(ends):
                raise ValueError(f"{ENDS} of {ends.dtype} {ends.shape}, or without some of its chunks")
            self.ends = np.asarray(ends[:], np.int64)
            self.names = names_in(source)
            self.arrays: dict[str, Any] = {}
            for name in sorted(name for name in self.names if name.startswith("data/")):
                item = root[name]
                if _is_array(item):
                    self.arrays[name.removeprefix("data/")] = item
                elif self.names[name]:
                    raise ValueError(f"{name}/.zarray is no array's document")
            made = root.attrs.asdict().get("robozarr")
        except Exception as exc:  # zarr and zipfile raise classes of their own
            rule = "the file must be a ReplayBuffer: data/, and meta/episode_ends, of Zarr v2"
            raise self.error(rule, f"{type(exc).__name__}: {first_line(exc)}", AGAIN) from exc
        self.made: Mapping[str, Any] = made if isinstance(made, dict) else {}
        if not self.ends.size or (np.diff(self.ends, prepend=0) <= 0).any():
            raise self.error(f"{ENDS} must ascend from 1", f"{self.ends.tolist()[:8]}", AGAIN)
        self.demos = {demo_of(i): rows for i, rows in enumerate(pairwise([0, *self.ends.tolist()]))}
        """Rows [start, stop) of each episode."""

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def read_rows(self, demo: str, dataset: str, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows [start, stop) of an episode's array, into `out` [stop - start, …] if given."""
        begin, _ = self.demos[demo]
        try:
            values: NDArray[Any] = np.asarray(self.arrays[dataset][begin + start : begin + stop])
            if out is None:
                return values
            if values.dtype.newbyteorder("=") != out.dtype or values.size != out.size:
                raise ValueError(f"{values.dtype} {values.shape}, not {out.dtype} {out.shape}")
            out[...] = values.reshape(out.shape)
        except Exception as exc:  # zarr, zipfile and codecs raise classes of their own
            raise self.error(f"steps {start} to {stop} cannot be read", first_line(exc), AGAIN, demo, dataset) from exc
        return out

    read_frames = read_rows


def scan_replay_buffer(
    path: str, rules: FlagRules, selected: tuple[str, ...] | None = None, without: tuple[str, ...] = ()
) -> FileScan:
    """Scan a ReplayBuffer; parameters and result as for ``scan_file``.

    Raises
    ------
    SourceError
        If it cannot be read at all.
    """
    with ReplayBufferFile(path) as source:
        return _Scan(source, rules, selected, without).run()


class _Scan:
    """The scan of one open ReplayBuffer."""

    def __init__(
        self, source: ReplayBufferFile, rules: FlagRules, selected: tuple[str, ...] | None, without: tuple[str, ...]
    ) -> None:
        self.source, self.selected, self.without = source, selected, without
        self.rules = rules_of(rules, source.made)
        self.problems: list[Problem] = []
        self.not_stored: Counter[tuple[str, str]] = Counter()

    def run(self) -> FileScan:
        """The scan."""
        source = self.source
        status, path = Path(source.path).stat(), Path(source.path)
        root = path.parent if path.name == ROOT else path
        arrays = self._arrays()
        demos = []
        if ACTION not in arrays and not self.problems:
            self._problem(ACTION, "a ReplayBuffer must have data/action [n, dim]", "none", "name it so")
        elif ACTION in arrays:
            demos = [demo for name in source.demos if (demo := self._demo(name, arrays))]
        other = [name for name in source.names if name != ENDS and name.removeprefix("data/") not in source.arrays]
        not_stored = [*self.not_stored.items(), *(((name, "no array of steps in data/"), 0) for name in other)]
        frequency = source.made.get("control_freq")
        if not isinstance(frequency, int | float) or isinstance(frequency, bool) or not 0 < frequency < math.inf:
            frequency = None
        return FileScan(
            path=source.path,
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            problems=tuple(self.problems),
            demos=tuple(demos),
            not_stored=tuple((name, n, why) for (name, why), n in sorted(not_stored)),
            suite=root.parent.name,
            task=root.name.removesuffix(".zip").removesuffix(".zarr"),
            control_freq=None if frequency is None else float(frequency),
            usual_freq=None,
            layout="replay_buffer",
            called=tuple((name, _key(name)) for name in sorted({name for name, _ in self.not_stored})),
        )

    def _problem(self, key: str, rule: str, value: str, remedy: str, demo: str = "") -> None:
        self.problems.append(Problem(file=self.source.path, demo=demo, key=key, rule=rule, value=value, remedy=remedy))

    def _arrays(self) -> dict[str, Any]:
        """Arrays that become keys; what is wrong with one is a problem of the whole file."""
        source, n = self.source, len(self.source.ends)
        kept = {}
        for name, array in source.arrays.items():
            other = f"leave it out with --without {_key(name)}"
            if name != ACTION and is_called(name, self.without, _key(name)):
                self.not_stored[name, NOT_WANTED] += n
            elif self.selected is not None and name != ACTION and not {name, _key(name)} & set(self.selected):
                self.not_stored[name, "not asked for (--keys)"] += n
            elif array.dtype.kind not in "biuf":
                self.not_stored[name, f"no numbers: {array.dtype}"] += n
            elif not array.shape or array.shape[0] != source.ends[-1]:
                value = f"{array.shape} and {source.ends[-1]} steps"
                self._problem(name, "an array must have one row per step", value, other)
            elif math.prod(array.chunks) * array.dtype.itemsize > MOST_CHUNK_BYTES or array.nchunks > MOST:
                rule = f"a chunk must have at most {MOST_CHUNK_BYTES >> 30} GiB, an array at most {MOST} chunks"
                self._problem(name, rule, f"{array.nchunks} of {array.chunks}, {array.dtype}", f"write it anew, or {other}")
            elif _lacks_chunks(array):
                value = f"{array.nchunks_initialized} of {array.nchunks}"
                self._problem(name, "every chunk must be there: zarr reads a missing one as fill values", value, AGAIN)
            else:
                try:
                    source.read_rows(demo_of(0), name, 0, 1)
                except Exception as exc:  # a codec that is not installed, such as upstream's JPEG 2000, raises what it likes
                    self._problem(
                        name, "the array must be decodable", first_line(exc), f"write it with another codec, or {other}"
                    )
                else:
                    kept[name] = array
        return kept

    def _demo(self, demo: str, arrays: Mapping[str, Any]) -> DemoScan | None:
        source, number, made = self.source, int(demo.rpartition("_")[2]), self.source.made
        start, stop = source.demos[demo]
        actions = source.read_rows(demo, ACTION, 0, stop - start)
        if actions.ndim != 2 or not actions.shape[1]:
            self._problem(ACTION, "actions must be numbers [steps, n]", str(actions.shape), LEAVE_OUT, demo)
            return None
        if value := first_not_finite(actions):
            self._problem(ACTION, "actions must be finite", value, LEAVE_OUT, demo)
            return None
        infos = tuple(
            DatasetInfo(
                path=name, shape=(stop - start, *array.shape[1:]), dtype=array.dtype.newbyteorder("=").name,
                stored_as=str(array.dtype), name=_key(name), role="action" if name == ACTION else "",
            )
            for name, array in arrays.items()
        )  # fmt: skip
        facts = {name: _of(made, name, number) for name in ("alignment", "instruction", "pictures", "success")}
        words = facts["instruction"] if isinstance(facts["instruction"], str) else ""
        joints_at = partial(source.read_rows, demo, start=0, stop=stop - start)
        return describe(demo, actions, infos, made.get("joint_key"), joints_at, facts, self.rules, words)


def names_in(path: Path) -> dict[str, bool]:
    """Everything in the groups, such as ``data/img``, even if it cannot be opened → whether it has an array's document."""
    if path.name == ROOT:
        inner = [each for group in path.parent.iterdir() if group.is_dir() for each in group.iterdir() if each.is_dir()]
        return {f"{each.parent.name}/{each.name}": (each / ".zarray").is_file() for each in inner}
    with zipfile.ZipFile(path) as archive:
        files = set(archive.namelist())
    names = {"/".join(file.split("/")[:2]) for file in files if file.count("/") > 1}
    return {name: f"{name}/.zarray" in files for name in names}


def _lacks_chunks(array: Any) -> bool:
    return bool(array.nchunks_initialized != array.nchunks)


def _key(name: str) -> str:
    return {ACTION: "actions", "actions": "data.actions"}.get(name, name)


def _of(made: Mapping[str, Any], name: str, number: int) -> Any:
    """What an export states for an episode; None if it states nothing."""
    values = made.get(name)
    return values[number] if isinstance(values, list) and number < len(values) else None


def _is_array(item: object) -> bool:
    return hasattr(item, "nchunks_initialized")

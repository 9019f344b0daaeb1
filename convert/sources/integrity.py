"""Check that all values of a dataset are really there. Reads no values.

HDF5 makes up the fill value for what was never written, for virtual datasets whose sources are gone, and for external raw
files that are short.
A fill value that a program *wrote*, and storage that was set aside early and never written, cannot be told from data.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from robozarr.convert.records import Fault
from robozarr.convert.sources.links import candidates, name_text, put_back
from robozarr.convert.sources.mappings import Axes, Mapping, TooFineError, first_uncovered_row, mappings_of
from robozarr.schemas.limits import MOST_CHUNK_BYTES, MOST_STEP_BYTES

__all__ = ["Integrity", "too_large_step"]

DEPTH: Final = 32
"""How many levels of virtual datasets of virtual datasets are followed."""
NEVER: Final = "nothing was ever written to it"
PARTLY: Final = "a part of it was never written"
VIRTUAL: Final = "a virtual dataset lacks values"
EXTERNAL: Final = "a dataset's external file lacks values"
LARGE_CHUNK: Final = f"a chunk, which HDF5 unpacks whole, must have at most {MOST_CHUNK_BYTES / 1e9:.1f} GB"
LARGE_STEP: Final = f"a step of a key must have at most {MOST_STEP_BYTES / 1e6:.0f} MB"
PACKED: Final = "its values are packed by a filter that is not installed here"
RECORD_AGAIN: Final = (
    "record or copy it again, or leave it out with --on-error skip (if the fill value is meant, write it to the file)"
)
PLUGINS: Final = (
    "pip install hdf5plugin, then: "
    "export HDF5_PLUGIN_PATH=$(python -c 'import hdf5plugin; print(hdf5plugin.PLUGIN_PATH)'); run the same command again"
)
FILTERS: Final = {
    305: "LZO", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP",
    32015: "Zstandard", 32017: "SZ", 32018: "FCIDECOMP", 32024: "SZ3", 32026: "Blosc2", 32028: "SPERR",
}  # fmt: skip
"""Names of registered filters, for messages."""


class Integrity:
    """Checks datasets of one open file; it opens each file that its virtual datasets point to at most once."""

    def __init__(self, open_file: Callable[[str], Any]) -> None:
        self._open_file = open_file
        self._files: dict[str, Any] = {}
        self._raw: set[str] = set()
        self._faults: dict[tuple[int, int], Fault | None] = {}

    def close(self) -> None:
        """Close the other files."""
        for file in self._files.values():
            if file is not None:
                file.close()
        self._files.clear()

    @property
    def other_files(self) -> set[str]:
        """Paths of the other files that values were found in."""
        return {path for path, file in self._files.items() if file is not None} | self._raw

    def fault(self, dataset: Any, *, written: bool = True, depth: int = 0) -> Fault | None:
        """Why values of an h5py dataset are missing; None if all are there.

        `written` False looks at other files only: those can go while a conversion runs.
        """
        if dataset.id.get_offset() is not None:  # contiguous, in this file, and there: LIBERO's all are
            return None
        if dataset.shape is None:
            return None
        made = dataset.id.get_create_plist()
        kind = made.get_layout()
        if kind == h5py.h5d.VIRTUAL:  # even one without rows: it grows with its sources, which may be gone
            try:
                fault = self._virtual_fault(dataset, made, depth)
            except TooFineError as exc:
                fault = Fault(rule=VIRTUAL, value=f"more mappings than can be checked: {exc}", remedy=RECORD_AGAIN)
            return None if fault is None else replace(fault, of_shape=None in dataset.maxshape)
        if not dataset.size:
            return None
        if kind == h5py.h5d.CONTIGUOUS and made.get_external_count():
            return self._external_fault(dataset, made)
        if not written or kind == h5py.h5d.COMPACT:
            return None
        if kind == h5py.h5d.CONTIGUOUS:
            return Fault(rule=NEVER, value=f"no storage; HDF5 reads {_fill(dataset, made)}", remedy=RECORD_AGAIN)
        return _missing_chunks(dataset, made) or _large_chunk(dataset, made) or _missing_filter(dataset, made)

    def _virtual_fault(self, dataset: Any, made: Any, depth: int) -> Fault | None:
        if depth >= DEPTH:
            return Fault(rule=VIRTUAL, value="virtual datasets that point to each other", remedy=RECORD_AGAIN)
        covered: list[Axes] = []
        for mapping in mappings_of(made, dataset.shape):
            source, fault = self._source(dataset.file, mapping, depth)
            if fault is not None:
                return fault
            part = mapping.covered(dataset.shape, source)
            if part is None:
                value = f"{_source_words(mapping)} has the shape {source} now, too small for what is taken from it"
                return Fault(rule=VIRTUAL, value=value, remedy=RECORD_AGAIN)
            covered += part
        row = first_uncovered_row(covered, dataset.shape)
        if row is None:
            return None
        value = f"no source for row {row}; HDF5 reads {_fill(dataset, made)}"
        return Fault(rule=VIRTUAL, value=value, remedy=RECORD_AGAIN)

    def _source(self, owner: Any, mapping: Mapping, depth: int) -> tuple[tuple[int, ...], Fault | None]:
        """Shape of a mapping's source, and why its values are missing."""
        file = owner if mapping.file == "." else self._source_file(owner, mapping.file)
        if file is None:
            value = f"{mapping.file}, a file that is not there or is not readable HDF5"
            return (), Fault(rule=VIRTUAL, value=value, remedy=put_back(mapping.file, "HDF5_VDS_PREFIX"))
        try:
            source = file.get(mapping.dataset)
        except (RuntimeError, OSError, KeyError):
            source = None
        if not isinstance(source, h5py.Dataset):
            value = f"{_source_words(mapping)} is not there"
            return (), Fault(rule=VIRTUAL, value=value, remedy=RECORD_AGAIN)
        fault = self._known(source, depth)
        if fault is not None:
            fault = replace(fault, value=f"in its source {_source_words(mapping)}: {fault.value}")
        return tuple(source.shape or ()), fault

    def _external_fault(self, dataset: Any, made: Any) -> Fault | None:
        """Find raw files of a dataset that are missing or too short."""
        prefix = os.environ.get("HDF5_EXTFILE_PREFIX") or name_text(dataset.id.get_access_plist().get_efile_prefix() or b"")
        folder = os.path.dirname(os.path.abspath(dataset.file.filename))  # noqa: PTH100, PTH120 - resolve() follows links
        left = math.prod(dataset.shape) * dataset.id.get_type().get_size()
        for i in range(made.get_external_count()):
            name, offset, size = made.get_external(i)
            path = Path(prefix.replace("${ORIGIN}", folder), name_text(name))  # without a prefix: from the working folder
            wanted = offset + min(left, size)
            there = path.stat().st_size if path.is_file() else None
            if there is None:
                near = Path(folder, path.name).is_file()
                remedy = put_back(name_text(name), "HDF5_EXTFILE_PREFIX")
                remedy = "export HDF5_EXTFILE_PREFIX='${ORIGIN}' (the file lies beside), and run again" if near else remedy
                value = f"{path}, a file of raw values, is not there"
                return Fault(rule=EXTERNAL, value=value, remedy=remedy)
            self._raw.add(str(path))
            if there < wanted:
                value = f"{path} has {there} bytes of {wanted}; HDF5 reads zeros for the rest"
                return Fault(rule=EXTERNAL, value=value, remedy="copy that file again, or leave it out with --on-error skip")
            left -= min(left, size)
        return None

    def _known(self, source: Any, depth: int) -> Fault | None:
        """The fault of a source dataset, checked once because many mappings may point to it."""
        info = h5py.h5o.get_info(source.id)
        if (info.fileno, info.addr) not in self._faults:
            self._faults[info.fileno, info.addr] = self.fault(source, depth=depth + 1)
        return self._faults[info.fileno, info.addr]

    def _source_file(self, owner: Any, name: str) -> Any:
        for place in candidates(owner.filename, name, "HDF5_VDS_PREFIX"):
            path = str(place)
            if path not in self._files:
                try:
                    self._files[path] = self._open_file(path) if place.is_file() else None
                except OSError:
                    self._files[path] = None
            if self._files[path] is not None:
                return self._files[path]
        return None


def _source_words(mapping: Mapping) -> str:
    return f"{mapping.dataset} in {'the same file' if mapping.file == '.' else mapping.file}"


def _missing_chunks(dataset: Any, made: Any) -> Fault | None:
    chunks, n_there = made.get_chunk(), dataset.id.get_num_chunks()
    grid = tuple(-(-size // chunk) for size, chunk in zip(dataset.shape, chunks, strict=True))
    n_all = math.prod(grid)
    if n_there >= n_all:
        return None
    if not n_there:
        return Fault(rule=NEVER, value=f"no storage; HDF5 reads {_fill(dataset, made)}", remedy=RECORD_AGAIN)
    written: list[int] = []  # a claimed size takes no memory: only chunks that are there are counted
    strides = [math.prod(grid[axis + 1 :]) for axis in range(len(grid))]

    def note(info: Any) -> None:
        at = zip(info.chunk_offset, chunks, strides, strict=True)
        written.append(sum(offset // chunk * stride for offset, chunk, stride in at))

    dataset.id.chunk_iter(note)
    gap = next((number for number, at in enumerate(sorted(written)) if at != number), len(written))
    first = gap // strides[0] * chunks[0]
    value = f"{n_all - n_there} of {n_all} chunks are missing, the first at step {first}; HDF5 reads {_fill(dataset, made)}"
    return Fault(rule=PARTLY, value=value, remedy=RECORD_AGAIN)


def _large_chunk(dataset: Any, made: Any) -> Fault | None:
    """Find chunks that would take all memory: zeros are packed a thousand times smaller than they are."""
    n_bytes = math.prod(made.get_chunk()) * dataset.dtype.itemsize
    if n_bytes <= MOST_CHUNK_BYTES:
        return None
    remedy = f"make them smaller: h5repack -l {name_text(dataset.name.encode()).lstrip('/')}:CHUNK=… FILE NEW_FILE"
    return Fault(rule=LARGE_CHUNK, value=f"{n_bytes / 1e9:.1f} GB", remedy=remedy)


def too_large_step(dataset: Any) -> Fault | None:
    """Why one step of a dataset of numbers is more than can be kept; None if it is not."""
    n_bytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize if dataset.shape else 0
    if n_bytes <= MOST_STEP_BYTES:
        return None
    remedy = "leave the key out with --without, or make its steps smaller"
    return Fault(rule=LARGE_STEP, value=f"{n_bytes / 1e6:,.0f} MB", remedy=remedy)


def _missing_filter(dataset: Any, made: Any) -> Fault | None:
    """Find a filter of the chunks that cannot be undone here."""
    for i in range(made.get_nfilters()):
        code, _, _, name = made.get_filter(i)
        if _can_undo(code):
            continue
        skipped: list[bool] = []  # chunks that a filter failed on are stored without it
        dataset.id.chunk_iter(lambda info, i=i, skipped=skipped: skipped.append(bool(info.filter_mask >> i & 1)))
        if not all(skipped):
            words = FILTERS.get(code) or name_text(name).partition(";")[0] or "unknown"
            value = f"HDF5's filter {code} ({words})"
            return Fault(rule=PACKED, value=value, remedy=PLUGINS, of_machine=True)
    return None


@functools.cache
def _can_undo(code: int) -> bool:
    """Whether HDF5 has a filter here and can decode with it; looks for plugins."""
    return bool(h5py.h5z.filter_avail(code)) and bool(h5py.h5z.get_filter_info(code) & h5py.h5z.FILTER_CONFIG_DECODE_ENABLED)


def _fill(dataset: Any, made: Any) -> str:
    """The fill value in words."""
    if dataset.dtype.kind not in "biuf":
        return "a fill value"
    value = np.zeros((), dataset.dtype)
    made.get_fill_value(value)
    return f"the fill value {value.item()}"

"""Read one HDF5 source: demos, values, attributes. Does not know what they mean for a store.

h5py holds one global lock, so files are read in parallel by processes, never by threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from robozarr.convert.records import DatasetInfo, Fault
from robozarr.convert.sources.attributes import attributes_json, bytes_of, read_attribute, text_of
from robozarr.convert.sources.filter_keys import bad_filter_keys, demos_in, filter_keys
from robozarr.convert.sources.finding import find_sources
from robozarr.convert.sources.instructions import find_words, words_at
from robozarr.convert.sources.integrity import Integrity, too_large_step
from robozarr.convert.sources.layouts.catalogue import DEMOS, recognise
from robozarr.convert.sources.layouts.record import Layout
from robozarr.convert.sources.links import DEAD_LINK, OtherFiles, by_path, dead_link, name_text, resolve
from robozarr.convert.sources.pictures import PictureError, decode, row_bytes
from robozarr.convert.sources.remedies import open_hdf5, why_not_open
from robozarr.convert.sources.structure import holds
from robozarr.convert.sources.tree import OpenDemo, all_but
from robozarr.schemas.errors import Problem, SourceError
from robozarr.schemas.instructions import InstructionSource, Words
from robozarr.schemas.source import INIT_STATE, MODEL_FILE, demo_number
from robozarr.schemas.words import first_line

__all__ = ["SourceFile", "find_sources"]


F = TypeVar("F", bound=Callable[..., Any])
DAMAGE = (OSError, RuntimeError, KeyError, AttributeError, TypeError, ValueError, MemoryError)
"""Errors that h5py raises on damaged metadata, found by changing random bytes of good files."""


def _names_damage(method: F) -> F:
    """Turn any h5py error inside a method of SourceFile into a SourceError that names file, demo and key."""

    @functools.wraps(method)
    def wrapped(self: SourceFile, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except DAMAGE as exc:
            where = [str(arg) for arg in args[:2] if isinstance(arg, str)]
            demo, key = [*where, "", ""][:2]
            value = f"{first_line(exc)} in {method.__name__}"
            raise self.error("the structure of the file is damaged", value, "copy or download it again", demo, key) from exc

    return cast(F, wrapped)


class SourceFile:
    """One HDF5 file, open for reading; a context manager.

    Raises SourceError, with the file's name and what to do, wherever HDF5 raises anything.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.layout = DEMOS
        self._groups: dict[str, str] = {}
        self._open: OpenDemo | None = None
        self._integrity = Integrity(open_hdf5)
        try:
            self._file = open_hdf5(self.path)
        except OSError as exc:
            fault = why_not_open(self.path, exc)
            raise self.error(fault.rule, fault.value, fault.remedy) from exc
        self._others = OtherFiles(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._open = None
        self._integrity.close()
        self._file.close()

    @property
    def linked(self) -> tuple[str, ...]:
        """The other files in which something was found so far, in the order of their paths from this one."""
        return by_path(self.path, self._others.paths | self._integrity.other_files)

    def expect(self, size: int, mtime_ns: int) -> None:
        """Refuse a file that changed since it was scanned.

        Raises
        ------
        SourceError
            If its size or time of change is another.
        """
        stat = Path(self.path).stat()
        if (stat.st_size, stat.st_mtime_ns) != (size, mtime_ns):
            value = f"{stat.st_size} bytes, changed at {stat.st_mtime_ns} ns; {size} bytes and {mtime_ns} ns when scanned"
            raise self.error("a source must not change while it is converted", value, "start again with --overwrite")

    def error(self, rule: str, value: str, remedy: str, demo: str = "", key: str = "") -> SourceError:
        """A SourceError about this file with one problem."""
        problem = Problem(file=self.path, demo=demo, key=key, rule=rule, value=value, remedy=remedy)
        return SourceError("a source cannot be used:", [problem])

    @_names_damage
    def recognise(self, own: Sequence[Layout] = ()) -> Layout:
        """Find the layout that the file follows, the user's `own` first; demos are then looked up where it says."""
        found = recognise(lambda place: holds(self._file, place), own)
        self.layout = DEMOS if found is None else found
        return self.layout

    def set_group(self, demo: str, group: str) -> None:
        """Set a demo's path in a file whose layout is already known."""
        self._groups[demo] = group

    def group(self, demo: str) -> str:
        """Path of a demo's group; "" if the file itself is the demo."""
        return self._groups.get(demo, self.layout.group(demo))

    @_names_damage
    def demo_names(self) -> list[str]:
        """Names of the demos, sorted by number; numbers may be missing.

        Raises
        ------
        SourceError
            If there is no ``data`` group, it holds no demo, or a demo's name has no number.
        """
        if self.layout.one_episode:
            return [self.layout.demo_of_file(self.path)]
        parent, data = self.layout.parent, self._parent()
        if not isinstance(data, h5py.Group):
            if data is None and parent in set(self._file):
                fault = dead_link(self._file, parent)
                raise self.error(fault.rule, fault.value, fault.remedy, key=parent)
            inside = ", ".join(map(name_text, self._file)) or "nothing"
            remedy = "give files of a layout that robozarr layouts lists, or describe theirs with --layout"
            raise self.error(f"the file must have a group '{parent}'", f"only {inside}", remedy)
        names = [
            name for name in data if self.layout.is_episode(name_text(name)) and isinstance(resolve(data, name), h5py.Group)
        ]
        if not names and not self.dead_demos():
            raise self.error(f"'{parent}' must hold demos (demo_0, demo_1, …)", "no group", "leave the file out")
        if strange := [name for name in names if isinstance(name, bytes)]:
            raise self.error("the names of demos must be UTF-8", repr(strange[0]), "rename the group")
        try:
            return sorted(names, key=lambda name: (demo_number(name), name))
        except ValueError as exc:
            raise self.error("the name of a demo must end in its number", str(exc), "rename the group") from exc

    @_names_damage
    def dead_demos(self) -> dict[str, Fault]:
        """Names in the demos' group (such as ``data``) that are links to nowhere."""
        if self.layout.one_episode:
            return {}
        data = self._parent()
        dead = [name for name in data if self.layout.is_episode(name_text(name)) and resolve(data, name) is None]
        return {name_text(name): dead_link(data, name) for name in dead}

    @_names_damage
    def datasets(self, demo: str) -> list[DatasetInfo]:
        """Every dataset inside a demo, by path, with its fault; includes links that lead nowhere."""
        found = []
        for path, item in self._demo(demo).tree:
            if isinstance(self._others.noted(item), h5py.Dataset):
                try:
                    dtype = item.dtype
                except TypeError as exc:  # of a type that numpy lacks, such as a time
                    found.append(DatasetInfo(path=path, shape=tuple(item.shape or ()), dtype=None, stored_as=first_line(exc)))
                    continue
                name = dtype.newbyteorder("=").name if dtype.kind in "biuf" and dtype.itemsize <= 8 else None
                shape, fault = tuple(item.shape or ()), self._integrity.fault(item) or (too_large_step(item) if name else None)
                found.append(DatasetInfo(path=path, shape=shape, dtype=name, stored_as=str(dtype), fault=fault))
            elif item is None:
                fault = dead_link(self._demo(demo).group, path)
                found.append(DatasetInfo(path=path, shape=(), dtype=None, stored_as=DEAD_LINK, fault=fault))
            elif isinstance(item, h5py.Datatype):
                found.append(DatasetInfo(path=path, shape=(), dtype=None, stored_as="a named type"))
        return found

    @_names_damage
    def read(self, demo: str, dataset: str) -> NDArray[Any]:
        """A whole dataset of a demo, in native byte order; for low-dim data."""
        return self.read_rows(demo, dataset, 0, self._dataset(demo, dataset).shape[0])

    def _dataset(self, demo: str, dataset: str) -> Any:
        """HDF5's own handle: opening h5py's takes longer than reading the rows of a low-dim key.

        What other files hold of it is looked at again: one that went since the scan would read as fill values.
        """
        path = f"{self.group(demo)}/{dataset}".lstrip("/")
        item = h5py.h5d.open(self._file.id, path.encode("utf-8", "surrogateescape"))
        if item.get_offset() is None and (fault := self._integrity.fault(h5py.Dataset(item), written=False)):
            raise self.error(fault.rule, fault.value, fault.remedy, demo, dataset)
        return item

    def read_rows(self, demo: str, dataset: str, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows ``[start, stop)`` of a dataset, into `out` [stop - start, …] if given, in native byte order."""
        try:
            item = self._dataset(demo, dataset)
            if out is None:
                out = np.empty((stop - start, *item.shape[1:]), item.dtype.newbyteorder("="))
            if item.shape[1:] != out.shape[1:]:
                raise ValueError(f"a step has the shape {item.shape[1:]}, not {out.shape[1:]}")
            if out.size:
                space = item.get_space()
                space.select_hyperslab((start, *[0] * (out.ndim - 1)), out.shape)
                item.read(h5py.h5s.create_simple(out.shape), space, out)
            if out.dtype == np.bool_ and out.size and out.view(np.uint8).max() > 1:
                raise ValueError(f"a bool that is neither 0 nor 1, but {out.view(np.uint8).max()}")
        except MemoryError as exc:
            rule = f"steps {start} to {stop} must fit into memory"
            raise self.error(rule, first_line(exc), "leave the key out with --without", demo, dataset) from exc
        except DAMAGE as exc:
            raise self.error(
                f"steps {start} to {stop} cannot be read",
                first_line(exc),
                "copy or download the file again, or leave the demo out with --on-error skip",
                demo,
                dataset,
            ) from exc
        return out

    @_names_damage
    def encoded(self, demo: str, dataset: str, step: int) -> bytes:
        """One row of a dataset as bytes: an encoded frame, if there is one; b"" if it is not text, bytes or uint8."""
        return row_bytes(self._demo(demo).group[dataset][step])

    def read_frames(self, demo: str, dataset: str, start: int, stop: int, out: NDArray[Any]) -> NDArray[Any]:
        """Read frames [start, stop) into `out` [stop - start, y, x, …]; encoded ones are decoded."""
        item = self._dataset(demo, dataset)
        if item.shape[1:] == out.shape[1:]:
            return self.read_rows(demo, dataset, start, stop, out)
        try:
            rows = self._demo(demo).group[dataset][start:stop]
        except DAMAGE as exc:
            rule, remedy = f"steps {start} to {stop} cannot be read", "copy or download the file again"
            raise self.error(rule, first_line(exc), remedy, demo, dataset) from exc
        for number, (row, frame) in enumerate(zip(rows, out, strict=True)):
            try:
                decode(row_bytes(row), frame)
            except PictureError as exc:
                rule = "every frame must decode to the size of the demo's first"
                remedy = "copy or download the file again, or leave the demo out with --on-error skip"
                raise self.error(rule, f"{exc} at step {start + number}", remedy, demo, dataset) from exc
        return out

    @_names_damage
    def width(self, demo: str, dataset: str) -> int:
        """Number of values in one step of a dataset [step, n]."""
        return int(self._dataset(demo, dataset).shape[1])

    @_names_damage
    def text_attribute(self, demo: str, name: str) -> bytes:
        """A text attribute of a demo, as UTF-8; empty if there is none."""
        return bytes_of(self._demo(demo).attribute(name)) or b""

    @_names_damage
    def float_attribute(self, demo: str, name: str) -> NDArray[np.float64]:
        """A float64 vector attribute of a demo; empty if there is none."""
        value = self._demo(demo).attribute(name)
        return np.empty(0) if value is None else np.asarray(value, np.float64).reshape(-1)

    @_names_damage
    def data_attribute(self, name: str) -> str | None:
        """A text attribute of the group that holds the demos, such as ``/data``; None if there is no such text."""
        return text_of(read_attribute(self._parent().attrs, name))

    @_names_damage
    def demo_attribute(self, demo: str, path: str, name: str) -> Any:
        """An attribute inside a demo, or of the demo itself if `path` is empty; None if there is none."""
        item = self._demo(demo).group if not path else self._demo(demo).group.get(path)
        return None if item is None else read_attribute(item.attrs, name)

    @_names_damage
    def demo_words(self, demo: str) -> Words:
        """The instruction that a demo itself states."""
        opened = self._demo(demo)
        words = words_at(self.layout.instruction, opened.group, self._file)
        return words if words.text else find_words([("", opened.group), *opened.tree], InstructionSource.DEMO_ATTRIBUTE)

    @_names_damage
    def file_words(self) -> Words:
        """The instruction that the file states outside its demos."""
        return find_words([(path, item) for path, item, _ in self._outside(set())], InstructionSource.FILE_ATTRIBUTE)

    @_names_damage
    def demo_attributes(self, demo: str) -> tuple[str, list[str]]:
        """Every attribute inside a demo except its model file and initial state (``attributes_json``)."""
        opened = self._demo(demo)
        kept = {name for name in (MODEL_FILE, INIT_STATE) if self.is_bulk_attribute(demo, name)}
        return attributes_json([("", opened.group, kept), *((path, item, set()) for path, item in opened.tree)])

    @_names_damage
    def is_bulk_attribute(self, demo: str, name: str) -> bool:
        """Whether an attribute is stored in its own column: a text model file, a float64 initial state."""
        value = self._demo(demo).attribute(name)
        if name == MODEL_FILE:
            return text_of(value) is not None
        return name == INIT_STATE and isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype == np.float64

    @_names_damage
    def file_attributes(self, without: Sequence[str] = ()) -> tuple[str, list[str]]:
        """Every attribute of the root, of ``/data`` (except those in `without`) and of objects beside the demos."""
        return attributes_json(self._outside(set(without)))

    def _outside(self, without: set[str]) -> list[tuple[str, Any, set[str]]]:
        """Everything outside the demos, by path, with the attributes to leave out: the root, the demos' group, the rest."""
        if self.layout.one_episode:  # all is the demo's
            return []
        parent = self.layout.parent
        items: list[tuple[str, Any, set[str]]] = [("", self._file, set() if parent else without)]
        items += [(parent, self._parent(), without)] if parent else []
        return items + [(path, item, set()) for path, item in self._beside_demos()]

    @_names_damage
    def stated_frequency(self) -> float | None:
        """Steps per second as the file states them, where its layout says so; None if it states none."""
        path, _, attribute = self.layout.frequency_at.partition("@")
        item = self._file.get(path) if path else self._file
        if not self.layout.frequency_at or item is None:
            return None
        value = np.asarray(read_attribute(item.attrs, attribute) if attribute else item[()])
        good = value.size == 1 and value.dtype.kind in "iuf" and 0 < value.item() < float("inf")
        return float(value.item()) if good else None

    @_names_damage
    def splits(self) -> dict[str, list[str]]:
        """Names of the demos in each of robomimic's filter keys, ``/mask/<name>``."""
        keys = {name: item for name, item in self._filter_keys() if item is not None}
        return {name: demos_in(item) for name, item in keys.items() if self._integrity.fault(item) is None}

    @_names_damage
    def bad_splits(self) -> dict[str, Fault]:
        """Filter keys, by path in the file, that lead nowhere or whose names were never written."""
        return {} if self.layout.one_episode else bad_filter_keys(self._file, self._others, self._integrity)

    def _filter_keys(self) -> Iterator[tuple[str, Any]]:
        return iter(()) if self.layout.one_episode else filter_keys(self._file, self._others)

    def _parent(self) -> Any:
        """The group that holds the demos; None if there is none, or its link leads nowhere."""
        item: Any = self._file
        for name in self.layout.parent.split("/") if self.layout.parent else ():
            item = resolve(item, name) if isinstance(item, h5py.Group) and name in set(item) else None
        return item

    @_names_damage
    def strays(self) -> list[str]:
        """Paths of datasets, and of links that lead nowhere, that belong to no demo and no filter key."""
        inside = f"{self.layout.parent}/" if self.layout.parent else ""
        known = {*(f"mask/{name}" for name, _ in self._filter_keys()), *(inside + name for name in self.dead_demos())}
        known |= self.bad_splits().keys()
        beside = [(path, self._others.noted(item)) for path, item in self._beside_demos()]
        return [path for path, item in beside if not isinstance(item, h5py.Group) and path not in known]

    def _beside_demos(self) -> Iterator[tuple[str, Any]]:
        if self.layout.one_episode:
            return
        parent = self.layout.parent
        if parent:
            yield from all_but(self._file, "", lambda name, item: name == parent.split("/")[0])
            yield from all_but(self._parent(), f"{parent}/", lambda name, item: isinstance(item, h5py.Group))
        else:
            is_episode = self.layout.is_episode
            yield from all_but(self._file, "", lambda name, item: isinstance(item, h5py.Group) and is_episode(name))

    def _demo(self, demo: str) -> OpenDemo:
        if self._open is None or self._open.name != demo:
            self._open = OpenDemo(demo, self._file[self.group(demo) or "/"])
        return self._open

"""A bucket in memory: objects that appear whole, move by being copied, and stay until they are removed. For fast tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from robozarr.schemas.errors import StoreError
from robozarr.store.place import Buffer, Place

__all__ = ["MemoryPlace", "memory_lock"]

_objects: dict[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class MemoryPlace:
    """A prefix of the one bucket of this process."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def folder(self) -> None:
        return None

    @property
    def patience_s(self) -> float:
        return 0.0

    def at(self, path: str) -> str:
        return f"{self.url}/{path}"

    def below(self, path: str) -> MemoryPlace:
        return MemoryPlace(f"{self.url}/{path}")

    def read(self, path: str, most: int | None = None) -> bytes:
        try:
            return _objects[self.at(path)]
        except KeyError:
            raise FileNotFoundError(self.at(path)) from None

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[Buffer]:
        data = self.read(path)
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    def exists(self, path: str) -> bool:
        return self.at(path) in _objects

    def names(self, limit: int | None = None) -> list[str]:
        prefix = f"{self.url}/"
        return sorted(name.removeprefix(prefix) for name in list(_objects) if name.startswith(prefix))[:limit]

    def write(self, path: str, parts: Sequence[Buffer], check: Callable[[], None] | None = None) -> None:
        if check is not None:
            check()
        _objects[self.at(path)] = b"".join(bytes(part) for part in parts)

    replace = write

    def move(self, path: str, to: Place) -> None:
        to.write(path, [self.read(path)])

    def remove(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            _objects.pop(self.at(path), None)

    def empty(self, folders: Sequence[str]) -> None:
        self.remove(name for name in self.names() if name.startswith(tuple(f"{folder}/" for folder in folders)))


@contextmanager
def memory_lock(store: Place, name: str) -> Iterator[Callable[[], None]]:
    """The lock of a place in memory, in ``hold_bucket_lock``'s stead; whoever was killed holds none."""
    if store.exists(name):
        raise StoreError(f"{store}: another converter is working on this store")
    yield lambda: None

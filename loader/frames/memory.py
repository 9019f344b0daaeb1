"""Memory shared by processes: one block with many arrays; imports neither zarr nor torch.

A forked process shares it as it is. A process that multiprocessing starts anew is handed the block itself, never a copy. Not
``/dev/shm``: containers give that 64 MB.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import context, reduction
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["SharedArrays"]

ALIGN: Final = 64
"""Alignment of arrays in bytes, so that they begin at cache lines."""


class SharedArrays:
    """Named arrays in one block of memory.

    >>> arrays = SharedArrays({"a": ((2, 3), "float64"), "b": ((5,), "uint8")})
    >>> arrays["a"][:] = 1
    >>> arrays["a"].sum(), arrays.n_bytes
    (np.float64(6.0), 128)
    """

    def __init__(
        self,
        kinds: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        fd: int | None = None,
        borrowed: Mapping[str, SharedArrays] | None = None,
    ) -> None:
        self._borrowed = dict(borrowed or {})
        """Arrays that lie in other blocks, by name."""
        self._kinds = {name: (tuple(shape), np.dtype(dtype).str) for name, (shape, dtype) in kinds.items()}
        offsets, at = {}, 0
        for name, (shape, dtype) in self._kinds.items():
            offsets[name] = at
            size = np.dtype(dtype).itemsize * int(np.prod(shape, dtype=np.int64))
            at += -(-size // ALIGN) * ALIGN
        self.n_bytes = at
        self._fd = _make_block(at) if fd is None else fd
        block = mmap.mmap(self._fd, max(at, 1))
        self._arrays: dict[str, NDArray[Any]] = {
            name: np.ndarray(shape, dtype, buffer=block, offset=offsets[name]) for name, (shape, dtype) in self._kinds.items()
        } | {name: other[name] for name, other in self._borrowed.items()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __reduce__(self) -> tuple[Callable[..., SharedArrays], tuple[Any, ...]]:
        # multiprocessing is pickling this for a process that it starts, or somebody else for who knows what
        context.assert_spawning(self)
        return _restore, (self._kinds, reduction.DupFd(self._fd), self._borrowed)

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        if not ends() and (fd := getattr(self, "_fd", None)) is not None:  # then modules are taken apart already
            os.close(fd)


def _restore(
    kinds: Mapping[str, tuple[tuple[int, ...], str]], duplicate: Any, borrowed: Mapping[str, SharedArrays]
) -> SharedArrays:
    return SharedArrays(kinds, duplicate.detach(), borrowed)


def _make_block(n_bytes: int) -> int:
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("robozarr", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, max(n_bytes, 1))
    return fd

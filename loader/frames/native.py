"""The C functions that compiled code calls, and their libraries. Imports no zarr, no torch.

Libraries are loaded and their functions declared by name. Numba can cache machine code that calls declared functions, but none
that holds a pointer; so a second start does not compile anew.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import blosc2
import google_crc32c
from llvmlite import binding
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable
from numba.np.arrayobj import make_array, populate_array

from robozarr.schemas import compressed

__all__ = [
    "address",
    "blosc_decode",
    "blosc_fault",
    "bytes_at",
    "crc32c",
    "crc32c_extend",
    "errno_location",
    "free_context",
    "free_zstd_context",
    "lz4_decode",
    "make_context",
    "make_zstd_context",
    "memcpy",
    "memset",
    "posix_close",
    "posix_fadvise",
    "posix_lseek",
    "posix_open",
    "posix_pread",
    "posix_preadv",
    "posix_preadv2",
    "posix_readlink",
    "zstd_decode",
]


@intrinsic  # type: ignore[untyped-decorator]
def address(typingctx: Any, number: Any) -> Any:
    """Turn an address into the pointer that C functions take. In compiled code only."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]
def bytes_at(typingctx: Any, pointer: Any, n_bytes: Any) -> Any:
    """The bytes behind a pointer, uint8 [n_bytes]. In compiled code only; numba's own ``carray`` wants arrays to be counted."""
    kind = types.Array(types.uint8, 1, "C")

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = make_array(kind)(context, builder)
        data = builder.bitcast(args[0], array.data.type)
        one = context.get_constant(types.intp, 1)
        populate_array(array, data=data, shape=[args[1]], strides=[one], itemsize=one, meminfo=None)
        return array._getvalue()

    return kind(types.voidptr, types.int64), generate


def _library(package: Any, pattern: str) -> str:
    """Load a wheel's shared library and return its path."""
    folder = Path(package.__file__).parent
    for place in (folder / "lib", folder.parent / f"{folder.name}.libs", folder / ".dylibs", folder):
        for path in sorted(place.glob(pattern)):
            binding.load_library_permanently(str(path))
            return str(path)
    raise ImportError(
        f"{package.__name__} carries no {pattern} → install its wheel: pip install --force-reinstall {package.__name__}"
    )


_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so*"
_blosc2_path = _library(blosc2, f"libblosc2{_SUFFIX}")
_library(google_crc32c, f"libcrc32c*{_SUFFIX}")

_ptr, _i32, _i64, _size = types.voidptr, types.int32, types.int64, types.size_t
posix_open = types.ExternalFunction("open", _i32(_ptr, _i32))
posix_close = types.ExternalFunction("close", _i32(_i32))
posix_lseek = types.ExternalFunction("lseek", _i64(_i32, _i64, _i32))
posix_pread = types.ExternalFunction("pread", _i64(_i32, _ptr, _size, _i64))
posix_preadv = types.ExternalFunction("preadv", _i64(_i32, _ptr, _i32, _i64))
posix_readlink = types.ExternalFunction("readlink", _i64(_ptr, _ptr, _size))
errno_location = types.ExternalFunction("__error" if sys.platform == "darwin" else "__errno_location", _ptr())
memcpy = types.ExternalFunction("memcpy", _ptr(_ptr, _ptr, _size))
memset = types.ExternalFunction("memset", _ptr(_ptr, _i32, _size))
crc32c = types.ExternalFunction("crc32c_value", types.uint32(_ptr, _size))
crc32c_extend = types.ExternalFunction("crc32c_extend", types.uint32(types.uint32, _ptr, _size))
blosc_decode = types.ExternalFunction("blosc2_decompress_ctx", _i32(_ptr, _ptr, _i32, _ptr, _i32))
lz4_decode = types.ExternalFunction("LZ4_decompress_safe_usingDict", _i32(_ptr, _ptr, _i32, _i32, _ptr, _i32))
zstd_decode = types.ExternalFunction("ZSTD_decompress_usingDict", _size(_ptr, _ptr, _size, _ptr, _size, _ptr, _size))


# macOS has neither of them: there nothing is known of what memory holds, and nothing is announced
if hasattr(os, "RWF_NOWAIT"):
    posix_preadv2 = types.ExternalFunction("preadv2", _i64(_i32, _ptr, _i32, _i64, _i32))
else:

    @register_jitable  # type: ignore[untyped-decorator]
    def posix_preadv2(fd: int, vectors: int, n: int, offset: int, flags: int) -> int:
        """Say that it would have to wait."""
        return -1


if hasattr(os, "posix_fadvise"):
    posix_fadvise = types.ExternalFunction("posix_fadvise", _i32(_i32, _i64, _i64, _i32))
else:

    @register_jitable  # type: ignore[untyped-decorator]
    def posix_fadvise(fd: int, offset: int, n_bytes: int, advice: int) -> int:
        """Announce nothing."""
        return 0


register_jitable(compressed.u32)
blosc_fault = register_jitable(compressed.blosc_fault)
"""Compiled check of a Blosc chunk, shared with schemas. Numba does not see changes of its file: remove the cache then."""


class _DecodeParameters(ctypes.Structure):
    """blosc2_dparams of c-blosc2."""

    _fields_ = (
        ("nthreads", ctypes.c_int), ("schunk", ctypes.c_void_p), ("postfilter", ctypes.c_void_p),
        ("postparams", ctypes.c_void_p), ("typesize", ctypes.c_int32),
    )  # fmt: skip


_blosc2 = ctypes.CDLL(_blosc2_path)
_blosc2.blosc2_init()
_blosc2.blosc2_create_dctx.restype, _blosc2.blosc2_create_dctx.argtypes = ctypes.c_void_p, [_DecodeParameters]
_blosc2.blosc2_free_ctx.restype, _blosc2.blosc2_free_ctx.argtypes = None, [ctypes.c_void_p]


def make_context() -> int:
    """Make a Blosc context for one thread, which starts no threads; free it with `free_context`."""
    return int(_blosc2.blosc2_create_dctx(_DecodeParameters(1, None, None, None, 1)))


def free_context(context: int) -> None:
    """Free a context from `make_context`."""
    _blosc2.blosc2_free_ctx(context)


_blosc2.ZSTD_createDCtx.restype, _blosc2.ZSTD_createDCtx.argtypes = ctypes.c_void_p, []
_blosc2.ZSTD_freeDCtx.restype, _blosc2.ZSTD_freeDCtx.argtypes = ctypes.c_size_t, [ctypes.c_void_p]


def make_zstd_context() -> int:
    """Make a zstd context for one thread, from blosc2's own library; free it with `free_zstd_context`."""
    return int(_blosc2.ZSTD_createDCtx())


def free_zstd_context(context: int) -> None:
    """Free a context from `make_zstd_context`."""
    _blosc2.ZSTD_freeDCtx(context)

"""Compile functions with numba, and survive a damaged cache, a fork during compilation, and long silence.

Numba compiles a function when it is first called, under one lock for all of it, and keeps machine code in files between
runs. A file that is empty or cut (a full disk, a killed process) makes its every start fail: here it costs a compilation and a
warning. A fork waits until a compilation has ended: the child would wait for its lock for ever.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from robozarr.loader.frames.code_cache import UserCache  # isort: skip - it says how to install numba

import numba
from numba.core.compiler_lock import global_compiler_lock

__all__ = ["compiled", "compiled_inside", "compiled_making_arrays"]

Function = TypeVar("Function", bound=Callable[..., Any])

SILENCE_S: Final = 2.0
"""A longer compilation is announced, once per process."""


def compiled(function: Function) -> Function:
    """Compile a function that makes no arrays, without the GIL, and cache the machine code between runs if there is a place.

    Arrays are not counted: whoever calls from Python holds them. Counting every array that is handed on, atomically, took an
    eighth of the time of a window.
    """
    return _compile(function, _nrt=False)


def compiled_inside(function: Function) -> Function:
    """Like `compiled`, for functions that only compiled code calls: an entry from Python takes time to compile."""
    return _compile(function, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def compiled_making_arrays(function: Function) -> Function:
    """Like `compiled`, for functions that make arrays."""
    return _compile(function, _nrt=True)


def _compile(function: Function, **options: bool) -> Function:
    dispatcher = numba.njit(nogil=True, **options)(function)
    # a read-only home and installation: compiled again in every process
    with suppress(RuntimeError, OSError):
        dispatcher._cache = CarefulCache(UserCache(dispatcher.py_func))
    return cast(Function, dispatcher)


class CarefulCache:
    """Numba's cache of a function, made safe: code that cannot be read or saved is compiled again."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, *arguments: Any) -> Any:
        """Cached machine code; None if there is none, and numba then compiles it."""
        found = None
        try:
            found = self._cache.load_overload(*arguments)
        except Exception as exc:
            _warn_once(f"cached machine code cannot be read ({_said(exc)}), and is compiled again", self._cache)
            try:
                self._cache.flush()
            except Exception:  # it cannot be written to either, which `save_overload` says
                return None
        if found is None:
            _announce.begin()
        return found

    def save_overload(self, *arguments: Any) -> None:
        """Save machine code, if there is a place for it."""
        _announce.end()
        try:
            self._cache.save_overload(*arguments)
        except Exception as exc:
            _warn_once(f"machine code cannot be kept ({_said(exc)}), and is compiled at every start", self._cache)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_cache"], name)


def _said(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"


_warned: list[str] = []


def _warn_once(text: str, cache: Any) -> None:
    """Warn once per process, whatever functions and faults there are."""
    if not _warned:
        _warned.append(text)
        folder = getattr(cache, "cache_path", None)
        warnings.warn(
            f"robozarr · {folder}: {text} → empty this folder, or set NUMBA_CACHE_DIR to one with room that can be written to",
            stacklevel=2,
        )


class _Announcement:
    """Prints a line if a compilation takes long."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._said = False

    def begin(self) -> None:
        """A compilation begins; it may start others inside, each with its own begin and end."""
        if not self._said and self._timer is None:
            self._timer = threading.Timer(SILENCE_S, self._say)
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        """A compilation ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self) -> None:
        if not self._said and sys.stderr is not None:
            self._said = True
            print("robozarr: compiling the reader, once: about 15 seconds …", file=sys.stderr, flush=True)


_announce = _Announcement()

os.register_at_fork(
    before=global_compiler_lock.acquire,
    after_in_parent=global_compiler_lock.release,
    after_in_child=global_compiler_lock.release,
)

"""Say who holds a batch's memory: which tensors, in which containers, in which variables.

For an error's text. What Python's garbage collector does not see (numpy arrays, graphs of autograd) is not found.
"""

from __future__ import annotations

import gc
import inspect
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from numpy.typing import NDArray

__all__ = ["holders_of"]

DEEP: Final = 4
"""How many levels of containers are followed: a field in a batch in a list in an object."""


def holders_of(arrays: Iterable[NDArray[Any]]) -> str:
    """What holds tensors of these arrays, such as "a list of 40, kept in main (train.py:12)"; "" if nothing is found."""
    begins = {array.ctypes.data for array in arrays if array.size}
    tensors = [
        found
        for found in gc.get_objects()
        if issubclass(type(found), torch.Tensor) and found.device.type == "cpu" and _begin(found) in begins
    ]
    few = tensors[:3] + tensors[-1:]
    del tensors
    words = dict.fromkeys([_word(few, number) for number in range(len(few))])
    return "; ".join(word for word in words if word)


def _begin(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # one without storage
        return 0


def _word(tensors: list[torch.Tensor], number: int) -> str:
    """The outermost container of a tensor that is found, and its name. No closures here, because they would be found too."""
    held: Any = tensors[number]
    chain = [held]
    own = {id(tensors), id(chain), id(held)}
    for _ in range(DEEP):
        if found := _variable(held):
            return f"{_kind(held)}, {found}"
        owner = None
        for referrer in gc.get_referrers(held):
            if id(referrer) in own or isinstance(referrer, types.FrameType):
                continue
            if isinstance(referrer, types.GeneratorType):
                return f"{_kind(held)} in the generator {referrer.__qualname__}"
            if isinstance(referrer, types.CellType):
                return f"{_kind(held)} in a closure"
            if isinstance(referrer, (dict, list, tuple, set)) or type(referrer).__module__ not in ("builtins", "types"):
                owner = owner or referrer
        if owner is None:
            break
        held = owner
        chain.append(held)
        own.add(id(held))
    return _kind(held) if len(chain) > 1 else ""


def _variable(held: Any) -> str:
    """The variable of a running function or its module that is this object: "kept in train (train.py:12)"."""
    for frame in sys._current_frames().values():
        at: types.FrameType | None = frame
        while at is not None:
            if not str(at.f_globals.get("__name__", "")).startswith("robozarr.loader.device"):
                variables = at.f_locals
                name = _name_in(variables, held) or _name_in(at.f_globals, held)
                if at.f_code.co_flags & inspect.CO_OPTIMIZED and isinstance(variables, dict):
                    variables.clear()  # before Python 3.13 it is a copy, which would hold what the function lets go
                if name:
                    return f"{name} in {at.f_code.co_name} ({at.f_code.co_filename.rpartition('/')[2]}:{at.f_lineno})"
            at = at.f_back
    return ""


def _name_in(variables: Mapping[str, Any], held: Any) -> str:
    return next((name for name, value in list(variables.items()) if value is held), "")


def _kind(held: Any) -> str:
    if isinstance(held, torch.Tensor):
        return "a tensor"
    if isinstance(held, dict):
        return "a batch"
    name = type(held).__name__
    try:
        return f"a {name} of {len(held)}"
    except TypeError:
        return f"a {name}"

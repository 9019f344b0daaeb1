"""End the run where training code would catch an error and continue with another sample. Imports no torch."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

__all__ = ["OnError", "ending"]

OnError: TypeAlias = Literal["exit", "raise"]
"""What to do where a sample cannot be read: end this process, or raise."""


@contextmanager
def ending(on_error: OnError) -> Iterator[None]:
    """Say what went wrong inside, and end this process with status 1; with "raise", let the error pass.

    For callers that catch BaseException, SystemExit too: thu-ml/RoboticsDiffusionTransformer at deb71d8, train/dataset.py:
    ``__getitem__`` and ``_safe_load``. Where a DataLoader's worker ends, the DataLoader raises in the process that trains.
    """
    try:
        yield
    except Exception as exc:
        if on_error == "raise":
            raise
        traceback.print_exc()
        print(f"robozarr: the run ends, for a sample cannot be read: {exc}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)

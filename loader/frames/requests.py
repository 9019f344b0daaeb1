"""Threads that request bytes from a bucket, many at the same time.

They wait for the network in calls that hold no GIL. Measured beside one event loop with the same requests they are as fast, and
a call for several ranges of one object costs less than as many calls. Retries and whole answers are ``store.bucket``'s.
Imports no torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import StoreError
from robozarr.store.bucket import BucketPlace
from robozarr.store.threads import ThreadJob, ThreadTeam

__all__ = ["CALLS", "RANGES_PER_CALL", "Requests"]

CALLS: Final = 64
"""Calls at the same time: threads, which only wait."""
RANGES_PER_CALL: Final = 4
"""Ranges of one object that one call requests at the same time."""
PATIENCE_S: Final = 2.0
"""How long a program's end waits for answers. They go to separate memory, so that only time is lost."""


class Requests:
    """Requests bytes from one place; safe in several threads, but not after a fork.

    Parameters
    ----------
    place : BucketPlace
    n_calls, ranges_per_call : int
        How much is asked for at once.
    """

    def __init__(self, place: BucketPlace, n_calls: int = CALLS, ranges_per_call: int = RANGES_PER_CALL) -> None:
        self._place, self._n_calls, self._ranges_per_call = place, n_calls, ranges_per_call
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._team: ThreadTeam | None = None

    def check_process(self) -> None:
        """Refuse to work in a fork: connections and their threads stay in the process that made them.

        Raises
        ------
        StoreError
            Naming the remedy.
        """
        if os.getpid() != self._process:
            raise StoreError(
                f"{self._place.url}: a bucket is read by the process that opened it, or by one started anew; this one is "
                'a fork of it → pass multiprocessing_context="forkserver" or "spawn" to the DataLoader, or use WindowLoader, '
                "whose threads are faster"
            )

    def submit(self, work: Callable[[], object]) -> ThreadJob:
        """Run a function in a thread that may wait for the network."""
        with self._lock:
            if self._team is None:
                self._team = ThreadTeam(self._n_calls, patience_s=PATIENCE_S)
        job = ThreadJob(lambda _: work(), 1)
        self._team.submit(job)
        return job

    def pieces(self, n: int) -> list[slice]:
        """Divide n ranges of one object into calls."""
        return [slice(at, at + self._ranges_per_call) for at in range(0, n, self._ranges_per_call)]

    def read(self, path: str) -> bytes:
        """A whole object; raises as ``Place.read`` does."""
        return self._place.read(path)

    def ranges(self, path: str, ranges: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Read byte ranges [n, 2] of one object, each by its own request; raises as ``Place.read_ranges`` does."""
        found = self._place.read_ranges(path, ranges[:, 0].tolist(), ranges[:, 1].tolist(), gap=0)
        return [np.frombuffer(part, np.uint8) for part in found]

    def end(self, path: str, n_bytes: int) -> tuple[NDArray[np.uint8], int]:
        """Read the last bytes of an object (all of a smaller one), and its size; raises as ``Place.read`` does."""
        data, size = self._place.read_end(path, n_bytes)
        return np.frombuffer(data, np.uint8), size

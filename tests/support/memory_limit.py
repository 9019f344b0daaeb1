"""An end to the memory of this process: for fuzzers, whose inputs claim any size."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

__all__ = ["MEMORY_BYTES", "limit_memory"]

MEMORY_BYTES: Final = 2**30
"""On top of what the process takes before: inputs of 100 kB need no more."""


def limit_memory(n_bytes: int = MEMORY_BYTES) -> None:
    """Let this process take so much more and no more; once."""
    if resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
        status = Path("/proc/self/status").read_text().split("VmData:")[1]
        now = int(status.split()[0]) * 1024  # of what can be written to: threads reserve far more addresses than they use
        resource.setrlimit(resource.RLIMIT_DATA, (now + n_bytes, resource.RLIM_INFINITY))

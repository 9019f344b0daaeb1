"""Permissions hold for root too, who runs the tests in a container."""

from __future__ import annotations

import ctypes
from pathlib import Path

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24  # of linux/capability.h and linux/prctl.h


def without_roots_rights() -> None:
    """In a process that is about to be started: root, who runs the tests in a container, obeys permissions from then on."""
    prctl = ctypes.CDLL(None).prctl
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def drop_roots_rights() -> None:
    """In this process, from now on: root, who runs the tests in a container, obeys permissions. To be called in a fork."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # of linux/capability.h: version 3
    for call in (libc.capget, libc.capset):
        if call(header, sets):
            raise OSError(ctypes.get_errno(), "capabilities")
        for which in range(3):  # effective, permitted, inheritable
            sets[which] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)


def let_others_reach(folder: Path) -> None:
    """A folder of temporary files, and those above it, which pytest makes for one user alone."""
    for path in (folder, *folder.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(0o755)


def without_progress(stderr: str) -> list[str]:
    """Lines of standard error, but for the one that says why the first batch takes a while, where no cache can be written."""
    return [line for line in stderr.splitlines() if not line.startswith("robozarr: compiling the reader, once")]

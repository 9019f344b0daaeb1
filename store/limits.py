"""Find how much memory, and how many cores, this process may use, given the machine and its control groups (containers, jobs).

Linux control groups, version 1 and 2. The limit of a group holds for all below it, so that every group up to the root is looked
at. Memory that caches files can be had again and counts as free, as it does in the kernel's ``MemAvailable``.
Imports no robozarr.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["free_memory", "usable_cores"]

UNKNOWN: Final = 1 << 62
"""Free bytes to assume if nothing states them."""


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may still take; 2^62 if the system does not say.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are. Other folders are for tests.

    >>> free_memory() > 0
    True
    """
    free = [_number(_fields(root / "proc/meminfo").get("MemAvailable:"), UNKNOWN >> 10) * 1024]
    free += [_free_of_2(group) for group in _groups(root, "")]
    free += [_free_of_1(group) for group in _groups(root, "memory")]
    return max(0, min(free))


def usable_cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may use: those it may run on, at most its quota (``docker run --cpus``).

    A part of a core counts as one.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are. Other folders are for tests.

    >>> usable_cores() > 0
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(root, ""):
        microseconds, period = (*_text(group / "cpu.max").split(), "", "")[:2]
        cores = min(cores, _quota(microseconds, period))
    for group in _groups(root, "cpu"):
        cores = min(cores, _quota(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")))
    return cores


def _quota(microseconds: str, period: str) -> int:
    """Cores, rounded up, that a time in a period of time is; `UNKNOWN` without a limit ("max", "-1")."""
    return -(-_number(microseconds, UNKNOWN) // (_number(period, 0) or 100_000)) or 1


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, from its own up to the mounted root; `controller` is "" for version 2.

    A container may see its own group as the root, while ``/proc/self/cgroup`` names it as the host does: what is not there is
    passed over.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controller not in controllers.split(","):
            continue
        for mount, mounted in _mounts(root, controller):
            inside = path.strip("/")
            if mounted and (inside + "/").startswith(mounted + "/"):
                inside = inside[len(mounted) :].strip("/")
            group = mount / inside
            while True:
                if group.is_dir():
                    yield group
                if group == mount:
                    break
                group = group.parent


def _mounts(root: Path, controller: str) -> list[tuple[Path, str]]:
    """Where control groups are mounted, and which group is the root there."""
    found = []
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, options = after.split(" ")[0], after.split(" ")[-1].split(",")
        if kind == ("cgroup" if controller else "cgroup2") and (not controller or controller in options):
            mounted, mount = before.split(" ")[3:5]
            found.append((root / mount.strip("/"), mounted.strip("/")))
    usual = [root / "sys/fs/cgroup" / controller, *([] if controller else [root / "sys/fs/cgroup/unified"])]
    return found or [(path, "") for path in usual]


def _free_of_2(group: Path) -> int:
    limit = min(_number(_text(group / f"memory.{name}"), UNKNOWN) for name in ("max", "high"))
    stat = _fields(group / "memory.stat")
    return _left(limit, _text(group / "memory.current"), [stat.get("inactive_file"), stat.get("active_file")])


def _free_of_1(group: Path) -> int:
    stat = _fields(group / "memory.stat")
    cached = [stat.get("total_inactive_file"), stat.get("total_active_file")]
    return _left(_number(_text(group / "memory.limit_in_bytes"), UNKNOWN), _text(group / "memory.usage_in_bytes"), cached)


def _left(limit: int, used: str, cached: list[str | None]) -> int:
    if limit >= UNKNOWN:  # none: "max", or a number near 2^63
        return UNKNOWN
    return limit - max(0, _number(used, 0) - sum(_number(part, 0) for part in cached))


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def _fields(path: Path) -> dict[str, str]:
    """First word of a line → second word."""
    return {words[0]: words[1] for words in (line.split() for line in _lines(path)) if len(words) > 1}


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    """The content of a file; "" if there is none, or it must not be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

"""Helpers that every benchmark shares: the default source, a warm or cold page cache, a description of the machine, tables.

Imports nothing but the standard library, until ``machine`` is asked: Dask's workers import the benchmarks when they start.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = [
    "ROOT",
    "align",
    "default_source",
    "drop_from_cache",
    "figure",
    "file_system",
    "machine",
    "machine_lines",
    "read_once",
    "write_json",
]

ROOT: Final = Path(__file__).resolve().parents[1]


def default_source() -> Path:
    """The real data beside the repository if it exists, otherwise the sample inside the repository."""
    real = ROOT.parent / "shared" / "data"
    return real if real.is_dir() else ROOT / "sample"


def read_once(files: Iterable[Path]) -> None:
    """Read files once, so that they are in the page cache."""
    buffer = bytearray(8 * 2**20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop_from_cache(files: Iterable[Path]) -> None:
    """Write files to disk and drop them from the page cache."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Facts about the machine that a reader needs to judge the numbers; no host names, no paths."""
    from robozarr.store.limits import usable_cores

    return {
        "cores": usable_cores(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def machine_lines(header: Mapping[str, Any], more: str) -> list[str]:
    """The same facts as text; `more` is put after the memory."""
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    return [
        f"machine: {header['cores']} cores ({header['processor']}), {header['memory_gib']} GiB; {more}",
        f"Python {header['python']}, {versions}",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def file_system(path: Path) -> str:
    """Type of the file system that holds `path`; "" where Linux's list of mounts is missing."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    holding = [(len(mount[1]), mount[2]) for mount in mounts if path.resolve().is_relative_to(mount[1])]
    return max(holding)[1] if holding else ""


def figure(value: float | None, digits: int) -> str:
    """Format a number for a table."""
    return "–" if value is None else f"{value:,.{digits}f}"


def align(lines: Sequence[Sequence[str]]) -> str:
    """Align rows of cells as text: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def write_json(result: Mapping[str, Any], path: Path | None) -> None:
    """Write a benchmark's numbers to the file that ``--json`` names, if it names one."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")

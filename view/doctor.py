"""Check an installation and a machine: versions, codec, compiled code, GPU, memory, locks, buckets; say what to do.

Each check returns findings and raises nothing. What may crash or hang (compiled code, CUDA) runs in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from robozarr.schemas.errors import RoboZarrError
from robozarr.store.limits import free_memory
from robozarr.store.locate import place_of
from robozarr.store.system import fcntl, resource
from robozarr.view.findings import Finding
from robozarr.view.words import size_words

__all__ = ["diagnose"]

EXTRAS: Final = {"convert": "convert HDF5 files", "train": "train from a store", "view": "show stores", "s3": "use buckets"}
"""Extras, and what cannot be done without each."""
FEW_BYTES: Final = 2 << 30
"""Less free memory than this is worth a notice: a worker of a conversion takes up to 400 MB, torch alone some 500."""
FEW_FILES: Final = 1024
LITTLE_SHM: Final = 1 << 30
SECONDS: Final = 300
"""Longest wait for a process of a check; compiling takes some 10 s."""

Run = Callable[[Sequence[str]], tuple[int, str]]


def run_python(arguments: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of a Python process, errors first; its own text if it does not end or cannot start."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=sys.prefix if _folder_is_gone() else None,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return -1, str(exc)
    return done.returncode, (done.stderr + done.stdout).strip()


def diagnose(places: Sequence[str] = (), endpoint_url: str | None = None, run: Run = run_python) -> Iterator[Finding]:
    """Check everything, and each of some places; findings come as they are made.

    Parameters
    ----------
    places : folders and URLs
        Where stores are, or are to be: locks and rights of a folder, access to a bucket.
    endpoint_url : URL, optional
        The service of buckets at ``s3://``.
    run : callable
        Runs Python with arguments; for tests.
    """
    yield from check_packages()
    yield from check_codec()
    yield from check_here()
    yield from check_machine()
    yield from check_cuda(run)
    yield from check_compiler(run)
    for place in places:
        yield from check_place(place, endpoint_url)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_packages() -> Iterator[Finding]:
    """Versions of robozarr's packages against what it asks for; and which extras are missing."""
    from packaging.requirements import Requirement

    missing: dict[str, list[str]] = {}
    versions, wrong = [], []
    own = _installed("robozarr")
    if own is None:
        yield Finding(
            level="problem", title="robozarr runs from a folder and is not installed",
            detail="its packages, and zarr's name of its codec, come with installing → pip install '.[convert,train,view]'",
        )  # fmt: skip
        return
    for line in metadata.requires("robozarr") or ():
        wanted = Requirement(line)
        extras = [name for name in ("", *EXTRAS) if wanted.marker is None or wanted.marker.evaluate({"extra": name})]
        if not extras or wanted.name == "robozarr":
            continue
        version = _installed(wanted.name)
        if version is None:
            for extra in [""] if "" in extras else extras:
                missing.setdefault(extra, []).append(wanted.name)
        elif not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} {version} is installed, {wanted.name}{wanted.specifier} is needed")
        else:
            versions.append(f"{wanted.name} {version}")
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(level="good", title=f"robozarr {own}, Python {python}", detail=", ".join(sorted(set(versions))))
    for text in sorted(set(wrong)):
        name = text.partition(" ")[0]
        yield Finding(level="problem", title=f"Version of {name}", detail=f"{text} → pip install --upgrade {name}")
    for extra, names in missing.items():
        if extra:
            yield Finding(
                level="notice", title=f"Extra {extra!r} is not installed",
                detail=f"{', '.join(names)} missing: this installation cannot {EXTRAS[extra]} → pip install '.[{extra}]' "
                "in a clone of robozarr",
            )  # fmt: skip
        else:
            yield Finding(
                level="problem", title="Packages missing", detail=f"{', '.join(names)} → pip install {' '.join(names)}"
            )


def _folder_is_gone() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def check_here() -> Iterator[Finding]:
    """Whether the folder that this runs in is still there."""
    if _folder_is_gone():
        yield Finding(
            level="problem", title="The folder that this runs in was removed",
            detail="torch cannot be imported from there, and a relative path leads nowhere → cd to another folder",
        )  # fmt: skip


def check_codec() -> Iterator[Finding]:
    """Whether zarr-python can be imported, and finds the codec of frames by its entry point."""
    try:
        from zarr.registry import get_codec_class
    except Exception as exc:
        yield Finding(
            level="problem", title="zarr cannot be imported",
            detail=f"{type(exc).__name__}: {exc} → pip install --upgrade --force-reinstall zarr",
        )  # fmt: skip
        return
    try:
        get_codec_class("robozarr.frames")
    except Exception as exc:
        yield Finding(
            level="problem", title="zarr does not know the codec robozarr.frames",
            detail=f"{type(exc).__name__}: {exc} → install robozarr again with pip: its entry point is missing",
        )  # fmt: skip
    else:
        yield Finding(
            level="good", title="zarr knows the codec robozarr.frames", detail="profiles lean and compact can be opened"
        )


def check_compiler(run: Run) -> Iterator[Finding]:
    """Whether the reader compiles, and its machine code can be kept."""
    if _installed("numba") is None or _installed("blosc2") is None:
        return
    if resource is None:
        yield Finding(
            level="notice", title="No loader, no converting",
            detail="this system lacks calls of Linux that both need; opening, looking and verifying work → use Linux, WSL or "
            "the container for the rest",
        )  # fmt: skip
        return
    code, said = run(["-m", "robozarr.loader.warm"])
    last = said.splitlines()[-1] if said else f"exit code {code}"
    if code == 0:
        yield Finding(level="good", title="The reader is compiled", detail=last)
    elif "not kept" in said:
        yield Finding(level="problem", title="Machine code cannot be kept", detail=f"{last}; each start compiles for some 10 s")
    else:
        yield Finding(
            level="problem", title="The reader does not compile",
            detail=f"{last} → install the wheels again: pip install --force-reinstall blosc2 numba",
        )  # fmt: skip


def check_cuda(run: Run) -> Iterator[Finding]:
    """Whether torch sees a GPU, where there is one."""
    if _installed("torch") is None:
        return
    code, said = run(["-c", "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"])
    words = said.split()
    if code != 0 or len(words) < 3:
        last = said.splitlines()[-1] if said else f"exit code {code}"
        yield Finding(level="problem", title="torch cannot be imported", detail=f"{last} → install torch again")
    elif words[-1] == "True":
        yield Finding(level="good", title="torch sees a CUDA device", detail=f"torch {words[0]}, CUDA {words[1]}")
    elif shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists():
        why = "is a build without CUDA" if words[1] == "None" else "sees no device"
        yield Finding(
            level="problem", title="The GPU is not used",
            detail=f"torch {words[0]} {why}, and an NVIDIA driver is installed → install a torch with CUDA; "
            "look at nvidia-smi and CUDA_VISIBLE_DEVICES",
        )  # fmt: skip
    else:
        yield Finding(level="notice", title="No GPU", detail=f"torch {words[0]} runs on the CPU; batches stay there")


def check_machine(shm: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """Memory, shared memory and open files; nothing where the system tells none of them."""
    if resource is None:
        return
    free = free_memory()
    advice = " → use fewer --workers, or raise the limit of the container or job" if free < FEW_BYTES else ""
    yield _finding(bool(advice), "Memory", f"{size_words(free)} may still be taken by this container or job{advice}")
    try:
        size = os.statvfs(shm).f_frsize * os.statvfs(shm).f_blocks
    except OSError as exc:
        yield Finding(
            level="notice", title="Shared memory", detail=f"{shm} cannot be used ({exc.strerror}); WindowLoader needs none"
        )
    else:
        little = size < LITTLE_SHM
        advice = "; WindowLoader needs none, a DataLoader's workers do → docker run --shm-size 8g" if little else ""
        yield _finding(little, "Shared memory", f"{shm} holds {size_words(size)}{advice}")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    few = 0 <= files < FEW_FILES
    yield _finding(few, "Open files", f"{files} are allowed{' → ulimit -n 65536, so that shards stay open' if few else ''}")


def check_place(place: str, endpoint_url: str | None) -> Iterator[Finding]:
    """A folder: rights, locks, renaming. A bucket: whether it answers and may be listed."""
    if "://" not in place:
        yield from check_folder(Path(place))
        return
    try:
        names = place_of(place, endpoint_url).names(1)
    except RoboZarrError as exc:
        yield Finding(level="problem", title=f"Bucket {place}", detail=str(exc))
    else:
        what = "holds objects" if names else "is empty, or does not exist yet"
        yield Finding(level="good", title=f"Bucket {place}", detail=f"it answers, may be listed, and {what}")


def check_folder(folder: Path) -> Iterator[Finding]:
    """Whether a folder can hold a store: a file is written, locked, renamed and removed in it, or in its parent."""
    there = folder if folder.is_dir() else folder.absolute().parent
    title = f"Folder {folder}"
    try:
        with tempfile.TemporaryDirectory(prefix=".robozarr-doctor-", dir=there) as inside:
            path = Path(inside) / "lock"
            with path.open("w") as file:
                file.write("x")
                file.flush()
                os.fsync(file.fileno())
                try:
                    if fcntl is not None:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as exc:
                    yield Finding(
                        level="notice", title=f"No locks: {there}",
                        detail=f"{exc.strerror}: two converters on different machines are kept apart by the lock file's age "
                        "alone; HDF5 files are read without locks",
                    )  # fmt: skip
            path.rename(Path(inside) / "other")
    except OSError as exc:
        yield Finding(
            level="problem", title=title,
            detail=f"{there} cannot be written to: {exc.strerror or exc} → change the rights, or choose another folder",
        )  # fmt: skip
    else:
        free = shutil.disk_usage(there).free
        yield Finding(level="good", title=title, detail=f"can be written to; {size_words(free)} free")


def _finding(notice: bool, title: str, detail: str) -> Finding:
    return Finding(level="notice" if notice else "good", title=title, detail=detail)

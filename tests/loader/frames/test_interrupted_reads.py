"""A read that a signal interrupts is made again: EINTR is no damage. One that is interrupted for ever is an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import format_writer
import pytest

PROFILES = ("raw", "fast")
SOURCE = """
#define _GNU_SOURCE
#include <sys/uio.h>
#include <sys/types.h>
#include <stdarg.h>
#include <errno.h>
#include <fcntl.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
static int n;
static int interrupted(void) { const char *every = getenv("EVERY"); return ++n % atoi(every) == 0; }
ssize_t preadv(int fd, const struct iovec *v, int c, off_t o) {
  static ssize_t (*real)(int, const struct iovec *, int, off_t); if (!real) real = dlsym(RTLD_NEXT, "preadv");
  if (interrupted()) { errno = EINTR; return -1; }
  return real(fd, v, c, o); }
ssize_t pread(int fd, void *b, size_t s, off_t o) {
  static ssize_t (*real)(int, void *, size_t, off_t); if (!real) real = dlsym(RTLD_NEXT, "pread");
  if (interrupted()) { errno = EINTR; return -1; }
  return real(fd, b, s > 7 ? s / 2 : s, o); }
ssize_t preadv2(int fd, const struct iovec *v, int c, off_t o, int f) { errno = EAGAIN; return -1; }
"""
READ = """
import os, sys
import robozarr as rz
for path in sys.argv[1:]:
    for every in ("2", "7", "1"):
        dataset = rz.WindowDataset(rz.open_store(path), rz.WindowSpec({"agentview_rgb": [0], "agentview_depth": [0]}))
        os.environ["EVERY"] = every
        try:
            said = f"{sum(len(batch['step']) for batch in rz.WindowLoader(dataset, 4))} windows"
        except rz.RoboZarrError as exc:
            said = f"{type(exc).__name__} {exc}"
        os.environ["EVERY"] = "1000000000"
        print(said)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler, which makes the library that interrupts")
    folder = tmp_path_factory.mktemp("library")
    (folder / "eintr.c").write_text(SOURCE)
    built = folder / "eintr.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", built, folder / "eintr.c", "-ldl"], check=True)
    return built


@pytest.fixture(scope="module")
def said(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], str]:
    """What comes of reading, by profile and by which call is interrupted: each second, each seventh, each."""
    stores = [tmp_path_factory.mktemp(profile) / "a.zarr" for profile in PROFILES]
    for profile, store in zip(PROFILES, stores, strict=True):
        format_writer.write_by_hand(store, profile)
    environment = {**os.environ, "LD_PRELOAD": str(library), "EVERY": "1000000000"}
    command = [sys.executable, "-c", READ, *map(str, stores)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    keys = [(profile, every) for profile in PROFILES for every in (2, 7, 1)]
    return dict(zip(keys, ran.stdout.splitlines(), strict=True))


@pytest.mark.slow(reason="starts a Python for each profile")
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("every", "expected"), [(2, "19 windows"), (7, "19 windows"), (1, "CorruptChunkError steps/agentview_")]
)
def test_interrupted(said: dict[tuple[str, int], str], profile: str, every: int, expected: str) -> None:
    assert said[profile, every].startswith(expected)

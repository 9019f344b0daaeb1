"""Fixtures that several test modules need, Hypothesis' one profile (seeded, no deadline, no database), and ``--full``."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# before anything imports torch: its threads wait for each other by computing, most of its time with two processes on two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import effort
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # the process that hands tests to others needs neither this nor what fixtures import
    from faulty import Proxy

settings.register_profile(
    "robozarr", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("robozarr")
multiprocessing.set_forkserver_preload(["blosc2", "numba", "torch", "zarr"])  # imported once for all workers of all tests
MEMORY, ENOUGH_BYTES = Path("/dev/shm"), 4 << 30


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="try everything that the tests can try: tests/support/effort.py")


def pytest_configure(config: pytest.Config) -> None:
    # what Python compiled is kept, whatever the environment says: each process that a test starts would compile torch anew
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    effort.set_full(config.getoption("--full"))
    # temporary files in memory, where there is enough: half of a small conversion is a file system making files
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; tests interrupt themselves
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.getoption("--full"):
        settings.register_profile("quick", settings.get_profile("robozarr"), max_examples=25)
        settings.load_profile("quick")


def pytest_xdist_auto_num_workers() -> int:
    """Of ``-n auto``: one for each core, while it finds 3 GB (torch, Dask's workers, files in memory); at least 2."""
    from robozarr.store.limits import free_memory, usable_cores

    return max(2, min(usable_cores(), free_memory() // 3_000_000_000, 8))


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not look at a million objects again, nor copy them in each fork that ends."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _disks_are_not_waited_for() -> Iterator[None]:
    """No machine loses its power here, and a conversion of a small file waits for a disk 180 times: most of the tests' time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def sample() -> Path:
    """The sample inside the repository: 2 files of 2 demos."""
    return Path(__file__).parents[1] / "sample"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Whole LIBERO-format files, which are too large for the repository."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real files: {path} is not there")
    return path


@pytest.fixture(scope="session")
def sample_store(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, converted. Read it; to change it, copy it."""
    from robozarr.convert import convert

    path = tmp_path_factory.mktemp("sample") / "sample.zarr"
    convert(sample, path, workers=0)
    return path


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a service that speaks S3, over HTTP on this machine; the environment holds its credentials."""
    pytest.importorskip("moto", reason="no service that speaks S3: moto is not installed")
    from remote import CREDENTIALS, served

    with pytest.MonkeyPatch.context() as patch, served() as url:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield url


@pytest.fixture
def proxy(s3: str) -> Iterator[Proxy]:
    """A proxy before the service: it counts, and breaks what it is told to."""
    from faulty import Proxy

    with Proxy(s3) as proxy:
        yield proxy

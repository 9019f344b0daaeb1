"""A converter is killed while a PUT is under way: the object appears late, or never; the rerun ends in the same bytes."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import Proxy, Request
from few_keys import BUT_CAMERAS
from killing import convert_command, kill_all
from remote import environment, new_place, same_objects

import robozarr as rz
import synthetic
from robozarr.convert import convert, verify
from robozarr.schemas.errors import CorruptChunkError
from robozarr.store.bucket import BucketPlace


class Holding(Proxy):
    """A proxy that keeps the first PUT which `which` is true of: it is neither sent on nor answered until it is let go."""

    def __init__(self, target: str, which: Callable[[Request], bool]) -> None:
        super().__init__(target)
        self.which, self.held, self.go, self.sent = which, threading.Event(), threading.Event(), threading.Event()

    async def _answer(self, request: Request, head: bytes, writer: asyncio.StreamWriter) -> None:
        if request.method == "PUT" and not self.held.is_set() and self.which(request):
            self.held.set()
            while not self.go.is_set():
                await asyncio.sleep(0.01)
            await self._forward(head, request.body)
            self.sent.set()
        await super()._answer(request, head, writer)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of one shape."""
    folder = tmp_path_factory.mktemp("sources") / "s"
    return [
        synthetic.write_libero(folder / f"{name}_demo.hdf5", lengths=(3, 2), size=8, seed=seed, drop_keys=BUT_CAMERAS)
        for seed, name in enumerate("ab")
    ]


@pytest.fixture(scope="module")
def expected(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("expected") / "a.zarr"
    convert(files[0], store, workers=0)
    return store


@pytest.fixture
def killed(s3: str, files: list[Path]) -> Iterator[Callable[[Callable[[Request], bool]], tuple[BucketPlace, Holding]]]:
    """Runs a conversion until a PUT is under way, and kills it: the place, and the proxy that holds the PUT."""
    proxies = []

    def run(which: Callable[[Request], bool]) -> tuple[BucketPlace, Holding]:
        proxy = Holding(s3, which)
        proxy.__enter__()
        proxies.append(proxy)
        place = new_place(s3, "a.zarr")
        line = convert_command(files[0], "--store", place.url, "--endpoint-url", proxy.url, "-w", "0")
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(line, stdout=quiet, stderr=quiet, start_new_session=True, env=environment())
        try:
            assert proxy.held.wait(60)
        finally:
            kill_all(process)
        return place, proxy

    yield run
    for proxy in proxies:
        proxy.__exit__()


def root(n: int) -> Callable[[Request], bool]:
    """The `n`-th root document: the first says that the store is begun, the second that it is complete."""
    seen: list[Request] = []

    def which(request: Request) -> bool:
        if request.path.endswith("a.zarr/zarr.json"):
            seen.append(request)
        return len(seen) == n

    return which


PUTS: dict[str, Callable[[], Callable[[Request], bool]]] = {
    "a shard": lambda: lambda request: "/steps/agentview_rgb/c/" in request.path,
    "a table": lambda: lambda request: "/stats/actions/c/" in request.path,
    "the record": lambda: lambda request: request.path.endswith("/plan.json"),
    "the first root": lambda: root(1),
    "the root": lambda: root(2),
}


@pytest.mark.slow(reason="a converter is started each time")
@pytest.mark.parametrize(
    ("what", "arrives"),
    [
        ("a shard", "never"),
        ("a shard", "late"),
        ("a table", "late"),
        ("the record", "never"),
        ("the first root", "never"),
        ("the first root", "late"),
        ("the root", "never"),
        ("the root", "late"),
    ],
)
def test_the_rerun_ends_in_the_same_bytes(
    killed: Callable[[Callable[[Request], bool]], tuple[BucketPlace, Holding]],
    files: list[Path], expected: Path, what: str, arrives: str,
) -> None:  # fmt: skip
    place, proxy = killed(PUTS[what]())
    convert(files[0], place, workers=0)
    assert same_objects(place, expected)
    if arrives == "late":
        proxy.go.set()
        assert proxy.sent.wait(20)
        assert same_objects(place, expected)
        assert verify(place, workers=0, sources=files[0]).ok


@pytest.mark.slow(reason="a converter is started each time")
@pytest.mark.parametrize("what", ["the first root", "the root"])
def test_a_late_root_does_not_come_into_another_store(
    killed: Callable[[Callable[[Request], bool]], tuple[BucketPlace, Holding]], files: list[Path], what: str
) -> None:
    """Of what was replaced meanwhile: the store would say that it is not complete, or that it holds what it does not."""
    place, proxy = killed(PUTS[what]())
    convert(files[1], place, workers=0, overwrite=True)
    identity = rz.open_store(place).identity
    proxy.go.set()
    assert proxy.sent.wait(20)
    assert rz.open_store(place).identity == identity
    assert verify(place, workers=0, sources=files[1]).ok


@pytest.mark.slow(reason="a converter is started each time")
def test_a_late_root_of_an_append_that_another_finished(s3: str, files: list[Path], tmp_path: Path) -> None:
    """The first document of its commit says that the store is not complete."""
    place = new_place(s3, "a.zarr")
    convert(files[0], place, workers=0)
    with Holding(s3, root(1)) as proxy:
        line = convert_command(*files, "--store", place.url, "--endpoint-url", proxy.url, "-w", "0", "--append")
        process = subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment()
        )
        try:
            assert proxy.held.wait(60)
        finally:
            kill_all(process)
        convert(files, place, workers=0, append=True)
        convert(files, tmp_path / "a.zarr", workers=0)
        assert same_objects(place, tmp_path / "a.zarr")
        proxy.go.set()
        assert proxy.sent.wait(20)
    assert same_objects(place, tmp_path / "a.zarr")


@pytest.mark.slow(reason="a converter is started")
def test_a_late_object_among_another_store_is_noticed(
    killed: Callable[[Callable[[Request], bool]], tuple[BucketPlace, Holding]], files: list[Path]
) -> None:
    """No service keeps that out. Nothing wrong is served: verify, windows and slices say which object it is."""
    place, proxy = killed(PUTS["a shard"]())
    convert(files[1], place, workers=0, overwrite=True)
    assert verify(place, workers=0, sources=files[1]).ok
    store = rz.open_store(place)
    proxy.go.set()
    assert proxy.sent.wait(20)
    (violation, *_) = verify(place, workers=0).violations
    assert violation.rule in ("M21", "M23")
    assert "agentview_rgb" in violation.text
    for opened in (store, rz.open_store(place)):
        with pytest.raises(CorruptChunkError, match="steps/agentview_rgb · shard 0"):
            rz.WindowDataset(opened, rz.WindowSpec({"agentview_rgb": [0]})).read([0])
        with pytest.raises(CorruptChunkError, match="steps/agentview_rgb · shard 0"):
            opened.array("agentview_rgb")[0]


@pytest.mark.slow(reason="a converter is started")
def test_a_late_record_of_a_run_that_is_over_is_removed(
    killed: Callable[[Callable[[Request], bool]], tuple[BucketPlace, Holding]], files: list[Path], expected: Path
) -> None:
    """It comes into a complete store: whoever appends, or converts the same again, takes it away."""
    place, proxy = killed(PUTS["the record"]())
    convert(files[0], place, workers=0)
    proxy.go.set()
    assert proxy.sent.wait(20)
    assert rz.open_store(place).n_episodes == 2
    convert(files, place, workers=0, append=True)
    assert verify(place, workers=0, sources=files).ok

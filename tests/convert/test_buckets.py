"""Converting into a bucket, over HTTP: the same bytes as in a folder, after kills and faults too, with one PUT a shard."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from effort import some
from exits import exit_code
from faulty import Fault, Proxy, Request, broken
from killing import convert_command, kill_all, run_and_kill
from mortal import write_source
from remote import BUCKET, environment, new_place, same_objects

import robozarr
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas import layout
from robozarr.schemas.errors import BucketError, IncompleteStoreError, StoreError
from robozarr.store.bucket import BucketPlace
from robozarr.store.embedding import read_task_embedding, write_task_embedding
from robozarr.store.locate import place_of
from robozarr.store.summary import summarise

KILLS = some(3, 2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small files, in a folder each: what a service is asked for is the number of arrays, not the size of pictures."""
    folder = tmp_path_factory.mktemp("source") / "s"
    for number, name in enumerate("ab"):
        write_source(folder / name / "a_demo.hdf5", number)
    return folder


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("expected") / "a.zarr"
    convert(source, store, workers=0)
    return store


def shards(folder: Path) -> list[str]:
    return [name for name in place_of(folder).names() if "/c/" in name]


def is_listing(request: Request) -> bool:
    return request.method == "GET" and "list-type=2" in request.query


@pytest.mark.parametrize(
    ("files", "made"),
    [
        ("source", "expected"),
        pytest.param("sample", "sample_store", marks=pytest.mark.slow(reason="some hundred objects more, of the same kinds")),
    ],
)
def test_the_bytes_are_those_of_a_folder(s3: str, request: pytest.FixtureRequest, files: str, made: str) -> None:
    place, source, expected = new_place(s3), request.getfixturevalue(files), request.getfixturevalue(made)
    report = convert(source, place.url, endpoint_url=s3, workers=0)
    assert report.store == place.url
    assert same_objects(place, expected)
    checked = verify(place.url, endpoint_url=s3, workers=0, sources=source)
    assert checked.ok, checked.violations
    assert checked.n_shards == len(shards(expected))
    mine, theirs = (
        summarise(robozarr.open_store(place.url, s3)).to_json(),
        summarise(robozarr.open_store(expected)).to_json(),
    )
    assert {**mine, "path": ""} == {**theirs, "path": ""}


@pytest.mark.slow(reason="whole files through worker processes, twice, once over HTTP")
def test_whole_files_by_two_workers(s3: str, real_data: Path, tmp_path: Path) -> None:
    place, local = new_place(s3), tmp_path / "a.zarr"
    convert(real_data, local, workers=2, keys=["agentview_rgb", "joint_states"])
    convert(real_data, place, workers=2, keys=["agentview_rgb", "joint_states"])
    assert same_objects(place, local)
    assert verify(place, sources=real_data, workers=2).ok
    place.remove(place.names())


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_the_command_line_says_the_same_of_both(
    s3: str, source: Path, expected: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, texts = new_place(s3, expected.name), {}
    arguments = ["convert", str(source), "--store", place.url, "--endpoint-url", s3, "-w", "0"]
    assert exit_code([*arguments, "--dry-run"]) == 0
    assert place.names() == []
    assert exit_code(arguments) == 0
    assert f"next: robozarr verify {place.url} --source {source} --endpoint-url {s3}" in capsys.readouterr().out
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)  # what obstore reads by itself
    for store in (place.url, str(expected)):
        assert exit_code(["verify", store, "-w", "0"]) == 0
        capsys.readouterr()
        assert exit_code(["info", store]) == 0
        ended = exit_code(["report", store, "--check"])
        texts[store] = ended, capsys.readouterr().out.replace(store, "")
    assert texts[place.url] == texts[str(expected)]


@pytest.mark.slow(reason="draws all charts of a report, twice")
def test_a_report_shows_the_same_of_both(
    s3: str, sample_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, local, texts = new_place(s3, sample_store.name), place_of(sample_store), []
    for name in local.names():
        place.write(name, [local.read(name)])
    page = tmp_path / "report.html"
    for store, options in ((place.url, ["--endpoint-url", s3]), (str(sample_store), [])):
        assert exit_code(["report", store, "-o", str(page), *options]) == 0
        texts.append([text.replace(store, "") for text in (capsys.readouterr().out, page.read_text())])
    assert texts[0] == texts[1]


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_what_a_conversion_asks_for(proxy: Proxy, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listings, n_shards = [], []
    for files, shard_bytes in ((source / "a", layout.FRAME_SHARD_BYTES), (source, 200)):  # all in one shard, and one a frame
        monkeypatch.setattr(layout, "FRAME_SHARD_BYTES", shard_bytes)
        local, place = tmp_path / f"{shard_bytes}.zarr", new_place(proxy.url)
        convert(files, local, workers=0)
        n_shards.append(len(shards(local)))
        proxy.reset()
        convert(files, place, workers=0)
        prefix = f"/{BUCKET}/{place.url.split('/', 3)[3]}/"
        put = [request.path.removeprefix(prefix) for request in proxy.requests if request.method == "PUT"]
        assert sorted(name for name in put if "/c/" in name) == shards(local)
        once = [name for name in put if not name.startswith(FOLDER) and name != "zarr.json"]
        assert len(once) == len(set(once))
        assert put.count("zarr.json") == 2  # begun, complete
        assert sum("uploads" in request.query or "uploadId" in request.query for request in proxy.requests) == 0
        listings.append(sum(map(is_listing, proxy.requests)))
        proxy.reset()
        assert verify(place, workers=0).ok
        assert sum(map(is_listing, proxy.requests)) == 1
    assert n_shards[1] > n_shards[0] + 4
    assert listings[0] == listings[1] <= 6, listings


def command(source: Path, place: BucketPlace, workers: int) -> list[str]:
    assert place.endpoint_url is not None
    return convert_command(source, "--store", place.url, "--endpoint-url", place.endpoint_url, "-w", str(workers))


@pytest.mark.slow(reason="converters that are killed, and begin anew")
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments_the_rerun_ends_in_the_same_bytes(
    proxy: Proxy, source: Path, expected: Path, workers: int
) -> None:
    place, rng, n_killed = new_place(proxy.url), random.Random(workers), 0
    proxy.latency_s = 0.02  # a conversion of small files takes a second
    for _ in range(KILLS):
        after_s, line = rng.uniform(0, 2.5 if workers else 1.2), command(source, place, workers)
        killed = run_and_kill(line, after_s, partial(place.exists, f"{FOLDER}/lock"), environment())
        n_killed += killed
        if not killed:
            assert same_objects(place, expected)
            place = new_place(proxy.url)
        elif place.exists("zarr.json"):
            with contextlib.suppress(IncompleteStoreError):
                assert same_objects(robozarr.open_store(place).place, expected)  # killed while it gave its lock back
    assert n_killed
    if not same_objects(place, expected):
        convert(source, place, workers=workers)
    assert same_objects(place, expected)


@pytest.mark.slow(reason="starts a converter, in a new Python")
@pytest.mark.parametrize("hangs", [False, True])
def test_sigterm_ends_a_conversion_within_ten_seconds(proxy: Proxy, source: Path, expected: Path, hangs: bool) -> None:
    place = new_place(proxy.url)
    proxy.latency_s = 0.02
    process = subprocess.Popen(
        command(source, place, some(2, 1)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=environment(),
    )  # fmt: skip
    try:
        while process.poll() is None and not any("steps/agentview" in request.path for request in proxy.requests):
            time.sleep(0.005)
        if hangs:
            proxy.latency_s = 1000
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    finally:
        kill_all(process)
        process.communicate()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    direct = BucketPlace(place.url, proxy.target)
    assert direct.exists(f"{FOLDER}/lock") == hangs
    convert(source, direct, workers=0)
    assert same_objects(direct, expected)


def interrupted(source: Path, place: BucketPlace, **options: object) -> None:
    """A conversion that ends right before its statistics, as by Ctrl-C."""

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robozarr.convert.run.write_statistics", end)
        with pytest.raises(KeyboardInterrupt):
            convert(source, place, workers=0, **options)  # type: ignore[arg-type]


def test_what_is_done_is_kept_and_what_was_damaged_is_done_again(s3: str, source: Path, expected: Path) -> None:
    place = new_place(s3)
    interrupted(source, place)
    journal = [name.removeprefix(f"{FOLDER}/") for name in place.names() if name.startswith(FOLDER)]
    assert "plan.json" in journal
    assert "lock" not in journal
    assert 1 <= sum(name.startswith("done/") for name in journal) <= 8  # batches of lines, not an object a partition
    with pytest.raises(IncompleteStoreError, match="run the same `robozarr convert` again to continue it"):
        robozarr.open_store(place)
    with pytest.raises(StoreError, match="unfinished"):
        convert(source, place, workers=0, append=True)
    name = "steps/agentview_rgb/c/0/0/0/0"
    data = bytearray(place.read(name))
    data[100] ^= 1  # the size is right, the checksum is not
    place.write(name, [data])
    place.remove(["steps/actions/c/0/0"])
    place.write(f"{FOLDER}/done/0.jsonl", [b'{"path": "steps/to'])
    place.write(f"{FOLDER}/lock.0", [b""])  # left by one that was killed while it looked how old the lock is
    report = convert(source, place, workers=0)
    assert report.n_kept == report.n_partitions - 2
    assert same_objects(place, expected)
    with pytest.raises(StoreError, match="already holds a store; give another --store, or --append"):
        convert(source, place, workers=0)


def test_a_store_is_replaced_and_what_is_not_its_own_stays(s3: str, source: Path, expected: Path) -> None:
    place = new_place(s3)
    convert(source / "a", place, workers=0)
    place.write("notes.txt", [b"mine"])
    convert(source, place, workers=0, overwrite=True)
    assert place.read("notes.txt") == b"mine"
    place.remove(["notes.txt"])
    assert same_objects(place, expected)
    other = new_place(s3)
    other.write("data/results.csv", [b"1,2,3"])
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="is not a robozarr store, so it is not touched"):
            convert(source, other, workers=0, overwrite=overwrite)
    assert other.names() == ["data/results.csv"]


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_an_append_ends_in_the_bytes_of_a_folders(proxy: Proxy, source: Path, tmp_path: Path, fresh: None) -> None:
    place, local = new_place(proxy.url), tmp_path / "a.zarr"
    for store in (place, place_of(local)):
        convert(source / "a", store, workers=0)
    before = place.names()
    convert(source, local, workers=0, append=True)
    copies: list[str] = []

    def fails(request: Request) -> Fault | None:  # the network goes in the middle of the commit
        if request.method == "PUT" and not request.body and not request.path.endswith("/commit"):
            copies.append(request.path)
            return Fault("reset") if len(copies) > 20 else None
        return None

    with broken(proxy, fails), pytest.raises(BucketError, match=r"stage/.*: cannot be copied"):
        convert(source, place, workers=0, append=True)
    with pytest.raises(IncompleteStoreError):
        robozarr.open_store(place)
    assert set(before) < set(place.names())
    proxy.reset()
    convert(source, place, workers=0, append=True)
    assert same_objects(place, local)


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_a_task_embedding_is_written_beside_the_rest(s3: str, source: Path) -> None:
    place = new_place(s3)
    convert(source, place, workers=0)
    encoded = np.arange(8, dtype=np.float32).reshape(2, 4)
    write_task_embedding(robozarr.open_store(place), "encoded", encoded)
    assert np.array_equal(read_task_embedding(robozarr.open_store(place), "encoded"), encoded)
    with pytest.raises(StoreError, match="is there already"):
        write_task_embedding(robozarr.open_store(place), "encoded", encoded)
    assert verify(place, workers=0).ok


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_a_copied_store_is_a_store(s3: str, expected: Path, tmp_path: Path) -> None:
    """What others upload, by whatever tool, is verified like what the converter wrote; a lost and a stray object are found."""
    place, local = new_place(s3), place_of(expected)
    for name in local.names():
        place.write(name, [local.read(name)])
    assert verify(place, workers=0).ok
    place.remove(["steps/actions/c/0/0"])
    place.write("steps/agentview_rgb/c/9/0", [b"stray"])
    place.write(".convert.robozarr-tmp/stage/zarr.json", [b"{}"])
    found = {violation.rule: violation.text for violation in verify(place, workers=0).violations}
    assert found.keys() == {"M7", "M20"}
    shutil.copytree(expected, tmp_path / "a.zarr")
    (tmp_path / "a.zarr/steps/actions/c/0/0").unlink()
    (tmp_path / "a.zarr/steps/agentview_rgb/c/9").mkdir()
    (tmp_path / "a.zarr/steps/agentview_rgb/c/9/0").write_bytes(b"stray")
    (tmp_path / "a.zarr/.convert.robozarr-tmp/stage").mkdir(parents=True)
    (tmp_path / "a.zarr/.convert.robozarr-tmp/stage/zarr.json").write_bytes(b"{}")
    assert verify(place, workers=0).violations == verify(tmp_path / "a.zarr", workers=0).violations

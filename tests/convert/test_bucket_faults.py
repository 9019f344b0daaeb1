"""Faults of a network and of a service: retried, or said in one line that names the object and what to do."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest
from exits import exit_code
from faulty import Fault, Kind, Proxy, Request, broken
from mortal import write_source
from remote import CREDENTIALS, new_place, same_objects

import robozarr
from robozarr.convert import convert, verify
from robozarr.convert.resuming.journal import FOLDER
from robozarr.schemas.errors import StoreError

KINDS: tuple[Kind, ...] = ("503", "reset", "lost answer", "slow", "truncated")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "s/a_demo.hdf5", 1)


def test_with_faults_of_every_kind_the_bytes_are_the_same(proxy: Proxy, source: Path, tmp_path: Path) -> None:
    place, rng, counted = new_place(proxy.url), random.Random(0), [0]

    def some(request: Request) -> Fault | None:
        counted[0] += 1
        return Fault(rng.choice(KINDS), pause_s=0.005) if counted[0] % 11 == 3 else None

    with broken(proxy, some):
        convert(source, place, workers=0)
        assert verify(place, workers=0, sources=source).ok
    assert counted[0] > 100
    convert(source, tmp_path / "a.zarr", workers=0)
    assert same_objects(place, tmp_path / "a.zarr")


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
def test_a_fault_that_stays_is_an_error_that_names_the_object(
    proxy: Proxy, source: Path, fresh: None, capsys: pytest.CaptureFixture[str]
) -> None:
    place = new_place(proxy.url)
    name = "steps/agentview_rgb/c/0/0/0/0"
    arguments = ["convert", str(source), "--store", place.url, "--endpoint-url", proxy.url, "-w", "0"]
    with broken(proxy, lambda request: Fault("503") if request.path.endswith(name) else None):
        assert exit_code(arguments) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"robozarr: {place.url}/{name}: cannot be written: SlowDown: Please reduce your request rate., after 1 retries"
    )
    assert not place.exists(f"{FOLDER}/lock")
    assert exit_code(arguments) == 0
    with broken(proxy, lambda request: Fault("truncated") if request.path.endswith(name) else None):
        assert exit_code(["verify", place.url, "--endpoint-url", proxy.url, "-w", "0"]) == 3
    assert f"{place.url}/{name}: cannot be read" in capsys.readouterr().err
    kinds: tuple[Kind, ...] = ("flipped", "cut")
    for kind in kinds:
        with broken(proxy, lambda request, kind=kind: Fault(kind) if request.path.endswith(name) else None):  # type: ignore[misc]
            found = verify(place, workers=0).violations
        assert any("steps/agentview_rgb · shard 0" in violation.text for violation in found), kind


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"store": "s3://no-such-bucket/a"}, "there is no bucket no-such-bucket; make it"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials were found; set AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "no credentials were found; set AWS_ACCESS_KEY_ID"),
        ({"endpoint": "http://127.0.0.1:1"}, "http://127.0.0.1:1 does not answer .*; check --endpoint-url"),
        ({"endpoint": "127.0.0.1:9000"}, "not an endpoint; give one that begins with http:// or https://"),
        ({"fault": "403"}, "access is refused .*; check the credentials"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    proxy: Proxy, source: Path, fresh: None, change: dict[str, str], match: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    for name in CREDENTIALS:
        if change.get(name) == "":
            monkeypatch.delenv(name)
    store, endpoint = change.get("store", new_place(proxy.url).url), change.get("endpoint", proxy.url)
    if "fault" in change:
        proxy.fault = lambda request: Fault("403")
    for arguments in (["convert", str(source), "-w", "0", "--store", store], ["verify", store], ["info", store]):
        assert exit_code([*arguments, "--endpoint-url", endpoint]) == 3
        said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(said) == 1, said
        assert re.search(match, said[0]), said


def test_without_obstore_the_error_says_what_to_install(s3: str, fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StoreError, match=r"pip install '\.\[s3\]'"):
        robozarr.open_store("s3://bucket/a")

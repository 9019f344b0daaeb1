"""Every block of Python in README and docs is run by a test, or this says why not. What no other test runs is run here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import robozarr as rz
from robozarr.convert import convert
from robozarr.store.locate import place_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN_BY = {
    "README.md": "tests/robozarr/test_documents.py",
    "docs/instructions.md": "tests/robozarr/test_docs_blocks.py",
    "docs/loading.md": "tests/robozarr/test_docs_blocks.py",
    "docs/looking.md": "tests/robozarr/test_docs_blocks.py",
    "docs/loops.md": "tests/loader/loops/test_docs.py",
    "docs/object-stores.md": "tests/robozarr/test_docs_blocks.py",
    "docs/recipes/lerobot.md": "tests/train/lerobot/test_recipe.py",
    "docs/recipes/openvla.md": "tests/loader/loops/test_docs.py",
    "docs/tour.md": "tests/robozarr/test_tour.py",
    "docs/windows.md": "tests/loader/test_docs_windows.py",
}
NOT_RUN = {"docs/cluster.md": "there is no SLURM, no Dask Gateway and no Kubernetes here"}


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


def run(page: str, names: dict[str, object], **instead: str) -> dict[str, object]:
    """Run the blocks of a page one after another, with words of theirs replaced."""
    for number, code in enumerate(blocks(ROOT / "docs" / page)):
        for word, other in instead.items():
            code = code.replace(word, other)
        exec(compile(code, f"{page}: block {number}", "exec"), names)
    return names


def test_every_page_with_python_is_run_or_says_why_not() -> None:
    there = {page.relative_to(ROOT).as_posix() for page in PAGES if blocks(page)}
    assert there == {*RUN_BY, *NOT_RUN}
    for page, test in RUN_BY.items():
        assert Path(page).name in (ROOT / test).read_text(), (page, test)


@pytest.mark.parametrize("page", NOT_RUN)
def test_what_is_not_run_compiles_and_imports_what_is_there(page: str) -> None:
    for code in blocks(ROOT / page):
        compile(code, page, "exec")
        for line in re.findall(r"^from robozarr.*$", code, re.M):
            exec(line, {})


@pytest.fixture
def here(sample: Path, sample_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the store and the files that pages name, in which their blocks run."""
    (tmp_path / "data").symlink_to(sample)
    (tmp_path / "libero_spatial.zarr").symlink_to(sample_store)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_looking(here: Path) -> None:
    store = rz.open_store("libero_spatial.zarr")
    dataset = rz.WindowDataset(store, {"agentview_rgb": [-1, 0], "actions": range(8)})
    names = run("looking.md", {"store": store, "dataset": dataset}, **{"show(100)": "show(10)"})
    assert repr(names["episode"]).startswith("Episode")


def test_instructions(here: Path, sample: Path) -> None:
    convert(sample, "own.zarr", workers=0)
    given = {"store": rz.open_store("own.zarr"), "rz": rz, "window": {"actions": range(8)}}
    names = run("instructions.md", {**given, "encode": lambda _: np.zeros(4, np.float32)})
    dataset = names["dataset"]
    assert isinstance(dataset, rz.WindowDataset)
    assert dataset[0]["t5"].shape == (4,)


@pytest.fixture
def robots(s3: str, sample_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stores in the bucket ``robots`` of the service that the environment names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    local = place_of(sample_store)
    for name in ("libero.zarr", "libero_spatial.zarr"):
        place = place_of(f"s3://robots/{name}")
        for file in local.names():
            place.write(file, [local.read(file)])


@pytest.mark.usefixtures("robots")
def test_loading(here: Path) -> None:
    names = run("loading.md", {"rz": rz, "window": {"actions": range(8)}}, **{"/local/robozarr": str(here / "cache")})
    loader = names["loader"]
    assert isinstance(loader, rz.WindowLoader)
    assert sum(len(batch["actions"]) for batch in loader) == 44


@pytest.mark.slow(reason="hundreds of requests to a service that speaks S3, each some milliseconds of computing")
@pytest.mark.usefixtures("robots")
def test_object_stores(here: Path) -> None:
    names = run("object-stores.md", {"rz": rz, "robozarr": rz}, **{"workers=8": "workers=0, overwrite=True"})
    assert isinstance(names["store"], rz.Store)

"""The report: right, small, quick, self-contained, and as a browser shows it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effort import some
from playwright.sync_api import Browser, sync_playwright

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.schemas.errors import StoreError
from robozarr.view.report import N_PICTURES, report_html, write_report

SECTIONS = ["summary", "problems", "tasks", "distributions", "coverage", "flags", "keys", "statistics", "sources"]
SUITES = ["libero_spatial", "libero_object", "libero_goal", "libero_10", "."]
EVIL = 'open the <img src=x onerror=alert(1)> & "drawer"'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a report holds; fails on tags that do not match, and on anything that asks for a network."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.images = 0
        self.charts = 0
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert tag not in ("script", "iframe", "object", "base", "form"), tag
        assert not any(name.startswith("on") for name in values), values
        for name in ("src", "href", "xlink:href"):
            assert str(values.get(name, "#")).startswith(("#", "data:")), values[name]
        if tag not in VOID:
            self.open.append(tag)
        self.sections += [str(values.get("id"))] * (tag == "section")
        self.images += tag == "img"
        self.charts += tag == "svg"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def sample_report(sample_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[rz.Store, Page, Path]:
    """The report of the sample: drawn once, looked at by many tests."""
    return report(sample_store, tmp_path_factory.mktemp("report"))


def slowness() -> float:
    """How much longer than 0.12 s a loop takes that took so long where the bound of 10 s was set; at least 1."""
    before, total = time.process_time(), 0
    for number in range(2_000_000):
        total += number
    return max(1.0, (time.process_time() - before) / 0.12)


def report(store: Path, folder: Path) -> tuple[rz.Store, Page, Path]:
    """Make a report within 10 s of computing (longer where Python is slower) and 10 MB, and read it."""
    opened, path, before = rz.open_store(store), folder / "report.html", time.process_time()
    n_bytes = write_report(opened, path)
    assert time.process_time() - before < 10 * slowness()
    assert n_bytes == path.stat().st_size < 10_000_000
    page = Page(path.read_text())
    assert page.sections == SECTIONS
    for count, word in ((opened.n_tasks, "tasks"), (opened.n_episodes, "episodes"), (opened.n_steps, "steps")):
        assert f"{count:,}{word}" in page.text.replace("\n", "")
    for name in opened.keys:
        assert name in page.text
    for source in opened.metadata.sources[:200]:
        assert source.name in page.text
    return opened, page, path


@pytest.mark.slow(reason="converts and draws whole files; the sample is cut from two of them")
@pytest.mark.parametrize("suite", SUITES)
def test_the_real_files(real_data: Path, tmp_path: Path, suite: str) -> None:
    convert(real_data / "libero" / suite, tmp_path / "a.zarr", workers=0)
    check_page_of_libero(*report(tmp_path / "a.zarr", tmp_path)[:2])


def test_the_sample(sample_report: tuple[rz.Store, Page, Path]) -> None:
    store, page, _ = sample_report
    check_page_of_libero(store, page)


def check_page_of_libero(store: rz.Store, page: Page) -> None:
    assert page.images == store.n_tasks * 2 * 3
    assert page.charts == 4
    assert "Pictures are turned upright for viewing" in page.text
    for instruction in store.tasks.instruction:
        assert instruction in page.text
    stats = store.stats("actions")
    assert f"{stats['mean'][0]:.4g}" in page.text
    assert f"{stats['q99'][2]:.4g}" in page.text


def one_episode(folder: Path) -> None:
    synthetic.write_libero(folder / "s/a_demo.hdf5", lengths=(40,), instruction=EVIL)


def one_camera(folder: Path) -> None:
    synthetic.write_libero(folder / "s/a_demo.hdf5", lengths=(7, 8), drop_keys=["obs/eye_in_hand_rgb"], size=300)


def no_images(folder: Path) -> None:
    synthetic.write_robomimic(folder / "s/a.hdf5", images=False)


def one_step(folder: Path) -> None:
    synthetic.write_libero(folder / "s/a_demo.hdf5", lengths=(1,), depth=True)


@pytest.mark.parametrize(
    ("make", "images", "charts"),
    [
        (one_episode, 6, 4),
        (no_images, 0, 3),
        *(
            pytest.param(*case, marks=pytest.mark.slow(reason="draws a whole report"))
            for case in ((one_camera, 3, 4), (one_step, 4, 4))
        ),
    ],
)
def test_small_and_odd_stores(
    tmp_path: Path, make: Callable[[Path], None], images: int, charts: int, request: pytest.FixtureRequest
) -> None:
    if make is not one_step:  # whose charts are of single numbers
        request.getfixturevalue("words_only")
    make(tmp_path)
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    store, page, path = report(tmp_path / "a.zarr", tmp_path)
    assert (page.images, page.charts) == (images, charts)
    assert (images == 0) == ("This store holds no pictures." in page.text)
    if make is one_episode:
        assert EVIL in page.text
        assert "<img src=x" not in path.read_text()
    if make is one_episode or some(1, 0):  # drawn again
        assert report_html(store) == path.read_text()


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 episodes of 250 tasks, 100,000 steps."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    leave_out = [f"obs/{name}" for name in ("ee_states", "ee_ori", "gripper_states", "eye_in_hand_rgb")]
    leave_out += ["robot_states", "states", "rewards", "dones"]
    for task in range(250):
        synthetic.write_libero(
            folder / f"s/task_{task}_demo.hdf5", lengths=rng.integers(20, 81, 8).tolist(), seed=task, size=8,
            instruction=f"do thing {task}", drop_keys=leave_out, model_file_bytes=100,
        )  # fmt: skip
    convert(folder / "s", folder / "a.zarr", workers=0)
    return folder / "a.zarr"


@pytest.mark.slow(reason="converts 250 files")
def test_2000_episodes(large: Path, tmp_path: Path) -> None:
    store, page, _ = report(large, tmp_path)
    assert store.n_episodes == 2000
    assert 0 < page.images <= N_PICTURES
    assert "… and 50 more tasks" in page.text
    assert "… and 50 more: store.metadata.sources" in page.text
    assert len(str(store._repr_html_())) < 1_000_000


def test_a_report_is_whole_or_not_there(
    sample_store: Path, sample_report: tuple[rz.Store, Page, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = sample_report[2].read_text()
    monkeypatch.setattr("robozarr.view.report.report_html", lambda *_, **__: page)  # to be written, and not drawn again
    (tmp_path / "report.html").write_text("before")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match="as it was: no space left"):
        write_report(rz.open_store(sample_store), tmp_path / "report.html")
    assert os.listdir(tmp_path) == ["report.html"]  # noqa: PTH208 - hidden files count
    assert (tmp_path / "report.html").read_text() == "before"


@pytest.fixture(scope="module")  # closed before others fork: its driver waits until nobody holds its pipe any more
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: the report is not looked at by a browser (Debian: apt-get install chromium)")
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=[*quiet, "--disable-component-update"])
        yield found
        found.close()


AGAIN = pytest.mark.slow(reason="each width and each scheme once more, in a process of its own")


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1200, "light"), (390, "dark"), pytest.param(1200, "dark", marks=AGAIN), pytest.param(390, "light", marks=AGAIN)],
)
def test_in_a_browser(sample_report: tuple[rz.Store, Page, Path], browser: Browser, scheme: Any, width: int) -> None:
    said: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(sample_report[2].as_uri())
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [sample_report[2].as_uri()]
    assert page.locator("section").evaluate_all("all => all.map(one => one.id)") == SECTIONS
    heights = page.locator("section").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
    assert min(heights) > 60
    pictures = page.locator("img").evaluate_all("all => all.map(one => [one.complete, one.naturalWidth, one.clientWidth])")
    assert len(pictures) == 12
    assert all(complete and natural == 128 and shown > 60 for complete, natural, shown in pictures)
    charts = page.locator("svg").evaluate_all("all => all.map(one => [one.clientWidth, one.clientHeight])")
    assert all(200 < w <= width and h > 100 for w, h in charts)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # a phone does not scroll sideways
    colours = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
        " getComputedStyle(document.querySelector('svg text')).fill]"
    )
    background, ink, chart_ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours)
    assert chart_ink == ink
    assert (background > 230 and ink < 60) if scheme == "light" else (background < 40 and ink > 200)
    small = page.locator("svg text").evaluate_all("all => Math.min(...all.map(one => one.getBoundingClientRect().height))")
    assert small >= 7
    page.close()


@pytest.mark.slow(reason="starts a browser")
def test_printed(sample_report: tuple[rz.Store, Page, Path], browser: Browser) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(sample_report[2].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    data = page.pdf(format="A4")
    n_pages = len(re.findall(rb"/Type\s*/Page\b", data))
    assert 3 <= n_pages <= 12
    page.close()


@pytest.mark.slow(reason="starts a browser")
@pytest.mark.usefixtures("words_only")
def test_text_of_a_source_does_nothing_in_a_browser(tmp_path: Path, browser: Browser) -> None:
    one_episode(tmp_path)
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    *_, path = report(tmp_path / "a.zarr", tmp_path)
    page = browser.new_page()
    said: list[str] = []
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("console", lambda message: said.append(message.text))
    page.goto(path.as_uri())
    assert page.get_by_text(EVIL).count() == 1
    assert not said
    page.close()

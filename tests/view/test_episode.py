"""An episode and a window to look at: the right pixels, the right way up, marks where the flags are, text escaped."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effort import some
from numpy.typing import NDArray
from PIL import Image, ImageSequence

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.schemas.index import StepFlag
from robozarr.view.pictures import to_rgb
from robozarr.view.windows import read_window

EVIL = 'put <script>alert("x")</script> & $x$ on the stove'


class Images(HTMLParser):
    """The pictures of a page, by their alternative text; fails on a tag that no writer of ours makes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, NDArray[Any]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        values = dict(attrs)
        if tag == "img":
            data = base64.b64decode(str(values["src"]).partition(",")[2])
            self.found[str(values["alt"])] = np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def make(folder: Path, **options: Any) -> rz.Store:
    synthetic.write_libero(folder / "s" / "a_demo.hdf5", **options)
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


@pytest.fixture
def store(sample_store: Path) -> rz.Store:
    return rz.open_store(sample_store)


def test_the_filmstrip_holds_the_stored_pixels_turned_upright(store: rz.Store) -> None:
    episode = store.episode(1)
    strip = episode.filmstrip(4)
    assert "turned upright for viewing (the store keeps them upside down" in strip
    found = Images(strip).found
    assert len(found) == 8
    for name in ("agentview_rgb", "eye_in_hand_rgb"):
        for step in (0, 4, 7, 11):
            assert np.array_equal(found[f"{name}, episode 1, step {step}"], np.asarray(store.array(name)[9 + step])[::-1])


def test_pictures_of_each_convention(store: rz.Store) -> None:
    frames = np.asarray(store.array("agentview_rgb")[:2])
    for code, expected in ((0, frames[:, ::-1]), (1, frames), (-1, frames)):
        assert np.array_equal(to_rgb(store, "agentview_rgb", frames, code), expected)


def test_robomimic_is_upright_as_stored(tmp_path: Path) -> None:
    synthetic.write_robomimic(tmp_path / "s" / "a.hdf5", lengths=(6, 5), size=20)
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    store = rz.open_store(tmp_path / "a.zarr")
    strip = store.episode(0).filmstrip(2)
    assert "Pictures are upright, as stored." in strip
    found = Images(strip).found["agentview_image, episode 0, step 5"]
    assert np.array_equal(found, store.array("agentview_image")[5])
    assert "robot0_joint_pos" in store.episode(0).plot().svg()
    assert store.episodes.to_pandas()["split_train"].tolist() == [True, False]


def test_the_video_has_every_step_at_its_time(store: rz.Store) -> None:
    episode = store.episode(1)
    for kind, tolerance in (("webp", 12), ("gif", 24)):
        video = episode.video(kind)  # type: ignore[arg-type]
        with Image.open(BytesIO(video.data)) as image:
            assert (image.n_frames, image.info["loop"]) == (12, 0)  # type: ignore[attr-defined]
            assert image.size == (256, 134)
            for step, frame in enumerate(ImageSequence.Iterator(image)):
                frame.load()
                assert frame.info["duration"] == 50
                got = np.asarray(frame.convert("RGB")).astype(int)[:128, :128]
                assert np.abs(got - np.asarray(store.array("agentview_rgb")[9 + step])[::-1]).mean() < tolerance
        assert f"data:image/{kind};base64," in video._repr_html_()
    with Image.open(BytesIO(episode.video(speed=2).data)) as image:
        image.load()
        assert image.info["duration"] == 25
    with pytest.raises(StoreError, match=r"kind is 'webp' or 'gif', speed above 0; got 'mp4'"):
        episode.video("mp4")  # type: ignore[arg-type]


def test_the_plot_marks_what_the_flags_say(store: rz.Store) -> None:
    episode = store.episode(1)
    chart = episode.plot()
    n_noop, n_key = (int(((episode.flags & int(flag)) != 0).sum()) for flag in (StepFlag.NOOP, StepFlag.KEY_MOMENT))
    assert (n_noop, n_key) == (9, 8)
    assert (
        chart.title == f"Episode 1, 12 steps: {n_noop} do nothing (hatched), {n_key} lie near a change of the gripper (shaded)"
    )
    arm, gripper, state = chart.figure.axes[:3]
    assert np.array_equal(np.array([line.get_ydata() for line in arm.lines]).T, episode["actions"][:, :-1])
    assert np.array_equal(gripper.lines[0].get_ydata(), episode["actions"][:, -1])
    assert np.array_equal(np.array([line.get_ydata() for line in state.lines]).T, episode["joint_states"])
    shaded = np.zeros(12, bool)
    for patch in arm.patches:
        if not patch.get_hatch():
            left, right = patch.get_extents().transformed(arm.transData.inverted()).intervalx
            shaded[round(left + 0.5) : round(right + 0.5)] = True
    assert np.array_equal(shaded, (episode.flags & int(StepFlag.KEY_MOMENT)) != 0)
    for axes, words in ((arm, "command"), (state, "joint_states\n(rad)")):
        assert axes.get_ylabel() == words
    assert state.get_xlabel() == "step t"


def test_text_of_a_source_is_escaped_everywhere(tmp_path: Path) -> None:
    store = make(tmp_path, instruction=EVIL, extra={"obs/$a<b>$": lambda n, rng: rng.random((n, 2))}, size=16)
    pages = [
        store._repr_html_(),
        store.tasks._repr_html_(),
        store.episode(0)._repr_html_(),
        store.episode(0).video()._repr_html_(),
        store.episode(0).plot("$a<b>$")._repr_html_(),
        read_window(store, rz.WindowSpec({"$a<b>$": range(4), "actions": [0]}), 0)._repr_html_(),
    ]
    for page in pages:
        assert page is not None
        assert "<script" not in page
        assert "<b>$" not in page
        Images(page)
    assert "&lt;script&gt;" in str(pages[0])
    assert "$x$" in str(pages[0])


def test_stores_without_pictures_with_depth_and_with_one_step(tmp_path: Path) -> None:
    none = make(tmp_path / "none", lengths=(1, 4), drop_keys=["obs/agentview_rgb", "obs/eye_in_hand_rgb"])
    assert "holds no pictures" in none.episode(0)._repr_html_()
    assert "<img" not in str(none._repr_html_())
    with pytest.raises(StoreError, match="this store holds none → plot"):
        none.episode(0).video()
    depth = make(tmp_path / "depth", lengths=(1, 4), depth=True)
    found = Images(depth.episode(0).filmstrip()).found
    assert {name.partition(",")[0] for name in found} == {
        "agentview_rgb", "eye_in_hand_rgb", "agentview_depth", "eye_in_hand_depth"
    }  # fmt: skip
    grey = found["agentview_depth, episode 0, step 0"]
    assert grey.std() > 10
    assert (grey[..., 0] == grey[..., 2]).all()
    assert depth.episode(0).video().size == (64, 22)


def test_tables_are_frames_and_opening_a_store_needs_none(store: rz.Store) -> None:
    frame = store.episodes.to_pandas()
    assert frame["length"].tolist() == store.episodes.length.tolist()
    assert frame["alignment"].tolist() == ["after"] * 4
    assert frame["success"].isna().all()
    assert store.tasks.to_pandas()["instruction"].tolist() == list(store.tasks.instruction)
    assert "<table" in str(store.episodes._repr_html_())


@pytest.mark.parametrize("padding", ["edge", "zero"])
def test_a_window_is_what_the_dataset_serves(store: rz.Store, padding: Any) -> None:
    spec = rz.WindowSpec({"agentview_rgb": [-1, 0, 1], "joint_states": [0], "actions": range(-2, 9)}, padding=padding)
    dataset = rz.WindowDataset(store, spec)
    for number, window in enumerate((0, 8, 20, 43)):
        shown, read = dataset.show(window), read_window(store, spec, window)
        for name, value in read.sample.items():
            assert np.array_equal(value, shown.sample[name]), name
        if some(1, 0) or (padding, number) == ("edge", 0):  # drawn twice
            assert read._repr_html_() == shown._repr_html_()
    assert repr(read) == "WindowView(43: episode 3, step 12; padded: agentview_rgb 1/3, joint_states 0/1, actions 8/11)"
    with pytest.raises(WindowError, match="window 44: there are 44, from 0 on"):
        read_window(store, spec, 44)


def test_a_window_shows_frames_chunk_and_mask(store: rz.Store) -> None:
    spec = rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(16)})
    view = read_window(store, spec, 0)
    page = view._repr_html_()
    found = Images(page).found
    first = np.asarray(store.array("agentview_rgb")[0])[::-1]
    assert np.array_equal(found["agentview_rgb, offset -1 · padding"], first)
    assert np.array_equal(found["agentview_rgb, offset +0"], first)
    assert page.count("opacity:.45") == 1
    chart = view.plot()
    n_pad = 16 - int(store.episodes.length[0]) + 1
    assert f"{n_pad} rows lie outside the episode and are padding" in chart.title
    actions, masks = chart.figure.axes
    lines = {
        line.get_label(): np.asarray(line.get_ydata()) for line in actions.lines if not str(line.get_label()).startswith("_")
    }
    expected = np.asarray(store.array("actions")[:9])
    assert np.array_equal(np.stack([lines[str(i)][:9] for i in range(7)], axis=1), expected)
    assert all(np.isnan(lines[str(i)][9:]).all() for i in range(7))
    hollow = [line for line in masks.lines if line.get_markerfacecolor() == "none"]
    assert sum(len(np.asarray(line.get_xdata())) for line in hollow) == n_pad
    assert re.search(r"Masks: full is data, hollow is padding", chart.svg())


@pytest.mark.slow(reason="draws every chart twice")
def test_charts_follow_the_page_and_leave_no_trace(store: rz.Store, tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    chart = store.episode(0).plot()
    svg = chart.svg()
    assert svg == chart.svg() == store.episode(0).plot().svg()
    assert "#1a1a1b" not in svg
    assert "currentColor" in svg
    assert "system-ui" in svg
    assert not re.search(r' id="(figure|axes)', svg)
    for name in re.findall(r"url\(#(\w+)\)", svg):
        assert f'id="{name}"' in svg
    chart.save(tmp_path / "a.png")
    chart.save(tmp_path / "a.svg")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width == 1080
    assert "hatched" in (tmp_path / "a.svg").read_text()
    assert chart.svg() == svg
    assert dict(matplotlib.rcParams) == before

"""A store written from the words of FORMAT.md alone is a good store: `verify` accepts it, `open_store` reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import format_writer
import numpy as np
import pytest
from numpy.typing import NDArray

import robozarr
from robozarr.convert import verify

Writer = Callable[[Path, str], None]
WRITERS: list[tuple[Writer, str, int]] = [
    (format_writer.write_with_zarr, "raw", 2),
    (format_writer.write_with_zarr, "fast", 1),
    (format_writer.write_by_hand, "fast", 2),
    (format_writer.write_by_hand, "compact", 1),
    (format_writer.write_by_hand, "lean", 2),
    (format_writer.write_by_hand, "compact", 2),
]


@pytest.fixture(scope="module", params=WRITERS, ids=lambda writer: f"{writer[0].__name__}-{writer[1]}-{writer[2]}")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    write, profile, version = request.param
    path = tmp_path_factory.mktemp("words") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_writer, "VERSION", version)
        write(path, profile)
    return path


def test_writer_uses_nothing_of_robozarr() -> None:
    lines = Path(format_writer.__file__).read_text().splitlines()
    assert [line for line in lines if line.lstrip().startswith(("import ", "from ")) and "robozarr" in line] == []


def test_verify_accepts_it(written: Path) -> None:
    report = verify(written, workers=0)
    assert report.violations == ()
    assert (report.ok, report.n_episodes, report.n_steps) == (True, 3, 19)


def test_writer_covers_every_flag() -> None:
    flags = next(values for path, values, _ in format_writer.arrays() if path == "index/flags")
    assert np.unpackbits(flags[:, None], axis=1, bitorder="little").sum(axis=0)[:3].all()


def test_keys_read_back(written: Path) -> None:
    store = robozarr.open_store(written)
    for key in format_writer.keys():
        got = np.asarray(store.array(key.name)[...])
        assert got.dtype == key.steps.dtype
        np.testing.assert_array_equal(got, key.steps, err_msg=key.name)
        assert store.keys[key.name].role == key.role
        assert store.stats(key.name)["max"].shape == key.steps.shape[3 if key.frame else 1 :]
    assert store.stats("actions")["n"].tolist() == [19.0] * 4
    np.testing.assert_allclose(store.stats("agentview_rgb")["n"], 19 * 8 * 9)
    assert store.episode_stats("dones")["rms"].tolist() == [0.0, 0.0, 0.0]


def test_ragged_reads_back(written: Path) -> None:
    states = robozarr.open_store(written).ragged("states")
    expected = {path: values for path, values, _ in format_writer.arrays() if path.startswith("ragged/")}
    assert [len(states[row]) for row in range(19)] == [12] * 15 + [15] * 4
    flat = np.concatenate([states[row] for row in range(19)])
    np.testing.assert_array_equal(flat, expected["ragged/states/values"])


def test_tables_read_back(written: Path) -> None:
    store = robozarr.open_store(written)
    assert (store.n_tasks, store.n_episodes, store.n_steps) == (2, 3, 19)
    assert store.episodes.start.tolist() == [0, 6, 15]
    assert store.episodes.length.tolist() == [6, 9, 4]
    assert store.episodes.demo == ("demo_2", "demo_10", "demo_0")
    assert store.episodes.splits["train"].tolist() == [True, False, True]
    assert store.index.episode.tolist() == [0] * 6 + [1] * 9 + [2] * 4
    assert store.index.step.tolist() == [*range(6), *range(9), *range(4)]
    version = store.metadata.format_version
    assert store.tasks.instruction == ("pick up the cup – gently", "open the drawer" if version == 1 else "")
    assert store.episodes.instruction == ("pick up the cup – gently",) * 2 + ("open the drawer",)
    assert store.episodes.instruction_source.tolist() == ([4, 4, 4] if version == 1 else [2, 4, 5])
    assert store.tasks.bddl == ("", "")
    assert [len(store.init_state(episode)) for episode in range(3)] == [12, 0, 15]
    assert [store.model_file(episode)[:9] for episode in range(2)] == ["<mujoco/>", ""]
    assert store.episode_attributes(1)["obs"]["note"]["value"] == ["zwölf"]
    assert store.source_attributes(0) == {}


def further_keys() -> list[format_writer.Key]:
    """What LIBERO does not hold and the format allows."""
    rng = np.random.default_rng(9)
    depth = rng.random((19, 8, 8, 1)).astype(np.float32)
    depth[3, 2, 2], depth[4, 1, 1], depth[5] = np.nan, np.inf, -0.0
    values: dict[str, NDArray[Any]] = {
        "agentview_mask": rng.random((19, 8, 8, 2)) < 0.5,
        "agentview_segments": rng.integers(-5, 999, (19, 8, 9, 1)).astype(np.int16),
        "agentview_fine": rng.random((19, 9, 8)),
        "agentview_odd": depth,
        "grasped": rng.random(19) < 0.5,
        "ticks": rng.integers(0, 2**63, (19, 2), np.uint64),
        "far": 1e8 + rng.random((19, 2)),
        "tensor": rng.random((19, 2, 3, 4)).astype(np.float16),
    }
    return [format_writer.Key(name, f"obs/{name}", "state", "", steps) for name, steps in values.items()]


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")  # NaN and infinities in the sums
def test_keys_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [*format_writer.keys(), *further_keys()]
    monkeypatch.setattr(format_writer, "keys", lambda: keys)
    format_writer.write_by_hand(tmp_path / "a.zarr", "fast")
    assert verify(tmp_path / "a.zarr", workers=0).violations == ()
    store = robozarr.open_store(tmp_path / "a.zarr")
    for key in keys:
        np.testing.assert_array_equal(np.asarray(store.array(key.name)[...]), key.steps, err_msg=key.name)


def test_rows_that_are_wide_and_no_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = format_writer.Key("heights", "obs/heights", "state", "m", np.ones((19, 4, 10_000)))
    keys = [*format_writer.keys(), wide]
    monkeypatch.setattr(format_writer, "keys", lambda: keys)
    format_writer.write_by_hand(tmp_path / "a.zarr", "fast")
    assert verify(tmp_path / "a.zarr", workers=0).violations == ()


def test_further_arrays_below_embedding_are_allowed(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    format_writer.write_by_hand(store, "fast")
    (store / "tasks/embedding").mkdir()
    group = '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
    (store / "tasks/embedding/zarr.json").write_text(group)
    clip = np.ones((2, 4), np.float32)
    format_writer.write_array(store, "tasks/embedding/clip", clip, ("task", "clip_i"), (1, 2), None)
    assert verify(store, workers=0).violations == ()
    assert robozarr.open_store(store).group["tasks/embedding/clip"].shape == (2, 4)  # type: ignore[union-attr]

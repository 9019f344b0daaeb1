"""A store that is replaced, appended to, cut or removed while it is read: never a wrong window, and an error that says so.

Values are compared with what the store served before. ``tests/support/change_under_training.py`` does so with a gigabyte.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remote import new_place

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.dataset import Sample, WindowDataset
from robozarr.schemas.errors import RoboZarrError, StoreChangedError, WindowError
from robozarr.store.place import Place
from synthetic import write_libero

SPEC: dict[str, Any] = {"agentview_rgb": [-1, 0], "actions": range(3), "joint_states": [0]}
NOT_READ = ("obs/ee_pos", "obs/ee_ori", "obs/ee_states", "obs/gripper_states", "obs/eye_in_hand_rgb", "robot_states", "rewards")
"""What no window here has: files that would only be uploaded."""
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`old`; `same`: another of its shape; `small` and `large`: of fewer and more steps."""
    folder = tmp_path_factory.mktemp("sources")
    lengths = {"old": (20, 10), "same": (20, 10), "small": (6, 5), "large": (30, 20)}
    return {
        name: write_libero(
            folder / name / "t_demo.hdf5", lengths=length, seed=seed, instruction=f"do {name}", drop_keys=NOT_READ
        )
        for seed, (name, length) in enumerate(lengths.items())
    }


@pytest.fixture(scope="module")
def made(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A store of each."""
    folder = tmp_path_factory.mktemp("made")
    for name, source in sources.items():
        convert(source, folder / f"{name}.zarr", workers=0)
    return {name: folder / f"{name}.zarr" for name in sources}


@pytest.fixture
def store(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["old"], tmp_path / "a.zarr"))


def make_dataset(store: rz.Store) -> WindowDataset:
    return WindowDataset(store, rz.WindowSpec(SPEC))


def replace(store: Path, other: Path) -> None:
    """As an overwrite does: files come under their names anew, the root last."""
    for file in sorted(store.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    shutil.copytree(other, store, dirs_exist_ok=True)


def remove(store: Path) -> None:
    shutil.rmtree(store)


def cut(store: Path) -> None:
    """Every shard ends in its first part, in place: open files see it too."""
    for file in store.rglob("c/**/*"):
        if file.is_file():
            os.truncate(file, file.stat().st_size // 16)


def gather(batches: Iterable[Sample], into: dict[tuple[int, int], Sample]) -> None:
    for batch in batches:
        arrays = {name: np.array(value.tolist() if torch.is_tensor(value) else value) for name, value in batch.items()}
        for i, where in enumerate(zip(arrays["episode"].tolist(), arrays["step"].tolist(), strict=True)):
            into[where] = {name: array[i] for name, array in arrays.items()}


def assert_all_are_of(windows: dict[tuple[int, int], Sample], dataset: WindowDataset) -> None:
    """Every window that was served is the one of `dataset`."""
    whole: dict[tuple[int, int], Sample] = {}
    gather([dataset.read(range(len(dataset)))], whole)
    for where, window in windows.items():
        for name, value in window.items():
            assert np.array_equal(value, whole[where][name]), (where, name)


REPLACED = r"a\.zarr: replaced since it was opened: identity [0-9a-f]{32} then, [0-9a-f]{32} now → open it again"


@pytest.mark.parametrize("other", ["same", "small", "large"])
def test_a_store_that_was_replaced(store: Path, made: dict[str, Path], other: str) -> None:
    """What was read stays; what is read later says what happened; nothing is of both."""
    opened, looked = rz.open_store(store), rz.open_store(store)
    dataset, blob = make_dataset(opened), pickle.dumps(make_dataset(opened))
    names = looked.tasks.instruction
    replace(store, made[other])
    for use in (
        lambda: looked.episodes, lambda: looked.stats("actions"), lambda: looked.array("actions"),
        lambda: looked.ragged("states"), lambda: make_dataset(looked), lambda: dataset.read([0]),
        lambda: pickle.loads(blob), lambda: looked.episode(0),
    ):  # fmt: skip
        with pytest.raises(StoreChangedError, match=REPLACED):
            use()
    assert names == ("do old",)
    assert isinstance(opened.changed(), StoreChangedError)
    assert rz.open_store(store).changed() is None
    assert make_dataset(rz.open_store(store)).read([0])["instruction"] == [f"do {other}"]


def test_a_store_that_grew(store: Path, sources: dict[str, Path]) -> None:
    opened, lazy = rz.open_store(store), rz.open_store(store)
    dataset = make_dataset(opened)
    convert(
        [sources["old"], write_libero(store.parent / "more/u_demo.hdf5", seed=9, drop_keys=NOT_READ)],
        store,
        workers=0,
        append=True,
    )
    grew = r"a\.zarr: grew since it was opened: 2 episodes then, 4 now → open it again"
    for use in (
        lambda: dataset.read([0]), lambda: lazy.index, lambda: lazy.stats("actions"), lambda: lazy.model_file(0),
        lambda: lazy.ragged("states")[3], lambda: lazy.init_state(0), lambda: next(iter(rz.WindowLoader(dataset, 4))),
    ):  # fmt: skip
        with pytest.raises(StoreChangedError, match=grew):
            use()


def test_a_store_that_is_being_replaced_or_gone(store: Path, made: dict[str, Path]) -> None:
    opened = rz.open_store(store)
    root = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(root.replace('"complete": true', '"complete": false'))
    shutil.rmtree(store / "stats")
    at_work = r"a\.zarr: changed since it was opened: a conversion or an append is working on it"
    with pytest.raises(StoreChangedError, match=at_work):
        opened.stats("actions")
    shutil.rmtree(store)
    with pytest.raises(StoreChangedError, match=r"a\.zarr: removed since it was opened → restore it"):
        opened.stats("actions")
    store.mkdir()
    (store / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreChangedError, match=r"a\.zarr: replaced since it was opened, by something else: "):
        opened.stats("actions")


def test_damage_is_not_called_a_change(store: Path) -> None:
    opened = rz.open_store(store)
    cut(store)
    assert opened.changed() is None
    with pytest.raises(RoboZarrError, match=r"stats/actions.* → restore the shard from a copy"):
        opened.stats("actions")


Change = Callable[[Path], None]


@pytest.mark.parametrize(
    "method",
    ["fork", *(pytest.param(name, marks=pytest.mark.slow(reason="imports torch anew")) for name in ("spawn", "forkserver"))],
)
def test_workers_of_a_dataloader(store: Path, made: dict[str, Path], method: str) -> None:
    """New workers of the second epoch meet another store: the error reaches the process that iterates."""
    dataset = make_dataset(rz.open_store(store))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=10, num_workers=1, multiprocessing_context=method, collate_fn=dataset.collate
    )
    windows: dict[tuple[int, int], Sample] = {}
    gather(loader, windows)
    replace(store, made["small"])
    with pytest.raises(RoboZarrError, match=r"a\.zarr: replaced since it was opened"):
        gather(loader, windows)
    assert_all_are_of(windows, make_dataset(rz.open_store(made["old"])))


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "replaced": replace,
    "removed": lambda store, other: remove(store),
    "cut": lambda store, other: cut(store),
}


@pytest.mark.parametrize("cache", ["none", "host"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_loader_at_work(store: Path, made: dict[str, Path], change: str, cache: str) -> None:
    """Of what was loaded, of what lies in memory, or an error: never a window of two stores."""
    loader = rz.WindowLoader(make_dataset(rz.open_store(store)), 2, seed=1, cache=None if cache == "none" else "host")
    windows: dict[tuple[int, int], Sample] = {}
    said = ""
    try:
        for number, batch in enumerate(loader):
            gather([batch], windows)
            if number == 1:
                CHANGES[change](store, made["same"])
        gather(loader, windows)
    except RoboZarrError as exc:
        said = str(exc)
    assert_all_are_of(windows, make_dataset(rz.open_store(made["old"])))
    if cache == "host":
        assert said == ""
        assert len(windows) == 30
    elif change == "cut":
        assert "restore the shard from a copy" in said
    # of a folder, open files stay what they were: that is right too


@pytest.mark.parametrize("cached", [pytest.param(False, marks=pytest.mark.slow(reason="uploads two stores again")), True])
def test_a_bucket(s3: str, sources: dict[str, Path], made: dict[str, Path], tmp_path: Path, cached: bool) -> None:
    def put(place: Place, store: Path) -> None:
        place.empty(["steps", "index", "tasks", "episodes", "stats", "checksums", "ragged", "histograms", "sources"])
        for file in sorted(store.rglob("*"), reverse=True):
            if file.is_file():
                place.write(file.relative_to(store).as_posix(), [file.read_bytes()])

    place, cache = new_place(s3, "a.zarr"), tmp_path / "cache" if cached else None
    put(place, made["old"])
    store, lazy = (rz.open_store(place, cache_dir=cache) for _ in range(2))
    _ = lazy.tasks, lazy.episodes, lazy.index
    loader = rz.WindowLoader(make_dataset(store), 2, seed=1, prefetch=1)
    windows: dict[tuple[int, int], Sample] = {}

    def train() -> None:
        for number, batch in enumerate(loader):
            gather([batch], windows)
            if number == 1:
                put(place, made["same"])
                make_dataset(lazy)

    with pytest.raises(StoreChangedError, match=REPLACED):
        train()
    assert_all_are_of(windows, make_dataset(rz.open_store(made["old"])))
    dataset = make_dataset(rz.open_store(place, cache_dir=cache))  # the cache's files of the old store are not taken
    fresh: dict[tuple[int, int], Sample] = {}
    gather([dataset.read(range(len(dataset)))], fresh)
    assert_all_are_of(fresh, make_dataset(rz.open_store(made["same"])))


def test_a_relative_path_is_the_same_after_chdir(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.parent)
    opened = rz.open_store("a.zarr")
    dataset = make_dataset(opened)
    monkeypatch.chdir("/")
    assert dataset.read([0])["step"].tolist() == [0]
    assert opened.stats("actions")["n"][0] == 30
    assert next(iter(rz.WindowLoader(dataset, 4, normalise=rz.Normalise(keys={"actions": "mean_std"}))))
    assert pickle.loads(pickle.dumps(opened)).path == str(store)
    assert np.asarray(opened.array("actions")[0]).shape == (7,)


def test_a_state_belongs_to_its_store(made: dict[str, Path], sources: dict[str, Path], tmp_path: Path) -> None:
    """Of another store of the same shape it is refused, of the same data anywhere it is taken."""

    def loader(path: Path) -> rz.WindowLoader:
        return rz.WindowLoader(make_dataset(rz.open_store(path)), 4, seed=1)

    one = loader(made["old"])
    for _ in zip(range(2), one, strict=False):
        pass
    state = one.state_dict()
    said = r"of this store; saved with the store of identity [0-9a-f]{32}, now [0-9a-f]{32} → resume"
    with pytest.raises(WindowError, match=said):
        loader(made["same"]).load_state_dict(state)
    shutil.copytree(made["old"], tmp_path / "elsewhere.zarr")
    loader(tmp_path / "elsewhere.zarr").load_state_dict(state)

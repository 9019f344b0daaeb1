"""Attributes of episodes and sources: one by one, and of many, whose shards are read once."""

from __future__ import annotations

from collections import Counter

import h5py
import pytest

import robozarr as rz
import synthetic
from robozarr.convert import convert
from robozarr.store.folder import FolderPlace


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> rz.Store:
    """Ten sources of one or two demos; each says its number."""
    folder = tmp_path_factory.mktemp("attributes")
    for number in range(10):
        source = folder / f"s/{number}/a_demo.hdf5"
        synthetic.write_libero(source, lengths=(3, 4)[: 1 + number % 2], size=8, seed=number)
        with h5py.File(source, "r+") as file:
            file["data"].attrs["number"] = number
            for name, demo in file["data"].items():
                demo.attrs["note"] = f"{name} of {number}"
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


def test_many_are_those_that_each_is(store: rz.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen = FolderPlace.read, Counter[str]()

    def counted(self: FolderPlace, name: str, *options: int | None) -> bytes:
        seen[name] += 1
        return read(self, name, *options)

    monkeypatch.setattr(FolderPlace, "read", counted)
    of_episodes = list(store.attributes_of_episodes(range(store.n_episodes)))
    of_sources = list(store.attributes_of_sources(range(10)))
    assert max(count for name, count in seen.items() if "/attributes/" in name) == 1
    assert of_episodes == [store.episode_attributes(episode) for episode in range(15)]
    assert of_sources == [store.source_attributes(source) for source in range(10)]
    assert [of["data"]["number"]["value"] for of in of_sources] == [[number] for number in range(10)]
    assert len({str(of[""]["note"]["value"]) for of in of_episodes}) == 15


def test_any_order_and_none(store: rz.Store) -> None:
    rows = [14, 0, 7, 7, 3]
    assert list(store.attributes_of_episodes(rows)) == [store.episode_attributes(row) for row in rows]
    assert list(store.attributes_of_sources([])) == []


@pytest.mark.parametrize("row", [-1, 15])
def test_a_row_that_is_not_there(store: rz.Store, row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} of 15"):
        store.episode_attributes(row)
    found = store.attributes_of_episodes([3, row])
    assert next(found) == store.episode_attributes(3)
    with pytest.raises(IndexError, match=f"row {row} of 15"):
        next(found)

"""robomimic's arguments of 0.5, and its metadata, from a store; `make test-train` runs robomimic."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from robozarr.convert import convert
from robozarr.loader.adapters.robomimic import SequenceDataset, get_demos_for_filter_key, get_env_metadata_from_dataset
from robozarr.schemas.errors import WindowError
from synthetic import write_robomimic

OBS = ["robot0_eef_pos"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("robomimic")
    file = write_robomimic(folder / "in" / "lift.hdf5", lengths=(9, 7, 8), size=8)
    write_robomimic(folder / "in" / "can.hdf5", lengths=(5, 6), size=8)
    convert(folder / "in", folder / "both.zarr", workers=0)
    return file, folder / "both.zarr"


@pytest.mark.parametrize("normalization", [None, "min_max", "gaussian"])
def test_actions_are_normalised_as_of_0_5(made: tuple[Path, Path], normalization: str | None) -> None:
    file, store = made
    lang = np.arange(4, dtype=np.float32)
    dataset = SequenceDataset(
        store / "lift.hdf5", OBS, dataset_keys=["rewards"], action_keys=["actions"], seq_length=3, lang=lang,
        action_config={"actions": {"normalization": normalization}}, hdf5_cache_mode="low_dim", load_next_obs=False,
    )  # fmt: skip
    assert (dataset.n_demos, dataset.total_num_sequences) == (3, 24)
    with h5py.File(file) as source:
        demos = [source["data"][f"demo_{i}"]["actions"][...].astype(np.float32) for i in range(3)]
    every = np.concatenate(demos)
    scale, offset = np.ones(7), np.zeros(7)
    if normalization == "min_max":
        scale = (every.max(axis=0) - every.min(axis=0)) / (2 * 0.999999)
        offset = every.min(axis=0) + 0.999999 * scale
    elif normalization == "gaussian":
        scale, offset = every.std(axis=0), every.mean(axis=0)
    stats = dataset.get_action_normalization_stats()["actions"]
    still = np.ptp(every, axis=0) < 1e-4
    np.testing.assert_allclose(stats["scale"][0][~still], scale[~still], rtol=1e-5)
    number = 0
    for demo in demos:
        for step in range(len(demo)):
            sample = dataset[number]
            rows = np.minimum(np.arange(step, step + 3), len(demo) - 1)
            expected = (demo[rows] - offset) / scale
            np.testing.assert_allclose(sample["actions"][:, ~still], expected[:, ~still], atol=1e-5)
            assert sample["actions"].dtype == np.float32
            assert sample["index"] == number
            np.testing.assert_array_equal(sample["obs"]["lang_emb"], np.tile(lang, (3, 1)))
            number += 1
    [batch] = dataset.loader(24, shuffle=False)
    assert batch["index"].tolist() == list(range(24))


def test_a_source_in_a_store_and_a_limit_of_demos(made: tuple[Path, Path]) -> None:
    _, store = made
    everything = SequenceDataset(store, OBS, ["actions"], load_next_obs=False)
    assert (everything.n_demos, len(everything)) == (5, 35)
    can = SequenceDataset(store / "can.hdf5", OBS, ["actions"], load_next_obs=False)
    assert (can.n_demos, len(can)) == (2, 11)
    limited = SequenceDataset(store / "lift.hdf5", OBS, ["actions"], load_next_obs=False, demo_limit=2)
    assert (limited.n_demos, len(limited)) == (2, 16)
    assert "8 by demo_limit 2" in [str(entry) for entry in limited.left_out]
    with pytest.raises(WindowError, match="one source of"):
        SequenceDataset(store / "square.hdf5", OBS, ["actions"], load_next_obs=False)


def test_metadata_are_the_files(made: tuple[Path, Path]) -> None:
    file, store = made
    with h5py.File(file) as source:
        environment = json.loads(source["data"].attrs["env_args"])
        valid = [name.decode() for name in source["mask"]["valid"][...]]
    got = get_env_metadata_from_dataset(store / "lift.hdf5", set_env_specific_obs_processors=False)
    assert got == environment
    assert [name.split("/")[-1] for name in get_demos_for_filter_key(store / "lift.hdf5", "valid")] == valid
    with pytest.raises(WindowError, match="a split of the store"):
        get_demos_for_filter_key(store, "none")

"""Diffusion policy's data set and ReplayBuffer, against its own rules written down as loops.

real-stanford/diffusion_policy, 5ba07ac6661db573af695b419a7947ecb704690f: diffusion_policy/common/sampler.py, dataset/
robomimic_replay_image_dataset.py. ``make test-train ROBOZARR_UPSTREAM=…`` compares with the package itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from recipes import blocks, shell
from stored import column
from torch.utils.data import DataLoader
from zarr.storage import ZipStore

from robozarr.loader.adapters.diffusion_policy import DiffusionPolicyDataset
from robozarr.loader.adapters.diffusion_policy.export import export_replay_buffer
from robozarr.loader.adapters.diffusion_policy.rotations import absolute_actions, rotation_6d
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.schemas.metadata import TEMPORARY
from robozarr.store.opened import Store, open_store

META: dict[str, Any] = {
    "obs": {"agentview_rgb": {"shape": [3, 128, 128], "type": "rgb"}, "ee_pos": {"shape": [3], "type": "low_dim"}},
    "action": {"shape": [7]},
}


@pytest.fixture(scope="module")
def store(sample_store: Path) -> Store:
    return open_store(sample_store)


@pytest.mark.slow(reason="two processes")
def test_the_recipes_commands(sample_store: Path, tmp_path: Path) -> None:
    _, commands = blocks("diffusion_policy", "bash")
    shutil.copytree(sample_store, tmp_path / "libero_spatial.zarr")
    shell(commands, tmp_path)
    again = open_store(tmp_path / "again.zarr")
    np.testing.assert_array_equal(column(again, "actions"), column(open_store(sample_store), "actions"))


def upstream_indices(ends: list[int], horizon: int, mask: NDArray[np.bool_], before: int, after: int) -> list[list[int]]:
    """sampler.py: create_indices, line by line."""
    before, after = min(max(before, 0), horizon - 1), min(max(after, 0), horizon - 1)
    indices = []
    for i, end in enumerate(ends):
        if not mask[i]:
            continue
        start = ends[i - 1] if i > 0 else 0
        length = end - start
        for idx in range(-before, length - horizon + after + 1):
            buffer_start, buffer_end = max(idx, 0) + start, min(idx + horizon, length) + start
            start_offset, end_offset = buffer_start - (idx + start), (idx + horizon + start) - buffer_end
            indices.append([buffer_start, buffer_end, start_offset, horizon - end_offset])
    return indices


def upstream_sequence(values: NDArray[Any], indices: list[int], horizon: int) -> NDArray[Any]:
    """sampler.py: SequenceSampler.sample_sequence."""
    buffer_start, buffer_end, sample_start, sample_end = indices
    sample = values[buffer_start:buffer_end]
    data = np.zeros((horizon, *values.shape[1:]), values.dtype)
    if sample_start > 0:
        data[:sample_start] = sample[0]
    if sample_end < horizon:
        data[sample_end:] = sample[-1]
    data[sample_start:sample_end] = sample
    return data


@pytest.mark.parametrize(
    ("horizon", "before", "after", "n_obs", "val_ratio", "most"),
    [
        (16, 1, 7, 2, 0.0, None),  # the published configuration
        (4, 3, 3, 2, 0.3, None),
        (8, 0, 0, None, 0.3, 1),
        (3, 9, 9, 2, 0.0, None),  # padding is cut to horizon - 1
        (1, 0, 0, 1, 0.5, None),
    ],
)
def test_every_item(
    store: Store, horizon: int, before: int, after: int, n_obs: int | None, val_ratio: float, most: int | None
) -> None:
    dataset = DiffusionPolicyDataset(
        META, store, horizon, before, after, n_obs, val_ratio=val_ratio, max_train_episodes=most, seed=42
    )  # fmt: skip
    ends = (store.episodes.start + store.episodes.length).tolist()
    frames, position = column(store, "agentview_rgb"), column(store, "ee_pos")
    actions = column(store, "actions")
    for served in (dataset, dataset.get_validation_dataset()):
        indices = upstream_indices(ends, horizon, served.train_mask, before, after)
        assert len(served) == len(indices)
        for each, item in zip(indices, served.__getitems__(range(len(served))), strict=True):
            picture = np.moveaxis(upstream_sequence(frames, each, horizon)[:n_obs], -1, 1).astype(np.float32) / 255.0
            np.testing.assert_array_equal(item["obs"]["agentview_rgb"].numpy(), picture)
            expected = upstream_sequence(position, each, horizon)[:n_obs].astype(np.float32)
            np.testing.assert_array_equal(item["obs"]["ee_pos"].numpy(), expected)
            expected = upstream_sequence(actions, each, horizon).astype(np.float32)
            np.testing.assert_array_equal(item["action"].numpy(), expected)


def test_causal(store: Store) -> None:
    """LIBERO's files were recorded after the action: of a sequence, action t is the one recorded at t + 1."""
    dataset = DiffusionPolicyDataset(META, store, horizon=4, pad_before=1, pad_after=2, causal=True)
    episodes, actions = zip(store.episodes.start, store.episodes.length, strict=True), column(store, "actions")
    frames, number = column(store, "agentview_rgb"), 0
    for start, length in episodes:
        for first in range(-1, length - 1 - 4 + 2 + 1):
            steps = np.clip(np.arange(first, first + 4), 0, length - 2)
            item = dataset[number]
            np.testing.assert_array_equal(item["action"].numpy(), actions[start + steps + 1].astype(np.float32))
            picture = np.moveaxis(frames[start + steps], -1, 1).astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(item["obs"]["agentview_rgb"].numpy(), picture)
            number += 1
    assert len(dataset) == number
    np.testing.assert_array_equal(
        dataset.get_all_actions().numpy(), np.delete(actions, store.episodes.start, axis=0).astype(np.float32)
    )


def test_validation_split_is_upstreams(store: Store) -> None:
    """sampler.py: get_val_mask and downsample_mask, with numpy's generator of the same seed."""
    dataset = DiffusionPolicyDataset(META, store, val_ratio=0.5, seed=3, max_train_episodes=1)
    validation = np.zeros(4, bool)
    validation[np.random.default_rng(seed=3).choice(4, size=2, replace=False)] = True
    rest = np.flatnonzero(~validation)
    expected = np.zeros(4, bool)
    expected[rest[np.random.default_rng(seed=3).choice(2, size=1, replace=False)]] = True
    np.testing.assert_array_equal(dataset.train_mask, expected)
    np.testing.assert_array_equal(dataset.get_validation_dataset().train_mask, ~expected)


def test_in_a_data_loader(store: Store) -> None:
    dataset = DiffusionPolicyDataset(META, store, horizon=4, pad_before=1, pad_after=2, n_obs_steps=2)
    batch = next(iter(DataLoader(dataset, batch_size=5)))
    assert batch["obs"]["agentview_rgb"].shape == (5, 2, 3, 128, 128)
    assert torch.equal(batch["action"][3], dataset[3]["action"])


def test_rotations() -> None:
    """Rodrigues' formula, and that the six numbers are the first two rows of a rotation."""
    random = np.random.default_rng(0)
    vectors = np.concatenate([random.normal(size=(50, 3)), np.zeros((1, 3)), 1e-9 * random.normal(size=(5, 3))])
    for vector, six in zip(vectors, rotation_6d(vectors), strict=True):
        angle = np.linalg.norm(vector)
        x, y, z = vector / angle if angle else (0.0, 0.0, 1.0)
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        np.testing.assert_allclose(six, matrix[:2].reshape(-1), atol=1e-12)


def test_absolute_actions(store: Store) -> None:
    meta = {**META, "action": {"shape": [10]}}
    dataset = DiffusionPolicyDataset(meta, store, abs_action=True)
    raw = column(store, "actions").astype(np.float32)
    np.testing.assert_array_equal(dataset.get_all_actions()[:, :3].numpy(), raw[:, :3])
    np.testing.assert_array_equal(dataset.get_all_actions()[:, 9].numpy(), raw[:, 6])
    two = np.concatenate([raw, raw[::-1]], axis=1)
    np.testing.assert_array_equal(absolute_actions(two)[:, 10:], absolute_actions(raw)[::-1])
    with pytest.raises(WindowError, match="7 actions, or 14"):
        absolute_actions(raw[:, :5])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"obs": {"no_such": {"shape": [3]}}}, r"no_such: is not a key of the store, which has actions,"),
        ({"obs": {"ee_pos": {"shape": [4]}}}, r"ee_pos: the shape that shape_meta states, \[4\]; the store has \[3\]"),
        ({"obs": {"agentview_rgb": {"shape": [3, 84, 84], "type": "rgb"}}}, r"\[3, 84, 84\]; the store has \[3, 128, 128\]"),
        ({"obs": {"ee_pos": {"shape": [3], "type": "depth"}}}, r"type rgb or low_dim; got depth"),
        ({"action": {"shape": [10]}}, r"action: the shape that shape_meta states, \[10\]; the store has \[7\]"),
    ],
)
def test_refusals(store: Store, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(WindowError, match=words):
        DiffusionPolicyDataset({**META, **changed}, store)


def test_no_sequence_is_left(store: Store) -> None:
    with pytest.raises(WindowError, match="at least one of 200 steps"):
        DiffusionPolicyDataset(META, store, horizon=200)


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.zarr"])
def test_replay_buffer(store: Store, tmp_path: Path, name: str) -> None:
    """Plain zarr opens it as upstream does: ``data`` and ``meta/episode_ends`` of Zarr v2, values and types as stored."""
    report = export_replay_buffer(store, tmp_path / name)
    opened: Any = ZipStore(tmp_path / name, mode="r") if name.endswith("zip") else tmp_path / name
    root: Any = zarr.open_group(opened, mode="r", zarr_format=2)
    np.testing.assert_array_equal(root["meta/episode_ends"][:], np.cumsum(store.episodes.length))
    assert root["meta/episode_ends"].dtype == np.int64
    assert set(root["data"].keys()) == set(report.keys) == {"action", *store.keys} - {"actions", "states"}
    for key in report.keys:
        mine, theirs = column(store, "actions" if key == "action" else key), root[f"data/{key}"][:]
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    assert report.left_out == {"states": "its width differs between episodes"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith("zip"):
        names = zipfile.ZipFile(tmp_path / name).namelist()
        assert len(names) == len(set(names))
    with pytest.raises(StoreError, match="is there already"):
        export_replay_buffer(store, tmp_path / name)


def test_float32(store: Store, tmp_path: Path) -> None:
    """Upstream's data set for robomimic trains on float32 only; other types stay."""
    export_replay_buffer(store, tmp_path / "a.zarr", keys=["ee_pos", "rewards"], float32=True)
    root: Any = zarr.open_group(tmp_path / "a.zarr", mode="r", zarr_format=2)
    for name, key in (("action", "actions"), ("ee_pos", "ee_pos")):
        np.testing.assert_array_equal(root[f"data/{name}"][:], column(store, key).astype(np.float32))
        assert root[f"data/{name}"].dtype == np.float32
    assert root["data/rewards"].dtype == np.uint8


def test_chunks_of_some_steps(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last chunk is filled up, and read back as what there is."""
    monkeypatch.setattr("robozarr.loader.adapters.diffusion_policy.export.CHUNK_BYTES", 1000)
    export_replay_buffer(store, tmp_path / "a.zarr", keys=[])
    array: Any = zarr.open_array(tmp_path / "a.zarr" / "data" / "action", mode="r", zarr_format=2)
    assert store.n_steps % array.chunks[0]
    np.testing.assert_array_equal(array[:], column(store, "actions"))


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.zarr"])
def test_full_disk(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One line says it, and nothing is left."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(StoreError, match=rf"{name}: cannot be written, .*No space left on device → make room"):
        export_replay_buffer(store, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_removed(store: Store, tmp_path: Path) -> None:
    """Its folder is removed by the next one; that of one which still runs, and holds its lock, is not."""
    for number in (1, 2):
        folder = tmp_path / f".a.zarr.{number}{TEMPORARY}"
        folder.mkdir()
        (folder / "lock").touch()
    with (tmp_path / f".a.zarr.2{TEMPORARY}" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        export_replay_buffer(store, tmp_path / "a.zarr", keys=[])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".a.zarr.2{TEMPORARY}", "a.zarr"]


@pytest.mark.parametrize("name", ["a.zarr.zip", "a.zarr"])
def test_interrupted_export_leaves_nothing(store: Store, tmp_path: Path, name: str) -> None:
    class Interrupt:
        def start(self, stage: str, total: int, n_bytes: int = 0) -> None: ...

        def advance(self, n: int = 1, n_bytes: int = 0) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_replay_buffer(store, tmp_path / name, progress=Interrupt())
    assert not list(tmp_path.iterdir())

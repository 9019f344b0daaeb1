"""RDT's samples against a naive reference written from its sources, named rule by rule; coverage, workers, export, language.

The sources are thu-ml/RoboticsDiffusionTransformer's. The reference reads the HDF5 files, never the store.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from robozarr.cli import run
from robozarr.convert import convert
from robozarr.loader.adapters.rdt.dataset import RDTBatches, RDTDataset
from robozarr.loader.adapters.rdt.export import dataset_stat, export_rdt
from robozarr.loader.adapters.rdt.language import write_lang_embeds
from robozarr.loader.adapters.rdt.pretrain import FIELDS, RDTSteps
from robozarr.loader.adapters.rdt.vector import RDTConfig, rotation_6d
from robozarr.schemas.errors import StoreError, WindowError
from synthetic import write_libero

FIXED = np.arange(128)


def matrix_of(axis_angle: Any) -> Any:
    """Rodrigues' formula, for one vector; not the way of the code under test, which goes by quaternions."""
    angle = float(np.linalg.norm(axis_angle))
    if angle == 0:
        return np.eye(3)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def naive_state(obs: Any, t: int) -> Any:
    """configs/state_vec.py: right arm joints [0, 10), right_gripper_open 10, right_eef_pos 30-32, right_eef_angle 33-38."""
    vector = np.zeros(128)
    vector[0:7] = obs["joint_states"][t]
    left, right = obs["gripper_states"][t]
    vector[10] = min(max(abs(left - right) / 0.08, 0.0), 1.0)  # rescaled to [0, 1], as ∗ 12.5 in austin_buds…: process_step
    vector[30:33] = obs["ee_pos"][t]
    matrix = matrix_of(obs["ee_ori"][t])
    vector[33:36], vector[36:39] = matrix[:, 0], matrix[:, 1]  # data/utils.py: rotation_matrix_to_ortho6d
    return vector


def naive_delta(action: Any) -> Any:
    """Velocity slots 39-44 at robosuite's output_max; gripper (1 - g) / 2."""
    vector = np.zeros(128)
    vector[39:42], vector[42:45] = action[:3] * 0.05, action[3:6] * 0.5
    vector[10] = (1 - action[6]) / 2
    return vector


def naive_picture(obs: Any, key: str, t: int) -> Any:
    return obs[key][max(t, 0)][
        ::-1
    ]  # data/hdf5_vla_dataset.py: "Pad the images using the first image"; LIBERO's are upside down


def demos(folder: Path) -> list[tuple[str, Any]]:
    """(instruction, demo), files and demos in the store's order."""
    found = []
    for path in sorted(folder.glob("**/*.hdf5")):
        file = h5py.File(path, "r")
        instruction = json.loads(file["data"].attrs["problem_info"])["language_instruction"]
        names = sorted(file["data"], key=lambda name: int(name.split("_")[1]))
        found += [(instruction, file["data"][name]) for name in names]
    return found


@pytest.mark.parametrize("profile", ["future_state", "delta"])
def test_every_sample_is_the_naive_references(sample: Path, sample_store: Path, profile: Any) -> None:
    dataset = RDTDataset(sample_store, name="libero", config=RDTConfig(profile=profile))
    index = 0
    for instruction, demo in demos(sample):
        obs, actions = {key: demo["obs"][key][...] for key in demo["obs"]}, demo["actions"][...]
        n = len(actions)
        states = np.stack([naive_state(obs, t) for t in range(n)])
        indicator = (np.isin(FIXED, [*range(7), 10, *range(30, 39)])).astype(float)
        norm = np.sqrt(np.mean(states**2, axis=0))
        if profile == "future_state":
            targets = [
                [states[min(t + 1 + k, n - 1)] for k in range(64)] for t in range(n)
            ]  # flatten_episode: from t + 1, last repeated
            anchors = n
        else:
            deltas = np.stack([naive_delta(action) for action in actions])
            # LIBERO records obs[t] after actions[t]: the first action chosen after it is actions[t + 1]; at T-1 there is none
            targets = [[deltas[min(t + 1 + k, n - 1)] for k in range(64)] for t in range(n - 1)]
            anchors = n - 1
            indicator[39:45] = 1
            norm[39:45] = np.sqrt(np.mean(deltas[:, 39:45] ** 2, axis=0))
        for t in range(anchors):
            got = dataset.get_item(index)
            assert {name: got["meta"][name] for name in ("dataset_name", "#steps", "step_id", "instruction")} == {
                "dataset_name": "libero", "#steps": n, "step_id": t, "instruction": instruction,
            }  # fmt: skip
            assert got["meta"]["robozarr"]["profile"] == profile
            expected = {
                "state": states[t][None], "state_std": states.std(axis=0), "state_mean": states.mean(axis=0),
                "state_norm": norm, "actions": np.array(targets[t]), "state_indicator": indicator,
            }  # fmt: skip
            for name, values in expected.items():
                assert got[name].dtype == np.float64, name
                np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-12, err_msg=f"{name} of {index}")
            for camera, key in (("cam_high", "agentview_rgb"), ("cam_right_wrist", "eye_in_hand_rgb")):
                pictures = np.stack([naive_picture(obs, key, t - 1), naive_picture(obs, key, t)])
                np.testing.assert_array_equal(got[camera], pictures, strict=True)
                assert got[f"{camera}_mask"].tolist() == [t > 0, True]
            assert got["cam_left_wrist"].shape == (2, 0, 0, 0)
            assert got["cam_left_wrist"].dtype == np.uint8
            assert got["cam_left_wrist_mask"].tolist() == [False, False]
            index += 1
        whole = dataset.get_item(index - 1, state_only=True)
        np.testing.assert_allclose(whole["state"], states, rtol=0, atol=1e-12)
        np.testing.assert_allclose(whole["action"][:anchors], [rows[0] for rows in targets], rtol=0, atol=1e-12)
        assert whole["action"].shape == (n, 128)
    assert index == len(dataset)
    assert len(dataset) + sum(entry.n_anchors for entry in dataset.windows.left_out) == dataset.store.n_steps


def test_batches_are_the_samples(sample_store: Path) -> None:
    for profile in ("future_state", "delta"):
        dataset = RDTDataset(sample_store, config=RDTConfig(profile=profile))
        position = 0
        for batch in dataset.loader(16, shuffle=False):
            for row in range(len(batch["step"])):
                item = dataset.get_item(position)
                for name, values in item.items():
                    if name != "meta":
                        np.testing.assert_array_equal(
                            batch[name][row].numpy(), np.asarray(values).astype(batch[name].numpy().dtype)
                        )
                position += 1
        assert position == len(dataset)


def test_the_pre_training_form(sample: Path, sample_store: Path) -> None:
    steps = RDTSteps(RDTDataset(sample_store, name="libero"))
    index = 0
    for instruction, demo in demos(sample):
        obs = {key: demo["obs"][key][...] for key in demo["obs"]}
        n = len(demo["actions"])
        states = np.stack([naive_state(obs, t) for t in range(n)]).astype(np.float32)
        for t in range(n):
            content, *values = steps.load(index)
            assert content == {"dataset_name": "libero", "#steps": n - 1, "instruction": f"{instruction.capitalize()}."}
            got = dict(zip(FIELDS, values, strict=True))
            past, future = t + np.arange(-63, 1), t + np.arange(1, 65)
            # flatten_episode: "Use the first state to pad", "Use the last state to pad", False where padded
            np.testing.assert_allclose(got["state_chunk"], states[np.maximum(past, 0)], atol=1e-6)
            np.testing.assert_array_equal(got["state_chunk_time_mask"], past >= 0)
            np.testing.assert_allclose(got["action_chunk"], states[np.minimum(future, n - 1)], atol=1e-6)
            np.testing.assert_array_equal(got["action_chunk_time_mask"], future < n)
            assert got["step_id"] == t
            assert got["state_chunk"].dtype == got["state_norm"].dtype == np.float32
            for number in range(4):  # process_episode: the mask is of time, even where a camera is absent
                np.testing.assert_array_equal(got[f"past_frames_{number}_time_mask"], [t > 0, True])
            np.testing.assert_array_equal(got["past_frames_0"][1], naive_picture(obs, "agentview_rgb", t))
            np.testing.assert_array_equal(got["past_frames_1"][0], naive_picture(obs, "eye_in_hand_rgb", t - 1))
            assert got["past_frames_2"].shape == got["past_frames_3"].shape == (2, 0, 0, 0)
            index += 1
    assert index == len(steps)


class Unmodified(Dataset[Any]):
    """Asks as ``VLAConsumerDataset`` does: whatever the index, for "a sample" (train/dataset.py)."""

    def __init__(self, inner: RDTDataset) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        meta = self.inner.get_item()["meta"]
        return meta["instruction"], meta["#steps"], meta["step_id"]


@pytest.mark.parametrize("workers", [0, 2])
def test_callers_without_an_index_see_every_window_once_an_epoch(sample_store: Path, workers: int) -> None:
    dataset = RDTDataset(sample_store, seed=3)
    anchors = dataset.windows.table.anchors(np.arange(len(dataset)))
    everything = sorted(zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True))
    per_episode = {
        (dataset.store.episodes.length[e], dataset.store.episodes.task[e]): e for e in range(dataset.store.n_episodes)
    }
    assert len(per_episode) == dataset.store.n_episodes
    tasks = {text: number for number, text in enumerate(dataset.store.tasks.instruction)}
    orders = []
    for _ in range(2):  # workers die between the epochs; the place is shared, so that the next ones go on
        loader = DataLoader(Unmodified(dataset), batch_size=None, num_workers=workers)
        seen = [(per_episode[int(n), tasks[text]], int(step)) for text, n, step in loader]
        assert sorted(seen) == everything
        orders.append(seen)
    assert orders[0] != orders[1] != everything


def test_ranks_share_an_epoch(sample_store: Path) -> None:
    taken = []
    for rank in range(2):
        walk = RDTDataset(sample_store, seed=1, rank=rank, world_size=2).walk
        taken += [walk.take() for _ in range(22)]
    assert sorted(taken) == list(range(44))
    walk.taken = 7
    assert pickle.loads(pickle.dumps(walk)).taken == 7


def test_rules_of_length_and_stillness_are_filters_and_counted(tmp_path: Path) -> None:
    write_libero(tmp_path / "s" / "a_demo.hdf5", lengths=(40, 20, 90))
    convert(tmp_path / "s", tmp_path / "a.zarr", workers=0)
    everything = RDTDataset(tmp_path / "a.zarr")
    assert len(everything) == 150
    low = RDTDataset(tmp_path / "a.zarr", config=RDTConfig(epsd_len_thresh_low=32))
    assert len(low) == 130
    assert [str(entry) for entry in low.windows.left_out] == ["20 by epsd_len_thresh_low 32"]
    high = RDTDataset(tmp_path / "a.zarr", config=RDTConfig(epsd_len_thresh_high=50))
    steps = [high.get_item(window)["meta"]["step_id"] for window in range(len(high))]
    assert len(high) == 110
    assert steps[:60] == [*range(40), *range(20)]
    assert len(set(steps[60:])) == 50
    moving = RDTDataset(tmp_path / "a.zarr", config=RDTConfig(skip_still=True))
    joints = h5py.File(tmp_path / "s" / "a_demo.hdf5")["data/demo_0/obs/joint_states"][...]
    first = int(np.flatnonzero((np.abs(joints - joints[0]) > 1e-2).any(axis=1))[0])  # hdf5_vla_dataset.py: first_idx
    item = moving.get_item(0)
    assert item["meta"]["step_id"] == first - 1
    assert item["cam_high_mask"].tolist() == [False, True]  # "For step_id = first_idx - 1, the valid_len should be one"
    assert moving.get_item(1)["cam_high_mask"].tolist() == [True, True]
    assert len(moving.get_item(0, state_only=True)["state"]) == 40 - (first - 1)


def naive_stat(episodes: list[Any]) -> dict[str, Any]:
    """data/compute_dataset_stat_hdf5.py: process_hdf5_dataset, for all episodes at once."""
    states = np.concatenate(episodes)
    zeroed = np.where(np.abs(states) <= 1e-8, 0.0, states)
    count, nonzero = len(states), np.maximum((np.abs(states) > 1e-8).sum(axis=0), 1)
    variance = (zeroed**2).sum(axis=0) / nonzero - (zeroed.sum(axis=0) / count) ** 2 * count / nonzero
    return {
        "state_mean": states.sum(axis=0) / count, "state_std": np.sqrt(np.maximum(variance, 0)),
        "state_min": states.min(axis=0), "state_max": states.max(axis=0),
    }  # fmt: skip


def command_line(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_export_writes_upstreams_statistics_and_keeps_other_entries(
    sample: Path, sample_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dataset_control_freq.json").write_text('{"agilex": 25}')
    (tmp_path / "finetune_datasets.json").write_text('["agilex"]')
    command = ("export", "rdt", sample_store, "--configs", tmp_path, "--name", "lib")
    assert command_line(*command, "--dry-run") == 0
    assert capsys.readouterr().out.count("would be added") == 4
    assert not (tmp_path / "dataset_stat.json").exists()
    assert command_line(*command, "--json") == 0
    assert set(json.loads(capsys.readouterr().out)["files"].values()) == {"added"}
    assert json.loads((tmp_path / "dataset_control_freq.json").read_text()) == {"agilex": 25, "lib": 20}
    assert json.loads((tmp_path / "finetune_datasets.json").read_text()) == ["agilex", "lib"]
    assert json.loads((tmp_path / "pretrain_datasets.json").read_text()) == ["lib"]
    stat = json.loads((tmp_path / "dataset_stat.json").read_text())["lib"]
    assert stat["dataset_name"] == "lib"
    episodes = [
        np.stack([naive_state({key: demo["obs"][key][...] for key in demo["obs"]}, t) for t in range(len(demo["actions"]))])
        for _, demo in demos(sample)
    ]
    for name, values in naive_stat(episodes).items():
        np.testing.assert_allclose(stat[name], values, atol=1e-9, err_msg=name)
    assert command_line(*command) == 0
    assert capsys.readouterr().out.count("unchanged") == 4
    assert command_line(*command, "--epsd-len-thresh-low", "10") == 3
    assert "has another entry 'lib' → pass --overwrite" in capsys.readouterr().err
    short = RDTDataset(sample_store, name="lib", config=RDTConfig(epsd_len_thresh_low=10))
    with pytest.raises(StoreError, match="no folder is there"):
        export_rdt(short, tmp_path / "none")
    assert export_rdt(short, tmp_path, overwrite=True)["dataset_stat.json"] == "replaced"
    assert dataset_stat(short)["state_mean"] != stat["state_mean"]


def test_the_way_of_other_devices_gives_the_same(sample_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU vectors are made by numpy, elsewhere by torch: here by torch on the CPU."""
    for config in (RDTConfig(profile="delta", skip_still=True, upright=False), RDTConfig(upright=False)):
        dataset = RDTDataset(sample_store, config=config)
        batch = dataset.windows.read(range(len(dataset)))
        expected, past = dataset.make(batch), dataset.past_states(batch)

        def at(self: RDTBatches, batch: Any, *fields: str) -> Any:
            tables = {name: torch.from_numpy(table) for name, table in self._tables.items()}
            return torch, tables, [batch[field] for field in fields]

        with monkeypatch.context() as patched:
            patched.setattr(RDTBatches, "_at", at)
            for name, values in dataset.make(batch).items():
                if isinstance(values, torch.Tensor):
                    torch.testing.assert_close(values, expected[name], rtol=0, atol=0)
            for ours, theirs in zip(dataset.past_states(batch), past, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_language_is_encoded_once_a_task(sample_store: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def encode(text: str) -> torch.Tensor:
        asked.append(text)
        return torch.full((1, len(text.split()), 4), float(len(text)))

    dataset = RDTDataset(sample_store)
    paths = write_lang_embeds(dataset.store, tmp_path, encode)
    write_lang_embeds(dataset.store, tmp_path, encode)
    assert asked == list(dataset.store.tasks.instruction)
    by_path = RDTDataset(sample_store, lang_embed=paths)
    item = by_path.get_item(0)
    assert torch.load(item["meta"]["instruction"]).shape == (
        len(asked[0].split()),
        4,
    )  # train/dataset.py: use_precomp_lang_embed
    arrays = {text: encode(text)[0].numpy() for text in list(asked)}
    by_array = RDTDataset(sample_store, lang_embed=arrays)
    np.testing.assert_array_equal(by_array.get_item(0)["lang_embed"], arrays[asked[0]])
    assert by_array.get_item(0)["meta"]["instruction"] == asked[0]
    for batch in by_path.loader(44, shuffle=False):  # DataCollatorForVLAConsumerDataset: padded by zeros, with a mask
        assert batch["lang_embeds"].shape == (44, max(len(text.split()) for text in asked), 4)
        np.testing.assert_array_equal(batch["lang_attn_mask"].sum(dim=1), [len(text.split()) for text in batch["instruction"]])
        assert not batch["lang_embeds"][~batch["lang_attn_mask"]].any()
    with pytest.raises(WindowError, match="got none for"):
        RDTDataset(sample_store, lang_embed={asked[0]: arrays[asked[0]]})
    with pytest.raises(WindowError, match="is a file; none is there"):
        RDTDataset(sample_store, lang_embed=["nowhere.pt", "nowhere.pt"])


def test_what_is_asked_for_wrongly_is_said(sample_store: Path) -> None:
    with pytest.raises(WindowError, match="rdt · cameras: of cam_high"):
        RDTConfig(cameras={"cam_low": "agentview_rgb"})
    with pytest.raises(WindowError, match="rdt · profile"):
        RDTConfig(profile="eef")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="window 44 of 44"):
        RDTDataset(sample_store).get_item(44)
    with pytest.raises(WindowError, match="axis-angle"):
        rotation_6d(np.zeros((2, 6)))
    dataset = pickle.loads(pickle.dumps(RDTDataset(sample_store)))
    assert dataset.get_item(0)["state"].shape == (1, 128)

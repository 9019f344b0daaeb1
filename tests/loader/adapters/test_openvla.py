"""OpenVLA's and openpi's samples against naive references written from their sources, on HDF5 files, never the store."""

from __future__ import annotations

import pickle
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.adapters.openpi import OpenPIDataset
from robozarr.loader.adapters.openvla import OpenVLADataset, prompt_of
from robozarr.schemas.errors import WindowError
from synthetic import write_libero, write_openvla


@pytest.fixture(scope="module", params=["after", "before"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A file, its store, and steps from an observation to the action chosen after it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "after":
        file = write_libero(folder / "libero_x" / "pick_up_the_thing_demo.hdf5", lengths=(14, 11, 12))
    else:
        file = write_openvla(folder / "libero_x" / "pick_up_the_thing_demo.hdf5", lengths=(9, 8, 7))
    convert(file, folder / "made.zarr", workers=0)
    return file, folder / "made.zarr", int(request.param == "after")


def is_noop(action: Any, previous: Any) -> bool:
    """experiments/robot/libero/regenerate_libero_dataset.py: is_noop."""
    still = bool(np.linalg.norm(action[:-1]) < 1e-4)
    return still if previous is None else still and bool(action[-1] == previous[-1])


def episodes(file: Path, shift: int, drop_noops: bool) -> list[tuple[Any, list[tuple[int, int]]]]:
    """For each demo: its data, and the pairs (observation, action) that are left, in order."""
    found = []
    with h5py.File(file) as source:
        for name in sorted(source["data"], key=lambda name: int(name.split("_")[1])):
            demo = source["data"][name]
            data = {key: demo["obs"][key][...] for key in demo["obs"]} | {"actions": demo["actions"][...]}
            previous, kept = None, []
            for t, action in enumerate(data["actions"]):
                if not drop_noops or not is_noop(action, previous):
                    previous = action
                    kept.append(t)
            found.append((data, [(t - shift, t) for t in kept if t - shift >= 0]))
    return found


@pytest.mark.parametrize("drop_noops", [True, False])
@pytest.mark.parametrize("chunk", [1, 8])
def test_every_openvla_sample(made: tuple[Path, Path, int], drop_noops: bool, chunk: int) -> None:
    file, store, shift = made
    dataset = OpenVLADataset(store, name="libero_x", chunk=chunk, drop_noops=drop_noops)
    demos = episodes(file, shift, drop_noops)
    everything = np.concatenate([data["actions"] for data, _ in demos])
    low, high = np.quantile(everything, (0.01, 0.99), axis=0)  # data_utils.py: get_dataset_statistics
    state = np.concatenate([np.concatenate([d["ee_pos"], d["ee_ori"], d["gripper_states"]], axis=1) for d, _ in demos])
    state_low, state_high = np.quantile(state, (0.01, 0.99), axis=0)

    def scaled(x: Any, low: Any, high: Any) -> Any:  # normalize_action_and_proprio: BOUNDS_Q99
        return np.clip(2 * (x - low) / (high - low + 1e-8) - 1, -1, 1)

    index = 0
    for data, pairs in demos:
        actions = np.array([data["actions"][a] for _, a in pairs])
        actions[:, :6] = scaled(actions[:, :6], low[:6], high[:6])
        actions[:, 6] = 1 - np.clip(actions[:, 6], 0, 1)  # libero_dataset_transform
        for k, (t, _) in enumerate(pairs):
            sample = dataset[index]
            past_goal = np.array([0, 0, 0, 0, 0, 0, actions[-1, 6]])  # chunk_act_obs: relative actions are zero there
            expected = [actions[j] if j < len(actions) else past_goal for j in range(k, k + chunk)]
            np.testing.assert_allclose(sample["action"], expected, atol=1e-6, err_msg=str(index))
            assert sample["action"].dtype == np.float32
            turned = data["agentview_rgb"][t][::-1, ::-1]  # libero_utils.py: get_libero_image
            np.testing.assert_array_equal(sample["observation"]["image_primary"], turned[None], strict=True)
            np.testing.assert_array_equal(sample["observation"]["image_wrist"][0], data["eye_in_hand_rgb"][t][::-1, ::-1])
            proprio = np.concatenate([data["ee_pos"][t], data["ee_ori"][t], data["gripper_states"][t]])
            np.testing.assert_allclose(sample["observation"]["proprio"][0], scaled(proprio, state_low, state_high), atol=1e-5)
            assert sample["dataset_name"] == "libero_x"
            assert sample["task"]["language_instruction"] == b"pick up the thing"
            index += 1
    assert index == len(dataset) > 0
    batch_index = 0
    for batch in dataset.loader(5, shuffle=False):
        for row in range(len(batch["step"])):
            sample = dataset[batch_index]
            np.testing.assert_array_equal(batch["action"][row].numpy(), sample["action"])
            np.testing.assert_array_equal(batch["image_primary"][row].numpy(), sample["observation"]["image_primary"])
            assert batch["prompt"][row] == "In: What action should the robot take to pick up the thing?\nOut: "
            batch_index += 1
    assert batch_index == len(dataset)


def test_statistics_are_the_stores_exact_ones_or_those_of_what_is_served(made: tuple[Path, Path, int]) -> None:
    file, store, shift = made
    dataset = OpenVLADataset(store, name="x")
    stats = dataset.dataset_statistics["x"]
    for name in ("q01", "q99", "mean", "std", "min", "max"):
        np.testing.assert_array_equal(stats["action"][name][:6], dataset.windows.store.stats("actions")[name][:6])
    assert stats["action"]["mask"].tolist() == [True] * 6 + [False]
    served = OpenVLADataset(store, name="x", statistics="windows").dataset_statistics["x"]
    demos = episodes(file, shift, True)
    actions = np.concatenate([data["actions"][[a for _, a in pairs]] for data, pairs in demos if pairs])
    np.testing.assert_allclose(served["action"]["q99"][:6], np.quantile(actions, 0.99, axis=0)[:6], atol=1e-12)
    assert served["num_transitions"] == len(actions)
    assert served["num_trajectories"] == len(demos)


def test_the_batch_transform_is_called_with_each_sample(made: tuple[Path, Path, int]) -> None:
    _, store, _ = made
    dataset = OpenVLADataset(store, batch_transform=lambda rlds: (rlds["dataset_name"], rlds["action"][0].shape))
    assert dataset[-1] == ("libero", (7,))
    assert list(dataset) == [("libero", (7,))] * len(dataset)


@pytest.mark.parametrize("horizon", [1, 10])
def test_every_openpi_item(made: tuple[Path, Path, int], horizon: int) -> None:
    file, store, shift = made
    dataset = OpenPIDataset(store, action_horizon=horizon)
    index = 0
    for data, pairs in episodes(file, shift, True):
        actions = [data["actions"][a].astype(np.float32) for _, a in pairs]
        for k, (t, _) in enumerate(pairs):
            item = dataset[index]
            # LeRobot's delta_timestamps: the last action again, and actions_is_pad; commands as recorded
            expected = [actions[min(j, len(actions) - 1)] for j in range(k, k + horizon)]
            np.testing.assert_array_equal(item["actions"], np.array(expected), strict=True)
            assert item["actions_is_pad"].tolist() == [j >= len(actions) for j in range(k, k + horizon)]
            np.testing.assert_array_equal(item["image"], data["agentview_rgb"][t][::-1, ::-1])
            np.testing.assert_array_equal(item["wrist_image"], data["eye_in_hand_rgb"][t][::-1, ::-1])
            state = np.concatenate([data["ee_pos"][t], data["ee_ori"][t], data["gripper_states"][t]]).astype(np.float32)
            np.testing.assert_array_equal(item["state"], state, strict=True)
            assert item["prompt"] == "pick up the thing"
            index += 1
    assert index == len(dataset)
    stats = dataset.norm_stats()["norm_stats"]
    assert set(stats) == {"state", "actions"}
    assert [len(stats["actions"][name]) for name in ("mean", "std", "q01", "q99")] == [7] * 4
    items = [dataset[index] for index in range(len(dataset))]
    for delta in (False, True):  # scripts/compute_norm_stats.py: every action of every chunk, after DeltaActions
        chunks = np.stack([item["actions"] for item in items])
        if delta:
            chunks[..., :6] -= np.stack([item["state"][:6] for item in items])[:, None]
        rows = chunks.reshape(-1, 7).astype(np.float64)
        found = dataset.norm_stats(delta=delta)["norm_stats"]
        np.testing.assert_allclose(found["actions"]["mean"], rows.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found["actions"]["std"], np.where(np.ptp(rows, axis=0), rows.std(axis=0), 1), atol=1e-12)
        for name, q in (("q01", 0.01), ("q99", 0.99)):
            np.testing.assert_allclose(found["actions"][name], np.quantile(rows, q, axis=0), atol=1e-12)
        states = np.stack([item["state"] for item in items]).astype(np.float64)
        np.testing.assert_allclose(found["state"]["mean"], states.mean(axis=0), atol=1e-12)


def test_pictures_are_turned_as_asked(made: tuple[Path, Path, int]) -> None:
    _, store, _ = made
    by_turn: dict[Any, Any] = {turn: OpenPIDataset(store, turn=turn)[0]["image"] for turn in ("rotate", "upright", "none")}
    np.testing.assert_array_equal(by_turn["rotate"], by_turn["upright"][:, ::-1])
    np.testing.assert_array_equal(by_turn["upright"], by_turn["none"][::-1])
    with pytest.raises(WindowError, match="pictures · turn"):
        _ = OpenPIDataset(store, turn="left")[0]  # type: ignore[arg-type]
    dataset = pickle.loads(pickle.dumps(OpenPIDataset(store)))
    with pytest.raises(IndexError, match="window"):
        _ = dataset[len(dataset)]


def test_prompts_and_order(made: tuple[Path, Path, int]) -> None:
    assert prompt_of("Open It").startswith("In: What action should the robot take to open it?")
    _, store, _ = made
    dataset = OpenVLADataset(store)
    rows = dataset.windows.anchor_rows()
    assert all(a < b for a, b in pairwise(rows.tolist()))


def test_image_aug_is_that_of_the_epoch_in_whatever_process(made: tuple[Path, Path, int]) -> None:
    _, store, _ = made
    dataset = OpenVLADataset(store, chunk=8, batch_transform=lambda rlds: rlds)
    plain = [sample["observation"]["image_primary"] for sample in dataset]
    augment = rz.Augment.openvla()
    runs = []
    for workers in (0, 2):
        options: dict[str, Any] = {"multiprocessing_context": "fork"} if workers else {}
        loader = dataset.dataloader(4, list, augment=augment, shuffle=False, num_workers=workers, seed=5, **options)
        batches = islice(loader, 2 * -(-len(dataset) // 4))
        runs.append([sample["observation"]["image_primary"] for batch in batches for sample in batch])
    first, second = runs[0][: len(dataset)], runs[0][len(dataset) :]
    assert all((a == b).all() for a, b in zip(*runs, strict=True))
    assert sum((a != b).any() for a, b in zip(first, second, strict=True)) == len(dataset)  # another epoch, other pictures
    batch = dataset.make(dataset.windows.read(range(len(dataset))))
    expected = augment(batch, ["image_primary"], seed=5, epoch=0, channels_first=False)["image_primary"].numpy()
    assert (np.stack(first) == expected).all()
    assert all(a.shape == b.shape and (a != b).any() for a, b in zip(first, plain, strict=True))


def test_image_aug_is_that_of_the_epoch_after_early_ends(made: tuple[Path, Path, int]) -> None:
    _, store, _ = made
    dataset, augment = OpenVLADataset(store, chunk=8), rz.Augment.openvla()
    loader: Any = dataset.dataloader(4, list, augment=augment, seed=5).loader
    epochs = []
    for _ in range(5):
        batches = iter(loader)
        got = next(batches)
        for _ in range(len(loader) // 2):
            next(batches)
        began = loader.batch_sampler.sampler.began
        batches.close()
        windows = next(iter(loader.schedule.batches(began))).windows
        batch = augment(
            dataset.make(dataset.windows.read(windows)),
            ["image_primary"],
            seed=5,
            epoch=began.state.epoch,
            channels_first=False,
        )
        assert (np.stack([sample["observation"]["image_primary"] for sample in got]) == batch["image_primary"].numpy()).all()
        epochs.append(began.state.epoch)
    assert 0 < epochs[-1] < 4  # several iterations an epoch


def test_image_aug_is_named_by_the_state_and_has_the_orders_seed(made: tuple[Path, Path, int]) -> None:
    dataset, augment = OpenVLADataset(made[1], lambda rlds: rlds["observation"]), rz.Augment.openvla()
    loader = dataset.dataloader(4, list, augment=augment, seed=5)
    batches = iter(loader)
    first, state = next(batches), loader.state_dict()
    for other in (None, rz.Augment.openvla(cameras=["eye_in_hand_rgb"])):
        with pytest.raises(WindowError, match="of this augmentation"):
            dataset.dataloader(4, list, augment=other, seed=5).load_state_dict(state)
    resumed = dataset.dataloader(4, list, augment=augment, order={"seed": 5}, num_workers=1, multiprocessing_context="fork")
    by_mapping = dict.fromkeys(("agentview_rgb", "eye_in_hand_rgb"), augment)
    again = dataset.dataloader(4, list, augment=by_mapping, order={"seed": 5})
    for one in (resumed, again):
        for mine, theirs in zip(next(iter(one)), first, strict=True):
            assert all((mine[name] == theirs[name]).all() for name in theirs)
    resumed.load_state_dict(state)
    for mine, theirs in zip(next(iter(resumed)), next(batches), strict=True):
        assert all((mine[name] == theirs[name]).all() for name in theirs)


def test_image_aug_of_named_cameras(made: tuple[Path, Path, int]) -> None:
    dataset, augment = OpenVLADataset(made[1]), rz.Augment.openvla(cameras=["eye_in_hand_rgb"])
    loader = dataset.dataloader(len(dataset), list, augment=augment, shuffle=False)
    for mine, plain in zip(next(iter(loader)), dataset, strict=True):
        assert (mine["observation"]["image_primary"] == plain["observation"]["image_primary"]).all()
        assert (mine["observation"]["image_wrist"] != plain["observation"]["image_wrist"]).any()
    with pytest.raises(WindowError, match="got image_wrist"):
        dataset.dataloader(4, list, augment=rz.Augment.openvla(cameras=["image_wrist"]))
    with pytest.raises(WindowError, match="loader · augment"):
        dataset.dataloader(4, list, augment=True)  # type: ignore[arg-type]


def test_training_and_validation_data_share_no_episode(made: tuple[Path, Path, int]) -> None:
    _, store, _ = made
    dataset = OpenVLADataset(store)
    training, validation = dataset.split(0.67, seed=2)
    episodes = [{int(e) for batch in part.loader(8) for e in batch["episode"]} for part in (training, validation)]
    assert episodes[0].isdisjoint(episodes[1])
    assert len(training) + len(validation) == len(dataset)
    assert training.dataset_statistics is dataset.dataset_statistics
    assert len(list(rz.WindowDataLoader(validation, 4, windows=validation.windows.dataset, collate_fn=list))) > 0

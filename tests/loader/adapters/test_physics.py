"""Conventions tested by physics: what the robot did says which sign, which pairing, which scale, which way up.

On the embedded sample always, and on whole files where they are at hand. Cameras are read from the simulator's XML, kept in
the store, so that where something should be seen is computed, not looked up.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robozarr.convert import convert
from robozarr.loader.adapters.openvla import OpenVLADataset
from robozarr.loader.adapters.rdt.dataset import RDTDataset
from robozarr.loader.adapters.rdt.vector import RDTConfig, rotation_6d
from robozarr.store.opened import Store, open_store

REAL = pytest.param("real", marks=pytest.mark.slow(reason="converts whole files"))


@pytest.fixture(scope="module", params=["sample", REAL])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "sample":
        found: Path = request.getfixturevalue("sample_store")
        return found
    made = tmp_path_factory.mktemp("real") / "real.zarr"
    convert(request.getfixturevalue("real_data") / "libero", made, workers=0)
    return made


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return open_store(path)


def rows_of(store: Store, key: str) -> Any:
    """A key of all steps."""
    return np.asarray(store.array(key)[:])


def samples(path: Path, profile: str, **config: Any) -> list[tuple[Any, Any]]:
    """State [128] and actions [chunk, 128] of every window, episode by episode: [(states, actions)]."""
    options = RDTConfig(profile=profile, cameras={}, **config)  # type: ignore[arg-type]
    dataset = RDTDataset(path, config=options)
    batch = dataset.read(range(len(dataset)))
    state, actions, episode = batch["state"][:, 0].numpy(), batch["actions"].numpy(), batch["episode"].numpy()
    return [(state[episode == e], actions[episode == e]) for e in np.unique(episode).tolist()]


def test_the_gripper_opens_when_told_to(path: Path) -> None:
    """Five steps after the command changed, and for as long as it lasts, the opening has gone where it says."""
    changes = 0
    for state, actions in samples(path, "delta"):
        command, opening = actions[:, 0, 10], state[:, 10]
        assert set(np.unique(command)) <= {0.0, 1.0}
        for t in (np.flatnonzero(np.diff(command)) + 1).tolist():
            later = min(t + 5, len(opening) - 1)
            if later - t < 2 or len(set(command[t:later])) > 1:
                continue
            moved = opening[later] - opening[t]
            if abs(moved) > 0.01:  # an object may hold it
                assert (moved > 0) == (command[t] == 1), (t, moved)
                changes += 1
    assert changes >= 2


def test_openvlas_gripper_is_one_where_it_opens(path: Path, store: Store) -> None:
    dataset = OpenVLADataset(path, drop_noops=False)
    action = np.array([sample["action"][0, 6] for sample in dataset])
    rows = dataset.windows.action_rows()
    np.testing.assert_array_equal(action == 1, rows_of(store, "actions")[:][rows, 6] == -1)


def correlation_given(x: Any, y: Any, known: Any) -> float:
    """Correlation of x and y in what `known` does not explain of them."""
    base = np.column_stack([known, np.ones(len(known))])
    rest = [v - base @ np.linalg.lstsq(base, v, rcond=None)[0] for v in (x, y)]
    return float((rest[0] * rest[1]).sum() / np.sqrt((rest[0] ** 2).sum() * (rest[1] ** 2).sum()))


def paired(path: Path, causal: bool) -> tuple[Any, Any, Any]:
    """Commanded and next motion, and the motion so far, of all steps whose neighbours exist: m, [n, 3] each."""
    commanded, following, so_far = [], [], []
    for state, actions in samples(path, "delta", causal=causal):
        position = state[:, 30:33]
        motion = np.diff(position, axis=0)
        commanded.append(actions[1 : len(motion), 0, 39:42])
        following.append(motion[1:])
        so_far.append(motion[:-1])
    return np.concatenate(commanded), np.concatenate(following), np.concatenate(so_far)


def test_causal_pairing_says_more_about_the_next_state_than_the_recorded_one(path: Path, store: Store) -> None:
    """What is asked is what an action adds to what the state shows already.

    Plainly correlated, both look good, as an arm goes on moving. The recorded pairing's action has already acted.
    """
    scores = {}
    for causal in (True, False):
        commanded, following, so_far = paired(path, causal)
        axes = [axis for axis in range(3) if commanded[:, axis].std() > 0.002]
        scores[causal] = np.array([correlation_given(commanded[:, k], following[:, k], so_far[:, k]) for k in axes])
    assert scores[True].mean() > scores[False].mean() + 0.1, scores
    if store.n_steps > 100:
        assert (scores[True] > scores[False] + 0.1).all(), scores
        assert scores[True].min() > 0.85, scores


def test_the_gripper_moves_between_an_observation_and_the_next_as_the_causal_action_says(store: Store) -> None:
    """LIBERO's observation shows what the action of the same row did: the fingers move in the very row of the change."""
    fingers, actions = rows_of(store, "gripper_states")[:], rows_of(store, "actions")[:]
    closing = 0
    for start, length in zip(store.episodes.start, store.episodes.length, strict=True):
        width = np.abs(fingers[start : start + length, 0] - fingers[start : start + length, 1])
        for c in np.flatnonzero(np.diff(actions[start : start + length, 6]) > 0) + 1:
            assert width[c] - width[c - 1] < -3e-4  # obs[c-1] → actions[c] → obs[c]
            assert c < 2 or abs(width[c - 1] - width[c - 2]) < 3e-4
            closing += 1
    assert closing >= 2


def test_position_deltas_are_the_measured_motion_up_to_the_controllers_gain(path: Path, store: Store) -> None:
    """A command of 1 aims 0.05 m ahead; in the 50 ms until the next one, the arm does a quarter of it, on every axis."""
    commanded, following, _ = paired(path, True)
    axes = [axis for axis in range(3) if commanded[:, axis].std() > 0.002]
    gains = [float((commanded[:, k] * following[:, k]).sum() / (commanded[:, k] ** 2).sum()) for k in axes]
    assert all(0.1 < gain < 0.5 for gain in gains), gains
    if store.n_steps > 100:
        assert len(axes) == 3
        assert all(0.22 < gain < 0.28 for gain in gains), gains
        assert np.corrcoef(commanded.ravel(), following.ravel())[0, 1] > 0.95


def test_rotation_deltas_turn_the_hand_that_way(path: Path, store: Store) -> None:
    if store.n_steps < 100:
        pytest.skip("the sample hardly turns its hand")
    commanded, turned = [], []
    for state, actions in samples(path, "delta"):
        first, second = state[:, 33:36], state[:, 36:39]
        matrix = np.stack([first, second, np.cross(first, second)], axis=2)
        step = matrix[1:] @ matrix[:-1].transpose(0, 2, 1)  # in the world's axes
        turned.append(
            np.stack([step[:, 2, 1] - step[:, 1, 2], step[:, 0, 2] - step[:, 2, 0], step[:, 1, 0] - step[:, 0, 1]], 1) / 2
        )
        commanded.append(actions[: len(step), 0, 42:45])
    x, y = np.concatenate(commanded), np.concatenate(turned)
    assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.7
    assert 0.15 < (x * y).sum() / (x**2).sum() < 0.3  # the same lag as in translation


def test_rotations_are_those_of_the_recorded_quaternions(store: Store) -> None:
    robot = rows_of(store, "robot_states")[:]  # gripper 2, position 3, quaternion xyzw 4
    np.testing.assert_allclose(rotation_6d(rows_of(store, "ee_ori")[:]), rotation_6d(robot[:, 5:]), atol=1e-6)


def test_6d_rotations_are_orthonormal_and_continuous_where_axis_angle_wraps(store: Store) -> None:
    six = rotation_6d(rows_of(store, "ee_ori")[:])
    first, second = six[:, :3], six[:, 3:]
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(second, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose((first * second).sum(axis=1), 0, atol=1e-12)
    # LIBERO's hand points down: half a turn, where axis-angle changes its sign
    norm = np.linalg.norm(rows_of(store, "ee_ori")[:], axis=1)
    assert norm.max() > 3.0
    angle = np.linspace(np.pi - 0.2, np.pi + 0.2, 41)
    axis = np.array([0.98, 0.02, -0.2]) / np.linalg.norm([0.98, 0.02, -0.2])
    wrapped = np.where(angle[:, None] > np.pi, (angle - 2 * np.pi)[:, None] * axis, angle[:, None] * axis)
    assert np.abs(np.diff(wrapped, axis=0)).max() > 3
    assert np.abs(np.diff(rotation_6d(wrapped), axis=0)).max() < 0.03


def projection(xml: str, size: int) -> Any:
    """A function: point in the world, m → column and row of agentview's upright picture (MuJoCo: the camera looks along -z)."""
    root = ElementTree.fromstring(xml)
    camera = next(c for c in root.iter("camera") if c.get("name") == "agentview")
    position = np.array(camera.get("pos", "").split(), float)
    w, x, y, z = np.array(camera.get("quat", "").split(), float)
    six = rotation_6d([x, y, z, w])
    axes = np.stack([six[:3], six[3:], np.cross(six[:3], six[3:])])
    focal = size / 2 / np.tan(np.radians(float(camera.get("fovy", "45"))) / 2)

    def project(points: Any) -> Any:
        seen = (np.asarray(points) - position) @ axes.T
        return np.stack(
            [size / 2 + focal * seen[..., 0] / -seen[..., 2], size / 2 - focal * seen[..., 1] / -seen[..., 2]], axis=-1
        )

    return project


def base_position(xml: str) -> Any:
    body = next(b for b in ElementTree.fromstring(xml).iter("body") if b.get("name") == "robot0_base")
    return np.array(body.get("pos", "").split(), float)


def distance_to_segment(points: Any, a: Any, b: Any) -> Any:
    along = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(points - (a + along[..., None] * (b - a)), axis=-1)


def test_upright_pictures_show_the_arm_between_base_and_hand(path: Path, store: Store) -> None:
    """What moves lies along the line from the robot's base to its hand, and goes where the hand goes; not so if turned over."""
    dataset = RDTDataset(path, config=RDTConfig(cameras={"cam_high": "agentview_rgb"}))
    rows, columns = np.mgrid[:128, :128]
    pixels = np.stack([columns, rows], axis=-1).astype(float)
    distance: dict[str, list[float]] = {"upright": [], "upside down": [], "mirrored": []}
    centres, hands = [], []
    for episode in range(store.n_episodes):
        project = projection(store.model_file(episode), 128)
        start, length = int(store.episodes.start[episode]), int(store.episodes.length[episode])
        base = project(base_position(store.model_file(episode)))
        assert abs(base[0] - 64) < 2  # LIBERO's robot stands in the middle, behind its table: in the upper half
        assert 20 < base[1] < 64
        hand = project(rows_of(store, "ee_pos")[start : start + length])[::3]
        pictures = dataset.read(range(start, start + length, 3))["cam_high"][:, 1].numpy().astype(float)
        moved = np.abs(np.diff(pictures, axis=0)).sum(axis=3)
        moved[moved <= 40] = 0
        found = [t for t in range(len(moved)) if (moved[t] > 0).sum() >= 50]
        for t in found:
            near = distance_to_segment(pixels, base, (hand[t] + hand[t + 1]) / 2)
            for name, turned in (("upright", moved[t]), ("upside down", moved[t][::-1]), ("mirrored", moved[t][:, ::-1])):
                distance[name].append(float((near * turned).sum() / turned.sum()))
        centre = np.array([(pixels * moved[t][..., None]).sum(axis=(0, 1)) / moved[t].sum() for t in found])
        centres.append(centre - centre.mean(axis=0))
        hands.append(hand[found] - hand[found].mean(axis=0))
    assert len(distance["upright"]) > 10
    mean = {name: float(np.mean(values)) for name, values in distance.items()}
    assert mean["upright"] + 5 < min(mean["upside down"], mean["mirrored"]), mean
    if store.n_steps > 100:
        x, y = np.concatenate(centres), np.concatenate(hands)
        assert np.corrcoef(x[:, 0], y[:, 0])[0, 1] > 0.9  # to the right: not mirrored
        assert np.corrcoef(x[:, 1], y[:, 1])[0, 1] > 0.7  # down: not upside down


def test_openvlas_pictures_are_upright_and_mirrored(path: Path) -> None:
    rdt = RDTDataset(path, config=RDTConfig(cameras={"cam_high": "agentview_rgb"}))
    vla = OpenVLADataset(path, drop_noops=False)
    batch = vla.windows.read([0])
    row = int(vla.windows.rows(batch)[0][0])
    np.testing.assert_array_equal(vla[0]["observation"]["image_primary"][0][:, ::-1], rdt.get_item(row)["cam_high"][1])

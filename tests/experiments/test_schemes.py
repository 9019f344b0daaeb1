"""The windows that the schemes serve: those of plain loops over the demonstrations, and those of the prototype."""

from __future__ import annotations

import importlib.util
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from made_up_demos import make_store

from robozarr.schemas.errors import WindowError
from robozarr.store.opened import Store
from tail.demos import Demo
from tail.observation import N_SEEN
from tail.policy import Scale, features, observed
from tail.schemes import Scheme, make_dataset, make_loader
from tail.served import releases_of, share_served

LENGTHS = (30, 12, 21, 9, 25)
CHUNK = 8
PROTOTYPE = Path(__file__).parents[3] / "shared" / "prototypes" / "learning" / "policy.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Demo]]:
    return make_store(tmp_path_factory.mktemp("demos"), LENGTHS)


def served(made: tuple[Store, list[Demo]], scheme: Scheme, n_batches: int, *, seed: int = 0, **options: Any) -> list[Any]:
    dataset = make_dataset(made[0], chunk=CHUNK, episodes=range(len(LENGTHS)))
    loader = make_loader(dataset, scheme, chunk=CHUNK, seed=seed, batch_size=10, **options)
    return list(islice(loader.forever(), n_batches))


def anchors(batches: list[Any]) -> list[tuple[int, int]]:
    return [
        (episode, step)
        for batch in batches
        for episode, step in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)
    ]


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_windows_are_those_of_a_loop_over_the_demonstrations(made: tuple[Store, list[Demo]], scheme: Scheme) -> None:
    """The observation that follows action s, the one before it, and actions s + 1 … s + C: exact in every value."""
    n = 0
    for batch in served(made, scheme, 25):
        seen = torch.cat(
            [batch[name] for name in ("ee_pos", "ee_rot", "gripper_states", "bowl_pos", "bowl_rot", "plate_pos")], -1
        )
        assert torch.equal(observed(batch), seen.float())
        for i, (episode, step) in enumerate(anchors([batch])):
            demo = made[1][episode]
            before = max(step, 1)  # of the first window the step before is not in LIBERO's files: padded
            assert np.array_equal(seen[i].numpy(), demo.obs[[before, step + 1], :N_SEEN])
            last = len(demo.actions) - 1
            for k in range(CHUNK):
                assert np.array_equal(batch["actions"][i, k].numpy(), demo.actions[min(step + 1 + k, last)])
                assert bool(batch["actions_is_pad"][i, k]) == (step + 1 + k > last)
            n += 1
    assert n > 200


def test_the_prototypes_own_windows(made: tuple[Store, list[Demo]]) -> None:
    """All windows of scheme C against the code that the first numbers came from: its normalised inputs, actions and masks."""
    if not PROTOTYPE.exists():
        pytest.skip(f"no prototype: {PROTOTYPE} is not there")
    spec = importlib.util.spec_from_file_location("prototype_policy", PROTOTYPE)
    assert spec is not None
    assert spec.loader is not None
    prototype = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prototype)
    store, demos = made
    data = prototype.Data([{"actions": demo.actions, "obs": demo.obs} for demo in demos], CHUNK)
    scale = Scale(
        mean=torch.tensor(data.mu),
        std=torch.tensor(data.sd),
        action_mean=torch.tensor(data.amu),
        action_std=torch.tensor(data.asd),
    )
    dataset = make_dataset(store, chunk=CHUNK, episodes=range(len(LENGTHS)))
    batch = dataset.read(range(len(dataset)))
    # the prototype counts actions, LIBERO's files observations after them: window s is its anchor s + 1
    rows = [int(data.start[episode]) + step + 1 for episode, step in anchors([batch])]
    x, actions, is_pad = data.batch(rows)
    ours = ((features(observed(batch)) - scale.mean) / scale.std).flatten(1)
    later = batch["step"] > 0  # the step before the first window is not in the file
    assert torch.allclose(ours[later], x[later], atol=1e-5)
    assert torch.allclose(ours[:, 32:], x[:, 32:], atol=1e-5)
    assert torch.allclose((batch["actions"].float() - scale.action_mean) / scale.action_std, actions, atol=1e-5)
    assert torch.equal(batch["actions_is_pad"], is_pad)
    assert sorted(rows) == sorted(int(s) + t for s, n in zip(data.start, data.T, strict=True) for t in range(1, n))
    whole = make_dataset(store, chunk=1, episodes=range(len(LENGTHS)))
    every = whole.read(range(len(whole)))
    own = Scale.of(features(observed(every)[:, 1]), every["actions"][:, 0].float())
    assert torch.allclose(own.mean, scale.mean, atol=0.2)  # of all steps but the first of each episode
    assert torch.equal(own.action_std[6:], torch.ones(1))


def test_which_windows_each_scheme_serves(made: tuple[Store, list[Demo]]) -> None:
    """L = T − 1 windows of an episode; A and B take none of the last C."""
    every = {(e, s) for e, n in enumerate(LENGTHS) for s in range(n - 1)}
    early = {(e, s) for e, n in enumerate(LENGTHS) for s in range(n - 1 - CHUNK)}
    n_epoch = -(-len(every) // 10)
    assert Counter(anchors(served(made, "C", n_epoch))) == Counter(every)
    n_early = -(-len(early) // 10)
    assert Counter(anchors(served(made, "B", n_early))) == Counter(early)
    assert not (every - early) & set(anchors(served(made, "A", 150)))
    assert set(anchors(served(made, "A", 300))) == early
    assert set(anchors(served(made, "D", 300))) == every


@pytest.mark.parametrize(("scheme", "windows"), [("A", lambda n: n - 1 - CHUNK), ("D", lambda n: n - 1)])
def test_random_schemes_draw_an_episode_then_a_step(made: tuple[Store, list[Demo]], scheme: Scheme, windows: Any) -> None:
    """Each episode as often as any other that has windows, and each of its windows as often as any other of it."""
    drawn = anchors(served(made, scheme, 1200))
    counts = np.array([max(0, windows(n)) for n in LENGTHS])
    n_drawable = np.count_nonzero(counts)
    by_episode = np.bincount([episode for episode, _ in drawn], minlength=len(LENGTHS)) / len(drawn)
    assert np.allclose(by_episode, (counts > 0) / n_drawable, atol=0.02)
    steps = np.bincount([step for episode, step in drawn if episode == 0], minlength=counts[0])
    assert len(steps) == counts[0]
    expected = steps.sum() / counts[0]
    assert (np.abs(steps - expected) < 5 * np.sqrt(expected)).all()
    epoch = anchors(served(made, scheme, 9))
    assert len(set(epoch)) < len(epoch)  # with replacement


@pytest.mark.parametrize("scheme", get_args(Scheme))
def test_the_same_seed_gives_the_same_windows(made: tuple[Store, list[Demo]], scheme: Scheme) -> None:
    first, second = anchors(served(made, scheme, 30)), anchors(served(made, scheme, 30))
    assert first == second
    assert first != anchors(served(made, scheme, 30, seed=1))
    assert first[:90] != first[90:180]  # another order each epoch


def test_no_episode_longer_than_the_chunk(made: tuple[Store, list[Demo]]) -> None:
    dataset = make_dataset(made[0], chunk=40, episodes=range(len(LENGTHS)))
    with pytest.raises(WindowError, match="scheme A: an episode longer than 40 steps; the longest has 29"):
        make_loader(dataset, "A", chunk=40, seed=0, batch_size=4)


def test_releases_and_what_was_served_of_them(made: tuple[Store, list[Demo]]) -> None:
    store, demos = made
    rows = releases_of(store, range(len(LENGTHS)))
    for row, start, demo in zip(rows, store.episodes.start, demos, strict=True):
        assert demo.actions[row - start, 6] == 1
        assert (demo.actions[row - start + 1 :, 6] == -1).all()
    everything = np.array([(e, s) for e, n in enumerate(LENGTHS) for s in range(n - 1)])
    assert share_served(store, range(5), everything, chunk=CHUNK) == {"anchors": 1.0, "tails": 1.0, "releases": 1.0}
    early = np.array(anchors(served(made, "B", 20)))
    found = share_served(store, range(5), early, chunk=CHUNK)
    assert found["releases"] == found["tails"] == 0.0
    assert found["anchors"] == pytest.approx(len({tuple(pair) for pair in early.tolist()}) / len(everything), abs=1e-5)


def test_key_moments_more_often(made: tuple[Store, list[Demo]]) -> None:
    times = Counter(anchors(served(made, "C", 40, repeat=3)))
    assert max(times.values()) >= 3 * min(times.values())

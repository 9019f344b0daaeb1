"""Selections that leave nothing, names that are not there, states of other windows: said, with what there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.adapters.rdt import RDTConfig, RDTDataset
from robozarr.loader.adapters.robomimic import SequenceDataset
from robozarr.loader.windows.selection import Selection, choose_episodes
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

SPEC = rz.WindowSpec({"agentview_rgb": [0], "actions": range(4)})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> rz.Store:
    """38 steps in 5 episodes of 2 tasks."""
    folder = tmp_path_factory.mktemp("selections")
    for name, lengths in (("open_the_drawer", (11, 3, 7)), ("close_it", (9, 8))):
        write_libero(folder / "a" / f"{name}_demo.hdf5", lengths=lengths, size=8, instruction=f"please {name}")
    convert(folder / "a", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"success": True}, "of 38 steps, left out: 38 by success → unknown_success=True keeps episodes"),
        ({"tasks": []}, "38 by tasks → take back one of these filters"),
        ({"episodes": [0], "tasks": [1]}, r"left out: \d+ by tasks, \d+ by episodes →"),
        ({"episodes": [0], "only_flags": rz.StepFlag.NOOP, "exclude_flags": rz.StepFlag.NOOP}, "by only_flags → only_flags="),
    ],
)
def test_llm_foundry_1585_a_filter_that_leaves_nothing(store: rz.Store, options: dict[str, Any], says: str) -> None:
    with pytest.raises(WindowError, match=rf"filter · windows: no window is left; .*{says}"):
        rz.WindowDataset(store, SPEC, **options)


def test_llm_foundry_1585_adapters_that_leave_nothing(store: rz.Store) -> None:
    with pytest.raises(WindowError, match="38 by epsd_len_thresh_low 128"):
        RDTDataset(store, config=RDTConfig(epsd_len_thresh_low=128))
    with pytest.raises(WindowError, match="38 by pad_seq_length"):
        SequenceDataset(store, ["joint_states"], ["actions"], seq_length=50, pad_seq_length=False, load_next_obs=False)


@pytest.mark.parametrize("offsets", [range(1000, 1064), [-11], [11, 500], range(-40, -20)])
@pytest.mark.parametrize("causal", [False, True])
def test_offsets_beyond_every_episode(store: rz.Store, offsets: Any, causal: bool) -> None:
    spec = rz.WindowSpec({"agentview_rgb": [0], "actions": offsets}, causal=causal)
    if causal and offsets == [-11]:  # the action chosen after an observation is one step on: within reach
        assert len(rz.WindowDataset(store, rz.WindowSpec({"actions": [-11, 0]}, causal=True))) > 0
        return
    with pytest.raises(WindowError, match=r"window · actions: .*beyond every episode, of which the longest has 11 steps"):
        rz.WindowDataset(store, spec)


def test_offsets_that_reach_into_one_episode_are_taken(store: rz.Store) -> None:
    assert len(rz.WindowDataset(store, rz.WindowSpec({"actions": [10]}))) == 38
    assert len(rz.WindowDataset(store, rz.WindowSpec({"actions": range(64)}))) == 38
    short = [number for number, length in enumerate(store.episodes.length.tolist()) if length == 3]
    with pytest.raises(WindowError, match="the longest has 3 steps"):
        rz.WindowDataset(store, rz.WindowSpec({"actions": [5]}), episodes=short)


@pytest.mark.parametrize(
    ("task", "meant"),
    [
        ("open_the_drawr", "; did you mean 'open_the_drawer'?"),
        ("Please Open_the_drawer.", "; did you mean 'please open_the_drawer'?"),
        ("open the drawer!", "; did you mean 'open the drawer'?"),
        ("fly to the moon", "by either wording$"),
        ("", "by either wording$"),
    ],
)
def test_a_misspelt_task_is_told_what_there_is(store: rz.Store, task: str, meant: str) -> None:
    with pytest.raises(WindowError, match=meant.replace("?", r"\?")) as caught:
        rz.WindowDataset(store, SPEC, tasks=[task])
    assert "'open_the_drawer' ('please open_the_drawer', 'open the drawer')" in str(caught.value)
    assert "'close_it' ('please close_it', 'close it')" in str(caught.value)


def test_a_misspelt_split_is_told_what_there_is(store: rz.Store) -> None:
    with pytest.raises(WindowError, match=r"got 'train', and this store has no splits, .* → leave split= out"):
        rz.WindowDataset(store, SPEC, split="train")

    class WithSplits:
        length, task, success = store.episodes.length, store.episodes.task, store.episodes.success
        start, alignment = store.episodes.start, store.episodes.alignment
        splits = {"train": success == 1, "valid": success == 0}  # noqa: RUF012

    with pytest.raises(WindowError, match=r"it has train, valid; got 'trian' → take one of these; did you mean 'train'\?"):
        choose_episodes(WithSplits(), Selection(split="trian"))


def test_a_state_of_other_windows_is_refused(store: rz.Store) -> None:
    def loader(spec: rz.WindowSpec = SPEC, **options: Any) -> rz.WindowLoader:
        return rz.WindowLoader(rz.WindowDataset(store, spec, **options), 4, seed=1)

    lengths = store.episodes.length.tolist()
    one = loader(episodes=[lengths.index(11)])
    iterator = iter(one)
    next(iterator)
    state = json.loads(json.dumps(one.state_dict()))
    others: list[tuple[rz.WindowLoader, str]] = [
        (loader(rz.WindowSpec({"agentview_rgb": [0], "actions": range(9)}), episodes=[lengths.index(11)]), "actions 0..8 edge"),
        (loader(rz.WindowSpec(SPEC.offsets, padding="zero"), episodes=[lengths.index(11)]), "actions 0..3 zero"),
        (loader(rz.WindowSpec(SPEC.offsets, causal=True)), "n_windows: saved 11"),
        (loader(episodes=[lengths.index(8), lengths.index(3)]), "saved with 11 windows of other steps or episodes, now 11"),
        (rz.WindowLoader([rz.WindowDataset(store, SPEC)] * 2, 4, seed=1), "order · state:"),
    ]
    for other, says in others:
        with pytest.raises(WindowError, match=says):
            other.load_state_dict(state)
        assert other.state_dict()["consumed"] == 0
    same = loader(rz.WindowSpec(dict(reversed(SPEC.offsets.items()))), episodes=[lengths.index(11)])
    same.load_state_dict(state)  # the order of the keys does not count
    earlier = {name: value for name, value in state.items() if name != "windows"}
    same.load_state_dict(earlier)  # saved by a version that did not say
    broken: list[Any] = [None, [], {"windows": []}, state | {"windows": []}, state | {"windows": [3]}, state | {"start": 99}]
    for one_of_them in broken:
        with pytest.raises(WindowError, match="order · "):
            same.load_state_dict(one_of_them)

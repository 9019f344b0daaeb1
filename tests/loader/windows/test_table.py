"""Enumeration of windows against a naive double loop over episodes and steps, and facts worth reading."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st
from table_cases import Case, make, naive, naive_rows, naive_shift, problems

from robozarr.loader.windows.order import Order
from robozarr.loader.windows.selection import Selection, rows_of
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment, StepFlag
from robozarr.schemas.window import WindowSpec

# --- random cases ---


@examples(400)
@given(problems())
def test_windows_are_those_of_a_naive_double_loop(problem: tuple[Case, WindowSpec, Selection]) -> None:
    case, spec, selection = problem
    table = case.table(spec, selection)
    served, left_out = naive(case, spec, selection)
    assert table.n_windows == len(table) == len(served)
    assert {entry.reason: entry.rows().tolist() for entry in table.left_out} == left_out
    assert {entry.reason: entry.n_anchors for entry in table.left_out} == {name: len(rows) for name, rows in left_out.items()}
    assert table.n_windows + sum(entry.n_anchors for entry in table.left_out) == case.metadata.n_steps

    anchors, keys = table.plan(np.arange(table.n_windows))
    assert list(zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True)) == served  # each once, in order
    assert anchors.row.tolist() == [int(case.episodes.start[e]) + t for e, t in served]
    assert list(keys) == list(spec.offsets)
    for name, found in keys.items():
        expected = [naive_rows(case, spec, name, e, t) for e, t in served]
        shape = (len(served), len(spec.offsets[name]))
        assert found.rows.shape == found.is_pad.shape == shape
        assert found.rows.dtype == np.int64
        assert found.is_pad.dtype == np.bool_
        assert found.rows.tolist() == [rows for rows, _ in expected]
        assert found.is_pad.tolist() == [is_pad for _, is_pad in expected]
        assert found.padding == spec.padding[name]


@given(problems(), st.integers(0, 1000))
def test_windows_in_any_order_and_number_give_the_same_rows(problem: tuple[Case, WindowSpec, Selection], seed: int) -> None:
    case, spec, selection = problem
    table = case.table(spec, selection)
    whole, keys = table.plan(range(table.n_windows))
    ids = np.random.default_rng(seed).integers(0, table.n_windows, 7) if table.n_windows else np.empty(0, np.int64)
    for some in (ids, ids.astype(np.uint64), ids.tolist(), ids[:1]):
        anchors, part = table.plan(some)
        at = np.asarray(some, np.int64)
        assert all((ours == theirs[at]).all() for ours, theirs in zip(anchors, whole, strict=True))
        assert all((part[name].rows == keys[name].rows[at]).all() for name in keys)
        assert all((part[name].is_pad == keys[name].is_pad[at]).all() for name in keys)


@given(problems())
def test_runs_are_ascending_and_neither_empty_nor_touching(problem: tuple[Case, WindowSpec, Selection]) -> None:
    case, spec, selection = problem
    table = case.table(spec, selection)
    for runs in (table.runs, *(entry.runs for entry in table.left_out)):
        assert runs.dtype == np.int64
        assert (np.diff(runs.ravel()) > 0).all()
    together = np.concatenate([rows_of(table.runs), *(entry.rows() for entry in table.left_out)])
    assert sorted(together.tolist()) == list(range(case.metadata.n_steps))


@given(problems(), st.dictionaries(st.integers(1, 7).map(StepFlag), st.integers(1, 5), max_size=3))
def test_weights_repeat_the_flagged_windows(problem: tuple[Case, WindowSpec, Selection], repeats: dict[StepFlag, int]) -> None:
    case, spec, selection = problem
    table = case.table(spec, selection)
    weights = table.weights(case.flags, repeats)
    served, _ = naive(case, spec, selection)
    expected = []
    for e, t in served:
        start, length, shift = int(case.episodes.start[e]), int(case.episodes.length[e]), naive_shift(case, spec, e)
        flags = int(case.flags[start + t]) & 2 | int(case.flags[start + min(t + shift, length - 1)]) & 5
        expected.append(max([1, *(n for flag, n in repeats.items() if flags & flag)]))
    assert (weights is None) == (not expected or max(expected) == 1)
    if weights is not None:
        assert weights.tolist() == expected
        order = Order(n_windows=table.n_windows, weights=weights)
        counts = Counter(order.windows(range(order.n_positions)).tolist())
        assert [counts[window] for window in range(table.n_windows)] == expected


# --- facts worth reading ---


def test_every_step_of_a_whole_store_is_an_anchor() -> None:
    table = make([75, 1, 128]).table(WindowSpec.rdt(images=["pictures"], states=["joints"]))
    assert table.n_windows == 204
    assert table.left_out == ()
    assert table.runs.tolist() == [[0, 204]]
    assert repr(table) == "WindowTable(204 windows of 204 steps)"


def test_edge_and_zero_padding_at_both_ends() -> None:
    spec = WindowSpec({"pictures": [-1, 0], "actions": range(3)}, padding={"actions": "zero"})
    _, keys = make([2, 3]).table(spec).plan([0, 4])
    assert keys["pictures"].rows.tolist() == [[0, 0], [3, 4]]
    assert keys["pictures"].is_pad.tolist() == [[True, False], [False, False]]
    assert keys["actions"].rows.tolist() == [[0, 1, 1], [4, 4, 4]]
    assert keys["actions"].is_pad.tolist() == [[False, False, True], [False, True, True]]
    assert (keys["pictures"].padding, keys["actions"].padding) == ("edge", "zero")


@pytest.mark.parametrize(
    ("alignment", "assumed", "anchors", "first_rows"),
    [
        (0, None, [0, 1, 2], [0, 1, 2]),  # recorded before: actions[t] answers obs[t]
        (1, None, [0, 1], [1, 2]),  # recorded after: actions[t + 1] does, and T-1 has none
        (-1, Alignment.BEFORE, [0, 1, 2], [0, 1, 2]),
        (-1, Alignment.AFTER, [0, 1], [1, 2]),
        (0, Alignment.AFTER, [0, 1, 2], [0, 1, 2]),  # assumed only where nothing is recorded
    ],
)
def test_causal_by_alignment(alignment: int, assumed: Alignment | None, anchors: list[int], first_rows: list[int]) -> None:
    spec = WindowSpec({"pictures": [0], "actions": range(8)}, causal=True, assume_alignment=assumed)
    table = make([3], alignment=[alignment]).table(spec)
    found, keys = table.plan(range(table.n_windows))
    assert found.step.tolist() == anchors
    assert keys["actions"].rows[:, 0].tolist() == first_rows
    assert keys["pictures"].rows[:, 0].tolist() == anchors  # observations never move
    assert not keys["actions"].is_pad[:, 0].any()


def test_what_causal_leaves_out_is_counted_and_listed() -> None:
    table = make([3, 1, 2, 4], alignment=[1, 1, 0, 1]).table(WindowSpec({"actions": range(64)}, causal=True))
    (left_out,) = table.left_out
    assert (left_out.reason, left_out.n_anchors) == ("causal", 3)
    episode, step = table.locate(left_out.rows())
    assert list(zip(episode.tolist(), step.tolist(), strict=True)) == [(0, 2), (1, 0), (3, 3)]  # T-1, a one-step episode whole
    assert repr(table) == "WindowTable(7 windows of 10 steps; left out: 3 by causal)"


def test_past_actions_keep_the_last_anchor() -> None:
    """Diffusion policy's window holds the action before the anchor: at T-1 that one is real, so the anchor stays."""
    case = make([5])
    table = case.table(WindowSpec.diffusion_policy(images=["pictures"], states=[], causal=True))
    assert table.n_windows == 5
    _, keys = table.plan([4])
    assert keys["actions"].is_pad[0].tolist() == [False] + [True] * 15
    assert keys["actions"].rows[0, 0] == 4  # what led to obs[4]


@examples(50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.data())
def test_causal_pairs_each_observation_with_the_action_that_answers_it(lengths: list[int], data: st.DataObject) -> None:
    """A world in which x' = x + action, recorded either way: the paired action leads to the next observation."""
    alignment = data.draw(st.lists(st.sampled_from([0, 1]), min_size=len(lengths), max_size=len(lengths)))
    actions = np.random.default_rng(0).integers(1, 1000, sum(lengths))
    observed = np.concatenate(
        [
            np.cumsum(part) - (0 if when == Alignment.AFTER else part)
            for part, when in zip(np.split(actions, np.cumsum(lengths)[:-1]), alignment, strict=True)
        ]
    )
    table = make(lengths, alignment=alignment).table(WindowSpec({"joints": [0, 1], "actions": [0]}, causal=True))
    _, keys = table.plan(range(table.n_windows))
    joints, at = keys["joints"], keys["actions"]
    assert not at.is_pad.any()
    both = ~joints.is_pad[:, 1]
    led_to = observed[joints.rows[both, 1]] - observed[joints.rows[both, 0]]
    assert led_to.tolist() == actions[at.rows[both, 0]].tolist()
    assert table.n_windows == sum(lengths) - sum(alignment)


def test_flags_about_actions_follow_the_causal_pairing() -> None:
    noop, still = int(StepFlag.NOOP), int(StepFlag.STILL)
    case = make([4], flags=[still, noop, 0, 0])
    spec, selection = {"actions": [0]}, Selection(exclude_flags=StepFlag.NOOP | StepFlag.STILL)
    recorded, causal = case.table(WindowSpec(spec), selection), case.table(WindowSpec(spec, causal=True), selection)
    assert recorded.anchors(range(2)).step.tolist() == [2, 3]
    assert causal.anchors(range(2)).step.tolist() == [1, 2]  # the no-op actions[1] answers obs[0], which is still, too
    assert [str(entry) for entry in causal.left_out] == ["1 by causal", "1 by exclude_flags NOOP"]


def test_offsets_too_far_for_every_episode_leave_nothing_and_say_so() -> None:
    table = make([3, 2]).table(WindowSpec({"actions": [50]}, causal=True))
    assert table.n_windows == 0
    assert repr(table) == "WindowTable(0 windows of 5 steps; left out: 5 by causal)"
    assert table.plan([])[1]["actions"].rows.shape == (0, 1)
    plain = make([3, 2]).table(WindowSpec({"actions": [50]}))
    assert plain.n_windows == 5  # as recorded, every step is an anchor, come what may
    assert plain.plan(range(5))[1]["actions"].is_pad.all()


def test_unknown_alignment_concerns_selected_episodes_only() -> None:
    case, spec = make([3, 2], alignment=[1, -1]), WindowSpec({"actions": [0]}, causal=True)
    with pytest.raises(WindowError, match="it is not of 1 of 2: 1 → pass assume_alignment"):
        case.table(spec)
    assert case.table(spec, Selection(episodes=[0])).n_windows == 2


def test_keys_with_equal_offsets_share_their_rows_which_are_read_only() -> None:
    table = make([5]).table(WindowSpec({"pictures": [0], "actions": [0], "joints": [0, 1], "rewards": [0]}, causal=True))
    _, keys = table.plan([0, 1])
    assert len(table.groups) == 3
    assert keys["actions"].rows is keys["rewards"].rows
    assert keys["pictures"].rows is not keys["actions"].rows
    with pytest.raises(ValueError, match="read-only"):
        keys["actions"].rows[0, 0] = 9


def test_a_table_travels_to_another_process() -> None:
    table = make([5, 2]).table(WindowSpec.robomimic(images=["pictures"], states=["joints"]), Selection(tasks=[0]))
    other = pickle.loads(pickle.dumps(table))
    assert (other.plan([3])[1]["actions"].rows == table.plan([3])[1]["actions"].rows).all()


def test_a_list_of_rows_or_an_array_selects_the_same() -> None:
    assert Selection(tasks=np.array([2, 0])) == Selection(tasks=[2, 0])  # type: ignore[arg-type]
    assert hash(Selection(episodes=range(3))) == hash(Selection(episodes=[0, 1, 2]))
    assert not Selection(tasks=[0]).needs_flags
    assert make([3]).table(WindowSpec({"actions": [0]}), Selection(episodes=[])).n_windows == 0

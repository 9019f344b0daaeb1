"""Stride, padding, masks and step ranges against a naive double loop; splits partition and are stratified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from table_cases import Case, make, naive, naive_rows, problems

from robozarr.loader.windows.narrowing import mask_of_ranges
from robozarr.loader.windows.selection import Selection, rows_of
from robozarr.loader.windows.splitting import SplitBy, in_second_part
from robozarr.schemas.errors import WindowError
from robozarr.schemas.window import WindowSpec


def n_outside(case: Case, spec: WindowSpec, name: str, e: int, t: int) -> int:
    return sum(naive_rows(case, spec, name, e, t)[1])


@examples(60)
@given(problems(), st.none() | st.integers(1, 6), st.none() | st.integers(0, 5) | st.just("by key"), st.integers(0, 99))
def test_as_a_naive_loop(problem: tuple[Case, WindowSpec, Selection], stride: int | None, most: Any, seed: int) -> None:
    case, spec, before = problem
    first = next(iter(spec.offsets))
    most = {first: 1} if most == "by key" else most
    mask = np.random.default_rng(seed).random(case.metadata.n_steps) < 0.7
    options: dict[str, Any] = {name: getattr(before, name) for name in before.__slots__}
    selection = Selection(**(options | {"stride": stride, "max_padding": most, "rows": mask}))
    served, left_out = naive(case, spec, before)
    expected = []
    for e, t in served:
        row = int(case.episodes.start[e]) + t
        of_key = dict.fromkeys(spec.offsets, most) if isinstance(most, int) else most or {}
        if stride is not None and t % stride:
            left_out.setdefault(f"stride {stride}", []).append(row)
        elif any(n_outside(case, spec, name, e, t) > n for name, n in of_key.items()):
            left_out.setdefault("padding", []).append(row)
        elif not mask[row]:
            left_out.setdefault("windows", []).append(row)
        else:
            expected.append(row)
    table = case.table(spec, selection)
    assert rows_of(table.runs).tolist() == expected
    assert {entry.reason: entry.rows().tolist() for entry in table.left_out} == left_out


@settings(max_examples=30)
@given(problems())
def test_windows_of_an_episode(problem: tuple[Case, WindowSpec, Selection]) -> None:
    case, spec, selection = problem
    table = case.table(spec, selection)
    episode = table.anchors(np.arange(table.n_windows)).episode
    assert table.episode_of_windows().tolist() == episode.tolist()
    for e in range(len(case.episodes.length)):
        assert list(table.windows_of(e)) == np.flatnonzero(episode == e).tolist()


def test_diffusion_policys_anchors() -> None:
    # common/sampler.py: create_indices(sequence_length=16, pad_before=1, pad_after=7)
    indices = [i for length in (20, 16, 5) for i in range(-1, length - 16 + 7 + 1)]
    table = make([20, 16, 5]).table(
        WindowSpec({"pictures": [-1, 0], "actions": range(-1, 15)}), Selection(max_padding={"actions": 7})
    )
    # it begins an episode of 20 steps at -1 … 11; an episode that is too short has none there
    assert [row - start for start, row in zip([0] * 13 + [20] * 9, rows_of(table.runs).tolist(), strict=True)] == [
        i + 1 for i in indices
    ]


def test_ranges_are_openpis() -> None:
    start, length = np.array([0, 5, 9]), np.array([5, 4, 3])
    names = {"a/demo_0": [0], "a": [0, 1], "b": [2]}
    mask = mask_of_ranges({"a/demo_0": [[0, 2], (3, 5)], 2: [(1, 3)]}, start, length, names)
    naive_mask = [
        (episode == 0 and t in (0, 1, 3, 4)) or (episode == 2 and t in (1, 2))
        for episode in range(3)
        for t in range(length[episode])
    ]
    assert mask.tolist() == naive_mask
    for ranges, says in (
        ({"c": [(0, 1)]}, "no episode has this name"),
        ({"a": [(0, 1)]}, r"2 episodes have this name: \[0, 1\]"),
        ({3: [(0, 1)]}, r"episodes in \[0, 3\)"),
        ({0: [(0, 6)]}, r"0 to 5; got \(0, 6\)"),
        ({0: [(3, 3)]}, r"got \(3, 3\)"),
        ({0: [5]}, "got 5"),
        ({True: [(0, 1)]}, "got True"),
    ):
        with pytest.raises(WindowError, match=says):
            mask_of_ranges(ranges, start, length, names)  # type: ignore[arg-type]


CASE = make([5, 3])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stride": 0}, "stride: a whole number of steps, 1 or more; got 0"),
        ({"stride": 2.0}, r"got 2\.0"),
        ({"stride": True}, "got True"),
        ({"max_padding": -1}, "got -1"),
        ({"max_padding": {"actions": 0.5}}, "max_padding: how many offsets"),
        ({"max_padding": {"action": 1}}, "keys of the window, which are pictures, actions; got action"),
        ({"rows": np.ones(7, bool)}, r"one bool for each of the store's 8 steps; got bool \[7\]"),
        ({"rows": np.ones(8, int)}, r"got int64 \[8\]"),
    ],
)
def test_what_is_no_filter(options: dict[str, Any], says: str) -> None:
    with pytest.raises(WindowError, match=says):
        CASE.table(WindowSpec({"pictures": [0], "actions": range(3)}), Selection(**options))


# --- splits ---


@examples(80)
@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=120),
    st.floats(0.01, 0.99),
    st.sampled_from(["episode", "task"]),
    st.integers(0, 2**64 - 1),
)
def test_parts_partition_and_are_stratified(tasks: list[int], share: float, by: SplitBy, seed: int) -> None:
    task, episodes = np.array(tasks), np.arange(len(tasks)) * 3 + 1
    if by == "task" and len(set(tasks)) < 2:
        with pytest.raises(WindowError, match="at least two tasks"):
            in_second_part(episodes, task, share, by, seed)
        return
    second = in_second_part(episodes, task, share, by, seed)
    assert second.tolist() == in_second_part(episodes, task, share, by, seed).tolist()
    n = len(set(tasks)) if by == "task" else len(tasks)
    expected = min(max(1, round((1 - share) * n)), n - 1)
    of_task = {t: second[task == t] for t in set(tasks)}
    if by == "task":
        assert all(len(set(members.tolist())) == 1 for members in of_task.values())  # whole tasks
        assert sum(bool(members[0]) for members in of_task.values()) == expected
    else:
        assert second.sum() == expected
        assert all(abs(members.sum() - len(members) * expected / n) < 1 for members in of_task.values())


def test_another_seed_is_another_split() -> None:
    episodes, task = np.arange(60), np.repeat([0, 1, 2], 20)
    found = {tuple(np.flatnonzero(in_second_part(episodes, task, 0.9, "episode", seed)).tolist()) for seed in range(20)}
    assert len(found) > 15
    chosen = np.bincount([e for one in found for e in one], minlength=60)
    assert chosen.max() <= 8  # no episode is in most of them


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1, "0.9", True, float("nan"), None])
def test_what_is_no_share(share: Any) -> None:
    with pytest.raises(WindowError, match="between 0 and 1"):
        in_second_part(np.arange(4), np.zeros(4, int), share, "episode", 0)

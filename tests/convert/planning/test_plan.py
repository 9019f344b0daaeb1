"""Plans, from records alone: partitions tile every column, sources and tasks are numbered, unlike demos are named."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from robozarr.convert.planning.plan import Plan, make_plan
from robozarr.convert.records import Column, DatasetInfo, DemoScan, FileScan
from robozarr.schemas.errors import PlanError, Problem, SourceError
from robozarr.schemas.index import Alignment, FlagRules, ImageConvention, ImageEvidence

WIDE = {"obs/rgb": ("uint8", (2048, 2048, 3)), "obs/thumb": ("uint8", (64, 64, 3)), "actions": ("float64", (7,))}


def a_demo(name: str, length: int, kinds: dict[str, tuple[str, tuple[int, ...]]] | None = None, **facts: Any) -> DemoScan:
    datasets = [
        DatasetInfo(path=path, shape=(length, *shape), dtype=dtype, stored_as=dtype)
        for path, (dtype, shape) in (kinds or {"actions": ("float64", (7,))}).items()
    ]
    demo = DemoScan(
        name=name, length=length, datasets=tuple(datasets), repeats=(), flags=np.zeros(length, np.uint8), joint_key="joints",
        alignment=Alignment.AFTER, alignment_error=(1.0, 0.0), image_convention=ImageConvention.OPENGL,
        image_evidence=ImageEvidence.ATTRIBUTE, success=-1, model_file_bytes=0, init_state_size=0, attributes="{}", splits=(),
    )  # fmt: skip
    return replace(demo, **facts)


def a_file(path: str, *demos: DemoScan, **facts: Any) -> FileScan:
    return replace(FileScan(path=path, size=1000 + len(path), mtime_ns=7, problems=(), demos=demos), **facts)


def plan_of(*files: FileScan, selected: tuple[str, ...] | None = None) -> Plan:
    return make_plan(files, profile="fast", rules=FlagRules(), selected=selected)


# --- partitions ---

lengths = st.integers(1, 3) | st.integers(1, 3000) | st.sampled_from([512, 1024, 2048, 2730, 4096])
demo_facts = st.tuples(
    lengths, st.integers(1, 200), st.sampled_from([0, 1, 97_000, 1 << 24, 40_000_000]), st.integers(0, 10**6)
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    files = []
    for number, facts in enumerate(draw(st.lists(st.lists(demo_facts, min_size=1, max_size=4), min_size=1, max_size=3))):
        demos = [
            a_demo(f"demo_{k}", n, WIDE | {"states": ("float64", (width,))}, model_file_bytes=text, init_state_size=size)
            for k, (n, width, text, size) in enumerate(facts)
        ]
        files.append(a_file(f"/data/suite/{number}.hdf5", *demos))
    return plan_of(*files)


def rows_of_demo(column: Column, demo: DemoScan) -> int:
    if column.kind == "flat":
        return demo.length * next(info.shape[1] for info in demo.datasets if info.path == column.source)
    return {"rows": demo.length, "text": demo.model_file_bytes, "vector": demo.init_state_size}[column.kind]


@examples(50)
@given(plan=plans())
def test_partitions_tile_every_column_in_order(plan: Plan) -> None:
    demos = [(file, demo) for file in plan.files for demo in file.demos]
    assert {column.kind for column in plan.columns} == {"rows", "flat", "text", "vector"}
    for column in plan.columns:
        sizes = [rows_of_demo(column, demo) for _, demo in demos]
        ends = np.cumsum(sizes).tolist()
        assert column.starts.tolist() == [0, *ends]
        assert column.layout.shape[0] == ends[-1]
        row, seen = 0, [0] * len(demos)  # the next row of the column, and of each demo
        for shard in range(column.layout.n_shards):
            partition = plan.partition(column, shard)
            assert column.layout.rows_of_shard(shard)[0] == row
            at = 0
            for segment in partition.segments:
                file, demo = demos[segment.episode]
                assert (segment.path, segment.size, segment.mtime_ns, segment.demo) == (
                    file.path,
                    file.size,
                    file.mtime_ns,
                    demo.name,
                )
                assert (segment.at, segment.start) == (at, seen[segment.episode])
                assert segment.start < segment.stop
                assert seen[: segment.episode] == sizes[: segment.episode]
                seen[segment.episode] = segment.stop
                at += segment.stop - segment.start
            assert at == partition.n_rows
            row += at
        assert seen == sizes
        assert row == ends[-1]


@settings(max_examples=20)
@given(plan=plans())
def test_each_shard_is_one_partition(plan: Plan) -> None:
    partitions = list(plan.partitions())
    written = Counter((partition.layout.path, partition.shard) for partition in partitions)
    assert set(written.values()) == {1}
    assert set(written) == {(column.layout.path, shard) for column in plan.columns for shard in range(column.layout.n_shards)}
    assert plan.n_partitions == len(partitions)
    assert plan.n_bytes == sum(partition.n_bytes for partition in partitions)
    pictures = [partition.key is not None and partition.key.frame for partition in partitions]
    assert pictures == sorted(pictures, reverse=True)
    # with the tables and what is computed later, that is every array, each once
    later = [path for path in plan.layouts if path.startswith(("stats/", "episodes/stats/", "histograms/", "checksums/"))]
    assert sorted([*(column.layout.path for column in plan.columns), *plan.tables, *later]) == list(plan.layouts)


@settings(max_examples=20)
@given(plan=plans())
def test_tables_fit_their_layouts(plan: Plan) -> None:
    for path, table in plan.tables.items():
        assert (table.shape, str(table.dtype)) == (plan.layouts[path].shape, plan.layouts[path].dtype)
    widths = np.diff(plan.tables["ragged/states/offsets"])
    expected = [next(i.shape[1] for i in demo.datasets if i.path == "states") for file in plan.files for demo in file.demos]
    assert widths.tolist() == np.repeat(expected, plan.tables["episodes/length"]).tolist()


# --- tasks, sources, episodes ---


def texts(plan: Plan, path: str) -> list[str]:
    offsets, data = plan.tables[f"{path}/offsets"].tolist(), plan.tables[f"{path}/bytes"].tobytes()
    return [data[a:b].decode() for a, b in pairwise(offsets)]


def test_tasks_and_sources_are_numbered_in_the_order_of_the_files() -> None:
    stove = {"suite": "libero_goal", "task": "stove", "instruction": "turn on the stove — ω"}
    files = [
        a_file("/d/goal/a.hdf5", a_demo("demo_0", 2), a_demo("demo_3", 1), control_freq=20.0, **stove),
        a_file("/d/spatial/a.hdf5", a_demo("demo_0", 4), suite="libero_spatial", task="bowl"),
        a_file("/e/goal_2/a.hdf5", a_demo("demo_0", 3, success=1), control_freq=10.0, **stove),
    ]
    plan = plan_of(*files)
    assert plan.tables["episodes/task"].tolist() == [0, 0, 1, 0]
    assert plan.tables["episodes/source"].tolist() == [0, 0, 1, 2]
    assert plan.tables["episodes/start"].tolist() == [0, 2, 3, 7]
    assert plan.tables["episodes/success"].tolist() == [-1, -1, -1, 1]
    assert plan.episodes == ((0, "demo_0"), (0, "demo_3"), (1, "demo_0"), (2, "demo_0"))
    assert texts(plan, "episodes/demo") == ["demo_0", "demo_3", "demo_0", "demo_0"]
    assert texts(plan, "tasks/instruction") == ["turn on the stove — ω", ""]
    assert texts(plan, "tasks/suite") == ["libero_goal", "libero_spatial"]
    assert [(source.name, source.n_demos) for source in plan.metadata.sources] == [
        ("goal/a.hdf5", 2), ("spatial/a.hdf5", 1), ("goal_2/a.hdf5", 1),
    ]  # fmt: skip
    metadata = plan.metadata
    assert (metadata.n_tasks, metadata.n_episodes, metadata.n_steps, metadata.complete) == (2, 4, 10, False)
    assert metadata.control_freq is None  # 20 and 10
    assert np.isnan(plan.tables["tasks/control_freq"][0])
    assert plan.tables["tasks/control_freq"][1] == 20
    assert plan_of(files[1]).metadata.control_freq == 20
    assert plan_of(files[2], files[1]).metadata.control_freq == 10


@pytest.mark.parametrize("field", ["task", "instruction", "instruction_from_name", "suite", "env_name", "bddl"])
def test_whatever_differs_makes_another_task(field: str) -> None:
    files = [a_file("/d/a.h5", a_demo("demo_0", 1)), a_file("/d/b.h5", a_demo("demo_0", 1), **{field: "other"})]
    plan = plan_of(*files)
    assert plan.metadata.n_tasks == 2
    assert texts(plan, f"tasks/{'name' if field == 'task' else field}") == ["", "other"]


def test_splits_are_those_of_all_files() -> None:
    plan = plan_of(
        a_file("/d/a.h5", a_demo("demo_0", 1, splits=("train",)), a_demo("demo_1", 1), splits=("train", "valid")),
        a_file("/d/b.h5", a_demo("demo_0", 1, splits=("test", "train")), splits=("test", "train")),
    )
    assert plan.metadata.splits == ("test", "train", "valid")
    members = {name: plan.tables[f"episodes/splits/{name}"].tolist() for name in plan.metadata.splits}
    assert members == {"test": [False, False, True], "train": [True, False, True], "valid": [False, False, False]}


# --- keys ---

BASE: dict[str, tuple[str, tuple[int, ...]]] = {"actions": ("float64", (7,)), "obs/pos": ("float64", (3,))}
NEXT = {"next_obs/pos": ("float64", (3,))}


def test_keys_are_sorted_and_described() -> None:
    plan = plan_of(a_file("/d/a.h5", a_demo("demo_0", 2, {"states": ("float64", (92,)), "rewards": ("uint8", ())} | BASE)))
    kinds = [(key.name, key.source, key.dtype, key.shape, key.ragged) for key in plan.metadata.keys]
    assert kinds == [
        ("actions", "actions", "float64", (7,), False),
        ("pos", "obs/pos", "float64", (3,), False),
        ("rewards", "rewards", "uint8", (), False),
        ("states", "states", "float64", (), True),
    ]


def test_next_obs_is_left_out_only_where_all_demos_repeat_obs() -> None:
    repeating = a_demo("demo_0", 2, BASE | NEXT, repeats=("next_obs/pos",))
    plan = plan_of(a_file("/d/a.h5", repeating, replace(repeating, name="demo_1")))
    assert [key.name for key in plan.metadata.keys] == ["actions", "pos"]
    (entry,) = plan.metadata.not_stored
    assert (entry.source, entry.path, entry.n_demos) == ("d/a.h5", "next_obs/pos", 2)
    assert entry.reason.startswith("equals obs one step later")
    plan = plan_of(a_file("/d/a.h5", repeating, replace(repeating, name="demo_1", repeats=())))
    assert [key.name for key in plan.metadata.keys] == ["actions", "next_obs.pos", "pos"]
    assert plan.metadata.not_stored == ()


def test_what_the_scan_left_out_is_listed() -> None:
    plan = plan_of(a_file("/d/a.h5", a_demo("demo_0", 1), not_stored=(("obs/text", 1, "no numbers"), ("data/x", 0, "stray"))))
    listed = [(entry.path, entry.n_demos, entry.reason) for entry in plan.metadata.not_stored]
    assert listed == [("obs/text", 1, "no numbers"), ("data/x", 0, "stray")]
    json.dumps(plan.metadata.to_json(), allow_nan=False)


def refused(*files: FileScan) -> list[Problem]:
    with pytest.raises(SourceError, match=r"^\d+ problems? in the sources; nothing was written:\n") as caught:
        plan_of(*files)
    problems = list(caught.value.problems)
    assert str(caught.value).startswith(f"{len(problems)} problem")
    assert all(problem.file and problem.rule and problem.value and problem.remedy for problem in problems)
    return problems


@pytest.mark.parametrize(
    ("odd", "rule", "value"),
    [
        ({"actions": ("float64", (7,))}, "every demo must hold the keys that the others hold", "nothing"),
        (BASE | {"obs/pos": ("float32", (3,))}, "a step must be float64 (3,), as in most demos", "float32 (3,)"),
        (BASE | {"obs/pos": ("float64", (4,))}, "a step must be float64 (3,), as in most demos", "float64 (4,)"),
        (BASE | {"obs/pos": ("float64", ())}, "a step must be float64 (3,), as in most demos", "float64 ()"),
    ],
)
def test_a_demo_unlike_the_others_is_named(odd: dict[str, Any], rule: str, value: str) -> None:
    usual = [a_demo(f"demo_{k}", 2, BASE) for k in range(2)]
    (problem,) = refused(a_file("/d/b.h5", a_demo("demo_5", 2, odd)), a_file("/d/c.h5", *usual))
    assert (problem.file, problem.demo, problem.key) == ("/d/b.h5", "demo_5", "obs/pos")
    assert f"{rule}; found {value} → " in str(problem)


def test_a_key_that_one_demo_adds_is_named_in_it() -> None:
    demos = [a_demo("demo_0", 2), a_demo("demo_1", 2, BASE), a_demo("demo_2", 2)]
    assert [(p.demo, p.key) for p in refused(a_file("/d/a.h5", *demos))] == [("demo_1", "obs/pos")]


def test_widths_of_ragged_keys_may_differ_but_not_their_type() -> None:
    def demo(k: int, width: int, dtype: str) -> DemoScan:
        return a_demo(f"demo_{k}", 2, BASE | {"states": (dtype, (width,))})

    plan_of(a_file("/d/a.h5", demo(0, 92, "float64"), demo(1, 110, "float64")))
    (problem,) = refused(a_file("/d/a.h5", demo(0, 92, "float64"), demo(1, 110, "float64"), demo(2, 92, "float32")))
    assert (problem.demo, problem.key) == ("demo_2", "states")


def test_problems_of_the_scan_and_of_the_plan_are_listed_together() -> None:
    found = Problem(file="/d/a.h5", rule="the file is whole", value="half", remedy="again")
    problems = refused(a_file("/d/a.h5", problems=(found,)), a_file("/d/b.h5", a_demo("demo_0", 2, BASE), a_demo("demo_1", 2)))
    assert problems[0] is found
    assert [problem.demo for problem in problems] == ["", "demo_1"]


def test_two_datasets_of_one_name_get_their_paths() -> None:
    kinds = BASE | {"pos": ("float64", (3,)), "obs/a/b": ("int8", ()), "obs/a.b": ("int8", ())}
    metadata = plan_of(a_file("/d/a.h5", a_demo("demo_0", 2, kinds))).metadata
    names = {key.source: key.name for key in metadata.keys}
    assert names == {"actions": "actions", "pos": "pos", "obs/pos": "obs.pos", "obs/a.b": "obs.a.b"}
    assert [(entry.path, entry.n_demos, entry.reason) for entry in metadata.not_stored] == [
        ("obs/a/b", 1, "another dataset is called obs.a.b")
    ]


@pytest.mark.parametrize("name", ["..", "zarr.json"])
def test_a_key_that_no_array_can_be_called_is_refused(name: str) -> None:
    """HDF5 allows these names; as folders of the store they would overwrite what belongs to others."""
    (problem,) = refused(a_file("/d/a.h5", a_demo("demo_0", 2, BASE | {f"obs/{name}": ("float64", (3,))})))
    assert problem.key == f"obs/{name}"


def test_keys_that_nobody_holds_are_refused() -> None:
    file = a_file("/d/a.h5", a_demo("demo_0", 2, BASE), not_stored=(("obs/rgb", 1, "not asked for (--keys)"),))
    assert plan_of(file, selected=("pos", "obs/pos")).metadata.selected_keys == ("pos", "obs/pos")
    with pytest.raises(PlanError, match="--keys: no source holds depth, obs/x; they hold actions, pos, rgb"):
        plan_of(file, selected=("pos", "depth", "obs/x"))

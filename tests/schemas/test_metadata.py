"""What a store says of itself: through JSON and back, what is refused, and the arrays that follow from it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from robozarr.schemas.errors import FormatVersionError, IncompleteStoreError, StoreError
from robozarr.schemas.index import FlagRules
from robozarr.schemas.metadata import (
    ATTRIBUTE,
    Key,
    NotStored,
    SourceEntry,
    StoreMetadata,
    array_layouts,
    fixed_layouts,
    text_paths,
)
from robozarr.schemas.source import RAGGED_KEYS, is_array_name

VECTOR = Key(name="actions", source="actions", dtype="float64", shape=(7,), role="action", unit="")
counts = st.integers(0, 10**9)
names = st.text("abc.", min_size=1, max_size=6).filter(is_array_name)
keys = st.builds(
    Key,
    name=names,
    source=st.text(),
    dtype=st.sampled_from(["bool", "uint8", "int64", "float32", "float64"]),
    shape=st.lists(st.integers(1, 300), max_size=4).map(tuple),
    role=st.sampled_from(["image", "depth", "action", "state", "outcome"]),
    unit=st.text(),
    ragged=st.just(False),
)
ragged = st.builds(
    Key,
    name=names,
    source=st.text(),
    dtype=st.just("float64"),
    shape=st.just(()),
    role=st.just("state"),
    unit=st.text(),
    ragged=st.just(True),
)
metadata = st.builds(
    StoreMetadata,
    software=st.text(),
    profile=st.sampled_from(["raw", "fast", "lean", "compact"]),
    complete=st.just(True),
    n_steps=counts,
    n_episodes=counts,
    n_tasks=counts,
    control_freq=st.none() | st.floats(0, 1000),
    keys=st.lists(keys | ragged, max_size=5, unique_by=lambda key: key.name).map(lambda found: (VECTOR, *found)),
    selected_keys=st.none() | st.lists(names, max_size=3).map(tuple),
    sources=st.lists(
        st.builds(SourceEntry, name=st.text(), size=counts, mtime_ns=st.integers(), n_demos=counts), max_size=3
    ).map(tuple),
    splits=st.lists(names, max_size=3, unique=True).map(tuple),
    flag_rules=st.builds(
        FlagRules, noop_threshold=st.floats(0, 1), still_threshold=st.floats(0, 1), key_moment_steps=st.integers(0, 9)
    ),
    joint_key=st.sampled_from([None, "actions", "joint_states"]),
    not_stored=st.lists(
        st.builds(NotStored, source=st.text(), path=st.text(), n_demos=counts, reason=st.text()), max_size=3
    ).map(tuple),
)


def attributes_of(store: StoreMetadata) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps({ATTRIBUTE: store.to_json()}))
    return value


@given(store=metadata)
def test_attributes_come_back(store: StoreMetadata) -> None:
    assert StoreMetadata.from_attributes(attributes_of(store), "x.zarr") == store


@given(store=metadata)
def test_only_a_complete_store_is_read(store: StoreMetadata) -> None:
    unfinished = replace(store, complete=False)
    with pytest.raises(
        IncompleteStoreError, match=r"^x\.zarr: the conversion .* has not finished; run the same `robozarr convert`"
    ):
        StoreMetadata.from_attributes(attributes_of(unfinished), "x.zarr")
    assert StoreMetadata.from_attributes(attributes_of(unfinished), "x.zarr", allow_incomplete=True) == unfinished
    assert unfinished.completed() == store


FRAME = Key(name="rgb", source="obs/rgb", dtype="uint8", shape=(8, 9, 3), role="image", unit="")
DEPTH = Key(name="depth", source="obs/depth", dtype="float32", shape=(8, 9), role="depth", unit="")
SCALAR = Key(name="dones", source="dones", dtype="uint8", shape=(), role="outcome", unit="1")
MATRIX = Key(name="pose", source="obs/pose", dtype="float64", shape=(4, 4), role="state", unit="")
RAGGED = Key(name="states", source="states", dtype="float64", shape=(), role="state", unit="", ragged=True)
STORE = StoreMetadata(
    software="robozarr 0", profile="fast", complete=True, n_steps=5, n_episodes=2, n_tasks=1, control_freq=20.0,
    keys=(VECTOR, SCALAR, RAGGED, FRAME), selected_keys=None, splits=("train",), flag_rules=FlagRules(), joint_key=None,
    sources=(SourceEntry(name="a", size=1, mtime_ns=2, n_demos=2),),
    not_stored=(NotStored(source="a", path="b", n_demos=1, reason="c"),),
)  # fmt: skip


@pytest.mark.parametrize("version", [0, 3, "1", True, None, [1]])
def test_another_version_is_refused(version: Any) -> None:
    attributes = attributes_of(STORE)
    attributes[ATTRIBUTE]["format_version"] = version
    with pytest.raises(
        FormatVersionError, match=r"x\.zarr: format version .*, but this robozarr reads versions 1 and 2; .* \(robozarr 0\)"
    ):
        StoreMetadata.from_attributes(attributes, "x.zarr", allow_incomplete=True)


@pytest.mark.parametrize("complete", [False, None, 1, "true"])
def test_complete_is_true_and_nothing_else(complete: Any) -> None:
    attributes = attributes_of(STORE)
    attributes[ATTRIBUTE]["complete"] = complete
    with pytest.raises(IncompleteStoreError, match="has not finished"):
        StoreMetadata.from_attributes(attributes, "x.zarr")


@pytest.mark.parametrize("attributes", [{}, {"robozarr": None}, {"robozarr": "1"}, {"zarr": {"format_version": 1}}])
def test_another_group_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(
        StoreError, match=r"x\.zarr: this Zarr group is not a robozarr store .* make one with: robozarr convert"
    ):
        StoreMetadata.from_attributes(attributes, "x.zarr")


PLACES: list[tuple[str | int, ...]] = [
    (), ("keys", 0), ("sources", 0), ("not_stored", 0), ("flags",), ("flags", "noop"), ("flags", "still"),
    ("flags", "key_moment"),
]  # fmt: skip


def at(value: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_field_is_refused(place: tuple[str | int, ...]) -> None:
    """But for `ragged` of a key, and the words and bit of a flag, all of which have one possible value."""
    complete = attributes_of(STORE)
    for name in set(at(complete[ATTRIBUTE], place)) - {"ragged", "rule", "bit", "unit" if place[:1] == ("flags",) else ""}:
        attributes = copy.deepcopy(complete)
        del at(attributes[ATTRIBUTE], place)[name]
        message = {"format_version": "format version None", "complete": "has not finished"}.get(
            name, "does not follow FORMAT.md: .*" + name
        )
        with pytest.raises(StoreError, match=rf"^x\.zarr: .*{message}"):
            StoreMetadata.from_attributes(attributes, "x.zarr")


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_field_is_refused(place: tuple[str | int, ...]) -> None:
    attributes = attributes_of(STORE)
    at(attributes[ATTRIBUTE], place)["surprise"] = 1
    with pytest.raises(StoreError, match=r"^x\.zarr: the attribute 'robozarr' does not follow FORMAT.md: .*surprise"):
        StoreMetadata.from_attributes(attributes, "x.zarr")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("profile",), "tiny", "profile must be one of raw, fast, lean, compact, got 'tiny'"),
        (("profile",), ["raw"], "does not follow FORMAT.md"),
        (("n_steps",), -1, "n_steps must be a count, got -1"),
        (("n_episodes",), 2.0, "n_episodes must be a count, got 2.0"),
        (("n_tasks",), None, "n_tasks must be a count, got None"),
        (("keys",), None, "does not follow FORMAT.md"),
        (("keys", 0), "actions", "does not follow FORMAT.md"),
        (("keys", 0, "shape"), 7, "does not follow FORMAT.md"),
        (("splits",), None, "does not follow FORMAT.md"),
        (("sources", 0), [1], "does not follow FORMAT.md"),
        (("flags",), [], "does not follow FORMAT.md"),
        (("flags", "noop", "threshold"), "much", "thresholds of flags must be numbers"),
    ],
)
def test_malformed_attributes_are_refused(place: tuple[str | int, ...], value: Any, message: str) -> None:
    attributes = attributes_of(STORE)
    at(attributes[ATTRIBUTE], place[:-1])[place[-1]] = value
    with pytest.raises(StoreError, match=message):
        StoreMetadata.from_attributes(attributes, "x.zarr")


def test_a_key_that_is_not_there_is_an_error() -> None:
    assert STORE.key("rgb") is FRAME
    with pytest.raises(StoreError, match="no key 'action' in this store; it has actions, dones, states, rgb"):
        STORE.key("action")


@pytest.mark.parametrize(
    ("key", "frame", "channel_shape", "step_dims", "channel_dims"),
    [
        (FRAME, True, (3,), ("rgb_y", "rgb_x", "rgb_c"), ("rgb_c",)),
        (DEPTH, True, (), ("depth_y", "depth_x"), ()),
        (VECTOR, False, (7,), ("actions_i",), ("actions_i",)),
        (SCALAR, False, (), (), ()),
        (MATRIX, False, (4, 4), ("pose_0", "pose_1"), ("pose_0", "pose_1")),
        (RAGGED, False, (), (), ()),
        (replace(FRAME, ragged=True), False, (8, 9, 3), ("rgb_0", "rgb_1", "rgb_2"), ("rgb_0", "rgb_1", "rgb_2")),
    ],
)
def test_axes(
    key: Key, frame: bool, channel_shape: tuple[int, ...], step_dims: tuple[str, ...], channel_dims: tuple[str, ...]
) -> None:
    assert (key.frame, key.channel_shape, key.step_dims, key.channel_dims) == (frame, channel_shape, step_dims, channel_dims)


@given(listed=st.lists(keys, min_size=2, max_size=5, unique_by=lambda key: key.name))
def test_no_two_keys_share_a_dimension(listed: list[Key]) -> None:
    for one, other in combinations(listed, 2):
        assert not set(one.step_dims) & set(other.step_dims)
    assert all(len(key.step_dims) == len(key.shape) == len(set(key.step_dims)) for key in listed)


@given(store=metadata)
def test_every_array_has_one_layout(store: StoreMetadata) -> None:
    offsets = [layout.path.removesuffix("/offsets") for layout in fixed_layouts(store) if layout.path.endswith("/offsets")]
    layouts = array_layouts(store, dict.fromkeys(offsets, 3))
    assert len(layouts) == len(fixed_layouts(store)) + len(offsets)
    assert list(layouts) == sorted(layouts)
    assert all(
        layout.path == path and layout.n_shards * layout.shard_rows >= layout.shape[0] for path, layout in layouts.items()
    )
    for key in store.keys:
        assert (f"steps/{key.name}" in layouts) is not key.ragged
        assert (f"ragged/{key.name}/values" in layouts) is key.ragged
        assert (f"histograms/{key.name}" in layouts) is key.frame


def test_a_size_that_is_not_known_is_an_error() -> None:
    with pytest.raises(StoreError, match=r"sizes of episodes/init_state, episodes/demo, .*ragged/states are not known"):
        array_layouts(STORE, {})


def test_the_layouts_are_those_of_a_real_store(sample_store: Path) -> None:
    group = zarr.open_group(str(sample_store), mode="r", zarr_format=3)
    store = StoreMetadata.from_attributes(dict(group.attrs), "sample")
    arrays = {path: item for path, item in group.members(max_depth=None) if isinstance(item, zarr.Array)}
    values = {path.rpartition("/")[0]: item.shape[0] for path, item in arrays.items() if path.endswith(("/values", "/bytes"))}
    layouts = array_layouts(store, values)
    assert set(layouts) == set(arrays)
    for path, layout in layouts.items():
        assert (arrays[path].shape, str(arrays[path].dtype)) == (layout.shape, layout.dtype)
    assert {path.removesuffix("/bytes") for path in arrays if path.endswith("/bytes")} == set(text_paths(store))
    assert [key.name for key in store.keys if key.ragged] == list(RAGGED_KEYS)

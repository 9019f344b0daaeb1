"""What a window is: what a specification accepts and refuses, the causal rule, and the presets against their sources."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment, FlagRules
from robozarr.schemas.metadata import Key, StoreMetadata
from robozarr.schemas.source import Role
from robozarr.schemas.window import OFFSET_MAX, Padding, WindowSpec

ROLES: dict[str, Role] = {
    "actions": "action",
    "agentview_rgb": "image",
    "eye_in_hand_rgb": "image",
    "gripper_states": "state",
    "joint_states": "state",
    "rewards": "outcome",
    "states": "state",
}
METADATA = StoreMetadata(
    software="test",
    profile="fast",
    complete=True,
    n_steps=5,
    n_episodes=1,
    n_tasks=1,
    control_freq=20.0,
    keys=tuple(
        Key(name=name, source=name, dtype="float64", shape=(), role=role, unit="", ragged=name == "states")
        for name, role in ROLES.items()
    ),
    selected_keys=None,
    sources=(),
    splits=(),
    flag_rules=FlagRules(),
    joint_key=None,
    not_stored=(),
)

offsets = st.lists(st.integers(-OFFSET_MAX, OFFSET_MAX), min_size=1, max_size=6) | st.builds(
    range, st.integers(-50, 0), st.integers(1, 50), st.integers(1, 7)
)
paddings: st.SearchStrategy[Padding] = st.sampled_from(["edge", "zero"])


@st.composite
def specs(draw: st.DrawFn) -> WindowSpec:
    of = draw(st.dictionaries(st.sampled_from(sorted(ROLES)), offsets, min_size=1))
    padding = draw(paddings | st.dictionaries(st.sampled_from(sorted(of)), paddings))
    causal = draw(st.booleans())
    assumed = draw(st.sampled_from([None, Alignment.BEFORE, Alignment.AFTER])) if causal else None
    return WindowSpec(of, padding=padding, causal=causal, assume_alignment=assumed)


# --- what it is ---


@given(specs())
def test_json_pickle_and_repr_give_the_same_specification(spec: WindowSpec) -> None:
    assert WindowSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert eval(repr(spec), {"WindowSpec": WindowSpec, "Alignment": Alignment}) == spec


@given(specs())
def test_equality_ignores_the_order_of_keys_and_nothing_else(spec: WindowSpec) -> None:
    def make(**changes: Any) -> WindowSpec:
        made = {"offsets": dict(reversed(spec.offsets.items())), "padding": spec.padding, "causal": spec.causal}
        return WindowSpec(**{**made, "assume_alignment": spec.assume_alignment, **changes})

    assert make() == spec
    assert hash(make()) == hash(spec)
    assert make(offsets={name: (*of, 7) for name, of in spec.offsets.items()}) != spec
    assert make(causal=not spec.causal, assume_alignment=None) != spec
    flipped: dict[str, Padding] = {name: "edge" if padding == "zero" else "zero" for name, padding in spec.padding.items()}
    assert make(padding=flipped) != spec
    assert spec != spec.to_json()


def test_offsets_of_any_kind_of_integers_keep_their_order_and_their_duplicates() -> None:
    spec = WindowSpec(
        {"a": range(0, 9, 4), "b": np.array([3, -1]), "c": [0, 0], "d": np.array([-2], np.int8), "e": range(2, -1, -1)}
    )
    assert spec.offsets == {"a": (0, 4, 8), "b": (3, -1), "c": (0, 0), "d": (-2,), "e": (2, 1, 0)}
    assert list(spec.offsets) == list("abcde")
    assert all(type(offset) is int for of in spec.offsets.values() for offset in of)


def test_padding_is_edge_unless_said_otherwise() -> None:
    assert WindowSpec({"a": [0], "b": [0]}).padding == {"a": "edge", "b": "edge"}
    assert WindowSpec({"a": [0], "b": [0]}, padding="zero").padding == {"a": "zero", "b": "zero"}
    assert WindowSpec({"a": [0], "b": [0]}, padding={"b": "zero"}).padding == {"a": "edge", "b": "zero"}


def test_it_cannot_be_changed() -> None:
    spec = WindowSpec({"a": [0]})
    with pytest.raises(FrozenInstanceError):
        spec.causal = True  # type: ignore[misc]
    spec.offsets["a"] = (9,)  # a copy
    assert spec.offsets == {"a": (0,)}
    with pytest.raises((AttributeError, TypeError)):
        spec.new = 1  # type: ignore[attr-defined]


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: WindowSpec({}), r"window · offsets: a mapping .* at least one key; got \{\} →"),
    (lambda: WindowSpec([0]), r"window · offsets: a mapping"),  # type: ignore[arg-type]
    (lambda: WindowSpec({3: [0]}), r"window · offsets: a mapping from the name"),  # type: ignore[dict-item]
    (lambda: WindowSpec({"a": []}), r"window · a: offsets are at least one integer, .*; got \[\] → pass \[0\]"),
    (lambda: WindowSpec({"a": 0}), r"window · a: offsets .* got 0"),  # type: ignore[dict-item]
    (lambda: WindowSpec({"a": np.array(0)}), r"window · a: offsets .* got array\(0\)"),
    (lambda: WindowSpec({"a": np.zeros((2, 2), int)}), r"window · a: offsets"),
    (lambda: WindowSpec({"a": [0.0]}), r"window · a: offsets .* got \[0.0\]"),  # type: ignore[list-item]
    (lambda: WindowSpec({"a": [0, True]}), r"window · a: offsets .* got \[0, True\]"),
    (lambda: WindowSpec({"a": "01"}), r"window · a: offsets .* got '01'"),  # type: ignore[dict-item]
    (lambda: WindowSpec({"a": {0, 1}}), r"window · a: offsets .* got \{0, 1\}"),
    (lambda: WindowSpec({"a": [OFFSET_MAX + 1]}), r"window · a: offsets .* within ±2147483648"),
    (lambda: WindowSpec({"a": [0]}, padding="wrap"), r"""window · padding: "edge" or "zero"; got \{'a': 'wrap'\}"""),  # type: ignore[arg-type]
    (lambda: WindowSpec({"a": [0]}, padding={"b": "zero"}), r"window · padding: for keys of the window, which are a; got b"),
    (lambda: WindowSpec({"a": [0]}, causal=1), r"window · causal: True or False; got 1"),  # type: ignore[arg-type]
    (lambda: WindowSpec({"a": [0]}, assume_alignment=Alignment.AFTER), r"assume_alignment: .* together with causal=True"),
    (
        lambda: WindowSpec({"a": [0]}, causal=True, assume_alignment=Alignment.UNKNOWN),
        r"got <Alignment.UNKNOWN: -1> and causal",
    ),
    (lambda: WindowSpec.from_json({}), r"window · JSON: version 1 with assume_alignment, causal, offsets, padding, version"),
    (lambda: WindowSpec.from_json({**WindowSpec({"a": [0]}).to_json(), "version": 2}), r"window · JSON: version 1"),
    (
        lambda: WindowSpec.from_json({**WindowSpec({"a": [0]}).to_json(), "stride": 2}),
        r"JSON: .*'stride': 2.* → use the robozarr",
    ),
    (lambda: WindowSpec.rdt(chunk=0), r"preset: chunk is an integer of at least 1; got 0"),
    (lambda: WindowSpec.rdt(history=True), r"preset: history is an integer of at least 1; got True"),
    (lambda: WindowSpec.diffusion_policy(n_obs_steps=3, horizon=2), r"preset: horizon is an integer of at least 3; got 2"),
    (lambda: WindowSpec.act(images="agentview_rgb"), r"preset: images and states are lists of names, each once"),
    (lambda: WindowSpec.act(states=["actions"]), r"preset: .* each once; got .*states=\['actions'\], actions='actions'"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_is_refused_and_why(make: Callable[[], object], message: str) -> None:
    with pytest.raises(WindowError, match=message):
        make()


def test_a_misspelt_option_of_a_preset_is_refused() -> None:
    with pytest.raises(
        TypeError, match="a preset takes images, states, actions, padding, causal, assume_alignment; got casual"
    ):
        WindowSpec.rdt(casual=True)  # type: ignore[call-arg]


# --- against a store ---


def test_a_store_that_has_every_key_is_fine() -> None:
    WindowSpec({name: [0] for name in ROLES if name != "states"}, causal=True).validate(METADATA)


def test_an_unknown_key_is_named_with_those_there_are() -> None:
    there = "actions, agentview_rgb, eye_in_hand_rgb, gripper_states, joint_states, rewards"
    with pytest.raises(
        WindowError,
        match=rf"^window · agentview_rbg: is not a key of the store, which has {there} → did you mean 'agentview_rgb'\?$",
    ):
        WindowSpec({"agentview_rbg": [0], "actions": [0]}).validate(METADATA)
    with pytest.raises(WindowError, match=r"window · zzz: .* → take one of these, or convert with this key"):
        WindowSpec({"zzz": [0]}).validate(METADATA)


def test_a_ragged_key_is_refused_with_the_reason() -> None:
    message = r"window · states: .* ragged \(its width .*\), .* cannot be stacked .* → read it by store.ragged\('states'\)"
    with pytest.raises(WindowError, match=message):
        WindowSpec({"states": [0]}).validate(METADATA)


def test_one_error_lists_every_problem() -> None:
    with pytest.raises(WindowError) as caught:
        WindowSpec({"a": [0], "states": [0], "b": [0], "actions": [0]}).validate(METADATA)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["window · a", "window · states", "window · b"]


def test_causal_without_a_key_that_it_concerns_is_refused() -> None:
    with pytest.raises(
        WindowError, match="window · causal: the window holds a key of role action or outcome; it has joint_states"
    ):
        WindowSpec({"joint_states": [0]}, causal=True).validate(METADATA)
    WindowSpec({"joint_states": [0]}).validate(METADATA)


# --- causal ---


def test_which_keys_shift_and_which_offsets_decide() -> None:
    of = {"actions": [2, 0, 2], "rewards": [-1], "joint_states": [5]}
    plain, causal = WindowSpec(of), WindowSpec(of, causal=True)
    assert plain.shifted_keys(METADATA) == frozenset()
    assert plain.deciding_offsets(METADATA) == ()
    assert causal.shifted_keys(METADATA) == {"actions", "rewards"}
    assert causal.deciding_offsets(METADATA) == (0, 2)
    assert WindowSpec({"rewards": [-1], "joint_states": [0]}, causal=True).deciding_offsets(METADATA) == (-1,)


def test_shift_by_alignment() -> None:
    codes = np.array([Alignment.AFTER, Alignment.BEFORE, Alignment.UNKNOWN], np.int8)
    spec = WindowSpec({"actions": [0]}, causal=True)
    assert WindowSpec({"actions": [0]}).shifts(codes).tolist() == [0, 0, 0]
    assert spec.shifts(codes[:2]).tolist() == [1, 0]
    assert spec.shifts(codes, np.array([True, True, False])).tolist() == [1, 0, 0]
    for assumed, shift in ((Alignment.AFTER, 1), (Alignment.BEFORE, 0)):
        assuming = WindowSpec({"actions": [0]}, causal=True, assume_alignment=assumed)
        assert assuming.shifts(codes).tolist() == [1, 0, shift]  # what is recorded is never overridden
        assert assuming.shifts(codes).dtype == np.int64


def test_unknown_alignment_is_refused_by_naming_the_episodes() -> None:
    spec = WindowSpec({"actions": [0]}, causal=True)
    message = (
        r"selected episode is known; it is not of 2 of 3: 0, 2 → pass assume_alignment=Alignment.AFTER \(LIBERO's own files\)"
    )
    with pytest.raises(WindowError, match=message):
        spec.shifts(np.array([-1, 1, -1], np.int8))
    with pytest.raises(WindowError, match=r"not of 20 of 20: 0, 1, 2, 3, 4, 5, 6, 7, … →"):
        spec.shifts(np.full(20, -1, np.int8))


# --- presets ---

IMAGES, STATES = ["agentview_rgb", "eye_in_hand_rgb"], ["gripper_states", "joint_states"]
PRESETS: list[tuple[WindowSpec, dict[str, range], str]] = [
    (
        WindowSpec.rdt(),
        {**dict.fromkeys(IMAGES, range(-1, 1)), **dict.fromkeys(STATES, range(1)), "actions": range(64)},
        "edge",
    ),
    (WindowSpec.diffusion_policy(), {**dict.fromkeys(IMAGES + STATES, range(-1, 1)), "actions": range(-1, 15)}, "edge"),
    (WindowSpec.act(), {**dict.fromkeys(IMAGES + STATES, range(1)), "actions": range(100)}, "zero"),
    (WindowSpec.openvla(), {"agentview_rgb": range(1), "actions": range(1)}, "edge"),
    (WindowSpec.robomimic(), dict.fromkeys([*IMAGES, *STATES, "actions"], range(10)), "edge"),
]


@pytest.mark.parametrize(("spec", "expected", "padding"), PRESETS)
def test_presets_on_libero(spec: WindowSpec, expected: dict[str, range], padding: str) -> None:
    spec.validate(METADATA)
    assert spec.offsets == {name: tuple(of) for name, of in expected.items()}
    assert spec.padding == {**dict.fromkeys(expected, "edge"), "actions": padding}
    assert not spec.causal


def test_presets_take_numbers_names_and_options() -> None:
    oft = WindowSpec.openvla(chunk=8, images=IMAGES, states=["ee_states", "gripper_states"], causal=True)
    assert oft.causal
    assert oft.offsets == {**dict.fromkeys([*IMAGES, "ee_states", "gripper_states"], (0,)), "actions": tuple(range(8))}
    assert WindowSpec.robomimic(frame_stack=3, seq_length=2, images=[], states=["s"], actions="a").offsets == {
        "s": (-2, -1, 0, 1),
        "a": (-2, -1, 0, 1),
    }
    assert WindowSpec.act(actions="a", images=[], states=[]).padding == {"a": "zero"}
    assert set(WindowSpec.act(padding="edge").padding.values()) == {"edge"}
    assumed = WindowSpec.rdt(history=3, causal=True, assume_alignment=Alignment.BEFORE)
    assert assumed.assume_alignment is Alignment.BEFORE
    assert assumed.offsets["agentview_rgb"] == (-2, -1, 0)


@pytest.mark.parametrize("length", [1, 5, 16, 30])
def test_diffusion_policy_holds_what_its_sampler_samples(length: int) -> None:
    """Its sampler: sequences of `horizon` rows from -pad_before to T - horizon + pad_after, edges repeated."""
    n_obs_steps, horizon, n_action_steps = 2, 16, 8
    actions = np.array(WindowSpec.diffusion_policy().offsets["actions"])
    for first in range(-(n_obs_steps - 1), length - horizon + n_action_steps):
        sampled = np.clip(np.arange(first, first + horizon), 0, length - 1)
        anchor = first + n_obs_steps - 1
        assert 0 <= anchor < length
        assert np.clip(anchor + actions, 0, length - 1).tolist() == sampled.tolist()


def test_importing_it_brings_no_zarr_along() -> None:
    heavy = ("zarr", "torch", "h5py", "robozarr.loader")
    code = f"import sys, robozarr.schemas.window; sys.exit(any(m in sys.modules for m in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)

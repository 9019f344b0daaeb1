"""Statistics of what is served: numpy's on the windows, openpi's on the same data, through JSON; another key's are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.statistics import Statistics
from robozarr.loader.windows.quantiles import quantiles_of_counted
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

SPEC = rz.WindowSpec({"joint_states": [-1, 0], "actions": range(5), "ee_states": [0]})
QUANTILES = (0.01, 0.02, 0.5, 0.98, 0.99)
RELATIVE = rz.Relative({"actions": "ee_states"}, elements={"actions": [0, 1, 5]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> rz.Store:
    folder = tmp_path_factory.mktemp("statistics")
    for name, lengths in (("open_it", (30, 7, 12)), ("close_it", (21, 9))):
        write_libero(folder / f"s/{name}_demo.hdf5", lengths=lengths, size=8, seed=len(name))
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


@pytest.fixture(scope="module")
def dataset(store: rz.Store) -> rz.WindowDataset:
    return rz.WindowDataset(store, SPEC, episodes=[0, 2, 3], stride=2)


def served(dataset: rz.WindowDataset, name: str, relative: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values of all windows, [n, n_offsets, dim], and which are inside."""
    whole = dataset.read(range(len(dataset)))
    values = whole[name].numpy().astype(np.float64)
    if relative:
        values[:, :, [0, 1, 5]] -= whole["ee_states"].numpy()[:, :, [0, 1, 5]]
    return values, ~whole[f"{name}_is_pad"].numpy()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("per_offset", [False, True])
@pytest.mark.parametrize("name", ["actions", "joint_states"])
def test_as_numpys_on_the_windows(
    dataset: rz.WindowDataset, name: str, per_offset: bool, padding: bool, relative: bool
) -> None:
    options: dict[str, Any] = {"relative": RELATIVE if relative else None, "padding": padding, "quantiles": QUANTILES}
    found = dataset.statistics([name], per_offset=[name] if per_offset else [], **options).keys[name]
    values, inside = served(dataset, name, relative and name == "actions")
    inside |= padding
    groups = [values[:, k][inside[:, k]] for k in range(values.shape[1])] if per_offset else [values[inside]]
    shape = (values.shape[1], values.shape[2]) if per_offset else (values.shape[2],)
    for number, group in enumerate(groups):
        at = number if per_offset else slice(None)
        assert np.allclose(found.mean[at], group.mean(0), rtol=1e-12, atol=1e-14)
        assert np.allclose(found.std[at], group.std(0), rtol=1e-10, atol=1e-13)
        assert np.array_equal(found.min[at], group.min(0))
        assert np.array_equal(found.max[at], group.max(0))
        for q in QUANTILES:
            assert np.allclose(found.quantiles[q][at], np.quantile(group, q, axis=0), rtol=1e-13, atol=1e-15)
        n = found.n[number] if isinstance(found.n, tuple) else found.n
        assert n == len(group)
    assert found.mean.shape == shape


@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 9)), min_size=1, max_size=30), st.lists(st.floats(0, 1), max_size=5)
)
def test_quantiles_of_counted_are_numpys_to_the_last_bit(pairs: list[tuple[float, int]], wanted: list[float]) -> None:
    values, counts = np.array([v for v, _ in pairs]), np.array([n for _, n in pairs])
    expected = np.quantile(np.repeat(values, counts), wanted)
    assert quantiles_of_counted(values, counts, wanted).tolist() == expected.tolist()


class OpenPIStatistics:
    """What openpi's RunningStats does (src/openpi/shared/normalize.py): means of values and squares, quantiles by bins."""

    def __init__(self, values: NDArray[np.float64]) -> None:
        flat = values.reshape(-1, values.shape[-1])
        self.mean = flat.mean(0)
        self.std = np.sqrt(np.maximum(0, (flat**2).mean(0) - self.mean**2))
        self.bin = (flat.max(0) - flat.min(0)) / 5000
        edges = [np.linspace(low - 1e-10, high + 1e-10, 5001) for low, high in zip(flat.min(0), flat.max(0), strict=True)]
        counts = [np.cumsum(np.histogram(column, bins=of)[0]) for column, of in zip(flat.T, edges, strict=True)]

        def quantile(q: float) -> NDArray[np.float64]:
            return np.array([of[np.searchsorted(count, q * len(flat))] for of, count in zip(edges, counts, strict=True)])

        self.q01, self.q99 = quantile(0.01), quantile(0.99)


def test_as_openpis_on_the_same_data(store: rz.Store) -> None:
    dataset = rz.WindowDataset(store, SPEC)
    ours = dataset.statistics(padding=True, relative=RELATIVE).keys["actions"]
    theirs = OpenPIStatistics(served(dataset, "actions", relative=True)[0])  # DeltaActions, then compute_norm_stats.py
    assert np.allclose(ours.mean, theirs.mean, rtol=1e-10, atol=1e-12)
    assert np.allclose(ours.std, theirs.std, rtol=1e-7, atol=1e-9)
    values = served(dataset, "actions", relative=True)[0].reshape(-1, 7)
    for mine, other, q in ((ours.quantiles[0.01], theirs.q01, 0.01), (ours.quantiles[0.99], theirs.q99, 0.99)):
        # a histogram gives the bin that holds the value of that rank, ours lies between its neighbours
        ordered = np.sort(values, axis=0)
        rank = q * (len(values) - 1)
        gap = ordered[int(np.ceil(rank)) + 1] - ordered[max(0, int(np.floor(rank)) - 1)]
        assert (np.abs(mine - other) <= gap + theirs.bin + 1e-9).all()


def test_through_json(dataset: rz.WindowDataset, tmp_path: Path) -> None:
    made = dataset.statistics(quantiles=QUANTILES, per_offset=["actions"], relative=RELATIVE)
    made.save(tmp_path / "statistics.json")
    again = rz.Statistics.load(tmp_path / "statistics.json")
    assert again.to_json() == made.to_json() == json.loads((tmp_path / "statistics.json").read_text())
    for name, key in made.keys.items():
        other = again.keys[name]
        for field in ("mean", "std", "min", "max"):
            assert np.array_equal(getattr(key, field), getattr(other, field))  # to the last bit
        assert (other.n, other.offsets, other.relative_to, other.relative_elements) == (
            key.n, key.offsets, key.relative_to, key.relative_elements,
        )  # fmt: skip
    assert again.stores == (dataset.store.identity,)
    assert again.n_windows == len(dataset)
    for bad, says in (
        ("{", "JSON"),
        ("[]", "what to_json returned"),
        ('{"robozarr_statistics": 2}', "version 2"),
        ("{}", "KeyError"),
    ):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(WindowError, match=says):
            rz.Statistics.load(tmp_path / "bad.json")
    value = made.to_json()
    value["keys"]["actions"]["mean"] = [1.0]
    with pytest.raises(WindowError, match="numbers of shape"):
        Statistics.from_json(value)


@pytest.mark.parametrize("how", ["mean_std", "min_max", "q01_q99", (0.02, 0.98)])
@pytest.mark.parametrize("per_offset", [False, True])
def test_a_loader_normalises_by_them_and_undo_takes_it_back(dataset: rz.WindowDataset, how: Any, per_offset: bool) -> None:
    made = dataset.statistics(quantiles=QUANTILES, per_offset=["actions"] if per_offset else [], relative=RELATIVE)
    other = rz.WindowDataset(dataset.store, SPEC, episodes=[1, 4])  # validation, by the training set's (lerobot#2851)
    normal = rz.Normalise(keys={"actions": how, "joint_states": "mean_std"}, statistics=made)
    loader = rz.WindowLoader(other, len(other), shuffle=False, relative=RELATIVE, normalise=normal)
    batch, plain = next(iter(loader)), other.read(range(len(other)))
    values, _ = served(other, "actions", relative=True)
    shift, scale = made.shift_and_scale("actions", how)
    expected = (values - shift) / scale
    assert np.abs(batch["actions"].numpy() - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    assert np.allclose(made.normalise("actions", values, how), expected)
    back = made.undo("actions", expected, how, state=plain["ee_states"].numpy()[:, 0])
    assert np.abs(back - plain["actions"].numpy()).max() < 1e-9
    clipped = rz.Normalise(keys={"actions": how}, statistics=made, clip=0.5)
    batch = next(iter(rz.WindowLoader(other, len(other), shuffle=False, relative=RELATIVE, normalise=clipped)))
    assert np.abs(batch["actions"].numpy() - np.clip(expected, -0.5, 0.5)).max() < 1e-5
    assert batch["actions"].abs().max() == 0.5


def test_any_quantile_without_an_object(store: rz.Store) -> None:
    dataset = rz.WindowDataset(store, rz.WindowSpec({"actions": [0], "agentview_rgb": [0]}))
    normal = rz.Normalise(keys={"actions": (0.05, 0.9), "agentview_rgb": (0.02, 0.98)})
    batch = next(iter(rz.WindowLoader(dataset, len(dataset), shuffle=False, images=rz.Images(), normalise=normal)))
    whole = dataset.read(range(len(dataset)))
    for name, pair, values in (
        ("actions", (0.05, 0.9), whole["actions"].numpy()[:, 0]),
        ("agentview_rgb", (0.02, 0.98), whole["agentview_rgb"].numpy()[:, 0].reshape(-1, 3)),
    ):
        low, high = np.quantile(values.astype(np.float64), pair, axis=0)
        got = (
            batch[name].numpy()[:, 0]
            if name == "actions"
            else np.moveaxis(batch[name].numpy()[:, 0], 1, -1)[:, ::-1].reshape(-1, 3)
        )
        middle, half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1)
        assert np.abs(got - (values - middle) / half).max() < 1e-4


def test_several_datasets_together(store: rz.Store) -> None:
    parts = [rz.WindowDataset(store, SPEC, tasks=[task]) for task in range(2)]
    together = Statistics.of([part.windows for part in parts], per_offset=["actions"]).keys
    whole = rz.WindowDataset(store, SPEC).statistics(per_offset=["actions"]).keys
    for name in whole:
        assert np.allclose(together[name].mean, whole[name].mean)
        assert np.allclose(together[name].quantiles[0.99], whole[name].quantiles[0.99])


def test_zero_padding_counts_as_zeros_where_padding_counts(store: rz.Store) -> None:
    dataset = rz.WindowDataset(store, rz.WindowSpec({"actions": range(9)}, padding="zero"))
    values = dataset.read(range(len(dataset)))["actions"].numpy().reshape(-1, 7)
    assert np.allclose(dataset.statistics(padding=True).keys["actions"].mean, values.mean(0))


def test_lerobot_4700_relative_actions_by_absolute_statistics(dataset: rz.WindowDataset) -> None:
    def load(statistics: Statistics | None, relative: rz.Relative | None) -> None:
        normal = rz.Normalise(keys={"actions": "mean_std"}, statistics=statistics)
        next(iter(rz.WindowLoader(dataset, 4, relative=relative, normalise=normal)))

    absolute, relative = dataset.statistics(), dataset.statistics(relative=RELATIVE)
    load(absolute, None)
    load(relative, RELATIVE)
    other = rz.Relative({"actions": "ee_states"}, elements={"actions": [0]})
    for statistics, of_loader, says in (
        (absolute, RELATIVE, r"relative to ee_states in elements \[0, 1, 5\]; they are of values as stored"),
        (relative, None, "as stored; they are of values relative to ee_states"),
        (relative, other, r"elements \[0\]; they are of values relative to ee_states in elements \[0, 1, 5\]"),
        (None, RELATIVE, "by statistics of relative values"),
    ):
        with pytest.raises(WindowError, match=says):
            load(statistics, of_loader)


def test_another_stores_keys_are_refused(dataset: rz.WindowDataset, tmp_path: Path) -> None:
    made = dataset.statistics()

    def load(spec: Any, statistics: Statistics, keys: Any, path: Any = dataset.store) -> None:
        loader = rz.WindowLoader(rz.WindowDataset(path, spec), 4, normalise=rz.Normalise(keys=keys, statistics=statistics))
        next(iter(loader))

    load(SPEC, made, {"actions": "min_max"})
    load({"actions": range(3)}, made, {"actions": "min_max"})  # of all offsets together: any window's
    with pytest.raises(WindowError, match="of gripper_states too; they are of joint_states, actions, ee_states"):
        load({"gripper_states": [0]}, made, {"gripper_states": "mean_std"})
    by_offset = dataset.statistics(per_offset=["actions"])
    with pytest.raises(WindowError, match=r"of the window's offsets; they are of \[0, 1, 2, 3, 4\], it has \[0, 1, 2\]"):
        load({"actions": range(3)}, by_offset, {"actions": "mean_std"})
    with pytest.raises(WindowError, match=r"quantiles \[0\.01, 0\.99\]; got \[0\.02, 0\.98\]"):
        load(SPEC, made, {"actions": (0.02, 0.98)})
    for field, value in (("dtype", "float32"), ("shape", (6,)), ("unit", "m")):
        document = made.to_json()
        key = document["keys"]["actions"]
        key[field] = list(value) if isinstance(value, tuple) else value
        if field == "shape":
            key |= {name: key[name][:6] for name in ("mean", "std", "min", "max")}
            key["quantiles"] = {q: values[:6] for q, values in key["quantiles"].items()}
        with pytest.raises(WindowError, match=r"of this store's key, float64 \[7\].*; they are of another"):
            load(SPEC, Statistics.from_json(document), {"actions": "mean_std"})
    write_libero(tmp_path / "s/a_demo.hdf5", lengths=(9,), size=8, seed=77)
    convert(tmp_path / "s", tmp_path / "b.zarr", workers=0)
    load(SPEC, made, {"actions": "mean_std"}, tmp_path / "b.zarr")  # the same keys: to fine-tune a model on


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda ds: ds.statistics("actions"), "keys: a list"),
        (lambda ds: ds.statistics(["action"]), "got action"),
        (lambda ds: ds.statistics(per_offset=["x"]), "got x"),
        (lambda ds: ds.statistics(quantiles=[1.5]), "numbers from 0 to 1"),
        (lambda ds: rz.Normalise(statistics={}), "what dataset.statistics"),  # type: ignore[arg-type]
        (lambda ds: rz.Normalise(clip=0), "clip: a number above 0"),
        (lambda ds: rz.Normalise(keys={"actions": (0.9, 0.1)}), "or two quantiles"),
        (lambda ds: rz.WindowLoader(ds, 2, relative={"actions": "ee_states"}), r"loader · relative: Relative\(…\)"),  # type: ignore[arg-type]
        (lambda ds: rz.Relative({}), "a mapping of a key"),
        (lambda ds: ds.statistics(relative=rz.Relative({"actions": "ee_states"})), "as many elements as ee_states; it has 7"),
        (lambda ds: ds.statistics(relative=rz.Relative({"actions": "dones"})), "both keys are in the window"),
        (lambda ds: ds.statistics(relative=rz.Relative({"actions": "ee_states"}, {"actions": [6]})), r"elements in \[0, 6\)"),
        (lambda ds: rz.Relative({"actions": "ee_states"}, {"action": [6]}), "elements: of actions; got action"),
        (lambda ds: ds.statistics(relative=RELATIVE).undo("actions", np.zeros((1, 5, 7))), "got no state"),
    ],
)
def test_what_is_refused(dataset: rz.WindowDataset, make: Any, says: str) -> None:
    with pytest.raises(WindowError, match=says):
        make(dataset)


def test_an_offset_beyond_every_episode_and_frames(store: rz.Store) -> None:
    dataset = rz.WindowDataset(store, rz.WindowSpec({"actions": [0, 40], "agentview_rgb": [0]}))
    dataset.statistics()
    with pytest.raises(WindowError, match="offset 40 lies outside of every one"):
        dataset.statistics(per_offset=["actions"])
    with pytest.raises(WindowError, match="agentview_rgb are frames"):
        dataset.statistics(["agentview_rgb"])
    state = rz.WindowDataset(store, rz.WindowSpec({"actions": [0], "ee_states": [-1]}))
    with pytest.raises(WindowError, match=r"ee_states at step t, offset 0; the window has it at \[-1\]"):
        state.statistics(relative=RELATIVE)

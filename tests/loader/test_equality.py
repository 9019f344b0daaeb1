"""What batches hold, against a naive loop over h5py written from the design: values, masks, order of offsets, bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from effort import examples, some
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader import stream
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.schemas.layout import Profile
from robozarr.schemas.window import Padding
from robozarr.store.embedding import write_task_embedding
from synthetic import write_libero, write_openvla, write_robomimic

ALL: tuple[Profile, ...] = ("fast", "raw", "compact", "lean")
PROFILES = ALL[:: some(1, 2)]
SHIFTED = ("actions", "rewards", "dones")
"""Keys whose offsets count from the first action after the observation, in a causal window (design.md: `causal`)."""


@dataclass(repr=False)
class Episode:
    file: Path
    demo: str
    data: dict[str, NDArray[Any]]
    after: bool
    """Whether observations were recorded after the action, as LIBERO does and OpenVLA's and robomimic's files do not."""
    instruction: str

    def __len__(self) -> int:
        return len(self.data["actions"])


def read_with_h5py(files: list[Path], after: bool) -> list[Episode]:
    """Every demo, in the order of a store: by file, then by the demo's number. Values whole, in memory."""
    episodes = []
    for path in files:
        with h5py.File(path) as file:
            info = json.loads(file["data"].attrs.get("problem_info", "{}"))
            named = re.sub(r"^[A-Z0-9_]*SCENE\d+_", "", path.stem.removesuffix("_demo")).replace("_", " ")
            named = named if " " in named else ""  # a name that is no words, such as lift, is no instruction
            text = "".join(info["language_instruction"]).strip().strip('"') if "language_instruction" in info else named
            for demo in sorted(file["data"], key=lambda name: int(name.rpartition("_")[2])):
                data: dict[str, NDArray[Any]] = {}
                file["data"][demo].visititems(
                    lambda name, item, data=data: (
                        data.__setitem__(name.removeprefix("obs/"), item[()])
                        if isinstance(item, h5py.Dataset) and not name.startswith("next_obs/") and name != "states"
                        else None
                    )
                )
                episodes.append(Episode(path, demo, data, after, text))
    return episodes


def naive_windows(episodes: list[Episode], spec: rz.WindowSpec) -> list[tuple[int, int]]:
    """Anchors: every step; of a causal window those with at least one action inside the episode."""
    anchors = []
    outcomes = [offset for name in SHIFTED[1:] for offset in spec.offsets.get(name, ())]
    deciding = spec.offsets.get("actions") or outcomes
    for e, episode in enumerate(episodes):
        for t in range(len(episode)):
            if spec.causal:
                at = [t + episode.after + offset for offset in deciding]
                if not any(0 <= row < len(episode) for row in at):
                    continue
            anchors.append((e, t))
    return anchors


def refused_as_beyond(episodes: list[Episode], spec: rz.WindowSpec, store: rz.Store) -> bool:
    """Whether some key would be nothing but padding, in all windows: then it is checked that this is said."""
    for key in spec.keys:
        reached = (
            abs(offset + int(spec.causal and key.name in SHIFTED and episode.after)) < len(episode)
            for episode in episodes
            for offset in key.offsets
        )
        if not any(reached):
            with pytest.raises(WindowError, match=rf"window · {key.name}: .*beyond every episode|no window is left"):
                rz.WindowDataset(store, spec)
            return True
    return False


def naive_sample(episodes: list[Episode], spec: rz.WindowSpec, e: int, t: int) -> dict[str, Any]:
    episode, sample = episodes[e], {}
    for key in spec.keys:
        shift = int(spec.causal and key.name in SHIFTED and episode.after)
        wanted = [t + shift + offset for offset in key.offsets]
        values = episode.data[key.name][[min(max(row, 0), len(episode) - 1) for row in wanted]]
        is_pad = np.array([not 0 <= row < len(episode) for row in wanted])
        if key.padding == "zero":
            values = np.where(is_pad.reshape(-1, *[1] * (values.ndim - 1)), np.zeros((), values.dtype), values)
        sample[key.name], sample[f"{key.name}_is_pad"] = values, is_pad
    return sample | {"episode": e, "step": t, "instruction": episode.instruction}


def assert_equal(sample: dict[str, Any], naive: dict[str, Any]) -> None:
    for name, value in naive.items():
        got = sample[name]
        if isinstance(value, str):
            assert got == value
            continue
        value = np.asarray(value)
        assert got.shape == value.shape, name
        assert value.ndim == 0 or got.numpy().dtype == value.dtype, name
        assert got.numpy().tobytes() == value.astype(got.numpy().dtype).tobytes(), name  # bit for bit: NaN and -0.0 too


@dataclass(repr=False)
class Source:
    files: list[Path]
    folder: Path
    episodes: list[Episode]

    def store(self, profile: Profile) -> rz.Store:
        """Converted when it is first asked for."""
        path = self.folder / f"{profile}.zarr"
        if not path.exists():
            convert(self.files, path, profile=profile, workers=0)
        return rz.open_store(path)


def make_source(files: list[Path], folder: Path, after: bool) -> Source:
    return Source(files, folder, read_with_h5py(files, after))


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return make_source(sorted(real_data.rglob("*.hdf5")), tmp_path_factory.mktemp("real"), after=True)


@pytest.fixture(scope="module")
def siblings(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """LIBERO with depth, OpenVLA's and robomimic's files, all small."""
    folder = tmp_path_factory.mktemp("siblings")
    libero = [
        write_libero(folder / "suite" / f"{name}_demo.hdf5", lengths=(9, 1, 5), seed=seed, depth=True, instruction=name)
        for seed, name in enumerate(("open it", "close it"))
    ]
    openvla = [write_openvla(folder / "openvla" / "push_it_demo.hdf5")]
    robomimic = [write_robomimic(folder / "robomimic" / "lift.hdf5")]
    return [
        make_source(files, folder / f"stores_{number}", after)
        for number, (files, after) in enumerate([(sorted(libero), True), (openvla, False), (robomimic, False)])
    ]


@st.composite
def specs(draw: st.DrawFn, source: Source, store: rz.Store) -> rz.WindowSpec:
    frames = [name for name, key in store.keys.items() if key.frame]
    keys = [name for name, key in store.keys.items() if not key.ragged]
    offset = st.integers(-12, 70)
    low = draw(st.lists(st.sampled_from([key for key in keys if key not in frames]), max_size=3, unique=True))
    high = draw(st.lists(st.sampled_from(frames), max_size=len(frames), unique=True))
    chosen = draw(st.permutations([*low, *high])) or ["actions"]
    steps = st.one_of(
        st.lists(offset, min_size=1, max_size=8),
        st.builds(lambda a, n, s: list(range(a, a + n * s, s)), st.integers(-9, 9), st.integers(1, 40), st.integers(1, 3)),
    )
    few = st.lists(st.integers(-6, 6), min_size=1, max_size=3)
    offsets = {key: draw(few if key in frames else steps) for key in chosen}
    padding: dict[str, Padding] = {key: draw(st.sampled_from(("edge", "zero"))) for key in chosen if draw(st.booleans())}
    causal = draw(st.booleans()) and any(key in SHIFTED for key in chosen)
    # an episode of one or two steps does not show when its observations were recorded
    assumed = (rz.Alignment.AFTER if source.episodes[0].after else rz.Alignment.BEFORE) if causal else None
    return rz.WindowSpec(offsets, padding=padding, causal=causal, assume_alignment=assumed)


@pytest.mark.slow(reason="converts whole files")
@examples(60)
@given(data=st.data())
def test_samples_of_real_files(real: Source, data: st.DataObject) -> None:
    store = real.store(data.draw(st.sampled_from(PROFILES)))
    spec = data.draw(specs(real, store))
    if refused_as_beyond(real.episodes, spec, store):
        return
    dataset = rz.WindowDataset(store, spec)
    anchors = naive_windows(real.episodes, spec)
    assert len(dataset) == len(anchors)
    assert len(dataset) + sum(entry.n_anchors for entry in dataset.left_out) == store.n_steps
    ends = [0, len(anchors) - 1]  # the first and the last anchor, and any others
    windows = data.draw(st.lists(st.one_of(st.sampled_from(ends), st.integers(0, len(anchors) - 1)), min_size=1, max_size=12))
    for window, sample in zip(windows, dataset.__getitems__(windows), strict=True):
        assert_equal(sample, naive_sample(real.episodes, spec, *anchors[window]))
    assert_equal(dataset[windows[0]], naive_sample(real.episodes, spec, *anchors[windows[0]]))


@pytest.mark.slow(reason="converts whole files")
def test_every_window_of_every_real_file(real: Source) -> None:
    spec = rz.WindowSpec.rdt(causal=True)
    anchors = naive_windows(real.episodes, spec)
    loader = rz.WindowLoader(rz.WindowDataset(real.store("fast"), spec), 64, shuffle=False)
    seen = 0
    for batch in loader:
        for i in range(len(batch["step"])):
            sample = {name: value[i] for name, value in batch.items()}
            assert_equal(sample, naive_sample(real.episodes, spec, *anchors[seen + i]))
        seen += len(batch["step"])
    assert seen == len(anchors) == real.store("fast").n_steps - len(real.episodes)


@pytest.mark.parametrize("number", range(3), ids=["libero", "openvla", "robomimic"])
@examples(60, 6)
@given(data=st.data())
def test_samples_of_siblings(number: int, siblings: list[Source], data: st.DataObject) -> None:
    source = siblings[number]
    store = source.store(data.draw(st.sampled_from(PROFILES)))
    spec = data.draw(specs(source, store))
    if refused_as_beyond(source.episodes, spec, store):
        return
    dataset, anchors = rz.WindowDataset(store, spec), naive_windows(source.episodes, spec)
    assert len(dataset) == len(anchors)
    windows = range(len(anchors))
    for window, sample in zip(windows, dataset.__getitems__(windows), strict=True):
        assert_equal(sample, naive_sample(source.episodes, spec, *anchors[window]))


@pytest.mark.parametrize("number", range(3), ids=["libero", "openvla", "robomimic"])
@examples(20, 6)
@given(data=st.data())
def test_the_loader_serves_what_the_dataset_holds(number: int, siblings: list[Source], data: st.DataObject) -> None:
    """Whatever the threads, the parts of a batch, the slots, the cache."""
    store = siblings[number].store(data.draw(st.sampled_from(PROFILES)))
    spec = data.draw(specs(siblings[number], store))
    if refused_as_beyond(siblings[number].episodes, spec, store):
        return
    dataset = rz.WindowDataset(store, spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PART_BYTES", data.draw(st.sampled_from([1, 4096, stream.PART_BYTES])))
        loader = rz.WindowLoader(
            dataset,
            data.draw(st.sampled_from([1, 3, 64, 100])),
            seed=data.draw(st.integers(0, 9)),
            threads=data.draw(st.integers(1, 3)),
            prefetch=data.draw(st.integers(1, 3)),
            cache=data.draw(st.sampled_from([None, "host", "device"])),
        )
    anchors = dataset.table.anchors(np.arange(len(dataset)))
    number_of = {at: window for window, at in enumerate(zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True))}
    n = 0
    for batch in loader:
        at = zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)
        wanted = dataset.read([number_of[place] for place in at])
        assert list(batch) == list(wanted)
        for name, value in wanted.items():
            assert batch[name] == value if name == "instruction" else torch.equal(batch[name], value), name
        n += len(batch["step"])
    assert n == len(dataset)


def test_embeddings_and_instructions(sample_store: Path, tmp_path: Path, sample: Path) -> None:
    convert(sample, tmp_path / "a.zarr", workers=0)
    store = rz.open_store(tmp_path / "a.zarr")
    tokens = np.random.default_rng(0).normal(size=(store.n_tasks, 5, 3)).astype(np.float32)
    write_task_embedding(store, "tokens", tokens)
    with pytest.raises(StoreError, match="tasks/embedding/tokens is there already"):
        write_task_embedding(store, "tokens", tokens)
    tasks = np.arange(store.n_tasks)
    both: list[dict[str, NDArray[Any]] | list[str]] = [{"tokens": tokens, "id": tasks}, ["tokens"]]
    for embeddings in both:
        dataset = rz.WindowDataset(store, rz.WindowSpec({"actions": [0]}), task_embeddings=embeddings)
        for batch in rz.WindowLoader(dataset, 32):
            assert torch.equal(batch["tokens"], torch.from_numpy(tokens)[batch["task"]])
            assert batch["instruction"] == [store.tasks.instruction[task] for task in batch["task"]]
            if isinstance(embeddings, dict):
                assert torch.equal(batch["id"], batch["task"])
    with pytest.raises(WindowError, match="tasks/embedding/nothing: an array of the store; it has tokens"):
        rz.WindowDataset(store, rz.WindowSpec({"actions": [0]}), task_embeddings=["nothing"])
    with pytest.raises(WindowError, match=r"numbers \[2, …\], one row per task; got float32 \[1, 5, 3\]"):
        rz.WindowDataset(store, rz.WindowSpec({"actions": [0]}), task_embeddings={"tokens": tokens[:1]})
    with pytest.raises(WindowError, match=r"one name each in a sample.* got actions again"):
        rz.WindowDataset(store, rz.WindowSpec({"actions": [0]}), task_embeddings={"actions": tokens})


def test_filters_by_name_and_what_is_refused(sample_store: Path) -> None:
    store = rz.open_store(sample_store)
    spec = rz.WindowSpec({"actions": [0]})
    for name in (store.tasks.name[1], store.tasks.instruction[1], store.tasks.instruction_from_name[1], 1):
        dataset = rz.WindowDataset(store, spec, tasks=[name])
        assert {int(sample["task"]) for sample in dataset.__getitems__(range(len(dataset)))} == {1}
        assert [entry.reason for entry in dataset.left_out] == ["tasks"]
    flagged = rz.WindowDataset(store, spec, exclude_flags=rz.StepFlag.NOOP)
    assert len(flagged) == int((store.index.flags & rz.StepFlag.NOOP == 0).sum())
    with pytest.raises(WindowError, match="filter · tasks: a task of the store; got 'fly', it has 'put_the_bowl"):
        rz.WindowDataset(store, spec, tasks=["fly"])
    with pytest.raises(WindowError, match="did you mean 'agentview_rgb'"):
        rz.WindowDataset(store, rz.WindowSpec({"agentview": [0]}))
    with pytest.raises(WindowError, match=r"frames must fit into 0\.00 GB on the host; they take 0\.0"):
        rz.WindowLoader(rz.WindowDataset(store, rz.WindowSpec.act()), 8, cache="host", cache_bytes=1000)
    with pytest.raises(IndexError, match=f"window {len(flagged)} of {len(flagged)}"):
        flagged[len(flagged)]


def iterate(loader: rz.WindowLoader) -> Iterator[dict[str, Any]]:
    """One sample after the other."""
    for batch in loader:
        for i in range(len(batch["step"])):
            yield {name: value[i] for name, value in batch.items()}


def test_pictures_upright_as_floats_and_normalised(siblings: list[Source]) -> None:
    libero, openvla, robomimic = (source.store("fast") for source in siblings)
    for store, upside_down in ((libero, True), (openvla, True), (robomimic, False)):
        name = next(name for name, key in store.keys.items() if key.role == "image")
        dataset = rz.WindowDataset(store, rz.WindowSpec({name: [0], "actions": [0]}))
        plain = list(iterate(rz.WindowLoader(dataset, 4)))
        stats = store.stats(name)
        normal = rz.Normalise(keys={name: "mean_std", "actions": "q01_q99"})
        floats = list(iterate(rz.WindowLoader(dataset, 4, images=rz.Images())))
        normals = list(iterate(rz.WindowLoader(dataset, 4, images=rz.Images(), normalise=normal)))
        for raw, made, normalised in zip(plain, floats, normals, strict=True):
            expected = raw[name].numpy()[:, ::-1] if upside_down else raw[name].numpy()
            expected = np.moveaxis(expected, -1, 1).astype(np.float32) / 255
            np.testing.assert_allclose(made[name].numpy(), expected, rtol=1e-6)
            mean, std = stats["mean"][:, None, None] / 255, stats["std"][:, None, None] / 255
            np.testing.assert_allclose(normalised[name].numpy(), (expected - mean) / std, rtol=1e-3, atol=1e-4)
            low, high = store.stats("actions")["q01"], store.stats("actions")["q99"]
            scale = np.where(high > low, (high - low) / 2, 1)
            wanted = (raw["actions"].numpy() - (high + low) / 2) / scale
            np.testing.assert_allclose(normalised["actions"].numpy(), wanted, rtol=1e-3, atol=1e-5)
            assert normalised["actions"].dtype == made[name].dtype == torch.float32


def test_statistics_of_the_windows_that_are_served(siblings: list[Source]) -> None:
    store, episodes = siblings[0].store("fast"), siblings[0].episodes
    dataset = rz.WindowDataset(store, rz.WindowSpec({"agentview_rgb": [0], "actions": [0]}), tasks=[1])
    normal = rz.Normalise(keys={"actions": "mean_std", "agentview_rgb": "mean_std"}, scope="windows", dtype=torch.float64)
    batches = list(rz.WindowLoader(dataset, 4, normalise=normal))
    own = [episode for e, episode in enumerate(episodes) if store.episodes.task[e] == 1]
    for key, axes in (("actions", (0,)), ("agentview_rgb", (0, 1, 2))):
        values = np.concatenate([episode.data[key] for episode in own]).astype(np.float64)
        got = torch.cat([batch[key] for batch in batches]).numpy()[:, 0]
        np.testing.assert_allclose(got.mean(axes), 0, atol=1e-9)
        spread = values.std(axes)
        np.testing.assert_allclose(got.std(axes)[spread > 0], 1, rtol=1e-9)
    with pytest.raises(
        WindowError, match="normalise · keys: must be keys of the window, which has agentview_rgb, actions; got joints"
    ):
        next(iter(rz.WindowLoader(dataset, 4, normalise=rz.Normalise(keys={"joints": "mean_std"}))))
    quantiles = rz.Normalise(keys={"agentview_rgb": "q01_q99"}, scope="windows")
    with pytest.raises(WindowError, match="normalise · agentview_rgb: quantiles of one whole store"):
        next(iter(rz.WindowLoader(dataset, 4, normalise=quantiles)))


def test_transform_comes_last_and_its_errors_reach_the_consumer(sample_store: Path) -> None:
    dataset = rz.WindowDataset(rz.open_store(sample_store), rz.WindowSpec.act(chunk=4))
    loader = rz.WindowLoader(dataset, 8, images=rz.Images(), transform=lambda batch: {"x": batch["agentview_rgb"].mean()})
    assert all(0 <= float(batch["x"]) <= 1 for batch in loader)

    def fail(batch: dict[str, Any]) -> dict[str, Any]:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        next(iter(rz.WindowLoader(dataset, 8, transform=fail)))

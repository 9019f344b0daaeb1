"""Batches on a GPU equal those on the CPU, tensor by tensor; every test skips itself where there is no CUDA device."""

from __future__ import annotations

import gc
import itertools
import json
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import format_writer
import pytest
import torch

import robozarr as rz
from robozarr.convert import convert
from robozarr.schemas.layout import PROFILES, Profile
from synthetic import write_libero, write_openvla

pytestmark = pytest.mark.gpu

Cache = Literal["device", "host"]
CACHES: tuple[Cache | None, ...] = (None, "host", "device")
SPEC = rz.WindowSpec({"agentview_rgb": [-1, 0], "eye_in_hand_rgb": [-2, 0], "joint_states": [0], "actions": range(6)})


@pytest.fixture(scope="module")
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip(f"no CUDA device for torch {torch.__version__}")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="module")
def stores(cuda: torch.device, tmp_path_factory: pytest.TempPathFactory) -> dict[str, rz.Store]:
    """LIBERO's tree by profile, and OpenVLA's, whose pictures have the same convention and another alignment."""
    folder = tmp_path_factory.mktemp("gpu")
    libero = [write_libero(folder / f"suite/task_{n}_demo.hdf5", lengths=(23, 9, 31), seed=n) for n in range(2)]
    made = {}
    for profile in PROFILES:
        convert(libero, folder / f"{profile}.zarr", profile=profile, workers=0)
        made[str(profile)] = rz.open_store(folder / f"{profile}.zarr")
    openvla = write_openvla(folder / "suite/other_demo.hdf5", lengths=(17, 20), numbers=(0, 1), size=16, seed=7)
    convert([openvla], folder / "openvla.zarr", workers=0)
    return made | {"openvla": rz.open_store(folder / "openvla.zarr")}


def on_host(batches: Iterator[dict[str, Any]] | rz.WindowLoader) -> list[dict[str, Any]]:
    """Batches of an epoch, copied from wherever they are as they come."""
    return [
        {name: value.to("cpu", copy=True) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        for batch in batches
    ]


def assert_same(got: list[dict[str, Any]], expected: list[dict[str, Any]], *, exact: bool = True) -> None:
    """Bit for bit; not `exact`: floats that were computed on either side may be rounded otherwise."""
    assert len(got) == len(expected) > 1
    for one, other in zip(got, expected, strict=True):
        assert list(one) == list(other)
        for name, value in other.items():
            if isinstance(value, torch.Tensor):
                assert one[name].dtype == value.dtype, name
                if exact or not value.is_floating_point():
                    assert torch.equal(one[name], value), name
                else:
                    torch.testing.assert_close(one[name], value)
            else:
                assert one[name] == value


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("batch_size", [16, 80])
def test_every_profile_and_cache(
    stores: dict[str, rz.Store], cuda: torch.device, profile: Profile, cache: Cache | None, batch_size: int
) -> None:
    dataset = rz.WindowDataset(stores[profile], SPEC)
    assert len(dataset) % batch_size  # the last batch is a partial one
    expected = on_host(rz.WindowLoader(dataset, batch_size, seed=3))
    loader = rz.WindowLoader(dataset, batch_size, seed=3, device=cuda, cache=cache)
    for batch in loader:
        assert {value.device for value in batch.values() if isinstance(value, torch.Tensor)} == {cuda}
    loader.set_epoch(0)
    assert_same(on_host(loader), expected)


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(
    "images",
    [
        rz.Images(),
        rz.Images(upright=False, dtype=None, scale=False),
        rz.Images(channels_first=False, dtype=torch.float16),
        rz.Images(scale=False),
    ],
)
def test_images(stores: dict[str, rz.Store], cuda: torch.device, images: rz.Images, cache: Cache | None) -> None:
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 32, images=images))
    assert_same(on_host(rz.WindowLoader(dataset, 32, images=images, device=cuda, cache=cache)), expected, exact=False)


@pytest.mark.parametrize("scope", ["store", "windows"])
def test_normalise(stores: dict[str, rz.Store], cuda: torch.device, scope: Literal["store", "windows"]) -> None:
    normalise = rz.Normalise(keys={"joint_states": "mean_std", "agentview_rgb": "mean_std"}, scope=scope)
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 32, images=rz.Images(), normalise=normalise))
    got = rz.WindowLoader(dataset, 32, images=rz.Images(), normalise=normalise, device=cuda)
    assert_same(on_host(got), expected, exact=False)


@pytest.mark.parametrize("cache", CACHES)
def test_zero_padding(stores: dict[str, rz.Store], cuda: torch.device, cache: Cache | None) -> None:
    spec = rz.WindowSpec({"agentview_rgb": [-3, 0, 2], "actions": range(-2, 5)}, padding="zero")
    dataset = rz.WindowDataset(stores["fast"], spec)
    expected = on_host(rz.WindowLoader(dataset, 32))
    assert_same(on_host(rz.WindowLoader(dataset, 32, device=cuda, cache=cache)), expected)


@pytest.mark.parametrize("cache", CACHES)
def test_mixtures(stores: dict[str, rz.Store], cuda: torch.device, cache: Cache | None) -> None:
    datasets = [rz.WindowDataset(stores[name], SPEC) for name in ("fast", "openvla")]
    options: dict[str, Any] = {"mixture": [2, 1], "images": rz.Images(upright=False)}
    expected = on_host(rz.WindowLoader(datasets, 16, **options))
    assert_same(on_host(rz.WindowLoader(datasets, 16, device=cuda, cache=cache, **options)), expected)


def test_copies_stay_and_transform_runs_on_the_device(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 16, transform=lambda batch: batch | {"sum": batch["actions"].sum((1, 2))}))
    loader = rz.WindowLoader(dataset, 16, device=cuda, transform=lambda batch: batch | {"sum": batch["actions"].sum((1, 2))})
    kept = list(loader)
    assert all(batch["sum"].device == cuda for batch in kept)
    assert_same(on_host(iter(kept)), expected, exact=False)


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_slow_consumers_in_a_stream_of_their_own(stores: dict[str, rz.Store], cuda: torch.device, prefetch: int) -> None:
    """A batch is not overwritten while work on it is queued: the copy into its slot waits for that work."""
    dataset = rz.WindowDataset(stores["raw"], SPEC)
    expected = [batch["agentview_rgb"].clone() for batch in rz.WindowLoader(dataset, 8)]
    stream = torch.cuda.Stream(cuda)  # type: ignore[no-untyped-call]
    seen = []
    with torch.cuda.stream(stream):
        for batch in rz.WindowLoader(dataset, 8, device=cuda, prefetch=prefetch):
            torch.cuda._sleep(20_000_000)  # type: ignore[no-untyped-call]
            seen.append(batch["agentview_rgb"].clone())  # queued behind the sleep
    stream.synchronize()
    assert all(torch.equal(one.cpu(), other) for one, other in zip(seen, expected, strict=True))


def test_memory_that_a_loader_gave_back_is_not_written_to(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    """After a break the copies of batches that nobody got may still be under way, into memory that is used anew."""
    dataset = rz.WindowDataset(stores["raw"], SPEC)
    for _ in range(20):
        loader = rz.WindowLoader(dataset, 64, device=cuda, prefetch=3)
        for _batch in loader:
            torch.cuda._sleep(5_000_000)  # type: ignore[no-untyped-call]
            break
        n_bytes = 64 * 4 * 16 * 16 * 3
        del loader, _batch
        gc.collect()
        zeros = [torch.zeros(n_bytes, dtype=torch.uint8, device=cuda) for _ in range(8)]
        torch.cuda.synchronize()
        assert not any(block.any().item() for block in zeros)


def test_pinned_memory_is_used_again_and_the_devices_is_new(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    loader = rz.WindowLoader(rz.WindowDataset(stores["raw"], SPEC), 16, device=cuda, prefetch=2)
    kept = list(loader)
    assert len({batch["agentview_rgb"].data_ptr() for batch in kept}) == len(kept) > 4
    assert loader._slots is not None
    assert 0 < len(loader._slots.pinned) <= 4
    assert all(part.is_pinned() for slot in loader._slots.pinned for part in slot._host)


@pytest.mark.parametrize("cache", CACHES)
def test_kept_batches_never_change(stores: dict[str, rz.Store], cuda: torch.device, cache: Cache | None) -> None:
    """Gradient accumulation, list(loader), a queue: on the device too, and in whatever stream they are used."""
    dataset = rz.WindowDataset(stores["raw"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 8))
    loader = rz.WindowLoader(dataset, 8, device=cuda, cache=cache)
    kept = []
    for number, batch in enumerate(loader):
        kept.append(batch)
        if number % 3 == 2:
            with torch.cuda.stream(torch.cuda.Stream(cuda)):  # type: ignore[no-untyped-call]
                torch.cuda._sleep(5_000_000)  # type: ignore[no-untyped-call]
    loader.set_epoch(0)
    for batch in loader:  # in-place changes of batches that go are seen by nobody else
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.zero_()
    assert_same(on_host(iter(kept)), expected)


def test_memory_on_the_device_is_given_back(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    """Batches that nobody keeps take no more memory, however many there were."""
    loader = rz.WindowLoader(rz.WindowDataset(stores["raw"], SPEC), 8, device=cuda)
    peaks = []
    for _ in range(6):
        torch.cuda.reset_peak_memory_stats(cuda)
        for batch in loader:
            batch["agentview_rgb"].float().sum()
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated(cuda))
    assert max(peaks[2:]) <= 2 * peaks[0]


@pytest.mark.parametrize("preset", ["robomimic", "openvla", "rdt", "openpi"])
def test_augmented_pictures_and_relative_actions_are_the_same(
    stores: dict[str, rz.Store], cuda: torch.device, preset: str
) -> None:
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    size = stores["fast"].keys["agentview_rgb"].shape[0]
    options = {"robomimic": {"crop": (size - 4, size - 4)}, "openpi": {"size": (size, size)}}.get(preset, {})
    relative = rz.Relative({"actions": "joint_states"}, elements={"actions": range(7)})
    loaders = [
        rz.WindowLoader(
            dataset, 16, seed=3, device=device, images=rz.Images(), augment=getattr(rz.Augment, preset)(**options),
            relative=relative,
            normalise=rz.Normalise(keys={"actions": "mean_std"}, statistics=dataset.statistics(relative=relative)),
        )
        for device in (cuda, "cpu")
    ]  # fmt: skip
    on_gpu, on_cpu = (on_host(loader) for loader in loaders)
    for one, other in zip(on_gpu, on_cpu, strict=True):
        for name in ("agentview_rgb", "eye_in_hand_rgb"):
            # convolutions on a GPU round to ten bits
            assert (one[name] - other[name]).abs().max() < (5e-3 if preset == "rdt" else 1e-4), name
        assert (one["actions"] - other["actions"]).abs().max() < 1e-4


def test_a_full_device_is_torchs_own_error_and_no_batch_is_lost(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    dataset = rz.WindowDataset(stores["raw"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 16))
    loader = rz.WindowLoader(dataset, 16, device=cuda)
    torch.cuda.empty_cache()
    limit = (torch.cuda.memory_reserved(cuda) + 64 * 2**20) / torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction(limit, cuda)
    kept: list[Any] = []
    try:
        with pytest.raises(torch.OutOfMemoryError):
            kept.extend(itertools.chain.from_iterable(itertools.repeat(loader)))
        assert len(kept) > len(expected)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    assert_same(on_host(iter(kept[: len(expected)])), expected)
    kept.clear()
    loader = rz.WindowLoader(dataset, 16, device=cuda)
    assert_same(on_host(loader), expected)


def test_in_a_thread_beside_another_loader(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    """An evaluation in another thread; a thread's current stream is its own."""
    datasets = [rz.WindowDataset(stores[name], SPEC) for name in ("raw", "compact")]
    expected = [on_host(rz.WindowLoader(dataset, 16, seed=n)) for n, dataset in enumerate(datasets)]

    def read(n: int) -> list[dict[str, Any]]:
        with torch.cuda.stream(torch.cuda.Stream(cuda)):  # type: ignore[no-untyped-call]
            kept = list(rz.WindowLoader(datasets[n], 16, seed=n, device=cuda))
            torch.cuda._sleep(5_000_000)  # type: ignore[no-untyped-call]
            return on_host(iter(kept))

    with ThreadPoolExecutor(2) as pool:
        for got, wanted in zip(pool.map(read, range(2)), expected, strict=True):
            assert_same(got, wanted)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_torchs_loader_pinned(stores: dict[str, rz.Store], cuda: torch.device, method: str) -> None:
    """WindowDataLoader's own pinning thread; its workers begin after CUDA did."""
    torch.zeros(1, device=cuda)
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 16, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of forks beside threads
        loader = rz.WindowDataLoader(dataset, 16, seed=1, num_workers=2, pin_memory=True, multiprocessing_context=method)
        got = []
        for batch in loader:
            assert batch["agentview_rgb"].is_pinned()
            got.append({
                name: value.to(cuda, non_blocking=True) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
            })  # fmt: skip
    assert_same(on_host(iter(got)), expected)


@pytest.mark.parametrize("loaded", ["WindowLoader", "WindowDataLoader"])
def test_lightning_trains_on_every_window_once_an_epoch(
    stores: dict[str, rz.Store], cuda: torch.device, tmp_path: Path, loaded: str
) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    seen: list[tuple[int, int]] = []

    class Policy(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(7, 7)

        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            assert batch["agentview_rgb"].device == batch["actions"].device == cuda
            seen.extend(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True))
            error = self.linear(batch["joint_states"][:, 0].float()) - batch["actions"][:, 0].float()
            return torch.mean(error.square())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 1e-3)

    loader = (
        rz.WindowLoader(dataset, 16, device=cuda)
        if loaded == "WindowLoader"
        else rz.WindowDataLoader(dataset, 16, num_workers=0)
    )
    trainer = lightning.Trainer(
        accelerator="gpu", devices=1, max_epochs=2, precision="bf16-mixed", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Policy(), loader)
    n = len(dataset)
    assert len(seen) == 2 * n
    assert sorted(seen[:n]) == sorted(seen[n:]) == sorted(set(seen))
    assert seen[:n] != seen[n:]


def test_accelerate_leaves_batches_where_they_are(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    accelerate = pytest.importorskip("accelerate")
    dataset = rz.WindowDataset(stores["fast"], SPEC)
    expected = on_host(rz.WindowLoader(dataset, 16, seed=2))
    accelerator = accelerate.Accelerator(mixed_precision="bf16")
    model = torch.nn.Linear(7, 7)
    loader = rz.WindowLoader(dataset, 16, seed=2, device=accelerator.device)
    model, optimiser = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1e-3))
    got = []
    for batch in loader:
        loss = (model(batch["joint_states"][:, 0].float()) - batch["actions"][:, 0].float()).square().mean()
        accelerator.backward(loss)
        optimiser.step()
        optimiser.zero_grad()
        got.append(batch)
    assert_same(on_host(iter(got)), expected)


def test_a_compiled_step_over_batches_of_a_cuda_graph(stores: dict[str, rz.Store], cuda: torch.device) -> None:
    """Captured once, replayed on each whole batch that is copied into its input."""
    dataset = rz.WindowDataset(stores["raw"], SPEC)
    loader = rz.WindowLoader(dataset, 16, device=cuda, drop_last=True)
    expected = [batch["agentview_rgb"].sum(dtype=torch.int64) for batch in rz.WindowLoader(dataset, 16, drop_last=True)]
    given = torch.zeros((16, 2, *stores["raw"].keys["agentview_rgb"].shape), dtype=torch.uint8, device=cuda)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(cuda)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        given.sum(dtype=torch.int64)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        total = given.sum(dtype=torch.int64)
    sums = []
    for batch in loader:
        given.copy_(batch["agentview_rgb"])
        graph.replay()
        sums.append(total.clone())
    assert [one.item() for one in sums] == [one.item() for one in expected]


def test_programs_end(cuda: torch.device, tmp_path: Path) -> None:
    """With batches on their way to the device: none aborts, hangs, or says anything but its own error.

    The last scenario, a daemon thread that takes batches, aborted in every second run once. Forks are left out: in plain torch
    too a child aborts that frees pinned memory that was sent, or an event.
    """
    format_writer.write_by_hand(tmp_path / "a.zarr", "fast")
    script = Path(format_writer.__file__).with_name("loader_exits.py")
    names = [
        "break_and_exit", "exit_within_loop", "iterator_kept_until_exit", "transform_raises", "two_loaders_at_exit",
        "workers_and_exit", "interrupted", "interrupt_is_caught", *["thread_iterates_at_exit"] * 8,
    ]  # fmt: skip
    arguments = [sys.executable, str(script), str(tmp_path / "a.zarr"), str(cuda), *names]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=240, check=True)
    ends = json.loads(ran.stdout)
    assert len(ends) == len(names)
    failing = {"exit_within_loop": 3, "transform_raises": 1, "interrupted": -signal.SIGINT}
    assert {name: end["code"] for name, end in ends.items()} == {name: failing.get(name, 0) for name in ends}, ends
    assert {name for name, end in ends.items() if end["stderr"]} == {"transform_raises", "interrupted"}, ends

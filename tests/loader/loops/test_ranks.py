"""Two real ranks, started by torchrun: each window once over both, whoever shards, and no rank waits for another at the end.

The loops are in tests/support/rank_loops.py; here is what they must have served.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import rank_loops
from forks import said_in_fork
from served import SIZE
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.ranks import Ranks
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

Loops = dict[str, list[Any]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """38 steps in 5 episodes of 2 tasks."""
    folder = tmp_path_factory.mktemp("ranks")
    for name, lengths in (("a/open", (11, 3, 7)), ("a/close", (9, 8))):
        write_libero(folder / f"{name}_demo.hdf5", lengths=lengths, size=8, instruction=name)
    convert(folder / "a", folder / "a.zarr", workers=0)
    return folder / "a.zarr"


def torchrun(group: str, store: Path) -> Loops:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*command, rank_loops.__file__, group, str(store)], capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: Loops = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def loops(store: Path) -> Loops:
    """By torchrun's own launcher, in forks: torchrun imports torch three times. ``in_frameworks`` is by torchrun itself."""

    def launch() -> None:
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
        elastic_launch(config, rank_loops.main)("torch", str(store))

    ran = said_in_fork(launch, limit_s=280)
    assert ran.returncode == 0, ran.stderr[-4000:]
    found: Loops = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def in_frameworks(store: Path) -> Loops:
    return torchrun("frameworks", store)


def every(store: Path) -> list[int]:
    lengths = rz.open_store(store).episodes.length.tolist()
    return [100 * episode + step for episode, length in enumerate(lengths) for step in range(length)]


def assert_each_once(ranks: list[list[list[list[int]]]], expected: list[int]) -> None:
    """Of the epochs of each rank: together every window once, equally many batches, none empty, another order each time."""
    for epochs in zip(*ranks, strict=True):
        assert sorted(chain.from_iterable(chain.from_iterable(epochs))) == expected
        assert len({len(batches) for batches in epochs}) == 1
        assert all(batch for batches in epochs for batch in batches)
    for epochs_of_rank in ranks:
        assert len({str(epoch) for epoch in epochs_of_rank}) == len(epochs_of_rank)


def test_rbyte_106_litdata_250_a_loader_made_before_the_process_group(loops: Loops, store: Path) -> None:
    ranks = loops["made_before_the_process_group"]
    for number in range(2):  # WindowLoader, WindowDataLoader
        assert_each_once([rank[number] for rank in ranks], every(store))


def test_before_the_process_group_a_length_would_be_another(loops: Loops) -> None:
    for said in loops["before_the_group_len_is_refused"]:
        assert "torchrun started 2 processes" in said
        assert "init_process_group" in said


def test_lightning_20404_uneven_ends_do_not_hang(loops: Loops, store: Path) -> None:
    lengths = dict(enumerate(rz.open_store(store).episodes.length.tolist()))
    expected = [100 * episode + step for episode, n in lengths.items() if n in (3, 7, 11) for step in range(n)]
    ranks = loops["uneven_ends"]
    for number in range(len(ranks[0])):
        assert_each_once([rank[number] for rank in ranks], expected)


def test_rank_and_world_size_that_torch_says_otherwise_are_refused(loops: Loops) -> None:
    for rank, said in enumerate(loops["given_and_other_than_torch_says"]):
        assert f"given rank={1 - rank} and world_size=2, torch.distributed says rank {rank} of 2" in said


def test_rank_and_world_size_that_torch_says_too(loops: Loops, store: Path) -> None:
    assert_each_once(loops["given_and_the_same"], every(store))


def test_a_smaller_group_shares_windows_among_itself(loops: Loops, store: Path) -> None:
    for batches in loops["smaller_groups_of_ranks"]:
        assert sorted(chain.from_iterable(batches)) == every(store)


def test_a_sampler_cannot_cut_a_tail_evenly_and_says_so(loops: Loops) -> None:
    for said in loops["sampler_with_a_tail"]:
        assert "equally many batches for each of 2 ranks" in said
        assert "WindowDataLoader" in said


def test_openvla_211_until_max_steps_on_two_ranks(loops: Loops) -> None:
    ranks = loops["openvla_until_max_steps"]
    n = ranks[0][0]
    assert [len(batches) for _, batches in ranks] == [30, 30]  # more steps than an epoch has
    n_epochs = 30 // -(-n // (2 * SIZE))
    per_epoch = -(-n // (2 * SIZE))
    orders = []
    for epoch in range(n_epochs):
        part = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        served = Counter(window for _, batches in ranks for batch in batches[part] for window in batch)
        assert set(served.values()) == {1}
        assert served.total() == n
        orders.append(str([batches[part] for _, batches in ranks]))
    assert len(set(orders)) == n_epochs > 1


@pytest.mark.slow(reason="imports accelerate and Lightning in two processes")
def test_accelerate_4199_3520_prepare_is_served_once_or_refused(in_frameworks: Loops, store: Path) -> None:
    served = [rank[0] for rank in in_frameworks["accelerate_prepares"]]  # WindowLoader: prepare leaves it alone
    assert_each_once([[batches] for batches in served], every(store))
    for _, *refused in in_frameworks["accelerate_prepares"]:  # WindowDataLoader, DataLoader with WindowSampler
        assert len(refused) == 2
        for said in refused:
            assert "sharded a second time by Accelerate's prepare()" in said
            assert "accelerator.register_for_checkpointing(loader)" in said


@pytest.mark.slow(reason="the same processes")
def test_accelerate_dispatching_batches_is_refused(in_frameworks: Loops) -> None:
    assert "dispatch_batches" in in_frameworks["accelerate_dispatches"][0]


@pytest.mark.slow(reason="the same processes")
def test_lightning_12689_its_distributed_sampler_leaves_the_loader_alone(in_frameworks: Loops, store: Path) -> None:
    ranks = in_frameworks["lightning_with_its_own_sampler"]
    for number in range(3):  # WindowLoader, WindowDataLoader, DataLoader with WindowSampler
        assert_each_once([rank[number] for rank in ranks], every(store))


def test_torchrun_without_a_process_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(WindowError, match="torchrun started 4 processes"):
        Ranks().here()
    assert Ranks(0, 1).here() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Ranks().here() == (0, 1)


class OfLoader(IterableDataset[Any]):
    """A loader in torch's clothes, as people wrap what is iterable; each worker has a copy."""

    def __init__(self, dataset: rz.WindowDataset, *, divided: bool = False, epoch: int | None = None) -> None:
        self.loader, self.dataset, self.divided, self.epoch = rz.WindowLoader(dataset, 4), dataset, divided, epoch

    def __iter__(self) -> Iterator[list[int]]:
        loader, worker = self.loader, get_worker_info()
        if self.divided and worker is not None:
            loader = rz.WindowLoader(self.dataset, 4, rank=worker.id, world_size=worker.num_workers)
        if self.epoch is not None:
            loader.set_epoch(self.epoch)
        for batch in loader:
            yield (100 * batch["episode"] + batch["step"]).tolist()


@pytest.fixture
def workers_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker whose dataset raised ends by torch's signal, 5 s after its iterator was left: with any dataset."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    yield
    gc.collect()


@pytest.mark.usefixtures("workers_are_not_waited_for")
@pytest.mark.parametrize(
    ("n_workers", "says"), [(2, "each would serve every window"), (1, "each epoch would be epoch 0 again")]
)
def test_a_loader_in_workers_is_refused(store: Path, n_workers: int, says: str) -> None:
    dataset = rz.WindowDataset(rz.open_store(store), rz.WindowSpec({"actions": [0]}))
    workers = DataLoader(OfLoader(dataset), batch_size=None, num_workers=n_workers)
    with pytest.raises(WindowError, match=f"worker . of {n_workers} of a DataLoader, and {says} → num_workers=0"):
        list(workers)
    here = DataLoader(OfLoader(dataset), batch_size=None)
    assert sorted(chain.from_iterable(here)) == every(store)


@pytest.mark.usefixtures("workers_are_not_waited_for")
def test_who_divides_windows_among_workers_and_says_the_epoch_may(store: Path) -> None:
    dataset = rz.WindowDataset(rz.open_store(store), rz.WindowSpec({"actions": [0]}))
    of_epochs = []
    for epoch in range(2):
        wrapped = OfLoader(dataset, divided=True, epoch=epoch)
        of_epochs.append(list(DataLoader(wrapped, batch_size=None, num_workers=2)))
        assert sorted(chain.from_iterable(of_epochs[-1])) == every(store)
    assert of_epochs[0] != of_epochs[1]
    undivided = DataLoader(OfLoader(dataset, epoch=1), batch_size=None, num_workers=2)
    with pytest.raises(WindowError, match="each would serve every window"):
        list(undivided)

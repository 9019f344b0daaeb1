"""A batch never changes while anybody holds any part of it: holders of many kinds, loops as people write them, memory."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import pickle
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

import robozarr as rz
from robozarr.loader.device.leases import Leases
from robozarr.schemas.errors import WindowError

KEYS = {"agentview_rgb": [-1, 0], "joint_states": [0], "actions": range(200)}


@pytest.fixture(scope="module")
def dataset(sample_store: Path) -> rz.WindowDataset:
    return rz.WindowDataset(rz.open_store(sample_store), rz.WindowSpec(KEYS))


def check(dataset: rz.WindowDataset, batches: list[dict[str, Any]]) -> None:
    """Every batch holds what its windows hold, and together they are every window."""
    anchors = dataset.table.anchors(np.arange(len(dataset)))
    number = {at: window for window, at in enumerate(zip(anchors.episode.tolist(), anchors.step.tolist(), strict=True))}
    seen = []
    for batch in batches:
        windows = [number[at] for at in zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)]
        for name, value in dataset.read(windows).items():
            assert batch[name] == value if isinstance(value, list) else torch.equal(batch[name], value), name
        seen += windows
    assert sorted(seen) == list(range(len(dataset)))


class Saved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return (x.double() * weight).sum()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return None, gradient * ctx.saved_tensors[0].double().sum()


def _closure(x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: x


class Owner:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


HOLDERS: dict[str, tuple[Callable[[torch.Tensor], Any], Callable[[Any], Any]]] = {
    "tensor": (lambda x: x, lambda held: held),
    "slice": (lambda x: x[2:5], lambda held: held),
    "slice of a slice": (lambda x: x[1:][1:][:, :1], lambda held: held),
    "strided": (lambda x: x[::2], lambda held: held),
    "one element": (lambda x: x[3, 0, 0], lambda held: held),
    "view": (lambda x: x.view(-1), lambda held: held),
    "permuted": (lambda x: x.movedim(0, -1), lambda held: held),
    "flattened": (lambda x: x.flatten(1), lambda held: held),
    "unbound": (lambda x: x.unbind(0)[-1], lambda held: held),
    "split": (lambda x: torch.split(x, 2)[1], lambda held: held),
    "detached": (lambda x: x.detach(), lambda held: held),
    "expanded": (lambda x: x[:1].expand(3, *x.shape[1:]), lambda held: held),
    "other dtype's view": (lambda x: x.view(torch.uint8), lambda held: held),
    "as_strided": (lambda x: x.as_strided((4,), (1,), 3), lambda held: held),
    "parameter": (lambda x: torch.nn.Parameter(x, requires_grad=False), lambda held: held.data),
    "storage": (lambda x: x.untyped_storage(), lambda held: torch.empty(0, dtype=torch.uint8).set_(held)),
    "numpy": (lambda x: x.numpy(), lambda held: torch.from_numpy(held.copy())),
    "numpy slice": (lambda x: x.numpy()[1:3], lambda held: torch.from_numpy(held.copy())),
    "numpy view of a view": (lambda x: x.numpy().reshape(-1)[5:][::2], lambda held: torch.from_numpy(held.copy())),
    "numpy bytes": (lambda x: x.numpy().reshape(-1).view(np.uint8), lambda held: torch.from_numpy(held.copy())),
    "asarray": (lambda x: np.asarray(x)[0], lambda held: torch.from_numpy(held.copy())),
    "from_dlpack to numpy": (lambda x: np.from_dlpack(x), lambda held: torch.from_numpy(held.copy())),
    "dlpack capsule": (lambda x: [to_dlpack(x)], lambda held: from_dlpack(held.pop())),
    "from_dlpack to torch": (lambda x: from_dlpack(x), lambda held: held),
    "from_numpy again": (lambda x: torch.from_numpy(x.numpy()), lambda held: held),
    "memoryview": (lambda x: memoryview(x.numpy()), lambda held: torch.from_numpy(np.array(held))),  # type: ignore[arg-type]
    "frombuffer": (lambda x: torch.frombuffer(x.numpy(), dtype=torch.uint8), lambda held: held),
    "numpy frombuffer": (lambda x: np.frombuffer(x.numpy(), np.uint8), lambda held: torch.from_numpy(held.copy())),
    "list of rows": (lambda x: list(x), lambda held: torch.stack(held)),
    "closure": (_closure, lambda held: held()),
    "attribute": (Owner, lambda held: held.x),
    "iterator": (lambda x: iter([x]), lambda held: next(held)),
    "shallow copy": (lambda x: copy.copy(x), lambda held: held),
    "deep copy": (lambda x: copy.deepcopy(x), lambda held: held),
    "pickled": (lambda x: pickle.dumps(x), lambda held: pickle.loads(held)),
    "shared": (lambda x: x.share_memory_(), lambda held: held),  # type: ignore[no-untyped-call]
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_holders(dataset: rz.WindowDataset, holder: str) -> None:
    """Of every batch one thing is kept that was made of it; it reads the same when all others have been and gone."""
    keep, look = HOLDERS[holder]
    wanted, held = [], []
    for batch in rz.WindowLoader(dataset, 4, threads=2, prefetch=1):
        wanted.append(look(keep(batch["actions"].clone())).clone())
        held.append(keep(batch["actions"]))
        del batch
    for one, then in zip(held, wanted, strict=True):
        assert torch.equal(look(one), then)


def test_what_autograd_saved(dataset: rz.WindowDataset) -> None:
    """transformers' Trainer.get_batch_samples, losses that are added up: the backward pass reads batches that went by."""
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss, expected = torch.zeros((), dtype=torch.float64), 0.0
    for batch in rz.WindowLoader(dataset, 4, threads=2, prefetch=1):
        loss = loss + Saved.apply(batch["agentview_rgb"], weight) + (batch["actions"] * weight).sum()  # type: ignore[no-untyped-call]
        expected += float(batch["agentview_rgb"].double().sum()) + float(batch["actions"].sum())
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad.item(), expected, rtol=1e-12)


def _accumulated(loader: rz.WindowLoader) -> Iterator[list[dict[str, Any]]]:
    batches = iter(loader)
    while group := list(itertools.islice(batches, 4)):
        yield group


@pytest.mark.parametrize(
    "options",
    [
        {}, {"prefetch": 1}, {"prefetch": 5, "threads": 3}, {"cache": "host"}, {"cache": "device"}, {"shuffle": False},
    ],
    ids=str,
)  # fmt: skip
def test_list_of_the_loader(dataset: rz.WindowDataset, options: dict[str, Any]) -> None:
    """Lightning's #2611, an evaluation set that is kept: list(loader), twice."""
    loader = rz.WindowLoader(dataset, 4, **options)
    first, second = list(loader), list(loader)
    check(dataset, first)
    check(dataset, second)


def test_gradient_accumulation(dataset: rz.WindowDataset) -> None:
    """transformers' Trainer.get_batch_samples: four batches are drawn before the first is used."""
    check(dataset, [batch for group in _accumulated(rz.WindowLoader(dataset, 4)) for batch in group])


def test_a_kept_training_batch(dataset: rz.WindowDataset) -> None:
    """diffusion_policy's train_sampling_batch (train_diffusion_unet_image_workspace.py): the first batch, used epochs later."""
    loader, first, rows = rz.WindowLoader(dataset, 8), None, []
    for _ in range(3):
        for batch in loader:
            if first is None:
                first, rows = batch, [batch["agentview_rgb"].clone(), batch["actions"].clone()]
    assert first is not None
    assert torch.equal(first["agentview_rgb"], rows[0])
    assert torch.equal(first["actions"], rows[1])


def test_a_queue_in_a_thread(dataset: rz.WindowDataset) -> None:
    """The consumer is another thread, and slower."""
    batches: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def fill() -> None:
        for batch in rz.WindowLoader(dataset, 4):
            batches.put(batch)
        batches.put(None)

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
    check(dataset, list(iter(batches.get, None)))


def test_cycle_and_two_iterators_at_once(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 8)
    n = len(loader)
    cycled = list(itertools.islice(itertools.cycle(loader), 3 * n))
    for epoch in range(3):
        check(dataset, cycled[epoch * n : (epoch + 1) * n])
    other = rz.WindowLoader(dataset, 8, seed=2)
    pairs = list(zip(iter(loader), iter(other), strict=True))
    check(dataset, [one for one, _ in pairs])
    check(dataset, [two for _, two in pairs])
    one, two = iter(other), iter(other)  # of one loader
    mine, yours = [], []
    for a, b in itertools.zip_longest(one, two):
        mine.append(a)
        yours.append(b)
    check(dataset, mine)


def test_changes_in_place_are_seen_by_nobody_else(dataset: rz.WindowDataset) -> None:
    """auto_e2e#202: noise and normalising in place, on the CPU."""
    loader = rz.WindowLoader(dataset, 4, threads=2, prefetch=1)
    for _ in range(2):
        good = []
        for batch in loader:
            good.append(
                {name: value.clone() if isinstance(value, torch.Tensor) else list(value) for name, value in batch.items()}
            )
            for value in batch.values():
                if isinstance(value, torch.Tensor):
                    value.fill_(1 if value.dtype == torch.bool else 77)
                else:
                    value.clear()
        check(dataset, good)


@pytest.mark.parametrize(
    "options",
    [
        {"images": rz.Images()},
        {"images": rz.Images(dtype=None, scale=False, upright=False)},
        {"normalise": rz.Normalise(keys={"actions": "mean_std"})},
        {"transform": lambda batch: batch | {"half": batch["agentview_rgb"][:, :1]}},
    ],
    ids=["images", "images as stored", "normalise", "transform"],
)
@pytest.mark.parametrize("cache", [None, "host", "device"])
def test_kept_batches_with_steps_after_reading(dataset: rz.WindowDataset, options: dict[str, Any], cache: Any) -> None:
    kept, then = [], []
    for batch in rz.WindowLoader(dataset, 8, cache=cache, prefetch=1, **options):
        kept.append(batch)
        then.append({name: value.clone() for name, value in batch.items() if isinstance(value, torch.Tensor)})
    for one, other in zip(kept, then, strict=True):
        assert all(torch.equal(one[name], value) for name, value in other.items())


# memory


def pictures(loader: rz.WindowLoader) -> Any:
    """The pool of the pictures."""
    (pool,) = [pool for pool in loader.leases._pools.values() if pool.name == "agentview_rgb"]
    return pool


def test_memory_is_used_again_where_nobody_holds_it(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 4, prefetch=2)
    places = {batch["agentview_rgb"].data_ptr() for _ in range(3) for batch in loader}
    assert len(places) <= 4  # two that are read ahead, the loop's, and a spare one
    assert loader.leases.held_bytes == 0


def test_keeping_a_small_field_keeps_no_pictures(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 4, prefetch=1)
    steps, masks = [], []
    for batch in loader:
        steps.append(batch["step"])
        masks.append(batch["actions_is_pad"])
    assert loader.leases.held_bytes <= batch["agentview_rgb"].nbytes + batch["actions"].nbytes
    del batch
    gc.collect()
    assert loader.leases.held_bytes == 0
    assert sorted(torch.cat(steps).tolist()) == sorted(int(step) for step in dataset.read(range(len(dataset)))["step"])
    actions = [batch["actions"] for batch in rz.WindowLoader(dataset, 32)]
    assert sum(len(one) for one in actions) == len(dataset)


def test_memory_that_was_kept_for_long_is_given_up(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 2, prefetch=1)
    kept = list(loader)
    assert pictures(loader).n_held == len(kept) == 22
    del kept
    assert pictures(loader).n_held == 0
    assert len(pictures(loader)._free) <= 4
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    kept = list(itertools.islice(batches, 20))
    del kept
    for _ in itertools.islice(batches, 200):
        pass
    assert len(pictures(loader)._free) <= 4


def test_a_budget_that_says_who_holds(dataset: rz.WindowDataset) -> None:
    """And past it the loader goes on, once somebody has let go."""
    loader = rz.WindowLoader(dataset, 2, prefetch=1, hold_bytes=1_000_000)
    assert sum(len(batch["step"]) for batch in loader) == len(dataset)  # an ordinary loop needs none of it
    kept: list[dict[str, Any]] = []
    message = r"fit into 0\.001 GB; it keeps 0\.00\d+ GB, \d+ of agentview_rgb.* a list of \d+, kept in test_a_budget.*clone"
    with pytest.raises(WindowError, match=message) as caught:
        kept.extend(loader)
    assert 5 <= len(kept) < 22
    del caught
    kept.clear()
    gc.collect()
    assert loader.leases.held_bytes == 0
    assert sum(1 for _ in loader) > 0
    assert sum(len(batch["step"]) for batch in loader) == len(dataset)


def test_leases_outlive_their_loader_and_threads(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 8)
    kept: deque[Any] = deque(loader)
    del loader
    gc.collect()
    check(dataset, list(kept))
    pool = Leases().pool("a", (4, 100), "uint8")
    tensor = pool.lend(pool.take(), 3)
    thread = threading.Thread(target=lambda held: None, args=(tensor,))
    del tensor
    thread.start()
    thread.join()
    del thread
    gc.collect()
    assert pool.n_held == 0


def test_a_loader_with_batches_out_can_be_pickled_and_saved(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 8)
    kept = list(loader)
    again = pickle.loads(pickle.dumps(loader))
    check(dataset, list(again))
    file = io.BytesIO()
    torch.save(kept[0]["actions"], file)
    file.seek(0)
    assert torch.equal(torch.load(file), kept[0]["actions"])


def test_copy_is_deprecated(dataset: rz.WindowDataset) -> None:
    for given in (True, False):
        with pytest.warns(DeprecationWarning, match="copy: has no effect: a batch never changes"):
            loader = rz.WindowLoader(dataset, 8, copy=given)
        check(dataset, list(loader))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rz.WindowLoader(dataset, 8)

"""One step of the experiment each, as a worker process does it: record a demo, train a policy, roll one out.

Everything is a function of the seeds in its arguments, whatever was done before in the same process and in whatever order.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tail.plan import PolicyPlan

if TYPE_CHECKING:
    from tail.demos import Demo
    from tail.policy import Policy
    from tail.stepper import Simulator

__all__ = ["Setting", "record_one", "roll_out_one", "train_one"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where everything lies and what is simulated; what every worker is told."""

    folder: Path
    libero: Path | None
    """A checkout of LIBERO, whose own task is simulated then."""
    n_demos: int
    n_held_out: int
    n_steps: int
    batch_size: int
    max_steps: int

    @property
    def store(self) -> Path:
        """The converted demonstrations."""
        return self.folder / "demos.zarr"

    def policy(self, plan: PolicyPlan, seed: int) -> Path:
        """The file of a policy."""
        return self.folder / "policies" / f"{plan.name}-{seed}.pt"


@cache
def _simulator(libero: Path | None) -> tuple[Simulator, float, float]:
    """A simulator, once a process, and where its bowl is grasped (m): how far from its middle, and above it."""
    from tail.stepper import Simulator

    if libero is not None:
        from tail.libero import BOWL, DEPTH, PLATE, RIM, make_scene

        return Simulator(make_scene(libero), BOWL, PLATE), RIM, DEPTH
    from tail import scene

    return Simulator(scene.make_scene(), scene.BOWL, scene.PLATE), scene.RADIUS, scene.DEPTH


@cache
def _policy(path: Path) -> Policy:
    import torch

    from tail.policy import Policy

    torch.set_num_threads(1)
    return Policy.load(path)


def record_one(setting: Setting, seed: int) -> Demo | None:
    """Record a demonstration; None where it failed."""
    from tail.demos import record

    simulator, rim, depth = _simulator(setting.libero)
    return record(simulator, seed, rim=rim, depth=depth)


def train_one(setting: Setting, plan: PolicyPlan, seed: int) -> dict[str, Any]:
    """Train a policy, save it, and say what windows it was served and where it errs."""
    import torch

    from robozarr.store.opened import open_store
    from tail.held_out import errors_by_steps_left
    from tail.policy import Scale, features, observed, train
    from tail.schemes import make_dataset, make_loader
    from tail.served import share_served

    torch.set_num_threads(1)
    began = time.process_time()
    store = open_store(setting.store)
    episodes = range(setting.n_demos if plan.n_demos is None else plan.n_demos)
    every = _all(make_dataset(store, chunk=1, episodes=episodes))
    scale = Scale.of(features(observed(every)[:, 1]), every["actions"][:, 0].float())
    dataset = make_dataset(store, chunk=plan.chunk, episodes=episodes, causal=plan.causal, exclude_noops=plan.exclude_noops)
    loader = make_loader(dataset, plan.scheme, chunk=plan.chunk, seed=seed, batch_size=setting.batch_size, repeat=plan.repeat)
    policy, anchors = train(loader.forever(), scale, chunk=plan.chunk, seed=seed, n_steps=setting.n_steps, mask=plan.mask)
    cpu_s = time.process_time() - began
    policy.save(setting.policy(plan, seed))
    last = range(setting.n_demos, setting.n_demos + setting.n_held_out)
    held_out = make_dataset(store, chunk=plan.chunk, episodes=last)
    return {
        "policy": plan.name,
        "seed": seed,
        "cpu_s": round(cpu_s, 1),
        "served": share_served(store, episodes, anchors, chunk=plan.chunk),
        "held_out": errors_by_steps_left(policy, held_out),
    }


def roll_out_one(setting: Setting, plan: PolicyPlan, seed: int, executed: int, state: int) -> dict[str, Any]:
    """Roll a policy out from one initial state."""
    from tail.rollout import roll_out

    simulator, _, _ = _simulator(setting.libero)
    began = time.process_time()
    outcome = roll_out(
        simulator, _policy(setting.policy(plan, seed)), seed=state, executed=executed, max_steps=setting.max_steps
    )
    cpu_s = round(time.process_time() - began, 2)
    return {"policy": plan.name, "executed": executed, "seed": seed, "state": state} | asdict(outcome) | {"cpu_s": cpu_s}


def _all(dataset: Any) -> dict[str, Any]:
    batch: dict[str, Any] = dataset.read(range(len(dataset)))
    return batch

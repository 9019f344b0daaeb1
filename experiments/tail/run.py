"""Runs the experiment: demonstrations, conversion, training, rollouts. What is done already is not done again."""

from __future__ import annotations

import json
import multiprocessing as mp
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from robozarr.convert import convert
from robozarr.store.opened import open_store
from tail.demos import Demo, write_hdf5
from tail.plan import PolicyPlan, Size
from tail.results import Results
from tail.served import releases_of
from tail.work import Setting, record_one, roll_out_one, train_one

__all__ = ["run"]

LIBRARIES: Final = ("mujoco", "robosuite", "numpy", "torch")
FIRST_DEMO: Final = 1000
FIRST_HELD_OUT: Final = 9000
"""Seeds of the initial states of the demonstrations; rollouts begin from 1, 2, 3, …"""
AT_A_TIME: Final = 5
"""Rollouts that a worker takes at a time: of one policy, which it then loads once."""
BLOCK: Final = 10


def run(
    size: Size, folder: Path, *, libero: Path | None = None, workers: int = 2, say: Callable[[str], None] = print
) -> Results:
    """Run all of it, or what is left of it.

    Parameters
    ----------
    folder : Path
        Keeps everything. A run that was interrupted goes on there; another size or task needs another folder.
    libero : Path, optional
        A checkout of LIBERO; its own task then, in place of the scene of boxes.

    Raises
    ------
    SystemExit
        If the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policies").mkdir(exist_ok=True)
    _check_same(folder, size, libero)
    setting = Setting(
        folder=folder, libero=libero, n_demos=size.n_demos, n_held_out=size.n_held_out, n_steps=size.n_steps,
        batch_size=size.batch_size, max_steps=size.max_steps,
    )  # fmt: skip
    with mp.get_context("spawn").Pool(workers) as pool:
        demos = _make_demos(pool, setting, say)
        policies = _train(pool, setting, size, say)
        rollouts = _roll_out(pool, setting, size, say)
        pool.close()
        pool.join()
    cpu_s = {
        "demonstrations": demos["cpu_s"],
        "training": sum(entry["cpu_s"] for entry in policies),
        "rollouts": sum(entry["cpu_s"] for entry in rollouts),
    }
    task = "LIBERO's own task" if libero else "a bowl and a plate of boxes"
    libraries = {name: version(name) for name in LIBRARIES} | {"Python": platform.python_version()}
    return Results(size=size, task=task, demos=demos, policies=policies, rollouts=rollouts, cpu_s=cpu_s, libraries=libraries)


def _check_same(folder: Path, size: Size, libero: Path | None) -> None:
    """Refuse to mix two experiments in one folder. More rows, seeds or states than before are what is left to do."""
    names = ("n_demos", "n_held_out", "n_steps", "batch_size", "max_steps")
    now = {name: getattr(size, name) for name in names} | {"libero": libero is not None}
    path = folder / "setting.json"
    if not path.exists():
        path.write_text(json.dumps(now))
    elif (before := json.loads(path.read_text())) != now:
        raise SystemExit(f"{folder}: holds a run of {before}, not of {now} → pass another --work, or remove the folder")


def _make_demos(pool: Any, setting: Setting, say: Callable[[str], None]) -> dict[str, Any]:
    """Record and convert the demonstrations, once; says how long they are, and how far from the end they release."""
    summary = setting.folder / "demos.json"
    if summary.exists():
        found: dict[str, Any] = json.loads(summary.read_text())
        return found
    recorded: list[Demo] = []
    began, n_failed, cpu_s = time.monotonic(), 0, 0.0
    for first, n in ((FIRST_DEMO, setting.n_demos), (FIRST_HELD_OUT, setting.n_held_out)):
        wanted, seed = len(recorded) + n, first
        while len(recorded) < wanted and seed < first + 4 * n:
            seeds = range(seed, seed + wanted - len(recorded))
            seed = seeds.stop
            for demo, took in pool.imap(_record, [(setting, seed) for seed in seeds]):
                cpu_s += took
                n_failed += demo is None
                recorded += [] if demo is None else [demo]
                say(
                    f"demonstrations: {len(recorded)} of {setting.n_demos + setting.n_held_out}{_left(began, len(recorded), 0)}"
                )
        if len(recorded) < wanted:
            raise SystemExit(f"demonstrations: {n} that succeed, of {4 * n} attempts; {n_failed} failed → look at the scene")
    source = setting.folder / "put_the_bowl_on_the_plate_demo.hdf5"
    write_hdf5(recorded, source)
    convert(source, setting.store, workers=0, overwrite=setting.store.exists())
    found = _summarise(setting) | {"n_failed": n_failed, "cpu_s": round(cpu_s, 1)}
    _write(summary, json.dumps(found))
    return found


def _summarise(setting: Setting) -> dict[str, Any]:
    """Lengths of the episodes to train on, and how many steps after the release are left."""
    store = open_store(setting.store)
    episodes = range(setting.n_demos)
    length, start = store.episodes.length[list(episodes)], store.episodes.start[list(episodes)]
    # the action that opens the gripper is the one of the next row
    left = [int(at + n - 2 - row) for row, at, n in zip(releases_of(store, episodes), start, length, strict=True)]
    return {"lengths": length.tolist(), "steps_after_release": left}


def _train(pool: Any, setting: Setting, size: Size, say: Callable[[str], None]) -> list[dict[str, Any]]:
    path = setting.folder / "policies.jsonl"
    wanted = [(plan, seed) for seed in range(size.n_seeds) for plan in size.policies]
    done = {(entry["policy"], entry["seed"]): entry for entry in _read(path)}
    jobs = [(setting, plan, seed) for plan, seed in wanted if (plan.name, seed) not in done]
    began = time.monotonic()
    for entry in pool.imap_unordered(_train_job, jobs):
        _append(path, entry)
        done[entry["policy"], entry["seed"]] = entry
        n = sum((plan.name, seed) in done for plan, seed in wanted)
        left = _left(began, n - len(wanted) + len(jobs), len(wanted) - n)
        say(f"training: {n} of {len(wanted)}: {entry['policy']}, seed {entry['seed']}, {entry['cpu_s']:.0f} s of CPU{left}")
    return [done[plan.name, seed] for plan, seed in wanted]


def _roll_out(pool: Any, setting: Setting, size: Size, say: Callable[[str], None]) -> list[dict[str, Any]]:
    path = setting.folder / "rollouts.jsonl"
    # ten states at a time for all rows and seeds: an interrupted run has found something about each
    blocks = [range(first, min(first + BLOCK, size.n_states + 1)) for first in range(1, size.n_states + 1, BLOCK)]
    wanted = [(row, seed, state) for states in blocks for row in size.rows for seed in range(size.n_seeds) for state in states]
    done = {_key(entry): entry for entry in _read(path)}
    keys = [(row.policy.name, row.executed, seed, state) for row, seed, state in wanted]
    jobs = [
        (setting, row.policy, seed, row.executed, state)
        for (row, seed, state), key in zip(wanted, keys, strict=True)
        if key not in done
    ]
    began, n = time.monotonic(), len(wanted) - len(jobs)
    for entry in pool.imap_unordered(_roll_out_job, jobs, chunksize=AT_A_TIME):
        _append(path, entry)
        done[_key(entry)] = entry
        n += 1
        if n % 10 == 0 or n == len(wanted):
            say(f"rollouts: {n} of {len(wanted)}{_left(began, n - len(wanted) + len(jobs), len(wanted) - n)}")
    return [done[key] for key in keys]


def _key(entry: dict[str, Any]) -> tuple[str, int, int, int]:
    return entry["policy"], entry["executed"], entry["seed"], entry["state"]


def _record(job: tuple[Setting, int]) -> tuple[Demo | None, float]:
    began = time.process_time()
    return record_one(*job), time.process_time() - began


def _train_job(job: tuple[Setting, PolicyPlan, int]) -> dict[str, Any]:
    return train_one(*job)


def _roll_out_job(job: tuple[Setting, PolicyPlan, int, int, int]) -> dict[str, Any]:
    return roll_out_one(*job)


def _left(began: float, n_done: int, n_left: int) -> str:
    """How long it took and how long the rest will take, as the end of a line."""
    took = time.monotonic() - began
    rest = f", {took / n_done * n_left:.0f} s left" if n_done and n_left else ""
    return f" ({took:.0f} s{rest})"


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a file of one JSON value a line; a line that an interrupted run did not end is cut off."""
    if not path.exists():
        return
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    yield from map(json.loads, whole.splitlines())


def _append(path: Path, entry: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)

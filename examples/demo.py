"""A tour in a minute: convert the sample, verify it, report on it, load its windows beside h5py, train an epoch on it.

    python examples/demo.py --store .venv/demo.zarr

Every stage says how long it took. ``make demo`` runs this.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
SAMPLE = Path(__file__).parents[1] / "sample"
WINDOW: dict[str, Any] = {"agentview_rgb": [-1, 0], "eye_in_hand_rgb": [-1, 0], "joint_states": [0], "actions": range(64)}
BATCH, SECONDS = 16, 1.5


@contextmanager
def stage(words: str) -> Iterator[Callable[[str], None]]:
    """Print what begins, and how long it took; the caller may add a result."""
    print(f"{words} …", flush=True)
    began, results = time.perf_counter(), list[str]()
    yield results.append
    print(f"  {time.perf_counter() - began:.1f} s{''.join(f' · {result}' for result in results)}", flush=True)


def read_by_h5py(demos: list[dict[str, Any]], anchors: list[tuple[int, int]]) -> dict[str, Any]:
    """The same windows from HDF5 datasets that stay open: one slice per key and window, repeated at an episode's ends."""
    batch: dict[str, list[Any]] = {name: [] for name in WINDOW}
    for episode, step in anchors:
        for name, offsets in WINDOW.items():
            values = demos[episode][name]
            rows = np.clip(step + np.asarray(offsets), 0, len(values) - 1)
            batch[name].append(values[rows[0] : rows[-1] + 1][rows - rows[0]])
    return {name: np.stack(values) for name, values in batch.items()}


def windows_per_second(read: Callable[[], int]) -> float:
    """Call `read`, which returns how many windows it read, for a while."""
    read()
    began, n = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        n += read()
    return n / (time.perf_counter() - began)


def compare(store: Any, loader: Any, files: list[Any]) -> tuple[float, float]:
    """Check that both ways read the same windows; windows/s of h5py and of the loader."""
    groups = [files[source]["data"][demo] for source, demo in zip(store.episodes.source, store.episodes.demo, strict=True)]
    demos = [{name: group[store.keys[name].source] for name in WINDOW} for group in groups]
    batches = [list(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)) for batch in loader]
    for batch in loader:
        anchors = list(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True))
        for name, values in read_by_h5py(demos, anchors).items():
            np.testing.assert_array_equal(batch[name].numpy(), values, err_msg=name)
    by_h5py = windows_per_second(lambda: sum(len(read_by_h5py(demos, batch)["actions"]) for batch in batches))
    return by_h5py, windows_per_second(lambda: sum(len(batch["actions"]) for batch in loader))


def run(path: Path, report: Path) -> None:
    """All stages."""
    with stage("loading packages: torch, zarr, Dask"):
        import robozarr as rz
        from robozarr.convert import convert, verify
        from robozarr.loader.warm import compile_reader
        from robozarr.view.report import write_report
    with stage("converting two LIBERO files (robozarr convert)") as add:
        made = convert(SAMPLE, path, overwrite=True, workers=0)
        add(f"{made.n_episodes} episodes, {made.n_steps} steps, {made.stored_bytes / 1e6:.1f} MB in {path}")
    with stage("comparing every byte with the files (robozarr verify)") as add:
        checked = verify(path, sources=SAMPLE, workers=0)
        add("identical to its sources" if checked.ok else f"{len(checked.violations)} violations: {checked.violations[0]}")
    store = rz.open_store(path)
    with stage("drawing the report (robozarr report)") as add:
        write_report(store, report)
        add(str(report))
    with stage("compiling the reader, once per user (python -m robozarr.loader.warm does it ahead)"):
        compile_reader(("fast",))
    dataset = rz.WindowDataset(store, WINDOW)
    loader = rz.WindowLoader(dataset, BATCH, shuffle=False)
    with stage(f"reading the same {len(dataset)} windows by h5py and by WindowLoader, and comparing them") as add:
        files = [h5py.File(SAMPLE / source.name) for source in store.metadata.sources]
        by_h5py, ours = compare(store, loader, files)
        for file in files:
            file.close()
        add(f"h5py {by_h5py:,.0f} windows/s · WindowLoader {ours:,.0f} windows/s ({ours / by_h5py:.1f}×)")
    with stage("training one epoch (examples/train_bc.py)"):
        import train_bc  # type: ignore[import-not-found]

        train_bc.train(str(path), 1)
    print(f"""
next: open {report.resolve()} in a browser
      robozarr convert YOUR/FOLDER --store my.zarr      (robozarr convert --help; docs/converting.md)
      python examples/train_bc.py my.zarr               (docs/loops.md: your own loop)""")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, default=Path("demo.zarr"))
    parser.add_argument("--report", type=Path, default=Path("demo.html"))
    options = parser.parse_args()
    run(options.store, options.report)
